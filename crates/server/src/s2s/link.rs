//! A pair of domains, ours and another: what waits to go there, and the task that takes it there.
//!
//! Whoever queues into a link that nobody works for starts its task: it finds the other server, connects, proves who
//! we are and writes out what is queued, until nothing has gone either way for a while. A link may also be worked for
//! by a stream that the other server opened, if it carries both directions (XEP-0288).

use super::dns::{self, Nowhere, Target};
use super::presence::{Ended, SILENCE};
use super::shown::{Opened, Showing};
use super::{Federation, InFlight, Policy, trust};
use crate::edge::rates::Rates;
use crate::edge::socket::Socket;
use crate::edge::wire::Wire;
use im::Ticket;
use parking_lot::Mutex;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use stream::server::OutEvent;
use stream::{OutgoingStream, Pair, Verdict, Verify};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use xmpp::write::{Additions, write_stanza};
use xmpp::{Jid, Stanza, StanzaCondition, StreamFault};

/// The first pause after a failed attempt; each is twice the one before. LIMITS.md §1.
pub const RETRY_FIRST: Duration = Duration::from_secs(2);
/// Bytes handed to a socket and not taken by the kernel. LIMITS.md §1.
const SOCKET_BYTES_MAX: usize = 256 << 10;
/// The other server takes nothing for so long: end.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);
/// The next address is tried when the one before has not answered so long. RFC 8305 §5.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// For the close tag of the peer after ours. RFC 6120 §4.4.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// A stream that only asks for verifications is closed after so long without one.
const ONLY_ASKS_IDLE: Duration = Duration::from_secs(20);
/// How often an idle stream is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Verifications that wait for one link.
const QUESTIONS_MAX: usize = 64;

/// A stanza for the other domain.
#[derive(Debug)]
pub struct Queued {
    pub stanza: Arc<Stanza>,
    /// Where it goes: a broadcast's stanza has no own `to`.
    pub to: Jid,
    pub ticket: Ticket,
    pub since: Instant,
}

/// A key to verify with the other domain, and who waits for the verdict.
#[derive(Debug)]
pub struct Question {
    pub verify: Verify,
    pub answer: oneshot::Sender<Verdict>,
}

#[derive(Debug)]
pub struct Link {
    /// From ours to the other.
    pub pair: Pair,
    queue: Mutex<Queue>,
    pub wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    stanzas: VecDeque<Queued>,
    bytes: usize,
    questions: VecDeque<Question>,
    owner: Owner,
    gone: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Owner {
    #[default]
    Nobody,
    /// The link's own task.
    Task,
    /// A stream that the other server opened.
    Incoming,
}

/// What became of something queued.
#[derive(Debug)]
pub enum Pushed<T> {
    Queued,
    /// The caller must start the link's task.
    Dial,
    Full(T),
    /// The link was forgotten meanwhile.
    Gone(T),
}

impl Link {
    pub fn new(pair: Pair) -> Link {
        Link { pair, queue: Mutex::default(), wake: Notify::new() }
    }

    pub fn push(&self, queued: Queued, policy: &Policy) -> Pushed<Queued> {
        let mut queue = self.queue.lock();
        if queue.gone {
            return Pushed::Gone(queued);
        }
        let weight = queued.stanza.weight();
        if queue.stanzas.len() >= policy.queue_items_max || queue.bytes + weight > policy.queue_bytes_max {
            return Pushed::Full(queued);
        }
        queue.bytes += weight;
        queue.stanzas.push_back(queued);
        self.claim(queue)
    }

    /// Not to be asked on a stream that the other server opened: [`Pushed::Full`] then.
    pub fn ask(&self, question: Question) -> Pushed<Question> {
        let mut queue = self.queue.lock();
        if queue.gone {
            return Pushed::Gone(question);
        }
        if queue.owner == Owner::Incoming || queue.questions.len() >= QUESTIONS_MAX {
            return Pushed::Full(question);
        }
        queue.questions.push_back(question);
        self.claim(queue)
    }

    fn claim<T>(&self, mut queue: parking_lot::MutexGuard<'_, Queue>) -> Pushed<T> {
        if queue.owner == Owner::Nobody {
            queue.owner = Owner::Task;
            return Pushed::Dial;
        }
        drop(queue);
        self.wake.notify_one();
        Pushed::Queued
    }

    /// A stream in both directions takes the link over, if nobody works for it.
    pub fn attach(&self) -> bool {
        let mut queue = self.queue.lock();
        if queue.gone || queue.owner != Owner::Nobody {
            return false;
        }
        queue.owner = Owner::Incoming;
        true
    }

    /// … and gives it back; `true`: something waits, the caller must start the link's task.
    pub fn detach(&self) -> bool {
        let mut queue = self.queue.lock();
        let waits = !queue.stanzas.is_empty() || !queue.questions.is_empty();
        queue.owner = if waits { Owner::Task } else { Owner::Nobody };
        waits
    }

    pub fn take_stanza(&self) -> Option<Queued> {
        let mut queue = self.queue.lock();
        let queued = queue.stanzas.pop_front()?;
        queue.bytes -= queued.stanza.weight();
        if queue.stanzas.is_empty() {
            queue.stanzas = VecDeque::new();
        }
        Some(queued)
    }

    fn take_question(&self) -> Option<Question> {
        self.queue.lock().questions.pop_front()
    }

    /// Stanzas and bytes that wait.
    pub fn queued(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        (queue.stanzas.len(), queue.bytes)
    }

    fn has_stanzas(&self) -> bool {
        !self.queue.lock().stanzas.is_empty()
    }

    /// Takes out the stanzas that waited longer than `patience`, or all.
    fn take_old(&self, patience: Option<Duration>) -> Vec<Queued> {
        let mut queue = self.queue.lock();
        let now = Instant::now();
        let is_old = |queued: &Queued| patience.is_none_or(|patience| now.duration_since(queued.since) >= patience);
        let count = queue.stanzas.iter().take_while(|queued| is_old(queued)).count();
        let old: Vec<Queued> = queue.stanzas.drain(..count).collect();
        queue.bytes -= old.iter().map(|queued| queued.stanza.weight()).sum::<usize>();
        old
    }

    fn take_questions(&self) -> Vec<Question> {
        self.queue.lock().questions.drain(..).collect()
    }

    /// Since when the oldest waits.
    fn oldest(&self) -> Option<Instant> {
        self.queue.lock().stanzas.front().map(|queued| queued.since)
    }

    /// The task ends if nothing waits; `false`: it must go on.
    fn leave(&self) -> bool {
        let mut queue = self.queue.lock();
        let empty = queue.stanzas.is_empty() && queue.questions.is_empty();
        if empty {
            queue.owner = Owner::Nobody;
        }
        empty
    }

    /// May it be forgotten? Then nothing is taken any more.
    pub fn is_idle(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.gone = queue.owner == Owner::Nobody && queue.stanzas.is_empty() && queue.questions.is_empty();
        queue.gone
    }
}

/// Why an attempt came to nothing, or a stream ended.
#[derive(Debug)]
enum End {
    /// Nothing more to do, or the peer closed in order.
    Done,
    /// The connection broke after it had been authenticated.
    Broken,
    /// There is no such server, or it does not serve the domain.
    Absent(&'static str),
    /// It does not take us, and will not the next time.
    Refused(StanzaCondition),
    /// Perhaps the next time.
    Failed(String),
}

impl End {
    /// For the log.
    fn why(&self) -> Cow<'_, str> {
        match self {
            End::Done => "in order".into(),
            End::Broken => "the connection broke".into(),
            End::Absent(why) => (*why).into(),
            End::Refused(condition) => format!("it refuses us: {}", condition.name()).into(),
            End::Failed(why) => why.into(),
        }
    }
}

/// Works for a link until nothing waits in it.
pub async fn run(federation: &Arc<Federation>, link: &Arc<Link>) {
    let mut pause = RETRY_FIRST;
    loop {
        let end = attempt(federation, link).await;
        let failed = match &end {
            End::Done | End::Broken => {
                tracing::debug!(pair = %link.pair, why = %end.why(), "stream to another server ended");
                pause = RETRY_FIRST;
                false
            }
            End::Absent(_) | End::Refused(_) | End::Failed(_) => {
                tracing::info!(pair = %link.pair, why = %end.why(), "another server cannot be reached");
                federation.house.count("s2s_failures");
                federation.streams.failed(&link.pair, end.why().into_owned());
                true
            }
        };
        if failed {
            let condition = match end {
                End::Absent(_) => StanzaCondition::RemoteServerNotFound,
                _ => StanzaCondition::RemoteServerTimeout,
            };
            for question in link.take_questions() {
                // Who asked may have given up.
                let _ = question.answer.send(Verdict::Error(condition));
            }
            let patience = match end {
                End::Absent(_) | End::Refused(_) => None,
                _ if federation.is_stopping() => None,
                _ => Some(federation.policy().patience),
            };
            federation.bounce(link.take_old(patience), condition);
        } else if federation.is_stopping() {
            federation.bounce(link.take_old(None), StanzaCondition::RemoteServerTimeout);
        }
        if link.leave() {
            return;
        }
        if failed && !wait_for_next(federation, link, pause).await {
            return;
        }
        if failed {
            pause = (pause * 2).min(federation.policy().retry_max);
        }
    }
}

/// The pause between two attempts; what has waited too long meanwhile goes back. `false`: nothing waits any more.
async fn wait_for_next(federation: &Arc<Federation>, link: &Arc<Link>, pause: Duration) -> bool {
    // A tenth more or less, so that many links do not dial as one.
    let tenth = u32::try_from(pause.as_millis() / 10).unwrap_or(u32::MAX);
    let until = Instant::now() + pause + Duration::from_millis(u64::from(federation.random(tenth)));
    let patience = federation.policy().patience;
    let mut stopping = federation.stopping();
    loop {
        let expires = link.oldest().map(|since| since + patience);
        let wake = expires.map_or(until, |expires| until.min(expires));
        tokio::select! {
            biased;
            () = sleep_until(wake) => {}
            // A verification waits: it is worth an attempt of its own.
            () = link.wake.notified() => if !link.queue.lock().questions.is_empty() { return true },
            _ = stopping.wait_for(|stop| *stop) => {}
        }
        let old = if federation.is_stopping() { link.take_old(None) } else { link.take_old(Some(patience)) };
        federation.bounce(old, StanzaCondition::RemoteServerTimeout);
        if link.leave() {
            return false;
        }
        if Instant::now() >= until {
            return true;
        }
    }
}

/// One connection, from the question where to the last byte.
async fn attempt(federation: &Arc<Federation>, link: &Arc<Link>) -> End {
    let policy = federation.policy();
    let (socket, target) = match connect(federation, &policy, &link.pair.to).await {
        Ok(connected) => connected,
        Err(end) => return end,
    };
    socket.hurry();
    let wire = Wire::new(socket);
    wire.notice_silence(SILENCE);
    let strict = policy.is_strict(&link.pair.to);
    let mut talk = Talk {
        showing: federation.streams.begin(Opened::Here, target.address.ip(), federation.house.now().utc),
        stream: OutgoingStream::new(policy.stream.clone(), federation.crypto.clone(), link.pair.clone(), strict),
        wire,
        input: Vec::new(),
        out: Vec::new(),
        asked: Vec::new(),
        unflushed: Vec::new(),
        authenticating: false,
        up: false,
        peer_error: None,
        began: Instant::now(),
        active: Instant::now(),
        blocked_since: None,
        rates: policy.rates(),
        in_flight: Arc::default(),
        incarnation: u64::from(federation.random(u32::MAX)) << 32 | u64::from(federation.random(u32::MAX)),
        received: 0,
        policy,
        federation,
        link,
    };
    let end = talk.run(target.direct_tls).await;
    talk.finish(&end).await;
    end
}

/// Finds the other server and connects to the first address that answers.
async fn connect(federation: &Arc<Federation>, policy: &Policy, domain: &str) -> Result<(Socket, Target), End> {
    let _dial = federation.dials.acquire().await;
    let targets = match policy.pinned(domain) {
        Some(address) => vec![Target { address, direct_tls: false }],
        None => {
            let name = trust::ascii(domain).ok_or(End::Absent("the domain has no name in DNS"))?;
            let mut random = |below| federation.random(below);
            match dns::targets(&*federation.resolver, &name, policy.allow_private, &mut random).await {
                Ok(targets) => targets,
                Err(Nowhere::Absent) => return Err(End::Absent("there is no such domain, or it has no server")),
                Err(Nowhere::Private) => return Err(End::Absent("its addresses are private ones")),
                Err(Nowhere::Failed(why)) => return Err(End::Failed(why)),
            }
        }
    };
    let mut attempts = JoinSet::new();
    let mut targets = targets.into_iter();
    let mut why = String::from("no address");
    loop {
        match targets.next() {
            Some(target) => {
                let (patience, network) = (policy.connect, federation.house.network.clone());
                attempts.spawn(async move {
                    match timeout(patience, network.connect(target.address)).await {
                        Ok(Ok(socket)) => Ok((socket, target)),
                        Ok(Err(error)) => Err(format!("{}: {error}", target.address)),
                        Err(_) => Err(format!("{}: no answer", target.address)),
                    }
                });
            }
            None if attempts.is_empty() => return Err(End::Failed(why)),
            None => {}
        }
        let next = match targets.len() {
            0 => attempts.join_next().await,
            _ => timeout(NEXT_ADDRESS_AFTER, attempts.join_next()).await.unwrap_or(None),
        };
        match next {
            Some(Ok(Ok(connected))) => return Ok(connected),
            Some(Ok(Err(failure))) => why = failure,
            Some(Err(_)) | None => {}
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
        let unsent = wire.unsent() > 0;
        if wire.poll_flush(cx)?.is_ready() && unsent {
            return Poll::Ready(Ok(Io::Flushed));
        }
        match may_read {
            true => wire.poll_read(cx, input).map_ok(Io::Read),
            false => Poll::Pending,
        }
    })
    .await
}

/// Last bytes, and the socket's end.
pub async fn last_words(wire: &mut Wire, out: &[u8]) {
    let _ = wire.write(out);
    wire.say_goodbye();
    let _ = timeout(Duration::from_secs(2), poll_fn(|cx| wire.poll_flush(cx))).await;
    wire.shutdown();
}

/// Our stream to the other server, while it lasts.
struct Talk<'a> {
    federation: &'a Arc<Federation>,
    link: &'a Arc<Link>,
    policy: Arc<Policy>,
    stream: OutgoingStream,
    wire: Wire,
    input: Vec<u8>,
    out: Vec<u8>,
    /// Keys whose verdict is awaited here.
    asked: Vec<Question>,
    /// Written, but not yet with the kernel.
    unflushed: Vec<Queued>,
    authenticating: bool,
    /// Authenticated: the pair has a stream.
    up: bool,
    peer_error: Option<Box<str>>,
    began: Instant,
    /// When a stanza or a question last went either way.
    active: Instant,
    blocked_since: Option<Instant>,
    rates: Rates,
    in_flight: Arc<InFlight>,
    incarnation: u64,
    received: u32,
    showing: Showing,
}

impl Talk<'_> {
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
            if let Err(end) = self.write_queue() {
                return end;
            }
            let nothing_waits = self.asked.is_empty() && self.wire.unsent() == 0 && !self.link.has_stanzas();
            if nothing_waits && (self.federation.is_stopping() || self.is_idle()) {
                return End::Done;
            }
            let may_read = !self.stream.is_waiting() && !self.in_flight.is_full() && self.rates.may_read();
            let deadline = self.deadline();
            let link = self.link;
            tokio::select! {
                // The rarest first, so that none starves the others; and a run can be repeated.
                biased;
                _ = stopping.changed() => {}
                cut = cuts.recv() => if cut.is_ok_and(|pair| pair == link.pair.inverse()) {
                    return self.broken("it is silent");
                },
                () = sleep_until(deadline) => if let Err(end) = self.timed_out() { return end },
                io = progress(&mut self.wire, &mut self.input, may_read) => match io {
                    Ok(Io::Read(true)) => self.rates.read(self.input.len()),
                    Ok(Io::Flushed) => {
                        self.blocked_since = None;
                        self.unflushed.clear();
                    }
                    Ok(Io::Read(false)) => return self.broken("the connection was closed"),
                    Err(error) => return self.broken(&error.to_string()),
                },
                // Each turn looks at what these two tell of.
                () = link.wake.notified() => {}
                () = self.in_flight.done.notified() => {}
            }
        }
    }

    /// Negotiated, and only verifications go over it.
    fn only_asks(&self) -> bool {
        self.stream.is_open() && !self.up && !self.authenticating
    }

    fn broken(&self, why: &str) -> End {
        match (self.up, &self.peer_error) {
            (true, _) => End::Broken,
            (false, _) if self.only_asks() && self.asked.is_empty() => End::Done,
            (false, Some(condition)) => End::Failed(format!("stream error {condition}")),
            (false, None) => End::Failed(why.to_owned()),
        }
    }

    fn is_idle(&self) -> bool {
        // While presence of there is leased, the stream is what shows that they live.
        let idle = if self.only_asks() { ONLY_ASKS_IDLE.min(self.policy.idle) } else { self.policy.idle };
        self.active.elapsed() >= idle && !self.federation.presence.has(&self.link.pair.inverse())
    }

    fn deadline(&self) -> Instant {
        let mut at = match self.up || self.only_asks() {
            true => Instant::now() + LOOK_EVERY,
            false => self.began + self.policy.negotiation,
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

    fn timed_out(&self) -> Result<(), End> {
        let negotiated = self.up || self.only_asks();
        if !negotiated && self.began.elapsed() >= self.policy.negotiation {
            return Err(End::Failed("it did not negotiate in time".into()));
        }
        if self.blocked_since.is_some_and(|since| since.elapsed() >= WRITE_PATIENCE) {
            return Err(self.broken("it takes nothing"));
        }
        Ok(())
    }

    async fn take_input(&mut self) -> Result<(), End> {
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        loop {
            let event = match self.stream.next(&mut rest, &mut self.out) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(fault) => {
                    self.stream.fail(&fault, &mut self.out);
                    tracing::debug!(pair = %self.link.pair, ?fault, "stream error to another server");
                    return Err(self.faulty(&fault));
                }
            };
            match event {
                OutEvent::StartTls => self.handshake(false).await?,
                OutEvent::Ready => {}
                OutEvent::Authenticated(pair) => {
                    tracing::debug!(%pair, certified = self.stream.is_certified(), "authenticated with another server");
                    self.active = Instant::now();
                    self.authenticating = false;
                    if !self.up && pair == self.link.pair {
                        self.up = true;
                        self.showing.proved(&pair, self.stream.is_certified(), self.stream.is_bidirectional());
                        self.federation.stream_up(&pair.inverse());
                    }
                }
                OutEvent::Refused(pair, condition) if pair == self.link.pair => {
                    return Err(match condition {
                        StanzaCondition::ItemNotFound => End::Absent("it does not serve the domain"),
                        StanzaCondition::RemoteServerTimeout
                        | StanzaCondition::RemoteServerNotFound
                        | StanzaCondition::ResourceConstraint
                        | StanzaCondition::InternalServerError
                        | StanzaCondition::UndefinedCondition => End::Failed(format!("dialback: {}", condition.name())),
                        other => End::Refused(other),
                    });
                }
                OutEvent::Refused(..) => {}
                OutEvent::Verified(verify, verdict) => {
                    if let Some(at) = self.asked.iter().position(|question| question.verify == verify) {
                        // Who asked may have given up.
                        let _ = self.asked.swap_remove(at).answer.send(verdict);
                    }
                }
                OutEvent::Stanza(stanza) => {
                    self.active = Instant::now();
                    self.received = self.received.wrapping_add(1);
                    let ingress = im::Ingress { stream: self.incarnation, ordinal: self.received };
                    self.federation.deliver(&self.link.pair.inverse(), stanza, ingress, self.in_flight.ticket());
                }
                OutEvent::BadStanza(fault) => self.federation.refuse(*fault),
                OutEvent::PeerError(condition) => self.peer_error = Some(condition),
                OutEvent::Closed => return Err(self.closed()),
            }
        }
        Ok(())
    }

    fn faulty(&self, fault: &StreamFault) -> End {
        match self.up {
            true => End::Broken,
            false => End::Failed(format!("{fault:?}")),
        }
    }

    /// The peer has said its close tag.
    fn closed(&self) -> End {
        match self.peer_error.as_deref() {
            Some("host-unknown" | "host-gone") => End::Absent("it does not serve the domain"),
            Some(_) if self.up => End::Broken,
            None if self.up => End::Done,
            _ if self.only_asks() && self.asked.is_empty() => End::Done,
            Some(condition) => End::Failed(format!("stream error {condition}")),
            None => End::Failed("it closed the stream".into()),
        }
    }

    async fn handshake(&mut self, direct_tls: bool) -> Result<(), End> {
        let failed = |why: String| End::Failed(format!("TLS: {why}"));
        let trust = self.federation.trust.read().clone();
        let config = trust.dialling(&self.link.pair.from, direct_tls).map_err(|error| failed(error.to_string()))?;
        let name = trust::server_name(&self.link.pair.to).ok_or_else(|| failed("the domain has no name".into()))?;
        self.flush().await?;
        self.wire.start_tls_to(config, name).map_err(|error| failed(error.to_string()))?;
        let wire = &mut self.wire;
        match timeout(self.policy.handshake, poll_fn(|cx| wire.poll_handshake(cx))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(failed("no answer".into())),
        }
        let certificate = self.wire.peer_certificates().and_then(|chain| trust.judge(chain));
        self.stream.tls_up(certificate, &mut self.out);
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

    /// Asks what there is to ask, proves who we are when something waits, and writes what waits.
    fn write_queue(&mut self) -> Result<(), End> {
        if self.stream.is_open() {
            while let Some(question) = self.link.take_question() {
                self.active = Instant::now();
                self.stream.verify(question.verify.clone(), &mut self.out);
                self.asked.push(question);
            }
            if self.up {
                while self.wire.unsent() + self.out.len() < SOCKET_BYTES_MAX
                    && let Some(queued) = self.link.take_stanza()
                {
                    self.active = Instant::now();
                    write_queued(&mut self.out, &queued);
                    self.unflushed.push(queued);
                }
            } else if !self.authenticating && self.asked.is_empty() && self.link.has_stanzas() {
                self.authenticating = true;
                self.began = Instant::now();
                self.stream.authenticate(&mut self.out);
            } else if !self.authenticating && self.link.has_stanzas() {
                // Questions are out: dialback does not wait for them.
                self.authenticating = true;
                self.began = Instant::now();
                self.stream.prove(self.link.pair.clone(), &mut self.out);
            }
        }
        if !self.out.is_empty() {
            let written = self.wire.write(&self.out);
            self.out.clear();
            if let Err(error) = written {
                return Err(self.broken(&error.to_string()));
            }
            self.blocked_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    async fn finish(mut self, end: &End) {
        if self.up {
            let how = match end {
                End::Done => Ended::InOrder,
                _ => Ended::Broken,
            };
            self.federation.stream_down(&self.link.pair.inverse(), how);
        }
        for question in self.asked.drain(..) {
            // Who asked may have given up.
            let _ = question.answer.send(Verdict::Error(StanzaCondition::RemoteServerTimeout));
        }
        self.stream.close(&mut self.out);
        let out = std::mem::take(&mut self.out);
        // What the kernel never took did not leave: its senders hear it.
        if self.wire.unsent() > 0 {
            self.federation.bounce(self.unflushed.drain(..), StanzaCondition::RemoteServerTimeout);
        }
        last_words(&mut self.wire, &out).await;
        if matches!(end, End::Done) {
            let mut rest = Vec::new();
            let wire = &mut self.wire;
            let drain = async {
                while let Ok(Io::Read(true)) = progress(wire, &mut rest, true).await {
                    rest.clear()
                }
            };
            let _ = timeout(CLOSE_PATIENCE, drain).await;
        }
    }
}

/// Writes a stanza for the other domain.
pub fn write_queued(out: &mut Vec<u8>, queued: &Queued) {
    write_stanza(out, &queued.stanza, Some(&queued.to), &Additions::default(), xmpp::write::Wire::Server);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use xmpp::{MessageType, StanzaType};

    fn policy(items: usize) -> Policy {
        let config: Config = crate::config::parse("", None, &crate::config::Sources::default()).expect("the defaults");
        Policy { queue_items_max: items, ..Policy::of(&config, b"secret", &crate::crypto::AwsLc) }
    }

    fn link() -> Link {
        Link::new(Pair::new("capulet.example", "montague.example"))
    }

    fn queued(id: &str) -> Queued {
        let to = Jid::parse("romeo@montague.example").expect("the test's JID is right");
        let stanza = Arc::new(Stanza::message(MessageType::Chat).with_id(id).with_to(to.clone()));
        assert!(matches!(stanza.kind, StanzaType::Message(_)));
        Queued { stanza, to, ticket: Ticket::default(), since: Instant::now() }
    }

    #[tokio::test]
    async fn who_queues_first_dials_and_the_others_only_queue() {
        let (link, policy) = (link(), policy(10));
        assert!(matches!(link.push(queued("1"), &policy), Pushed::Dial));
        assert!(matches!(link.push(queued("2"), &policy), Pushed::Queued));
        assert_eq!(link.take_stanza().and_then(|it| it.stanza.id.clone()).as_deref(), Some("1"));
        assert!(!link.leave(), "something waits");
        link.take_stanza();
        assert!(link.leave());
        assert!(matches!(link.push(queued("3"), &policy), Pushed::Dial));
    }

    #[tokio::test]
    async fn a_full_queue_gives_the_stanza_back() {
        let (link, policy) = (link(), policy(2));
        link.push(queued("1"), &policy);
        link.push(queued("2"), &policy);
        assert!(matches!(link.push(queued("3"), &policy), Pushed::Full(_)));
        let small = Policy { queue_bytes_max: 10, ..policy };
        assert!(matches!(self::link().push(queued("1"), &small), Pushed::Full(_)));
    }

    #[tokio::test]
    async fn a_link_that_is_forgotten_takes_nothing_more() {
        let (link, policy) = (link(), policy(10));
        assert!(link.is_idle());
        assert!(matches!(link.push(queued("1"), &policy), Pushed::Gone(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_waited_too_long_is_taken_out_and_nothing_else() {
        let (link, policy) = (link(), policy(10));
        link.push(queued("old"), &policy);
        tokio::time::advance(Duration::from_secs(10)).await;
        link.push(queued("new"), &policy);
        let old = link.take_old(Some(Duration::from_secs(10)));
        assert_eq!(old.len(), 1);
        assert_eq!(old[0].stanza.id.as_deref(), Some("old"));
        assert_eq!(link.take_old(None).len(), 1);
    }

    #[tokio::test]
    async fn a_stream_of_both_directions_works_for_the_link_and_asks_nothing() {
        let (link, policy) = (link(), policy(10));
        assert!(link.attach());
        assert!(!link.attach(), "once");
        assert!(matches!(link.push(queued("1"), &policy), Pushed::Queued));
        let (answer, _answered) = oneshot::channel();
        let verify = Verify { pair: link.pair.inverse(), id: "1".into(), key: "key".into() };
        assert!(matches!(link.ask(Question { verify, answer }), Pushed::Full(_)));
        assert!(link.detach(), "what waits must be dialled for");
    }
}
