//! A stream that another server opened: one task a connection.

use super::flow::{Dead, Rest};
use super::hubs::{JOINING_MAX, Ride};
use super::peer::{Peer, Woke};
use super::presence::Ended;
use super::queue::{Link, Pushed, Question};
use super::shown::Opened;
use super::{Federation, Verification, trust};
use crate::edge::socket::Socket;
use crate::house::Ready;
use crate::house::entity::CellItem;
use crate::limits_hit::{self, Of};
use crate::listen::admission::Permit;
use im::{Ingress, Item, Ticket};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use stream::server::InEvent;
use stream::{IncomingStream, Managed, Pair, PeerCertificate, ResumeRequest, Verdict, Verify};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use xmpp::stanza::StanzaFault;
use xmpp::{Jid, PresenceType, Stanza, StanzaCondition, StanzaType, StreamFault};

/// For the first byte.
const FIRST_BYTE: Duration = Duration::from_secs(5);

/// A stream that broke can be resumed for so long.
const RESUME_WITHIN: Duration = Duration::from_secs(120);
/// Streams that broke and may be resumed.
const SUSPENDED_MAX: usize = 1_000;
/// Whoever is resumed elsewhere ends within this time.
const HANDOVER: Duration = Duration::from_secs(5);

enum End {
    Closed,
    Lost,
    Fault(StreamFault),
}

/// Streams that can be resumed, by id.
pub enum Resumption {
    /// It lives; whoever resumes it elsewhere says so here and is given what it leaves.
    Live(Pair, mpsc::Sender<oneshot::Sender<Rest>>),
    Broken(Pair, Rest),
}

impl Federation {
    /// A stanza of a verified pair enters the house.
    pub fn deliver(self: &Arc<Federation>, pair: &Pair, stanza: Stanza, ingress: Ingress, ticket: Ticket) {
        self.house.count("s2s_stanzas_in");
        self.presence.alive(pair);
        if self.is_answer_to_ping(pair, &stanza) {
            return;
        }
        let Some(to) = stanza.to.clone() else { return };
        if to.local().is_none() && self.checks.answered(&stanza) {
            return;
        }
        let operation = self.house.operation(&stanza, im::operations::Link::Server);
        if !self.house.has_on(to.domain(), operation) {
            return self.refuse_operation(stanza, ticket);
        }
        if is_told_only(&stanza) {
            // Who is not in memory has nobody who could hear it.
            if self.house.resident(&self.house.owner(to.to_bare())).is_none()
                && self.house.components.get(to.domain()).is_none()
            {
                return;
            }
            self.lease(pair, &stanza);
        }
        let mut ready = Ready::new();
        if self.is_lost_subscription(pair, &stanza, &to) {
            tracing::warn!(contact = ?stanza.from, account = %to.to_bare(), "another server has lost a subscription of ours; it is asked for again once");
            let account = self.house.owner(to.to_bare());
            let lost = Item::SubscriptionLost { stanza: Arc::new(stanza), to, ingress, ticket };
            self.house.leave(&account, CellItem::Im(lost), &mut ready);
        } else {
            self.house.tell(to, Arc::new(stanza), ingress, ticket, &mut ready);
        }
        self.house.work(&mut ready);
    }

    /// `unsubscribed`, in answer to our probe? Then their server has forgotten what their user once allowed.
    fn is_lost_subscription(&self, pair: &Pair, stanza: &Stanza, to: &Jid) -> bool {
        let is_no = stanza.kind == StanzaType::Presence(PresenceType::Unsubscribed);
        is_no
            && to.local().is_some()
            && stanza.from.as_ref().is_some_and(|from| self.presence.answers_probe(pair, to, from))
    }

    /// The host passes no such operations between servers. Nobody waits for an answer to presence that is only told.
    fn refuse_operation(self: &Arc<Federation>, stanza: Stanza, ticket: Ticket) {
        if matches!(stanza.kind, StanzaType::Presence(kind) if kind != PresenceType::Subscribe) {
            return;
        }
        let mut ready = Ready::new();
        self.house.answer_error(&Arc::new(stanza), &StanzaCondition::ServiceUnavailable.into(), ticket, &mut ready);
        self.house.work(&mut ready);
    }

    /// A stanza of a verified sender that is none.
    pub fn refuse(self: &Arc<Federation>, fault: StanzaFault) {
        let mut ready = Ready::new();
        self.house.answer_error(&Arc::new(fault.stanza), &fault.error, Ticket::default(), &mut ready);
        self.house.work(&mut ready);
    }

    /// Asks the server of `pair.from` whether a key is its own, on account of `dialler`, who holds `place` until the
    /// question is answered, or is met with nobody who waits for the answer.
    async fn verify(self: Arc<Federation>, verify: Verify, dialler: String, place: Verification) -> Verdict {
        let (answer, answered) = oneshot::channel();
        let back = verify.pair.inverse();
        let patience = self.policy().negotiation;
        let mut question = Question { verify, answer, _place: place };
        // On the stream that there is, if there is one of ours; else on one for this.
        let own = self.links.get(&back).map(|link| link.clone());
        if let Some(link) = own {
            match link.ask(question, false) {
                Pushed::Queued | Pushed::Dial => return judged(answered, patience).await,
                Pushed::Full(it) | Pushed::Gone(it) => question = it,
            }
        }
        let link = Arc::new(Link::new(back, &dialler));
        if let Pushed::Dial = link.ask(question, true) {
            self.dial_in(&link, Duration::ZERO);
        }
        judged(answered, patience).await
    }
}

async fn judged(answered: oneshot::Receiver<Verdict>, patience: Duration) -> Verdict {
    match timeout(patience, answered).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(_)) | Err(_) => Verdict::Error(StanzaCondition::RemoteServerTimeout),
    }
}

/// Presence, available or not: nobody waits for what becomes of it.
fn is_told_only(stanza: &Stanza) -> bool {
    matches!(stanza.kind, StanzaType::Presence(PresenceType::Available | PresenceType::Unavailable))
}

/// Serves one connection to its end.
pub async fn serve(federation: Arc<Federation>, socket: Socket, address: IpAddr, permit: Permit, direct_tls: bool) {
    let running = federation.run();
    let policy = federation.policy();
    let showing = federation.streams.begin(Opened::There, address, federation.house.now().utc);
    let (verdicts, verdicts_in) = mpsc::channel(stream::server::incoming::VERIFICATIONS_MAX);
    let (takeover, takeovers) = mpsc::channel(1);
    let (riding, rides) = mpsc::channel(JOINING_MAX);
    let mut incoming = Incoming {
        peer: Peer::new(&federation, &policy, socket, showing),
        stream: IncomingStream::new(policy.stream.clone(), federation.crypto.clone()),
        id: None,
        takeover,
        takeovers,
        riding,
        rides,
        verdicts,
        verdicts_in,
        up: Vec::new(),
        heard: false,
        permit,
        address,
    };
    let end = incoming.run(direct_tls).await;
    incoming.finish(end).await;
    drop(running);
}

struct Incoming {
    /// With both directions, links' queues go out here.
    peer: Peer,
    stream: IncomingStream,
    permit: Permit,
    address: IpAddr,
    verdicts: mpsc::Sender<(Pair, Verdict)>,
    verdicts_in: mpsc::Receiver<(Pair, Verdict)>,
    /// Pairs that were told to be up.
    up: Vec<Pair>,
    /// By which the stream can be resumed.
    id: Option<Box<str>>,
    takeover: mpsc::Sender<oneshot::Sender<Rest>>,
    takeovers: mpsc::Receiver<oneshot::Sender<Rest>>,
    /// Links of the way back whose tasks give them to this stream.
    riding: mpsc::Sender<Ride>,
    rides: mpsc::Receiver<Ride>,
    /// The first byte came.
    heard: bool,
}

impl Incoming {
    async fn run(&mut self, direct_tls: bool) -> End {
        if direct_tls && let Err(end) = self.handshake().await {
            return end;
        }
        self.peer.listen();
        loop {
            if self.peer.may_take()
                && let Err(end) = self.take_input().await
            {
                return end;
            }
            if let Err(Dead(why)) = self.peer.flow.tick(&mut self.peer.line.out) {
                tracing::debug!(address = %self.address, why, "another server's stream ends");
                return End::Lost;
            }
            self.peer.write_stanzas();
            if self.peer.send().is_err() {
                return End::Lost;
            }
            if self.peer.federation.is_stopping() && self.has_said_all() {
                return End::Fault(StreamFault::SystemShutdown);
            }
            let may_read = self.peer.may_take() && !self.stream.is_waiting();
            let deadline = self.deadline();
            tokio::select! {
                // The rarest first, so that none starves the others; and a run can be repeated.
                biased;
                Some((pair, verdict)) = self.verdicts_in.recv() => self.judged(&pair, verdict),
                Some(ride) = self.rides.recv() => self.take_up(ride),
                Some(heir) = self.takeovers.recv() => {
                    self.id = None;
                    if let Some(rest) = self.peer.flow.rest() {
                        // It may have given up.
                        let _ = heir.send(rest);
                    }
                    return End::Lost;
                }
                woke = self.peer.woke(may_read, deadline) => match woke {
                    Woke::Cut(pair) if self.up.contains(&pair) => return End::Lost,
                    Woke::Deadline => if let Err(end) = self.timed_out() { return end },
                    Woke::Read => self.heard = true,
                    Woke::Gone(_) => return End::Lost,
                    Woke::Cut(_) | Woke::Told => {}
                },
            }
        }
    }

    /// What is to go out is with the peer, or has had its time.
    fn has_said_all(&self) -> bool {
        let settled = !self.peer.flow.has_stanzas() && self.peer.flow.is_settled();
        self.peer.line.wire.unsent() == 0 && (settled || self.peer.active.elapsed() >= Duration::from_secs(3))
    }

    fn is_authenticated(&self) -> bool {
        !self.up.is_empty()
    }

    fn deadline(&self) -> Instant {
        let at = match (self.is_authenticated(), self.heard) {
            (true, _) if self.peer.federation.is_stopping() => Instant::now() + Duration::from_millis(100),
            (true, _) => Instant::now() + Duration::from_secs(10),
            (false, false) => self.peer.began + FIRST_BYTE,
            // Our own question to the authoritative server has its own time; it is not the peer's fault.
            (false, true) => {
                self.peer.began + self.peer.policy.negotiation * if self.stream.verifications() > 0 { 2 } else { 1 }
            }
        };
        self.peer.deadline(at)
    }

    fn timed_out(&mut self) -> Result<(), End> {
        if self.peer.line.takes_nothing() {
            return Err(End::Lost);
        }
        if self.is_authenticated() {
            let silent = self.peer.active.elapsed() >= self.peer.policy.idle * 2;
            let leased = self.up.iter().any(|pair| self.peer.federation.presence.has(pair));
            return if silent && !leased { Err(End::Closed) } else { Ok(()) };
        }
        if Instant::now() >= self.deadline() && self.peer.rates.may_read() {
            self.peer.federation.house.count("s2s_timeouts");
            return Err(End::Fault(StreamFault::NegotiationTimeout));
        }
        Ok(())
    }

    async fn take_input(&mut self) -> Result<(), End> {
        let input = std::mem::take(&mut self.peer.line.input);
        let mut rest = input.as_slice();
        loop {
            if self.peer.flow.in_flight.is_full() {
                self.peer.line.input = rest.to_vec();
                return Ok(());
            }
            let event = match self.stream.next(&mut rest, &mut self.peer.line.out) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(fault) => return Err(End::Fault(fault)),
            };
            match event {
                InEvent::StartTls => self.handshake().await?,
                InEvent::External(pair) => {
                    let allowed = self.peer.policy.allows(&pair.from);
                    self.stream.external(allowed, &mut self.peer.line.out);
                }
                InEvent::Dialback { pair, key, id, certified } => self.asked(pair, key, id, certified),
                InEvent::Authenticated(pair) => self.authenticated(pair),
                InEvent::Stanza(stanza) => {
                    self.peer.active = Instant::now();
                    let (Some(from), Some(to)) = (&stanza.from, &stanza.to) else { continue };
                    let pair = Pair::new(from.domain(), to.domain());
                    self.peer.flow.take_in(&pair, stanza);
                }
                InEvent::Manage { resume } => self.manage(resume),
                InEvent::Resume(request) => self.resume(request).await?,
                InEvent::Managing(managing) => {
                    if let Err(Dead(_)) = self.peer.flow.managing(managing, &mut self.peer.line.out) {
                        return Err(End::Fault(StreamFault::Other(
                            xmpp::StreamCondition::UndefinedCondition,
                            "More is acknowledged than was sent.",
                        )));
                    }
                }
                InEvent::BadStanza(mut fault) => {
                    self.peer.flow.take_in_bad();
                    if fault.stanza.to.is_none() {
                        let host = self.stream.host().and_then(|host| xmpp::BareJid::of_domain(host).ok());
                        fault.stanza.to = host.map(Into::into);
                    }
                    self.peer.federation.refuse(*fault);
                }
                InEvent::PeerError(condition) => self.peer.error = Some(condition),
                InEvent::Closed => return Err(End::Closed),
            }
        }
        // What the stream did not take while an answer is out.
        self.peer.line.input = rest.to_vec();
        Ok(())
    }

    /// A pair wants to be proved by dialback.
    fn asked(&mut self, pair: Pair, key: Box<str>, id: Box<str>, certified: bool) {
        let verdict = if !self.peer.policy.allows(&pair.from) {
            Some(Verdict::Error(StanzaCondition::PolicyViolation))
        } else if self.peer.federation.is_changed(&pair.from, self.peer.line.wire.peer_certificates()) {
            Some(Verdict::Error(StanzaCondition::NotAuthorized))
        } else if certified {
            Some(Verdict::Valid)
        } else if self.peer.policy.is_strict(&pair.from) && !self.peer.federation.resolver.validates() {
            Some(Verdict::Error(StanzaCondition::NotAuthorized))
        } else {
            None
        };
        if let Some(verdict) = verdict {
            return self.judged(&pair, verdict);
        }
        let Some(place) = self.peer.federation.verifications.enter(self.address) else {
            self.peer.federation.house.count("s2s_verifications_full");
            self.peer.federation.house.limit("verifications_per_address");
            return self.judged(&pair, Verdict::Error(StanzaCondition::ResourceConstraint));
        };
        let (federation, verdicts) = (self.peer.federation.clone(), self.verdicts.clone());
        let dialler = self.address.to_string();
        let strict = self.peer.policy.is_strict(&pair.from);
        let chain = self.peer.line.wire.peer_certificates().unwrap_or_default().to_vec();
        self.peer.federation.house.runtime.spawn(async move {
            let judge = async {
                match strict {
                    true if federation.is_vouched_for(&pair.from, &chain).await => Verdict::Valid,
                    true => Verdict::Error(StanzaCondition::NotAuthorized),
                    false => {
                        let verify = Verify { pair: pair.clone(), id, key };
                        federation.verify(verify, dialler, place).await
                    }
                }
            };
            // When the stream ends, nobody asks any more.
            let verdict = tokio::select! {
                biased;
                () = verdicts.closed() => return,
                verdict = judge => verdict,
            };
            let _ = verdicts.send((pair, verdict)).await;
        });
    }

    fn judged(&mut self, pair: &Pair, verdict: Verdict) {
        // An authoritative server that says no is told on as no; errors of the way to it as they are.
        if !self.stream.dialback(pair, verdict, &mut self.peer.line.out) {
            return;
        }
        if verdict != Verdict::Valid {
            tracing::info!(%pair, ?verdict, address = %self.address, "another server could not prove its domain");
            self.peer.federation.house.count("s2s_refused");
        }
    }

    fn authenticated(&mut self, pair: Pair) {
        tracing::debug!(%pair, address = %self.address, encrypted = self.stream.is_encrypted(), "another server is authenticated");
        self.permit.authenticated();
        self.peer.active = Instant::now();
        let certified = self.stream.is_certified(&pair.from);
        self.peer.federation.proved(&pair, certified);
        self.peer.federation.incoming_up(&pair);
        self.peer.federation.met(&pair.from, self.peer.line.wire.peer_certificates());
        self.up.push(pair.clone());
        self.attach();
        let both = self.peer.flow.links().iter().any(|link| link.pair == pair.inverse());
        let by = self.peer.proof(certified);
        self.peer.showing.proved(&pair.inverse(), by, both);
    }

    /// Takes over the links of the way back that nobody works for.
    fn attach(&mut self) {
        if !self.stream.is_bidirectional() {
            return;
        }
        if let Some(pair) = self.up.last() {
            self.peer.federation.hubs.carried(pair.inverse(), self.riding.clone());
        }
        for pair in &self.up {
            let back = pair.inverse();
            if !self.peer.flow.links().iter().any(|link| link.pair == back)
                && let Some(link) = self.peer.federation.link_of(&back, &pair.from)
                && link.attach(&self.peer.flow.wake)
            {
                self.peer.flow.carry(&link);
            }
        }
    }

    /// … and those whose tasks give them to it, rather than dial.
    fn take_up(&mut self, ride: Ride) {
        if ride.link.adopt(&self.peer.flow.wake) {
            self.peer.flow.carry(&ride.link);
            self.peer.showing.carries_back(&ride.link.pair);
            // Its task waits for this word, or has been dropped with the server.
            let _ = ride.taken.send(());
        }
    }

    /// XEP-0198 §3.
    fn manage(&mut self, resume: bool) {
        let managed = match resume && self.peer.federation.resumptions.len() < SUSPENDED_MAX * 2 {
            true => {
                let mut random = [0; 16];
                self.peer.federation.crypto.random(&mut random);
                let id: Box<str> = random.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
                self.remember(id.clone());
                Managed { id: Some(id), max: u32::try_from(RESUME_WITHIN.as_secs()).ok(), location: None }
            }
            false => Managed::default(),
        };
        self.stream.managed(&managed, &mut self.peer.line.out);
        self.peer.flow.enabled_in();
        self.peer.flow.enabled_out();
    }

    fn remember(&mut self, id: Box<str>) {
        let Some(pair) = self.up.first().cloned() else { return };
        self.peer.federation.resumptions.insert(id.clone(), Resumption::Live(pair, self.takeover.clone()));
        self.id = Some(id);
    }

    /// XEP-0198 §5. The stream that goes on was of a pair that this one has proved, too.
    async fn resume(&mut self, request: ResumeRequest) -> Result<(), End> {
        let own = |pair: &Pair| self.up.contains(pair);
        let found = self.peer.federation.resumptions.remove_if(&request.id, |_, it| match it {
            Resumption::Live(pair, _) | Resumption::Broken(pair, _) => own(pair),
        });
        let rest = match found {
            None => None,
            Some((_, Resumption::Broken(_, rest))) => Some(rest),
            Some((_, Resumption::Live(_, takeover))) => {
                let (say, hear) = oneshot::channel();
                match takeover.try_send(say) {
                    Ok(()) => timeout(HANDOVER, hear).await.ok().and_then(Result::ok),
                    Err(_) => None,
                }
            }
        };
        let Some(rest) = rest else {
            self.stream.resume_refused(None, &mut self.peer.line.out);
            return Ok(());
        };
        tracing::debug!(address = %self.address, pairs = self.up.len(), "another server's stream is resumed");
        self.peer.federation.house.count("s2s_resumed");
        self.stream.resumed(&request.id, rest.taken(), &mut self.peer.line.out);
        if let Err(Dead(_)) = self.peer.flow.resume(rest, request.h, &mut self.peer.line.out) {
            return Err(End::Lost);
        }
        self.remember(request.id);
        for pair in &self.up {
            self.peer.federation.presence.renewed(pair);
        }
        Ok(())
    }

    async fn handshake(&mut self) -> Result<(), End> {
        let trust = self.peer.federation.trust.read().clone();
        let config = trust.listening(self.stream.host());
        self.peer.line.flush(self.peer.policy.handshake).await.map_err(|_| End::Lost)?;
        self.peer.line.wire.start_tls(config).map_err(|_| End::Lost)?;
        if let Err(error) = self.peer.line.handshake(self.peer.policy.handshake).await {
            if error.kind() != io::ErrorKind::TimedOut {
                tracing::debug!(address = %self.address, %error, "TLS handshake with another server failed");
                self.peer.federation.house.count("s2s_tls_failures");
            }
            return Err(End::Lost);
        }
        let mut certificate = self.peer.federation.judge(self.peer.line.wire.peer_certificates());
        // (With TLS from the first byte nobody has said yet who they are: then dialback is where it is looked at.)
        if let Some(domain) = self.stream.claimed().map(str::to_owned)
            && !certificate.as_ref().is_some_and(|it| it.speaks_for(&domain))
            && self.is_vouched_for(&domain).await
        {
            self.peer.by_dane = true;
            let names = vec![trust::ascii(&domain).unwrap_or_default()];
            certificate = Some(PeerCertificate { valid: true, dns_names: names, ..PeerCertificate::default() });
        }
        self.stream.tls_up(certificate);
        Ok(())
    }

    /// By signed records. It is asked for on behalf of its address, as a key is verified.
    async fn is_vouched_for(&self, domain: &str) -> bool {
        let Some(chain) = self.peer.line.wire.peer_certificates().filter(|_| self.peer.federation.resolver.validates())
        else {
            return false;
        };
        let Some(_place) = self.peer.federation.verifications.enter(self.address) else { return false };
        self.peer.federation.is_vouched_for(domain, chain).await
    }

    /// The peer may come back to it.
    fn suspend(&mut self, id: Box<str>) {
        let rest = match (self.up.first(), self.peer.flow.rest_of_incoming()) {
            (Some(pair), Some(rest)) => Resumption::Broken(pair.clone(), rest),
            _ => {
                self.peer.federation.resumptions.remove(&id);
                return;
            }
        };
        self.peer.federation.resumptions.insert(id.clone(), rest);
        let federation = self.peer.federation.clone();
        self.peer.federation.house.runtime.spawn(async move {
            let mut stopping = federation.stopping();
            tokio::select! {
                biased;
                () = tokio::time::sleep(RESUME_WITHIN) => {}
                () = stopping.stopped() => {}
            }
            let broken = federation.resumptions.remove_if(&id, |_, it| matches!(it, Resumption::Broken(..)));
            if let Some((_, Resumption::Broken(_, rest))) = broken {
                rest.give_back(&federation, None);
            }
        });
    }

    async fn finish(mut self, end: End) {
        let in_order = matches!(end, End::Closed) && self.peer.error.is_none();
        let links = self.peer.flow.links().to_vec();
        self.peer.federation.hubs.carried_no_more(&self.riding);
        // Whoever still waits to be taken hears that it was dropped, and dials.
        self.rides.close();
        while self.rides.try_recv().is_ok() {}
        match self.id.take() {
            Some(id) if matches!(end, End::Lost) => self.suspend(id),
            Some(id) => drop(self.peer.federation.resumptions.remove(&id)),
            None => {}
        }
        self.peer.flow.end();
        for link in links {
            if link.detach() {
                self.peer.federation.dial_in(&link, Duration::ZERO);
            }
        }
        for pair in &self.up {
            self.peer.federation.stream_down(pair, true, if in_order { Ended::InOrder } else { Ended::Broken });
        }
        match &end {
            End::Closed => self.stream.close(&mut self.peer.line.out),
            End::Fault(fault) => {
                tracing::debug!(address = %self.address, claims = ?self.stream.claimed(), ?fault, "stream error to another server");
                let of = if self.is_authenticated() { Of::Server } else { Of::Stranger };
                if let Some(limit) = limits_hit::by(fault, of) {
                    self.peer.federation.house.limit(limit);
                }
                self.stream.fail(fault, &mut self.peer.line.out);
            }
            End::Lost => return,
        }
        self.peer.line.last_words().await;
        self.peer.line.wire.hear_out().await;
    }
}
