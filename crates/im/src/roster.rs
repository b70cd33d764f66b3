//! The roster, RFC 6121 §2: who is in it, what changes it, and who is told.

use crate::account::Account;
use crate::effects::{Delivery, Effects};
use crate::item::{SessionId, Ticket};
use crate::{doubts, presence, session};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use store::{Change, RosterItem, Subscription};
use xmpp::xml::{escape_attribute, escape_text};
use xmpp::{BareJid, Element, IqType, Jid, Payload, Stamp, Stanza, ns};

/// A contact, or somebody whose request waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub jid: BareJid,
    pub name: Option<Box<str>>,
    /// Shared with the other items of the same group.
    pub groups: Box<[Arc<str>]>,
    pub subscription: Subscription,
    /// Is it shown in the roster? If not it is only a request that waits. RFC 6121 Appendix A.1, "None + Pending In".
    pub listed: bool,
    /// The roster's version after the change that made the item what it is; 0 if not listed.
    pub version: u64,
}

impl Item {
    /// The same but for its version?
    fn is_like(&self, other: &Item) -> bool {
        let Item { jid, name, groups, subscription, listed, version: _ } = other;
        (&self.jid, &self.name, &self.groups, &self.subscription, &self.listed)
            == (jid, name, groups, subscription, listed)
    }

    fn bytes(&self) -> usize {
        let groups = self.groups.iter().map(|group| group.len()).sum::<usize>();
        self.jid.as_str().len() + self.name.as_deref().map_or(0, str::len) + groups
    }

    /// What a client is shown of it. RFC 6121 Appendix A.1.
    fn shows(&self) -> Option<Item> {
        self.listed.then(|| Item { subscription: shown(self.subscription), ..self.clone() })
    }
}

/// A subscription request that the user has not answered. RFC 6121 §3.1.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub contact: BareJid,
    /// The stanza as it came.
    pub stanza: Box<[u8]>,
    pub received: Stamp,
}

#[derive(Debug, Default)]
pub struct Roster {
    pub version: u64,
    /// How often it was changed since it was read.
    stamp: u64,
    /// By JID.
    items: Vec<Item>,
    /// By contact.
    requests: Vec<Request>,
    listed: usize,
    /// Since the roster was read: (version, contact) of the latest, oldest first; at most [`REMOVALS_MAX`].
    removals: VecDeque<(u64, BareJid)>,
    /// `removals` knows every removal after this version.
    removals_known_after: u64,
}

/// How many removals a roster remembers, so that a client which missed them need not read all of it again.
const REMOVALS_MAX: usize = 32;

/// Longest `name` and group, in bytes; as long as a part of a JID may be. RFC 6121 §2.3.3.
pub const NAME_BYTES_MAX: usize = 1023;

/// More changes than so many are not worth a stanza each.
const PUSHES_MAX: usize = 100;

/// What a client that knows an old version must be told. RFC 6121 §2.6.3.
#[derive(Debug, PartialEq, Eq)]
pub enum Catchup<'a> {
    /// Removed contacts and changed items with their versions, oldest first; none if nothing changed.
    Pushes(Vec<(u64, &'a BareJid)>),
    /// The roster as a whole.
    Full,
}

impl Roster {
    pub fn from_stored(version: u64, items: Vec<RosterItem>, requests: Vec<(BareJid, Vec<u8>, Stamp)>) -> Roster {
        let mut names = BTreeSet::<Arc<str>>::new();
        let mut items: Vec<Item> = items
            .into_iter()
            .map(|item| Item {
                jid: item.jid,
                name: item.name,
                groups: item.groups.iter().map(|group| shared(&mut names, group)).collect(),
                subscription: item.subscription,
                listed: item.listed,
                version: item.version,
            })
            .collect();
        items.sort_by(|a, b| a.jid.cmp(&b.jid));
        items.dedup_by(|a, b| a.jid == b.jid);
        let listed = items.iter().filter(|item| item.listed).count();
        let mut roster = Roster { version, items, listed, removals_known_after: version, ..Roster::default() };
        for (contact, stanza, received) in requests {
            // A request without its mark would never be answered: the mark is made good.
            let state = &mut roster.entry(&contact).subscription;
            state.pending_in = !state.from;
            roster.put_request(Request { contact, stanza: stanza.into(), received });
        }
        roster
    }

    /// The item of a contact, listed or not; a full JID stands for its bare one.
    pub fn get(&self, jid: &Jid) -> Option<&Item> {
        self.find(jid).ok().map(|at| &self.items[at])
    }

    /// Nothing at all for somebody who is not in the roster. RFC 6121 Appendix A.1.
    pub fn subscription(&self, jid: &Jid) -> Subscription {
        self.get(jid).map_or_else(Subscription::default, |item| item.subscription)
    }

    /// Another one whenever anything is.
    pub fn stamp(&self) -> u64 {
        self.stamp
    }

    /// All items that the roster shows, by JID.
    pub fn listed(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.listed)
    }

    /// All items, those too that only keep a request.
    pub fn all(&self) -> impl Iterator<Item = &Item> {
        self.items.iter()
    }

    /// How many items the roster shows; bounded by `roster_items_max`.
    pub fn len(&self) -> usize {
        self.listed
    }

    /// Would its items have more than `max` bytes if this one were so large? None is refused that does not grow.
    pub fn exceeds(&self, contact: &Jid, name: Option<&str>, groups: &[String], max: usize) -> bool {
        let new = contact.bare_str().len() + name.map_or(0, str::len) + groups.iter().map(String::len).sum::<usize>();
        let old = self.get(contact).map_or(0, Item::bytes);
        new > old && self.items.iter().map(Item::bytes).sum::<usize>() - old + new > max
    }

    pub fn is_empty(&self) -> bool {
        self.listed == 0
    }

    /// Who is subscribed to the account's presence: `from` or `both`.
    pub fn watchers(&self) -> impl Iterator<Item = &BareJid> {
        self.items.iter().filter(|item| item.subscription.from).map(|item| &item.jid)
    }

    /// Whose presence the account is subscribed to: `to` or `both`.
    pub fn contacts(&self) -> impl Iterator<Item = &BareJid> {
        self.items.iter().filter(|item| item.subscription.to).map(|item| &item.jid)
    }

    /// What waits for the user's answer, by contact; bounded by `requests_max`.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// Name and groups as the client wants them; the subscription stays. RFC 6121 §2.3, §2.4.
    pub fn set(&mut self, owner: &BareJid, contact: &BareJid, name: Option<&str>, groups: &[String]) -> Vec<Change> {
        self.stamp += 1;
        let groups = self.group_names(groups);
        let version = self.next_version();
        let item = self.entry(contact);
        item.name = name.map(Into::into);
        item.groups = groups;
        let newly_listed = !std::mem::replace(&mut item.listed, true);
        item.version = version;
        let change = put(owner, item, version);
        self.listed += usize::from(newly_listed);
        vec![change]
    }

    /// Takes the item out, with subscription, pre-approval and request. RFC 6121 §2.5.
    pub fn remove(&mut self, owner: &BareJid, contact: &BareJid) -> Vec<Change> {
        self.stamp += 1;
        let Ok(at) = self.find(contact) else { return Vec::new() };
        let item = self.items.remove(at);
        let mut changes = Vec::new();
        if item.listed {
            self.listed -= 1;
            let version = self.next_version();
            if self.removals.len() == REMOVALS_MAX
                && let Some((oldest, _)) = self.removals.pop_front()
            {
                self.removals_known_after = oldest;
            }
            self.removals.push_back((version, contact.clone()));
        }
        changes.push(Change::RosterDelete { account: owner.clone(), contact: contact.clone(), version: self.version });
        changes.extend(self.take_request(owner, contact));
        changes
    }

    /// Gives a contact another subscription state. An item becomes listed when there is more to show than a request;
    /// one that is not listed goes when nothing is left of it. The second value tells whether the roster shows
    /// something new, so that a push is due. RFC 6121 §2.6.3, "roster modification".
    pub fn subscribe(&mut self, owner: &BareJid, contact: &BareJid, state: Subscription) -> (Vec<Change>, bool) {
        self.stamp += 1;
        let before = self.get(contact);
        let was_listed = before.is_some_and(|item| item.listed);
        let before = before.map_or_else(Subscription::default, |item| item.subscription);
        if before == state {
            return (Vec::new(), false);
        }
        let listed = was_listed || shown(state) != Subscription::default();
        let visible = listed && (!was_listed || shown(before) != shown(state));
        let mut changes = Vec::new();
        if listed || state.pending_in {
            let version = if visible { self.next_version() } else { self.version };
            let item = self.entry(contact);
            item.subscription = state;
            item.listed = listed;
            if visible {
                item.version = version;
            }
            changes.push(put(owner, item, version));
            self.listed += usize::from(listed && !was_listed);
        } else if let Ok(at) = self.find(contact) {
            self.items.remove(at);
            changes.push(Change::RosterDelete {
                account: owner.clone(),
                contact: contact.clone(),
                version: self.version,
            });
        }
        if before.pending_in && !state.pending_in {
            changes.extend(self.take_request(owner, contact));
        }
        (changes, visible)
    }

    /// Keeps a request until it is answered. RFC 6121 §3.1.3.
    pub fn keep_request(&mut self, owner: &BareJid, request: Request) -> Change {
        let change = Change::RequestPut {
            account: owner.clone(),
            contact: request.contact.clone(),
            stanza: request.stanza.to_vec(),
            received: request.received,
        };
        self.put_request(request);
        change
    }

    /// What is new to a client that knows `version`. `Full` if it is unknown, if a removal may be among the changes
    /// that is no longer remembered, or if the changes are many or not less than the whole. RFC 6121 §2.6.3.
    pub fn since(&self, version: u64) -> Catchup<'_> {
        if version > self.version {
            return Catchup::Full;
        }
        let removals = self.removals.iter().map(|(version, contact)| (*version, contact));
        let mut changes: Vec<(u64, &BareJid)> = self
            .listed()
            .map(|item| (item.version, &item.jid))
            .chain(removals)
            .filter(|(its, _)| *its > version)
            .collect();
        // Each version is one change. One that nobody holds was overwritten by a later change of the same item, or is
        // a removal; before the roster was read nobody knows which.
        let forgotten = self.removals_known_after.saturating_sub(version);
        let accounted = changes.iter().filter(|(its, _)| *its <= self.removals_known_after).count();
        if (accounted as u64) < forgotten
            || (!changes.is_empty() && changes.len() * 2 > self.listed)
            || changes.len() > PUSHES_MAX
        {
            return Catchup::Full;
        }
        changes.sort();
        // Who was removed and added again is told of once.
        changes.retain(|(its, jid)| !self.get(jid).is_some_and(|item| item.listed && item.version != *its));
        Catchup::Pushes(changes)
    }

    /// The roster was read again, as a change of it could not be written, and was `before` in memory. Who was told of a
    /// version that came to nothing must not take a later one for it, so the next is beyond both. Gives the contacts
    /// whose items differ, by JID.
    fn succeeds(&mut self, before: &Roster) -> Vec<BareJid> {
        let differs = |item: &&Item, other: &Roster| !other.get(&item.jid).is_some_and(|it| it.is_like(item));
        let mut contacts: Vec<BareJid> =
            before.items.iter().filter(|item| differs(item, self)).map(|it| it.jid.clone()).collect();
        contacts.extend(self.items.iter().filter(|item| differs(item, before)).map(|it| it.jid.clone()));
        contacts.sort();
        contacts.dedup();
        self.stamp = self.stamp.max(before.stamp) + 1;
        if before.version > self.version || !contacts.is_empty() {
            self.version = self.version.max(before.version) + 1;
            self.removals.clear();
            self.removals_known_after = self.version;
        }
        contacts
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// The item, made if need be: not listed, without any subscription.
    fn entry(&mut self, contact: &BareJid) -> &mut Item {
        let at = match self.find(contact) {
            Ok(at) => at,
            Err(at) => {
                self.items.insert(
                    at,
                    Item {
                        jid: contact.clone(),
                        name: None,
                        groups: Box::default(),
                        subscription: Subscription::default(),
                        listed: false,
                        version: 0,
                    },
                );
                at
            }
        };
        &mut self.items[at]
    }

    fn find(&self, jid: &Jid) -> Result<usize, usize> {
        let bare = jid.bare_str();
        self.items.binary_search_by(|item| item.jid.as_str().cmp(bare))
    }

    /// The groups' names as other items hold them. All of the roster is looked through once, not once for each.
    fn group_names(&self, names: &[String]) -> Box<[Arc<str>]> {
        let mut known: HashMap<&str, Option<Arc<str>>> = names.iter().map(|name| (name.as_str(), None)).collect();
        for group in self.items.iter().flat_map(|item| item.groups.iter()) {
            if let Some(place) = known.get_mut(&**group)
                && place.is_none()
            {
                *place = Some(group.clone());
            }
        }
        let name = |name: &String| known.get(name.as_str()).cloned().flatten().unwrap_or_else(|| name.as_str().into());
        names.iter().map(name).collect()
    }

    fn put_request(&mut self, request: Request) {
        match self.requests.binary_search_by(|other| other.contact.cmp(&request.contact)) {
            Ok(at) => self.requests[at] = request,
            Err(at) => self.requests.insert(at, request),
        }
    }

    fn take_request(&mut self, owner: &BareJid, contact: &BareJid) -> Option<Change> {
        let at = self.requests.binary_search_by(|request| request.contact.cmp(contact)).ok()?;
        self.requests.remove(at);
        Some(Change::RequestDelete { account: owner.clone(), contact: contact.clone() })
    }
}

/// The part of the state that an item shows. RFC 6121 Appendix A.1.
fn shown(state: Subscription) -> Subscription {
    Subscription { pending_in: false, ..state }
}

fn shared(names: &mut BTreeSet<Arc<str>>, name: &str) -> Arc<str> {
    if let Some(known) = names.get(name) {
        return known.clone();
    }
    let name: Arc<str> = name.into();
    names.insert(name.clone());
    name
}

fn put(owner: &BareJid, item: &Item, version: u64) -> Change {
    let stored = RosterItem {
        jid: item.jid.clone(),
        name: item.name.clone(),
        groups: item.groups.iter().map(|group| Box::from(&**group)).collect(),
        subscription: item.subscription,
        listed: item.listed,
        version: item.version,
    };
    Change::RosterPut { account: owner.clone(), item: stored, version }
}

/// Writes the `<item/>` as a result or push shows it. RFC 6121 §2.1.2.
fn write_item(out: &mut Vec<u8>, item: &Item) {
    let Subscription { pending_out, approved, .. } = item.subscription;
    out.extend_from_slice(b"<item jid='");
    escape_attribute(out, item.jid.as_str());
    if let Some(name) = &item.name {
        out.extend_from_slice(b"' name='");
        escape_attribute(out, name);
    }
    out.extend_from_slice(b"' subscription='");
    out.extend_from_slice(item.subscription.word().as_bytes());
    out.extend_from_slice(if pending_out { b"' ask='subscribe'" } else { b"'" });
    if approved {
        out.extend_from_slice(b" approved='true'");
    }
    if item.groups.is_empty() {
        out.extend_from_slice(b"/>");
        return;
    }
    out.push(b'>');
    for group in &item.groups {
        out.extend_from_slice(b"<group>");
        escape_text(out, group);
        out.extend_from_slice(b"</group>");
    }
    out.extend_from_slice(b"</item>");
}

/// The whole roster, `<query/>`. RFC 6121 §2.1.4.
pub fn payload(account: &Account) -> Payload {
    const MARKUP: usize = 64;
    let query = Element::new("query", ns::ROSTER).attr("ver", ver(account, account.roster.version));
    let bytes = account.roster.listed().map(|item| item.bytes() + MARKUP).sum();
    Payload::of_large(&query, bytes, |out| account.roster.listed().for_each(|item| write_item(out, item)))
}

/// The `ver` of a version. It names the account's creation too: an account of the same name that is made later has
/// other versions. RFC 6121 §2.1.1.
pub fn ver(account: &Account, version: u64) -> String {
    format!("{:x}.{version}", account.created.0)
}

/// An operator's word: the contact is in the roster, and each is subscribed to the other as far as this account knows.
/// What either shows the other goes out.
pub fn befriend(account: &mut Account, contact: &BareJid, ticket: &Ticket, fx: &mut Effects) {
    let owner = account.jid.clone();
    let known = account.roster.get(contact).filter(|item| item.listed);
    let mut changes = Vec::new();
    if known.is_none() {
        changes.extend(account.roster.set(&owner, contact, None, &[]));
    }
    let state = Subscription { to: true, from: true, ..account.roster.subscription(contact) };
    let state = Subscription { pending_out: false, pending_in: false, ..state };
    changes.extend(account.roster.subscribe(&owner, contact, state).0);
    if changes.is_empty() {
        return;
    }
    fx.commit_for_operator(changes, ticket);
    push(account, contact, fx);
    presence::reveal_to(account, contact, fx);
}

/// The roster is as the store has it, as a change of it could not be written; it was `before`. Whoever read it
/// meanwhile is told how it stands, and contacts whose word was held against a state that never came to be are asked.
pub(crate) fn correct(account: &mut Account, before: &Roster, fx: &mut Effects) {
    for contact in account.roster.succeeds(before) {
        let (was, is) = (before.get(&contact), account.roster.get(&contact));
        let (was, is) = (was.and_then(Item::shows), is.and_then(Item::shows));
        if !match (&was, &is) {
            (Some(was), Some(is)) => was.is_like(is),
            (was, is) => was.is_none() && is.is_none(),
        } {
            push(account, &contact, fx);
        }
        if before.subscription(&contact) != account.roster.subscription(&contact) {
            doubts::of(account, contact, fx);
        }
    }
}

/// Tells all interested resources what has become of a contact's item, the one that changed it included.
/// RFC 6121 §2.1.6, §2.2.
pub fn push(account: &mut Account, contact: &Jid, fx: &mut Effects) {
    let stanza = pushed(account, contact, account.roster.version);
    let interested: Vec<SessionId> =
        account.sessions.iter().filter(|session| session.interested).map(|session| session.id).collect();
    let count = if xmpp::planted::is(xmpp::planted::Bug::PushOmitted) { 1 } else { interested.len() };
    for id in interested.into_iter().take(count) {
        push_to(account, id, stanza.clone(), fx);
    }
}

/// Tells one resource, for a version that it missed.
pub fn push_missed(account: &mut Account, id: SessionId, contact: &Jid, version: u64, fx: &mut Effects) {
    let stanza = pushed(account, contact, version);
    push_to(account, id, stanza, fx);
}

/// A push without `from`: it comes from the account itself, and everybody knows it. RFC 6121 §2.1.6.
fn pushed(account: &Account, contact: &Jid, version: u64) -> Arc<Stanza> {
    const BYTES: usize = 256;
    let query = Element::new("query", ns::ROSTER).attr("ver", ver(account, version));
    let payload = Payload::of_large(&query, BYTES, |out| match account.roster.get(contact) {
        Some(item) if item.listed => write_item(out, item),
        _ => Element::new("item", ns::ROSTER)
            .attr("jid", contact.bare_str())
            .attr("subscription", "remove")
            .write(out, ns::ROSTER),
    });
    Arc::new(Stanza { payload, ..Stanza::iq(IqType::Set, &format!("roster-{version}")) })
}

fn push_to(account: &mut Account, id: SessionId, stanza: Arc<Stanza>, fx: &mut Effects) {
    let Some(to) = account.session(id).map(|session| Jid::from(session.jid.clone())) else { return };
    session::deliver(account, id, Delivery { stanza, to: Some(to), more: Default::default(), position: None }, fx);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{account, bare};

    #[test]
    fn whom_the_operator_befriends_is_in_the_roster_and_sees_who_is_there() {
        let mut juliet = account("juliet@example.com").with("balcony", 0);
        let romeo = || bare("romeo@example.net");
        let befriend = || crate::Item::Befriend { contact: romeo(), ticket: Ticket::default() };
        let fx = juliet.item(befriend());
        let state = juliet.roster.subscription(&romeo());
        assert!(state.to && state.from && juliet.roster.len() == 1);
        assert!(fx.list.iter().any(|it| matches!(it, crate::Effect::Commit { .. })));
        // Once is enough.
        assert!(juliet.item(befriend()).commits().is_empty());
    }

    #[test]
    fn whom_the_operator_befriends_while_nothing_can_be_written_is_not_in_the_roster_and_may_be_put_there_again() {
        let mut juliet = account("juliet@example.com").with("balcony", 0);
        let romeo = || bare("romeo@example.net");
        let befriend = || crate::Item::Befriend { contact: romeo(), ticket: Ticket::default() };
        let bounce = juliet.item(befriend()).list.iter().find_map(|it| match it {
            crate::Effect::Commit { bounce, .. } => Some(bounce.clone()),
            _ => None,
        });
        let bounce = bounce.expect("a commit");
        assert!(juliet.reads_again(bounce.as_deref()));
        let fx = juliet.item(crate::Item::CommitFailed {
            bounce,
            error: store::StoreError::Full,
            ticket: Ticket::default(),
            stored: Some(Default::default()),
        });
        assert!(fx.told().is_empty(), "nobody has asked: {:?}", fx.told());
        assert!(juliet.roster.get(&romeo()).is_none());
        assert!(!juliet.item(befriend()).commits().is_empty());
    }

    fn owner() -> BareJid {
        bare("juliet@example.com")
    }

    fn roster_of(names: &[&str]) -> Roster {
        let mut roster = Roster::default();
        for name in names {
            roster.set(&owner(), &bare(name), None, &[]);
        }
        roster
    }

    fn item(jid: &str, version: u64) -> RosterItem {
        RosterItem {
            jid: bare(jid),
            name: None,
            groups: vec!["Friends".into()],
            subscription: Subscription::default(),
            listed: true,
            version,
        }
    }

    fn told(roster: &Roster, version: u64) -> Option<Vec<String>> {
        match roster.since(version) {
            Catchup::Full => None,
            Catchup::Pushes(pushes) => {
                Some(pushes.into_iter().map(|(version, jid)| format!("{version} {jid}")).collect())
            }
        }
    }

    #[test]
    fn a_client_that_knows_the_current_version_is_told_nothing() {
        assert_eq!(told(&roster_of(&["a@x", "b@x"]), 2), Some(vec![]));
        assert_eq!(told(&Roster::default(), 0), Some(vec![]));
    }

    #[test]
    fn a_client_that_knows_a_later_version_gets_the_roster() {
        assert_eq!(told(&roster_of(&["a@x", "b@x"]), 3), None);
    }

    #[test]
    fn changes_and_removals_are_told_in_order_of_their_versions() {
        let mut roster = roster_of(&["a@x", "b@x", "c@x", "d@x", "e@x", "f@x"]);
        roster.set(&owner(), &bare("b@x"), Some("B"), &[]);
        roster.remove(&owner(), &bare("c@x"));
        assert_eq!(told(&roster, 6), Some(vec!["7 b@x".into(), "8 c@x".into()]));
    }

    #[test]
    fn who_was_removed_and_added_again_is_told_of_once() {
        let mut roster = roster_of(&["a@x", "b@x", "c@x", "d@x", "e@x", "f@x"]);
        roster.remove(&owner(), &bare("c@x"));
        roster.set(&owner(), &bare("c@x"), None, &[]);
        assert_eq!(told(&roster, 6), Some(vec!["8 c@x".into()]));
    }

    #[test]
    fn more_changes_than_half_of_the_roster_are_told_as_the_roster() {
        let mut roster = roster_of(&["a@x", "b@x", "c@x"]);
        roster.set(&owner(), &bare("a@x"), Some("A"), &[]);
        roster.set(&owner(), &bare("b@x"), Some("B"), &[]);
        assert_eq!(told(&roster, 3), None);
        assert_eq!(told(&roster, 4), Some(vec!["5 b@x".into()]));
    }

    #[test]
    fn a_roster_read_from_the_store_is_told_whole_where_a_removal_may_have_been() {
        let items = (1..=9).filter(|n| *n != 5).map(|n| item(&format!("c{n}@x"), n)).collect();
        let roster = Roster::from_stored(9, items, Vec::new());
        assert_eq!(told(&roster, 6), Some(vec!["7 c7@x".into(), "8 c8@x".into(), "9 c9@x".into()]));
        assert_eq!(told(&roster, 5).map(|t| t.len()), Some(4));
        assert_eq!(told(&roster, 4), None, "version 5 may be a removal");
    }

    #[test]
    fn only_the_latest_removals_are_remembered() {
        let names: Vec<String> = (0..200).map(|n| format!("c{n}@x")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut roster = roster_of(&names);
        for name in &names[..REMOVALS_MAX + 1] {
            roster.remove(&owner(), &bare(name));
        }
        assert_eq!(told(&roster, 200), None);
        assert_eq!(told(&roster, 201).map(|told| told.len()), Some(REMOVALS_MAX));
    }

    #[test]
    fn items_of_a_group_share_its_name() {
        let mut roster = Roster::from_stored(2, vec![item("a@x", 1), item("b@x", 2)], Vec::new());
        roster.set(&owner(), &bare("c@x"), None, &["Friends".into()]);
        let groups: Vec<&Arc<str>> = roster.listed().flat_map(|item| item.groups.iter()).collect();
        assert_eq!(groups.len(), 3);
        assert!(groups.iter().all(|group| Arc::ptr_eq(group, groups[0])));
    }

    #[test]
    fn a_request_alone_is_no_item_and_no_new_version() {
        let mut roster = roster_of(&["a@x"]);
        let pending = Subscription { pending_in: true, ..Subscription::default() };
        let (changes, visible) = roster.subscribe(&owner(), &bare("b@x"), pending);
        assert!(!visible && roster.len() == 1 && roster.version == 1);
        assert!(matches!(&changes[..], [Change::RosterPut { item, version: 1, .. }] if !item.listed));
        let (changes, visible) = roster.subscribe(&owner(), &bare("b@x"), Subscription::default());
        assert!(!visible && roster.get(&bare("b@x")).is_none());
        assert!(matches!(&changes[..], [Change::RosterDelete { version: 1, .. }]));
    }

    #[test]
    fn naming_who_has_asked_lists_the_item_and_keeps_the_request() {
        let mut roster = Roster::default();
        let pending = Subscription { pending_in: true, ..Subscription::default() };
        roster.subscribe(&owner(), &bare("b@x"), pending);
        roster.keep_request(&owner(), Request { contact: bare("b@x"), stanza: Box::default(), received: Stamp(0) });
        roster.set(&owner(), &bare("b@x"), Some("B"), &[]);
        assert_eq!((roster.len(), roster.requests().len()), (1, 1));
        assert!(roster.subscription(&bare("b@x")).pending_in);
    }

    #[test]
    fn a_stored_request_without_its_item_still_waits() {
        let roster = Roster::from_stored(0, Vec::new(), vec![(bare("b@x"), b"<presence/>".to_vec(), Stamp(5))]);
        assert!(roster.subscription(&bare("b@x")).pending_in && roster.is_empty());
    }

    #[test]
    fn an_item_shows_subscription_ask_approval_and_groups() {
        let subscription = Subscription { from: true, pending_out: true, approved: true, ..Subscription::default() };
        let roster = Roster::from_stored(
            1,
            vec![RosterItem { subscription, name: Some("A & B".into()), ..item("a@x", 1) }],
            Vec::new(),
        );
        let mut xml = Vec::new();
        write_item(&mut xml, roster.get(&bare("a@x")).expect("put in"));
        assert_eq!(
            String::from_utf8(xml).expect("UTF-8"),
            "<item jid='a@x' name='A &amp; B' subscription='from' ask='subscribe' approved='true'><group>Friends</group></item>"
        );
    }
}
