//! Whatever connections, clients, commits and the process do: every accepted message ends in exactly one outcome.
//! DESIGN.md D4, D5.
//!
//! A house in small drives one account: a gate for effects behind commits, a log, streams that break, clients that
//! read, acknowledge and resume when they like.

use im::{
    Account, Attach, DetachReason, EdgeItem, EdgeRef, Effect, Effects, HostPolicy, Ingress, Item, Now, SessionId,
    Ticket,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Weak};
use store::{AccountRecord, Change, Record, StoreError};
use xmpp::{BareJid, Jid, Stamp, Stanza};

const JULIET: &str = "juliet@capulet.example";
const START: i64 = 1_767_225_600_000_000;

/// What stands in the gate.
enum Entry {
    Commit { step: u64, changes: Vec<Change>, bounce: Option<Arc<Stanza>>, ticket: Ticket },
    Held { step: u64, effect: Effect },
}

/// One resource's client. It knows of its session what a real one would.
#[derive(Debug)]
struct Client {
    resource: String,
    managed: bool,
    edge: Option<EdgeRef>,
    session: Option<SessionId>,
    /// Stanzas handled since management was enabled.
    handled: u32,
    /// May resume.
    resumption: Option<Box<str>>,
    /// Messages that this session showed.
    shown: BTreeSet<u32>,
}

/// A stream: what was given to it and not read by its client.
#[derive(Debug, Default)]
struct Stream {
    /// With their numbers.
    queue: VecDeque<(u64, Option<u32>)>,
    /// The number of the last that was read.
    read: u64,
    client: usize,
    session: Option<SessionId>,
    managed: bool,
}

struct House {
    account: Account,
    policy: Arc<HostPolicy>,
    now: Now,
    step: u64,
    gate: VecDeque<Entry>,
    log: BTreeMap<i64, Record>,
    keys: HashSet<[u8; 16]>,
    streams: HashMap<EdgeRef, Stream>,
    next_edge: u64,
    clients: Vec<Client>,
    items: VecDeque<Item>,
    /// Message → its ticket.
    sent: BTreeMap<u32, Weak<u32>>,
    errors: BTreeMap<u32, u32>,
    shown: BTreeMap<u32, u32>,
    /// Not acknowledged when the process died: its sender knows that it must send again.
    unacknowledged: BTreeSet<u32>,
    epoch: u64,
}

#[derive(Debug, Clone)]
enum Act {
    Connect {
        client: usize,
        managed: bool,
        priority: i8,
    },
    Message {
        to: Option<usize>,
        chat: bool,
    },
    /// Something that need not be kept, in between.
    Passing,
    Read {
        client: usize,
        count: usize,
    },
    Acknowledge {
        client: usize,
    },
    Lose {
        client: usize,
    },
    Close {
        client: usize,
    },
    Resume {
        client: usize,
    },
    Wait {
        ms: u64,
    },
    Commit,
    CommitAll,
    Fail,
    Crash,
    Reload,
}

const CLIENTS: usize = 3;

impl House {
    fn new(archive: bool, offline_max: usize, unacked_max: usize) -> House {
        let jid = BareJid::parse(JULIET).expect("a bare JID");
        let mut policy = HostPolicy::of(jid.domain_jid());
        policy.archive = archive;
        policy.limits.offline_messages_max = offline_max;
        policy.limits.unacked_stanzas_max = unacked_max;
        let policy = Arc::new(policy);
        let client = |n| Client {
            resource: format!("r{n}"),
            managed: false,
            edge: None,
            session: None,
            handled: 0,
            resumption: None,
            shown: BTreeSet::new(),
        };
        House {
            account: Account::new(jid, policy.clone(), 1, AccountRecord::default()),
            policy,
            now: Now { utc: Stamp(START), mono_ms: 1_000 },
            step: 0,
            gate: VecDeque::new(),
            log: BTreeMap::new(),
            keys: HashSet::new(),
            streams: HashMap::new(),
            next_edge: 1,
            clients: (0..CLIENTS).map(client).collect(),
            items: VecDeque::new(),
            sent: BTreeMap::new(),
            errors: BTreeMap::new(),
            shown: BTreeMap::new(),
            unacknowledged: BTreeSet::new(),
            epoch: 1,
        }
    }

    fn stored(&self) -> AccountRecord {
        let pending: Vec<i64> = self.log.values().filter(|r| r.pending).map(|r| r.position).collect();
        AccountRecord {
            last_position: self.log.keys().next_back().copied().unwrap_or_default(),
            pending_bytes: self.log.values().filter(|r| r.pending).map(|r| r.stanza.len() as u64).sum(),
            pending,
            ..AccountRecord::default()
        }
    }

    fn post(&mut self, item: Item) {
        self.items.push_back(item);
        self.run();
    }

    fn run(&mut self) {
        while let Some(item) = self.items.pop_front() {
            self.step += 1;
            let mut fx = Effects::default();
            self.account.step(item, self.now, &mut fx);
            let mut behind = false;
            for effect in fx.list {
                match effect {
                    Effect::Commit { changes, bounce, ticket } => {
                        behind = true;
                        self.gate.push_back(Entry::Commit { step: self.step, changes, bounce, ticket });
                    }
                    Effect::WakeAt { .. } | Effect::Count(_) => {}
                    effect => {
                        let held = self.gate.iter().any(|e| matches!(e, Entry::Held { .. }));
                        if behind || held {
                            self.gate.push_back(Entry::Held { step: self.step, effect });
                        } else {
                            self.perform(effect);
                        }
                    }
                }
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Tell { stanza, .. } if stanza.is_error() => {
                if let Some(n) = number(&stanza) {
                    *self.errors.entry(n).or_default() += 1;
                }
            }
            Effect::ReadPending { after, limit } => {
                let page =
                    self.log.range(after + 1..).map(|(_, r)| r).filter(|r| r.pending).take(limit).cloned().collect();
                self.items.push_back(Item::Pending { after, records: Some(page) });
            }
            Effect::Edge { edge, item } => self.at_the_edge(edge, item),
            _ => {}
        }
    }

    fn at_the_edge(&mut self, edge: EdgeRef, item: EdgeItem) {
        let bound = match &item {
            EdgeItem::Attached { session, .. } | EdgeItem::Resumed { session, .. } => Some(*session),
            _ => None,
        };
        let Some(stream) = self.streams.get_mut(&edge) else {
            // The stream is gone; who just got a session hears so.
            if let Some(session) = bound {
                let (reason, received) = (DetachReason::Lost, 0);
                self.items.push_back(Item::Detached { session, edge, reason, deliveries: 0, received });
            }
            return;
        };
        stream.session = bound.or(stream.session);
        let client = &mut self.clients[stream.client];
        if client.edge != Some(edge) && bound.is_some() {
            // The client did not wait for the answer.
            return self.detach(edge, DetachReason::Lost);
        }
        match item {
            EdgeItem::Attached { session, management, .. } => {
                client.session = Some(session);
                client.resumption = management.and_then(|managed| managed.id);
            }
            EdgeItem::Resumed { session, sent, .. } => {
                assert_eq!(sent, client.handled, "the server counts as the client does");
                client.session = Some(session);
            }
            EdgeItem::Deliver { number: nth, delivery } => {
                let body = if delivery.stanza.is_message() { number(&delivery.stanza) } else { None };
                stream.queue.push_back((nth, body));
            }
            // Nothing for the client.
            EdgeItem::Skipped { .. } if stream.managed => {}
            EdgeItem::Skipped { number } => stream.queue.push_back((number, None)),
            EdgeItem::AttachRefused(_) | EdgeItem::ResumeRefused { .. } => {
                self.streams.remove(&edge);
                if client.edge == Some(edge) {
                    client.edge = None;
                    client.resumption = None;
                }
            }
            EdgeItem::Close(_) => self.detach(edge, DetachReason::Fault),
            EdgeItem::Managed(_) => {}
        }
    }

    fn detach(&mut self, edge: EdgeRef, reason: DetachReason) {
        let Some(stream) = self.streams.remove(&edge) else { return };
        let client = &mut self.clients[stream.client];
        if client.edge == Some(edge) {
            client.edge = None;
            if reason != DetachReason::Lost {
                client.resumption = None;
            }
        }
        if let Some(session) = stream.session {
            let deliveries = if stream.managed { 0 } else { stream.read };
            self.items.push_back(Item::Detached { session, edge, reason, deliveries, received: 0 });
        }
    }

    /// The writer is done with the oldest commit.
    fn commit_one(&mut self, fail: bool) {
        if !matches!(self.gate.front(), Some(Entry::Commit { .. })) {
            return;
        }
        let Some(Entry::Commit { step, changes, bounce, ticket }) = self.gate.pop_front() else { return };
        let void = fail || self.write(changes);
        let mut free = Vec::new();
        let mut dropped = Vec::new();
        while let Some(Entry::Held { .. }) = self.gate.front() {
            if let Some(Entry::Held { step: of, effect }) = self.gate.pop_front() {
                if void && of == step { dropped.push(effect) } else { free.push(effect) }
            }
        }
        // What other commits of the same step hold back is dropped with it.
        if void {
            let mut rest = VecDeque::new();
            for entry in self.gate.drain(..) {
                match entry {
                    Entry::Held { step: of, effect } if of == step => dropped.push(effect),
                    entry => rest.push_back(entry),
                }
            }
            self.gate = rest;
        }
        // … and so is what a stream that came meanwhile was given again.
        let again = |effect: &Effect, dropped: &[Effect]| {
            let is = |d: &im::Delivery| dropped.iter().filter_map(delivery).any(|o| Arc::ptr_eq(&o.stanza, &d.stanza));
            void && delivery(effect).is_some_and(is)
        };
        let (repeated, free): (Vec<_>, Vec<_>) = free.into_iter().partition(|effect| again(effect, &dropped));
        dropped.extend(repeated);
        for entry in std::mem::take(&mut self.gate) {
            match entry {
                Entry::Held { effect, .. } if again(&effect, &dropped) => dropped.push(effect),
                entry => self.gate.push_back(entry),
            }
        }
        for effect in free {
            self.perform(effect);
        }
        // Nothing comes in between.
        if fail {
            let stored = Some(Box::new(self.stored()));
            self.items.push_front(Item::CommitFailed {
                bounce,
                error: StoreError::Full,
                ticket: ticket.clone(),
                stored,
            });
        }
        if !dropped.is_empty() {
            self.items.push_front(Item::Dropped { effects: dropped });
        }
        self.run();
        drop(ticket);
    }

    /// Says whether a record was there already.
    fn write(&mut self, changes: Vec<Change>) -> bool {
        let mut duplicate = false;
        for change in changes {
            match change {
                Change::Append { record, .. } => {
                    if record.dedupe.is_some_and(|key| !self.keys.insert(key)) {
                        duplicate = true;
                        continue;
                    }
                    let greatest = self.log.keys().next_back().copied().unwrap_or_default();
                    assert!(record.position > greatest, "positions grow");
                    self.log.insert(record.position, record);
                }
                Change::Taken { positions, .. } => {
                    for position in positions {
                        if let Some(record) = self.log.get_mut(&position) {
                            record.pending = false;
                        }
                    }
                }
                _ => {}
            }
        }
        duplicate
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Connect { client, managed, priority } => self.connect(client, managed, priority),
            Act::Message { to, chat } => {
                let n = self.sent.len() as u32;
                let kind = if chat { "chat" } else { "normal" };
                let resource = to.map(|to| format!("/r{to}")).unwrap_or_default();
                self.send(n, &format!("{JULIET}{resource}"), kind);
            }
            Act::Passing => {
                let xml = "<presence from='nurse@capulet.example/x' to='juliet@capulet.example'/>";
                self.inbound(xml, Ticket::default(), 0);
            }
            Act::Read { client, count } => self.read(client, count),
            Act::Acknowledge { client } => {
                let c = &self.clients[client];
                if let (Some(session), true, Some(_)) = (c.session, c.managed, c.edge) {
                    let h = c.handled;
                    self.post(Item::Acked { session, h });
                }
            }
            Act::Lose { client } => self.leave(client, DetachReason::Lost),
            Act::Close { client } => self.leave(client, DetachReason::Closed),
            Act::Resume { client } => {
                let Some(id) = self.clients[client].resumption.clone() else { return };
                let edge = self.open(client);
                let h = self.clients[client].handled;
                self.post(Item::Resume { edge, id, h });
            }
            Act::Wait { ms } => {
                self.now.mono_ms += ms;
                self.now.utc = Stamp(self.now.utc.0 + ms as i64 * 1_000);
                self.post(Item::Tick);
            }
            Act::Commit => self.commit_one(false),
            Act::CommitAll => self.commit_all(),
            Act::Fail => self.commit_one(true),
            Act::Crash if self.policy.archive => self.crash(),
            Act::Reload if self.account.is_idle() && self.gate.is_empty() => self.load(),
            Act::Crash | Act::Reload => {}
        }
    }

    fn commit_all(&mut self) {
        while !self.gate.is_empty() {
            self.commit_one(false);
        }
    }

    fn open(&mut self, client: usize) -> EdgeRef {
        let edge = EdgeRef(self.next_edge);
        self.next_edge += 1;
        let managed = self.clients[client].managed;
        self.streams.insert(edge, Stream { client, managed, ..Stream::default() });
        self.clients[client].edge = Some(edge);
        edge
    }

    fn connect(&mut self, client: usize, managed: bool, priority: i8) {
        self.clients[client].managed = managed;
        let edge = self.open(client);
        let c = &mut self.clients[client];
        (c.managed, c.handled, c.session, c.resumption) = (managed, 0, None, None);
        c.shown.clear();
        let management = managed.then(|| im::item::ManagementRequest {
            resume: true,
            max: None,
            id: format!("sm{}", edge.0).into(),
        });
        let attach = Attach {
            edge,
            resource: Some(c.resource.as_str().into()),
            seed: edge.0,
            client: None,
            bind2: false,
            carbons: false,
            inactive: false,
            management,
            stream: edge.0,
            roles: im::roles::Roles::ALL,
            secure: true,
        };
        self.post(Item::Attach(attach));
        self.commit_all();
        let Some(session) = self.clients[client].session else { return };
        let presence = format!("<presence><priority>{priority}</priority></presence>");
        let stanza = Arc::new(Stanza::parse(presence.as_bytes()).expect("a presence"));
        let ingress = Ingress { stream: edge.0, ordinal: 1 };
        self.post(Item::FromClient { session, stanza, ingress, ticket: Ticket::default() });
    }

    fn send(&mut self, n: u32, to: &str, kind: &str) {
        let xml = format!(
            "<message from='romeo@montague.example/x' to='{to}' type='{kind}' id='m{n}'><body>{n}</body></message>"
        );
        let ticket = Arc::new(n);
        self.sent.insert(n, Arc::downgrade(&ticket));
        self.inbound(&xml, Ticket(Some(ticket)), n + 1);
    }

    fn inbound(&mut self, xml: &str, ticket: Ticket, ordinal: u32) {
        let stanza = Arc::new(Stanza::parse(xml.as_bytes()).expect("a stanza"));
        let to: Jid = stanza.to.clone().expect("an address");
        self.post(Item::Inbound { stanza, to, ingress: Ingress { stream: 77, ordinal }, ticket });
    }

    /// A client reads, and shows what it reads.
    fn read(&mut self, client: usize, count: usize) {
        let c = &mut self.clients[client];
        let Some(edge) = c.edge else { return };
        let Some(stream) = self.streams.get_mut(&edge) else { return };
        for _ in 0..count {
            let Some((number, body)) = stream.queue.pop_front() else { break };
            stream.read = stream.read.max(number);
            c.handled = c.handled.wrapping_add(1);
            if let Some(n) = body {
                assert!(c.shown.insert(n), "message {n} was shown twice by one session");
                *self.shown.entry(n).or_default() += 1;
            }
        }
        let (deliveries, session) = (stream.read, c.session);
        if let (Some(session), false) = (session, c.managed) {
            self.post(Item::Written { session, edge, deliveries });
        }
    }

    fn leave(&mut self, client: usize, reason: DetachReason) {
        if let Some(edge) = self.clients[client].edge {
            self.detach(edge, reason);
            self.run();
        }
    }

    /// kill -9: what the writer has not done is not done.
    fn crash(&mut self) {
        let open: Vec<u32> = self.sent.iter().filter(|(_, t)| t.strong_count() > 0).map(|(n, _)| *n).collect();
        self.unacknowledged.extend(open);
        for entry in &self.gate {
            // An error that was not told any more: two faults at once.
            if let Entry::Held { effect: Effect::Tell { stanza, .. }, .. } = entry {
                self.unacknowledged.extend(number(stanza));
            }
        }
        self.gate.clear();
        self.items.clear();
        self.streams.clear();
        for client in &mut self.clients {
            client.edge = None;
            client.session = None;
            client.resumption = None;
            client.shown.clear();
        }
        self.load();
    }

    fn load(&mut self) {
        self.epoch += 1;
        let jid = BareJid::parse(JULIET).expect("a bare JID");
        self.account = Account::new(jid, self.policy.clone(), self.epoch, self.stored());
    }

    /// All that is under way ends, and a last client comes and reads everything.
    fn finish(&mut self) {
        self.commit_all();
        let mut edges: Vec<EdgeRef> = self.streams.keys().copied().collect();
        edges.sort();
        for edge in edges {
            self.detach(edge, DetachReason::Lost);
            self.run();
            self.commit_all();
        }
        self.act(Act::Wait { ms: 1_000_000 });
        self.commit_all();
        self.connect(0, false, 1);
        for _ in 0..200 {
            self.commit_all();
            self.read(0, 3);
            self.act(Act::Wait { ms: 1_000 });
        }
        self.commit_all();
    }

    fn check(&self) {
        for (n, ticket) in &self.sent {
            let shown = self.shown.get(n).copied().unwrap_or_default();
            let errors = self.errors.get(n).copied().unwrap_or_default();
            if self.unacknowledged.contains(n) {
                // Its sender sends it again; whatever became of it, no error was told as well.
                assert!(errors <= 1, "message {n}: {errors} errors");
                continue;
            }
            assert_eq!(ticket.strong_count(), 0, "message {n} was never done");
            assert!(shown > 0 || errors == 1, "message {n} was accepted and lost");
            // Without a log a message whose acknowledgement was lost may be taken for undelivered (XEP-0198 §4).
            let sure = self.policy.archive;
            assert!(shown == 0 || errors == 0 || !sure, "message {n} was shown, and its sender heard an error");
        }
        let pending: Vec<i64> = self.log.values().filter(|r| r.pending).map(|r| r.position).collect();
        assert!(pending.is_empty(), "still pending at the end: {pending:?}");
    }
}

/// A message on its way to a stream.
fn delivery(effect: &Effect) -> Option<&im::Delivery> {
    match effect {
        Effect::Edge { item: EdgeItem::Deliver { delivery, .. }, .. } => {
            Some(delivery).filter(|d| d.stanza.is_message())
        }
        _ => None,
    }
}

fn number(stanza: &Stanza) -> Option<u32> {
    stanza.id.as_deref()?.strip_prefix('m')?.parse().ok()
}

fn act(with_faults: bool) -> impl Strategy<Value = Act> {
    let client = 0..CLIENTS;
    let fault = move |fault: Act| if with_faults { fault } else { Act::Commit };
    prop_oneof![
        3 => (client.clone(), any::<bool>(), prop_oneof![Just(0i8), Just(5), Just(-1)])
            .prop_map(|(client, managed, priority)| Act::Connect { client, managed, priority }),
        12 => (proptest::option::weighted(0.3, client.clone()), any::<bool>()).prop_map(|(to, chat)| Act::Message { to, chat }),
        2 => Just(Act::Passing),
        8 => (client.clone(), 1usize..6).prop_map(|(client, count)| Act::Read { client, count }),
        4 => client.clone().prop_map(|client| Act::Acknowledge { client }),
        2 => client.clone().prop_map(|client| Act::Lose { client }),
        1 => client.clone().prop_map(|client| Act::Close { client }),
        3 => client.prop_map(|client| Act::Resume { client }),
        1 => prop_oneof![Just(1u64), Just(1_000), Just(400_000)].prop_map(|ms| Act::Wait { ms }),
        8 => Just(Act::Commit),
        6 => Just(Act::CommitAll),
        1 => Just(fault(Act::Fail)),
        1 => Just(fault(Act::Crash)),
        1 => Just(Act::Reload),
    ]
}

fn run(acts: Vec<Act>, archive: bool, offline_max: usize, unacked_max: usize) {
    let mut house = House::new(archive, offline_max, unacked_max);
    for act in acts {
        house.act(act);
    }
    house.finish();
    house.check();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_accepted_message_has_exactly_one_outcome(acts in proptest::collection::vec(act(false), 1..120), archive: bool) {
        run(acts, archive, 1_000, 1_000);
    }

    #[test]
    fn small_bounds_lose_nothing(acts in proptest::collection::vec(act(false), 1..120), archive: bool) {
        run(acts, archive, 6, 5);
    }

    #[test]
    fn failing_commits_and_crashes_lose_nothing(acts in proptest::collection::vec(act(true), 1..120), archive: bool) {
        run(acts, archive, 1_000, 1_000);
    }
}
