//! Streams that are there already, for links that would else dial: streams of ours that other pairs may join (XEP-0220
//! §2.6), and streams of others that carry both directions (XEP-0288).

use super::Federation;
use super::dns::Target;
use super::link::End;
use super::queue::Link;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use stream::Pair;
use tokio::sync::{mpsc, oneshot};

/// Links that may wait to join one stream, and those that may have joined.
pub const JOINING_MAX: usize = 16;
pub const JOINED_MAX: usize = 200;

/// A stream of ours that further links may join.
pub struct Hub {
    /// Of the link it began with.
    pub pair: Pair,
    pub address: SocketAddr,
    /// Only the server of that domain, or of any at that address?
    pub takes_targets: bool,
    pub joins: mpsc::Sender<Join>,
}

/// A link that wants to join, and who waits for it to end.
pub struct Join {
    pub link: Arc<Link>,
    pub end: oneshot::Sender<End>,
}

/// A link that is to be carried by a stream that the other server opened, and who waits to hear that it is.
pub struct Ride {
    pub link: Arc<Link>,
    pub taken: oneshot::Sender<()>,
}

/// All streams that may be joined or ridden on.
#[derive(Default)]
pub struct Hubs {
    ours: Mutex<Vec<Arc<Hub>>>,
    /// By pair, from ours to the other.
    theirs: Mutex<Vec<(Pair, mpsc::Sender<Ride>)>>,
}

impl Hubs {
    pub fn open(&self, hub: &Arc<Hub>) {
        self.ours.lock().push(hub.clone());
    }

    pub fn leave(&self, hub: &Arc<Hub>) {
        self.ours.lock().retain(|it| !Arc::ptr_eq(it, hub));
    }

    /// A stream that the other server opened carries this pair, from ours to it, as well.
    pub fn carried(&self, pair: Pair, rides: mpsc::Sender<Ride>) {
        self.theirs.lock().push((pair, rides));
    }

    pub fn carried_no_more(&self, rides: &mpsc::Sender<Ride>) {
        self.theirs.lock().retain(|(_, it)| !it.same_channel(rides));
    }

    pub fn is_carried(&self, pair: &Pair) -> bool {
        self.theirs.lock().iter().any(|(it, rides)| it == pair && !rides.is_closed())
    }

    fn carrier(&self, pair: &Pair) -> Option<mpsc::Sender<Ride>> {
        let theirs = self.theirs.lock();
        theirs.iter().find(|(it, rides)| it == pair && !rides.is_closed()).map(|(_, rides)| rides.clone())
    }

    /// A stream on which the pair can be proved beside the one it began with.
    fn find(&self, pair: &Pair, addresses: Option<&[Target]>) -> Option<Arc<Hub>> {
        let hubs = self.ours.lock();
        let fits = |hub: &&Arc<Hub>| {
            !hub.joins.is_closed()
                && match addresses {
                    None => hub.pair.to == pair.to && hub.pair.from != pair.from,
                    Some(targets) => hub.takes_targets && targets.iter().any(|target| target.address == hub.address),
                }
        };
        hubs.iter().find(fits).cloned()
    }
}

impl Federation {
    /// Works for the link on a stream of ours that is there, until that ends. `None`: there is no such stream, or it does
    /// not take the link.
    pub async fn join(&self, link: &Arc<Link>, addresses: Option<&[Target]>) -> Option<End> {
        // Where the certificate must stay the same, it is looked at for each domain.
        if link.has_questions() || self.policy().is_first_use(&link.pair.to) {
            return None;
        }
        let hub = self.hubs.find(&link.pair, addresses)?;
        let (end, ended) = oneshot::channel();
        hub.joins.try_send(Join { link: link.clone(), end }).ok()?;
        match ended.await {
            // Not by this way: on a stream of its own, perhaps.
            Ok(End::Refused(_) | End::Absent(_) | End::Failed(_)) | Err(_) => None,
            Ok(end) => Some(end),
        }
    }

    /// Gives the link to a stream that the other server opened, if one carries both directions: nobody has to dial, and
    /// the link's task is over. A stream that broke and may be resumed comes first.
    pub async fn hand_over(&self, link: &Arc<Link>) -> bool {
        if link.has_questions() || self.resumable.contains_key(&link.pair) {
            return false;
        }
        let Some(rides) = self.hubs.carrier(&link.pair) else { return false };
        let (taken, is_taken) = oneshot::channel();
        rides.try_send(Ride { link: link.clone(), taken }).is_ok() && is_taken.await.is_ok()
    }
}
