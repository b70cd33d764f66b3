//! Presence of other domains is leased: what was delivered here is taken back when the link to them ends. DESIGN.md D7.
//!
//! A lease is one available presence: the full JID it is of, and an account here that was told. When the last stream
//! of a pair breaks, every lease must be renewed within a bound, else the account is told `unavailable`:
//! 5 seconds after a reset, 90 after silence or an orderly end. Meanwhile the other server is dialled and probed: what
//! it still answers renews the leases, also later.

use super::{Federation, link};
use crate::house::Ready;
use dashmap::DashMap;
use im::watchers::Authenticated;
use im::{Ingress, Ticket};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;
use stream::Pair;
use tokio::sync::broadcast;
use tokio::time::Instant;
use xmpp::planted::{self, Bug};
use xmpp::{BareJid, Element, IqType, Jid, PresenceType, Stanza, StanzaType};

/// The connection was reset, or the server said that it stops.
pub const RESET: Duration = Duration::from_secs(5);
/// The stream was closed in order, perhaps only because it was idle.
pub const CLOSED: Duration = Duration::from_secs(60);
/// Leases of one pair. More are not remembered, and counted.
const LEASES_MAX: usize = 200_000;
/// Contacts of one pair that are probed when it comes back.
const LOST_MAX: usize = 20_000;

/// A pair with leases from which nothing was heard so long is asked whether it is there.
const ASK_AFTER: Duration = Duration::from_secs(55);
/// … and is not, when it has said nothing so long: with [`RESET`] and [`PULSE`] this is within 90 seconds.
const DEAD_AFTER: Duration = Duration::from_secs(75);
/// When they have reached us, their answers to our probes follow within this time, or were lost.
const ANSWERS_PATIENCE: Duration = Duration::from_secs(3);
/// Probes are repeated so often while the other server has no stream to us: it may not have found us yet, after we were
/// away, and drops what it would answer meanwhile. The first time after [`ANSWERS_PATIENCE`], then after thrice as long.
const REPEATS_MAX: u32 = 5;
/// How often all pairs are looked at.
const PULSE: Duration = Duration::from_secs(5);

/// By pair, from the other domain to ours.
pub struct Leases {
    pairs: DashMap<Pair, Pairing>,
    /// Pairs whose streams must end: the other server is silent.
    cuts: broadcast::Sender<Pair>,
}

struct Pairing {
    /// When anything was last heard of the pair.
    alive: Instant,
    /// It was asked since.
    asked: bool,
    /// Authenticated streams of the pair, in whatever direction.
    streams: u32,
    /// Those of them on which they can say something.
    from_there: u32,
    /// How many there have been.
    seen: u32,
    /// Of a full JID elsewhere: who was told here, and when last.
    leases: BTreeMap<Jid, BTreeMap<Jid, Instant>>,
    count: usize,
    /// (account here, contact there): told `unavailable` by us, to be asked for when the pair comes back.
    lost: BTreeSet<(BareJid, BareJid)>,
    /// Probed, and nothing heard of the contact since: the answer may have been lost with a stream.
    probed: BTreeMap<(BareJid, BareJid), Probed>,
}

/// When an account here last asked for a contact there, and how often again.
#[derive(Debug, Clone, Copy)]
struct Probed {
    at: Instant,
    repeats: u32,
}

impl Default for Leases {
    fn default() -> Leases {
        Leases { pairs: DashMap::new(), cuts: broadcast::Sender::new(64) }
    }
}

impl Default for Pairing {
    fn default() -> Pairing {
        Pairing {
            alive: Instant::now(),
            asked: false,
            streams: 0,
            from_there: 0,
            seen: 0,
            leases: BTreeMap::new(),
            count: 0,
            lost: BTreeSet::new(),
            probed: BTreeMap::new(),
        }
    }
}

impl Leases {
    /// A stanza of the pair was heard.
    pub fn alive(&self, pair: &Pair) {
        if let Some(mut pairing) = self.pairs.get_mut(pair) {
            pairing.alive = Instant::now();
            pairing.asked = false;
        }
    }

    /// Tells of pairs whose streams must end.
    pub fn cuts(&self) -> broadcast::Receiver<Pair> {
        self.cuts.subscribe()
    }

    /// How many streams of the pair there have been, as far as is known.
    pub fn seen(&self, pair: &Pair) -> u32 {
        self.pairs.get(pair).map_or(0, |pairing| pairing.seen)
    }

    /// A stream of the pair goes on where it broke: nothing was missed.
    pub fn renewed(&self, pair: &Pair) {
        if let Some(mut pairing) = self.pairs.get_mut(pair) {
            let now = Instant::now();
            pairing.leases.values_mut().flat_map(BTreeMap::values_mut).for_each(|at| *at = now);
        }
    }

    /// Was the contact probed for that account, and has not answered yet?
    pub fn answers_probe(&self, pair: &Pair, to: &Jid, from: &Jid) -> bool {
        let Some(mut pairing) = self.pairs.get_mut(pair) else { return false };
        !pairing.probed.is_empty() && pairing.probed.remove(&(to.to_bare(), from.to_bare())).is_some()
    }

    /// Is anything leased of the pair?
    pub fn has(&self, pair: &Pair) -> bool {
        self.pairs.get(pair).is_some_and(|pairing| pairing.count > 0)
    }
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    InOrder,
    Broken,
}

impl Federation {
    /// Presence of elsewhere is told to an account here.
    pub fn lease(&self, pair: &Pair, stanza: &Stanza) {
        let StanzaType::Presence(kind) = stanza.kind else { return };
        let (Some(from), Some(to)) = (&stanza.from, &stanza.to) else { return };
        if let Some(mut pairing) = self.presence.pairs.get_mut(pair)
            && !pairing.probed.is_empty()
        {
            pairing.probed.remove(&(to.to_bare(), from.to_bare()));
        }
        match kind {
            PresenceType::Available if from.resource().is_some() => {
                let mut pairing = self.presence.pairs.entry(pair.clone()).or_default();
                if pairing.count >= LEASES_MAX {
                    drop(pairing);
                    return self.house.count("s2s_leases_full");
                }
                let told = pairing.leases.entry(from.clone()).or_default();
                let new = told.insert(to.clone(), Instant::now()).is_none();
                pairing.count += usize::from(new);
            }
            PresenceType::Unavailable => {
                if let Some(mut pairing) = self.presence.pairs.get_mut(pair) {
                    pairing.end(from, to);
                }
            }
            _ => {}
        }
    }

    /// How the domain of the pair (from elsewhere to here) has proved itself to ours; known while there is a stream.
    pub fn proved(&self, pair: &Pair, certified: bool) {
        let how = if certified { Authenticated::Certificate } else { Authenticated::Dialback };
        self.house.seams.proofs.insert((pair.to.clone(), pair.from.clone()), how);
    }

    /// A stream of this pair (from elsewhere to here) is authenticated, in whatever direction. Can they say something
    /// on it?
    pub fn stream_up(self: &Arc<Federation>, pair: &Pair, from_there: bool) {
        let lost = {
            let mut pairing = self.presence.pairs.entry(pair.clone()).or_default();
            pairing.streams += 1;
            pairing.from_there += u32::from(from_there);
            pairing.seen = pairing.seen.wrapping_add(1);
            pairing.alive = Instant::now();
            pairing.asked = false;
            // What waited for the stream goes now.
            let now = Probed { at: Instant::now(), repeats: 0 };
            pairing.probed.values_mut().for_each(|it| *it = now);
            std::mem::take(&mut pairing.lost)
        };
        self.probe(lost);
    }

    /// A stream that they opened is up. While they could not reach us, answers to our probes were lost.
    pub fn incoming_up(self: &Arc<Federation>, pair: &Pair) {
        self.stream_up(pair, true);
        self.nudge(&pair.inverse());
        if self.presence.pairs.get(pair).is_none_or(|pairing| pairing.probed.is_empty()) {
            return;
        }
        let federation = self.clone();
        let pair = pair.clone();
        self.house.runtime.spawn(async move {
            tokio::time::sleep(ANSWERS_PATIENCE).await;
            let unanswered = match federation.presence.pairs.get_mut(&pair) {
                Some(mut pairing) => std::mem::take(&mut pairing.probed),
                None => return,
            };
            federation.probe(unanswered.into_keys().collect());
            // These were the last: who does not answer now is nobody's contact, or away.
            if let Some(mut pairing) = federation.presence.pairs.get_mut(&pair) {
                pairing.probed.clear();
            }
        });
    }

    /// A probe goes out: its answer is waited for.
    pub fn probing(&self, stanza: &Stanza, to: &Jid) {
        let Some(from) = &stanza.from else { return };
        if !matches!(stanza.kind, StanzaType::Presence(PresenceType::Probe)) {
            return;
        }
        let mut pairing = self.presence.pairs.entry(Pair::new(to.domain(), from.domain())).or_default();
        if pairing.probed.len() < LOST_MAX {
            let new = Probed { at: Instant::now(), repeats: 0 };
            pairing.probed.entry((from.to_bare(), to.to_bare())).or_insert(new);
        }
    }

    /// … and has ended.
    pub fn stream_down(self: &Arc<Federation>, pair: &Pair, from_there: bool, how: Ended) {
        let Some(mut pairing) = self.presence.pairs.get_mut(pair) else { return };
        pairing.streams = pairing.streams.saturating_sub(1);
        pairing.from_there = pairing.from_there.saturating_sub(u32::from(from_there));
        let (streams, leases) = (pairing.streams, pairing.count);
        drop(pairing);
        if streams > 0 || self.is_stopping() {
            return;
        }
        self.house.seams.proofs.remove(&(pair.to.clone(), pair.from.clone()));
        if leases == 0 {
            self.presence.pairs.remove_if(pair, |_, it| it.is_empty());
            return;
        }
        tracing::debug!(%pair, leases, ?how, "no stream is left; what was seen of the other domain must be renewed");
        let federation = self.clone();
        let pair = pair.clone();
        self.house.runtime.spawn(async move { federation.renew(pair, how).await });
    }

    /// Asks for everything again and ends what was not renewed in time.
    async fn renew(self: Arc<Federation>, pair: Pair, how: Ended) {
        let since = Instant::now();
        let contacts: BTreeSet<_> = match self.presence.pairs.get(&pair) {
            Some(pairing) => pairing.contacts().take(LOST_MAX).collect(),
            None => return,
        };
        self.probe(contacts);
        tokio::time::sleep(match how {
            Ended::Broken => RESET,
            Ended::InOrder => CLOSED,
        })
        .await;
        let ended = match self.presence.pairs.get_mut(&pair) {
            Some(mut pairing) => pairing.expire(since),
            None => return,
        };
        if ended.is_empty() {
            return;
        }
        tracing::info!(%pair, ended = ended.len(), "the link is gone: presence of the other domain ends");
        let mut ready = Ready::new();
        for (from, to) in ended {
            self.house.count("s2s_leases_ended");
            let away = Stanza::presence(PresenceType::Unavailable).with_from(from).with_to(to.clone());
            self.house.tell(to, Arc::new(away), Ingress { stream: 0, ordinal: 0 }, Ticket::default(), &mut ready);
            self.house.work(&mut ready);
        }
        self.come_back(pair).await;
    }

    /// Dials until the pair is there again, or nothing is asked of it any more.
    async fn come_back(self: &Arc<Federation>, pair: Pair) {
        let mut pause = link::RETRY_FIRST;
        let give_up = Instant::now() + Duration::from_secs(86_400);
        loop {
            tokio::time::sleep(pause).await;
            let lost: BTreeSet<_> = match self.presence.pairs.get(&pair) {
                Some(pairing) if pairing.streams == 0 => pairing.lost.iter().take(1).cloned().collect(),
                Some(_) | None => return,
            };
            if lost.is_empty() || Instant::now() > give_up || self.is_stopping() {
                if let Some(mut pairing) = self.presence.pairs.get_mut(&pair) {
                    pairing.lost.clear();
                }
                return;
            }
            // One probe is enough to dial; the others follow when the stream is up.
            self.probe(lost);
            pause = (pause * 2).min(self.policy().retry_max);
        }
    }

    fn probe(self: &Arc<Federation>, contacts: BTreeSet<(BareJid, BareJid)>) {
        for (here, there) in contacts {
            let probe = Stanza::presence(PresenceType::Probe).with_from(here).with_to(there.clone());
            if self.send(there.into(), &Arc::new(probe), Ticket::default()).is_err() {
                return;
            }
        }
    }
}

/// Asks those who are silent, and gives those up who do not answer. XEP-0199.
pub async fn watch(federation: Weak<Federation>) {
    let mut pulse = tokio::time::interval(PULSE);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pulse.tick().await;
        let Some(federation) = federation.upgrade() else { return };
        federation.sweep();
        let mut asks = Vec::new();
        let mut dead = Vec::new();
        let mut again = BTreeSet::new();
        for mut entry in federation.presence.pairs.iter_mut() {
            let (pair, pairing) = entry.pair_mut();
            again.extend(pairing.unanswered());
            match pairing.look() {
                Look::Well => {}
                Look::Ask => asks.push(pair.clone()),
                Look::Dead => dead.push(pair.clone()),
            }
        }
        // In one order always: a run can be repeated.
        dead.sort();
        for pair in dead {
            tracing::info!(%pair, "the other server has been silent too long; its streams end");
            // Nobody listens: then there is no stream to end.
            let _ = federation.presence.cuts.send(pair);
        }
        asks.sort();
        for pair in asks {
            federation.ask(&pair);
        }
        federation.probe(again);
    }
}

/// What is to be done about a silent pair.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Well,
    Ask,
    Dead,
}

impl Federation {
    /// A ping from our domain to theirs; any answer is a sign of life.
    fn ask(self: &Arc<Federation>, pair: &Pair) {
        let (Ok(here), Ok(there)) = (BareJid::of_domain(&pair.to), BareJid::of_domain(&pair.from)) else { return };
        let id = format!("alive-{:08x}", self.random(u32::MAX));
        let ping = Stanza::iq(IqType::Get, &id).with_from(here).with_to(there.clone());
        let ping = ping.with_children([Element::new("ping", "urn:xmpp:ping")]);
        // No room to ask: the silence goes on.
        let _ = self.send(there.into(), &Arc::new(ping), Ticket::default());
    }
}

impl Pairing {
    fn is_empty(&self) -> bool {
        self.streams == 0 && self.count == 0 && self.lost.is_empty() && self.probed.is_empty()
    }

    fn look(&mut self) -> Look {
        if self.count == 0 || self.streams == 0 {
            return Look::Well;
        }
        let silent = self.alive.elapsed();
        if silent >= DEAD_AFTER {
            return Look::Dead;
        }
        if silent >= ASK_AFTER && !std::mem::replace(&mut self.asked, true) {
            return Look::Ask;
        }
        Look::Well
    }

    /// Whoever is to be probed again: the other server takes what we say, and has not connected to us to answer.
    fn unanswered(&mut self) -> Vec<(BareJid, BareJid)> {
        if self.streams == 0 || self.from_there > 0 || self.probed.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        let due = |it: &Probed| now.duration_since(it.at) >= ANSWERS_PATIENCE * 3_u32.saturating_pow(it.repeats);
        // Who did not answer so often is nobody's contact, or away.
        self.probed.retain(|_, it| it.repeats < REPEATS_MAX || !due(it));
        let mut again = Vec::new();
        for (contact, it) in self.probed.iter_mut().filter(|(_, it)| due(it)) {
            *it = Probed { at: now, repeats: it.repeats + 1 };
            again.push(contact.clone());
        }
        again
    }

    fn end(&mut self, from: &Jid, to: &Jid) {
        let mut ended = 0;
        let mut end = |told: &mut BTreeMap<Jid, Instant>| {
            let before = told.len();
            // Told to the account or to one of its resources: the account hears it.
            told.retain(|it, _| !(it == to || to.resource().is_none() && it.same_bare(to)));
            ended += before - told.len();
        };
        match from.resource() {
            Some(_) => {
                if let Some(told) = self.leases.get_mut(from) {
                    end(told);
                }
            }
            // Of the whole contact.
            None => self.leases.iter_mut().filter(|(jid, _)| jid.same_bare(from)).for_each(|(_, told)| end(told)),
        }
        self.leases.retain(|_, told| !told.is_empty());
        self.count -= ended;
    }

    fn contacts(&self) -> impl Iterator<Item = (BareJid, BareJid)> {
        self.leases.iter().flat_map(|(from, told)| told.keys().map(|to| (to.to_bare(), from.to_bare())))
    }

    /// Takes out all leases that were not renewed since; one of that very moment came over what ended then.
    fn expire(&mut self, since: Instant) -> Vec<(Jid, Jid)> {
        let mut ended = Vec::new();
        if planted::is(Bug::LeaseForever) {
            return ended;
        }
        for (from, told) in &mut self.leases {
            told.retain(|to, at| {
                let stays = *at > since;
                if !stays {
                    ended.push((from.clone(), to.clone()));
                }
                stays
            });
        }
        self.leases.retain(|_, told| !told.is_empty());
        self.count -= ended.len();
        if self.streams == 0 {
            let lost = ended.iter().map(|(from, to)| (to.to_bare(), from.to_bare()));
            self.lost.extend(lost.take(LOST_MAX));
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> Jid {
        Jid::parse(text).expect("the test's JID is right")
    }

    fn pairing(leases: &[(&str, &str, Instant)]) -> Pairing {
        let mut pairing = Pairing::default();
        for (from, to, at) in leases {
            pairing.leases.entry(jid(from)).or_default().insert(jid(to), *at);
            pairing.count += 1;
        }
        pairing
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_renewed_ends_and_is_asked_for_when_the_pair_comes_back() {
        let before = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        let since = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        let after = Instant::now();
        let mut pairing = pairing(&[
            ("a@x.example/1", "b@y.example", before),
            // At the very moment at which the last stream broke.
            ("a@x.example/2", "b@y.example", since),
            ("a@x.example/3", "b@y.example", after),
        ]);
        let ended = pairing.expire(since);
        assert_eq!(ended.iter().map(|(from, _)| from.as_str()).collect::<Vec<_>>(), ["a@x.example/1", "a@x.example/2"]);
        assert_eq!(pairing.count, 1);
        assert_eq!(pairing.lost.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_asked_once_and_then_given_up() {
        let mut pairing = pairing(&[("a@x.example/1", "b@y.example", Instant::now())]);
        pairing.streams = 1;
        assert_eq!(pairing.look(), Look::Well);
        tokio::time::advance(ASK_AFTER).await;
        assert_eq!(pairing.look(), Look::Ask);
        assert_eq!(pairing.look(), Look::Well);
        tokio::time::advance(DEAD_AFTER - ASK_AFTER).await;
        assert_eq!(pairing.look(), Look::Dead);
    }

    // ejabberd pauses after it could not connect to us, and drops what it would say meanwhile, also answers to probes.
    #[tokio::test(start_paused = true)]
    async fn while_the_other_server_does_not_come_to_answer_a_probe_is_repeated_some_times() {
        let contact = (jid("b@y.example").to_bare(), jid("a@x.example").to_bare());
        let mut pairing = Pairing { streams: 1, ..Pairing::default() };
        pairing.probed.insert(contact.clone(), Probed { at: Instant::now(), repeats: 0 });
        assert_eq!(pairing.unanswered(), []);
        let mut repeated = Vec::new();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(1_200) {
            tokio::time::advance(PULSE).await;
            repeated.extend(pairing.unanswered().into_iter().map(|_| began.elapsed().as_secs()));
        }
        assert_eq!(repeated.len(), REPEATS_MAX as usize);
        assert!(repeated[0] < 10 && repeated[4] > 300, "{repeated:?}");
        assert!(pairing.probed.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn to_a_server_that_can_answer_no_probe_is_repeated() {
        let contact = (jid("b@y.example").to_bare(), jid("a@x.example").to_bare());
        let mut pairing = Pairing { streams: 2, from_there: 1, ..Pairing::default() };
        pairing.probed.insert(contact, Probed { at: Instant::now(), repeats: 0 });
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(pairing.unanswered(), []);
    }

    #[tokio::test]
    async fn unavailable_from_the_bare_jid_ends_all_resources() {
        let now = Instant::now();
        let mut pairing = pairing(&[("a@x.example/1", "b@y.example", now), ("a@x.example/2", "b@y.example", now)]);
        pairing.end(&jid("a@x.example"), &jid("b@y.example"));
        assert_eq!(pairing.count, 0);
        assert!(pairing.leases.is_empty());
    }

    #[tokio::test]
    async fn unavailable_of_one_resource_leaves_the_other() {
        let now = Instant::now();
        let mut pairing = pairing(&[("a@x.example/1", "b@y.example", now), ("a@x.example/2", "b@y.example", now)]);
        pairing.end(&jid("a@x.example/1"), &jid("b@y.example"));
        assert_eq!(pairing.count, 1);
    }
}
