//! For tests: a house with one account, Juliet's, on a store in memory.

use super::{House, accounts, commits, edges::EdgeHandle, run};
use crate::config;
use im::{EdgeItem, Item, SessionId, Ticket};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use store::memory::MemoryStore;
use store::{Change, Credentials, Store};
use xmpp::{BareJid, Stamp, Stanza};

pub fn juliet() -> BareJid {
    BareJid::parse("juliet@capulet.example").expect("a bare JID in a test")
}

/// A house with one account, on a store in memory.
pub fn house() -> (Arc<House>, Arc<MemoryStore>) {
    let text = "[host.\"capulet.example\"]\n";
    let config = Arc::new(config::parse(text, None, &config::Sources::default()).expect("it is good"));
    let memory = Arc::new(MemoryStore::new());
    let store: Arc<dyn Store> = memory.clone();
    let now = im::Now { utc: Stamp(0), mono_ms: 0 };
    let world = crate::world::World::real();
    let seams = super::Seams::new(&[], world.crypto.clone());
    let hosts = run::hosts_of(&config, &HashMap::new(), now, &seams);
    let cluster = Box::new(cluster::Local::new(store.epoch()));
    let authenticator = Box::new(accounts::Internal(store.clone()));
    let house = House::new(config, store, cluster, hosts, authenticator, &world, seams);
    tokio::spawn(commits::carry(house.clone()));
    tokio::spawn(commits::hand_over(house.clone()));
    (house, memory)
}

/// A record of the archive.
pub fn record(position: i64) -> store::Record {
    store::Record {
        position,
        direction: store::Direction::Incoming,
        peer: juliet().into(),
        stanza: b"<message/>".to_vec(),
        pending: false,
        archived: true,
        dedupe: None,
        expires: None,
    }
}

pub async fn create(house: &House) {
    let credentials = Credentials { scram_sha1: None, scram_sha256: None };
    let change = Change::AccountCreate { account: juliet(), credentials, created: Stamp(0) };
    house.commit(&juliet(), vec![change]).await.expect("there is none of that name");
}

pub async fn next(edge: &EdgeHandle) -> EdgeItem {
    let mut queue = VecDeque::new();
    // Everything runs on this one task's thread: what is to come comes when the others had their turn.
    for _ in 0..1_000 {
        edge.take(&mut queue);
        match queue.pop_front() {
            Some(item) => {
                // The others for later.
                queue.into_iter().for_each(|rest| edge.send(rest));
                return item;
            }
            None => tokio::task::yield_now().await,
        }
    }
    panic!("the stream hears nothing")
}

/// Juliet binds a resource.
pub async fn session(house: &Arc<House>) -> (SessionId, Arc<EdgeHandle>) {
    create(house).await;
    bound(house).await
}

pub async fn bound(house: &Arc<House>) -> (SessionId, Arc<EdgeHandle>) {
    let edge = house.edges.open(100, 1 << 20);
    house.post(&juliet(), Item::Attach(attach(edge.id)));
    let session = match next(&edge).await {
        EdgeItem::Attached { session, .. } => session,
        other => panic!("{other:?}"),
    };
    (session, edge)
}

pub fn attach(edge: im::EdgeRef) -> im::Attach {
    im::Attach {
        edge,
        resource: Some("home".into()),
        seed: 1,
        client: None,
        bind2: false,
        carbons: false,
        inactive: false,
        management: None,
        stream: 1,
        roles: im::roles::Roles::ALL,
        secure: true,
    }
}

pub async fn another(house: &Arc<House>, resource: &str) -> (SessionId, Arc<EdgeHandle>) {
    let edge = house.edges.open(100, 1 << 20);
    let mut attach = attach(edge.id);
    attach.resource = Some(resource.into());
    attach.stream = 2;
    house.post(&juliet(), Item::Attach(attach));
    match next(&edge).await {
        EdgeItem::Attached { session, .. } => (session, edge),
        other => panic!("{other:?}"),
    }
}

pub fn says(house: &Arc<House>, session: SessionId, ordinal: u32, xml: &str) {
    let stanza = Arc::new(Stanza::parse(xml.as_bytes()).expect("a stanza in a test"));
    let ingress = im::Ingress { stream: 1, ordinal };
    house.post(&juliet(), Item::FromClient { session, stanza, ingress, ticket: Ticket::default() });
}

pub async fn next_id(edge: &EdgeHandle) -> String {
    match next(edge).await {
        EdgeItem::Deliver { delivery, .. } => delivery.stanza.id.as_deref().unwrap_or_default().to_owned(),
        other => panic!("{other:?}"),
    }
}
