//! Software Version, XEP-0092: name and version of the server, never the operating system.

use crate::effects::Effects;
use crate::host::Host;
use crate::module::{Iq, Module, xep};
use xmpp::{Element, IqType, StanzaError};

pub const NS: &str = "jabber:iq:version";

pub static MODULE: Module = Module {
    name: "version",
    specs: &[xep(92, "1.1")],
    host_features: &[NS],
    host_iq: &[(IqType::Get, NS, "query", version)],
    ..Module::EMPTY
};

fn version(host: &mut Host, _: &Iq<'_>, _: &mut Effects) -> Result<Option<Element>, StanzaError> {
    let (name, version) = host.policy.software;
    Ok(Some(
        Element::new("query", NS)
            .child(Element::new("name", NS).text(name))
            .child(Element::new("version", NS).text(version)),
    ))
}
