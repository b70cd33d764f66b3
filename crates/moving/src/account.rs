//! One account on its way, whatever it came from.

use std::collections::BTreeMap;
use store::{RosterItem, ScramKeys, Subscription};
use xmpp::{BareJid, Element, Jid, Stamp, Stanza, ns};
use zeroize::Zeroizing;

/// What is known of an account at the server that it leaves.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    pub jid: BareJid,
    pub keys: Keys,
    pub created: Option<Stamp>,
    pub disabled: bool,
    /// When the last resource left, and with what status.
    pub last_activity: Option<(Stamp, Box<str>)>,
    /// By contact, no contact twice; those too that only wait for an answer.
    pub roster: Vec<RosterItem>,
    pub requests: Vec<Request>,
    pub blocks: Vec<Jid>,
    pub vcard: Option<Element>,
    /// Private XML, XEP-0049: the elements under `<query/>`.
    pub private: Vec<Element>,
    /// Private nodes of its own publish-subscribe service. XEP-0163, XEP-0223.
    pub nodes: Vec<Node>,
    /// waft's own settings, as it exported them: key and value.
    pub settings: Vec<(Box<str>, Vec<u8>)>,
    /// Oldest first.
    pub archive: Vec<Message>,
    /// What nobody has taken yet, oldest first.
    pub offline: Vec<Message>,
    pub left_out: LeftOut,
}

/// What proves a password, or the password itself.
#[derive(Clone, Default, PartialEq)]
pub struct Keys {
    pub scram_sha1: Option<ScramKeys>,
    pub scram_sha256: Option<ScramKeys>,
    pub password: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Keys {
    pub fn is_empty(&self) -> bool {
        self.scram_sha1.is_none() && self.scram_sha256.is_none() && self.password.is_none()
    }
}

/// A subscription request that waits for an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub contact: BareJid,
    /// As it is stored.
    pub stanza: Vec<u8>,
    pub received: Option<Stamp>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub name: String,
    /// Id, payload, and when it was published; the last published last.
    pub items: Vec<(String, Element, Option<Stamp>)>,
    /// All items are kept, not the last alone.
    pub many: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub at: Stamp,
    /// Its id in the archive of the server that is left.
    pub id: Option<Box<str>>,
    /// As [`xmpp::write::to_stored`] writes it.
    pub stanza: Vec<u8>,
    pub from: Option<Jid>,
    pub to: Option<Jid>,
}

/// What cannot be taken along: a sentence, and how often it is true.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut(pub BTreeMap<String, u64>);

impl LeftOut {
    pub fn add(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    pub fn extend(&mut self, more: LeftOut) {
        for (what, count) in more.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Account {
    pub fn new(jid: BareJid) -> Account {
        Account {
            jid,
            keys: Keys::default(),
            created: None,
            disabled: false,
            last_activity: None,
            roster: Vec::new(),
            requests: Vec::new(),
            blocks: Vec::new(),
            vcard: None,
            private: Vec::new(),
            nodes: Vec::new(),
            settings: Vec::new(),
            archive: Vec::new(),
            offline: Vec::new(),
            left_out: LeftOut::default(),
        }
    }

    /// The roster's item of a contact, made if it is not there; `None` for the account itself, which is no contact.
    pub fn contact(&mut self, contact: &BareJid) -> Option<&mut RosterItem> {
        if *contact == self.jid {
            return None;
        }
        let at = match self.roster.binary_search_by(|item| item.jid.cmp(contact)) {
            Ok(at) => at,
            Err(at) => {
                let item = RosterItem {
                    jid: contact.clone(),
                    name: None,
                    groups: Vec::new(),
                    subscription: Subscription::default(),
                    listed: false,
                    version: 0,
                };
                self.roster.insert(at, item);
                at
            }
        };
        self.roster.get_mut(at)
    }

    /// Puts a contact into the roster, in the words of RFC 6121 §2.1.2: `subscription`, `ask`, `approved`.
    pub fn list(
        &mut self,
        jid: &str,
        name: Option<&str>,
        groups: impl IntoIterator<Item = String>,
        (subscription, ask, approved): (Option<&str>, Option<&str>, bool),
    ) {
        let Ok(contact) = BareJid::parse(jid) else {
            return self.left_out.add(format!("a contact whose address is none: {jid:?}"));
        };
        let state = subscription.unwrap_or("none");
        if state == "remove" {
            return;
        }
        if !["none", "to", "from", "both"].contains(&state) {
            self.left_out.add(format!("the subscription {state:?} of a contact, which is none"));
        }
        let Some(item) = self.contact(&contact) else {
            return self.left_out.add("the account as a contact of its own");
        };
        item.listed = true;
        item.name = name.filter(|name| !name.is_empty()).map(Into::into);
        item.groups = groups.into_iter().filter(|group| !group.is_empty()).map(Into::into).collect();
        item.groups.sort();
        item.groups.dedup();
        item.subscription.to = matches!(state, "to" | "both");
        item.subscription.from = matches!(state, "from" | "both");
        item.subscription.pending_out = ask == Some("subscribe") && !item.subscription.to;
        item.subscription.approved = approved;
        if item.subscription.from {
            item.subscription.pending_in = false;
        }
    }

    /// Somebody asked to be subscribed to, and waits. `stanza`: as it came, if it is known.
    pub fn ask(&mut self, from: &str, stanza: Option<Element>, received: Option<Stamp>) {
        let Ok(contact) = BareJid::parse(from) else {
            return self.left_out.add(format!("a subscription request whose sender is no address: {from:?}"));
        };
        let own = self.jid.clone();
        let Some(item) = self.contact(&contact) else { return };
        if item.subscription.from {
            return;
        }
        item.subscription.pending_in = true;
        let children = stanza.map(|stanza| stanza.nodes).unwrap_or_default();
        let mut request = Element::new("presence", ns::CLIENT)
            .attr("from", contact.as_str())
            .attr("to", own.as_str())
            .attr("type", "subscribe");
        request.nodes = children;
        let Some(stanza) = stored(&request) else { return };
        self.requests.retain(|old| old.contact != contact);
        self.requests.push(Request { contact, stanza: xmpp::write::to_stored(&stanza), received });
    }

    /// A message of the archive, or of those that wait. What the server that is left wrote into it for its own use, is
    /// taken out. `None`: it cannot be read.
    pub fn message(&self, mut element: Element, at: Stamp, id: Option<&str>) -> Option<Message> {
        let own = self.jid.as_str();
        let of_own = |child: &Element, name: &str, ns: &str, by: &[&str]| {
            child.is(name, ns) && child.attribute("by").or(child.attribute("from")).is_some_and(|it| by.contains(&it))
        };
        let domain = self.jid.domain();
        element.nodes.retain(|node| match node {
            xmpp::xml::Node::Element(child) => {
                !(of_own(child, "stanza-id", "urn:xmpp:sid:0", &[own])
                    || of_own(child, "archived", "urn:xmpp:mam:tmp", &[own])
                    || of_own(child, "delay", ns::DELAY, &[own, domain]))
            }
            xmpp::xml::Node::Text(_) => false,
        });
        element.attributes.retain(|(name, _)| **name != *"stamp");
        let stanza = stored(&element).filter(Stanza::is_message)?;
        Some(Message {
            at,
            id: id.map(Into::into),
            stanza: xmpp::write::to_stored(&stanza),
            from: stanza.from,
            to: stanza.to,
        })
    }

    /// The `<stanza-id/>` that the server that is left gave a message.
    pub fn stanza_id<'a>(&self, element: &'a Element) -> Option<&'a str> {
        let ids = element.elements().filter(|child| child.is("stanza-id", "urn:xmpp:sid:0"));
        ids.into_iter().find(|id| id.attribute("by") == Some(self.jid.as_str()))?.attribute("id")
    }
}

/// The stanza of an element, if it is one.
pub fn stored(element: &Element) -> Option<Stanza> {
    Stanza::parse(&element.to_bytes(ns::CLIENT)).ok()
}

/// When the server itself says that a message came. XEP-0203.
pub fn delayed(element: &Element) -> Option<Stamp> {
    let delays = element.elements().filter(|child| child.is("delay", ns::DELAY));
    delays.filter_map(|delay| Stamp::from_xmpp(delay.attribute("stamp")?)).last()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn juliet() -> Account {
        Account::new(BareJid::parse("juliet@capulet.example").expect("is a JID"))
    }

    #[test]
    fn a_contact_is_listed_in_the_words_of_rfc_6121() {
        let mut juliet = juliet();
        juliet.list(
            "romeo@montague.example",
            Some("Romeo"),
            ["Friends".into()],
            (Some("from"), Some("subscribe"), false),
        );
        let item = &juliet.roster[0];
        assert!(item.listed && item.subscription.from && item.subscription.pending_out && !item.subscription.to);
        assert_eq!((item.name.as_deref(), &*item.groups[0]), (Some("Romeo"), "Friends"));
    }

    #[test]
    fn a_request_waits_without_being_listed() {
        let mut juliet = juliet();
        juliet.ask("paris@example.org", None, None);
        assert!(!juliet.roster[0].listed && juliet.roster[0].subscription.pending_in);
        assert!(String::from_utf8_lossy(&juliet.requests[0].stanza).contains("type='subscribe'"));
    }

    #[test]
    fn what_the_old_server_wrote_into_a_message_is_taken_out() {
        let juliet = juliet();
        let text = "<message xmlns='jabber:client' from='romeo@montague.example/x' to='juliet@capulet.example' stamp='x'>\
            <body>hi</body><stanza-id xmlns='urn:xmpp:sid:0' by='juliet@capulet.example' id='1'/>\
            <stanza-id xmlns='urn:xmpp:sid:0' by='room@rooms.example' id='2'/></message>";
        let element = Element::parse(text.as_bytes(), ns::CLIENT).expect("is XML");
        assert_eq!(juliet.stanza_id(&element), Some("1"));
        let message = juliet.message(element, Stamp(1), None).expect("is a message");
        let text = String::from_utf8(message.stanza).expect("is UTF-8");
        assert!(text.contains("<body>hi</body>") && text.contains("id='2'"), "{text}");
        assert!(!text.contains("id='1'") && !text.contains("stamp"), "{text}");
    }
}
