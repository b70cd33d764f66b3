//! For the tests of sessions: Juliet binds, and what she is told.

use crate::effects::EdgeItem;
use crate::item::{Attach, EdgeRef};
use crate::resume::Management;
use crate::roles::Roles;
use crate::testing::{Fx, Scene, account};
use xmpp::{FullJid, StanzaCondition, StreamFault};

pub const EDGE: EdgeRef = EdgeRef(900);

pub fn asks(resource: Option<&str>) -> Attach {
    Attach {
        edge: EDGE,
        resource: resource.map(Into::into),
        seed: 0x0123_4567_89ab_cdef,
        client: None,
        bind2: false,
        carbons: false,
        inactive: false,
        management: None,
        stream: 42,
        roles: Roles::ALL,
        secure: true,
    }
}

pub fn bound(fx: &Fx) -> FullJid {
    match fx.edge_items().pop() {
        Some((_, EdgeItem::Attached { jid, .. })) => jid.clone(),
        other => panic!("not attached: {other:?}"),
    }
}

pub fn refused(fx: &Fx) -> StanzaCondition {
    match fx.edge_items().pop() {
        Some((_, EdgeItem::AttachRefused(error))) => error.condition,
        other => panic!("not refused: {other:?}"),
    }
}

pub fn closed(fx: &Fx) -> Vec<(String, StreamFault)> {
    let closed = |(resource, item): (String, &EdgeItem)| match item {
        EdgeItem::Close(fault) => Some((resource, fault.clone())),
        _ => None,
    };
    fx.edge_items().into_iter().filter_map(closed).collect()
}

pub fn juliet() -> Scene {
    account("juliet@capulet.example")
}

/// The session of the resource has stream management and waits for its resumption since `lost_at`.
pub fn hibernated(scene: Scene, resource: &str, lost_at: u64) -> Scene {
    scene.with(resource, 0).having(resource, |session| {
        session.edge = None;
        session.management = Some(Management {
            id: Some(format!("id-{}", session.id.0).into()),
            max_seconds: 300,
            lost_at: Some(lost_at),
            ends_at: Some(lost_at + 300_000),
            ..Management::default()
        });
    })
}
