//! Message Processing Hints, XEP-0334: what the sender would like to happen to a message besides its delivery.

use crate::module::{Module, xep};
use xmpp::ns::HINTS as NS;
use xmpp::{MessageType, Stanza, StanzaType};

pub static MODULE: Module =
    Module { name: "hints", specs: &[xep(334, "1.0.0")], account_features: &[NS], ..Module::EMPTY };

/// The hints of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hints {
    /// Not in an archive; may wait for delivery. §4.1.
    pub no_permanent_store: bool,
    /// Not even until it is delivered. §4.2.
    pub no_store: bool,
    /// No carbons. §4.3.
    pub no_copy: bool,
    /// Worth keeping though it has no body. §4.4.
    pub store: bool,
}

/// Reads them; an error has none (§5).
pub fn of(message: &Stanza) -> Hints {
    let mut hints = Hints::default();
    if message.kind == StanzaType::Message(MessageType::Error) {
        return hints;
    }
    for child in message.payload.children().filter(|child| child.ns == NS) {
        match child.name {
            "no-permanent-store" => hints.no_permanent_store = true,
            "no-store" => hints.no_store = true,
            "no-copy" => hints.no_copy = true,
            "store" => hints.store = true,
            _ => {}
        }
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stanza;

    #[test]
    fn hints_are_read_from_the_message() {
        let hints = of(&stanza(
            "<message><body>hi</body><no-copy xmlns='urn:xmpp:hints'/><no-store xmlns='urn:xmpp:hints'/></message>",
        ));
        assert_eq!(hints, Hints { no_copy: true, no_store: true, ..Hints::default() });
    }

    // XEP-0334 §5.
    #[test]
    fn an_error_has_no_hints() {
        assert_eq!(of(&stanza("<message type='error'><store xmlns='urn:xmpp:hints'/></message>")), Hints::default());
    }
}
