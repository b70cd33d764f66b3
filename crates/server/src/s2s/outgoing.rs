//! Our stream to another server. It begins for one link; others whose server it is may join. XEP-0220 §2.6.

use super::dns::Target;
use super::flow::{Dead, Flow, Rest};
use super::hubs::{Hub, JOINED_MAX, JOINING_MAX, Join};
use super::link::End;
use super::presence::{Ended, SILENCE};
use super::queue::{Link, Question};
use super::shown::{Opened, Showing};
use super::{Federation, Policy, dial, trust};
use crate::edge::rates::Rates;
use crate::edge::socket::Socket;
use crate::edge::wire::Wire;
use crate::limits_hit::{self, Of};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use stream::server::OutEvent;
use stream::{OutgoingStream, Pair, Verdict};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use xmpp::{StanzaCondition, StreamFault};

/// Bytes handed to a socket and not taken by the kernel. LIMITS.md §1.
const SOCKET_BYTES_MAX: usize = 256 << 10;
/// The other server takes nothing for so long: end.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);
/// For the close tag of the peer after ours. RFC 6120 §4.4.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// A stream that only asks for verifications is closed after so long without one.
const ONLY_ASKS_IDLE: Duration = Duration::from_secs(20);
/// How often an idle stream is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// What is sent is acknowledged within this time when the stream is to end.
const LAST_ACKS: Duration = Duration::from_secs(3);
/// A stream is resumed within so long, when the other side names no time.
const RESUME_WITHIN: Duration = Duration::from_secs(120);

/// What a stream that broke left, for the next attempt.
pub struct Resumable {
    id: Box<str>,
    until: Instant,
    rest: Rest,
}

/// Works for the link on one stream, until that ends: on one that is there already if it can, else on a new one.
pub async fn attempt(federation: &Arc<Federation>, link: &Arc<Link>) -> End {
    if federation.is_stopping() {
        return End::Failed("this server stops".into());
    }
    let policy = federation.policy();
    if let Some(end) = federation.join(link, None).await {
        return end;
    }
    let place = federation.place_to_dial(&link.dialler).await;
    let targets = match dial::find(federation, &policy, &link.pair.to).await {
        Ok(targets) => targets,
        Err(end) => return end,
    };
    // Who must show a certificate, or names one in signed records, shows it on a stream of its own.
    let names_certificates = |it: &Target| it.delegation.as_ref().is_some_and(|it| !it.tlsa.is_empty());
    if !policy.is_strict(&link.pair.to)
        && !targets.iter().any(names_certificates)
        && let Some(end) = federation.join(link, Some(&targets)).await
    {
        return end;
    }
    let (socket, target) = match dial::connect(federation, &policy, targets).await {
        Ok(connected) => connected,
        Err(end) => return end,
    };
    drop(place);
    socket.hurry();
    let direct_tls = target.direct_tls;
    Talk::new(federation, link, policy, socket, target).works(direct_tls).await
}

impl Federation {
    /// What was sent on a stream that is not resumed goes again.
    fn give_up_resuming(self: &Arc<Federation>, link: &Arc<Link>, handled: Option<u32>) {
        if let Some((_, left)) = self.resumable.remove(&link.pair) {
            left.rest.give_back(self, handled);
        }
    }

    /// Between attempts: what will not be resumed any more goes again.
    pub fn look_at_resumable(self: &Arc<Federation>, link: &Arc<Link>, end: &End) {
        let over = |left: &Resumable| Instant::now() >= left.until;
        let hopeless = !matches!(end, End::Broken(_) | End::Failed(_));
        if self.resumable.get(&link.pair).is_some_and(|left| hopeless || over(&left)) {
            self.give_up_resuming(link, None);
        }
    }
}

/// What the wire did.
pub enum Io {
    /// Bytes came; `false`: nothing more will.
    Read(bool),
    /// All that was written is with the kernel.
    Flushed,
}

/// Sends what is unsent and reads, if it may.
pub async fn progress(wire: &mut Wire, input: &mut Vec<u8>, may_read: bool) -> io::Result<Io> {
    poll_fn(|cx| {
        if wire.poll_sent(cx)?.is_ready() {
            return Poll::Ready(Ok(Io::Flushed));
        }
        match may_read {
            true => wire.poll_read(cx, input).map_ok(Io::Read),
            false => Poll::Pending,
        }
    })
    .await
}

/// Either of the two was told of something, and all that is ready on this thread has had its turn: what others have for
/// the stream goes in one write.
pub async fn told(wake: &Notify, done: &Notify) {
    let (mut wake, mut done) = (pin!(wake.notified()), pin!(done.notified()));
    // Both are looked at: what both tell of is one turn.
    poll_fn(|cx| match (wake.as_mut().poll(cx), done.as_mut().poll(cx)) {
        (Poll::Pending, Poll::Pending) => Poll::Pending,
        _ => Poll::Ready(()),
    })
    .await;
    tokio::task::yield_now().await;
}

/// Last bytes, and the socket's end.
pub async fn last_words(wire: &mut Wire, out: &[u8]) {
    let _ = wire.write(out);
    wire.say_goodbye();
    let _ = timeout(Duration::from_secs(2), poll_fn(|cx| wire.poll_flush(cx))).await;
    wire.shutdown();
}

/// One of the stream's links.
struct Member {
    link: Arc<Link>,
    state: Proof,
    since: Instant,
    /// Who waits for its end; the first link's own task is the stream's.
    end: Option<oneshot::Sender<End>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// Nothing is proved for it yet.
    Wanted,
    Asked,
    Up,
}

/// Our stream to another server, while it lasts.
struct Talk<'a> {
    federation: &'a Arc<Federation>,
    policy: Arc<Policy>,
    stream: OutgoingStream,
    wire: Wire,
    target: Target,
    /// Signed records vouch for its certificate.
    by_dane: bool,
    input: Vec<u8>,
    out: Vec<u8>,
    /// The first is the one it began for.
    members: Vec<Member>,
    joins: mpsc::Receiver<Join>,
    hub: Option<Arc<Hub>>,
    joining: mpsc::Sender<Join>,
    flow: Flow,
    /// Keys whose verdict is awaited here.
    asked: Vec<Question>,
    /// By which the other side would know the stream again, and how long.
    resumption: Option<(Box<str>, Duration)>,
    peer_error: Option<Box<str>>,
    began: Instant,
    /// When a stanza or a question last went either way.
    active: Instant,
    blocked_since: Option<Instant>,
    rates: Rates,
    showing: Showing,
}

impl<'a> Talk<'a> {
    fn new(
        federation: &'a Arc<Federation>,
        link: &Arc<Link>,
        policy: Arc<Policy>,
        socket: Socket,
        target: Target,
    ) -> Talk<'a> {
        let wire = Wire::new(socket);
        wire.notice_silence(SILENCE);
        let strict = policy.is_strict(&link.pair.to);
        let (joining, joins) = mpsc::channel(JOINING_MAX);
        let flow = Flow::new(federation);
        link.wake_by(&flow.wake);
        Talk {
            stream: OutgoingStream::new(policy.stream.clone(), federation.crypto.clone(), link.pair.clone(), strict),
            wire,
            by_dane: false,
            input: Vec::new(),
            out: Vec::new(),
            members: vec![Member { link: link.clone(), state: Proof::Wanted, since: Instant::now(), end: None }],
            joins,
            hub: None,
            joining,
            flow,
            asked: Vec::new(),
            resumption: None,
            peer_error: None,
            began: Instant::now(),
            active: Instant::now(),
            blocked_since: None,
            rates: policy.rates(),
            showing: federation.streams.begin(Opened::Here, target.address.ip(), federation.house.now().utc),
            target,
            policy,
            federation,
        }
    }

    async fn works(mut self, direct_tls: bool) -> End {
        let end = self.run(direct_tls).await;
        self.finish(&end).await;
        end
    }

    async fn run(&mut self, direct_tls: bool) -> End {
        if direct_tls && let Err(end) = self.handshake(true).await {
            return end;
        }
        self.stream.start(&mut self.out);
        let mut stopping = self.federation.stopping();
        let mut cuts = self.federation.presence.cuts();
        loop {
            if let Err(end) = self.take_input().await {
                return end;
            }
            if let Err(Dead(why)) = self.flow.tick(&mut self.out) {
                return self.broken(why);
            }
            if let Err(end) = self.write_queue() {
                return end;
            }
            let nothing_waits = self.asked.is_empty() && self.wire.unsent() == 0 && !self.waits_to_be_written();
            if nothing_waits
                && (self.federation.is_stopping() || self.is_idle() || self.is_redundant())
                && self.is_settled()
            {
                return End::Done;
            }
            let may_read = !self.stream.is_waiting() && !self.flow.in_flight.is_full() && self.rates.may_read();
            let deadline = self.deadline();
            let (wake, in_flight) = (self.flow.wake.clone(), self.flow.in_flight.clone());
            tokio::select! {
                // The rarest first, so that none starves the others; and a run can be repeated.
                biased;
                () = stopping.changed() => self.active = Instant::now(),
                cut = cuts.recv() => if cut.is_ok_and(|pair| self.is_of(&pair.inverse())) {
                    return self.broken("it is silent");
                },
                () = sleep_until(deadline) => if let Err(end) = self.timed_out() { return end },
                Some(join) = self.joins.recv() => self.joined(join),
                io = progress(&mut self.wire, &mut self.input, may_read) => match io {
                    Ok(Io::Read(true)) => {
                        if self.rates.read(self.input.len()) {
                            self.federation.house.limit("s2s_bytes_per_second");
                        }
                    }
                    Ok(Io::Flushed) => self.flushed(),
                    Ok(Io::Read(false)) => return self.broken("the connection was closed"),
                    Err(error) => return self.broken(&error.to_string()),
                },
                // Each turn looks at what these two tell of.
                () = told(&wake, &in_flight.done) => {}
            }
        }
    }

    fn first(&self) -> &Member {
        &self.members[0]
    }

    fn is_of(&self, pair: &Pair) -> bool {
        self.members.iter().any(|member| member.link.pair == *pair)
    }

    fn is_up(&self) -> bool {
        self.members.iter().any(|member| member.state == Proof::Up)
    }

    fn waits_to_be_written(&self) -> bool {
        self.members.iter().any(|member| member.link.has_stanzas())
    }

    /// What was sent is acknowledged, or will hardly be.
    fn is_settled(&self) -> bool {
        self.flow.is_settled() || (self.federation.is_stopping() && self.active.elapsed() >= LAST_ACKS)
    }

    /// Negotiated, and only verifications go over it.
    fn only_asks(&self) -> bool {
        self.stream.is_open() && self.members.iter().all(|member| member.state == Proof::Wanted)
    }

    fn broken(&self, why: &str) -> End {
        match (self.is_up(), &self.peer_error) {
            (true, None) => End::Broken(why.to_owned()),
            (true, Some(condition)) => End::Broken(format!("stream error {condition}")),
            (false, _) if self.only_asks() && self.asked.is_empty() => End::Done,
            (false, Some(condition)) => End::Failed(format!("stream error {condition}")),
            (false, None) => End::Failed(why.to_owned()),
        }
    }

    fn is_idle(&self) -> bool {
        let idle = if self.only_asks() { ONLY_ASKS_IDLE.min(self.policy.idle) } else { self.policy.idle };
        // While presence of there is leased, the stream is what shows that they live.
        let is_up = |member: &Member| member.state == Proof::Up;
        let leased = |it: &Member| is_up(it) && self.federation.presence.has(&it.link.pair.inverse());
        self.active.elapsed() >= idle && !self.members.iter().any(leased)
    }

    /// Both servers have dialled, and the other's stream carries both directions: one of the two is enough. Both sides
    /// choose the same: the one that was opened by the domain whose name comes first.
    fn is_redundant(&self) -> bool {
        let pair = &self.first().link.pair;
        self.is_up() && self.members.len() == 1 && pair.from > pair.to && self.federation.hubs.is_carried(pair)
    }

    fn deadline(&self) -> Instant {
        let mut at = match self.is_up() || self.only_asks() {
            true if self.federation.is_stopping() => Instant::now() + Duration::from_millis(100),
            true => Instant::now() + LOOK_EVERY,
            false => self.began + self.policy.negotiation,
        };
        if let Some(since) = self.blocked_since {
            at = at.min(since + WRITE_PATIENCE);
        }
        self.rates.deadline(at)
    }

    fn timed_out(&mut self) -> Result<(), End> {
        let patience = self.policy.negotiation;
        // Whoever joined and hears nothing has a stream of its own; its task hears that its end was dropped.
        self.members.retain(|it| it.end.is_none() || it.state == Proof::Up || it.since.elapsed() < patience);
        let negotiated = self.is_up() || self.only_asks();
        if !negotiated && self.began.elapsed() >= self.policy.negotiation {
            return Err(End::Failed("it did not negotiate in time".into()));
        }
        if self.blocked_since.is_some_and(|since| since.elapsed() >= WRITE_PATIENCE) {
            return Err(self.broken("it takes nothing"));
        }
        if self.flow.is_held() && self.active.elapsed() >= self.policy.negotiation {
            return Err(self.broken("it does not say whether the stream goes on"));
        }
        Ok(())
    }

    async fn take_input(&mut self) -> Result<(), End> {
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        loop {
            if self.flow.in_flight.is_full() {
                self.input = rest.to_vec();
                return Ok(());
            }
            match self.stream.next(&mut rest, &mut self.out) {
                Ok(Some(event)) => self.take(event).await?,
                Ok(None) => break,
                Err(fault) => {
                    if let Some(limit) = limits_hit::by(&fault, Of::Server) {
                        self.federation.house.limit(limit);
                    }
                    self.stream.fail(&fault, &mut self.out);
                    tracing::debug!(pair = %self.first().link.pair, ?fault, "stream error to another server");
                    return Err(self.faulty(&fault));
                }
            }
        }
        self.input = rest.to_vec();
        Ok(())
    }

    async fn take(&mut self, event: OutEvent) -> Result<(), End> {
        match event {
            OutEvent::StartTls => self.handshake(false).await?,
            OutEvent::Ready => {}
            OutEvent::Authenticated(pair) => self.authenticated(&pair),
            OutEvent::Refused(pair, condition) => self.refused(&pair, condition)?,
            OutEvent::Verified(verify, verdict) => {
                if let Some(at) = self.asked.iter().position(|question| question.verify == verify) {
                    // Who asked may have given up.
                    let _ = self.asked.swap_remove(at).answer.send(verdict);
                }
            }
            OutEvent::Enabled { id, max } => {
                let within = max.map_or(RESUME_WITHIN, |max| Duration::from_secs(u64::from(max)).min(RESUME_WITHIN));
                self.resumption = id.map(|id| (id, within));
                self.flow.enabled_in();
            }
            OutEvent::Resumed(h) => self.resumed(h)?,
            OutEvent::NotManaged(h) => {
                let link = self.first().link.clone();
                if !self.flow.is_held() {
                    self.flow.unmanaged();
                    return Ok(());
                }
                self.federation.give_up_resuming(&link, h);
                self.flow.unmanaged();
                if self.stream.enable(&mut self.out) {
                    self.flow.enabled_out();
                }
            }
            OutEvent::Managing(managing) => {
                if let Err(Dead(why)) = self.flow.managing(managing, &mut self.out) {
                    return Err(self.broken(why));
                }
            }
            OutEvent::Stanza(stanza) => {
                self.active = Instant::now();
                let (Some(from), Some(to)) = (&stanza.from, &stanza.to) else { return Ok(()) };
                let pair = Pair::new(from.domain(), to.domain());
                self.flow.take_in(&pair, stanza);
            }
            OutEvent::BadStanza(fault) => {
                self.flow.take_in_bad();
                self.federation.refuse(*fault);
            }
            OutEvent::PeerError(condition) => self.peer_error = Some(condition),
            OutEvent::Closed => return Err(self.closed()),
        }
        Ok(())
    }

    fn authenticated(&mut self, pair: &Pair) {
        tracing::debug!(%pair, certified = self.stream.is_certified(), "authenticated with another server");
        self.active = Instant::now();
        let Some(at) = self.members.iter().position(|it| it.link.pair == *pair && it.state != Proof::Up) else {
            return;
        };
        self.federation.met(&pair.to, self.wire.peer_certificates());
        let by = match (self.stream.is_certified(), self.by_dane) {
            (true, true) => "dane",
            (true, false) => "certificate",
            (false, _) => "dialback",
        };
        self.showing.proved(pair, by, self.stream.is_bidirectional());
        // What comes back on it is theirs by the same proof.
        if self.stream.is_bidirectional() {
            self.federation.proved(&pair.inverse(), self.stream.is_certified());
        }
        let first = !self.is_up();
        self.members[at].state = Proof::Up;
        let link = self.members[at].link.clone();
        self.federation.reached(pair);
        if first {
            self.flow.marks = self.stream.takes_marks();
            if self.flow.marks {
                // That we take them, too.
                stream::server::marks::write_mark(&mut self.out, 0);
            }
            self.manage(&link);
            self.open_to_others();
        } else {
            // This stream is not the one that broke: what was sent there goes first.
            self.federation.give_up_resuming(&link, None);
        }
        self.flow.carry(&link);
        self.federation.stream_up(&pair.inverse(), self.stream.is_bidirectional());
    }

    /// Goes on with the stream that broke, or asks for acknowledgements.
    fn manage(&mut self, link: &Arc<Link>) {
        let resumable = self.federation.resumable.get(&link.pair).map(|left| {
            let h = left.rest.taken();
            (left.id.clone(), left.until, h)
        });
        if let Some((id, until, h)) = resumable {
            if Instant::now() < until && self.stream.resume(&id, h, &mut self.out) {
                self.flow.hold();
                return;
            }
            self.federation.give_up_resuming(link, None);
        }
        if self.stream.enable(&mut self.out) {
            self.flow.enabled_out();
        }
    }

    fn resumed(&mut self, h: u32) -> Result<(), End> {
        let pair = self.first().link.pair.clone();
        let Some((_, left)) = self.federation.resumable.remove(&pair) else { return Ok(()) };
        tracing::debug!(%pair, "a stream to another server is resumed");
        self.federation.house.count("s2s_resumed");
        self.resumption = Some((left.id, left.until.saturating_duration_since(Instant::now()).max(RESUME_WITHIN)));
        if let Err(Dead(why)) = self.flow.resume(left.rest, h, &mut self.out) {
            return Err(self.broken(why));
        }
        self.federation.presence.renewed(&pair.inverse());
        Ok(())
    }

    /// Other links may join from now on.
    fn open_to_others(&mut self) {
        if !self.stream.takes_more_senders() {
            return;
        }
        let hub = Arc::new(Hub {
            pair: self.first().link.pair.clone(),
            address: self.target.address,
            takes_targets: self.stream.takes_more_targets(),
            joins: self.joining.clone(),
        });
        self.federation.hubs.open(&hub);
        self.hub = Some(hub);
    }

    fn joined(&mut self, join: Join) {
        if self.members.len() >= JOINED_MAX || self.is_of(&join.link.pair) || !self.is_up() {
            // Whoever waits hears that it was dropped.
            return;
        }
        join.link.wake_by(&self.flow.wake);
        self.active = Instant::now();
        self.stream.prove(join.link.pair.clone(), &mut self.out);
        let end = Some(join.end);
        self.members.push(Member { link: join.link, state: Proof::Asked, since: Instant::now(), end });
    }

    fn refused(&mut self, pair: &Pair, condition: StanzaCondition) -> Result<(), End> {
        let end = match condition {
            StanzaCondition::ItemNotFound => End::Absent("it does not serve the domain"),
            StanzaCondition::RemoteServerTimeout
            | StanzaCondition::RemoteServerNotFound
            | StanzaCondition::ResourceConstraint
            | StanzaCondition::InternalServerError
            | StanzaCondition::UndefinedCondition => End::Failed(format!("dialback: {}", condition.name())),
            other => End::Refused(other),
        };
        if *pair == self.first().link.pair {
            return Err(end);
        }
        if let Some(at) = self.members.iter().position(|member| member.link.pair == *pair) {
            let member = self.members.swap_remove(at);
            if let Some(waits) = member.end {
                // Its task may be gone with the server.
                let _ = waits.send(end);
            }
        }
        Ok(())
    }

    fn faulty(&self, fault: &StreamFault) -> End {
        let told = fault.text().unwrap_or_else(|| fault.condition().name().to_owned());
        match self.is_up() {
            true => End::Broken(told),
            false => End::Failed(told),
        }
    }

    /// The peer has said its close tag.
    fn closed(&self) -> End {
        match self.peer_error.as_deref() {
            Some("host-unknown" | "host-gone") => End::Absent("it does not serve the domain"),
            Some(condition) if self.is_up() => End::Broken(format!("stream error {condition}")),
            None if self.is_up() => End::Done,
            _ if self.only_asks() && self.asked.is_empty() => End::Done,
            Some(condition) => End::Failed(format!("stream error {condition}")),
            None => End::Failed("it closed the stream".into()),
        }
    }

    async fn handshake(&mut self, direct_tls: bool) -> Result<(), End> {
        let failed = |why: String| End::Failed(format!("TLS: {why}"));
        let trust = self.federation.trust.read().clone();
        let pair = self.first().link.pair.clone();
        let config = trust.dialling(&pair.from, direct_tls).map_err(|error| failed(error.to_string()))?;
        let name = trust::server_name(&pair.to).ok_or_else(|| failed("the domain has no name".into()))?;
        self.flush().await?;
        self.wire.start_tls_to(config, name).map_err(|error| failed(error.to_string()))?;
        let wire = &mut self.wire;
        match timeout(self.policy.handshake, poll_fn(|cx| wire.poll_handshake(cx))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(failed("no answer".into())),
        }
        let chain = self.wire.peer_certificates();
        let judged = self.federation.judge_dialled(&pair.to, chain, self.target.delegation.as_deref());
        let judged = judged.map_err(End::Absent)?;
        self.by_dane = judged.by_dane;
        self.stream.tls_up(judged.certificate, &mut self.out);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), End> {
        let out = std::mem::take(&mut self.out);
        let wire = &mut self.wire;
        let sent = match wire.write(&out) {
            Ok(()) => timeout(self.policy.handshake, poll_fn(|cx| wire.poll_flush(cx))).await,
            Err(error) => Ok(Err(error)),
        };
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.broken(&error.to_string())),
            Err(_) => Err(self.broken("it takes nothing")),
        }
    }

    /// The kernel has all that was written.
    fn flushed(&mut self) {
        self.blocked_since = None;
        self.flow.flushed();
    }

    /// Asks what there is to ask, proves who we are when something waits, and writes what waits.
    fn write_queue(&mut self) -> Result<(), End> {
        if self.stream.is_open() {
            let first = self.first().link.clone();
            while let Some(question) = first.take_question() {
                self.active = Instant::now();
                self.stream.verify(question.verify.clone(), &mut self.out);
                self.asked.push(question);
            }
            let waits = first.has_stanzas() || self.federation.resumable.contains_key(&first.pair);
            if self.first().state == Proof::Wanted && waits {
                self.members[0].state = Proof::Asked;
                self.began = Instant::now();
                match self.asked.is_empty() {
                    true => self.stream.authenticate(&mut self.out),
                    // Questions are out: dialback does not wait for them.
                    false => self.stream.prove(first.pair.clone(), &mut self.out),
                }
            }
            let room = SOCKET_BYTES_MAX.saturating_sub(self.wire.unsent() + self.out.len());
            if self.flow.write(&mut self.out, room) {
                self.active = Instant::now();
            }
        }
        if !self.out.is_empty() {
            let written = self.wire.write(&self.out);
            self.out.clear();
            if let Err(error) = written {
                return Err(self.broken(&error.to_string()));
            }
            match self.wire.is_sent() {
                true => self.flushed(),
                false => drop(self.blocked_since.get_or_insert_with(Instant::now)),
            }
        }
        Ok(())
    }

    async fn finish(&mut self, end: &End) {
        if let Some(hub) = self.hub.take() {
            self.federation.hubs.leave(&hub);
        }
        self.joins.close();
        let how = match end {
            End::Done => Ended::InOrder,
            _ => Ended::Broken,
        };
        for question in self.asked.drain(..) {
            // Who asked may have given up.
            let _ = question.answer.send(Verdict::Error(StanzaCondition::RemoteServerTimeout));
        }
        self.leave_rest(end);
        let both = self.stream.is_bidirectional();
        for member in self.members.drain(..) {
            if member.state == Proof::Up {
                self.federation.stream_down(&member.link.pair.inverse(), both, how);
            }
            if let Some(waits) = member.end {
                // Its task may be gone with the server.
                let _ = waits.send(end.clone());
            }
        }
        if !matches!(end, End::Done) {
            self.stream.close(&mut self.out);
            let out = std::mem::take(&mut self.out);
            return last_words(&mut self.wire, &out).await;
        }
        self.stream.say_close(&mut self.out);
        let out = std::mem::take(&mut self.out);
        last_words(&mut self.wire, &out).await;
        let _ = timeout(CLOSE_PATIENCE, self.hear_out()).await;
    }

    /// What the peer said before it heard our close tag still counts, up to its own. RFC 6120 §4.4. Unless it counts
    /// itself (XEP-0198): we acknowledge nothing any more, so it sends that again elsewhere.
    async fn hear_out(&mut self) {
        while let Ok(Io::Read(true)) = progress(&mut self.wire, &mut self.input, true).await {
            if self.flow.acknowledges() {
                self.input.clear();
            } else if self.take_input().await.is_err() || self.flow.in_flight.is_full() {
                return;
            }
            self.out.clear();
        }
    }

    /// What is not acknowledged is left to a stream that resumes this one, or goes again.
    fn leave_rest(&mut self, end: &End) {
        let alone = self.members.len() == 1 && self.peer_error.is_none();
        if matches!(end, End::Broken(_))
            && alone
            && !self.flow.is_settled()
            && let Some((id, within)) = self.resumption.take()
            && let Some(rest) = self.flow.rest()
        {
            let pair = self.members[0].link.pair.clone();
            let left = Resumable { id, until: Instant::now() + within, rest };
            self.federation.resumable.insert(pair, left);
            return;
        }
        self.flow.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::socket::Socket;
    use tokio::net::{TcpListener, TcpStream};

    // A stream whose words the kernel took at once was given up a minute later, as one that takes nothing.
    #[tokio::test]
    async fn what_the_kernel_takes_at_once_is_told_as_flushed_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
        let address = listener.local_addr().expect("it has one");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (near, mut far) = (near.expect("it connects"), far.expect("it is taken").0);
        let mut wire = Wire::new(Socket::Tcp(near));
        let mut input = Vec::new();
        wire.write(b"<presence/>").expect("it is taken");
        assert_eq!(wire.unsent(), 0);
        assert!(matches!(progress(&mut wire, &mut input, true).await, Ok(Io::Flushed)));
        tokio::io::AsyncWriteExt::write_all(&mut far, b"x").await.expect("it is taken");
        assert!(matches!(progress(&mut wire, &mut input, true).await, Ok(Io::Read(true))));
    }
}
