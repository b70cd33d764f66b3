//! A pair of domains, ours and another, and what waits to go there.
//!
//! Messages and what manages subscriptions are *kept*: they have a row in the store, and wait here until it is written.
//! Presence that is only told is not queued but replaced: of one sender and one recipient the last word is what counts.
//! Whoever queues into a link that nobody works for starts its task; a link may also be worked for by a stream that the
//! other server opened, if it carries both directions (XEP-0288).

use super::{Policy, Verification};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use stream::{Pair, Verdict, Verify};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use xmpp::planted::{self, Bug};
use xmpp::{Jid, MessageType, PresenceType, Stanza, StanzaType};

/// Verifications that wait for one link.
const QUESTIONS_MAX: usize = 64;
/// Presence that waits for one link: of all users to all their contacts there.
const PRESENCE_MAX: usize = 200_000;

/// A stanza for the other domain.
#[derive(Debug)]
pub struct Queued {
    pub stanza: Arc<Stanza>,
    /// Where it goes: a broadcast's stanza has no own `to`.
    pub to: Jid,
    /// Its row in the outbox, and the mark by which a waft knows it again.
    pub id: i64,
    pub keeping: Keeping,
    pub since: Instant,
    /// How long it had waited when this process began.
    pub before: Duration,
    /// How long its sender lets it wait in all (XEP-0023, XEP-0079 `expire-at`).
    pub life: Option<Duration>,
    /// It was sent on a stream that broke.
    pub again: bool,
    /// Somebody waits until it is on the wire, or will never be: hears it when this is dropped.
    pub awaited: Option<oneshot::Sender<()>>,
}

/// What is kept of a stanza while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// Nothing.
    Memory,
    /// A row, which is not on disk yet.
    Writing,
    /// A row; or it goes ahead of it ([`super::ahead`]).
    Row,
}

impl Queued {
    pub fn age(&self) -> Duration {
        self.before + self.since.elapsed()
    }

    /// Is its delivery pointless by now?
    pub fn is_over(&self) -> bool {
        self.life.is_some_and(|life| self.age() >= life)
    }

    /// Presence that is only told, or asked for: the last word counts.
    pub fn is_state(&self) -> bool {
        Told::of(self).is_some()
    }

    fn weight(&self) -> usize {
        self.stanza.weight()
    }
}

/// Must a stanza for another domain survive a restart? What its sender was promised, and what both sides' subscriptions
/// follow from. DESIGN.md D4.
pub fn is_kept(stanza: &Stanza) -> bool {
    match stanza.kind {
        StanzaType::Message(MessageType::Normal | MessageType::Chat | MessageType::Groupchat) => {
            let hinted_away = ["no-store", "no-permanent-store"].iter().any(|hint| stanza.payload.has(hint, HINTS));
            let mut children = stanza.payload.children();
            let only_states = !stanza.payload.is_empty() && children.all(|child| child.ns == CHAT_STATES);
            !hinted_away && !only_states
        }
        StanzaType::Message(MessageType::Error) => true,
        StanzaType::Message(MessageType::Headline) => false,
        StanzaType::Presence(kind) => matches!(
            kind,
            PresenceType::Subscribe | PresenceType::Subscribed | PresenceType::Unsubscribe | PresenceType::Unsubscribed
        ),
        StanzaType::Iq(_) => false,
    }
}

const HINTS: &str = "urn:xmpp:hints";
const CHAT_STATES: &str = "http://jabber.org/protocol/chatstates";

/// A key to verify with the other domain, and who waits for the verdict.
#[derive(Debug)]
pub struct Question {
    pub verify: Verify,
    pub answer: oneshot::Sender<Verdict>,
    /// Among those of the address that asks.
    pub _place: Verification,
}

#[derive(Debug)]
pub struct Link {
    /// From ours to the other.
    pub pair: Pair,
    /// On whose account it is dialled for: a user, or an address that makes us verify.
    pub dialler: Box<str>,
    /// A stream carries it: what waits goes out at once.
    carried: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    stanzas: VecDeque<Option<Queued>>,
    /// The number of the first.
    first: u64,
    /// Where presence of a sender to a recipient is.
    told: HashMap<Told, u64>,
    /// Stanzas that are no such presence.
    count: usize,
    bytes: usize,
    questions: VecDeque<Question>,
    owner: Owner,
    gone: bool,
    /// What stood in the way is gone: the next attempt is due.
    retry: bool,
    /// Told when something is queued.
    wake: Arc<Notify>,
}

#[derive(Debug, PartialEq, Eq, Hash, Clone)]
struct Told {
    from: Jid,
    to: Jid,
    probe: bool,
}

impl Told {
    fn of(queued: &Queued) -> Option<Told> {
        let probe = match queued.stanza.kind {
            StanzaType::Presence(PresenceType::Available | PresenceType::Unavailable) => false,
            StanzaType::Presence(PresenceType::Probe) => true,
            _ => return None,
        };
        Some(Told { from: queued.stanza.from.clone()?, to: queued.to.clone(), probe })
    }
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
    pub fn new(pair: Pair, dialler: &str) -> Link {
        let queue = Queue {
            stanzas: VecDeque::new(),
            first: 0,
            told: HashMap::new(),
            count: 0,
            bytes: 0,
            questions: VecDeque::new(),
            owner: Owner::Nobody,
            gone: false,
            retry: false,
            wake: Arc::default(),
        };
        Link { pair, dialler: dialler.into(), carried: AtomicBool::new(false), queue: Mutex::new(queue) }
    }

    pub fn is_carried(&self) -> bool {
        self.carried.load(Ordering::Relaxed)
    }

    pub fn set_carried(&self, carried: bool) {
        self.carried.store(carried, Ordering::Relaxed);
    }

    pub fn push(&self, queued: Queued, policy: &Policy) -> Pushed<Queued> {
        let mut queue = self.queue.lock();
        if queue.gone {
            return Pushed::Gone(queued);
        }
        match Told::of(&queued) {
            Some(told) => {
                queue.forget(&told);
                if queue.told.len() >= PRESENCE_MAX {
                    return Pushed::Full(queued);
                }
                let number = queue.first.wrapping_add(queue.stanzas.len() as u64);
                queue.told.insert(told, number);
            }
            None => {
                let weight = queued.weight();
                if queue.count >= policy.queue_items_max || queue.bytes + weight > policy.queue_bytes_max {
                    return Pushed::Full(queued);
                }
                queue.count += 1;
                queue.bytes += weight;
            }
        }
        let may_go = queued.keeping != Keeping::Writing;
        queue.stanzas.push_back(Some(queued));
        if may_go || queue.owner == Owner::Nobody {
            return claim(queue);
        }
        // Who works for the link is told when the row is written.
        Pushed::Queued
    }

    /// What was sent on a stream that broke goes before all that waits, in its order. Presence that has been replaced
    /// meanwhile does not go. What is given back: the link was forgotten meanwhile.
    pub fn push_back_first(&self, sent: Vec<Queued>) -> Pushed<Vec<Queued>> {
        let mut queue = self.queue.lock();
        if queue.gone {
            return Pushed::Gone(sent);
        }
        for mut queued in sent.into_iter().rev() {
            queued.again = true;
            // The numbers before the first are free: what is taken out is not counted again.
            let number = queue.first.wrapping_sub(1);
            match Told::of(&queued) {
                Some(told) => {
                    if queue.told.contains_key(&told) || queue.told.len() >= PRESENCE_MAX {
                        continue;
                    }
                    queue.told.insert(told, number);
                }
                None => {
                    queue.count += 1;
                    queue.bytes += queued.weight();
                }
            }
            queue.stanzas.push_front(Some(queued));
            queue.first = number;
        }
        claim(queue)
    }

    /// Asked on the stream that the link's task has or makes, else [`Pushed::Full`]. A link that nobody works for is not
    /// dialled for it, unless it `is_for_this`: the stream whose key is to be verified may carry both directions.
    pub fn ask(&self, question: Question, is_for_this: bool) -> Pushed<Question> {
        let mut queue = self.queue.lock();
        if queue.gone {
            return Pushed::Gone(question);
        }
        queue.forget_given_up();
        let is_asked = queue.owner == Owner::Task || is_for_this;
        if !is_asked || queue.questions.len() >= QUESTIONS_MAX {
            return Pushed::Full(question);
        }
        queue.questions.push_back(question);
        claim(queue)
    }

    /// The row of a stanza is on disk: it may go.
    pub fn written(&self, id: i64) {
        let mut queue = self.queue.lock();
        // Rows are written in their order: the first that waits, nearly always.
        if let Some(queued) = queue.stanzas.iter_mut().flatten().find(|queued| queued.id == id) {
            queued.keeping = Keeping::Row;
            queue.wake.notify_one();
        }
    }

    /// The row of a stanza cannot be written for want of space, and nobody would hear of it, for it is an error itself:
    /// it goes without one, and whoever holds `awaited`'s other end hears when it has. `false`: it is none.
    pub fn goes_unwritten(&self, id: i64, awaited: oneshot::Sender<()>) -> bool {
        let mut queue = self.queue.lock();
        let found = queue.stanzas.iter_mut().flatten().find(|queued| queued.id == id);
        let Some(queued) = found.filter(|it| !it.stanza.may_be_answered_with_error()) else { return false };
        queued.keeping = Keeping::Memory;
        queued.awaited = Some(awaited);
        queue.wake.notify_one();
        true
    }

    /// Takes out one that is not to go after all.
    pub fn take_out(&self, id: i64) -> Option<Queued> {
        let mut queue = self.queue.lock();
        let at = queue.stanzas.iter().position(|entry| entry.as_ref().is_some_and(|queued| queued.id == id))?;
        queue.take_at(at)
    }

    /// A stream in both directions takes the link over, if nobody works for it.
    pub fn attach(&self, wake: &Arc<Notify>) -> bool {
        let mut queue = self.queue.lock();
        if queue.gone || queue.owner != Owner::Nobody {
            return false;
        }
        queue.owner = Owner::Incoming;
        queue.wake = wake.clone();
        true
    }

    /// The link's task gives it to such a stream, and ends. `false`: the task is not what works for it.
    pub fn adopt(&self, wake: &Arc<Notify>) -> bool {
        let mut queue = self.queue.lock();
        queue.forget_given_up();
        if queue.gone || queue.owner != Owner::Task || !queue.questions.is_empty() {
            return false;
        }
        queue.owner = Owner::Incoming;
        queue.wake = wake.clone();
        true
    }

    /// … and gives it back; `true`: something waits, the caller must start the link's task.
    pub fn detach(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.forget_given_up();
        let waits = !queue.is_empty();
        queue.owner = if waits { Owner::Task } else { Owner::Nobody };
        queue.wake = Arc::default();
        waits
    }

    /// Whoever works for the link is told here that something waits.
    pub fn wake_by(&self, wake: &Arc<Notify>) {
        self.queue.lock().wake = wake.clone();
    }

    /// The other server is there, as its own stream shows: an attempt is worth while.
    pub fn nudge(&self) {
        self.queue.lock().wake.notify_one();
    }

    /// What stood in the way is gone: whoever waits for the next attempt makes it now.
    pub fn retry(&self) {
        let mut queue = self.queue.lock();
        queue.retry = true;
        queue.wake.notify_one();
    }

    pub fn takes_retry(&self) -> bool {
        std::mem::take(&mut self.queue.lock().retry)
    }

    pub fn wake(&self) -> Arc<Notify> {
        self.queue.lock().wake.clone()
    }

    /// The first stanza, unless its row is still being written.
    pub fn take_stanza(&self) -> Option<Queued> {
        let mut queue = self.queue.lock();
        queue.skip();
        if planted::is(Bug::QueueReversed) {
            let goes = |entry: &Option<Queued>| entry.as_ref().is_some_and(|it| it.keeping != Keeping::Writing);
            let last = queue.stanzas.iter().rposition(goes)?;
            return queue.take_at(last);
        }
        match queue.stanzas.front() {
            Some(Some(queued)) if queued.keeping != Keeping::Writing => queue.take_at(0),
            _ => None,
        }
    }

    pub fn take_question(&self) -> Option<Question> {
        let mut queue = self.queue.lock();
        queue.forget_given_up();
        queue.questions.pop_front()
    }

    pub fn has_questions(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.forget_given_up();
        !queue.questions.is_empty()
    }

    pub fn has_stanzas(&self) -> bool {
        let queue = self.queue.lock();
        !queue.told.is_empty() || queue.count > 0
    }

    /// Stanzas and bytes that wait, presence left out.
    pub fn queued(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        (queue.count, queue.bytes)
    }

    /// Has somebody written since then?
    pub fn has_fresh(&self, since: Instant) -> bool {
        let queue = self.queue.lock();
        queue.stanzas.iter().rev().flatten().any(|queued| queued.since > since && !queued.is_state())
    }

    /// Takes out what has waited as long as `patience` gives it.
    pub fn take_old(&self, patience: impl Fn(&Queued) -> Duration) -> Vec<Queued> {
        let mut queue = self.queue.lock();
        let is_old = |queued: &Queued| queued.keeping != Keeping::Writing && queued.age() >= patience(queued);
        let old: Vec<usize> = (0..queue.stanzas.len())
            .filter(|at| queue.stanzas.get(*at).is_some_and(|entry| entry.as_ref().is_some_and(is_old)))
            .collect();
        // From behind: taking the first moves the others.
        let mut taken: Vec<Queued> = old.into_iter().rev().filter_map(|at| queue.take_at(at)).collect();
        taken.reverse();
        queue.skip();
        taken
    }

    pub fn take_questions(&self) -> Vec<Question> {
        self.queue.lock().questions.drain(..).collect()
    }

    /// When the next will have waited as long as `patience` gives it.
    pub fn next_old(&self, patience: impl Fn(&Queued) -> Duration) -> Option<Instant> {
        let queue = self.queue.lock();
        let now = Instant::now();
        queue.stanzas.iter().flatten().map(|queued| now + patience(queued).saturating_sub(queued.age())).min()
    }

    /// The task ends if nothing waits; `false`: it must go on.
    pub fn leave(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.forget_given_up();
        let empty = queue.is_empty();
        if empty {
            queue.owner = Owner::Nobody;
            queue.wake = Arc::default();
        }
        empty
    }

    /// May it be forgotten? Then nothing is taken any more.
    pub fn is_idle(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.gone = queue.owner == Owner::Nobody && queue.is_empty();
        queue.gone
    }
}

fn claim<T>(mut queue: MutexGuard<'_, Queue>) -> Pushed<T> {
    if queue.owner == Owner::Nobody {
        queue.owner = Owner::Task;
        return Pushed::Dial;
    }
    queue.wake.notify_one();
    Pushed::Queued
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.count == 0 && self.told.is_empty() && self.questions.is_empty()
    }

    /// Drops questions whose answers nobody waits for: the stream on whose account they are has ended.
    fn forget_given_up(&mut self) {
        self.questions.retain(|question| !question.answer.is_closed());
    }

    /// Drops what is empty in front.
    fn skip(&mut self) {
        while let Some(None) = self.stanzas.front() {
            self.stanzas.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        if self.stanzas.is_empty() && self.stanzas.capacity() > 256 {
            self.stanzas = VecDeque::new();
        }
    }

    fn forget(&mut self, told: &Told) {
        if let Some(number) = self.told.remove(told) {
            let at = usize::try_from(number.wrapping_sub(self.first)).unwrap_or(usize::MAX);
            if let Some(entry) = self.stanzas.get_mut(at) {
                *entry = None;
            }
        }
    }

    fn take_at(&mut self, at: usize) -> Option<Queued> {
        let queued = match at {
            0 => {
                self.first = self.first.wrapping_add(1);
                self.stanzas.pop_front()??
            }
            _ => self.stanzas.get_mut(at)?.take()?,
        };
        match Told::of(&queued) {
            Some(told) => drop(self.told.remove(&told)),
            None => {
                self.count -= 1;
                self.bytes -= queued.weight();
            }
        }
        if at == 0 {
            self.skip();
        }
        Some(queued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::s2s::Verifications;

    fn policy(items: usize) -> Policy {
        let config: Config = crate::config::parse("", None, &crate::config::Sources::default()).expect("the defaults");
        let mut policy = Policy::of(&config, b"secret", &crate::crypto::AwsLc);
        policy.queue_items_max = items;
        policy
    }

    fn link() -> Link {
        Link::new(Pair::new("capulet.example", "montague.example"), "juliet@capulet.example")
    }

    fn of(id: i64, stanza: &str) -> Queued {
        let stanza = Stanza::parse(stanza.as_bytes()).expect("the test's stanza is right");
        let to = stanza.to.clone().expect("it has one");
        Queued {
            stanza: Arc::new(stanza),
            to,
            id,
            keeping: Keeping::Memory,
            since: Instant::now(),
            before: Duration::ZERO,
            life: None,
            again: false,
            awaited: None,
        }
    }

    fn message(id: i64) -> Queued {
        of(id, "<message from='juliet@capulet.example/x' to='romeo@montague.example'><body>hi</body></message>")
    }

    fn presence(id: i64, kind: &str) -> Queued {
        let addresses = "from='juliet@capulet.example/x' to='romeo@montague.example'";
        of(id, &format!("<presence {addresses}{kind}/>"))
    }

    fn question(answer: oneshot::Sender<Verdict>) -> Question {
        let verify = Verify { pair: link().pair.inverse(), id: "1".into(), key: "key".into() };
        let asks = "192.0.2.1".parse().expect("a literal address");
        let place = Arc::new(Verifications::default()).enter(asks).expect("it is the first");
        Question { verify, answer, _place: place }
    }

    fn all(link: &Link) -> Vec<i64> {
        std::iter::from_fn(|| link.take_stanza()).map(|queued| queued.id).collect()
    }

    // Where the disk was full the sender of a message heard nothing: the error about it could not be kept either.
    #[tokio::test]
    async fn an_error_goes_also_where_its_row_cannot_be_written() {
        let (link, policy) = (link(), policy(10));
        let addresses = "from='juliet@capulet.example' to='romeo@montague.example/x'";
        for (id, kind) in [(1, "error"), (2, "chat")] {
            let mut queued = of(id, &format!("<message {addresses} type='{kind}'><body>hi</body></message>"));
            queued.keeping = Keeping::Writing;
            link.push(queued, &policy);
        }
        assert!(link.take_stanza().is_none());
        let (say, mut hear) = oneshot::channel();
        assert!(link.goes_unwritten(1, say));
        assert!(!link.goes_unwritten(2, oneshot::channel().0));
        // Its refusal is acknowledged when the error is on the wire.
        let queued = link.take_stanza().expect("it goes");
        assert!(queued.id == 1 && hear.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        drop(queued);
        assert_eq!(hear.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(link.take_stanza().is_none());
    }

    #[tokio::test]
    async fn who_queues_first_dials_and_the_others_only_queue() {
        let (link, policy) = (link(), policy(10));
        assert!(matches!(link.push(message(1), &policy), Pushed::Dial));
        assert!(matches!(link.push(message(2), &policy), Pushed::Queued));
        assert_eq!(link.take_stanza().map(|it| it.id), Some(1));
        assert!(!link.leave(), "something waits");
        link.take_stanza();
        assert!(link.leave());
        assert!(matches!(link.push(message(3), &policy), Pushed::Dial));
    }

    // LIMITS.md §1: durable outbox per domain.
    #[tokio::test]
    async fn a_full_queue_gives_the_stanza_back_and_still_takes_presence() {
        let (link, mut policy) = (link(), policy(2));
        link.push(message(1), &policy);
        link.push(message(2), &policy);
        assert!(matches!(link.push(message(3), &policy), Pushed::Full(_)));
        assert!(matches!(link.push(presence(4, ""), &policy), Pushed::Queued));
        policy.queue_bytes_max = 10;
        assert!(matches!(self::link().push(message(1), &policy), Pushed::Full(_)));
    }

    #[tokio::test]
    async fn of_presence_the_last_word_is_kept_in_its_place() {
        let (link, policy) = (link(), policy(10));
        link.push(presence(1, ""), &policy);
        link.push(message(2), &policy);
        link.push(presence(3, " type='probe'"), &policy);
        link.push(presence(4, " type='unavailable'"), &policy);
        assert_eq!(all(&link), [2, 3, 4]);
        assert!(link.leave());
    }

    #[tokio::test]
    async fn what_was_sent_in_vain_goes_first_and_presence_only_if_nothing_newer_waits() {
        let (link, policy) = (link(), policy(10));
        link.push(message(5), &policy);
        link.push(presence(6, " type='unavailable'"), &policy);
        let sent = vec![message(1), presence(2, ""), presence(3, " type='probe'"), message(4)];
        assert!(matches!(link.push_back_first(sent), Pushed::Queued));
        link.push(presence(7, " type='probe'"), &policy);
        assert_eq!(all(&link), [1, 4, 5, 6, 7]);
    }

    #[tokio::test]
    async fn nothing_overtakes_a_message_whose_row_is_being_written() {
        let (link, policy) = (link(), policy(10));
        link.push(Queued { keeping: Keeping::Writing, ..message(1) }, &policy);
        link.push(message(2), &policy);
        assert_eq!(all(&link), [0; 0]);
        link.written(1);
        assert_eq!(all(&link), [1, 2]);
    }

    #[tokio::test]
    async fn a_link_that_is_forgotten_takes_nothing_more() {
        let (link, policy) = (link(), policy(10));
        assert!(link.is_idle());
        assert!(matches!(link.push(message(1), &policy), Pushed::Gone(_)));
        assert!(matches!(link.push_back_first(vec![message(1)]), Pushed::Gone(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_waited_too_long_is_taken_out_and_nothing_else() {
        let (link, policy) = (link(), policy(10));
        let patience = |queued: &Queued| match queued.id {
            2 => Duration::from_secs(100),
            _ => Duration::from_secs(10),
        };
        link.push(message(1), &policy);
        link.push(message(2), &policy);
        link.push(Queued { before: Duration::from_secs(5), ..message(3) }, &policy);
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(link.next_old(patience), Some(Instant::now() + Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(6)).await;
        link.push(message(4), &policy);
        let old: Vec<i64> = link.take_old(patience).into_iter().map(|queued| queued.id).collect();
        assert_eq!(old, [1, 3]);
        assert_eq!(all(&link), [2, 4]);
    }

    #[tokio::test]
    async fn a_stream_of_both_directions_works_for_the_link_and_asks_nothing() {
        let (link, policy) = (link(), policy(10));
        let wake = Arc::default();
        assert!(link.attach(&wake));
        assert!(!link.attach(&wake), "once");
        assert!(matches!(link.push(message(1), &policy), Pushed::Queued));
        let (answer, _answered) = oneshot::channel();
        assert!(matches!(link.ask(question(answer), false), Pushed::Full(_)));
        assert!(link.detach(), "what waits must be dialled for");
    }

    #[tokio::test]
    async fn a_link_s_task_gives_it_to_a_stream_of_both_directions_unless_a_question_waits() {
        let (link, policy) = (link(), policy(10));
        let wake = Arc::default();
        assert!(!link.adopt(&wake), "it has no task");
        link.push(message(1), &policy);
        let (answer, _answered) = oneshot::channel();
        link.ask(question(answer), false);
        assert!(!link.adopt(&wake), "only a stream of ours can ask");
        link.take_questions();
        assert!(link.adopt(&wake));
        assert!(matches!(link.push(message(2), &policy), Pushed::Queued));
        assert_eq!(all(&link), [1, 2]);
        assert!(!link.detach());
    }

    // A flood of keys, each on a connection that goes at once, made us dial long after the last had gone.
    #[tokio::test]
    async fn a_question_whose_stream_has_ended_waits_for_nothing_and_holds_no_place() {
        let link = link();
        let (answer, answered) = oneshot::channel();
        assert!(matches!(link.ask(question(answer), true), Pushed::Dial));
        assert!(link.has_questions() && !link.leave());
        drop(answered);
        assert!(!link.has_questions());
        assert!(link.leave(), "nothing is worth an attempt");
    }

    // DESIGN.md D4.
    #[test]
    fn what_somebody_was_promised_is_kept_and_nothing_else() {
        let kept = |stanza: &str| is_kept(&Stanza::parse(stanza.as_bytes()).expect("the test's stanza is right"));
        for stanza in [
            "<message type='chat'><body>hi</body></message>",
            "<message/>",
            "<message type='chat'><received xmlns='urn:xmpp:receipts' id='1'/></message>",
            "<message type='error'/>",
            "<presence type='subscribe'/>",
            "<presence type='unsubscribed'/>",
        ] {
            assert!(kept(stanza), "{stanza}");
        }
        for stanza in [
            "<message type='headline'><body>hi</body></message>",
            "<message type='chat'><body>hi</body><no-store xmlns='urn:xmpp:hints'/></message>",
            "<message type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>",
            "<presence/>",
            "<presence type='probe'/>",
            "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
        ] {
            assert!(!kept(stanza), "{stanza}");
        }
    }
}
