//! The four operation sets, as the architecture has them: presence and instant messages, each between client and server and
//! between servers. One stream carries them; here they are told apart, so that each can be switched off, counted and
//! logged by itself.

use crate::account::Account;
use crate::effects::Effects;
use crate::leases;
use crate::modules::fetch;
use crate::policy::HostPolicy;
use crate::tuples;
use crate::watchers;
use crate::ways::{Flow, Passage};
use xmpp::{IqType, Stanza, StanzaCondition, StanzaError, StanzaType};

/// Between whom a stanza passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Link {
    /// A client and its server.
    Client,
    /// Servers of two domains.
    Server,
}

/// What a stanza is an operation of: one of four sets, or neither presence nor a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    ClientPresence,
    ClientMessages,
    ServerPresence,
    ServerMessages,
    /// Rosters, discovery, archives and what clients ask of each other.
    Iq(Link),
}

/// Iqs that are presence operations: they fetch, publish, subscribe, or tell who watches.
const PRESENCE_IQS: [&str; 4] = [fetch::NS, tuples::NS, watchers::NS, leases::NS];

impl Operation {
    pub const ALL: [Operation; 6] = [
        Operation::ClientPresence,
        Operation::ClientMessages,
        Operation::ServerPresence,
        Operation::ServerMessages,
        Operation::Iq(Link::Client),
        Operation::Iq(Link::Server),
    ];

    /// Which one the stanza is, on this link.
    pub fn of(stanza: &Stanza, link: Link) -> Operation {
        let is_presence = match stanza.kind {
            StanzaType::Presence(_) => true,
            StanzaType::Message(_) => {
                return if link == Link::Client { Operation::ClientMessages } else { Operation::ServerMessages };
            }
            StanzaType::Iq(_) => stanza.payload.first().is_some_and(|child| PRESENCE_IQS.contains(&child.ns)),
        };
        match (is_presence, link) {
            (true, Link::Client) => Operation::ClientPresence,
            (true, Link::Server) => Operation::ServerPresence,
            (false, link) => Operation::Iq(link),
        }
    }

    /// Of the counter that counts it, and of the target that it is logged under.
    pub fn name(self) -> &'static str {
        match self {
            Operation::ClientPresence => "operations_client_presence",
            Operation::ClientMessages => "operations_client_messages",
            Operation::ServerPresence => "operations_server_presence",
            Operation::ServerMessages => "operations_server_messages",
            Operation::Iq(Link::Client) => "operations_client_iq",
            Operation::Iq(Link::Server) => "operations_server_iq",
        }
    }

    /// Does the host have it on?
    pub fn is_on(self, policy: &HostPolicy) -> bool {
        match self {
            Operation::ClientPresence => policy.presence && policy.client_presence,
            Operation::ClientMessages => policy.messages && policy.client_messages,
            Operation::ServerPresence => policy.presence && policy.server_presence,
            Operation::ServerMessages => policy.messages && policy.server_messages,
            Operation::Iq(_) => true,
        }
    }
}

/// A stanza of the own client, of a set that is off here. (A service that is off as a whole says so where it is.)
///
/// # Errors
/// `service-unavailable`.
pub fn outbound(account: &mut Account, passage: &mut Passage, _: &mut Effects) -> Result<Flow, StanzaError> {
    let policy = &account.policy;
    let is_off = match Operation::of(&passage.stanza, Link::Client) {
        Operation::ClientPresence => !policy.client_presence,
        Operation::ClientMessages => !policy.client_messages,
        _ => false,
    };
    if !is_off {
        return Ok(Flow::Next);
    }
    match passage.stanza.kind {
        StanzaType::Iq(IqType::Result | IqType::Error) => Ok(Flow::Done),
        _ => Err(StanzaCondition::ServiceUnavailable.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{account, stanza};
    use proptest::prelude::*;

    proptest! {
        /// Every stanza is an operation of one set on each link, and of no other.
        #[test]
        fn every_stanza_is_of_one_set_alone(
            kind in proptest::sample::select(vec![
                "message", "message type='chat'", "message type='error'", "presence", "presence type='probe'",
                "presence type='subscribe'", "presence type='unavailable'", "iq type='get' id='1'", "iq type='set' id='1'",
                "iq type='result' id='1'", "iq type='error' id='1'",
            ]),
            child in proptest::sample::select(vec![
                "<x xmlns='urn:waft:fetch:0'/>", "<x xmlns='urn:waft:watchers:0'/>", "<x xmlns='urn:xmpp:ping'/>",
                "<x xmlns='jabber:iq:roster'/>", "<body>hi</body>",
            ]),
        ) {
            let name = kind.split(' ').next().expect("a name");
            let stanza = stanza(&format!("<{kind}>{child}</{name}>"));
            for link in [Link::Client, Link::Server] {
                let it = Operation::of(&stanza, link);
                prop_assert_eq!(Operation::ALL.iter().filter(|other| **other == it).count(), 1);
                let (presence, messages) = match link {
                    Link::Client => (Operation::ClientPresence, Operation::ClientMessages),
                    Link::Server => (Operation::ServerPresence, Operation::ServerMessages),
                };
                let is_presence = name == "presence" || (name == "iq" && child.contains("urn:waft"));
                prop_assert_eq!(it == presence, is_presence);
                prop_assert_eq!(it == messages, name == "message");
            }
        }
    }

    #[test]
    fn a_set_of_the_clients_that_is_off_fails_and_the_others_pass() {
        let message = "<message to='romeo@montague.example'><body>hi</body></message>";
        let presence = "<presence to='romeo@montague.example'/>";
        let fetch = "<iq type='get' id='f' to='romeo@montague.example'><fetch xmlns='urn:waft:fetch:0'/></iq>";
        let ping = "<iq type='get' id='p' to='romeo@montague.example'><ping xmlns='urn:xmpp:ping'/></iq>";
        for (presence_on, messages_on) in [(true, true), (false, true), (true, false), (false, false)] {
            for (xml, passes) in [(message, messages_on), (presence, presence_on), (fetch, presence_on), (ping, true)] {
                let mut juliet = account("juliet@capulet.example").with("home", 0).policy(|policy| {
                    policy.client_presence = presence_on;
                    policy.client_messages = messages_on;
                });
                let fx = juliet.sends("home", xml);
                assert_eq!(fx.told().len(), usize::from(passes), "{xml}");
                let refused = fx.delivered("home").iter().any(|xml| xml.contains("<service-unavailable"));
                assert_eq!(refused, !passes, "{xml}");
            }
        }
    }
}
