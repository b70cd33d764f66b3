//! Stanzas on one stream, in both directions: what was sent and is not acknowledged, what was taken in and is not done.
//!
//! Three ways to know that the other server has what was sent, the best that it offers:
//! - stream management (XEP-0198): it says how many it has handled;
//! - a ping to it (XEP-0199) behind the last message: servers take a stream's stanzas in order, so whatever it answers,
//!   it had the messages before;
//! - nothing came back for a while, on a stream that lives: then the kernel's word must do.

use super::Federation;
use super::queue::{Keeping, Link, Queued};
use im::{Ingress, Ticket};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use stream::Pair;
use stream::server::{Managing, marks};
use tokio::sync::Notify;
use tokio::time::Instant;
use xmpp::write::{Additions, write_stanza};
use xmpp::{BareJid, Element, IqType, Stanza, StanzaCondition, StanzaType};

/// Stanzas sent and not acknowledged; more wait in their links. LIMITS.md §1.
const SENT_MAX: usize = 1_000;
/// Of those, what the store keeps, where the other side does not know what is sent again: so many at most can come twice
/// when this process is killed between their arrival and the word of it.
const IN_THE_AIR_MAX: usize = 64;
/// An acknowledgement is asked for after so many stanzas, also while more wait.
const ASK_AFTER: u32 = 50;
/// … and again so long after an answer that left some open.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// An acknowledgement, or the answer to a ping, comes within this time.
const ACK_PATIENCE: Duration = Duration::from_secs(60);
/// Stanzas taken in and not done: a stream is not read while there are so many. As for clients.
const IN_FLIGHT_MAX: u32 = 512;

/// What is sent on one stream, and what came on it.
pub struct Flow {
    federation: Arc<Federation>,
    links: Vec<Arc<Link>>,
    /// The link that may write next.
    turn: usize,
    /// Something waits in one of the links.
    pub wake: Arc<Notify>,
    sent: VecDeque<Queued>,
    /// How many of them the store keeps.
    kept: usize,
    /// Of how many somebody awaits that they are on the wire.
    awaited: usize,
    /// How many left [`Flow::sent`] in front.
    left: u64,
    /// Acknowledged so far, if the other side acknowledges.
    h: Option<u32>,
    /// Of [`Flow::sent`], from before it counted: the first acknowledgement is for them, too.
    early: usize,
    unasked: u32,
    /// A question is out since then, and what its answer covers: all sent before.
    asked: Option<(Instant, u64)>,
    /// When the last question was answered.
    answered: Instant,
    ping: Option<Arc<Ping>>,
    /// The other side knows messages by their marks.
    pub marks: bool,
    pub in_flight: Arc<InFlight>,
    /// Ordinals of ours before stream management was enabled.
    uncounted: Option<u32>,
    /// An acknowledgement was asked for when so many had come.
    ack_at: Option<(u32, Instant)>,
    mark: Option<i64>,
    /// The other side has sent one.
    marked: bool,
    incarnation: u64,
    /// Nothing is written until it is known where an earlier stream goes on.
    held: bool,
}

/// A ping whose answer acknowledges; it may come on another stream.
#[derive(Debug)]
pub struct Ping {
    answered: AtomicBool,
    wake: Arc<Notify>,
}

impl Ping {
    pub fn answer(&self) {
        self.answered.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

/// May the row of what is acknowledged go with something else that is written? Whoever is killed before sends it again:
/// messages are known by their marks then; a subscription would count anew.
fn row_may_wait(stanza: &Stanza, knows_copies: bool) -> bool {
    knows_copies && stanza.is_message()
}

/// What a stream leaves to the one that resumes it.
pub struct Rest {
    sent: VecDeque<Queued>,
    h: u32,
    early: usize,
    in_flight: Arc<InFlight>,
    uncounted: u32,
    incarnation: u64,
    /// What was sent and not acknowledged has gone back to its links: whatever the other side says of it is too late.
    given_back: bool,
}

impl Flow {
    pub fn new(federation: &Arc<Federation>) -> Flow {
        let incarnation = u64::from(federation.random(u32::MAX)) << 32 | u64::from(federation.random(u32::MAX));
        Flow {
            federation: federation.clone(),
            links: Vec::new(),
            turn: 0,
            wake: Arc::default(),
            sent: VecDeque::new(),
            kept: 0,
            awaited: 0,
            left: 0,
            h: None,
            early: 0,
            unasked: 0,
            asked: None,
            answered: Instant::now(),
            ping: None,
            marks: false,
            in_flight: Arc::default(),
            uncounted: None,
            ack_at: None,
            mark: None,
            marked: false,
            incarnation,
            held: false,
        }
    }

    // ---- out ----

    /// What waits in the link goes out here from now on.
    pub fn carry(&mut self, link: &Arc<Link>) {
        link.set_carried(true);
        self.links.push(link.clone());
    }

    pub fn links(&self) -> &[Arc<Link>] {
        &self.links
    }

    pub fn has_stanzas(&self) -> bool {
        self.links.iter().any(|link| link.has_stanzas())
    }

    /// Is everything that was sent acknowledged, as far as it will be?
    pub fn is_settled(&self) -> bool {
        self.sent.is_empty()
    }

    /// Writes what waits while there is room for it: `room` bytes.
    pub fn write(&mut self, out: &mut Vec<u8>, room: usize) -> bool {
        if self.held {
            return false;
        }
        let begin = out.len();
        while out.len() - begin < room && self.has_room() {
            let Some(queued) = self.take() else { break };
            if self.knows_copies() && queued.stanza.is_message() {
                marks::write_mark(out, queued.id);
            }
            write_queued(out, &queued);
            self.kept += usize::from(is_kept(&queued));
            self.awaited += usize::from(queued.awaited.is_some());
            self.sent.push_back(queued);
            self.unasked += 1;
            if self.unasked >= ASK_AFTER {
                self.ask(out);
            }
        }
        self.ask(out);
        out.len() > begin
    }

    /// May more be sent before an acknowledgement comes?
    fn has_room(&self) -> bool {
        self.sent.len() < SENT_MAX && (self.knows_copies() || self.kept < IN_THE_AIR_MAX)
    }

    /// Does the other side know messages by their marks?
    fn knows_copies(&self) -> bool {
        self.marks || self.marked
    }

    /// Of the links in turn; what is too late to be delivered is passed over.
    fn take(&mut self) -> Option<Queued> {
        for _ in 0..self.links.len() {
            self.turn = (self.turn + 1) % self.links.len();
            while let Some(queued) = self.links[self.turn].take_stanza() {
                if !queued.is_over() {
                    return Some(queued);
                }
                self.federation.drop_over(queued);
            }
        }
        None
    }

    /// Asks whether it was all taken, if something is to be known and no question is out.
    fn ask(&mut self, out: &mut Vec<u8>) {
        if self.unasked == 0 || self.asked.is_some() {
            return;
        }
        if self.h.is_some() {
            marks::write_request(out);
        } else if let Some(kept) = self.sent.iter().rev().find(|queued| is_kept(queued)) {
            let pair = pair_of(kept);
            self.write_ping(out, &pair);
        } else {
            return;
        }
        self.unasked = 0;
        self.asked = Some((Instant::now(), self.left + self.sent.len() as u64));
    }

    fn write_ping(&mut self, out: &mut Vec<u8>, pair: &Pair) {
        let (Ok(here), Ok(there)) = (BareJid::of_domain(&pair.from), BareJid::of_domain(&pair.to)) else { return };
        let id = format!("had-{:08x}{:08x}", self.federation.random(u32::MAX), self.federation.random(u32::MAX));
        let ping = Arc::new(Ping { answered: AtomicBool::new(false), wake: self.wake.clone() });
        self.federation.pings.insert(id.as_str().into(), (pair.inverse(), Arc::downgrade(&ping)));
        self.ping = Some(ping);
        let stanza = Stanza::iq(IqType::Get, &id).with_from(here).with_to(there);
        let stanza = stanza.with_children([Element::new("ping", "urn:xmpp:ping")]);
        write_stanza(out, &stanza, None, &Additions::default(), xmpp::write::Wire::Server);
    }

    /// All that was written is with the kernel. What nobody acknowledges and nobody was promised is done with.
    pub fn flushed(&mut self) {
        if std::mem::take(&mut self.awaited) > 0 {
            self.sent.iter_mut().for_each(|queued| queued.awaited = None);
        }
        if self.h.is_some() || self.kept == self.sent.len() {
            return;
        }
        let before = self.sent.len();
        self.sent.retain(is_kept);
        self.left += (before - self.sent.len()) as u64;
    }

    /// Stream management is enabled towards the other side: what is sent from now on is counted.
    pub fn enabled_out(&mut self) {
        self.held = false;
        self.h = Some(0);
        self.early = self.sent.len();
        self.asked = None;
        self.unasked = u32::from(self.early > 0);
    }

    /// … and from the other side: what comes from now on is acknowledged by us.
    pub fn enabled_in(&mut self) {
        self.uncounted = Some(self.in_flight.taken());
    }

    /// Is what comes acknowledged by us, by its count?
    pub fn acknowledges(&self) -> bool {
        self.uncounted.is_some()
    }

    /// Stream management was refused after all.
    pub fn unmanaged(&mut self) {
        self.held = false;
        self.h = None;
        self.early = 0;
        self.asked = None;
        self.unasked = u32::from(!self.sent.is_empty());
    }

    /// An earlier stream is asked for: nothing is written until it is known whether it goes on.
    pub fn hold(&mut self) {
        self.held = true;
    }

    pub fn is_held(&self) -> bool {
        self.held
    }

    /// What has been handled of what came, for `<a/>`.
    pub fn handled(&self) -> u32 {
        self.in_flight.done_prefix().wrapping_sub(self.uncounted.unwrap_or(0))
    }

    /// The first so many of what was sent are with the other side.
    fn settle(&mut self, count: usize) {
        let knows_copies = self.knows_copies();
        let mut done: Vec<(Pair, bool, Vec<i64>)> = Vec::new();
        for queued in self.sent.drain(..count) {
            self.left += 1;
            if !is_kept(&queued) {
                continue;
            }
            self.kept -= 1;
            let (pair, may_wait) = (pair_of(&queued), row_may_wait(&queued.stanza, knows_copies));
            match done.iter_mut().find(|(of, waits, _)| *of == pair && *waits == may_wait) {
                Some((.., ids)) => ids.push(queued.id),
                None => done.push((pair, may_wait, vec![queued.id])),
            }
        }
        for (pair, may_wait, ids) in done {
            match may_wait {
                true => self.federation.done_in_time(&pair, ids),
                false => self.federation.done(&pair, ids),
            }
        }
    }

    /// # Errors
    /// More is acknowledged than was sent. XEP-0198 §4.
    fn acked(&mut self, h: u32, out: &mut Vec<u8>) -> Result<(), Dead> {
        let Some(before) = self.h else { return Ok(()) };
        let count = self.early + h.wrapping_sub(before) as usize;
        if count > self.sent.len() {
            return Err(Dead("it acknowledges what was not sent"));
        }
        self.h = Some(h);
        self.early = 0;
        self.settle(count);
        self.asked = None;
        self.answered = Instant::now();
        self.ask(out);
        Ok(())
    }

    /// Looks at the clock, at pings, and at what is done.
    ///
    /// # Errors
    /// No acknowledgement came.
    pub fn tick(&mut self, out: &mut Vec<u8>) -> Result<(), Dead> {
        if self.ping.as_ref().is_some_and(|ping| ping.answered.load(Ordering::Acquire)) {
            self.ping = None;
            if let Some((_, covers)) = self.asked.take() {
                let count = usize::try_from(covers.saturating_sub(self.left)).unwrap_or(usize::MAX);
                self.settle(count.min(self.sent.len()));
            }
            // What was sent between question and answer is to be asked about.
            self.unasked = self.unasked.max(u32::from(!self.sent.is_empty()));
            self.ask(out);
        }
        if let Some((since, covers)) = self.asked
            && since.elapsed() >= ACK_PATIENCE
        {
            if self.h.is_some() {
                return Err(Dead("it acknowledges nothing"));
            }
            // The stream lives, and the way back does not: the kernel's word must do.
            self.ping = None;
            self.asked = None;
            let count = usize::try_from(covers.saturating_sub(self.left)).unwrap_or(usize::MAX);
            self.settle(count.min(self.sent.len()));
            self.ask(out);
        }
        if self.asked.is_none() && !self.sent.is_empty() && self.answered.elapsed() >= ASK_AGAIN {
            self.unasked = self.unasked.max(1);
            self.ask(out);
        }
        self.answer(out);
        Ok(())
    }

    // ---- in ----

    /// A stanza of a verified pair goes to whom it is for.
    pub fn take_in(&mut self, pair: &Pair, stanza: Stanza) {
        let ordinal = self.in_flight.taken().wrapping_add(1);
        let ticket = self.in_flight.ticket();
        let mark = self.mark.take().filter(|id| *id != 0 && stanza.is_message());
        tracing::trace!(
            stream = self.incarnation,
            ordinal,
            stanza = stanza.id.as_deref().unwrap_or_default(),
            "taken in"
        );
        let ingress = match mark {
            Some(id) => marked(pair, id),
            None => Ingress { stream: self.incarnation, ordinal },
        };
        self.federation.deliver(pair, stanza, ingress, ticket);
    }

    /// A stanza that is none was answered; it counts.
    pub fn take_in_bad(&mut self) {
        drop(self.in_flight.ticket());
    }

    /// # Errors
    /// What ends the stream.
    pub fn managing(&mut self, managing: Managing, out: &mut Vec<u8>) -> Result<(), Dead> {
        match managing {
            Managing::Acked(h) => self.acked(h, out)?,
            Managing::AckRequested => {
                self.ack_at.get_or_insert((self.in_flight.taken(), Instant::now())).0 = self.in_flight.taken();
                self.answer(out);
            }
            Managing::Mark(id) => {
                self.mark = Some(id);
                self.marked = true;
            }
        }
        Ok(())
    }

    /// `<a/>`, when what came before the question is done.
    fn answer(&mut self, out: &mut Vec<u8>) {
        let Some((at, since)) = self.ack_at else { return };
        let done = self.in_flight.done_prefix();
        let reached = at.wrapping_sub(done) as i32 <= 0;
        if reached || since.elapsed() >= ACK_PATIENCE / 4 {
            self.ack_at = None;
            tracing::trace!(stream = self.incarnation, done, "acknowledged to the other server");
            marks::write_ack(out, self.handled());
        }
    }

    // ---- the end ----

    /// What the stream leaves: gives each link its stanzas back, in their order. Of an iq that may have been carried
    /// out nobody can say, so its sender hears that there was no answer.
    pub fn end(&mut self) {
        self.links.drain(..).for_each(|link| link.set_carried(false));
        self.kept = 0;
        let mut again: Vec<(Pair, Vec<Queued>)> = Vec::new();
        let mut iqs = Vec::new();
        for queued in self.sent.drain(..) {
            self.left += 1;
            let pair = pair_of(&queued);
            match again.iter_mut().find(|(of, _)| *of == pair) {
                _ if queued.stanza.kind == StanzaType::Iq(IqType::Set) => iqs.push(queued),
                Some((_, of_pair)) => of_pair.push(queued),
                None => again.push((pair, vec![queued])),
            }
        }
        for (pair, sent) in again {
            self.federation.requeue(&pair, sent);
        }
        self.federation.bounce(iqs, StanzaCondition::RemoteServerTimeout, "the connection broke");
    }

    /// Leaves all to a stream that may resume this one, if it can be.
    pub fn rest(&mut self) -> Option<Rest> {
        let (h, uncounted) = (self.h?, self.uncounted?);
        self.kept = 0;
        Some(Rest {
            sent: std::mem::take(&mut self.sent),
            h,
            early: self.early,
            in_flight: self.in_flight.clone(),
            uncounted,
            incarnation: self.incarnation,
            given_back: false,
        })
    }

    /// The same of what came in alone: what was sent stays here, and goes again at once. The other side may come back or
    /// not, and what is written to it meanwhile must not overtake.
    pub fn rest_of_incoming(&mut self) -> Option<Rest> {
        let sent = std::mem::take(&mut self.sent);
        let rest = self.rest().map(|rest| Rest { given_back: true, ..rest });
        self.hold_again(sent);
        rest
    }

    /// Takes over what was sent elsewhere.
    fn hold_again(&mut self, sent: VecDeque<Queued>) {
        self.kept = sent.iter().filter(|queued| is_kept(queued)).count();
        self.awaited = sent.iter().filter(|queued| queued.awaited.is_some()).count();
        self.sent = sent;
    }

    /// Goes on where another stream broke; the other side has handled `h`, and is sent the rest again.
    ///
    /// # Errors
    /// It has handled more than was sent.
    pub fn resume(&mut self, rest: Rest, h: u32, out: &mut Vec<u8>) -> Result<(), Dead> {
        self.held = false;
        self.incarnation = rest.incarnation;
        self.in_flight = rest.in_flight;
        self.uncounted = Some(rest.uncounted);
        self.hold_again(rest.sent);
        self.h = Some(rest.h);
        self.early = rest.early;
        if rest.given_back {
            (self.h, self.early) = (Some(h), 0);
        } else {
            self.acked(h, &mut Vec::new())?;
        }
        self.asked = None;
        for queued in &self.sent {
            if self.knows_copies() && queued.stanza.is_message() {
                marks::write_mark(out, queued.id);
            }
            write_queued(out, queued);
            self.unasked += 1;
        }
        self.ask(out);
        Ok(())
    }
}

impl Rest {
    /// What the other side is told: so many were taken, and are done or will be.
    pub fn taken(&self) -> u32 {
        self.in_flight.taken().wrapping_sub(self.uncounted)
    }

    /// It is not resumed: the links get their stanzas back, but for the first that were handled.
    pub fn give_back(self, federation: &Arc<Federation>, handled: Option<u32>) {
        let mut flow = Flow::new(federation);
        flow.hold_again(self.sent);
        flow.h = Some(self.h);
        flow.early = self.early;
        if let Some(h) = handled {
            // More than was sent is nonsense, and says nothing.
            let _ = flow.acked(h, &mut Vec::new());
        }
        flow.end();
    }
}

/// Why a stream ends for what the other side counts.
#[derive(Debug, Clone, Copy)]
pub struct Dead(pub &'static str);

/// A message that a waft sends again has the same ingress: its mark, and who says so.
fn marked(pair: &Pair, id: i64) -> Ingress {
    let mut hasher = DefaultHasher::new();
    ("mark", &pair.from, &pair.to, id >> 32).hash(&mut hasher);
    Ingress { stream: hasher.finish() | 1, ordinal: id as u32 }
}

/// Does the store keep it until the other side has it?
fn is_kept(queued: &Queued) -> bool {
    queued.keeping != Keeping::Memory
}

fn pair_of(queued: &Queued) -> Pair {
    Pair::new(queued.stanza.from.as_ref().map_or("", |from| from.domain()), queued.to.domain())
}

/// Writes a stanza for the other domain.
fn write_queued(out: &mut Vec<u8>, queued: &Queued) {
    write_stanza(out, &queued.stanza, Some(&queued.to), &Additions::default(), xmpp::write::Wire::Server);
}

/// Stanzas taken in, by their order, and which of them are done.
#[derive(Default)]
pub struct InFlight {
    count: Mutex<Count>,
    pub done: Notify,
}

#[derive(Default)]
struct Count {
    taken: u32,
    prefix: u32,
    /// Beyond the prefix; bounded by those in flight.
    later: Vec<u32>,
}

impl InFlight {
    pub fn ticket(self: &Arc<InFlight>) -> Ticket {
        let mut count = self.count.lock();
        count.taken = count.taken.wrapping_add(1);
        let ordinal = count.taken;
        Ticket(Some(Arc::new(Done { of: self.clone(), ordinal })))
    }

    fn taken(&self) -> u32 {
        self.count.lock().taken
    }

    fn done_prefix(&self) -> u32 {
        self.count.lock().prefix
    }

    pub fn is_full(&self) -> bool {
        let count = self.count.lock();
        count.taken.wrapping_sub(count.prefix) >= IN_FLIGHT_MAX
    }
}

struct Done {
    of: Arc<InFlight>,
    ordinal: u32,
}

impl Drop for Done {
    fn drop(&mut self) {
        {
            let mut count = self.of.count.lock();
            if self.ordinal == count.prefix.wrapping_add(1) {
                count.prefix = self.ordinal;
                while let Some(at) = count.later.iter().position(|later| *later == count.prefix.wrapping_add(1)) {
                    count.prefix = count.later.swap_remove(at);
                }
            } else {
                count.later.push(self.ordinal);
            }
        }
        self.of.done.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_of_a_subscription_goes_when_it_is_acknowledged_and_that_of_a_marked_message_may_wait() {
        let of = |text: &str| Stanza::parse(text.as_bytes()).expect("a stanza in a test");
        let message = of("<message from='juliet@capulet.example/x' to='romeo@montague.example'><body/></message>");
        let subscription = of("<presence type='subscribe' from='juliet@capulet.example' to='romeo@montague.example'/>");
        assert_eq!([row_may_wait(&message, true), row_may_wait(&message, false)], [true, false]);
        assert_eq!([row_may_wait(&subscription, true), row_may_wait(&subscription, false)], [false, false]);
    }
}
