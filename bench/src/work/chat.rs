//! One to one: pairs that keep messages on the way, or send at a fixed rate.

use super::{Crew, Figure, come_all};
use crate::client::Client;
use crate::servers::{Kind, Server};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

#[derive(Clone, Copy)]
pub struct Chat {
    /// Messages that a pair keeps on the way.
    pub window: usize,
    /// Characters.
    pub body: usize,
    pub tls: bool,
    /// With stream management (XEP-0198): each batch asks for an acknowledgement, and acknowledges.
    pub managed: bool,
}

pub const PAIRS: usize = 100;
const MANAGEMENT: &str = "urn:xmpp:sm:3";

/// Pairs that chat both ways. One operation: a message sent and received.
pub async fn windows(server: &Server, chat: Chat, seconds: u64) -> io::Result<Figure> {
    let mut clients = enter(server, chat.tls).await?;
    if chat.managed {
        manage(&mut clients).await?;
    }
    let mut crew = Crew::new();
    let jids: Vec<String> = clients.iter().map(|it| it.jid.clone()).collect();
    for (n, client) in clients.into_iter().enumerate() {
        crew.tasks.spawn(talk(client, jids[n ^ 1].clone(), chat, crew.done.clone()));
    }
    crew.measure(server, seconds).await
}

/// Turns stream management on.
pub async fn manage(clients: impl IntoIterator<Item = &mut Client>) -> io::Result<()> {
    for client in clients {
        client.ask(&format!("<enable xmlns='{MANAGEMENT}'/>"), "<enabled").await?;
    }
    Ok(())
}

/// Everybody: the first and the second are a pair, the third and the fourth, …
async fn enter(server: &Server, tls: bool) -> io::Result<Vec<Client>> {
    if server.kind != Kind::Relay {
        return come_all(server, tls, "chat", PAIRS * 2).await;
    }
    let mut clients = Vec::new();
    for n in 0..PAIRS * 2 {
        clients.push(Client::bare(&server.target(false), &format!("chat{n}@localhost/bench")).await?);
    }
    Ok(clients)
}

pub async fn talk(mut me: Client, peer: String, chat: Chat, done: Arc<AtomicU64>) -> io::Result<()> {
    let message = format!("<message to='{peer}' type='chat' id='m'><body>{}</body></message>", "x".repeat(chat.body));
    let mut piece = vec![0; 64 * 1024];
    let mut received = 0;
    let mut answers = chat.window.div_ceil(2);
    loop {
        if answers > 0 {
            let mut batch = message.repeat(answers);
            if chat.managed {
                batch += &format!("<r xmlns='{MANAGEMENT}'/><a xmlns='{MANAGEMENT}' h='{received}'/>");
            }
            me.send(&batch).await?;
        }
        answers = me.count(b"</message>", &mut piece).await?;
        received += answers;
        done.fetch_add(answers as u64, Ordering::Relaxed);
    }
}

/// Messages at a fixed rate; latency from send to receipt.
pub async fn paced(server: &Server, per_second: u64, seconds: u64) -> io::Result<Figure> {
    let mut clients = enter(server, false).await?.into_iter();
    let (cpu, began) = (server.cpu(), Instant::now());
    let mut set = JoinSet::new();
    let gap = Duration::from_secs_f64(PAIRS as f64 / per_second as f64);
    let count = per_second * seconds / PAIRS as u64;
    let mut n = 0;
    while let (Some(mut a), Some(mut b)) = (clients.next(), clients.next()) {
        let start = tokio::time::Instant::now() + gap.mul_f64(n as f64 / PAIRS as f64);
        n += 1;
        set.spawn(async move {
            let message =
                format!("<message to='{}' type='chat' id='m'><body>{}</body></message>", b.jid, "x".repeat(100));
            let mut piece = vec![0; 16 * 1024];
            let mut latencies = Vec::new();
            for i in 0..count {
                tokio::time::sleep_until(start + gap.mul_f64(i as f64)).await;
                let sent = Instant::now();
                a.send(&message).await?;
                while b.count(b"</message>", &mut piece).await? == 0 {}
                latencies.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            Ok::<_, io::Error>(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = set.join_next().await {
        latencies.extend(done.map_err(io::Error::other)??);
    }
    Ok(Figure::of(server, latencies.len() as u64, cpu, began).with(latencies))
}
