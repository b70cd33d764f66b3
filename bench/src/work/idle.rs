//! Sessions that do nothing.

use super::{Figure, PASSWORD, register};
use crate::client::Client;
use crate::servers::Server;
use std::io;
use std::time::{Duration, Instant};

/// Sessions of one account: servers take no more than some.
const EACH_USER: usize = 10;
const CONTACTS: usize = 20;

/// Memory of idle sessions, each of an account with 20 contacts; and logins a second meanwhile.
pub async fn sessions(server: &Server, tls: bool, count: usize) -> io::Result<Figure> {
    let users = count.div_ceil(EACH_USER);
    register(server, "idle", users).await?;
    for n in 0..users {
        let mut client = Client::login(&server.target(false), &format!("idle{n}"), PASSWORD, "roster").await?;
        for contact in 0..CONTACTS {
            let set = format!(
                "<iq type='set' id='c{contact}-'><query xmlns='jabber:iq:roster'>\
                 <item jid='contact{contact}@localhost' name='Contact {contact}'/></query></iq>"
            );
            client.ask(&set, &format!("id='c{contact}-'|id=\"c{contact}-\"")).await?;
        }
        client.send("</stream:stream>").await?;
    }
    let target = server.target(tls);
    let mut held = Vec::new();
    for n in 0..20 {
        held.push(Client::login(&target, &format!("idle{n}"), PASSWORD, "warm").await?);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, cpu, began) = (server.rss(), server.cpu(), Instant::now());
    for n in 0..count {
        let target = target.of_client(n);
        let mut client = Client::login(&target, &format!("idle{}", n % users), PASSWORD, &format!("r{n}")).await?;
        client.ask("<presence><priority>-1</priority></presence>", "<presence").await?;
        client.buffer = Vec::new();
        held.push(client);
    }
    let measured = Figure::of(server, count as u64, cpu, began);
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok(Figure { bytes: server.rss().saturating_sub(before) as f64 / count as f64, ..measured })
}
