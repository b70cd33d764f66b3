//! XMPP Ping, XEP-0199: is anyone there?

use crate::account::Account;
use crate::effects::Effects;
use crate::host::Host;
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::view::Exit;
use xmpp::{Element, IqType, StanzaError};

pub const NS: &str = "urn:xmpp:ping";

pub static MODULE: Module = Module {
    name: "ping",
    specs: &[xep(199, "2.0.1")],
    host_features: &[NS],
    account_features: &[NS],
    // A stranger's ping of a bare JID would tell that the account exists.
    account_iq: &[(IqType::Get, NS, "ping", Who::Viewer(Exit::AccountInfo), pong)],
    host_iq: &[(IqType::Get, NS, "ping", pong_of_host)],
    ..Module::EMPTY
};

fn pong(_: &mut Account, _: &Iq<'_>, _: &mut Effects) -> Handled {
    Ok(Answer::Result(None))
}

fn pong_of_host(_: &mut Host, _: &Iq<'_>, _: &mut Effects) -> Result<Option<Element>, StanzaError> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use crate::testing::account;

    #[test]
    fn the_own_server_answers_a_ping_without_to() {
        let mut juliet = account("juliet@capulet.example").with("home", 0);
        let fx = juliet.sends("home", "<iq type='get' id='p1'><ping xmlns='urn:xmpp:ping'/></iq>");
        assert_eq!(fx.delivered("home"), ["<iq to='juliet@capulet.example/home' id='p1' type='result'/>"]);
    }
}
