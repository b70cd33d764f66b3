//! The nodes of an account's own publish-subscribe service, XEP-0163: what is published there, and for whom.
//!
//! A node's access model (XEP-0060 §4.5) says who else may see it, within what [`crate::view`] allows. A `whitelist` on
//! which is nobody makes it the owner's alone. In memory is what a step must know to decide: each node's configuration,
//! its members and subscribers, and of its items the ids, in order of publication, and sizes. The payloads are in the
//! store, one blob an item.

mod stored;
mod subscribers;

pub use subscribers::{MEMBERS_MAX, SUBSCRIPTIONS_MAX, SUBSCRIPTIONS_OF_ONE_MAX, settle};
pub use subscribers::{set_members, subscribe, unsubscribe};

use crate::account::Account;
use crate::policy::Limits;
use crate::view::{self, Exit, view};
use std::collections::BTreeMap;
use store::{Change, SETTINGS};
use xmpp::{BareJid, Jid, Stamp, StanzaCondition, StanzaError};

/// The namespace of errors. XEP-0060 §17.
pub const ERRORS: &str = "http://jabber.org/protocol/pubsub#errors";
/// Where payloads are kept.
pub const SPACE: &str = "pubsub";
/// What the keys of nodes begin with, in the space of settings.
const KEY: &str = "node:";
/// Bytes of the name of a node, or of an item's id.
const NAME_BYTES_MAX: usize = 1_024;

/// When a node's last item is sent without being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendLast {
    Never,
    /// To who subscribes.
    OnSubscription,
    /// And to a resource that becomes available.
    OnPresence,
}

impl SendLast {
    pub const ALL: [SendLast; 3] = [SendLast::Never, SendLast::OnSubscription, SendLast::OnPresence];

    pub fn name(self) -> &'static str {
        match self {
            SendLast::Never => "never",
            SendLast::OnSubscription => "on_sub",
            SendLast::OnPresence => "on_sub_and_presence",
        }
    }

    pub fn named(name: &str) -> Option<SendLast> {
        SendLast::ALL.into_iter().find(|when| when.name() == name)
    }
}

/// Who may see a node. XEP-0060 §4.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody whom neither block list nor rule keeps away.
    Open,
    /// Who has a subscription to the owner's presence.
    Presence,
    /// Those of them who are in one of the groups.
    Roster,
    /// The owner, and those with the affiliation `member`.
    Whitelist,
}

impl Access {
    pub const ALL: [Access; 4] = [Access::Open, Access::Presence, Access::Roster, Access::Whitelist];

    pub fn name(self) -> &'static str {
        match self {
            Access::Open => "open",
            Access::Presence => "presence",
            Access::Roster => "roster",
            Access::Whitelist => "whitelist",
        }
    }

    pub fn named(name: &str) -> Option<Access> {
        Access::ALL.into_iter().find(|access| access.name() == name)
    }
}

/// XEP-0060 §16.4.4, as far as it can be chosen here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub access: Access,
    /// Of the roster, for [`Access::Roster`].
    pub groups: Vec<Box<str>>,
    /// What people read.
    pub title: Box<str>,
    pub description: Box<str>,
    /// Namespace of the payloads.
    pub payload_type: Box<str>,
    /// Do items name who published them (`itemreply`)? That is the owner.
    pub names_publisher: bool,
    /// Off: items are told and forgotten.
    pub persist: bool,
    /// `None`: as many as the limit allows (`max`).
    pub items_max: Option<usize>,
    pub send_last: SendLast,
    /// Are publications told?
    pub deliver: bool,
    pub notify_retract: bool,
    pub notify_delete: bool,
    /// Are changes of this told?
    pub notify_config: bool,
}

impl Default for Config {
    /// The defaults of XEP-0163 §5, with one item a node (XEP-0060 §12.21).
    fn default() -> Config {
        Config {
            access: Access::Presence,
            groups: Vec::new(),
            title: "".into(),
            description: "".into(),
            payload_type: "".into(),
            names_publisher: false,
            persist: true,
            items_max: Some(1),
            send_last: SendLast::OnPresence,
            deliver: true,
            notify_retract: true,
            notify_delete: true,
            notify_config: false,
        }
    }
}

impl Config {
    /// For what is kept for oneself, one item a thing. XEP-0490 §4.2.
    pub fn private() -> Config {
        Config { access: Access::Whitelist, items_max: None, send_last: SendLast::Never, ..Config::default() }
    }

    /// How a node of this name is made when nobody says how. What clients keep there for themselves is not shown to
    /// anybody because one of them forgot to say so.
    pub fn of(name: &str) -> Config {
        if PRIVATE.contains(&name) { Config::private() } else { Config::default() }
    }
}

/// XEP-0402, XEP-0048, XEP-0490.
const PRIVATE: &[&str] = &["urn:xmpp:bookmarks:1", "storage:bookmarks", "urn:xmpp:mds:displayed:0"];
/// Groups that a configuration may name, and bytes of its title, description and type.
pub const GROUPS_MAX: usize = 32;
pub const TEXT_BYTES_MAX: usize = 1_024;

/// An item's id and its payload.
pub type Published = (Box<str>, Vec<u8>);

/// What is known of an item without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub id: Box<str>,
    /// Of the payload.
    pub bytes: usize,
    pub published: Stamp,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    pub config: Config,
    /// In order of publication, the last published last.
    pub items: Vec<Item>,
    /// Who is on the whitelist. XEP-0060 §4.1.
    pub members: Vec<BareJid>,
    /// Who asked to be told, by the address that was given: full or bare. XEP-0060 §6.1.
    pub subscribers: Vec<Jid>,
}

#[derive(Debug, Default)]
pub struct Nodes {
    nodes: BTreeMap<Box<str>, Node>,
    /// Of all payloads.
    bytes: u64,
    /// What subscriptions were last held against: see [`settle`].
    settled: Option<subscribers::Grounds>,
}

fn refused(condition: StanzaCondition, application: &'static str) -> StanzaError {
    StanzaError::from(condition).with_application(application, ERRORS)
}

/// Is it the key of a node, in the space of settings?
pub fn is_key(key: &str) -> bool {
    key.starts_with(KEY)
}

/// The key of an item's payload. U+001F is in no XML, so in no name.
pub fn item_key(node: &str, item: &str) -> Box<str> {
    [node, "\u{1f}", item].concat().into()
}

impl Nodes {
    /// As they were stored; a node that cannot be read is left out.
    pub fn from_stored(settings: &[(Box<str>, Vec<u8>)]) -> Nodes {
        let read = |(key, value): &(Box<str>, Vec<u8>)| {
            let name = key.strip_prefix(KEY)?;
            Some((name.into(), Node::from_stored(value)?))
        };
        let nodes: BTreeMap<Box<str>, Node> = settings.iter().filter_map(read).collect();
        let bytes = nodes.values().flat_map(|node| &node.items).map(|item| item.bytes as u64).sum();
        Nodes { nodes, bytes, settled: None }
    }

    pub fn get(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// Is there anything that others may see?
    pub fn are_shared(&self) -> bool {
        self.nodes.values().any(Node::is_shared)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(name, node)| (&**name, node))
    }

    /// # Errors
    /// `conflict` if there is one of that name, `resource-constraint` when there are too many, `not-acceptable` for a
    /// name that is none. XEP-0060 §8.1.
    fn create(&mut self, name: &str, config: Config, limits: &Limits) -> Result<(), StanzaError> {
        is_name(name)?;
        if self.nodes.contains_key(name) {
            return Err(StanzaCondition::Conflict.into());
        }
        if self.nodes.len() >= limits.pep_nodes_max {
            return Err(refused(StanzaCondition::ResourceConstraint, "max-nodes-exceeded").over("pep_nodes_max"));
        }
        self.nodes.insert(name.into(), Node { config, ..Node::default() });
        Ok(())
    }

    /// Takes the oldest items until no more are left than there may be; their ids.
    fn cut(&mut self, name: &str, limits: &Limits) -> Vec<Box<str>> {
        let Some(node) = self.nodes.get_mut(name) else { return Vec::new() };
        let surplus = node.items.len().saturating_sub(node.items_max(limits));
        let gone: Vec<Item> = node.items.drain(..surplus).collect();
        self.bytes -= gone.iter().map(|item| item.bytes as u64).sum::<u64>();
        gone.into_iter().map(|item| item.id).collect()
    }
}

impl Node {
    /// Is there anybody else who may see it?
    pub fn is_shared(&self) -> bool {
        self.config.access != Access::Whitelist || !self.members.is_empty()
    }

    pub fn is_member(&self, who: &Jid) -> bool {
        self.members.iter().any(|member| member.same_bare(who))
    }

    /// Items that may be in it.
    pub fn items_max(&self, limits: &Limits) -> usize {
        let most = self.config.items_max.unwrap_or(usize::MAX).min(limits.pep_items_max);
        if self.config.persist { most } else { 0 }
    }
}

/// Does `watcher`, who is not the owner, see the node at this exit? It must be shown by its access model, and of what the
/// rules show it must be a part.
pub fn sees(account: &Account, watcher: &Jid, name: &str, node: &Node, exit: Exit) -> bool {
    let shows = |exit| {
        let view = view(account, watcher, exit);
        view.shows() && view.shape.is_none_or(|shape| shape.pep.has(name))
    };
    let in_group = || {
        let item = account.roster.get(watcher);
        let allowed = &node.config.groups;
        item.is_some_and(|item| item.groups.iter().any(|group| allowed.iter().any(|name| **name == **group)))
    };
    match node.config.access {
        Access::Open => shows(Exit::OpenNode),
        Access::Presence => shows(exit),
        Access::Roster => shows(exit) && in_group(),
        // The owner named them; who is politely blocked since then sees nothing of what is not for everybody.
        Access::Whitelist => node.is_member(watcher) && shows(Exit::OpenNode) && !view::is_away_for(account, watcher),
    }
}

fn is_name(name: &str) -> Result<(), StanzaError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(StanzaCondition::NotAcceptable.into());
    }
    Ok(())
}

fn not_found() -> StanzaError {
    StanzaCondition::ItemNotFound.into()
}

fn delete_item(owner: &BareJid, node: &str, item: &str) -> Change {
    Change::BlobDelete { account: owner.clone(), space: SPACE.into(), key: item_key(node, item) }
}

fn save(account: &Account, name: &str) -> Option<Change> {
    let value = account.nodes.get(name)?.to_stored();
    let key = [KEY, name].concat().into();
    Some(Change::BlobPut { account: account.jid.clone(), space: SETTINGS.into(), key, value })
}

/// Makes a node. Gives the changes to be committed, as all of these do.
///
/// # Errors
/// See [`Nodes::create`].
pub fn create(account: &mut Account, name: &str, config: Config) -> Result<Vec<Change>, StanzaError> {
    let limits = account.policy.limits.clone();
    account.nodes.create(name, config, &limits)?;
    Ok(save(account, name).into_iter().collect())
}

/// # Errors
/// `item-not-found` if there is no such node.
pub fn configure(account: &mut Account, name: &str, config: Config) -> Result<Vec<Change>, StanzaError> {
    let node = account.nodes.nodes.get_mut(name).ok_or_else(not_found)?;
    node.config = config;
    account.nodes.settled = None;
    let limits = account.policy.limits.clone();
    let gone = account.nodes.cut(name, &limits);
    let deletes = gone.iter().map(|item| delete_item(&account.jid, name, item));
    let mut changes: Vec<Change> = deletes.collect();
    changes.extend(save(account, name));
    Ok(changes)
}

/// Publishes items (id and payload) to a node, which is made with `config` if it is not there. The oldest make room.
/// XEP-0060 §7.1.
///
/// # Errors
/// `not-acceptable` for a payload or an id that is too long, `not-allowed` for more items than a node may have,
/// `resource-constraint` when the account's nodes hold too much.
pub fn publish(
    account: &mut Account,
    name: &str,
    config: &Config,
    items: &[Published],
) -> Result<Vec<Change>, StanzaError> {
    let limits = account.policy.limits.clone();
    for (id, payload) in items {
        is_name(id)?;
        if payload.len() > limits.pep_item_bytes_max {
            return Err(refused(StanzaCondition::NotAcceptable, "payload-too-big").over("pep_item_bytes_max"));
        }
    }
    let made = account.nodes.get(name).is_none();
    let new = Node { config: config.clone(), ..Node::default() };
    let node = account.nodes.get(name).unwrap_or(&new);
    let items_max = node.items_max(&limits);
    if node.config.persist && items.len() > items_max {
        return Err(refused(StanzaCondition::NotAllowed, "max-items-exceeded").over("pep_items_max"));
    }
    let old = |id: &str| node.items.iter().find(|item| *item.id == *id).map_or(0, |item| item.bytes as u64);
    let more: u64 = items.iter().map(|(id, payload)| (payload.len() as u64).saturating_sub(old(id))).sum();
    if node.config.persist && account.nodes.bytes + more > limits.pep_bytes_max {
        return Err(StanzaError::from(StanzaCondition::ResourceConstraint)
            .with_text("the nodes hold too much")
            .over("pep_bytes_max"));
    }
    if made {
        account.nodes.create(name, config.clone(), &limits)?;
    }

    let mut changes = Vec::new();
    let persists = account.nodes.get(name).is_some_and(|node| node.config.persist);
    if persists {
        let now = account.now.utc;
        for (id, payload) in items {
            let key = item_key(name, id);
            let value = payload.clone();
            changes.push(Change::BlobPut { account: account.jid.clone(), space: SPACE.into(), key, value });
            let Some(node) = account.nodes.nodes.get_mut(name) else { continue };
            if let Some(at) = node.items.iter().position(|item| item.id == *id) {
                account.nodes.bytes -= node.items.remove(at).bytes as u64;
            }
            account.nodes.bytes += payload.len() as u64;
            node.items.push(Item { id: id.clone(), bytes: payload.len(), published: now });
        }
        let gone = account.nodes.cut(name, &limits);
        changes.extend(gone.iter().map(|item| delete_item(&account.jid, name, item)));
    }
    if made || persists {
        changes.extend(save(account, name));
    }
    Ok(changes)
}

/// Takes one item out of a node. XEP-0060 §7.2.
///
/// # Errors
/// `item-not-found` if there is none.
pub fn retract(account: &mut Account, name: &str, item: &str) -> Result<Vec<Change>, StanzaError> {
    let node = account.nodes.nodes.get_mut(name).ok_or_else(not_found)?;
    let at = node.items.iter().position(|known| *known.id == *item).ok_or_else(not_found)?;
    account.nodes.bytes -= node.items.remove(at).bytes as u64;
    let mut changes = vec![delete_item(&account.jid, name, item)];
    changes.extend(save(account, name));
    Ok(changes)
}

/// Takes all items out of a node. XEP-0060 §8.5.
///
/// # Errors
/// `item-not-found` if there is no such node.
pub fn purge(account: &mut Account, name: &str) -> Result<Vec<Change>, StanzaError> {
    let node = account.nodes.nodes.get_mut(name).ok_or_else(not_found)?;
    let gone = std::mem::take(&mut node.items);
    account.nodes.bytes -= gone.iter().map(|item| item.bytes as u64).sum::<u64>();
    let mut changes: Vec<Change> = gone.iter().map(|item| delete_item(&account.jid, name, &item.id)).collect();
    changes.extend(save(account, name));
    Ok(changes)
}

/// XEP-0060 §8.4.
///
/// # Errors
/// `item-not-found` if there is no such node.
pub fn delete(account: &mut Account, name: &str) -> Result<Vec<Change>, StanzaError> {
    let mut changes = purge(account, name)?;
    account.nodes.nodes.remove(name);
    changes.pop();
    let key = [KEY, name].concat().into();
    changes.push(Change::BlobDelete { account: account.jid.clone(), space: SETTINGS.into(), key });
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Scene, account, bare, jid};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn juliet() -> Scene {
        account("juliet@capulet.example").policy(|policy| {
            policy.limits.pep_items_max = 4;
            policy.limits.pep_nodes_max = 2;
            policy.limits.pep_bytes_max = 12;
            policy.limits.pep_item_bytes_max = 5;
        })
    }

    fn item(id: &str, payload: &str) -> (Box<str>, Vec<u8>) {
        (id.into(), payload.into())
    }

    fn condition<T>(result: Result<T, StanzaError>) -> Option<StanzaCondition> {
        result.err().map(|error| error.condition)
    }

    #[test]
    fn a_node_is_read_as_it_was_stored() {
        for config in [
            Config::default(),
            Config::private(),
            Config { send_last: SendLast::OnSubscription, notify_config: true, ..Config::default() },
            Config { persist: false, deliver: false, notify_retract: false, notify_delete: false, ..Config::default() },
            Config {
                access: Access::Roster,
                groups: vec!["A & B".into(), "c".into()],
                title: "What I 'hear'".into(),
                description: "<3".into(),
                payload_type: "urn:a".into(),
                names_publisher: true,
                ..Config::default()
            },
        ] {
            let items = vec![Item { id: "a&'b".into(), bytes: 3, published: Stamp(7) }];
            let members = vec![bare("nurse@capulet.example")];
            let subscribers = vec![jid("romeo@montague.example/orchard"), jid("romeo@montague.example")];
            let node = Node { config, items, members, subscribers };
            assert_eq!(Node::from_stored(&node.to_stored()), Some(node));
        }
    }

    #[test]
    fn a_node_that_was_stored_before_there_was_a_choice_is_private() {
        let old = b"<node xmlns='urn:waft:node' flags='11111' max='1'><item id='a' bytes='3' at='7'/></node>";
        let node = Node::from_stored(old).expect("it can be read");
        assert_eq!((node.config.access, node.items.len()), (Access::Whitelist, 1));
        assert!(node.members.is_empty() && node.subscribers.is_empty() && !node.config.notify_config);
    }

    #[test]
    fn what_is_too_much_is_refused_and_changes_nothing() {
        let mut juliet = juliet();
        let private = Config::private();
        publish(&mut juliet.account, "a", &private, &[item("1", "12345"), item("2", "12345")]).expect("it fits");
        let big = publish(&mut juliet.account, "a", &private, &[item("3", "123456")]);
        assert_eq!(condition(big), Some(StanzaCondition::NotAcceptable));
        let more = publish(&mut juliet.account, "b", &private, &[item("3", "123")]);
        assert_eq!(condition(more), Some(StanzaCondition::ResourceConstraint));
        let many: Vec<_> = (0..5).map(|n| item(&n.to_string(), "")).collect();
        let many = publish(&mut juliet.account, "b", &private, &many);
        assert_eq!(condition(many), Some(StanzaCondition::NotAllowed));
        assert_eq!(juliet.nodes.iter().count(), 1);
        create(&mut juliet.account, "b", private.clone()).expect("there is room for two");
        let third = publish(&mut juliet.account, "c", &private, &[item("1", "")]);
        assert_eq!(condition(third), Some(StanzaCondition::ResourceConstraint));
        // In place of what was there it fits.
        publish(&mut juliet.account, "a", &private, &[item("1", "54321")]).expect("it replaces");
    }

    proptest! {
        // What is in the store after any changes is what the memory says, within its bounds.
        #[test]
        fn memory_and_store_say_the_same(acts in proptest::collection::vec((0..5u8, 0..3usize, 0..6usize, 0..6usize), 1..60)) {
            let mut juliet = juliet();
            let mut blobs: std::collections::BTreeMap<(Box<str>, Box<str>), Vec<u8>> = Default::default();
            for (act, node, id, bytes) in acts {
                let name = ["a", "b", "c"][node];
                let id = id.to_string();
                let account = &mut juliet.account;
                let changes = match act {
                    0 | 1 => publish(account, name, &Config::private(), &[item(&id, &"x".repeat(bytes))]),
                    2 => retract(account, name, &id),
                    3 => delete(account, name),
                    _ => configure(account, name, Config { items_max: Some(bytes.max(1)), ..Config::private() }),
                };
                for change in changes.unwrap_or_default() {
                    match change {
                        Change::BlobPut { space, key, value, .. } => { blobs.insert((space, key), value); }
                        Change::BlobDelete { space, key, .. } => { blobs.remove(&(space, key)); }
                        other => panic!("{other:?}"),
                    }
                }
                let of = |wanted: &str| -> Vec<(Box<str>, Vec<u8>)> {
                    let some = blobs.iter().filter(|((space, _), _)| **space == *wanted);
                    some.map(|((_, key), value)| (key.clone(), value.clone())).collect()
                };
                let read = Nodes::from_stored(&of(SETTINGS));
                prop_assert_eq!(&read.nodes, &juliet.nodes.nodes);
                prop_assert_eq!(read.bytes, juliet.nodes.bytes);
                let payloads: BTreeSet<Box<str>> = of(SPACE).into_iter().map(|(key, _)| key).collect();
                let known: BTreeSet<Box<str>> = juliet.nodes.iter()
                    .flat_map(|(name, node)| node.items.iter().map(move |item| item_key(name, &item.id))).collect();
                prop_assert_eq!(payloads, known);
                prop_assert!(juliet.nodes.bytes <= 12 && juliet.nodes.iter().count() <= 2);
            }
        }
    }
}
