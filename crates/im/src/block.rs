//! The block list, XEP-0191: a view of the access rules.

use crate::account::Account;
use crate::effects::{Delivery, Effect, Effects};
use crate::item::{SessionId, Ticket};
use crate::module::Iq;
use crate::modules::{self, fetch};
use crate::watchers;
use crate::ways::{Flow, Passage};
use crate::{presence, session};
use std::sync::Arc;
use store::Change;
use xmpp::error::ErrorType;
use xmpp::{Element, IqType, Jid, MessageType, PresenceType, Stanza, StanzaCondition, StanzaError, StanzaType};

pub const NS: &str = "urn:xmpp:blocking";
pub const ERRORS_NS: &str = "urn:xmpp:blocking:errors";

#[derive(Debug, Default)]
pub struct Blocks {
    /// In order, each once.
    jids: Vec<Jid>,
    /// How often it was changed since it was read.
    stamp: u64,
    /// How many pushes were sent; makes their ids.
    pub pushes: u64,
}

impl Blocks {
    pub fn from_stored(mut jids: Vec<Jid>) -> Blocks {
        jids.sort();
        jids.dedup();
        Blocks { jids, stamp: 0, pushes: 0 }
    }

    /// Full JID, bare JID, domain/resource and domain match. XEP-0191 §6.
    pub fn blocks(&self, jid: &Jid) -> bool {
        !self.jids.is_empty() && (self.has(jid.as_str()) || self.has(jid.bare_str()) || self.has(jid.domain()))
    }

    /// Is exactly this address on the list?
    pub fn contains(&self, jid: &Jid) -> bool {
        self.has(jid.as_str())
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &Jid> {
        self.jids.iter()
    }

    /// Another one whenever anything is.
    pub fn stamp(&self) -> u64 {
        self.stamp
    }

    pub fn len(&self) -> usize {
        self.jids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.jids.is_empty()
    }

    /// Says whether it is new.
    pub fn insert(&mut self, jid: Jid) -> bool {
        self.stamp += 1;
        match self.jids.binary_search(&jid) {
            Ok(_) => false,
            Err(at) => {
                self.jids.insert(at, jid);
                true
            }
        }
    }

    /// Says whether it was there.
    pub fn remove(&mut self, jid: &Jid) -> bool {
        self.stamp += 1;
        match self.jids.binary_search(jid) {
            Ok(at) => {
                self.jids.remove(at);
                true
            }
            Err(_) => false,
        }
    }

    fn has(&self, text: &str) -> bool {
        self.jids.binary_search_by(|jid| jid.as_str().cmp(text)).is_ok()
    }
}

/// Puts addresses on the list: whoever they stand for sees all resources leave, the own resources that know the list
/// hear of it. `instead`: entries that go at once, for the bound. XEP-0191 §3.3.
///
/// Subscriptions stay ("polite blocking", §4).
///
/// # Errors
/// `not-allowed` for the own address, which is never blocked (§5); `resource-constraint` if the list cannot take them.
pub fn add(account: &mut Account, jids: Vec<Jid>, instead: &[Jid], fx: &mut Effects) -> Result<(), StanzaError> {
    if jids.iter().any(|jid| jid.same_bare(&account.jid)) {
        return Err(StanzaCondition::NotAllowed.into());
    }
    let mut new: Vec<Jid> = jids.into_iter().filter(|jid| !account.blocks.contains(jid)).collect();
    new.sort();
    new.dedup();
    if account.blocks.len() + new.len() > account.policy.limits.block_items_max + instead.len() {
        return Err(StanzaError::from(StanzaCondition::ResourceConstraint)
            .with_text("The block list is full.")
            .over("block_items_max"));
    }
    if new.is_empty() {
        return Ok(());
    }
    let owner = account.jid.clone();
    let changes = new.iter().map(|jid| Change::BlockPut { account: owner.clone(), jid: jid.clone() }).collect();
    fx.commit(changes, None, &Ticket::default());
    for jid in &new {
        presence::conceal_from(account, jid, fx);
        account.blocks.insert(jid.clone());
    }
    push(account, Element::new("block", NS).children_from(new.iter().map(item)), fx);
    Ok(())
}

/// Takes addresses off the list; `all`: it is empty then. XEP-0191 §3.4, §3.5.
pub fn remove(account: &mut Account, gone: Vec<Jid>, all: bool, fx: &mut Effects) {
    if gone.is_empty() {
        return;
    }
    let owner = account.jid.clone();
    let changes = gone.iter().map(|jid| Change::BlockDelete { account: owner.clone(), jid: jid.clone() }).collect();
    fx.commit(changes, None, &Ticket::default());
    let shown = if all { &[] } else { gone.as_slice() };
    push(account, Element::new("unblock", NS).children_from(shown.iter().map(item)), fx);
    for jid in &gone {
        account.blocks.remove(jid);
        // While another entry still stands for somebody, that one sees nothing; so each is revealed once.
        presence::reveal_to(account, jid, fx);
    }
}

/// Makes the commits those of an iq.
pub(crate) fn carry(parts: Effects, iq: &Iq<'_>, fx: &mut Effects) {
    for effect in parts.list {
        match effect {
            Effect::Commit { changes, .. } => fx.commit(changes, Some(iq.stanza), iq.ticket),
            effect => fx.push(effect),
        }
    }
}

pub(crate) fn item(jid: &Jid) -> Element {
    Element::new("item", NS).attr("jid", jid.as_str())
}

/// To all resources that have asked for the block list. XEP-0191 §3.3.
fn push(account: &mut Account, command: Element, fx: &mut Effects) {
    account.blocks.pushes += 1;
    let stanza =
        Arc::new(Stanza::iq(IqType::Set, &format!("block-{}", account.blocks.pushes)).with_children([command]));
    let knowing: Vec<(SessionId, Jid)> =
        account.sessions.iter().filter(|s| s.knows_blocks).map(|s| (s.id, Jid::from(s.jid.clone()))).collect();
    for (id, to) in knowing {
        let delivery = Delivery { stanza: stanza.clone(), to: Some(to), more: Default::default(), position: None };
        session::deliver(account, id, delivery, fx);
    }
}

/// Does the list entry `item` stand for `jid`? XEP-0191 §6.
pub fn matches(item: &Jid, jid: &Jid) -> bool {
    let item = item.as_str();
    item == jid.as_str() || item == jid.bare_str() || item == jid.domain()
}

/// Nothing goes to a blocked contact. XEP-0191 §3.3: `not-acceptable` with `<blocked/>`.
///
/// # Errors
/// That one. An iq result or error ends here in silence, as nothing may answer it.
pub fn outbound(account: &mut Account, passage: &mut Passage, _: &mut Effects) -> Result<Flow, StanzaError> {
    if !is_blocked(account, &passage.to) {
        return Ok(Flow::Next);
    }
    if !passage.stanza.may_be_answered_with_error() {
        return Ok(Flow::Done);
    }
    Err(StanzaError::from(StanzaCondition::NotAcceptable)
        .with_type(ErrorType::Cancel)
        .with_application("blocked", ERRORS_NS))
}

/// Nothing comes from one: message and iq are answered as by an account that does not exist, mostly with
/// `service-unavailable`; presence is ignored. XEP-0191 §3.3.
///
/// What a blocked contact says of a subscription that exists goes on to be noted, though the user's clients are given
/// none of it: else the two rosters would disagree for ever.
///
/// # Errors
/// The same as from an account that does not exist.
pub fn inbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let Some(from) = &passage.stanza.from else { return Ok(Flow::Next) };
    if !is_blocked(account, from) {
        return Ok(Flow::Next);
    }
    if wants_to_see(&passage.stanza) {
        let from = from.clone();
        watchers::refused(account, &from, fx);
    }
    match passage.stanza.kind {
        StanzaType::Message(MessageType::Error) => Ok(Flow::Done),
        StanzaType::Message(_) => Err(modules::unknown()),
        StanzaType::Iq(IqType::Get | IqType::Set) => modules::as_nobody(account, passage, fx).map(|()| Flow::Done),
        StanzaType::Presence(PresenceType::Subscribed | PresenceType::Unsubscribe | PresenceType::Unsubscribed) => {
            Ok(Flow::Next)
        }
        StanzaType::Presence(_) | StanzaType::Iq(IqType::Result | IqType::Error) => Ok(Flow::Done),
    }
}

/// A subscription request, a probe or a fetch.
fn wants_to_see(stanza: &Stanza) -> bool {
    match stanza.kind {
        StanzaType::Presence(PresenceType::Subscribe | PresenceType::Probe) => true,
        StanzaType::Iq(IqType::Get) => stanza.payload.has("fetch", fetch::NS),
        _ => false,
    }
}

/// The own resources are never blocked from each other, whatever the list says. XEP-0191 §5.
fn is_blocked(account: &Account, other: &Jid) -> bool {
    !other.same_bare(&account.jid) && account.blocks.blocks(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{account_with, jid};
    use store::AccountRecord;

    #[test]
    fn an_entry_stands_for_what_xep_0191_section_6_says() {
        for (entry, matched, not) in [
            ("a@b/c", &["a@b/c"][..], &["a@b", "a@b/d", "b", "b/c"][..]),
            ("a@b", &["a@b", "a@b/c"], &["x@b", "b"]),
            ("b/c", &["b/c"], &["b", "a@b/c", "b/d"]),
            ("b", &["b", "b/c", "a@b", "a@b/c"], &["c", "a@c", "sub.b"]),
        ] {
            let blocks = Blocks::from_stored(vec![jid(entry)]);
            for other in matched {
                assert!(blocks.blocks(&jid(other)) && matches(&jid(entry), &jid(other)), "{entry} stands for {other}");
            }
            for other in not {
                assert!(
                    !blocks.blocks(&jid(other)) && !matches(&jid(entry), &jid(other)),
                    "{entry} does not stand for {other}"
                );
            }
        }
    }

    fn juliet() -> crate::testing::Scene {
        let record =
            AccountRecord { blocks: vec![jid("romeo@example.net"), jid("example.com")], ..AccountRecord::default() };
        account_with("juliet@example.com", record).with("balcony", 0).with("chamber", 0)
    }

    #[test]
    fn a_stanza_to_a_blocked_contact_is_not_acceptable() {
        for stanza in [
            "<message to='romeo@example.net/x'><body>hi</body></message>",
            "<presence to='romeo@example.net'/>",
            "<presence to='romeo@example.net' type='subscribe'/>",
            "<iq to='romeo@example.net/x' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
        ] {
            let fx = juliet().sends("balcony", stanza);
            assert!(fx.told().is_empty() && fx.commits().is_empty(), "{stanza}");
            let error = &fx.delivered("balcony")[0];
            assert!(
                error.contains("<not-acceptable") && error.contains("<blocked xmlns='urn:xmpp:blocking:errors'/>"),
                "{error}"
            );
        }
    }

    #[test]
    fn messages_and_requests_of_a_blocked_contact_are_answered_service_unavailable() {
        for stanza in [
            "<message from='romeo@example.net/x' type='chat'><body>hi</body></message>",
            "<iq from='romeo@example.net/x' to='juliet@example.com/balcony' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
            "<iq from='romeo@example.net/x' type='set' id='1'><query xmlns='urn:xmpp:mam:2'/></iq>",
        ] {
            let fx = juliet().receive(stanza);
            assert!(fx.written_to().is_empty() && fx.commits().is_empty(), "{stanza}");
            assert!(fx.told()[0].1.contains("<service-unavailable"), "{stanza}");
        }
    }

    #[test]
    fn a_blocked_contact_finds_an_empty_list_of_items_and_a_roster_that_is_not_his_as_with_no_account_at_all() {
        let items = "<query xmlns='http://jabber.org/protocol/disco#items'/>";
        for (kind, query, answer) in
            [("get", items, items), ("set", "<query xmlns='jabber:iq:roster'/>", "<forbidden ")]
        {
            let iq =
                format!("<iq from='romeo@example.net/x' to='juliet@example.com' type='{kind}' id='1'>{query}</iq>");
            let fx = juliet().receive(&iq);
            assert!(fx.written_to().is_empty() && fx.commits().is_empty(), "{query}");
            assert!(fx.told()[0].1.contains(answer), "{:?}", fx.told());
        }
    }

    #[test]
    fn presence_and_answers_of_a_blocked_contact_are_dropped_in_silence() {
        for stanza in [
            "<presence from='romeo@example.net/x'/>",
            "<presence from='romeo@example.net' type='subscribe'/>",
            "<presence from='romeo@example.net' type='probe'/>",
            "<presence from='romeo@example.net' type='unsubscribed'/>",
            "<iq from='romeo@example.net/x' to='juliet@example.com/balcony' type='result' id='1'/>",
            "<message from='romeo@example.net/x' to='juliet@example.com/balcony' type='error'/>",
        ] {
            assert!(juliet().receive(stanza).is_empty(), "{stanza}");
        }
    }

    #[test]
    fn the_own_resources_reach_each_other_though_their_domain_is_blocked() {
        let mut juliet = juliet();
        let fx = juliet.sends("balcony", "<presence to='juliet@example.com/chamber'/>");
        assert_eq!(fx.told_to(), ["juliet@example.com/chamber"]);
        let fx = juliet.receive("<presence from='juliet@example.com/balcony' to='juliet@example.com/chamber'/>");
        assert_eq!(fx.written_to(), ["chamber"]);
    }
}
