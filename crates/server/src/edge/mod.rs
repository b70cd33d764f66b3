//! ② The edge: one task a connection, a pipe between a socket and a session.
//!
//! - [`socket`]: bytes in, bytes out. [`wire`]: the same, plain or TLS. [`line`]: the same of servers and components, which
//!   must take what they are sent.
//! - [`login`]: what the stream asks before it is bound: who is this, is it the password, which resource.
//! - [`outlet`]: the wire and what was written to it: where a stream's task writes, and whoever has presence for it.
//! - [`talk`]: a bound stream: stanzas in, deliveries out, acknowledgements.
//! - [`rates`]: how fast a client may send.

pub mod line;
pub mod login;
pub mod outlet;
pub mod rates;
pub mod socket;
pub mod talk;
#[cfg(test)]
pub mod testing;
pub mod wire;

use crate::certificates::{Certificates, Offer};
use crate::house::edges::EdgeHandle;
use crate::house::{AccountCell, House, Rest};
use crate::limits_hit::{self, Of};
use crate::listen::admission::Permit;
use im::SessionId;
use outlet::{Out, Outlet};
use rates::Rates;
use socket::Socket;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use stream::event::{ClientCert, TlsInfo};
use stream::{ClientStream, Crypto};
use tokio::time::{Instant, Sleep};
use wire::Wire;
use xmpp::StreamFault;

/// Bounds of one stream, from the configuration. LIMITS.md §1.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgeLimits {
    pub first_byte_timeout: Duration,
    pub tls_handshake_timeout: Duration,
    /// From the connection to an authenticated stream.
    pub negotiation_timeout: Duration,
    /// Nothing heard for so long: ask.
    pub idle_ping_after: Duration,
    /// Nothing heard after asking: end.
    pub idle_close_after: Duration,
    /// Behind an `<r/>` something is heard within this time, or the connection is half open. XEP-0198 §4.
    pub ack_timeout: Duration,
    /// The peer takes nothing for so long: end.
    pub write_timeout: Duration,
    pub queue_items_max: usize,
    pub queue_bytes_max: usize,
    /// Stanzas taken in that are not done yet; then reading waits.
    pub in_flight_max: u32,
    /// 0: no rate.
    pub bytes_per_second: u32,
    pub bytes_burst: u32,
    pub stanzas_per_second: u32,
    pub stanzas_burst: u32,
}

impl Default for EdgeLimits {
    fn default() -> Self {
        EdgeLimits {
            first_byte_timeout: Duration::from_secs(5),
            tls_handshake_timeout: Duration::from_secs(10),
            negotiation_timeout: Duration::from_secs(30),
            idle_ping_after: Duration::from_secs(300),
            idle_close_after: Duration::from_secs(60),
            ack_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            queue_items_max: 1_000,
            queue_bytes_max: 1 << 20,
            in_flight_max: 512,
            bytes_per_second: 64 << 10,
            bytes_burst: 256 << 10,
            stanzas_per_second: 100,
            stanzas_burst: 500,
        }
    }
}

/// What a listener gives each of its streams.
pub struct EdgeConfig {
    pub stream: Arc<stream::Config>,
    pub certificates: Arc<Certificates>,
    pub direct_tls: bool,
    pub crypto: Arc<dyn Crypto>,
    /// What sessions here can be.
    pub roles: im::roles::Roles,
    pub limits: EdgeLimits,
}

/// Why an edge's loop woke.
enum Woke {
    Queue,
    Read(bool),
    Timer,
}

/// How an edge ends.
pub(crate) enum End {
    /// `</stream:stream>` from the peer.
    Closed,
    /// The connection broke or fell silent.
    Lost,
    Fault(StreamFault),
}

pub(crate) struct Edge {
    pub(crate) house: Arc<House>,
    pub(crate) config: Arc<EdgeConfig>,
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) stream: ClientStream,
    pub(crate) handle: Arc<EdgeHandle>,
    pub(crate) permit: Permit,
    pub(crate) address: IpAddr,
    /// Set once bound or resumed.
    pub(crate) cell: Option<Arc<AccountCell>>,
    pub(crate) session: Option<SessionId>,
    /// Stream identity of ingress ids; see [`talk::managed_incarnation`].
    pub(crate) incarnation: u64,
    /// Stanzas taken in: the ordinal of the last.
    pub(crate) received: u32,
    /// The ordinal at which stream management began to count.
    pub(crate) managed_from: u32,
    /// An `<r/>` waits until so many are done; and since when.
    pub(crate) ack_wanted: Option<(u32, Instant)>,
    /// Bytes read and not yet taken by the stream.
    pub(crate) input: Vec<u8>,
    pub(crate) rates: Rates,
    pub(crate) began: Instant,
    pub(crate) heard: Instant,
    pub(crate) pinged: bool,
    /// The server stops: the stream is closed when the client has acknowledged what it was sent, or then.
    pub(crate) leaving: Option<Instant>,
    pub(crate) timer: Pin<Box<Sleep>>,
    /// It was looked at since it was set, and wakes.
    pub(crate) is_timed: bool,
    pub(crate) authenticated: bool,
    /// The stream has more to say about what it took already.
    pub(crate) poke: bool,
    /// What the last stanza set off and is not done yet; taken up before the next.
    pub(crate) rest: Option<Rest>,
}

/// However the task ends, by a panic too, its session hears that the stream is gone.
impl Drop for Edge {
    fn drop(&mut self) {
        self.detach(im::DetachReason::Lost);
        self.house.edges.close(&self.handle);
    }
}

/// Serves one connection to its end.
///
/// The edge stands in an allocation of its own, and what is over soon (negotiation, last words) in futures of their own:
/// a stream that idles holds little more than its state.
pub fn serve(
    house: Arc<House>,
    config: Arc<EdgeConfig>,
    socket: Socket,
    address: IpAddr,
    permit: Permit,
) -> impl Future<Output = ()> + Send {
    let mut edge = Box::new(Edge::new(house, config, socket, address, permit));
    async move {
        let end = edge.run().await;
        Box::pin(edge.finish(end)).await;
    }
}

impl Edge {
    fn new(house: Arc<House>, config: Arc<EdgeConfig>, socket: Socket, address: IpAddr, permit: Permit) -> Edge {
        socket.hurry();
        let now = Instant::now();
        let handle = house.edges.open(config.limits.queue_items_max, config.limits.queue_bytes_max);
        permit.reached_by(&handle);
        let outlet = Arc::new(Outlet::new(Wire::new(socket), config.limits.ack_timeout));
        // (Of this stream alone: it is set once.)
        let _ = handle.outlet.set(Arc::downgrade(&outlet));
        let mut incarnation = [0; 8];
        config.crypto.random(&mut incarnation);
        Edge {
            stream: ClientStream::new(config.stream.clone(), config.crypto.clone()),
            outlet,
            handle,
            permit,
            address,
            cell: None,
            session: None,
            incarnation: u64::from_le_bytes(incarnation),
            received: 0,
            managed_from: 0,
            ack_wanted: None,
            input: Vec::new(),
            rates: Rates::new(&config.limits),
            began: now,
            heard: now,
            pinged: false,
            leaving: None,
            timer: Box::pin(tokio::time::sleep(config.limits.first_byte_timeout)),
            is_timed: false,
            authenticated: false,
            poke: false,
            rest: None,
            house,
            config,
        }
    }

    async fn run(&mut self) -> End {
        if self.config.direct_tls {
            let first = poll_fn(|cx| self.outlet.lock().wire.poll_first(cx));
            if tokio::time::timeout(self.config.limits.first_byte_timeout, first).await.is_err() {
                self.house.count("timeouts_first_byte");
                self.house.limit("first_byte_seconds");
                return End::Lost;
            }
            if let Err(end) = Box::pin(self.handshake()).await {
                return end;
            }
        }
        let mut has_read = false;
        loop {
            // What was read and not taken (it had to wait) comes before new bytes.
            if !self.is_blocked()
                && let Err(end) = self.take_input().await
            {
                return end;
            }
            // Answers to what was just read wait until the others have been at it, as all that is queued does.
            if !has_read && let Err(end) = self.write_queue().and_then(|()| self.answer_acks()) {
                return end;
            }
            if self.may_leave() {
                return End::Fault(StreamFault::SystemShutdown);
            }
            let woke = self.wait().await;
            has_read = matches!(woke, Ok(Woke::Read(_)));
            match woke {
                Ok(Woke::Queue) => {}
                Ok(Woke::Read(true)) => {
                    self.heard = Instant::now();
                    self.pinged = false;
                }
                Ok(Woke::Read(false)) => return End::Lost,
                Ok(Woke::Timer) => {
                    if let Err(end) = self.timed_out() {
                        return end;
                    }
                }
                Err(_) => return End::Lost,
            }
        }
    }

    /// May more be read now? Not while an answer, an earlier stanza or the rate holds it back.
    fn may_read(&mut self) -> bool {
        if self.stream.is_waiting() || self.poke || !self.input.is_empty() {
            return false;
        }
        if self.is_blocked() {
            self.handle.wants_done.store(true, Ordering::Release);
            // Looked at again, so that a stanza done meanwhile is not slept over.
            return !self.is_blocked();
        }
        true
    }

    /// Does the peer take what is written? One that does not gets nothing more: its queue fills at the house, which has
    /// the bound, and may have closed it for that.
    fn is_taking(&self) -> bool {
        self.takes(self.outlet.lock().wire.unsent())
    }

    fn takes(&self, unsent: usize) -> bool {
        unsent < self.config.limits.queue_bytes_max / 4 || self.handle.overran.load(Ordering::Relaxed)
    }

    /// Sleeps until the queue has something, bytes came, or a deadline passed. Sends what is unsent meanwhile.
    async fn wait(&mut self) -> std::io::Result<Woke> {
        let written = {
            let mut out = self.outlet.lock();
            // All that the stream itself had to say is written: deliveries may follow, whoever writes them.
            if self.session.is_some() {
                out.open(self.stream.wire());
            }
            out.note_asked();
            let written = out.tell();
            let deadline = self.deadline(&out);
            if self.timer.deadline() > deadline || self.timer.is_elapsed() {
                self.timer.as_mut().reset(deadline);
                self.is_timed = false;
            }
            out.looks_at(self.timer.deadline());
            written
        };
        if let Some(deliveries) = written {
            let edge = self.handle.id;
            self.tell_account(|session| im::Item::Written { session, edge, deliveries });
        }
        let (mut around, mut went_around) = (pin!(tokio::task::yield_now()), false);
        poll_fn(|cx| {
            // Whoever queues something or writes from here on wakes.
            let has_some = self.handle.has_some(cx.waker());
            let (must_look, unsent) = {
                let mut out = self.outlet.lock();
                if let Poll::Ready(Err(e)) = out.wire.poll_flush(cx) {
                    return Poll::Ready(Err(e));
                }
                (out.must_look(), out.wire.unsent())
            };
            let taking = self.takes(unsent);
            self.handle.blocked.store(!taking, Ordering::Relaxed);
            if must_look {
                return Poll::Ready(Ok(Woke::Queue));
            }
            // Once around all that is ready on this thread: what they have for this client goes in the same write, and
            // writes to many clients come close together, which wakes their readers less often.
            let mut gathered = |cx: &mut Context<'_>| {
                if !went_around {
                    ready!(around.as_mut().poll(cx));
                    went_around = true;
                }
                Poll::Ready(Ok(Woke::Queue))
            };
            if has_some && taking {
                return gathered(cx);
            }
            if let Some((ordinal, _)) = self.ack_wanted
                && taking
            {
                // Said again each time, as the stanza done first has taken the wish; looked at afterwards, so that one
                // done meanwhile is not slept over.
                self.handle.wants_done.store(true, Ordering::Release);
                if self.handle.done_prefix().wrapping_sub(ordinal) < u32::MAX / 2 {
                    return gathered(cx);
                }
            }
            if (self.poke || !self.input.is_empty()) && !self.stream.is_waiting() {
                if !self.is_blocked() {
                    return Poll::Ready(Ok(Woke::Queue));
                }
                self.handle.wants_done.store(true, Ordering::Release);
                if !self.is_blocked() {
                    return Poll::Ready(Ok(Woke::Queue));
                }
            }
            // (Who takes nothing is not heard either: the answers would have to wait here.)
            if taking
                && self.may_read()
                && let mut out = self.outlet.lock()
                && out.wire.poll_readable(cx)?.is_ready()
            {
                if self.input.capacity() == 0 {
                    self.input = wire::buffer();
                }
                let read = out.wire.poll_read(cx, &mut self.input);
                drop(out);
                if self.input.is_empty() {
                    wire::recycle(std::mem::take(&mut self.input));
                }
                match read {
                    Poll::Ready(Ok(more)) => {
                        if self.rates.read(self.input.len()) {
                            self.house.limit("inbound_bytes_per_second");
                        }
                        return Poll::Ready(Ok(Woke::Read(more)));
                    }
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                    Poll::Pending => {}
                }
            }
            // (It keeps the waker of this task, which is the only one that it ever wakes.)
            if self.is_timed && !self.timer.is_elapsed() {
                return Poll::Pending;
            }
            self.is_timed = true;
            self.timer.as_mut().poll(cx).map(|()| Ok(Woke::Timer))
        })
        .await
    }

    /// The server stops: has the client said of all that it was sent that it has it, or is the time for that over?
    fn may_leave(&self) -> bool {
        self.leaving.is_some_and(|until| !self.stream.awaits_ack() || Instant::now() >= until)
    }

    /// The nearest time at which something must be looked at.
    fn deadline(&self, out: &Out) -> Instant {
        let limits = &self.config.limits;
        let mut at = if self.authenticated {
            self.heard
                + if self.pinged { limits.idle_ping_after + limits.idle_close_after } else { limits.idle_ping_after }
        } else if self.heard == self.began {
            self.began + limits.first_byte_timeout
        } else {
            self.began + limits.negotiation_timeout
        };
        let mut sooner = |t: Instant| at = at.min(t);
        if let Some(since) = out.wire.stalled_since() {
            sooner(since + limits.write_timeout);
        }
        if let Some(until) = self.leaving {
            sooner(until);
        }
        if let Some(due) = out.told_due {
            sooner(due);
        }
        if let Some(asked) = out.ack_asked {
            sooner(asked.max(self.heard) + limits.ack_timeout);
        }
        if let Some((_, since)) = self.ack_wanted
            && self.takes(out.wire.unsent())
        {
            sooner(since + talk::ACK_PATIENCE);
        }
        if let Some(until) = self.rates.paused_until() {
            sooner(until);
        }
        at
    }

    fn timed_out(&mut self) -> Result<(), End> {
        let now = Instant::now();
        let limits = self.config.limits.clone();
        if self.outlet.lock().wire.takes_nothing(limits.write_timeout) {
            self.house.count("timeouts_write");
            self.house.limit("write_seconds");
            return Err(End::Lost);
        }
        if !self.authenticated {
            if self.heard == self.began && now >= self.began + limits.first_byte_timeout {
                self.house.count("timeouts_first_byte");
                return Err(End::Fault(StreamFault::NegotiationTimeout));
            }
            if now >= self.began + limits.negotiation_timeout {
                self.house.count("timeouts_negotiation");
                return Err(End::Fault(StreamFault::NegotiationTimeout));
            }
            return Ok(());
        }
        let (asked, unsent) = {
            let out = self.outlet.lock();
            (out.ack_asked, out.wire.unsent())
        };
        if asked.is_some_and(|asked| now >= asked.max(self.heard) + limits.ack_timeout) {
            if unsent == 0 && self.input.is_empty() && !self.is_blocked() {
                self.house.count("timeouts_ack");
                self.house.limit("ack_seconds");
                return Err(End::Lost);
            }
            // It was not asked yet, or has answered and we did not read.
            self.outlet.lock().ack_asked = Some(now);
        }
        if !self.takes(unsent) {
            // It is not read.
            self.heard = now;
        }
        let silent = now.duration_since(self.heard);
        if self.pinged && silent >= limits.idle_ping_after + limits.idle_close_after {
            self.house.count("timeouts_idle");
            if self.stream.is_managed() {
                self.house.limit("idle_close_seconds");
            }
            return Err(if self.stream.is_managed() { End::Lost } else { End::Fault(StreamFault::IdleTimeout) });
        }
        if !self.pinged && silent >= limits.idle_ping_after {
            self.pinged = true;
            self.ping().map_err(|_| End::Lost)?;
        }
        Ok(())
    }

    /// TLS on this socket, with its deadline; tells the stream.
    pub(crate) async fn handshake(&mut self) -> Result<(), End> {
        let offer = if self.config.direct_tls {
            self.config.certificates.direct()
        } else {
            self.config.certificates.starttls(self.stream.host())
        };
        self.outlet.lock().wire.start_tls(offer.config.clone()).map_err(|_| End::Lost)?;
        let shaken = poll_fn(|cx| self.outlet.lock().wire.poll_handshake(cx));
        match tokio::time::timeout(self.config.limits.tls_handshake_timeout, shaken).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(address = %self.address, %error, "TLS handshake failed");
                self.house.count("tls_failures");
                return Err(End::Lost);
            }
            Err(_) => {
                self.house.count("timeouts_tls");
                self.house.limit("tls_handshake_seconds");
                return Err(End::Lost);
            }
        }
        // RFC 8737 §3: an authority has seen the certificate that it wanted to see.
        if self.outlet.lock().wire.tls().is_some_and(|tls| tls.alpn_protocol() == Some(crate::acme::answers::ALPN)) {
            return Err(End::Lost);
        }
        self.heard = Instant::now();
        let info = self.tls_info(&offer);
        self.stream.tls_up(info);
        Ok(())
    }

    /// What authentication may know of the TLS connection.
    fn tls_info(&self, offer: &Offer) -> TlsInfo {
        let out = self.outlet.lock();
        let Some(tls) = out.wire.tls() else { return TlsInfo::default() };
        let sni = tls.server_name();
        let host = self.stream.host().or(sni).or(self.config.stream.default_host.as_deref());
        let client_certificate =
            tls.peer_certificates().zip(host).map(|(chain, host)| match offer.client_jids(host, chain) {
                Some(jids) => {
                    ClientCert { xmpp_addresses: jids.iter().map(ToString::to_string).collect(), valid: true }
                }
                None => ClientCert::default(),
            });
        TlsInfo {
            exporter: tls.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).ok(),
            server_end_point: offer.end_point(sni).map(|hash| hash.to_vec()),
            client_certificate,
            sni: sni.map(str::to_owned),
        }
    }

    /// Last words, the session's end or rest, and the socket's.
    async fn finish(&mut self, end: End) {
        self.outlet.lock().close();
        let mut out = Vec::new();
        if self.stream.is_managed() && !matches!(end, End::Lost | End::Fault(StreamFault::SlowReader)) {
            // XEP-0198 §4: the last word on what was handled.
            let done = self.handle.done_prefix().wrapping_sub(self.managed_from);
            self.write_errors(&mut out);
            self.stream.write_ack(done, &mut out);
        }
        let reason = match &end {
            End::Closed => {
                self.stream.close(&mut out);
                im::DetachReason::Closed
            }
            End::Lost => im::DetachReason::Lost,
            End::Fault(fault) => {
                if !matches!(fault, StreamFault::SystemShutdown) {
                    tracing::debug!(address = %self.address, jid = ?self.stream.jid(), ?fault, "stream error");
                }
                self.count_limit(fault);
                self.stream.fail(fault, &mut out);
                // A slow reader's session waits for resumption, if it has management; so does one that is told to
                // come back.
                match fault {
                    StreamFault::SlowReader | StreamFault::SystemShutdown => im::DetachReason::Lost,
                    _ => im::DetachReason::Fault,
                }
            }
        };
        // A server that stops waits for what is on its way out: what arrives is not given again after the restart.
        let stops = matches!(end, End::Fault(StreamFault::SystemShutdown));
        if stops {
            self.outlet.say_last(&out).await;
        }
        self.detach(reason);
        self.house.edges.close(&self.handle);
        if !matches!(end, End::Lost) {
            if !stops {
                self.outlet.say_last(&out).await;
            }
            self.outlet.lock().wire.shutdown();
            self.outlet.hear_out().await;
        }
    }

    fn count_limit(&self, fault: &StreamFault) {
        let of = if self.authenticated { Of::Client } else { Of::Stranger };
        // (The first byte has a time of its own.)
        let first_byte = *fault == StreamFault::NegotiationTimeout && self.heard == self.began;
        // What the session's own queue refuses it has counted.
        let queue = *fault == StreamFault::SlowReader && self.handle.overran.load(Ordering::Relaxed);
        let limit = match limits_hit::by(fault, of) {
            _ if first_byte => Some("first_byte_seconds"),
            _ if queue => Some("send_queue_stanzas_max"),
            limit => limit,
        };
        if let Some(limit) = limit {
            self.house.limit(limit);
        }
    }

    /// Tells the session that its stream is gone.
    fn detach(&mut self, reason: im::DetachReason) {
        if let (Some(cell), Some(session)) = (self.cell.take(), self.session.take()) {
            // What the kernel did not take was not written.
            let deliveries = {
                let mut out = self.outlet.lock();
                out.close();
                out.known_written()
            };
            let item = im::Item::Detached {
                session,
                edge: self.handle.id,
                reason,
                deliveries,
                received: self.received.wrapping_sub(self.managed_from),
            };
            self.house.post_to(&cell, crate::house::entity::CellItem::Im(item));
            let received = self.received.wrapping_sub(self.managed_from);
            let house = self.house.clone();
            self.handle.when_done(Box::new(move || {
                // A ticket may go in the middle of a step.
                let runtime = house.runtime.clone();
                runtime.spawn(async move {
                    let item = im::Item::Settled { session, received };
                    house.post_to(&cell, crate::house::entity::CellItem::Im(item));
                });
            }));
        }
    }
}
