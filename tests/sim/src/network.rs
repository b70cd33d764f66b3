//! A network in memory: connections between hosts, with delay, cuts, walls that hold back what is sent (half-open
//! connections) and hosts that crash. What goes one way of a connection keeps its order; connections among themselves
//! do not.

use crate::random::Random;
use parking_lot::Mutex;
use server::world::simulated::{self, Soon};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// What a kernel takes that the other side has not read.
const BUFFER_BYTES: usize = 128 * 1024;
/// A connection that nobody answers is given up.
const CONNECT_PATIENCE: Duration = Duration::from_secs(60);
/// Nobody needs waking.
const NEVER: Duration = Duration::from_secs(86_400);

#[derive(Clone)]
pub struct Net(Arc<Mutex<Inner>>);

struct Inner {
    random: Random,
    /// Milliseconds that a packet is under way, at most.
    delay_ms_max: u64,
    hosts: BTreeMap<IpAddr, Host>,
    listeners: BTreeMap<SocketAddr, Listener>,
    connections: BTreeMap<u64, Connection>,
    next: u64,
    /// Nothing passes from the first to the second; since when.
    walls: BTreeMap<(IpAddr, IpAddr), Instant>,
    /// When which ends must look again.
    due: BTreeSet<(Instant, u64, usize)>,
    postman: Option<Waker>,
    /// The most that ever waited for one reader.
    pub waiting_bytes_max: usize,
}

#[derive(Default)]
struct Host {
    /// Grows with each crash: what was opened before is dead.
    life: u64,
    /// The machine is off: nobody answers, not even by a refusal.
    off: bool,
}

#[derive(Default)]
struct Listener {
    waiting: VecDeque<(Pipe, SocketAddr)>,
    waker: Option<Waker>,
}

struct Connection {
    ends: [End; 2],
}

struct End {
    host: IpAddr,
    /// Milliseconds that this connection takes more than others.
    slow_ms: u64,
    incoming: VecDeque<Chunk>,
    waiting_bytes: usize,
    /// What was sent last arrives then.
    last: Instant,
    finished: Option<Option<Instant>>,
    broken: Option<(Instant, io::ErrorKind)>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    silence: Option<Duration>,
    shut: bool,
    /// Its owner is gone.
    dropped: bool,
}

struct Chunk {
    /// When it arrives; `None`: a wall holds it back.
    at: Option<Instant>,
    bytes: Vec<u8>,
    read: usize,
}

/// How a host goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The kernel tells the peers.
    Process,
    /// Nobody tells anybody until it is back.
    Machine,
}

impl Net {
    /// Spawns the task that wakes who has something to read.
    pub fn new(random: Random) -> Net {
        let net = Net(Arc::new(Mutex::new(Inner {
            random,
            delay_ms_max: 20,
            hosts: BTreeMap::new(),
            listeners: BTreeMap::new(),
            connections: BTreeMap::new(),
            next: 0,
            walls: BTreeMap::new(),
            due: BTreeSet::new(),
            postman: None,
            waiting_bytes_max: 0,
        })));
        tokio::spawn(net.clone().deliver());
        net
    }

    async fn deliver(self) {
        let mut pause = Box::pin(sleep(NEVER));
        loop {
            let next = {
                let mut inner = self.0.lock();
                let now = Instant::now();
                let mut wake = Vec::new();
                while let Some(&(at, connection, end)) = inner.due.first()
                    && at <= now
                {
                    inner.due.pop_first();
                    inner.look_at_silence(connection, end, now);
                    if let Some(connection) = inner.connections.get_mut(&connection) {
                        wake.extend(connection.ends[end].reader.take());
                        wake.extend(connection.ends[end].writer.take());
                    }
                }
                let next = inner.due.first().map(|&(at, ..)| at);
                drop(inner);
                wake.into_iter().for_each(Waker::wake);
                next
            };
            pause.as_mut().reset(next.unwrap_or_else(|| Instant::now() + NEVER));
            poll_fn(|cx| {
                let mut inner = self.0.lock();
                if inner.due.first().map(|&(at, ..)| at) != next {
                    return Poll::Ready(());
                }
                inner.postman = Some(cx.waker().clone());
                drop(inner);
                pause.as_mut().poll(cx)
            })
            .await;
        }
    }

    /// The network as a host sees it.
    pub fn host(&self, address: IpAddr) -> Arc<HostNet> {
        let life = self.0.lock().hosts.entry(address).or_default().life;
        Arc::new(HostNet { net: self.clone(), address, life })
    }

    pub fn set_delay(&self, delay_ms_max: u64) {
        self.0.lock().delay_ms_max = delay_ms_max;
    }

    /// Breaks all connections between two hosts; gives how many.
    pub fn cut(&self, one: IpAddr, other: IpAddr) -> usize {
        let mut inner = self.0.lock();
        let ids: Vec<u64> = inner.between(one, other).collect();
        for id in &ids {
            for end in 0..2 {
                inner.break_end(*id, end, io::ErrorKind::ConnectionReset);
            }
        }
        ids.len()
    }

    /// From now on nothing passes from one to the other; connections stay, half open.
    pub fn wall(&self, from: IpAddr, to: IpAddr) {
        let mut inner = self.0.lock();
        let now = Instant::now();
        inner.walls.entry((from, to)).or_insert(now);
        let ids: Vec<u64> = inner.between(from, to).collect();
        for id in ids {
            inner.await_silence(id, now);
        }
    }

    /// … and from now on it does again, what was held back too.
    pub fn open(&self, from: IpAddr, to: IpAddr) {
        let mut inner = self.0.lock();
        if inner.walls.remove(&(from, to)).is_none() {
            return;
        }
        let ids: Vec<u64> = inner.between(from, to).collect();
        for id in ids {
            inner.release(id, from, to);
        }
    }

    pub fn open_all(&self) {
        let walls: Vec<_> = self.0.lock().walls.keys().copied().collect();
        for (from, to) in walls {
            self.open(from, to);
        }
    }

    /// All that a host had open is gone; it takes nothing until [`Net::boot`].
    pub fn crash(&self, address: IpAddr, how: Crash) {
        let _waiting = self.close_all(address, how);
    }

    /// Gives what must be dropped when the network is not locked any more.
    fn close_all(&self, address: IpAddr, how: Crash) -> Vec<Listener> {
        let mut inner = self.0.lock();
        let host = inner.hosts.entry(address).or_default();
        host.life += 1;
        host.off = how == Crash::Machine;
        let listeners: Vec<SocketAddr> = inner.listeners.keys().filter(|at| at.ip() == address).copied().collect();
        let waiting: Vec<_> = listeners.iter().filter_map(|at| inner.listeners.remove(at)).collect();
        let ids: Vec<u64> = inner.connections.keys().copied().collect();
        for id in ids {
            for end in 0..2 {
                if inner.connections[&id].ends[end].host != address {
                    continue;
                }
                let now = Instant::now();
                if let Some(connection) = inner.connections.get_mut(&id) {
                    let own = &mut connection.ends[end];
                    own.broken = Some((now, io::ErrorKind::ConnectionReset));
                    own.dropped = true;
                    own.incoming.clear();
                    own.waiting_bytes = 0;
                }
                inner.wake_at(now, id, end);
                if how == Crash::Process {
                    inner.break_end(id, 1 - end, io::ErrorKind::ConnectionReset);
                } else {
                    inner.await_silence(id, now);
                }
            }
        }
        waiting
    }

    pub fn boot(&self, address: IpAddr) {
        let mut inner = self.0.lock();
        inner.hosts.entry(address).or_default().off = false;
        // What the dead machine's peers still send is answered by a reset.
        let ids: Vec<u64> = inner.connections.keys().copied().collect();
        for id in ids {
            for end in 0..2 {
                let dead = inner.connections.get(&id).is_some_and(|it| {
                    it.ends[end].host == address && it.ends[end].dropped && it.ends[1 - end].waits_for_peer()
                });
                if dead {
                    inner.break_end(id, 1 - end, io::ErrorKind::ConnectionReset);
                }
            }
        }
    }

    pub fn waiting_bytes_max(&self) -> usize {
        self.0.lock().waiting_bytes_max
    }

    async fn connect(&self, from: IpAddr, life: u64, to: SocketAddr) -> io::Result<Pipe> {
        let began = Instant::now();
        let way = self.0.lock().way();
        sleep(way * 2).await;
        loop {
            {
                let mut inner = self.0.lock();
                if inner.hosts.get(&from).is_none_or(|host| host.life != life || host.off) {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                let walled = inner.walls.contains_key(&(from, to.ip())) || inner.walls.contains_key(&(to.ip(), from));
                let off = inner.hosts.get(&to.ip()).is_some_and(|host| host.off);
                if !walled && !off {
                    return match inner.listeners.contains_key(&to) {
                        true => Ok(inner.establish(self, from, to)),
                        false => Err(io::ErrorKind::ConnectionRefused.into()),
                    };
                }
            }
            if began.elapsed() >= CONNECT_PATIENCE {
                return Err(io::ErrorKind::TimedOut.into());
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    async fn accept(&self, at: SocketAddr, life: u64) -> io::Result<(Pipe, SocketAddr)> {
        poll_fn(|cx| {
            let mut inner = self.0.lock();
            if inner.hosts.get(&at.ip()).is_none_or(|host| host.life != life) {
                // The host of this listener crashed: its task is a ghost that nobody wakes.
                return Poll::Pending;
            }
            let listener = inner.listeners.entry(at).or_default();
            match listener.waiting.pop_front() {
                Some(it) => Poll::Ready(Ok(it)),
                None => {
                    listener.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Inner {
    fn way(&mut self) -> Duration {
        let most = self.delay_ms_max;
        self.random.millis(1, most + 1)
    }

    fn between(&self, one: IpAddr, other: IpAddr) -> impl Iterator<Item = u64> {
        let ids: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, it)| {
                let hosts = (it.ends[0].host, it.ends[1].host);
                hosts == (one, other) || hosts == (other, one)
            })
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter()
    }

    fn wake_at(&mut self, at: Instant, connection: u64, end: usize) {
        let first = self.due.first().is_none_or(|&(first, ..)| at < first);
        self.due.insert((at, connection, end));
        if first && let Some(postman) = self.postman.take() {
            postman.wake();
        }
    }

    fn establish(&mut self, net: &Net, from: IpAddr, to: SocketAddr) -> Pipe {
        self.next += 1;
        let id = self.next;
        let now = Instant::now();
        let mut end = |host| End {
            host,
            slow_ms: self.random.below(self.delay_ms_max),
            incoming: VecDeque::new(),
            waiting_bytes: 0,
            last: now,
            finished: None,
            broken: None,
            reader: None,
            writer: None,
            silence: None,
            shut: false,
            dropped: false,
        };
        let ends = [end(from), end(to.ip())];
        self.connections.insert(id, Connection { ends });
        let pipe = |end| Pipe { net: net.clone(), connection: id, end };
        let listener = self.listeners.entry(to).or_default();
        listener.waiting.push_back((pipe(1), SocketAddr::new(from, 40_000)));
        if let Some(waker) = listener.waker.take() {
            waker.wake();
        }
        pipe(0)
    }

    /// When something sent now arrives at `end`; `None`: a wall is in between.
    fn arrival(&mut self, connection: u64, end: usize) -> Option<Instant> {
        let way = self.way();
        let connection = self.connections.get_mut(&connection)?;
        let (from, to) = (connection.ends[1 - end].host, connection.ends[end].host);
        if self.walls.contains_key(&(from, to)) || self.hosts.get(&to).is_some_and(|host| host.off) {
            return None;
        }
        let end = &mut connection.ends[end];
        end.last = end.last.max(Instant::now() + way + Duration::from_millis(end.slow_ms));
        Some(end.last)
    }

    /// An end learns that the connection is broken, as soon as it can.
    fn break_end(&mut self, id: u64, end: usize, kind: io::ErrorKind) {
        let Some(at) = self.arrival(id, end) else {
            // It will hear it when the wall is gone, or notice the silence.
            return;
        };
        let lost = self.random.one_in(2);
        if let Some(connection) = self.connections.get_mut(&id) {
            let end = &mut connection.ends[end];
            if end.broken.is_none() {
                end.broken = Some((at, kind));
            }
            if lost {
                // What is under way never arrives.
                let now = Instant::now();
                end.incoming.retain(|chunk| chunk.at.is_some_and(|at| at <= now));
                end.waiting_bytes = end.incoming.iter().map(|chunk| chunk.bytes.len() - chunk.read).sum();
            }
        }
        self.wake_at(at, id, end);
    }

    /// The ends of a connection that cannot speak will notice, if they care.
    fn await_silence(&mut self, id: u64, now: Instant) {
        for end in 0..2 {
            if let Some(silence) = self.connections.get(&id).and_then(|it| it.ends[end].silence) {
                self.wake_at(now + silence, id, end);
            }
        }
    }

    fn look_at_silence(&mut self, id: u64, end: usize, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let hosts = (connection.ends[end].host, connection.ends[1 - end].host);
        let Some(silence) = connection.ends[end].silence else { return };
        let since = [self.walls.get(&hosts), self.walls.get(&(hosts.1, hosts.0))].into_iter().flatten().min();
        let off = connection.ends[1 - end].dropped && self.hosts.get(&hosts.1).is_some_and(|host| host.off);
        let end = &mut connection.ends[end];
        if (off || since.is_some_and(|since| now >= *since + silence)) && end.broken.is_none() {
            end.broken = Some((now, io::ErrorKind::TimedOut));
        }
    }

    /// What a wall held back is under way.
    fn release(&mut self, id: u64, from: IpAddr, to: IpAddr) {
        for end in 0..2 {
            let Some(connection) = self.connections.get(&id) else { return };
            if (connection.ends[1 - end].host, connection.ends[end].host) != (from, to) {
                continue;
            }
            let peer_gone = connection.ends[1 - end].dropped && connection.ends[1 - end].broken.is_some();
            let held = connection.ends[end].incoming.iter().filter(|chunk| chunk.at.is_none()).count();
            let finished = connection.ends[end].finished == Some(None);
            if peer_gone {
                self.break_end(id, end, io::ErrorKind::ConnectionReset);
                continue;
            }
            for _ in 0..held {
                let at = self.arrival(id, end);
                if let Some(connection) = self.connections.get_mut(&id)
                    && let Some(chunk) = connection.ends[end].incoming.iter_mut().find(|chunk| chunk.at.is_none())
                {
                    chunk.at = at;
                }
                if let Some(at) = at {
                    self.wake_at(at, id, end);
                }
            }
            if finished {
                let at = self.arrival(id, end);
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.ends[end].finished = Some(at);
                }
                if let Some(at) = at {
                    self.wake_at(at, id, end);
                }
            }
        }
    }

    fn finish(&mut self, id: u64, end: usize) {
        let peer = 1 - end;
        if self.connections.get(&id).is_none_or(|it| it.ends[peer].finished.is_some()) {
            return;
        }
        let at = self.arrival(id, peer);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.ends[peer].finished = Some(at);
        }
        if let Some(at) = at {
            self.wake_at(at, id, peer);
        }
    }
}

impl End {
    fn is_broken(&self) -> Option<io::Error> {
        self.broken.filter(|(at, _)| *at <= Instant::now()).map(|(_, kind)| kind.into())
    }

    /// Something it said, or the whole connection, has found nobody.
    fn waits_for_peer(&self) -> bool {
        !self.dropped && self.broken.is_none()
    }
}

/// The network as one host sees it, in one of its lives.
pub struct HostNet {
    net: Net,
    address: IpAddr,
    life: u64,
}

impl HostNet {
    pub async fn dial(&self, to: SocketAddr) -> io::Result<Pipe> {
        self.net.connect(self.address, self.life, to).await
    }
}

impl simulated::Network for HostNet {
    fn connect(&self, to: SocketAddr) -> Soon<'_, Box<dyn simulated::Pipe>> {
        Box::pin(async move { Ok(Box::new(self.dial(to).await?) as Box<dyn simulated::Pipe>) })
    }

    fn accept(&self, at: SocketAddr) -> Soon<'_, (Box<dyn simulated::Pipe>, SocketAddr)> {
        Box::pin(async move {
            let (pipe, peer) = self.net.accept(at, self.life).await?;
            Ok((Box::new(pipe) as Box<dyn simulated::Pipe>, peer))
        })
    }
}

/// One end of a connection.
pub struct Pipe {
    net: Net,
    connection: u64,
    end: usize,
}

impl Pipe {
    /// Breaks the connection as the loss of a radio link does: the other side hears of it, or does not.
    pub fn abandon(self, told: bool) {
        if told {
            let mut inner = self.net.0.lock();
            inner.break_end(self.connection, 1 - self.end, io::ErrorKind::ConnectionReset);
            return;
        }
        // Nobody is there any more, and nobody says so.
        let mut inner = self.net.0.lock();
        if let Some(connection) = inner.connections.get_mut(&self.connection) {
            connection.ends[self.end].dropped = true;
            connection.ends[self.end].shut = true;
            connection.ends[self.end].incoming.clear();
            connection.ends[1 - self.end].finished = Some(None);
        }
        drop(inner);
        std::mem::forget(self);
    }
}

impl simulated::Pipe for Pipe {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.net.0.lock();
        let now = Instant::now();
        let Some(connection) = inner.connections.get_mut(&self.connection) else { return Poll::Ready(Ok(())) };
        let end = &mut connection.ends[self.end];
        let data = end.incoming.front().is_some_and(|chunk| chunk.at.is_some_and(|at| at <= now));
        let finished = end.incoming.is_empty() && end.finished.flatten().is_some_and(|at| at <= now);
        if data || finished || end.is_broken().is_some() {
            return Poll::Ready(Ok(()));
        }
        end.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut inner = self.net.0.lock();
        let now = Instant::now();
        let Some(connection) = inner.connections.get_mut(&self.connection) else {
            return Err(io::ErrorKind::ConnectionReset.into());
        };
        let [a, b] = &mut connection.ends;
        let (end, peer) = if self.end == 0 { (a, b) } else { (b, a) };
        let mut read = 0;
        while read < into.len()
            && let Some(chunk) = end.incoming.front_mut()
            && chunk.at.is_some_and(|at| at <= now)
        {
            let n = (chunk.bytes.len() - chunk.read).min(into.len() - read);
            into[read..read + n].copy_from_slice(&chunk.bytes[chunk.read..chunk.read + n]);
            chunk.read += n;
            read += n;
            if chunk.read == chunk.bytes.len() {
                end.incoming.pop_front();
            }
        }
        end.waiting_bytes -= read;
        if read > 0 {
            let waker = peer.writer.take();
            drop(inner);
            if let Some(waker) = waker {
                waker.wake();
            }
            return Ok(read);
        }
        if let Some(error) = end.is_broken() {
            return Err(error);
        }
        match end.incoming.is_empty() && end.finished.flatten().is_some_and(|at| at <= now) {
            true => Ok(0),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.net.0.lock();
        let Some(connection) = inner.connections.get_mut(&self.connection) else { return Poll::Ready(Ok(())) };
        let full = connection.ends[1 - self.end].waiting_bytes >= BUFFER_BYTES;
        let end = &mut connection.ends[self.end];
        if !full || end.is_broken().is_some() {
            return Poll::Ready(Ok(()));
        }
        end.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.net.0.lock();
        let Some(connection) = inner.connections.get_mut(&self.connection) else {
            return Err(io::ErrorKind::ConnectionReset.into());
        };
        let [a, b] = &mut connection.ends;
        let (end, peer) = if self.end == 0 { (a, b) } else { (b, a) };
        if let Some(error) = end.is_broken() {
            return Err(error);
        }
        if end.shut {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if peer.broken.is_some() {
            // What is sent behind a break never arrives: else there would be a hole.
            return Ok(bytes.len());
        }
        let room = BUFFER_BYTES.saturating_sub(peer.waiting_bytes);
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = bytes.len().min(room);
        if peer.dropped {
            let silent = peer.broken.is_none() && end.finished == Some(None);
            if silent {
                // Nobody reads, nobody says so: the kernel's buffer fills.
                peer.waiting_bytes += n;
            } else {
                inner.break_end(self.connection, self.end, io::ErrorKind::ConnectionReset);
            }
            return Ok(n);
        }
        peer.waiting_bytes += n;
        let waiting = peer.waiting_bytes;
        inner.waiting_bytes_max = inner.waiting_bytes_max.max(waiting);
        let at = inner.arrival(self.connection, 1 - self.end);
        if let Some(connection) = inner.connections.get_mut(&self.connection) {
            let chunk = Chunk { at, bytes: bytes[..n].to_vec(), read: 0 };
            connection.ends[1 - self.end].incoming.push_back(chunk);
        }
        if let Some(at) = at {
            inner.wake_at(at, self.connection, 1 - self.end);
        }
        Ok(n)
    }

    fn shutdown(&self) {
        let mut inner = self.net.0.lock();
        if let Some(connection) = inner.connections.get_mut(&self.connection) {
            connection.ends[self.end].shut = true;
        }
        inner.finish(self.connection, self.end);
    }

    fn notice_silence(&self, silence: Duration) {
        let mut inner = self.net.0.lock();
        if let Some(connection) = inner.connections.get_mut(&self.connection) {
            connection.ends[self.end].silence = Some(silence);
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut inner = self.net.0.lock();
        let Some(connection) = inner.connections.get_mut(&self.connection) else { return };
        let end = &mut connection.ends[self.end];
        let unread = end.waiting_bytes > 0;
        end.dropped = true;
        end.incoming.clear();
        end.waiting_bytes = 0;
        if connection.ends[1 - self.end].dropped {
            inner.connections.remove(&self.connection);
        } else if unread {
            inner.break_end(self.connection, 1 - self.end, io::ErrorKind::ConnectionReset);
        } else {
            inner.finish(self.connection, self.end);
        }
    }
}

/// Waits until `at`, at once if it is over.
pub async fn until(at: Instant) {
    if at > Instant::now() {
        sleep_until(at).await;
    }
}
