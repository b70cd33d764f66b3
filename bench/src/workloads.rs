//! What is measured, on which servers, and what is wanted of it.

use crate::client::Mechanism;
use crate::servers::{Kind, Server};
use crate::work::chat::Chat;
use crate::work::large::{self, Large};
use crate::work::{Figure, archive, chat, idle, login, offline, presence};
use std::io;

/// What a figure of waft's shall keep to, beside the others' in the same run.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// CPU time an operation: so many times less than the best peer.
    CpuBelowPeer(f64),
    /// CPU time an operation: at most so many times the relay's.
    CpuOfRelay(f64),
    /// So many times the operations a second of the best peer.
    RateAbovePeer(f64),
    /// The median and the 99th of a hundred come sooner than the best peer's.
    SoonerThanPeer,
    /// Bytes of memory each, at most.
    Bytes(f64),
    /// CPU milliseconds an operation, at most.
    CpuMillis(f64),
    /// Nobody waits longer for somebody else's operation, milliseconds.
    OthersWait(f64),
}

pub struct Workload {
    pub name: &'static str,
    /// What an operation is.
    pub unit: &'static str,
    /// In this order, waft's own first.
    pub servers: &'static [Kind],
    pub goals: &'static [Goal],
    work: Work,
}

enum Work {
    Chat(Chat),
    Paced { per_second: u64 },
    Presence { watchers: usize },
    Login { mechanism: Mechanism, tls: bool },
    OfflineStore,
    OfflineFetch,
    Idle { tls: bool, sessions: usize },
    Pages { messages: usize },
    Large(Large),
}

const LIVE: &[Kind] = &[Kind::WaftLive, Kind::Prosody, Kind::Ejabberd, Kind::Relay];
const LIVE_PEERS: &[Kind] = &[Kind::WaftLive, Kind::Prosody, Kind::Ejabberd];
const DEFAULT: &[Kind] = &[Kind::Waft, Kind::Prosody, Kind::Ejabberd];
const FANNED: &[Kind] = &[Kind::Waft, Kind::Prosody, Kind::Ejabberd, Kind::Fan];
const ARCHIVED: &[Kind] = &[Kind::Waft, Kind::ProsodyArchive, Kind::EjabberdArchive];
const ALONE: &[Kind] = &[Kind::Waft];
const ROOMY: &[Kind] = &[Kind::WaftRoomy];
/// The system counts CPU time in hundredths of a second: with fewer messages a µs of one would not be seen.
const PACED_SECONDS_LEAST: u64 = 6;
/// No operation holds others up longer.
const HELD_UP: &[Goal] = &[Goal::OthersWait(5.0)];

const PLAIN: Chat = Chat { window: 2, body: 100, tls: false, managed: false };

pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "chat, window 2",
        unit: "message",
        servers: LIVE,
        goals: &[Goal::CpuBelowPeer(4.0), Goal::CpuOfRelay(3.0)],
        work: Work::Chat(PLAIN),
    },
    Workload {
        name: "chat, window 20",
        unit: "message",
        servers: LIVE,
        goals: &[Goal::CpuBelowPeer(10.0)],
        work: Work::Chat(Chat { window: 20, ..PLAIN }),
    },
    Workload {
        name: "chat, 2 kB",
        unit: "message",
        servers: LIVE,
        goals: &[],
        work: Work::Chat(Chat { body: 2_000, ..PLAIN }),
    },
    Workload {
        name: "chat over TLS",
        unit: "message",
        servers: LIVE_PEERS,
        goals: &[Goal::CpuBelowPeer(4.0)],
        work: Work::Chat(Chat { tls: true, ..PLAIN }),
    },
    Workload {
        name: "chat with stream management",
        unit: "message",
        servers: LIVE_PEERS,
        goals: &[Goal::CpuBelowPeer(4.0)],
        work: Work::Chat(Chat { managed: true, ..PLAIN }),
    },
    Workload {
        name: "chat, 1,000 a second",
        unit: "message",
        servers: LIVE,
        goals: &[Goal::CpuBelowPeer(2.0), Goal::SoonerThanPeer],
        work: Work::Paced { per_second: 1_000 },
    },
    Workload {
        name: "chat, archived, window 2",
        unit: "message",
        servers: ARCHIVED,
        goals: &[],
        work: Work::Chat(PLAIN),
    },
    Workload {
        name: "chat, archived, window 20",
        unit: "message",
        servers: ARCHIVED,
        goals: &[Goal::CpuBelowPeer(30.0), Goal::RateAbovePeer(40.0)],
        work: Work::Chat(Chat { window: 20, ..PLAIN }),
    },
    Workload {
        name: "presence to 20",
        unit: "notification",
        servers: FANNED,
        goals: &[Goal::CpuBelowPeer(5.0)],
        work: Work::Presence { watchers: 20 },
    },
    Workload {
        name: "presence to 200",
        unit: "notification",
        servers: FANNED,
        goals: &[Goal::CpuBelowPeer(5.0)],
        work: Work::Presence { watchers: 200 },
    },
    Workload {
        name: "presence to 1,000",
        unit: "notification",
        servers: FANNED,
        goals: &[Goal::CpuBelowPeer(5.0)],
        work: Work::Presence { watchers: 1_000 },
    },
    Workload {
        name: "login, SCRAM-SHA-1",
        unit: "login",
        servers: DEFAULT,
        goals: &[Goal::CpuBelowPeer(4.0)],
        work: Work::Login { mechanism: Mechanism::ScramSha1, tls: false },
    },
    Workload {
        name: "login over TLS, SCRAM-SHA-1",
        unit: "login",
        servers: DEFAULT,
        goals: &[Goal::CpuBelowPeer(3.0)],
        work: Work::Login { mechanism: Mechanism::ScramSha1, tls: true },
    },
    Workload {
        name: "login over TLS, PLAIN",
        unit: "login",
        servers: DEFAULT,
        goals: &[],
        work: Work::Login { mechanism: Mechanism::Plain, tls: true },
    },
    Workload {
        name: "login over TLS, FAST",
        unit: "login",
        servers: ALONE,
        goals: &[],
        work: Work::Login { mechanism: Mechanism::Fast, tls: true },
    },
    Workload {
        name: "offline store",
        unit: "message",
        servers: DEFAULT,
        goals: &[Goal::CpuBelowPeer(4.0)],
        work: Work::OfflineStore,
    },
    Workload {
        name: "offline fetch",
        unit: "message",
        servers: DEFAULT,
        goals: &[Goal::CpuBelowPeer(4.0)],
        work: Work::OfflineFetch,
    },
    Workload {
        name: "idle, 1,000 sessions",
        unit: "session",
        servers: DEFAULT,
        goals: &[],
        work: Work::Idle { tls: false, sessions: 1_000 },
    },
    Workload {
        name: "idle over TLS, 1,000 sessions",
        unit: "session",
        servers: DEFAULT,
        goals: &[],
        work: Work::Idle { tls: true, sessions: 1_000 },
    },
    Workload {
        name: "idle, 10,000 sessions",
        unit: "session",
        servers: DEFAULT,
        goals: &[Goal::Bytes(6.0 * 1024.0)],
        work: Work::Idle { tls: false, sessions: 10_000 },
    },
    Workload {
        name: "idle over TLS, 10,000 sessions",
        unit: "session",
        servers: DEFAULT,
        goals: &[Goal::Bytes(12.0 * 1024.0)],
        work: Work::Idle { tls: true, sessions: 10_000 },
    },
    Workload {
        name: "idle, 18,000 sessions",
        unit: "session",
        servers: ALONE,
        goals: &[],
        work: Work::Idle { tls: false, sessions: 18_000 },
    },
    Workload {
        name: "archive page of 50, 1,000,000 messages",
        unit: "page",
        servers: ALONE,
        goals: &[Goal::CpuMillis(1.0)],
        work: Work::Pages { messages: 1_000_000 },
    },
    Workload {
        name: "archive page of 50, 20,000 messages",
        unit: "page",
        servers: &[Kind::Waft, Kind::ProsodyArchive],
        goals: &[],
        work: Work::Pages { messages: 20_000 },
    },
    Workload { name: "nothing large", unit: "nothing", servers: ROOMY, goals: &[], work: Work::Large(Large::Nothing) },
    Workload {
        name: "login with 1,000 contacts who are there",
        unit: "login",
        servers: ROOMY,
        goals: HELD_UP,
        work: Work::Large(Large::Login { contacts: 1_000 }),
    },
    Workload {
        name: "presence to 10,000",
        unit: "broadcast",
        servers: ROOMY,
        goals: HELD_UP,
        work: Work::Large(Large::Broadcast { watchers: 10_000 }),
    },
    Workload {
        name: "roster of 2,000 items",
        unit: "read",
        servers: ROOMY,
        goals: HELD_UP,
        work: Work::Large(Large::Roster { items: 2_000 }),
    },
    Workload {
        name: "account with an archive of 100 MB",
        unit: "removal",
        servers: ROOMY,
        goals: HELD_UP,
        work: Work::Large(Large::Removal { messages: 10_000 }),
    },
];

impl Workload {
    /// One run on one server.
    ///
    /// # Errors
    /// The server did not do what was asked.
    pub async fn run(&self, server: &Server, seconds: u64) -> io::Result<Figure> {
        match self.work {
            Work::Chat(chat) => chat::windows(server, chat, seconds).await,
            Work::Paced { per_second } => chat::paced(server, per_second, seconds.max(PACED_SECONDS_LEAST)).await,
            Work::Presence { watchers } => presence::broadcast(server, watchers, seconds).await,
            Work::Login { mechanism, tls } => login::logins(server, mechanism, tls, seconds).await,
            Work::OfflineStore => offline::store(server, seconds).await,
            Work::OfflineFetch => offline::fetch(server, seconds).await,
            Work::Idle { tls, sessions } => idle::sessions(server, tls, sessions).await,
            Work::Pages { messages } => archive::pages(server, messages, seconds).await,
            Work::Large(large) => large::beside(server, large, seconds).await,
        }
    }

    /// What takes minutes to set up is run once, and is little different from run to run.
    pub fn is_long(&self) -> bool {
        match self.work {
            Work::Idle { sessions, .. } => sessions > 1_000,
            Work::Pages { .. } => true,
            Work::Chat(_)
            | Work::Paced { .. }
            | Work::Presence { .. }
            | Work::Login { .. }
            | Work::OfflineStore
            | Work::OfflineFetch
            | Work::Large(_) => false,
        }
    }

    /// Is memory what is looked at?
    pub fn is_memory(&self) -> bool {
        matches!(self.work, Work::Idle { .. })
    }
}
