//! A stream that another server opened: one task a connection.

use super::link::{Io, Link, Pushed, Question, Queued, last_words, progress, write_queued};
use super::presence::{Ended, SILENCE};
use super::shown::{Opened, Showing};
use super::{Federation, InFlight, Policy};
use crate::edge::rates::Rates;
use crate::edge::socket::Socket;
use crate::edge::wire::Wire;
use crate::house::Ready;
use crate::listen::admission::Permit;
use im::{Ingress, Ticket};
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use stream::server::InEvent;
use stream::{IncomingStream, Pair, Verdict, Verify};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use xmpp::stanza::StanzaFault;
use xmpp::{PresenceType, Stanza, StanzaCondition, StanzaType, StreamFault};

/// Bytes handed to a socket and not taken by the kernel.
const SOCKET_BYTES_MAX: usize = 256 << 10;
const WRITE_PATIENCE: Duration = Duration::from_secs(60);
/// For the first byte.
const FIRST_BYTE: Duration = Duration::from_secs(5);

enum End {
    Closed,
    Lost,
    Fault(StreamFault),
}

impl Federation {
    /// A stanza of a verified pair enters the house.
    pub fn deliver(self: &Arc<Federation>, pair: &Pair, stanza: Stanza, ingress: Ingress, ticket: Ticket) {
        self.house.count("s2s_stanzas_in");
        self.presence.alive(pair);
        let Some(to) = stanza.to.clone() else { return };
        if to.local().is_none() && self.pings.answered(&stanza) {
            return;
        }
        if is_told_only(&stanza) {
            // Who is not in memory has nobody who could hear it.
            if self.house.resident(&to.to_bare()).is_none() && self.house.components.get(to.domain()).is_none() {
                return;
            }
            self.lease(pair, &stanza);
        }
        let mut ready = Ready::new();
        self.house.tell(to, Arc::new(stanza), ingress, ticket, &mut ready);
        self.house.work(&mut ready);
    }

    /// A stanza of a verified sender that is none.
    pub fn refuse(self: &Arc<Federation>, fault: StanzaFault) {
        let mut ready = Ready::new();
        self.house.answer_error(&Arc::new(fault.stanza), &fault.error, Ticket::default(), &mut ready);
        self.house.work(&mut ready);
    }

    /// Asks the server of `pair.from` whether a key is its own.
    async fn verify(self: Arc<Federation>, pair: Pair, id: Box<str>, key: Box<str>) -> Verdict {
        let timed_out = Verdict::Error(StanzaCondition::RemoteServerTimeout);
        let (answer, answered) = oneshot::channel();
        let back = pair.inverse();
        let patience = self.policy().negotiation;
        let mut question = Question { verify: Verify { pair, id, key }, answer };
        let mut link = match self.link(&back) {
            Some(link) => link,
            None => return Verdict::Error(StanzaCondition::ResourceConstraint),
        };
        loop {
            match link.ask(question) {
                Pushed::Queued => break,
                Pushed::Dial => {
                    self.dial(link);
                    break;
                }
                // A stream of its own, beside the one that the link has.
                Pushed::Full(it) | Pushed::Gone(it) => {
                    question = it;
                    link = Arc::new(Link::new(back.clone()));
                }
            }
        }
        match timeout(patience, answered).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_)) | Err(_) => timed_out,
        }
    }
}

/// Presence, available or not: nobody waits for what becomes of it.
fn is_told_only(stanza: &Stanza) -> bool {
    matches!(stanza.kind, StanzaType::Presence(PresenceType::Available | PresenceType::Unavailable))
}

/// Serves one connection to its end.
pub async fn serve(federation: Arc<Federation>, socket: Socket, address: IpAddr, permit: Permit, direct_tls: bool) {
    socket.hurry();
    let running = federation.run();
    let policy = federation.policy();
    let mut incarnation = [0; 8];
    federation.crypto.random(&mut incarnation);
    let wire = Wire::new(socket);
    wire.notice_silence(SILENCE);
    let (verdicts, verdicts_in) = mpsc::channel(stream::server::incoming::VERIFICATIONS_MAX);
    let mut incoming = Incoming {
        showing: federation.streams.begin(Opened::There, address, federation.house.now().utc),
        stream: IncomingStream::new(policy.stream.clone(), federation.crypto.clone()),
        wire,
        input: Vec::new(),
        out: Vec::new(),
        verdicts,
        verdicts_in,
        up: Vec::new(),
        attached: None,
        unflushed: Vec::new(),
        rates: policy.rates(),
        in_flight: Arc::default(),
        incarnation: u64::from_le_bytes(incarnation),
        received: 0,
        began: Instant::now(),
        heard: None,
        active: Instant::now(),
        blocked_since: None,
        peer_error: None,
        policy,
        permit,
        address,
        federation,
    };
    let end = incoming.run(direct_tls).await;
    incoming.finish(end).await;
    drop(running);
}

struct Incoming {
    federation: Arc<Federation>,
    showing: Showing,
    policy: Arc<Policy>,
    permit: Permit,
    address: IpAddr,
    stream: IncomingStream,
    wire: Wire,
    input: Vec<u8>,
    out: Vec<u8>,
    verdicts: mpsc::Sender<(Pair, Verdict)>,
    verdicts_in: mpsc::Receiver<(Pair, Verdict)>,
    /// Pairs that were told to be up.
    up: Vec<Pair>,
    /// With both directions: the link whose queue goes out here.
    attached: Option<Arc<Link>>,
    unflushed: Vec<Queued>,
    rates: Rates,
    in_flight: Arc<InFlight>,
    incarnation: u64,
    received: u32,
    began: Instant,
    /// The first byte came.
    heard: Option<Instant>,
    active: Instant,
    blocked_since: Option<Instant>,
    peer_error: Option<Box<str>>,
}

impl Incoming {
    async fn run(&mut self, direct_tls: bool) -> End {
        if direct_tls && let Err(end) = self.handshake().await {
            return end;
        }
        let mut stopping = self.federation.stopping();
        let mut cuts = self.federation.presence.cuts();
        loop {
            if self.may_take()
                && let Err(end) = self.take_input().await
            {
                return end;
            }
            if let Err(end) = self.write_queue() {
                return end;
            }
            if self.federation.is_stopping() && self.wire.unsent() == 0 {
                return End::Fault(StreamFault::SystemShutdown);
            }
            let may_read = self.may_take() && !self.stream.is_waiting();
            let deadline = self.deadline();
            let attached = self.attached.clone();
            tokio::select! {
                // The rarest first, so that none starves the others; and a run can be repeated.
                biased;
                _ = stopping.changed() => {}
                cut = cuts.recv() => if cut.is_ok_and(|pair| self.up.contains(&pair)) { return End::Lost },
                () = sleep_until(deadline) => if let Err(end) = self.timed_out() { return end },
                Some((pair, verdict)) = self.verdicts_in.recv() => self.judged(&pair, verdict),
                io = progress(&mut self.wire, &mut self.input, may_read) => match io {
                    Ok(Io::Read(true)) => {
                        self.heard.get_or_insert_with(Instant::now);
                        self.rates.read(self.input.len());
                    }
                    Ok(Io::Flushed) => {
                        self.blocked_since = None;
                        self.unflushed.clear();
                    }
                    Ok(Io::Read(false)) | Err(_) => return End::Lost,
                },
                // Each turn looks at what these two tell of.
                () = wake_of(attached.as_ref()) => {}
                () = self.in_flight.done.notified() => {}
            }
        }
    }

    fn may_take(&self) -> bool {
        !self.in_flight.is_full() && self.rates.may_read()
    }

    fn is_authenticated(&self) -> bool {
        !self.up.is_empty()
    }

    fn deadline(&self) -> Instant {
        let mut at = match (self.is_authenticated(), self.heard) {
            (true, _) => Instant::now() + Duration::from_secs(60),
            (false, None) => self.began + FIRST_BYTE,
            // Our own question to the authoritative server has its own time; it is not the peer's fault.
            (false, Some(_)) => {
                self.began + self.policy.negotiation * if self.stream.verifications() > 0 { 2 } else { 1 }
            }
        };
        if let Some(since) = self.blocked_since {
            at = at.min(since + WRITE_PATIENCE);
        }
        let now = Instant::now();
        match self.rates.paused_until() {
            // While nothing may be read, nothing else is due.
            Some(until) if until > now && at <= now => until,
            Some(until) if until > now => at.min(until),
            Some(_) | None => at,
        }
    }

    fn timed_out(&mut self) -> Result<(), End> {
        if self.blocked_since.is_some_and(|since| since.elapsed() >= WRITE_PATIENCE) {
            return Err(End::Lost);
        }
        if self.is_authenticated() {
            let silent = self.active.elapsed() >= self.policy.idle * 2;
            let leased = self.up.iter().any(|pair| self.federation.presence.has(pair));
            return if silent && !leased { Err(End::Closed) } else { Ok(()) };
        }
        if Instant::now() >= self.deadline() && self.rates.may_read() {
            self.federation.house.count("s2s_timeouts");
            return Err(End::Fault(StreamFault::NegotiationTimeout));
        }
        Ok(())
    }

    async fn take_input(&mut self) -> Result<(), End> {
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        loop {
            if self.in_flight.is_full() {
                self.input = rest.to_vec();
                return Ok(());
            }
            let event = match self.stream.next(&mut rest, &mut self.out) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(fault) => return Err(End::Fault(fault)),
            };
            match event {
                InEvent::StartTls => self.handshake().await?,
                InEvent::External(pair) => {
                    let allowed = self.policy.allows(&pair.from);
                    self.stream.external(allowed, &mut self.out);
                }
                InEvent::Dialback { pair, key, id, certified } => self.asked(pair, key, id, certified),
                InEvent::Authenticated(pair) => self.authenticated(pair),
                InEvent::Stanza(stanza) => {
                    self.active = Instant::now();
                    self.received = self.received.wrapping_add(1);
                    let ingress = Ingress { stream: self.incarnation, ordinal: self.received };
                    let (Some(from), Some(to)) = (&stanza.from, &stanza.to) else { continue };
                    let pair = Pair::new(from.domain(), to.domain());
                    self.federation.deliver(&pair, stanza, ingress, self.in_flight.ticket());
                }
                InEvent::BadStanza(mut fault) => {
                    if fault.stanza.to.is_none() {
                        let host = self.stream.host().and_then(|host| xmpp::BareJid::of_domain(host).ok());
                        fault.stanza.to = host.map(Into::into);
                    }
                    self.federation.refuse(*fault);
                }
                InEvent::PeerError(condition) => self.peer_error = Some(condition),
                InEvent::Closed => return Err(End::Closed),
            }
        }
        // What the stream did not take while an answer is out.
        self.input = rest.to_vec();
        Ok(())
    }

    /// A pair wants to be proved by dialback.
    fn asked(&mut self, pair: Pair, key: Box<str>, id: Box<str>, certified: bool) {
        let verdict = if !self.policy.allows(&pair.from) {
            Some(Verdict::Error(StanzaCondition::PolicyViolation))
        } else if certified {
            Some(Verdict::Valid)
        } else if self.policy.is_strict(&pair.from) {
            Some(Verdict::Error(StanzaCondition::NotAuthorized))
        } else {
            None
        };
        if let Some(verdict) = verdict {
            return self.judged(&pair, verdict);
        }
        let Some(place) = self.federation.verifications.enter(self.address) else {
            self.federation.house.count("s2s_verifications_full");
            return self.judged(&pair, Verdict::Error(StanzaCondition::ResourceConstraint));
        };
        let (federation, verdicts) = (self.federation.clone(), self.verdicts.clone());
        self.federation.house.runtime.spawn(async move {
            let verdict = federation.verify(pair.clone(), id, key).await;
            drop(place);
            // The stream may have ended meanwhile.
            let _ = verdicts.send((pair, verdict)).await;
        });
    }

    fn judged(&mut self, pair: &Pair, verdict: Verdict) {
        // An authoritative server that says no is told on as no; errors of the way to it as they are.
        if !self.stream.dialback(pair, verdict, &mut self.out) {
            return;
        }
        if verdict != Verdict::Valid {
            tracing::info!(%pair, ?verdict, address = %self.address, "another server could not prove its domain");
            self.federation.house.count("s2s_refused");
        }
    }

    fn authenticated(&mut self, pair: Pair) {
        tracing::debug!(%pair, address = %self.address, encrypted = self.stream.is_encrypted(), "another server is authenticated");
        self.permit.authenticated();
        self.active = Instant::now();
        self.federation.incoming_up(&pair);
        if self.attached.is_none()
            && self.stream.is_bidirectional()
            && let Some(link) = self.federation.link(&pair.inverse())
            && link.attach()
        {
            self.attached = Some(link);
        }
        let certified = self.stream.is_certified(&pair.from);
        let both = self.attached.as_ref().is_some_and(|link| link.pair == pair.inverse());
        self.showing.proved(&pair.inverse(), certified, both);
        self.up.push(pair);
    }

    async fn handshake(&mut self) -> Result<(), End> {
        let trust = self.federation.trust.read().clone();
        let config = trust.listening(self.stream.host());
        let out = std::mem::take(&mut self.out);
        self.wire.write(&out).map_err(|_| End::Lost)?;
        let wire = &mut self.wire;
        let flushed = timeout(self.policy.handshake, poll_fn(|cx| wire.poll_flush(cx))).await;
        if !matches!(flushed, Ok(Ok(()))) {
            return Err(End::Lost);
        }
        self.wire.start_tls(config).map_err(|_| End::Lost)?;
        let wire = &mut self.wire;
        match timeout(self.policy.handshake, poll_fn(|cx| wire.poll_handshake(cx))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(address = %self.address, %error, "TLS handshake with another server failed");
                self.federation.house.count("s2s_tls_failures");
                return Err(End::Lost);
            }
            Err(_) => return Err(End::Lost),
        }
        let certificate = self.wire.peer_certificates().and_then(|chain| trust.judge(chain));
        self.stream.tls_up(certificate);
        Ok(())
    }

    fn write_queue(&mut self) -> Result<(), End> {
        if let Some(link) = &self.attached {
            while self.wire.unsent() + self.out.len() < SOCKET_BYTES_MAX
                && let Some(queued) = link.take_stanza()
            {
                self.active = Instant::now();
                write_queued(&mut self.out, &queued);
                self.unflushed.push(queued);
            }
        }
        if !self.out.is_empty() {
            let written = self.wire.write(&self.out);
            self.out.clear();
            written.map_err(|_| End::Lost)?;
            self.blocked_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    async fn finish(mut self, end: End) {
        let in_order = matches!(end, End::Closed) && self.peer_error.is_none();
        if let Some(link) = self.attached.take()
            && link.detach()
        {
            self.federation.dial(link);
        }
        if self.wire.unsent() > 0 {
            self.federation.bounce(self.unflushed.drain(..), StanzaCondition::RemoteServerTimeout);
        }
        for pair in &self.up {
            self.federation.stream_down(pair, if in_order { Ended::InOrder } else { Ended::Broken });
        }
        match &end {
            End::Closed => self.stream.close(&mut self.out),
            End::Fault(fault) => {
                tracing::debug!(address = %self.address, claims = ?self.stream.claimed(), ?fault, "stream error to another server");
                self.stream.fail(fault, &mut self.out);
            }
            End::Lost => return,
        }
        let out = std::mem::take(&mut self.out);
        last_words(&mut self.wire, &out).await;
        let mut rest = Vec::new();
        let wire = &mut self.wire;
        let drain = async {
            while let Ok(Io::Read(true)) = progress(wire, &mut rest, true).await {
                rest.clear()
            }
        };
        let _ = timeout(Duration::from_millis(500), drain).await;
    }
}

/// Something waits in the link that this stream works for.
async fn wake_of(link: Option<&Arc<Link>>) {
    match link {
        Some(link) => link.wake.notified().await,
        None => std::future::pending().await,
    }
}
