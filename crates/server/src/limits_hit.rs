//! How often peers hit a limit: by the name of the option that sets it, or of what happens then where none does.

use crate::house::House;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use xmpp::StreamFault;
use xmpp::xml::XmlFault;

/// Options whose limits are counted by their names ([`House::limit`]).
pub const OPTIONS: [&str; 59] = [
    "ack_seconds",
    "attribute_bytes_max",
    "auth_failures_delay_after",
    "auth_failures_per_connection_max",
    "auth_failures_refuse_after",
    "authentication_seconds",
    "before_auth_attributes_max",
    "before_auth_bytes_max",
    "before_auth_declarations_max",
    "before_auth_depth_max",
    "before_auth_elements_max",
    "block_items_max",
    "component_queue_stanzas_max",
    "component_stanza_bytes_max",
    "connections_per_address_max",
    "connections_per_second",
    "directed_presence_max",
    "fetches_per_minute",
    "first_byte_seconds",
    "groups_per_item_max",
    "hibernated_per_account_max",
    "idle_close_seconds",
    "inbound_bytes_per_second",
    "invited_registrations_per_hour",
    "invites_per_account_max",
    "name_bytes_max",
    "offline_bytes_max",
    "offline_messages_max",
    "pep_bytes_max",
    "pep_item_bytes_max",
    "pep_items_max",
    "pep_nodes_max",
    "private_bytes_max",
    "registrations_per_hour",
    "requests_max",
    "roster_bytes_max",
    "roster_items_max",
    "s2s_bytes_per_second",
    "s2s_connect_seconds",
    "s2s_dials_max",
    "s2s_queue_stanzas_max",
    "s2s_stanza_bytes_max",
    "send_queue_stanzas_max",
    "sessions_per_account_max",
    "stanza_attributes_max",
    "stanza_bytes_max",
    "stanza_declarations_max",
    "stanza_depth_max",
    "stanza_elements_max",
    "stanzas_per_second",
    "stranger_messages_per_minute",
    "strangers_per_minute",
    "tls_handshake_seconds",
    "unacked_bytes_max",
    "unacked_stanzas_max",
    "unauthenticated_per_address_max",
    "unauthenticated_percent",
    "vcard_bytes_max",
    "write_seconds",
];

/// What is counted ([`House::count`]) when a limit is hit that no option sets.
pub const FIXED: [&str; 6] = [
    "accept_errors",
    "displayed_markers_refused",
    "mailbox_full",
    "push_unanswered",
    "s2s_leases_full",
    "s2s_verifications_full",
];

/// All limits that can be hit, with how often they were.
pub fn all(house: &House) -> BTreeMap<&'static str, u64> {
    let mut all: BTreeMap<&'static str, u64> = OPTIONS.into_iter().map(|name| (name, 0)).collect();
    for entry in house.limits_hit.iter() {
        all.insert(entry.key(), entry.value().load(Ordering::Relaxed));
    }
    for name in FIXED {
        all.insert(name, house.counters.get(name).map_or(0, |count| count.load(Ordering::Relaxed)));
    }
    all
}

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
    fn limits_are_named_as_their_options_are() {
        let options = crate::config::options::all();
        for name in OPTIONS {
            let is_option = options.iter().any(|section| section.options.iter().any(|option| option.key == name));
            assert!(is_option, "there is no option {name}");
        }
    }

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
