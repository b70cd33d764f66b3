//! Reading an archive (XEP-0313).

use super::{Crew, Figure, come_all};
use crate::client::Client;
use crate::servers::Server;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const SENDERS: usize = 7;
/// Messages of one sender on the way.
const WINDOW: usize = 200;
const PAGE: usize = 50;
/// An archive is filled within that time, or not at all.
const FILLED_WITHIN: Duration = Duration::from_secs(600);

/// Pages of 50 of an account that has so many messages, from the newest back and from the oldest on.
pub async fn pages(server: &Server, messages: usize, seconds: u64) -> io::Result<Figure> {
    let mut clients = come_all(server, false, "page", SENDERS + 1).await?;
    let mut reader = clients.remove(0);
    fill(clients, &mut reader, messages).await?;
    let mut latencies = Vec::new();
    let (cpu, began) = (server.cpu(), Instant::now());
    let mut marks = [String::new(), String::new()];
    while began.elapsed() < Duration::from_secs(seconds) {
        for (mark, (step, ends_with)) in marks.iter_mut().zip([("before", "first"), ("after", "last")]) {
            let position = match mark.is_empty() && step == "after" {
                true => String::new(),
                false => format!("<{step}>{mark}</{step}>"),
            };
            let asked = Instant::now();
            let page = reader
                .ask(
                    &format!(
                        "<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'>\
                         <set xmlns='http://jabber.org/protocol/rsm'><max>{PAGE}</max>{position}</set></query></iq>"
                    ),
                    "</iq>",
                )
                .await?;
            latencies.push(asked.elapsed().as_secs_f64() * 1e3);
            let text = String::from_utf8_lossy(&page);
            let found = memchr::memmem::find_iter(&page, b"</result>").count();
            let end = text.split(&format!("<{ends_with}")).last().and_then(|it| it.split(['>', '<']).nth(1));
            match end {
                Some(id) if found == PAGE => *mark = id.to_owned(),
                // The end of the archive: from the other one again.
                _ if found < PAGE && !mark.is_empty() && text.contains("complete=") => mark.clear(),
                _ => return Err(io::Error::other(format!("a page of {found}: {text:.600}"))),
            }
        }
    }
    Ok(Figure::of(server, latencies.len() as u64, cpu, began).with(latencies))
}

async fn fill(senders: Vec<Client>, reader: &mut Client, messages: usize) -> io::Result<()> {
    let until = Instant::now() + FILLED_WITHIN;
    let mut crew = Crew::new();
    let taken = crew.done.clone();
    let each = messages / senders.len();
    let total = each * senders.len();
    let count = senders.len();
    for mut client in senders {
        let (to, taken) = (reader.jid.clone(), taken.clone());
        crew.tasks.spawn(async move {
            let message = format!("<message to='{to}' type='chat' id='m'><body>{}</body></message>", "x".repeat(100));
            let mut sent = 0;
            while sent < each {
                // As fast as it is taken, all at the same pace.
                while sent + 10 > taken.load(Ordering::Relaxed) as usize / count + WINDOW {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let batch = (each - sent).min(10);
                client.send(&message.repeat(batch)).await?;
                sent += batch;
            }
            // It stays until all is there.
            std::future::pending().await
        });
    }
    let mut piece = vec![0; 64 * 1024];
    while (taken.load(Ordering::Relaxed) as usize) < total {
        if Instant::now() > until {
            return Err(io::Error::other("the archive was not filled in time"));
        }
        taken.fetch_add(reader.count(b"</message>", &mut piece).await? as u64, Ordering::Relaxed);
    }
    reader.buffer.clear();
    Ok(())
}
