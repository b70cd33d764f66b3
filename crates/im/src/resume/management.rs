//! The counters of a managed session, and what it has sent that is not acknowledged.

use crate::effects::Delivery;
use crate::item::EdgeRef;
use crate::policy::Limits;
use std::collections::VecDeque;
use std::sync::Arc;
use xmpp::{MessageType, PresenceType, Stanza, StanzaType, StreamFault};

/// Counters of one managed session. RFC numbers wrap at 2^32.
#[derive(Debug, Default)]
pub struct Management {
    /// `None`: acknowledgements only, no resumption.
    pub id: Option<Box<str>>,
    pub max_seconds: u32,
    /// Sent and not acknowledged, oldest first; bounded by `unacked_stanzas_max`, `unacked_bytes_max`.
    pub unacked: VecDeque<Delivery>,
    pub unacked_bytes: usize,
    /// The `h` the client acknowledged last.
    pub acked: u32,
    /// Inbound `h` when the stream was lost.
    pub received: u32,
    /// There is no stream, and all that the last one took in is done: `received` is what a client may be told after a
    /// crash.
    pub settled: bool,
    /// So many of the unacknowledged, from the front, may have been sent; what is behind waits for a stream.
    pub sent_unacked: usize,
    /// Monotonic milliseconds when a hibernated session ends.
    pub ends_at: Option<u64>,
    /// Monotonic milliseconds when the stream was lost.
    pub lost_at: Option<u64>,
    /// A new stream that resumes, and its `h`: it waits until the old stream has said what it received, or until the
    /// ledger has forgotten that.
    pub successor: Option<(EdgeRef, u32)>,
}

/// What a queued stanza costs besides its own bytes.
const OVERHEAD_BYTES: usize = 128;

pub(crate) fn weight(stanza: &Stanza) -> usize {
    stanza.weight() + OVERHEAD_BYTES
}

impl Management {
    /// Our outbound counter: stanzas sent since management was enabled. XEP-0198 §4.
    pub fn sent(&self) -> u32 {
        self.acked.wrapping_add(self.unacked.len() as u32)
    }

    /// What a client that cannot resume may be told that was received. Nothing, if it was not told of everything that
    /// became of it: a message whose error still waits here would count as done, and nobody would know that it was not.
    pub(crate) fn received_for_good(&self) -> Option<u32> {
        let is_refusal = |it: &Delivery| it.stanza.kind == StanzaType::Message(MessageType::Error);
        (!self.unacked.iter().any(is_refusal)).then_some(self.received)
    }

    /// May so many bytes be queued? One stanza always may.
    pub(crate) fn fits(&self, weight: usize, limits: &Limits) -> bool {
        self.unacked.is_empty()
            || (self.unacked.len() < limits.unacked_stanzas_max
                && self.unacked_bytes + weight <= limits.unacked_bytes_max)
    }

    /// Queues what must be acknowledged; false if that would pass a bound (then it is not queued).
    pub fn push(&mut self, delivery: Delivery, limits: &Limits) -> bool {
        let weight = weight(&delivery.stanza);
        let fits = self.fits(weight, limits);
        if fits {
            self.unacked_bytes += weight;
            self.unacked.push_back(delivery);
        }
        fits
    }

    /// Queues what waits for a stream to come. Of one resource's presence only the last counts.
    pub(crate) fn push_unsent(&mut self, delivery: Delivery, limits: &Limits) -> bool {
        let is_broadcast = |stanza: &Stanza| {
            use PresenceType::{Available, Unavailable};
            matches!(stanza.kind, StanzaType::Presence(Available | Unavailable))
        };
        let to = |d: &Delivery| d.to.clone().or_else(|| d.stanza.to.clone());
        if is_broadcast(&delivery.stanza) {
            let same = |d: &Delivery| {
                is_broadcast(&d.stanza) && d.stanza.from == delivery.stanza.from && to(d) == to(&delivery)
            };
            let earlier = self.unacked.iter().skip(self.sent_unacked).position(same);
            if let Some(gone) = earlier.and_then(|at| self.unacked.remove(self.sent_unacked + at)) {
                self.unacked_bytes = self.unacked_bytes.saturating_sub(weight(&gone.stanza));
            }
        }
        self.push(delivery, limits)
    }

    /// The client has handled `h` stanzas: those that this acknowledges now, oldest first.
    ///
    /// # Errors
    /// `AckTooHigh` if so many were never sent; nothing changes then. XEP-0198 §6.
    pub fn ack(&mut self, h: u32) -> Result<Vec<Delivery>, StreamFault> {
        let newly = h.wrapping_sub(self.acked) as usize;
        if newly > self.unacked.len() {
            return Err(StreamFault::AckTooHigh { h, sent: self.sent() });
        }
        self.acked = h;
        let acked: Vec<Delivery> = self.unacked.drain(..newly).collect();
        self.unacked_bytes = self.unacked_bytes.saturating_sub(acked.iter().map(|d| weight(&d.stanza)).sum());
        Ok(acked)
    }

    /// Forgets a stanza that was queued while no stream was there.
    pub fn forget_stanza(&mut self, stanza: &Arc<Stanza>) {
        let before = self.unacked.len();
        self.unacked.retain(|d| !Arc::ptr_eq(&d.stanza, stanza));
        let gone = (before - self.unacked.len()) * weight(stanza);
        self.unacked_bytes = self.unacked_bytes.saturating_sub(gone);
    }

    /// A delivery that did not reach the stream, and never will. If an `h` covered it, one more is acknowledged.
    pub fn forget(&mut self, delivery: &Delivery) {
        let same = |d: &Delivery| Arc::ptr_eq(&d.stanza, &delivery.stanza) && d.position == delivery.position;
        let at = self.unacked.iter().position(same).unwrap_or(0);
        if let Some(gone) = self.unacked.remove(at) {
            self.unacked_bytes = self.unacked_bytes.saturating_sub(weight(&gone.stanza));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xmpp::write::Additions;

    /// What a client and the wire between may do.
    #[derive(Debug, Clone)]
    enum Act {
        Send,
        /// The client reads so many and acknowledges all it read.
        Read(u8),
        Ack,
        Lose,
        Resume,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            4 => Just(Act::Send),
            3 => (0u8..5).prop_map(Act::Read),
            2 => Just(Act::Ack),
            1 => Just(Act::Lose),
            1 => Just(Act::Resume),
        ];
        proptest::collection::vec(act, 1..200)
    }

    proptest! {
        // The model: a sequence of numbers, how many the client has read, how many of these it acknowledged.
        #[test]
        fn every_stanza_is_handled_once_and_in_order_whatever_breaks(acts in acts(), start in any::<u32>()) {
            let limits = Limits::default();
            let mut management = Management { acked: start, ..Management::default() };
            let (mut sent, mut handled): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
            // On the wire, not read yet.
            let mut wire: VecDeque<u32> = VecDeque::new();
            let mut connected = true;
            let number = |d: &Delivery| d.stanza.id.as_deref().and_then(|id| id.parse::<u32>().ok()).expect("a number");
            for act in acts {
                match act {
                    Act::Send => {
                        let n = sent.len() as u32;
                        let stanza = Arc::new(Stanza::message(MessageType::Chat).with_id(&n.to_string()));
                        let delivery = Delivery { stanza, to: None, more: Additions::default(), position: None };
                        prop_assert!(management.push(delivery, &limits));
                        sent.push(n);
                        if connected {
                            wire.push_back(n);
                        }
                    }
                    Act::Read(count) => {
                        for _ in 0..count {
                            handled.extend(wire.pop_front());
                        }
                    }
                    Act::Ack if connected => {
                        let h = start.wrapping_add(handled.len() as u32);
                        let acked = management.ack(h);
                        prop_assert!(acked.is_ok());
                        prop_assert!(management.ack(h.wrapping_add(management.unacked.len() as u32 + 1)).is_err());
                    }
                    Act::Lose => {
                        connected = false;
                        wire.clear();
                    }
                    Act::Resume if !connected => {
                        let h = start.wrapping_add(handled.len() as u32);
                        prop_assert!(management.ack(h).is_ok());
                        prop_assert_eq!(management.acked, h);
                        wire.extend(management.unacked.iter().map(number));
                        connected = true;
                    }
                    Act::Ack | Act::Resume => {}
                }
                prop_assert_eq!(management.sent(), start.wrapping_add(sent.len() as u32));
                let bytes: usize = management.unacked.iter().map(|d| weight(&d.stanza)).sum();
                prop_assert_eq!(management.unacked_bytes, bytes);
                prop_assert_eq!(&handled[..], &sent[..handled.len()]);
            }
        }
    }
}
