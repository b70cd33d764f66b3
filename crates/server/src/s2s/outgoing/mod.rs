//! Our stream to another server. It begins for one link; others whose server it is may join. XEP-0220 §2.6.
//!
//! Here: an attempt, and what the stream says and hears while it lasts. [`members`]: the links on it. [`negotiation`]: how
//! it comes up. [`resumable`]: what a stream that broke leaves to the next.

mod members;
mod negotiation;
mod resumable;

pub use resumable::Resumable;

use super::dns::Target;
use super::flow::Dead;
use super::hubs::{Hub, JOINING_MAX, Join};
use super::link::End;
use super::peer::{Peer, Woke};
use super::presence::Ended;
use super::queue::{Link, Question};
use super::shown::Opened;
use super::{Federation, Policy, dial};
use crate::edge::line::Io;
use crate::edge::socket::Socket;
use crate::limits_hit::{self, Of};
use members::{Member, Members, Proof};
use std::sync::Arc;
use std::time::Duration;
use stream::server::OutEvent;
use stream::{OutgoingStream, Pair, Verdict};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use xmpp::{StanzaCondition, StreamFault};

/// For the close tag of the peer after ours. RFC 6120 §4.4.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// A stream that only asks for verifications is closed after so long without one.
const ONLY_ASKS_IDLE: Duration = Duration::from_secs(20);
/// How often an idle stream is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// What is sent is acknowledged within this time when the stream is to end.
const LAST_ACKS: Duration = Duration::from_secs(3);

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
    // Whoever made us dial may have gone meanwhile.
    if !link.has_stanzas() && !link.has_questions() && !federation.resumable.contains_key(&link.pair) {
        return End::Done;
    }
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
    let direct_tls = target.direct_tls;
    Talk::new(federation, link, &policy, socket, target).works(direct_tls).await
}

/// Our stream to another server, while it lasts.
struct Talk {
    peer: Peer,
    stream: OutgoingStream,
    target: Target,
    members: Members,
    joins: mpsc::Receiver<Join>,
    hub: Option<Arc<Hub>>,
    joining: mpsc::Sender<Join>,
    /// Keys whose verdict is awaited here.
    asked: Vec<Question>,
    /// By which the other side would know the stream again, and how long.
    resumption: Option<(Box<str>, Duration)>,
}

impl Talk {
    fn new(
        federation: &Arc<Federation>,
        link: &Arc<Link>,
        policy: &Arc<Policy>,
        socket: Socket,
        target: Target,
    ) -> Talk {
        let strict = policy.is_strict(&link.pair.to);
        let (joining, joins) = mpsc::channel(JOINING_MAX);
        let showing = federation.streams.begin(Opened::Here, target.address.ip(), federation.house.now().utc);
        let peer = Peer::new(federation, policy, socket, showing);
        link.wake_by(&peer.flow.wake);
        Talk {
            peer,
            stream: OutgoingStream::new(policy.stream.clone(), federation.crypto.clone(), link.pair.clone(), strict),
            members: Members::of(link),
            joins,
            hub: None,
            joining,
            asked: Vec::new(),
            resumption: None,
            target,
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
        self.stream.start(&mut self.peer.line.out);
        self.peer.listen();
        loop {
            if let Err(end) = self.take_input().await {
                return end;
            }
            if let Err(Dead(why)) = self.peer.flow.tick(&mut self.peer.line.out) {
                return self.broken(why);
            }
            if let Err(end) = self.write_queue() {
                return end;
            }
            let nothing_waits =
                self.asked.is_empty() && self.peer.line.wire.unsent() == 0 && !self.members.have_stanzas();
            if nothing_waits
                && (self.peer.federation.is_stopping() || self.is_idle() || self.is_redundant())
                && self.is_settled()
            {
                return End::Done;
            }
            let may_read = self.peer.may_take() && !self.stream.is_waiting();
            let deadline = self.deadline();
            tokio::select! {
                // The rarest first, so that none starves the others; and a run can be repeated.
                biased;
                Some(join) = self.joins.recv() => self.joined(join),
                woke = self.peer.woke(may_read, deadline) => match woke {
                    Woke::Cut(pair) if self.members.has(&pair.inverse()) => return self.broken("it is silent"),
                    Woke::Deadline => if let Err(end) = self.timed_out() { return end },
                    Woke::Gone(None) => return self.broken("the connection was closed"),
                    Woke::Gone(Some(error)) => return self.broken(&error.to_string()),
                    Woke::Cut(_) | Woke::Read | Woke::Told => {}
                },
            }
        }
    }

    /// What was sent is acknowledged, or will hardly be.
    fn is_settled(&self) -> bool {
        self.peer.flow.is_settled() || (self.peer.federation.is_stopping() && self.peer.active.elapsed() >= LAST_ACKS)
    }

    /// Negotiated, and only verifications go over it.
    fn only_asks(&self) -> bool {
        self.stream.is_open() && self.members.are_wanted()
    }

    fn broken(&self, why: &str) -> End {
        match (self.members.is_up(), &self.peer.error) {
            (true, None) => End::Broken(why.to_owned()),
            (true, Some(condition)) => End::Broken(format!("stream error {condition}")),
            (false, _) if self.only_asks() && self.asked.is_empty() => End::Done,
            (false, Some(condition)) => End::Failed(format!("stream error {condition}")),
            (false, None) => End::Failed(why.to_owned()),
        }
    }

    fn is_idle(&self) -> bool {
        let idle = if self.only_asks() { ONLY_ASKS_IDLE.min(self.peer.policy.idle) } else { self.peer.policy.idle };
        // While presence of there is leased, the stream is what shows that they live.
        let is_up = |member: &Member| member.state == Proof::Up;
        let leased = |it: &Member| is_up(it) && self.peer.federation.presence.has(&it.link.pair.inverse());
        self.peer.active.elapsed() >= idle && !self.members.iter().any(leased)
    }

    /// Both servers have dialled, and the other's stream carries both directions: one of the two is enough. Both sides
    /// choose the same: the one that was opened by the domain whose name comes first.
    fn is_redundant(&self) -> bool {
        let pair = &self.members.first().link.pair;
        self.members.is_up()
            && self.members.is_alone()
            && pair.from > pair.to
            && self.peer.federation.hubs.is_carried(pair)
    }

    fn deadline(&self) -> Instant {
        let at = match self.members.is_up() || self.only_asks() {
            true if self.peer.federation.is_stopping() => Instant::now() + Duration::from_millis(100),
            true => Instant::now() + LOOK_EVERY,
            false => self.peer.began + self.peer.policy.negotiation,
        };
        self.peer.deadline(at)
    }

    fn timed_out(&mut self) -> Result<(), End> {
        self.members.forget_unheard(self.peer.policy.negotiation);
        let negotiated = self.members.is_up() || self.only_asks();
        if !negotiated && self.peer.began.elapsed() >= self.peer.policy.negotiation {
            return Err(End::Failed("it did not negotiate in time".into()));
        }
        if self.peer.line.takes_nothing() {
            return Err(self.broken("it takes nothing"));
        }
        if self.peer.flow.is_held() && self.peer.active.elapsed() >= self.peer.policy.negotiation {
            return Err(self.broken("it does not say whether the stream goes on"));
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
            match self.stream.next(&mut rest, &mut self.peer.line.out) {
                Ok(Some(event)) => self.take(event).await?,
                Ok(None) => break,
                Err(fault) => {
                    if let Some(limit) = limits_hit::by(&fault, Of::Server) {
                        self.peer.federation.house.limit(limit);
                    }
                    self.stream.fail(&fault, &mut self.peer.line.out);
                    tracing::debug!(pair = %self.members.first().link.pair, ?fault, "stream error to another server");
                    return Err(self.faulty(&fault));
                }
            }
        }
        self.peer.line.input = rest.to_vec();
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
            OutEvent::Enabled { id, max } => self.enabled(id, max),
            OutEvent::Resumed(h) => self.resumed(h)?,
            OutEvent::NotManaged(h) => self.not_managed(h),
            OutEvent::Managing(managing) => {
                if let Err(Dead(why)) = self.peer.flow.managing(managing, &mut self.peer.line.out) {
                    return Err(self.broken(why));
                }
            }
            OutEvent::Stanza(stanza) => {
                self.peer.active = Instant::now();
                let (Some(from), Some(to)) = (&stanza.from, &stanza.to) else { return Ok(()) };
                let pair = Pair::new(from.domain(), to.domain());
                self.peer.flow.take_in(&pair, stanza);
            }
            OutEvent::BadStanza(fault) => {
                self.peer.flow.take_in_bad();
                self.peer.federation.refuse(*fault);
            }
            OutEvent::PeerError(condition) => self.peer.error = Some(condition),
            OutEvent::Closed => return Err(self.closed()),
        }
        Ok(())
    }

    fn faulty(&self, fault: &StreamFault) -> End {
        let told = fault.text().unwrap_or_else(|| fault.condition().name().to_owned());
        match self.members.is_up() {
            true => End::Broken(told),
            false => End::Failed(told),
        }
    }

    /// The peer has said its close tag.
    fn closed(&self) -> End {
        match self.peer.error.as_deref() {
            Some("host-unknown" | "host-gone") => End::Absent("it does not serve the domain"),
            Some(condition) if self.members.is_up() => End::Broken(format!("stream error {condition}")),
            None if self.members.is_up() => End::Done,
            _ if self.only_asks() && self.asked.is_empty() => End::Done,
            Some(condition) => End::Failed(format!("stream error {condition}")),
            None => End::Failed("it closed the stream".into()),
        }
    }

    /// Asks what there is to ask, proves who we are when something waits, and writes what waits.
    fn write_queue(&mut self) -> Result<(), End> {
        if self.stream.is_open() {
            let first = self.members.first().link.clone();
            while let Some(question) = first.take_question() {
                self.peer.active = Instant::now();
                self.stream.verify(question.verify.clone(), &mut self.peer.line.out);
                self.asked.push(question);
            }
            let waits = first.has_stanzas() || self.peer.federation.resumable.contains_key(&first.pair);
            if self.members.first().state == Proof::Wanted && waits {
                self.members.first_mut().state = Proof::Asked;
                self.peer.began = Instant::now();
                match self.asked.is_empty() {
                    true => self.stream.authenticate(&mut self.peer.line.out),
                    // Questions are out: dialback does not wait for them.
                    false => self.stream.prove(first.pair.clone(), &mut self.peer.line.out),
                }
            }
            self.peer.write_stanzas();
        }
        self.peer.send().map_err(|error| self.broken(&error.to_string()))
    }

    async fn finish(&mut self, end: &End) {
        if let Some(hub) = self.hub.take() {
            self.peer.federation.hubs.leave(&hub);
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
        for member in self.members.take_all() {
            if member.state == Proof::Up {
                self.peer.federation.stream_down(&member.link.pair.inverse(), both, how);
            }
            member.ends(end.clone());
        }
        if !matches!(end, End::Done) {
            self.stream.close(&mut self.peer.line.out);
            return self.peer.line.last_words().await;
        }
        self.stream.say_close(&mut self.peer.line.out);
        self.peer.line.last_words().await;
        let _ = timeout(CLOSE_PATIENCE, self.hear_out()).await;
    }

    /// What the peer said before it heard our close tag still counts, up to its own. RFC 6120 §4.4. Unless it counts
    /// itself (XEP-0198): we acknowledge nothing any more, so it sends that again elsewhere.
    async fn hear_out(&mut self) {
        while let Ok(Io::Read(true)) = self.peer.line.progress(true).await {
            if self.peer.flow.acknowledges() {
                self.peer.line.input.clear();
            } else if self.take_input().await.is_err() || self.peer.flow.in_flight.is_full() {
                return;
            }
            self.peer.line.out.clear();
        }
    }
}
