//! Message Carbons, XEP-0280: every client of an account sees its whole conversation.

use super::hints;
use crate::account::Account;
use crate::effects::{Delivery, Effects};
use crate::item::SessionId;
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::session;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use xmpp::write::{Additions, Wire, write_stanza};
use xmpp::{IqType, Jid, MessageType, Stanza, StanzaCondition, StanzaType};

pub const NS: &str = "urn:xmpp:carbons:2";
const FORWARD: &str = "urn:xmpp:forward:0";
const MUC_USER: &str = "http://jabber.org/protocol/muc#user";
/// Payloads of instant messaging besides a body. XEP-0280 §6.1.
const IM_PAYLOADS: &[&str] =
    &["urn:xmpp:receipts", "http://jabber.org/protocol/chatstates", "urn:xmpp:chat-markers:0", "jabber:x:conference"];

pub static MODULE: Module = Module {
    name: "carbons",
    specs: &[xep(280, "1.0.1"), xep(297, "1.0")],
    host_features: &[NS],
    account_features: &[NS],
    account_iq: &[(IqType::Set, NS, "enable", Who::Owner, enable), (IqType::Set, NS, "disable", Who::Owner, disable)],
    ..Module::EMPTY
};

fn enable(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    switch(account, iq, true)
}

fn disable(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    switch(account, iq, false)
}

/// Repeating it is no error. XEP-0280 §10.1.
fn switch(account: &mut Account, iq: &Iq<'_>, carbons: bool) -> Handled {
    let session = iq.session.and_then(|id| account.session_mut(id)).ok_or(StanzaCondition::NotAllowed)?;
    if carbons && !session.roles.inbox {
        return Err(crate::roles::missing());
    }
    session.carbons = carbons;
    Ok(Answer::Result(None))
}

/// Which side of the conversation the account is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Sent,
    Received,
}

/// Gives a copy of a message to every session that asked for carbons and has not had the message: `had` are those
/// that took it (received), or the one that sent it (sent). `more` is what the server added to the message, so that
/// the copy carries the same stanza-id.
pub fn copies(
    account: &mut Account,
    message: &Stanza,
    side: Side,
    had: &[SessionId],
    more: &Additions,
    fx: &mut Effects,
) {
    let wanted = |account: &Account| -> Vec<SessionId> {
        account.sessions.iter().filter(|s| s.carbons && !had.contains(&s.id)).map(|s| s.id).collect()
    };
    if side == Side::Sent && account.sessions.iter().any(|s| s.carbons) && is_eligible(message, side) {
        account.sent_lately.add(message);
    }
    let sessions = wanted(account);
    let answers = side == Side::Received && account.sent_lately.is_answered_by(message);
    if sessions.is_empty() || !(answers || is_eligible(message, side)) {
        return;
    }
    let Some(copy) = wrap(account, message, side, more) else {
        return;
    };
    let copy = Arc::new(copy);
    for id in sessions {
        let Some(to) = account.session(id).map(|session| session.jid.clone().into()) else {
            continue;
        };
        let delivery = Delivery { stanza: copy.clone(), to: Some(to), more: Additions::default(), position: None };
        session::deliver(account, id, delivery, fx);
    }
}

/// So many of the messages that clients sent are remembered for the errors that answer them.
const SENT_MAX: usize = 64;

/// Messages that were copied to the other clients, so that these see the errors, too. An error need not show what it
/// answers. XEP-0280 §6.1, §10.3.
#[derive(Debug, Default)]
pub struct SentLately(VecDeque<u64>);

impl SentLately {
    fn add(&mut self, message: &Stanza) {
        let Some(hash) = hash(message, message.to.as_ref()) else { return };
        if self.0.len() >= SENT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(hash);
    }

    fn is_answered_by(&self, error: &Stanza) -> bool {
        error.kind == StanzaType::Message(MessageType::Error)
            && hash(error, error.from.as_ref()).is_some_and(|hash| self.0.contains(&hash))
    }
}

/// Of the id, and of the peer's bare JID.
fn hash(message: &Stanza, peer: Option<&Jid>) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    (message.id.as_deref()?, peer?.bare_str()).hash(&mut hasher);
    Some(hasher.finish())
}

/// Is the message one that other clients should see? XEP-0280 §6.1, §9.
pub fn is_eligible(message: &Stanza, side: Side) -> bool {
    let StanzaType::Message(kind) = message.kind else {
        return false;
    };
    let payload = &message.payload;
    if payload.has("private", NS) || hints::of(message).no_copy {
        return false;
    }
    let room = payload.child("x", MUC_USER);
    let invites = room.is_some_and(|x| x.to_element().find("invite", MUC_USER).is_some());
    if room.is_some() && !invites && side == Side::Received {
        // A private message of a room: the room itself gives it to every client that joined.
        return false;
    }
    match kind {
        MessageType::Groupchat | MessageType::Error => false,
        MessageType::Chat => true,
        MessageType::Normal if payload.children().any(|child| child.name == "body" && child.ns == xmpp::ns::CLIENT) => {
            true
        }
        MessageType::Normal | MessageType::Headline => {
            invites || payload.children().any(|child| IM_PAYLOADS.contains(&child.ns))
        }
    }
}

/// A client has no business to send what looks like a copy made by a server. LIMITS.md §2 row 16.
pub fn is_forged(message: &Stanza) -> bool {
    message.payload.children().any(|child| child.ns == NS && matches!(child.name, "sent" | "received"))
}

/// The message in `<forwarded/>` in a message from the account itself. XEP-0280 §7, §8; XEP-0297.
fn wrap(account: &Account, message: &Stanza, side: Side, more: &Additions) -> Option<Stanza> {
    let name = match side {
        Side::Sent => "sent",
        Side::Received => "received",
    };
    let mut bytes = Vec::with_capacity(message.weight() + 256);
    bytes.extend_from_slice(format!("<message><{name} xmlns='{NS}'><forwarded xmlns='{FORWARD}'>").as_bytes());
    write_stanza(&mut bytes, message, None, more, Wire::WebSocket);
    bytes.extend_from_slice(format!("</forwarded></{name}></message>").as_bytes());
    let mut copy = Stanza::parse(&bytes).ok()?;
    copy.kind = message.kind;
    Some(copy.with_from(account.jid.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Scene, account, jid, stanza};

    fn romeo() -> Scene {
        account("romeo@montague.example")
            .with("garden", 1)
            .with("home", 0)
            .having("home", |session| session.carbons = true)
    }

    fn copied(scene: &mut Scene, xml: &str, side: Side, had: &[&str], more: &Additions) -> Vec<String> {
        let had: Vec<SessionId> = had.iter().map(|resource| scene.id(resource)).collect();
        let mut fx = Effects::default();
        copies(&mut scene.account, &stanza(xml), side, &had, more, &mut fx);
        fx.list
            .iter()
            .filter_map(|effect| match effect {
                crate::Effect::Edge { item: crate::EdgeItem::Deliver { delivery, .. }, .. } => {
                    let mut out = Vec::new();
                    write_stanza(&mut out, &delivery.stanza, delivery.to.as_ref(), &delivery.more, Wire::Client);
                    Some(String::from_utf8(out).expect("stanzas are UTF-8"))
                }
                _ => None,
            })
            .collect()
    }

    // XEP-0280 §6.1, §10.3.
    #[test]
    fn an_error_is_copied_if_the_message_that_it_answers_was() {
        let mut romeo = romeo();
        romeo.sends("garden", "<message to='juliet@capulet.example' type='chat' id='m1'><body>hi</body></message>");
        let error = |from: &str, id: &str| {
            format!("<message from='{from}' to='romeo@montague.example/garden' type='error' id='{id}'/>")
        };
        let mut given = |from, id| romeo.receive(&error(from, id)).written_to();
        assert_eq!(given("juliet@capulet.example", "m1"), ["garden", "home"]);
        assert_eq!(given("juliet@capulet.example/balcony", "m1"), ["garden", "home"]);
        assert_eq!(given("juliet@capulet.example", "m2"), ["garden"]);
        assert_eq!(given("nurse@capulet.example", "m1"), ["garden"]);
    }

    // XEP-0280 §7, examples 9 and 10.
    #[test]
    fn a_received_message_is_copied_to_the_resource_that_asked_and_did_not_have_it() {
        let xml = "<message from='juliet@capulet.example/balcony' to='romeo@montague.example/garden' type='chat'><body>hi</body></message>";
        let copies = copied(&mut romeo(), xml, Side::Received, &["garden"], &Additions::default());
        assert_eq!(
            copies,
            ["<message from='romeo@montague.example' to='romeo@montague.example/home' type='chat'>\
              <received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
              <message xmlns='jabber:client' from='juliet@capulet.example/balcony' to='romeo@montague.example/garden' type='chat'>\
              <body>hi</body></message></forwarded></received></message>"]
        );
    }

    #[test]
    fn the_sender_gets_no_copy_of_what_it_sent() {
        let xml = "<message from='romeo@montague.example/home' to='juliet@capulet.example' type='chat'><body>hi</body></message>";
        let mut romeo = romeo().having("garden", |session| session.carbons = true);
        let copies = copied(&mut romeo, xml, Side::Sent, &["home"], &Additions::default());
        assert_eq!(copies.len(), 1);
        assert!(
            copies[0].contains("to='romeo@montague.example/garden'")
                && copies[0].contains("<sent xmlns='urn:xmpp:carbons:2'>")
        );
    }

    #[test]
    fn a_copy_carries_the_stanza_id_of_the_message() {
        let xml = "<message from='juliet@capulet.example/balcony' to='romeo@montague.example' type='chat'><body>hi</body></message>";
        let more = Additions { stanza_id: Some((17, jid("romeo@montague.example"))), delay: None };
        let copies = copied(&mut romeo(), xml, Side::Received, &["garden"], &more);
        assert!(
            copies[0].contains(
                "<stanza-id xmlns='urn:xmpp:sid:0' id='0000000000000011' by='romeo@montague.example'/></message></forwarded>"
            ),
            "{copies:?}"
        );
    }

    // XEP-0280 §6.1, §9.
    #[test]
    fn what_is_no_conversation_is_not_copied() {
        let cases = [
            ("<message type='chat'><private xmlns='urn:xmpp:carbons:2'/></message>", false),
            ("<message type='chat'><no-copy xmlns='urn:xmpp:hints'/></message>", false),
            ("<message type='groupchat'><body>hi</body></message>", false),
            ("<message type='headline'><body>hi</body></message>", false),
            ("<message><event xmlns='http://jabber.org/protocol/pubsub#event'/></message>", false),
            ("<message type='chat'><x xmlns='http://jabber.org/protocol/muc#user'/><body>hi</body></message>", false),
            ("<message><x xmlns='http://jabber.org/protocol/muc#user'><invite/></x></message>", true),
            ("<message><x xmlns='jabber:x:conference' jid='room@muc.example'/></message>", true),
            ("<message><received xmlns='urn:xmpp:receipts' id='1'/></message>", true),
            ("<message><body>hi</body></message>", true),
            ("<message type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>", true),
        ];
        for (xml, eligible) in cases {
            assert_eq!(is_eligible(&stanza(xml), Side::Received), eligible, "{xml}");
        }
    }

    // XEP-0280 §6.1: the sender's other clients do not hear it from the room.
    #[test]
    fn a_private_message_to_an_occupant_is_copied_to_the_senders_clients() {
        let xml = "<message type='chat'><x xmlns='http://jabber.org/protocol/muc#user'/><body>hi</body></message>";
        assert!(is_eligible(&stanza(xml), Side::Sent));
    }

    // XEP-0280 §10.1.
    #[test]
    fn enabling_twice_and_disabling_is_no_error() {
        let mut romeo = romeo();
        for (element, on) in [("enable", true), ("enable", true), ("disable", false), ("disable", false)] {
            let fx =
                romeo.sends("garden", &format!("<iq type='set' id='c1'><{element} xmlns='urn:xmpp:carbons:2'/></iq>"));
            assert!(fx.delivered("garden")[0].contains("type='result'"));
            let id = romeo.id("garden");
            assert_eq!(romeo.session(id).map(|session| session.carbons), Some(on));
        }
    }

    // LIMITS.md §2 row 16.
    #[test]
    fn a_copy_that_a_client_made_is_told_from_a_message() {
        assert!(is_forged(&stanza("<message><sent xmlns='urn:xmpp:carbons:2'/></message>")));
        assert!(!is_forged(&stanza("<message><private xmlns='urn:xmpp:carbons:2'/></message>")));
    }
}
