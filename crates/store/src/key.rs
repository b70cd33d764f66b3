//! Entities, partitions, the fence.

use sha2::{Digest, Sha256};
use std::fmt;
use xmpp::BareJid;

/// How many partitions there are; fixed for ever.
pub const PARTITIONS: u16 = 16_384;

/// One of 16,384 slots that entities hash to; a partition has one owner at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(pub u16);

/// Names an entity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// An account, a room, a service, a component, the host itself.
    Bare(BareJid),
    /// A pair of domains: all s2s between a hosted domain and a remote one.
    Pair { local: Box<str>, remote: Box<str> },
}

impl Key {
    /// The first 14 bits of SHA-256 of the entity's name. A pure function of the key, fixed for ever (CLUSTER rule 1).
    pub fn partition(&self) -> Partition {
        let digest = match self {
            Key::Bare(jid) => Sha256::digest(jid.as_str().as_bytes()),
            Key::Pair { local, remote } => {
                let mut hash = Sha256::new();
                hash.update(local.as_bytes());
                hash.update([0]);
                hash.update(remote.as_bytes());
                hash.finalize()
            }
        };
        Partition(u16::from_be_bytes([digest[0], digest[1]]) >> 2)
    }
}

impl Key {
    /// The right to act for this entity under an epoch.
    pub fn fence(&self, epoch: u64) -> Fence {
        Fence { partition: self.partition(), epoch }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Bare(jid) => write!(f, "{jid}"),
            Key::Pair { local, remote } => write!(f, "{local}->{remote}"),
        }
    }
}

/// The right to act for a partition; given by the cluster, wanted by the store with every write (CLUSTER rule 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    pub partition: Partition,
    pub epoch: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    // What was once written under a partition is looked for there for ever.
    #[test]
    fn a_partition_is_that_of_the_name_alone_and_fixed_for_ever() {
        for (jid, partition) in [("juliet@capulet.example", 5866), ("nurse@capulet.example", 12746)] {
            let key = Key::Bare(BareJid::parse(jid).expect("a bare JID"));
            assert_eq!(key.partition(), Partition(partition), "{jid}");
            assert_eq!(key.fence(3), Fence { partition: Partition(partition), epoch: 3 });
        }
        let pair = |local: &str, remote: &str| Key::Pair { local: local.into(), remote: remote.into() }.partition();
        assert_ne!(pair("a.example", "b.example"), pair("b.example", "a.example"));
        assert_ne!(pair("ab", "c"), pair("a", "bc"));
    }
}
