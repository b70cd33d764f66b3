//! A small stage for tests: one account, its sessions, and what its steps gave.
//!
//! Commits count as done: what stands behind one in the list of effects has happened.

use crate::account::Account;
use crate::archive_ids::ArchiveIds;
use crate::effects::{Delivery, EdgeItem, Effect, Effects};
use crate::item::{DetachReason, EdgeRef, Ingress, Item, Now, SessionId, Ticket};
use crate::policy::{Aliases, HostPolicy};
use crate::session::Session;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use store::{AccountRecord, Change, Record, RosterItem, Subscription};
use xmpp::write::{Wire, write_stanza};
use xmpp::{BareJid, Jid, Stamp, Stanza};

/// 2026-01-01T00:00:00Z.
pub const START: Stamp = Stamp(1_767_225_600_000_000);

/// An account on the stage. Dereferences to the [`Account`].
pub struct Scene {
    pub account: Account,
    pub now: Now,
    stanzas: u32,
}

/// An account without sessions.
pub fn account(jid: &str) -> Scene {
    account_with(jid, AccountRecord { created: START, ..AccountRecord::default() })
}

/// An account as the store has it.
pub fn account_with(jid: &str, stored: AccountRecord) -> Scene {
    let jid = bare(jid);
    let mut policy = HostPolicy::of(jid.domain_jid());
    let alias = |local: &str, whom: &BareJid| Some(format!("~{}", crate::pidf::opaque_id(local, whom.as_str())));
    policy.aliases = Aliases(Some(Arc::new(alias)));
    let policy = Arc::new(policy);
    let now = Now { utc: START, mono_ms: 1_000 };
    let mut account = Account::new(jid, policy, 7, stored);
    account.now = now;
    account.retention.trimmed(now.mono_ms);
    account.archive_ids = ArchiveIds::from_stored(Some(&[0; 32])).expect("it is a key");
    Scene { account, now, stanzas: 0 }
}

/// What a client of any account on the stage is told a position is.
pub fn archive_id(position: i64) -> String {
    ArchiveIds::from_stored(Some(&[0; 32])).expect("it is a key").text(position)
}

pub fn bare(jid: &str) -> BareJid {
    BareJid::parse(jid).expect("a bare JID in a test")
}

pub fn jid(jid: &str) -> Jid {
    Jid::parse(jid).expect("a JID in a test")
}

pub fn stanza(xml: &str) -> Stanza {
    Stanza::parse(xml.as_bytes()).expect("a stanza in a test")
}

/// A roster item: `subscription` is `none`, `to`, `from` or `both`.
pub fn contact(jid: &str, subscription: &str) -> RosterItem {
    let subscription = Subscription {
        to: matches!(subscription, "to" | "both"),
        from: matches!(subscription, "from" | "both"),
        ..Subscription::default()
    };
    RosterItem { jid: bare(jid), name: None, groups: Vec::new(), subscription, listed: true, version: 1 }
}

impl Scene {
    /// With another policy.
    pub fn policy(mut self, change: impl FnOnce(&mut HostPolicy)) -> Scene {
        let mut policy = HostPolicy::clone(&self.account.policy);
        change(&mut policy);
        self.account.policy = Arc::new(policy);
        self
    }

    /// With a connected resource that has sent no presence. Its stream is `EdgeRef(100 + n)` for the n-th, from 0.
    pub fn connected(mut self, resource: &str) -> Scene {
        let id = SessionId(self.account.next_session);
        let edge = EdgeRef(100 + u64::from(id.0));
        self.account.next_session += 1;
        let jid = self.account.jid.with_resource(resource).expect("a resource in a test");
        self.account.sessions.push(Session::new(id, jid, edge, START));
        self
    }

    /// With an available resource of that priority, its ledger row written.
    pub fn with(self, resource: &str, priority: i8) -> Scene {
        let mut scene = self.connected(resource);
        let session = scene.account.sessions.last_mut().expect("just pushed");
        let xml = format!("<presence from='{}'><priority>{priority}</priority></presence>", session.jid);
        session.presence = Some(Arc::new(stanza(&xml)));
        session.priority = priority;
        session.in_ledger = true;
        scene
    }

    /// Changes the session of a resource, as `.having("home", |s| s.carbons = true)`.
    pub fn having(mut self, resource: &str, change: impl FnOnce(&mut Session)) -> Scene {
        let id = self.id(resource);
        change(self.account.session_mut(id).expect("id just found"));
        self
    }

    pub fn id(&self, resource: &str) -> SessionId {
        self.account.sessions.iter().find(|s| s.jid.resource_str() == resource).expect("a resource of the scene").id
    }

    pub fn edge(&self, resource: &str) -> EdgeRef {
        let id = self.id(resource);
        self.account.session(id).and_then(|s| s.edge).expect("a stream")
    }

    /// One step.
    pub fn item(&mut self, item: Item) -> Fx {
        let edges = self.edges();
        let mut fx = Effects::default();
        self.account.step(item, self.now, &mut fx);
        self.takes_over(&mut fx);
        let mut edges_after = self.edges();
        edges_after.extend(edges);
        Fx { list: fx.list, edges: edges_after }
    }

    /// As the house does when the commit before it is written.
    fn takes_over(&mut self, fx: &mut Effects) {
        let sessions = fx.list.iter().filter_map(|effect| match effect {
            Effect::TakeOver { session } => Some(*session),
            _ => None,
        });
        for session in sessions.collect::<Vec<_>>() {
            self.account.step(Item::TakeOver { session }, self.now, fx);
        }
    }

    fn edges(&self) -> Vec<(EdgeRef, String)> {
        self.account.sessions.iter().filter_map(|s| Some((s.edge?, s.jid.resource_str().to_owned()))).collect()
    }

    fn next_ingress(&mut self) -> Ingress {
        self.stanzas += 1;
        Ingress { stream: 1, ordinal: self.stanzas }
    }

    /// A stanza from somebody else; without `to` it is for the bare JID.
    pub fn receive(&mut self, xml: &str) -> Fx {
        let mut stanza = stanza(xml);
        let to = stanza.to.clone().unwrap_or_else(|| self.account.jid.clone().into());
        stanza.to = Some(to.clone());
        let ingress = self.next_ingress();
        self.item(Item::Inbound { stanza: Arc::new(stanza), to, ingress, ticket: Ticket::default() })
    }

    /// A stanza from an own client.
    pub fn sends(&mut self, resource: &str, xml: &str) -> Fx {
        let session = self.id(resource);
        let ingress = self.next_ingress();
        self.item(Item::FromClient { session, stanza: Arc::new(stanza(xml)), ingress, ticket: Ticket::default() })
    }

    /// The connection of a resource breaks; `deliveries` were written, `received` stanzas taken in.
    pub fn loses(&mut self, resource: &str, deliveries: u64, received: u32) -> Fx {
        let (session, edge) = (self.id(resource), self.edge(resource));
        self.item(Item::Detached { session, edge, reason: DetachReason::Lost, deliveries, received })
    }

    /// `</stream:stream>` from a resource that has read all.
    pub fn closes(&mut self, resource: &str) -> Fx {
        let (session, edge) = (self.id(resource), self.edge(resource));
        let deliveries = self.account.session(session).map_or(0, |s| s.queued);
        self.item(Item::Detached { session, edge, reason: DetachReason::Closed, deliveries, received: 0 })
    }

    pub fn acks(&mut self, resource: &str, h: u32) -> Fx {
        let session = self.id(resource);
        self.item(Item::Acked { session, h })
    }

    /// All that was queued to the resource's stream has been written.
    pub fn writes_all(&mut self, resource: &str) -> Fx {
        let (session, edge) = (self.id(resource), self.edge(resource));
        let deliveries = self.account.session(session).map_or(0, |s| s.queued);
        self.item(Item::Written { session, edge, deliveries })
    }

    /// Time passes, and the account is woken.
    pub fn after_ms(&mut self, ms: u64) -> Fx {
        self.now.mono_ms += ms;
        self.now.utc = Stamp(self.now.utc.0 + ms as i64 * 1_000);
        self.item(Item::Tick)
    }
}

impl Deref for Scene {
    type Target = Account;
    fn deref(&self) -> &Account {
        &self.account
    }
}

impl DerefMut for Scene {
    fn deref_mut(&mut self) -> &mut Account {
        &mut self.account
    }
}

/// What a step gave.
#[derive(Debug)]
pub struct Fx {
    pub list: Vec<Effect>,
    edges: Vec<(EdgeRef, String)>,
}

impl Fx {
    fn resource(&self, edge: EdgeRef) -> String {
        self.edges.iter().find(|(e, _)| *e == edge).map_or_else(|| format!("{edge:?}"), |(_, r)| r.clone())
    }

    fn deliveries(&self) -> impl Iterator<Item = (String, &Delivery)> {
        self.list.iter().filter_map(|effect| match effect {
            // (A session without a stream is given what it is to have by no stream: nobody reads it.)
            Effect::Edge { edge, item: EdgeItem::Deliver { delivery, .. } } if *edge != EdgeRef::NOBODY => {
                Some((self.resource(*edge), delivery))
            }
            _ => None,
        })
    }

    /// Resources that were given a stanza, in order, once a stanza.
    pub fn written_to(&self) -> Vec<String> {
        self.deliveries().map(|(resource, _)| resource).collect()
    }

    /// The stanzas given to a resource, as they go over its stream.
    pub fn delivered(&self, resource: &str) -> Vec<String> {
        self.deliveries()
            .filter(|(r, _)| r == resource)
            .map(|(_, d)| on_the_wire(&d.stanza, d.to.as_ref(), &d.more))
            .collect()
    }

    /// What else a resource's stream was told: (resource, item) but for deliveries.
    pub fn edge_items(&self) -> Vec<(String, &EdgeItem)> {
        self.list
            .iter()
            .filter_map(|effect| match effect {
                Effect::Edge { item: EdgeItem::Deliver { .. }, .. } => None,
                Effect::Edge { edge, item } => Some((self.resource(*edge), item)),
                _ => None,
            })
            .collect()
    }

    /// Stanzas told to other entities, as (address, stanza); a fan counts once for each target.
    pub fn told(&self) -> Vec<(String, String)> {
        let mut told = Vec::new();
        for effect in &self.list {
            match effect {
                Effect::Tell { to, stanza, .. } => {
                    told.push((to.to_string(), on_the_wire(stanza, None, &Default::default())))
                }
                Effect::Fan { stanza, targets } => {
                    told.extend(
                        targets.iter().map(|to| (to.to_string(), on_the_wire(stanza, Some(to), &Default::default()))),
                    );
                }
                _ => {}
            }
        }
        told
    }

    /// The addresses of [`Fx::told`].
    pub fn told_to(&self) -> Vec<String> {
        self.told().into_iter().map(|(to, _)| to).collect()
    }

    /// All changes of all commits, in order.
    pub fn commits(&self) -> Vec<Change> {
        self.list
            .iter()
            .filter_map(|effect| match effect {
                Effect::Commit { changes, .. } => Some(changes.clone()),
                _ => None,
            })
            .flatten()
            .collect()
    }

    /// Records appended to the log.
    pub fn appended(&self) -> Vec<Record> {
        self.commits()
            .into_iter()
            .filter_map(|change| match change {
                Change::Append { record, .. } => Some(record),
                _ => None,
            })
            .collect()
    }

    /// Positions whose pending marks were cleared.
    pub fn taken(&self) -> Vec<i64> {
        self.commits()
            .into_iter()
            .filter_map(|change| match change {
                Change::Taken { positions, .. } => Some(positions),
                _ => None,
            })
            .flatten()
            .collect()
    }

    /// Does the effect that `first` picks stand before the one that `second` picks?
    pub fn in_order(&self, first: impl Fn(&Effect) -> bool, second: impl Fn(&Effect) -> bool) -> bool {
        match (self.list.iter().position(first), self.list.iter().position(second)) {
            (Some(a), Some(b)) => a < b,
            _ => false,
        }
    }

    /// Nothing happens; a timer may be set.
    pub fn is_empty(&self) -> bool {
        self.list.iter().all(|effect| matches!(effect, Effect::WakeAt { .. }))
    }
}

fn on_the_wire(stanza: &Stanza, to: Option<&Jid>, more: &xmpp::write::Additions) -> String {
    let mut out = Vec::new();
    write_stanza(&mut out, stanza, to, more, Wire::Client);
    String::from_utf8(out).expect("stanzas are UTF-8")
}
