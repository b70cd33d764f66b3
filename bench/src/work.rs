//! The workloads: each sets itself up, measures one span, and says what an operation cost.

use crate::client::{Client, Target};
use crate::servers::Server;
use std::io;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What one run of one workload on one server came to.
#[derive(Debug, Clone, Default)]
pub struct Figure {
    pub cpu_us: f64,
    pub per_second: f64,
    /// Bytes of server memory an operation (idle connections).
    pub bytes: f64,
    /// Milliseconds.
    pub p50: f64,
    pub p99: f64,
}

fn figure(server: &Server, operations: u64, cpu: f64, began: Instant) -> Figure {
    let seconds = began.elapsed().as_secs_f64();
    Figure {
        cpu_us: (server.cpu() - cpu) * 1e6 / operations.max(1) as f64,
        per_second: operations as f64 / seconds,
        ..Figure::default()
    }
}

pub async fn register(target: &Target, prefix: &str, count: usize) -> io::Result<()> {
    for n in 0..count {
        Client::register(target, &format!("{prefix}{n}"), "secret").await?;
    }
    Ok(())
}

async fn login_all(target: &Target, prefix: &str, count: usize) -> io::Result<Vec<Client>> {
    let mut clients = Vec::new();
    for n in 0..count {
        clients.push(Client::login(target, &format!("{prefix}{n}"), "secret", "bench").await?);
    }
    Ok(clients)
}

/// Pairs that chat both ways: each keeps `window` messages on the way. One operation: a message sent and received.
pub async fn chat(
    server: &Server,
    tls: bool,
    pairs: usize,
    window: usize,
    body: usize,
    seconds: u64,
) -> io::Result<Figure> {
    let target = server.target(tls);
    register(&server.target(false), "chat", pairs * 2).await?;
    let mut clients = login_all(&target, "chat", pairs * 2).await?;
    for client in &mut clients {
        client.ask("<presence/>", "</presence>|/>").await?;
        client.buffer.clear();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let text = "x".repeat(body);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (cpu, began) = (server.cpu(), Instant::now());
    let mut set = JoinSet::new();
    let mut clients = clients.into_iter();
    while let (Some(a), Some(b)) = (clients.next(), clients.next()) {
        for (mut me, other) in
            [(0, 1), (1, 0)].into_iter().zip([a, b]).map(|((mine, _), c)| (c, mine)).collect::<Vec<_>>()
        {
            let text = text.clone();
            set.spawn(async move {
                let user: usize =
                    me.jid.trim_start_matches("chat").split('@').next().and_then(|n| n.parse().ok()).unwrap_or(0);
                let peer = if other == 0 { user + 1 } else { user - 1 };
                let message = format!(
                    "<message to='chat{peer}@localhost/bench' type='chat' id='m'><body>{text}</body></message>"
                );
                let mut piece = vec![0; 64 * 1024];
                let batch = message.repeat(window.div_ceil(2));
                me.send(&batch).await?;
                let mut received = 0u64;
                loop {
                    let n = me.count(b"</message>", &mut piece).await?;
                    received += n as u64;
                    if Instant::now() >= end {
                        return Ok::<u64, io::Error>(received);
                    }
                    if n > 0 {
                        me.send(&message.repeat(n)).await?;
                    }
                }
            });
        }
    }
    let mut operations = 0;
    let mut first_error = None;
    // A pair's second half may wait for a message that its peer no longer sends.
    let deadline = tokio::time::Instant::from_std(end + Duration::from_millis(500));
    while let Ok(Some(done)) = tokio::time::timeout_at(deadline, set.join_next()).await {
        match done.map_err(io::Error::other)? {
            Ok(count) => operations += count,
            Err(error) => first_error = Some(error),
        }
    }
    let measured = figure(server, operations, cpu, began);
    match first_error {
        Some(error) if operations == 0 => Err(error),
        _ => Ok(measured),
    }
}

/// Messages at a fixed rate; latency from send to receipt.
pub async fn paced(server: &Server, pairs: usize, per_second: u64, seconds: u64) -> io::Result<Figure> {
    let target = server.target(false);
    register(&target, "pace", pairs * 2).await?;
    let mut clients = login_all(&target, "pace", pairs * 2).await?;
    for client in &mut clients {
        client.ask("<presence/>", "</presence>|/>").await?;
        client.buffer.clear();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (cpu, began) = (server.cpu(), Instant::now());
    let mut set = JoinSet::new();
    let gap = Duration::from_secs_f64(pairs as f64 / per_second as f64);
    let count = per_second * seconds / pairs as u64;
    let mut clients = clients.into_iter();
    let mut n = 0;
    while let (Some(mut a), Some(mut b)) = (clients.next(), clients.next()) {
        let offset = gap.mul_f64(n as f64 / pairs as f64);
        n += 1;
        set.spawn(async move {
            let message =
                format!("<message to='{}' type='chat' id='m'><body>{}</body></message>", b.jid, "x".repeat(100));
            let mut piece = vec![0; 16 * 1024];
            let mut latencies = Vec::new();
            let start = tokio::time::Instant::now() + offset;
            for i in 0..count {
                tokio::time::sleep_until(start + gap.mul_f64(i as f64)).await;
                let sent = Instant::now();
                a.send(&message).await?;
                while b.count(b"</message>", &mut piece).await? == 0 {}
                latencies.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            Ok::<Vec<f64>, io::Error>(latencies)
        });
    }
    let mut all = Vec::new();
    while let Some(done) = set.join_next().await {
        all.extend(done.map_err(io::Error::other)??);
    }
    let mut measured = figure(server, all.len() as u64, cpu, began);
    all.sort_by(f64::total_cmp);
    let at = |share: f64| {
        all.get(((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1))).copied().unwrap_or(0.0)
    };
    (measured.p50, measured.p99) = (at(0.5), at(0.99));
    Ok(measured)
}

/// Connect, SCRAM-SHA-1, bind, first presence, leave.
pub async fn login(server: &Server, tls: bool, seconds: u64) -> io::Result<Figure> {
    const USERS: usize = 50;
    let target = server.target(tls);
    register(&server.target(false), "login", USERS).await?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let (cpu, began) = (server.cpu(), Instant::now());
    let mut set = JoinSet::new();
    for n in 0..USERS {
        let target = target.clone();
        set.spawn(async move {
            let mut done = 0u64;
            while Instant::now() < end {
                let mut client = Client::login(&target, &format!("login{n}"), "secret", "bench").await?;
                client.ask("<presence/>", "<presence").await?;
                client.send("</stream:stream>").await?;
                done += 1;
            }
            Ok::<u64, io::Error>(done)
        });
    }
    let mut operations = 0;
    while let Some(done) = set.join_next().await {
        operations += done.map_err(io::Error::other)??;
    }
    Ok(figure(server, operations, cpu, began))
}

/// One account whose presence goes to `watchers`. One operation: a notification delivered.
pub async fn presence(server: &Server, watchers: usize, seconds: u64) -> io::Result<Figure> {
    let target = server.target(false);
    register(&target, "watch", watchers).await?;
    register(&target, "star", 1).await?;
    let mut star = Client::login(&target, "star0", "secret", "bench").await?;
    // Requests and pushes go to those who have asked for the roster.
    const ROSTER: &str = "<iq type='get' id='ro'><query xmlns='jabber:iq:roster'/></iq>";
    star.ask(ROSTER, "id='ro'|id=\"ro\"").await?;
    star.ask("<presence/>", "<presence").await?;
    let mut clients = login_all(&target, "watch", watchers).await?;
    for (n, client) in clients.iter_mut().enumerate() {
        client.ask(ROSTER, "id='ro'|id=\"ro\"").await?;
        client.ask("<presence/>", "<presence").await?;
        client.ask("<presence type='subscribe' to='star0@localhost'/>", "subscribe").await?;
        star.send(&format!("<presence type='subscribed' to='watch{n}@localhost'/>")).await?;
        client.until("star0@localhost/bench").await?;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let end = Instant::now() + Duration::from_secs(seconds);
    // Everything that is on the way is read away first.
    for client in &mut clients {
        client.buffer.clear();
        let _ = tokio::time::timeout(Duration::from_millis(20), client.until("never")).await;
        client.buffer.clear();
    }
    let drain = tokio::spawn(async move {
        let mut piece = vec![0; 64 * 1024];
        while star.count(b"never", &mut piece).await.is_ok() {}
    });
    drain.abort();
    let mut star = Client::login(&target, "star0", "secret", "stage").await?;
    let (cpu, began) = (server.cpu(), Instant::now());
    let mut piece = vec![0; 64 * 1024];
    let (mut operations, mut round) = (0u64, 0u64);
    while Instant::now() < end {
        round += 1;
        let status = format!("round-{round}-");
        star.send(&format!("<presence><status>{status}</status></presence>")).await?;
        for client in &mut clients {
            let mut seen = 0;
            while seen == 0 {
                seen = client.count(status.as_bytes(), &mut piece).await?;
            }
            operations += 1;
        }
    }
    Ok(figure(server, operations, cpu, began))
}

/// Memory of idle sessions.
pub async fn idle(server: &Server, tls: bool, count: usize) -> io::Result<Figure> {
    const USERS: usize = 100;
    let target = server.target(tls);
    register(&server.target(false), "idle", USERS).await?;
    let mut held = Vec::new();
    for n in 0..20 {
        held.push(Client::login(&target, &format!("idle{n}"), "secret", "warm").await?);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = server.rss();
    for n in 0..count {
        let mut client = Client::login(&target, &format!("idle{}", n % USERS), "secret", &format!("r{n}")).await?;
        client.ask("<presence><priority>-1</priority></presence>", "<presence").await?;
        client.buffer = Vec::new();
        held.push(client);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let bytes = (server.rss().saturating_sub(before)) as f64 / count as f64;
    Ok(Figure { bytes, ..Figure::default() })
}

/// Messages to an account that is away, acknowledged by the stream (XEP-0198).
pub async fn offline(server: &Server, senders: usize, seconds: u64) -> io::Result<Figure> {
    let target = server.target(false);
    register(&target, "away", senders * 64).await?;
    register(&target, "store", senders).await?;
    let mut clients = login_all(&target, "store", senders).await?;
    for client in &mut clients {
        client.ask("<enable xmlns='urn:xmpp:sm:3'/>", "<enabled").await?;
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    let (cpu, began) = (server.cpu(), Instant::now());
    let mut set = JoinSet::new();
    for (n, mut client) in clients.into_iter().enumerate() {
        set.spawn(async move {
            let mut done = 0u64;
            // An account takes 1,000 at most.
            'accounts: for account in 0..64 {
                let message = format!(
                    "<message to='away{}@localhost' type='chat' id='m'><body>{}</body></message>",
                    n * 64 + account,
                    "x".repeat(100)
                );
                for _ in 0..95 {
                    if Instant::now() >= end {
                        break 'accounts;
                    }
                    client
                        .ask(
                            &(message.repeat(10) + "<r xmlns='urn:xmpp:sm:3'/>"),
                            &format!("h='{}'|h=\"{}\"", done + 10, done + 10),
                        )
                        .await?;
                    done += 10;
                }
            }
            Ok::<u64, io::Error>(done)
        });
    }
    let mut operations = 0;
    while let Some(done) = set.join_next().await {
        operations += done.map_err(io::Error::other)??;
    }
    Ok(figure(server, operations, cpu, began))
}
