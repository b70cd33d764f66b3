//! Which limit a stream error is about, by the name of its option: so it is counted.

use xmpp::StreamFault;
use xmpp::xml::XmlFault;

/// Whose stream it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Nobody's yet.
    Stranger,
    Client,
    Server,
    Component,
}

/// `None`: the fault is no limit's.
pub fn by(fault: &StreamFault, of: Of) -> Option<&'static str> {
    let stranger = of == Of::Stranger;
    Some(match fault {
        StreamFault::Xml(XmlFault::TooBig { what, .. }) => match *what {
            "elements" if stranger => "before_auth_elements_max",
            "elements" => "stanza_elements_max",
            "depth" if stranger => "before_auth_depth_max",
            "depth" => "stanza_depth_max",
            "attributes" if stranger => "before_auth_attributes_max",
            "attributes" => "stanza_attributes_max",
            "name" => "name_bytes_max",
            "attribute" => "attribute_bytes_max",
            "element" => match of {
                Of::Stranger => "before_auth_bytes_max",
                Of::Client => "stanza_bytes_max",
                Of::Server => "s2s_stanza_bytes_max",
                Of::Component => "component_stanza_bytes_max",
            },
            // Declarations, prefixes in scope.
            _ if stranger => "before_auth_declarations_max",
            _ => "stanza_declarations_max",
        },
        StreamFault::NegotiationTimeout => "authentication_seconds",
        StreamFault::IdleTimeout => "idle_close_seconds",
        StreamFault::TooManyAuthFailures => "auth_failures_per_connection_max",
        StreamFault::TooManyConnections => "unauthenticated_percent",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_named_for_who_hit_it() {
        let big = |what| StreamFault::Xml(XmlFault::TooBig { what, max: 1 });
        assert_eq!(by(&big("element"), Of::Stranger), Some("before_auth_bytes_max"));
        assert_eq!(by(&big("element"), Of::Client), Some("stanza_bytes_max"));
        assert_eq!(by(&big("element"), Of::Server), Some("s2s_stanza_bytes_max"));
        assert_eq!(by(&big("element"), Of::Component), Some("component_stanza_bytes_max"));
        assert_eq!(by(&big("namespace declarations"), Of::Client), Some("stanza_declarations_max"));
        assert_eq!(by(&StreamFault::SystemShutdown, Of::Client), None);
    }
}
