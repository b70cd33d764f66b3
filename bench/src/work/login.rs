//! The way in: connect, authenticate, bind, first presence, leave.

use super::{Crew, Figure, PASSWORD, register};
use crate::client::{Client, Mechanism};
use crate::servers::Server;
use std::io;
use std::sync::atomic::Ordering;

const USERS: usize = 50;

pub async fn logins(server: &Server, mechanism: Mechanism, tls: bool, seconds: u64) -> io::Result<Figure> {
    register(server, "login", USERS).await?;
    let mut crew = Crew::new();
    for n in 0..USERS {
        let (target, done) = (server.target(tls), crew.done.clone());
        crew.tasks.spawn(async move {
            let user = format!("login{n}");
            // What is shown instead of the password (XEP-0484) is asked for once.
            let token = match mechanism {
                Mechanism::Fast => Client::token(&target, &user, PASSWORD).await?,
                Mechanism::ScramSha1 | Mechanism::Plain => PASSWORD.to_owned(),
            };
            loop {
                let mut client = Client::enter(&target, mechanism, &user, &token, "bench").await?;
                client.ask("<presence/>", "<presence").await?;
                client.send("</stream:stream>").await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    crew.measure(server, seconds).await
}
