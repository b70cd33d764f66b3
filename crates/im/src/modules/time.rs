//! Entity Time, XEP-0202: what the server's clock says.

use crate::effects::Effects;
use crate::host::Host;
use crate::module::{Iq, Module, xep};
use xmpp::{Element, IqType, StanzaError};

pub const NS: &str = "urn:xmpp:time";

pub static MODULE: Module = Module {
    name: "time",
    specs: &[xep(202, "2.0"), xep(82, "1.1.1")],
    host_features: &[NS],
    host_iq: &[(IqType::Get, NS, "time", time)],
    ..Module::EMPTY
};

/// The server keeps UTC, and says so: its place is nobody's business.
fn time(host: &mut Host, _: &Iq<'_>, _: &mut Effects) -> Result<Option<Element>, StanzaError> {
    let utc = host.now.utc.to_xmpp();
    Ok(Some(
        Element::new("time", NS).child(Element::new("tzo", NS).text("+00:00")).child(Element::new("utc", NS).text(utc)),
    ))
}
