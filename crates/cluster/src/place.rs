//! Which node owns a partition, and with which fence.

use store::{Fence, Key};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId(pub u16);

/// Where an entity lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// This process owns it and may write with this fence.
    Here(Fence),
    There(NodeId),
    /// Being handed over: hold the item.
    Moving,
}

/// Ownership, as the house sees it. From a cached map, O(1), no I/O.
pub trait Cluster: Send + Sync + 'static {
    fn place(&self, key: &Key) -> Place;
    fn fence(&self, key: &Key) -> Option<Fence> {
        match self.place(key) {
            Place::Here(fence) => Some(fence),
            Place::There(_) | Place::Moving => None,
        }
    }
}

/// One node: every partition is here, the epoch is the store's boot counter (CLUSTER rule 10).
#[derive(Debug)]
pub struct Local {
    epoch: u64,
}

impl Local {
    pub fn new(epoch: u64) -> Local {
        Local { epoch }
    }
}

impl Cluster for Local {
    fn place(&self, key: &Key) -> Place {
        Place::Here(Fence { partition: key.partition(), epoch: self.epoch })
    }
}
