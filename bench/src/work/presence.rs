//! One account whose presence goes to many.

use super::{Figure, PASSWORD, login_all, register};
use crate::client::Client;
use crate::servers::{Kind, Server};
use std::io;
use std::time::{Duration, Instant};

/// Requests and pushes go to those who have asked for the roster.
const ROSTER: &str = "<iq type='get' id='ro'><query xmlns='jabber:iq:roster'/></iq>";

/// One operation: a notification delivered.
pub async fn broadcast(server: &Server, watchers: usize, seconds: u64) -> io::Result<Figure> {
    let (mut star, mut clients, from) = match server.kind {
        Kind::Fan => enter_bare(server, watchers).await?,
        _ => enter(server, watchers).await?,
    };
    let mut piece = vec![0; 64 * 1024];
    let (mut operations, mut round) = (0, 0u64);
    let (mut cpu, mut began) = (server.cpu(), Instant::now());
    let mut warm = false;
    while !warm || began.elapsed() < Duration::from_secs(seconds) {
        // The first rounds bring the clients what is left of the set-up.
        if !warm && round == 3 {
            (cpu, began, operations, warm) = (server.cpu(), Instant::now(), 0, true);
        }
        round += 1;
        let status = format!("round-{round}-");
        star.send(&format!("<presence{from}><status>{status}</status></presence>")).await?;
        for client in &mut clients {
            while client.count(status.as_bytes(), &mut piece).await? == 0 {}
            operations += 1;
        }
    }
    Ok(Figure::of(server, operations, cpu, began))
}

/// The one whose presence it is, those who see it, and what a presence says beside its status.
async fn enter(server: &Server, watchers: usize) -> io::Result<(Client, Vec<Client>, &'static str)> {
    let target = server.target(false);
    register(server, "watch", watchers).await?;
    register(server, "star", 1).await?;
    let mut star = Client::login(&target, "star0", PASSWORD, "bench").await?;
    star.ask(ROSTER, "id='ro'|id=\"ro\"").await?;
    star.come().await?;
    let mut clients = login_all(&target, "watch", watchers).await?;
    for (n, client) in clients.iter_mut().enumerate() {
        client.ask(ROSTER, "id='ro'|id=\"ro\"").await?;
        client.come().await?;
        client.ask("<presence type='subscribe' to='star0@localhost'/>", "subscribe").await?;
        star.ask(&format!("<presence type='subscribed' to='watch{n}@localhost'/>"), &format!("watch{n}@localhost"))
            .await?;
        client.until("star0@localhost/bench").await?;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Everything that is on the way is read away first; the star's new session has a roster to hear nothing of.
    for client in &mut clients {
        client.buffer.clear();
        let _ = tokio::time::timeout(Duration::from_millis(5), client.until("never")).await;
        client.buffer.clear();
    }
    drop(star);
    Ok((Client::login(&target, "star0", PASSWORD, "stage").await?, clients, ""))
}

/// The same at the floor: the addresses, which a server writes, are said by who sends.
async fn enter_bare(server: &Server, watchers: usize) -> io::Result<(Client, Vec<Client>, &'static str)> {
    let target = server.target(false);
    let star = Client::bare(&target, "star0@localhost/stage").await?;
    let mut clients = Vec::new();
    for n in 0..watchers {
        clients.push(Client::bare(&target, &format!("watch{n}@localhost/bench")).await?);
    }
    // All of them are accepted by then.
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok((star, clients, " from='star0@localhost/stage' to='watch0@localhost/bench'"))
}
