//! Session establishment, RFC 3921 §3: older clients ask for it after binding. Nothing is left to do.

use crate::account::Account;
use crate::effects::Effects;
use crate::module::{Answer, Handled, Iq, Module, Who};
use xmpp::IqType;
use xmpp::ns::SESSION;

pub static MODULE: Module = Module {
    name: "legacy session",
    account_iq: &[(IqType::Set, SESSION, "session", Who::Owner, established)],
    own_at_host: true,
    ..Module::EMPTY
};

fn established(_: &mut Account, _: &Iq<'_>, _: &mut Effects) -> Handled {
    Ok(Answer::Result(None))
}
