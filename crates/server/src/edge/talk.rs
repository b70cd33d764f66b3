//! A bound stream: stanzas in, deliveries out, acknowledgements.

use super::{Edge, End, outlet};
use crate::house::edges::StanzaTicket;
use crate::house::entity::CellItem;
use crate::watches::Way;
use im::operations::Link;
use im::{EdgeItem, Ingress, Item, SessionId};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use xmpp::stanza::StanzaFault;
use xmpp::{Stanza, StreamFault};

/// An `<r/>` waits at most so long for the stanzas before it to be done.
pub const ACK_PATIENCE: Duration = Duration::from_millis(1_000);
/// When the server stops, a client has so long to acknowledge what it was sent.
const LAST_ACK_TIMEOUT: Duration = Duration::from_secs(2);

/// The identity of a stream from where stream management counts: ordinals begin anew there, and go on after a
/// resumption. The account knows the stream by the one it began with.
pub(super) fn managed_incarnation(began_with: u64) -> u64 {
    !began_with
}

impl Edge {
    pub(super) fn tell_account(&self, make: impl FnOnce(SessionId) -> Item) {
        if let (Some(cell), Some(session)) = (&self.cell, self.session) {
            self.house.post_to(cell, CellItem::Im(make(session)));
        }
    }

    /// The id of the stanza that was received last. DESIGN.md D10.
    fn ingress(&self) -> Ingress {
        Ingress { stream: self.incarnation, ordinal: self.received.wrapping_sub(self.managed_from) }
    }

    /// ③ A stanza from the client goes to its account.
    pub(super) fn on_stanza(&mut self, stanza: Stanza) {
        let (Some(cell), Some(session)) = (&self.cell, self.session) else { return };
        self.received = self.received.wrapping_add(1);
        if self.rates.stanza() {
            self.house.limit("stanzas_per_second");
        }
        self.house.operation(&stanza, Link::Client);
        self.shown(Way::FromClient, &stanza);
        let ticket = StanzaTicket::issue(&self.handle, self.received, self.stream.is_managed());
        let ingress = self.ingress();
        let item = Item::FromClient { session, stanza: Arc::new(stanza), ingress, ticket };
        self.rest = self.house.post_some(cell, CellItem::Im(item));
    }

    /// A stanza in form, but wrong: its error comes back through the session's queue, in order.
    pub(super) fn on_bad_stanza(&mut self, fault: StanzaFault) {
        let (Some(cell), Some(jid), Some(session)) = (&self.cell, self.stream.jid(), self.session) else { return };
        self.received = self.received.wrapping_add(1);
        if self.rates.stanza() {
            self.house.limit("stanzas_per_second");
        }
        let ticket = StanzaTicket::issue(&self.handle, self.received, self.stream.is_managed());
        let to: xmpp::Jid = jid.clone().into();
        let from = fault.stanza.to.clone().unwrap_or_else(|| jid.to_bare().into());
        let mut stanza = fault.stanza;
        stanza.from = Some(to);
        stanza.to = Some(from);
        if let Some(answer) = stanza.error(&fault.error) {
            let answer = Arc::new(answer);
            self.house.post_to(cell, CellItem::Im(Item::Malformed { session, answer, ticket }));
        }
    }

    /// `<r/>`: answered when all before it is done, so that `<a/>` says what the client wants to hear.
    pub(super) fn on_ack_request(&mut self) {
        if self.handle.in_flight.load(Ordering::Acquire) > 0 {
            self.handle.wants_done.store(true, Ordering::Release);
        }
        let since = self.ack_wanted.map_or_else(Instant::now, |(_, since)| since);
        self.ack_wanted = Some((self.received, since));
    }

    /// Says what is done, if the client waits for that.
    ///
    /// The error of a stanza is queued before the stanza is done, so what is queued by then goes first: of a message that
    /// was acknowledged and refused the client has heard both, whenever the server dies.
    pub(super) fn answer_acks(&mut self) -> Result<(), End> {
        let Some((ordinal, since)) = self.ack_wanted.filter(|_| self.is_taking()) else { return Ok(()) };
        let done = self.handle.done_prefix();
        let reached = done.wrapping_sub(ordinal) < u32::MAX / 2;
        if reached || since.elapsed() >= ACK_PATIENCE {
            self.ack_wanted = None;
            self.write_queue()?;
            let mut out = Vec::new();
            self.stream.write_ack(done.wrapping_sub(self.managed_from), &mut out);
            // A wire that broke is seen by the next flush.
            let _ = self.outlet.lock().wire.write(&out);
        } else {
            self.handle.wants_done.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Must the stream wait before it takes its next stanza? DESIGN.md D8, D10.
    pub(super) fn is_blocked(&mut self) -> bool {
        self.handle.is_held()
            || self.handle.in_flight.load(Ordering::Acquire) >= self.config.limits.in_flight_max
            || !self.rates.may_read()
    }

    /// Serialises what is queued and hands it to the wire, all in one write.
    pub(super) fn write_queue(&mut self) -> Result<(), End> {
        let mut out = self.outlet.lock();
        let mut queue = VecDeque::new();
        if !self.takes(out.wire.unsent()) || !self.handle.take(&mut queue) {
            return Ok(());
        }
        let mut bytes = outlet::buffer();
        let mut end = None;
        let mut delivered = false;
        while let Some(item) = queue.pop_front() {
            match item {
                EdgeItem::Deliver { number, delivery } => {
                    self.shown(Way::ToClient, &delivery.stanza);
                    let stanza = &delivery.stanza;
                    #[cfg(feature = "simulated")]
                    let stanza = &planted(stanza, number);
                    out.put(number, &delivery, stanza, &mut bytes);
                    delivered = true;
                }
                EdgeItem::Skipped { number } => out.skip(number),
                EdgeItem::Managed(granted) => {
                    self.managed_from = self.received;
                    self.incarnation = managed_incarnation(self.incarnation);
                    self.stream.managed(&super::login::managed(granted), &mut bytes);
                    out.count(self.stream.counting());
                    self.poke = true;
                }
                // Else the client would be given again, after the restart, what it has.
                EdgeItem::Close(StreamFault::SystemShutdown) if self.stream.is_managed() => {
                    self.leaving.get_or_insert(Instant::now() + LAST_ACK_TIMEOUT);
                    delivered = true;
                }
                EdgeItem::Close(fault) => {
                    end = Some(End::Fault(fault));
                    break;
                }
                EdgeItem::Attached { .. }
                | EdgeItem::AttachRefused(_)
                | EdgeItem::Resumed { .. }
                | EdgeItem::ResumeRefused { .. } => {
                    tracing::error!("an answer to a question that this stream did not ask");
                }
            }
        }
        crate::house::edges::recycle(queue);
        if delivered {
            out.drained(&mut bytes);
        }
        let written = out.wire.write(&bytes);
        outlet::recycle(bytes);
        match (end, written) {
            (Some(end), _) => Err(end),
            (None, Err(_)) => Err(End::Lost),
            (None, Ok(())) => Ok(()),
        }
    }

    /// The last that a client hears: of what is queued the errors. (The rest is its session's, which goes on or gives it
    /// back.)
    pub(super) fn write_errors(&mut self, out: &mut Vec<u8>) {
        let mut queue = VecDeque::new();
        self.handle.take(&mut queue);
        for item in queue {
            if let EdgeItem::Deliver { delivery, .. } = item
                && delivery.stanza.is_error()
            {
                let wire = self.stream.wire();
                xmpp::write::write_stanza(out, &delivery.stanza, delivery.to.as_ref(), &delivery.more, wire);
            }
        }
    }

    /// To an operator who looks on.
    fn shown(&self, way: Way, stanza: &Stanza) {
        if self.house.watches.any()
            && let Some(jid) = self.stream.jid()
        {
            self.house.watches.see(self.house.now().utc, way, Some(&jid.clone().into()), stanza);
        }
    }

    /// Is the client there? Asked when it has been silent for long.
    pub(super) fn ping(&mut self) -> std::io::Result<()> {
        let mut out = Vec::new();
        if self.stream.is_managed() {
            self.stream.request_ack(&mut out);
        } else if let (Some(jid), Some(host)) =
            (self.stream.jid(), self.stream.host().and_then(|h| xmpp::BareJid::of_domain(h).ok()))
        {
            let ping = Stanza::iq(xmpp::IqType::Get, "waft-ping")
                .with_from(host)
                .with_to(jid.clone())
                .with_children([xmpp::Element::new("ping", "urn:xmpp:ping")]);
            xmpp::write::write_stanza(&mut out, &ping, None, &xmpp::write::Additions::default(), self.stream.wire());
        }
        self.outlet.lock().wire.write(&out)
    }
}

/// A mistake on purpose: every seventh message has the payload of an earlier one.
#[cfg(feature = "simulated")]
fn planted(stanza: &Arc<Stanza>, number: u64) -> Arc<Stanza> {
    thread_local! {
        static EARLIER: std::cell::RefCell<Option<Arc<Stanza>>> = const { std::cell::RefCell::new(None) };
    }
    if !xmpp::planted::is(xmpp::planted::Bug::WrongPayload) || !stanza.is_message() {
        return stanza.clone();
    }
    let earlier = EARLIER.replace(Some(stanza.clone()));
    match earlier.filter(|_| number.is_multiple_of(7)) {
        Some(earlier) => Arc::new(Stanza { payload: earlier.payload.clone(), ..(**stanza).clone() }),
        None => stanza.clone(),
    }
}
