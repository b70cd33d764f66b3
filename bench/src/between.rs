//! Chat between two domains: the load of `bench/federation/run`, which starts their servers.

use crate::client::{Client, Target, trusting};
use crate::servers::cpu_seconds;
use crate::work::chat::{self, Chat};
use crate::work::{Crew, PASSWORD};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The first messages wait for the servers to find each other.
const FIRST_MESSAGES: Duration = Duration::from_secs(60);

/// A server and its domain: `DOMAIN=ADDRESS:PORT=PROCESS`.
#[derive(Debug, Clone)]
pub struct Side {
    domain: String,
    address: SocketAddr,
    process: u32,
}

impl FromStr for Side {
    type Err = String;

    fn from_str(text: &str) -> Result<Side, String> {
        let wrong = |_| format!("{text:?} is not DOMAIN=ADDRESS:PORT=PROCESS");
        let mut parts = text.split('=');
        let mut next = || parts.next().unwrap_or_default();
        Ok(Side {
            domain: next().to_owned(),
            address: next().parse().map_err(|it: std::net::AddrParseError| wrong(it.to_string()))?,
            process: next().parse().map_err(|it: std::num::ParseIntError| wrong(it.to_string()))?,
        })
    }
}

/// The first `users` of each side, `user0` and so on, who are there: pairs across the domains that keep `window`
/// messages on the way, with stream management or without. Prints messages, seconds, and each side's CPU seconds.
pub async fn run(sides: [&Side; 2], users: usize, window: usize, managed: bool, seconds: u64) -> io::Result<()> {
    let mut here = come(sides[0], users).await?;
    let mut there = come(sides[1], users).await?;
    let chat = Chat { window, body: 100, tls: true, managed };
    let mut crew = Crew::new();
    if managed {
        chat::manage(here.iter_mut().chain(&mut there)).await?;
    }
    while let (Some(a), Some(b)) = (here.pop(), there.pop()) {
        let (of_a, of_b) = (a.jid.clone(), b.jid.clone());
        crew.tasks.spawn(chat::talk(a, of_b, chat, crew.done.clone()));
        crew.tasks.spawn(chat::talk(b, of_a, chat, crew.done.clone()));
    }
    let begin_by = Instant::now() + FIRST_MESSAGES;
    while crew.done.load(Ordering::Relaxed) < users as u64 * 4 {
        if Instant::now() > begin_by {
            return Err(io::Error::other("the domains do not find each other"));
        }
        crew.work(Duration::from_millis(100)).await?;
    }
    crew.work(Duration::from_secs(1)).await?;
    let spent = || sides.map(|side| cpu_seconds(side.process));
    let (began, cpu, done) = (Instant::now(), spent(), crew.done.load(Ordering::Relaxed));
    crew.work(Duration::from_secs(seconds)).await?;
    let (done, took) = (crew.done.load(Ordering::Relaxed) - done, began.elapsed().as_secs_f64());
    let [of_here, of_there] = spent();
    println!("{done} {took:.3} {:.2} {:.2}", of_here - cpu[0], of_there - cpu[1]);
    Ok(())
}

async fn come(side: &Side, users: usize) -> io::Result<Vec<Client>> {
    let target = Target {
        address: side.address,
        domain: side.domain.clone(),
        tls: Some(trusting()),
        starttls: true,
        from: Ipv4Addr::LOCALHOST,
    };
    let mut clients = Vec::new();
    for n in 0..users {
        let name = format!("user{n}");
        // ejabberd's accounts are made in-band.
        let client = Client::login(&target, &name, PASSWORD, "bench").await;
        let mut client = match client {
            Ok(client) => client,
            Err(_) => {
                Client::register(&target, &name, PASSWORD).await?;
                Client::login(&target, &name, PASSWORD, "bench").await?
            }
        };
        client.come().await?;
        clients.push(client);
    }
    Ok(clients)
}
