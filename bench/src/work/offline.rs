//! Messages to accounts that are away, and their coming to fetch them.

use super::{Crew, Figure, PASSWORD, login_all, register};
use crate::client::Client;
use crate::servers::Server;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Instant;

const SENDERS: usize = 8;
/// Peers keep 100 for an account.
const EACH: usize = 90;
/// Accounts a sender writes to.
const ACCOUNTS: usize = 40;

/// Messages acknowledged by the stream (XEP-0198). One operation: a message.
pub async fn store(server: &Server, seconds: u64) -> io::Result<Figure> {
    let mut crew = write(server).await?;
    // It ends by itself when all accounts are full.
    let began = Instant::now();
    let cpu = server.cpu();
    crew.work(std::time::Duration::from_secs(seconds)).await?;
    Ok(Figure::of(server, crew.done.load(Ordering::Relaxed), cpu, began))
}

/// Accounts that come to find their messages. One operation: a message fetched; the logins are paid by them.
pub async fn fetch(server: &Server, _: u64) -> io::Result<Figure> {
    let mut crew = write(server).await?;
    crew.work(std::time::Duration::from_secs(60)).await?;
    if crew.done.load(Ordering::Relaxed) != (SENDERS * ACCOUNTS * EACH) as u64 {
        return Err(io::Error::other("the messages are not stored within a minute"));
    }
    let target = server.target(false);
    let (cpu, began) = (server.cpu(), Instant::now());
    let mut piece = vec![0; 64 * 1024];
    let mut operations = 0;
    for n in 0..SENDERS * ACCOUNTS {
        let mut client = Client::login(&target, &format!("away{n}"), PASSWORD, "bench").await?;
        client.send("<presence/>").await?;
        let mut fetched = 0;
        while fetched < EACH {
            fetched += client.count(b"</message>", &mut piece).await?;
        }
        operations += fetched as u64;
        client.send("</stream:stream>").await?;
    }
    Ok(Figure::of(server, operations, cpu, began))
}

async fn write(server: &Server) -> io::Result<Crew> {
    register(server, "away", SENDERS * ACCOUNTS).await?;
    register(server, "store", SENDERS).await?;
    let mut clients = login_all(&server.target(false), "store", SENDERS).await?;
    for client in &mut clients {
        client.ask("<enable xmlns='urn:xmpp:sm:3'/>", "<enabled").await?;
    }
    let mut crew = Crew::new();
    for (n, mut client) in clients.into_iter().enumerate() {
        let counter = crew.done.clone();
        crew.tasks.spawn(async move {
            let mut done = 0;
            for account in 0..ACCOUNTS {
                let message = format!(
                    "<message to='away{}@localhost' type='chat' id='m'><body>{}</body></message>",
                    n * ACCOUNTS + account,
                    "x".repeat(100)
                );
                for _ in 0..EACH / 10 {
                    done += 10;
                    let batch = message.repeat(10) + "<r xmlns='urn:xmpp:sm:3'/>";
                    client.ask(&batch, &format!("h='{done}'|h=\"{done}\"")).await?;
                    counter.fetch_add(10, Ordering::Relaxed);
                }
            }
            Ok(())
        });
    }
    Ok(crew)
}
