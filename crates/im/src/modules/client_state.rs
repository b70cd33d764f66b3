//! Client State Indication, XEP-0352: a client that nobody looks at is not woken for presence and chat states.
//!
//! They wait in the session, the latest of each sender, and go out in order before the next stanza that cannot wait, or
//! when the client is active again: see [`session::deliver`](crate::session::deliver).

use super::carbons;
use crate::effects::{Delivery, Effects};
use crate::item::SessionId;
use crate::messages::CHAT_STATES;
use crate::module::{Module, xep};
use crate::{Account, session};
use std::collections::VecDeque;
use xmpp::{MessageType, PresenceType, Stanza, StanzaType, ns};

pub static MODULE: Module = Module { name: "client state", specs: &[xep(352, "1.0.0")], ..Module::EMPTY };

/// What waits in one session; with more, all of it goes out.
const HELD_MAX: usize = 500;
const HELD_BYTES_MAX: usize = 256 << 10;

const MUC_USER: &str = "http://jabber.org/protocol/muc#user";
const OCCUPANT_ID: &str = "urn:xmpp:occupant-id:0";
const FORWARD: &str = "urn:xmpp:forward:0";

/// What waits for an inactive client.
#[derive(Debug, Default)]
pub struct Held {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
}

impl Held {
    /// Keeps what can wait, in place of what the same sender said before. Gives back what cannot, and what there is no
    /// room for.
    pub(crate) fn hold(&mut self, delivery: Delivery) -> Option<Delivery> {
        if delivery.position.is_some() || !can_wait(&delivery.stanza) {
            return Some(delivery);
        }
        // The account's own copies are of many conversations.
        if !is_copy(&delivery.stanza) {
            let same = |d: &Delivery| replaces(&delivery, d);
            if let Some(earlier) = self.deliveries.iter().position(same).and_then(|at| self.deliveries.remove(at)) {
                self.bytes = self.bytes.saturating_sub(earlier.stanza.weight());
            }
        }
        let weight = delivery.stanza.weight();
        if self.deliveries.len() >= HELD_MAX || self.bytes + weight > HELD_BYTES_MAX {
            return Some(delivery);
        }
        self.bytes += weight;
        self.deliveries.push_back(delivery);
        None
    }

    pub(crate) fn take(&mut self) -> VecDeque<Delivery> {
        self.bytes = 0;
        std::mem::take(&mut self.deliveries)
    }
}

/// Is it all that counts of what was said before? Both are presence or both chat states, of one resource.
fn replaces(later: &Delivery, earlier: &Delivery) -> bool {
    later.stanza.is_presence() == earlier.stanza.is_presence()
        && later.stanza.from == earlier.stanza.from
        && later.to == earlier.to
        && later.stanza.to == earlier.stanza.to
}

fn is_copy(stanza: &Stanza) -> bool {
    stanza.payload.children().any(|child| child.ns == carbons::NS)
}

/// Presence, but for what a client waits for when it joins a room; messages that are chat states alone, and copies of
/// such.
pub(crate) fn can_wait(stanza: &Stanza) -> bool {
    match stanza.kind {
        StanzaType::Presence(PresenceType::Available | PresenceType::Unavailable) => !is_own_in_room(stanza),
        StanzaType::Message(MessageType::Chat | MessageType::Normal | MessageType::Groupchat) => {
            let mut children = stanza.payload.children();
            match (children.next(), children.next()) {
                (Some(copy), None) if copy.ns == carbons::NS => {
                    let copy = copy.to_element();
                    let message = copy.find("forwarded", FORWARD).and_then(|f| f.find("message", ns::CLIENT));
                    message.is_some_and(|m| is_chat_state(m.elements().map(|child| (&*child.name, &*child.ns))))
                }
                _ => is_chat_state(stanza.payload.children().map(|child| (child.name, child.ns))),
            }
        }
        _ => false,
    }
}

/// Is there a chat state, and nothing with it that somebody would want to read?
fn is_chat_state<'a>(children: impl Iterator<Item = (&'a str, &'a str)>) -> bool {
    let mut found = false;
    for (name, ns) in children {
        match ns {
            CHAT_STATES => found = true,
            ns::HINTS | ns::SID | ns::DELAY | OCCUPANT_ID | MUC_USER => {}
            ns::CLIENT if name == "thread" => {}
            _ => return false,
        }
    }
    found
}

/// XEP-0045 §15.6.2, status 110: the room says that it is the client's own presence.
fn is_own_in_room(presence: &Stanza) -> bool {
    presence.payload.child("x", MUC_USER).is_some_and(|x| {
        x.to_element().elements().any(|status| status.is("status", MUC_USER) && status.attribute("code") == Some("110"))
    })
}

/// `<active/>`, `<inactive/>`. §4.2, §5.1.
pub fn set(account: &mut Account, id: SessionId, active: bool, fx: &mut Effects) {
    let Some(session) = account.session_mut(id) else { return };
    session.inactive = !active;
    if active {
        session::release(account, id, fx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{EdgeRef, Item, ManagementRequest};
    use crate::testing::{Fx, Scene, account_with, contact, stanza};
    use store::AccountRecord;

    /// Juliet at home, who looks elsewhere; Romeo is a contact.
    fn juliet() -> Scene {
        let stored =
            AccountRecord { roster: vec![contact("romeo@montague.example", "both")], ..AccountRecord::default() };
        account_with("juliet@capulet.example", stored).with("home", 0).having("home", |s| s.inactive = true)
    }

    fn presence(status: &str) -> String {
        format!("<presence from='romeo@montague.example/x'><status>{status}</status></presence>")
    }

    fn message(content: &str) -> String {
        format!("<message from='romeo@montague.example/x' type='chat'>{content}</message>")
    }

    fn state(name: &str) -> String {
        message(&format!("<{name} xmlns='http://jabber.org/protocol/chatstates'/>"))
    }

    fn is_active(scene: &mut Scene) -> Fx {
        let session = scene.id("home");
        scene.item(Item::ClientState { session, active: true })
    }

    #[test]
    fn presence_and_chat_states_wait_until_the_client_is_active_the_latest_of_each_sender() {
        let mut juliet = juliet();
        for xml in [presence("one"), state("composing"), presence("two"), state("paused")] {
            assert!(juliet.receive(&xml).written_to().is_empty());
        }
        let given = is_active(&mut juliet).delivered("home");
        assert_eq!(given.len(), 2, "{given:?}");
        assert!(given[0].contains("two") && given[1].contains("<paused"), "{given:?}");
        assert!(is_active(&mut juliet).is_empty());
    }

    #[test]
    fn a_message_does_not_wait_and_what_waited_goes_before_it() {
        let mut juliet = juliet();
        juliet.receive(&presence("one"));
        juliet.receive(&state("composing"));
        let given = juliet.receive(&message("<body>hi</body>")).delivered("home");
        assert_eq!(given.len(), 3, "{given:?}");
        assert!(given[0].contains("one") && given[1].contains("<composing") && given[2].contains("hi"), "{given:?}");
        assert!(is_active(&mut juliet).is_empty());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut juliet = juliet();
        for n in 0..HELD_MAX {
            let fx = juliet.receive(&format!("<presence from='romeo@montague.example/{n}'/>"));
            assert!(fx.written_to().is_empty());
        }
        let given = juliet.receive("<presence from='romeo@montague.example/more'/>").delivered("home");
        assert_eq!(given.len(), HELD_MAX + 1);
        assert!(given[HELD_MAX].contains("romeo@montague.example/more"));
    }

    #[test]
    fn what_waits_is_given_to_the_stream_that_resumes() {
        let mut juliet = juliet();
        let session = juliet.id("home");
        let request = ManagementRequest { resume: true, max: None, id: "sm1".into() };
        juliet.item(Item::Manage { session, request });
        juliet.receive(&presence("one"));
        juliet.loses("home", 0, 0);
        juliet.receive(&presence("two"));
        let fx = juliet.item(Item::Resume { edge: EdgeRef(900), id: "sm1".into(), h: 0 });
        let given = fx.delivered("home");
        assert_eq!(given.len(), 1, "{given:?}");
        assert!(given[0].contains("two"));
    }

    #[test]
    fn what_waited_is_not_lost_with_a_message_that_came_twice() {
        let mut juliet = juliet();
        juliet.receive(&presence("one"));
        let mut fx = juliet.receive(&message("<body>hi</body>"));
        let at = fx.list.iter().position(|e| matches!(e, crate::Effect::Commit { .. })).expect("a commit");
        let fx = juliet.item(Item::Dropped { effects: fx.list.split_off(at + 1) });
        is_active(&mut juliet).delivered("home").iter().chain(&fx.delivered("home")).for_each(|given| {
            assert!(given.contains("one"), "{given}");
        });
    }

    #[test]
    fn only_what_nobody_reads_can_wait() {
        let muc = "xmlns='http://jabber.org/protocol/muc#user'";
        let composing = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
        let wrapped = |content: &str| {
            format!(
                "<message type='chat'><sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
                 <message xmlns='jabber:client' type='chat'>{content}</message></forwarded></sent></message>"
            )
        };
        let rows = [
            (true, "<presence/>".to_owned()),
            (true, "<presence type='unavailable'/>".into()),
            (false, "<presence type='subscribe'/>".into()),
            (false, "<presence type='error'/>".into()),
            (false, format!("<presence><x {muc}><status code='110'/></x></presence>")),
            (true, format!("<presence><x {muc}><item role='participant'/></x></presence>")),
            (true, format!("<message type='chat'>{composing}<thread>t</thread></message>")),
            (false, format!("<message type='chat'>{composing}<body>hi</body></message>")),
            (false, "<message type='chat'><received xmlns='urn:xmpp:receipts' id='1'/></message>".into()),
            (false, "<message type='headline'><x xmlns='a:b'/></message>".into()),
            (false, "<message type='chat'/>".into()),
            (true, wrapped(composing)),
            (false, wrapped("<body>hi</body>")),
            (false, "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>".into()),
        ];
        for (expected, xml) in rows {
            assert_eq!(can_wait(&stanza(&xml)), expected, "{xml}");
        }
    }
}
