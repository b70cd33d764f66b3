//! What the client does with presence besides being there: fetch, publish, subscribe for a while, ask who watches.

use super::action::id;
use super::login::{Session, stanza_error};
use crate::cli::Action;
use crate::commands::{Failure, say};
use im::{leases, pidf, tuples, watchers};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;
use xmpp::{BareJid, Element, ns};

/// How long the answer to a request may take.
const PATIENCE: Duration = Duration::from_secs(20);
const FETCH: &str = im::modules::fetch::NS;

/// Does the action, if it is one of these.
pub async fn run(session: &mut Session, action: &Action, json: bool) -> Option<Result<(), Failure>> {
    Some(match action {
        Action::Fetch { whom, seconds } => fetch(session, whom, *seconds, json).await,
        Action::Watchers { live, seconds } => list_watchers(session, *live, *seconds, json).await,
        Action::Publish { id, note, contact, expires } => {
            publish(session, id, note.as_deref(), contact.as_deref(), *expires).await
        }
        Action::Subscribe { whom, lease } => tell(session, "subscribe", whom, *lease).await,
        Action::Approve { whom, lease } => tell(session, "subscribed", whom, *lease).await,
        Action::Subscription { whom, repair } => subscription(session, whom, *repair).await,
        Action::Send { .. } | Action::Watch { .. } | Action::Probe { .. } => return None,
    })
}

/// Asks, and gives the result's one child.
async fn ask(
    session: &mut Session,
    kind: &str,
    to: Option<&BareJid>,
    content: Element,
    patience: Duration,
) -> Result<Element, Failure> {
    let id = id();
    let iq = Element::new("iq", ns::CLIENT)
        .attr("type", kind)
        .attr("id", &id)
        .attr_opt("to", to.map(|to| to.as_str()))
        .child(content);
    session.wire.write(&iq.to_bytes(ns::CLIENT)).await?;
    let deadline = Instant::now() + patience;
    loop {
        let Some(stanza) = session.next(deadline).await? else {
            return Err(Failure::Said(format!("no answer within {} s", patience.as_secs())));
        };
        if !stanza.is("iq", ns::CLIENT) || stanza.attribute("id") != Some(&id) {
            continue;
        }
        if stanza.attribute("type") == Some("error") {
            return Err(Failure::Said(format!("refused: {}", stanza_error(&stanza))));
        }
        return Ok(stanza.elements().next().cloned().unwrap_or_else(|| Element::new("nothing", "")));
    }
}

fn text(element: &Element) -> String {
    String::from_utf8_lossy(&element.to_bytes("")).into_owned()
}

async fn fetch(session: &mut Session, whom: &BareJid, seconds: u64, json: bool) -> Result<(), Failure> {
    let patience = Duration::from_secs(seconds);
    let answer = ask(session, "get", Some(whom), Element::new("fetch", FETCH), patience).await?;
    let Some(document) = answer.find("presence", pidf::NS) else {
        return Err(Failure::Said("the answer is no document".into()));
    };
    if !json {
        say(text(document));
        return Ok(());
    }
    for tuple in document.elements().filter(|it| it.is("tuple", pidf::NS)).map(pidf::Tuple::parse) {
        say(json!({
            "kind": "tuple",
            "id": tuple.id,
            "status": if tuple.open { "open" } else { "closed" },
            "show": tuple.show,
            "contact": tuple.contact,
            "notes": tuple.notes.iter().map(|(_, note)| note).collect::<Vec<_>>(),
            "at": tuple.at.map(|at| at.to_xmpp()),
        }));
    }
    Ok(())
}

async fn list_watchers(session: &mut Session, live: bool, seconds: Option<u64>, json: bool) -> Result<(), Failure> {
    let content = if live { Element::new("watch", watchers::NS) } else { Element::new("query", watchers::NS) };
    let answer = ask(session, if live { "set" } else { "get" }, None, content, PATIENCE).await?;
    print_watchers(&answer, json);
    if !live {
        return Ok(());
    }
    let far = Duration::from_secs(365 * 86_400);
    let deadline = Instant::now() + seconds.map_or(far, Duration::from_secs);
    loop {
        let stanza = tokio::select! {
            stanza = session.next(deadline) => stanza?,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(stanza) = stanza else { return Ok(()) };
        if let Some(event) = stanza.find("event", watchers::NS) {
            print_watchers(event, json);
        }
    }
}

/// One line a row.
fn print_watchers(around: &Element, json: bool) {
    let list = around.find("watcherinfo", watchers::WATCHERINFO);
    let list = list.and_then(|info| info.find("watcher-list", watchers::WATCHERINFO));
    let parts = || list.iter().flat_map(|list| list.elements());
    for row in parts().filter(|it| it.is("row", watchers::NS)) {
        let line = parts().find(|it| &*it.name == "watcher" && it.attribute("id") == row.attribute("id"));
        let of_row = |name: &str| row.attribute(name).unwrap_or_default().to_owned();
        let of_line = |name: &str| line.and_then(|it| it.attribute(name)).unwrap_or_default().to_owned();
        if json {
            say(json!({
                "kind": "watcher", "jid": of_row("jid"), "is": of_row("kind"), "status": of_line("status"),
                "event": of_line("event"), "auth": of_row("auth"), "first": of_row("first"), "last": of_row("last"),
                "notifications": of_row("notifications"), "fetches": of_row("fetches"), "refused": of_row("refused"),
            }));
        } else {
            say(format_args!(
                "watcher {} {} {} ({}): {} notifications, {} fetches, {} refused, last {}",
                of_row("jid"),
                of_row("kind"),
                of_line("status"),
                of_line("event"),
                of_row("notifications"),
                of_row("fetches"),
                of_row("refused"),
                of_row("last"),
            ));
        }
    }
}

async fn publish(
    session: &mut Session,
    id: &str,
    note: Option<&str>,
    contact: Option<&str>,
    expires: u32,
) -> Result<(), Failure> {
    let tuple = Element::new("tuple", pidf::NS)
        .attr("id", id)
        .child(Element::new("status", pidf::NS).child(pidf::basic(true)))
        .children_from(contact.map(|uri| Element::new("contact", pidf::NS).text(uri)))
        .children_from(note.map(|note| Element::new("note", pidf::NS).text(note)));
    let content = Element::new("publish", tuples::NS).attr("expires", expires.to_string()).child(tuple);
    let answer = ask(session, "set", None, content, PATIENCE).await?;
    let of = |name: &str| answer.attribute(name).unwrap_or_default().to_owned();
    say(format_args!("published {id} as {} for {} s", of("etag"), of("expires")));
    Ok(())
}

/// A stanza that manages a subscription; ends when the server has taken it.
async fn tell(session: &mut Session, kind: &str, whom: &BareJid, lease: Option<u32>) -> Result<(), Failure> {
    let lease = lease.map(|seconds| Element::new("lease", leases::NS).attr("seconds", seconds.to_string()));
    let stanza_id = id();
    let stanza = Element::new("presence", ns::CLIENT)
        .attr("type", kind)
        .attr("to", whom.as_str())
        .attr("id", &stanza_id)
        .children_from(lease);
    let ping_id = id();
    let ping = Element::new("iq", ns::CLIENT)
        .attr("type", "get")
        .attr("id", &ping_id)
        .attr("to", session.jid.domain())
        .child(Element::new("ping", "urn:xmpp:ping"));
    let mut out = stanza.to_bytes(ns::CLIENT);
    out.extend(ping.to_bytes(ns::CLIENT));
    session.wire.write(&out).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Some(answer) = session.next(deadline).await? else {
            return Err(Failure::Said("the server did not answer".into()));
        };
        if answer.attribute("type") == Some("error") && answer.attribute("id") == Some(&stanza_id) {
            return Err(Failure::Said(format!("refused: {}", stanza_error(&answer))));
        }
        if answer.is("iq", ns::CLIENT) && answer.attribute("id") == Some(&ping_id) {
            say(format_args!("{kind} {whom}"));
            return Ok(());
        }
    }
}

async fn subscription(session: &mut Session, whom: &BareJid, repair: bool) -> Result<(), Failure> {
    let content = Element::new("status", leases::NS).attr("jid", whom.as_str());
    let answer = ask(session, if repair { "set" } else { "get" }, None, content, PATIENCE).await?;
    say(text(&answer));
    Ok(())
}
