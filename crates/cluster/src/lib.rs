//! Who holds what: entities, their mailboxes, and the right to act for them.
//!
//! - [`cell`]: one entity: a mailbox, a state, at most one runner at a time (CLUSTER rule 3).
//! - [`place`]: which node owns a partition, and with which fence.
//!
//! One node is the case "I own all partitions". Nobody outside this crate asks "is it local?" (rule 12): they ask
//! for a [`place::Place`].

pub mod cell;
pub mod place;

pub use cell::{Cell, Posted, Ran};
pub use place::{Cluster, Local, NodeId, Place};
