//! Operations that are large, and how long others wait meanwhile.

use super::{Figure, PASSWORD, login_all, register, side_by_side};
use crate::client::{Client, Target};
use crate::servers::Server;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[derive(Clone, Copy)]
pub enum Large {
    /// Nothing: what the others wait of themselves.
    Nothing,
    /// Somebody comes who has so many contacts, all of whom are there.
    Login { contacts: usize },
    /// Presence that changes, to so many.
    Broadcast { watchers: usize },
    /// A roster of so many items is read.
    Roster { items: usize },
    /// An account is removed whose archive has so many messages of 10 kB.
    Removal { messages: usize },
}

const BODY: usize = 10_000;
/// The watched pair writes that often.
const GAP: Duration = Duration::from_millis(1);
/// So long it writes before and after the operations, and that counts, too.
const CALM: Duration = Duration::from_millis(300);
/// So many friends come before the hub answers them.
const A_GROUP: usize = 100;
const ROSTER: &str = "<iq type='get' id='ro'><query xmlns='jabber:iq:roster'/></iq>";

/// One operation at a time, again and again for so many seconds; a removal once. `p50`, `p99` and `worst` are those of
/// messages of two others who have nothing to do with it.
pub async fn beside(server: &Server, large: Large, seconds: u64) -> io::Result<Figure> {
    register(server, "canary", 2).await?;
    let target = server.target(false);
    match large {
        Large::Nothing => nothing(server, &target, seconds).await,
        Large::Login { contacts } => login(server, &target, contacts, seconds).await,
        Large::Broadcast { watchers } => broadcast(server, &target, watchers, seconds).await,
        Large::Roster { items } => roster(server, &target, items, seconds).await,
        Large::Removal { messages } => removal(server, &target, messages).await,
    }
}

async fn nothing(server: &Server, target: &Target, seconds: u64) -> io::Result<Figure> {
    let mut span = Span::begin(server, target).await?;
    while span.goes_on(seconds) {
        tokio::time::sleep(CALM).await;
        span.done += 1;
    }
    span.end(server).await
}

async fn login(server: &Server, target: &Target, contacts: usize, seconds: u64) -> io::Result<Figure> {
    let (_hub, _crowd) = friends(server, target, contacts, true).await?;
    let mut span = Span::begin(server, target).await?;
    while span.goes_on(seconds) {
        let mut me = Client::login(target, "hub0", PASSWORD, "again").await?;
        me.send("<presence/>").await?;
        hear(&mut me, b"<presence ", contacts).await?;
        span.done += 1;
        me.send("</stream:stream>").await?;
        drop(me);
        // That it is gone is told to all; so much for one operation.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    span.end(server).await
}

async fn broadcast(server: &Server, target: &Target, watchers: usize, seconds: u64) -> io::Result<Figure> {
    let (mut hub, mut crowd) = friends(server, target, watchers, false).await?;
    let mut span = Span::begin(server, target).await?;
    let mut piece = vec![0; 64 * 1024];
    while span.goes_on(seconds) {
        let status = format!("round-{}-", span.done);
        hub.send(&format!("<presence><status>{status}</status></presence>")).await?;
        for client in &mut crowd {
            while client.count(status.as_bytes(), &mut piece).await? == 0 {}
        }
        span.done += 1;
    }
    span.end(server).await
}

async fn roster(server: &Server, target: &Target, items: usize, seconds: u64) -> io::Result<Figure> {
    register(server, "hub", 1).await?;
    let mut hub = Client::login(target, "hub0", PASSWORD, "bench").await?;
    for n in 0..items {
        let set = format!(
            "<iq type='set' id='c{n}-'><query xmlns='jabber:iq:roster'>\
             <item jid='contact{n}@localhost' name='Contact {n}'><group>Friends</group></item></query></iq>"
        );
        hub.ask(&set, &format!("id='c{n}-'")).await?;
    }
    let mut span = Span::begin(server, target).await?;
    while span.goes_on(seconds) {
        hub.ask(ROSTER, "</query></iq>").await?;
        span.done += 1;
    }
    span.end(server).await
}

async fn removal(server: &Server, target: &Target, messages: usize) -> io::Result<Figure> {
    register(server, "hub", 2).await?;
    let mut pair = login_all(target, "hub", 2).await?;
    for client in &mut pair {
        client.come().await?;
    }
    let [hub, writer] = pair.as_mut_slice() else { return Err(io::Error::other("two clients were asked for")) };
    let message = format!("<message to='{}' type='chat' id='m'><body>{}</body></message>", hub.jid, "x".repeat(BODY));
    let mut piece = vec![0; 64 * 1024];
    let mut taken = 0;
    for n in 0..messages {
        writer.send(&message).await?;
        while taken + 20 < n {
            taken += hub.count(b"</message>", &mut piece).await?;
        }
    }
    while taken < messages {
        taken += hub.count(b"</message>", &mut piece).await?;
    }
    hub.buffer.clear();
    let mut span = Span::begin(server, target).await?;
    let remove = "<iq type='set' id='rm'><query xmlns='jabber:iq:register'><remove/></query></iq>";
    hub.ask(remove, "id='rm'|</stream:stream>").await?;
    span.done = 1;
    // What is left of the removal goes on behind the answer.
    span.calm = Duration::from_secs(3);
    span.end(server).await
}

/// `hub0` and so many contacts of its, who see it; all are there. `both`: it sees them, too.
async fn friends(server: &Server, target: &Target, count: usize, both: bool) -> io::Result<(Client, Vec<Client>)> {
    register(server, "hub", 1).await?;
    register(server, "friend", count).await?;
    let mut hub = Client::login(target, "hub0", PASSWORD, "bench").await?;
    hub.ask(ROSTER, "id='ro'").await?;
    hub.come().await?;
    let mut crowd = Vec::with_capacity(count);
    // (Not all at once: what comes to the hub is read between.)
    for first in (0..count).step_by(A_GROUP) {
        let group = first..count.min(first + A_GROUP);
        let group = side_by_side(group.map(|n| who_asks(target.of_client(n), n))).await?;
        for (n, mut friend) in group {
            hub.ask(&format!("<presence type='subscribed' to='friend{n}@localhost'/>"), &format!("friend{n}@")).await?;
            friend.until("hub0@localhost/bench").await?;
            if both {
                friend.buffer.clear();
                hub.send(&format!("<presence type='subscribe' to='friend{n}@localhost'/>")).await?;
                friend.until("type='subscribe'").await?;
                friend.send("<presence type='subscribed' to='hub0@localhost'/>").await?;
                hub.until(&format!("friend{n}@localhost/r")).await?;
            }
            friend.buffer = Vec::new();
            crowd.push(friend);
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    // What came meanwhile is read away.
    let read_away = |mut client: Client| async move {
        let _ = tokio::time::timeout(Duration::from_millis(2), client.until("never")).await;
        client.buffer = Vec::new();
        Ok(client)
    };
    let hub = read_away(hub).await?;
    let crowd = side_by_side(crowd.into_iter().map(read_away)).await?;
    Ok((hub, crowd))
}

/// The n-th friend, who is there and has asked to see `hub0`.
async fn who_asks(target: Target, n: usize) -> io::Result<(usize, Client)> {
    let mut friend = Client::login(&target, &format!("friend{n}"), PASSWORD, "r").await?;
    friend.ask(ROSTER, "id='ro'").await?;
    friend.come().await?;
    friend.ask("<presence type='subscribe' to='hub0@localhost'/>", "subscribe").await?;
    Ok((n, friend))
}

/// Reads until the mark has come so often.
async fn hear(client: &mut Client, mark: &[u8], count: usize) -> io::Result<()> {
    let mut heard = Vec::new();
    loop {
        let mut piece = [0; 16 * 1024];
        let n = tokio::io::AsyncReadExt::read(&mut client.pipe, &mut piece).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        heard.extend_from_slice(&piece[..n]);
        if memchr::memmem::find_iter(&heard, mark).count() >= count {
            return Ok(());
        }
    }
}

/// A span of operations, and the pair that writes beside them.
struct Span {
    done: u64,
    calm: Duration,
    cpu: f64,
    began: Instant,
    canary: Canary,
}

impl Span {
    async fn begin(server: &Server, target: &Target) -> io::Result<Span> {
        let canary = Canary::start(target).await?;
        tokio::time::sleep(CALM).await;
        Ok(Span { done: 0, calm: CALM, cpu: server.cpu(), began: Instant::now(), canary })
    }

    fn goes_on(&self, seconds: u64) -> bool {
        self.done == 0 || self.began.elapsed() < Duration::from_secs(seconds)
    }

    async fn end(self, server: &Server) -> io::Result<Figure> {
        let figure = Figure::of(server, self.done, self.cpu, self.began);
        tokio::time::sleep(self.calm).await;
        let latencies = self.canary.stop()?;
        let worst = latencies.iter().copied().fold(0.0, f64::max);
        Ok(Figure { worst, ..figure }.with(latencies))
    }
}

/// Two who write to each other on a thread of their own, and what their messages took, in milliseconds.
struct Canary {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Vec<f64>>>,
}

impl Canary {
    async fn start(target: &Target) -> io::Result<Canary> {
        let ends = Arc::new(AtomicBool::new(false));
        let (target, until) = (target.clone(), ends.clone());
        let thread = std::thread::spawn(move || {
            goes_first();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(sing(&target, &until))
        });
        // It logs in meanwhile.
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(Canary { ends, thread })
    }

    fn stop(self) -> io::Result<Vec<f64>> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("the pair beside panicked"))?
    }
}

/// This thread runs as soon as it can: what the rest of the load does on its core is no delay of the server's. Where that
/// is not permitted, it is said.
fn goes_first() {
    let thread = std::fs::read_link("/proc/thread-self").ok();
    let thread = thread.as_deref().and_then(|path| path.file_name()).map(ToOwned::to_owned).unwrap_or_default();
    let status = std::process::Command::new("chrt").args(["--fifo", "--pid", "1"]).arg(thread).status();
    if !status.is_ok_and(|status| status.success()) {
        eprintln!("the pair beside has no priority: what it waits for the load's core is counted, too");
    }
}

async fn sing(target: &Target, ends: &AtomicBool) -> io::Result<Vec<f64>> {
    let mut pair = login_all(target, "canary", 2).await?;
    for client in &mut pair {
        client.come().await?;
    }
    let [a, b] = pair.as_mut_slice() else { return Err(io::Error::other("two clients were asked for")) };
    let message = format!("<message to='{}' type='chat' id='m'><body>tweet</body></message>", b.jid);
    let mut piece = vec![0; 16 * 1024];
    let mut latencies = Vec::new();
    while !ends.load(Ordering::Relaxed) {
        let sent = Instant::now();
        a.send(&message).await?;
        while b.count(b"</message>", &mut piece).await? == 0 {}
        latencies.push(sent.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(GAP).await;
    }
    Ok(latencies)
}
