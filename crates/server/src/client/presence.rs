//! What the client does with presence besides being there: fetch, publish, subscribe for a while, ask who watches.

use super::action::id;
use super::login::{Session, stanza_error};
use crate::cli::Action;
use crate::commands::rules::print_rule;
use crate::commands::{Failure, say};
use im::{leases, pidf, rules, tuples, watchers};
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
        Action::Fetch { whom, seconds, pseudonym } => fetch(session, whom, *seconds, *pseudonym, json).await,
        Action::Watchers { whom, live, seconds } => list_watchers(session, whom.as_ref(), *live, *seconds, json).await,
        Action::Publish { id, note, contact, expires, whom } => {
            publish(session, whom.as_ref(), id, note.as_deref(), contact.as_deref(), *expires).await
        }
        Action::Rules { id, values, remove } => access_rules(session, id.as_deref(), values, *remove, json).await,
        Action::Subscribe { whom, lease, pseudonym } => {
            let name = pseudonym.then(|| Element::new("pseudonym", leases::NS));
            tell(session, "subscribe", whom, seconds(*lease).into_iter().chain(name).collect()).await
        }
        Action::Approve { whom, lease } => {
            tell(session, "subscribed", whom, seconds(*lease).into_iter().collect()).await
        }
        Action::Unsubscribe { whom } => tell(session, "unsubscribe", whom, Vec::new()).await,
        Action::Refuse { whom, reason } => {
            let why = |reason: &String| Element::new("lease", leases::NS).attr("seconds", "0").attr("reason", reason);
            tell(session, "unsubscribed", whom, reason.iter().map(why).collect()).await
        }
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

async fn fetch(
    session: &mut Session,
    whom: &BareJid,
    seconds: u64,
    pseudonym: bool,
    json: bool,
) -> Result<(), Failure> {
    let patience = Duration::from_secs(seconds);
    let asked = Element::new("fetch", FETCH).attr_opt("pseudonym", pseudonym.then_some("true"));
    let answer = ask(session, "get", Some(whom), asked, patience).await?;
    let Some(document) = answer.find("presence", pidf::NS) else {
        return Err(Failure::Said("the answer is no document".into()));
    };
    print_document(document, json);
    Ok(())
}

/// The document, or an object a tuple.
pub fn print_document(document: &Element, json: bool) {
    if !json {
        return say(text(document));
    }
    for element in document.elements().filter(|it| it.is("tuple", pidf::NS)) {
        let tuple = pidf::Tuple::parse(element);
        say(json!({
            "kind": "tuple",
            "id": tuple.id,
            "status": if tuple.open { "open" } else { "closed" },
            "show": tuple.show,
            "contact": tuple.contact,
            "notes": tuple.notes.iter().map(|(_, note)| note).collect::<Vec<_>>(),
            "at": tuple.at.map(|at| at.to_xmpp()),
            "publisher": element.find("publisher", tuples::NS).map(Element::text_content),
        }));
    }
}

/// Shows the rules, or edits one of them.
async fn access_rules(
    session: &mut Session,
    id: Option<&str>,
    values: &[(String, String)],
    remove: bool,
    json: bool,
) -> Result<(), Failure> {
    let shown = ask(session, "get", None, Element::new("rules", rules::xml::NS), PATIENCE).await?;
    let Some(id) = id.filter(|_| remove || !values.is_empty()) else {
        let ruleset = shown.find("ruleset", rules::xml::COMMON);
        let all = ruleset.iter().flat_map(|set| set.elements());
        all.filter(|rule| id.is_none_or(|id| rule.attribute("id") == Some(id))).for_each(|rule| print_rule(rule, json));
        return Ok(());
    };
    let edit = if remove {
        Element::new("remove", rules::xml::NS).attr("id", id)
    } else {
        let wrong = |error: xmpp::StanzaError| {
            Failure::Said(error.text.map_or_else(|| error.condition.name().to_owned(), |text| text.to_string()))
        };
        rules::short::rule(id, values).map_err(wrong)?.to_element()
    };
    let etag = shown.attribute("etag").unwrap_or_default();
    let edit = Element::new("rules", rules::xml::NS).attr("etag", etag).child(edit);
    ask(session, "set", None, edit, PATIENCE).await?;
    say(format_args!("{} the rule {id}", if remove { "removed" } else { "put" }));
    Ok(())
}

async fn list_watchers(
    session: &mut Session,
    whom: Option<&BareJid>,
    live: bool,
    seconds: Option<u64>,
    json: bool,
) -> Result<(), Failure> {
    let content = if live { Element::new("watch", watchers::NS) } else { Element::new("query", watchers::NS) };
    let answer = ask(session, if live { "set" } else { "get" }, whom, content, PATIENCE).await?;
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
pub fn print_watchers(around: &Element, json: bool) {
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
                "pseudonym": row.attribute("pseudonym").is_some(), "expiration": of_line("expiration"),
            }));
        } else {
            say(format_args!(
                "watcher {} {} {} ({}) by {}: {} notifications, {} fetches, {} refused, last {}",
                of_row("jid"),
                of_row("kind"),
                of_line("status"),
                of_line("event"),
                of_row("auth"),
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
    whom: Option<&BareJid>,
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
    let answer = ask(session, "set", whom, content, PATIENCE).await?;
    let of = |name: &str| answer.attribute(name).unwrap_or_default().to_owned();
    say(format_args!("published {id} as {} for {} s", of("etag"), of("expires")));
    Ok(())
}

fn seconds(lease: Option<u32>) -> Option<Element> {
    lease.map(|seconds| Element::new("lease", leases::NS).attr("seconds", seconds.to_string()))
}

/// A stanza that manages a subscription; ends when the server has taken it.
async fn tell(session: &mut Session, kind: &str, whom: &BareJid, content: Vec<Element>) -> Result<(), Failure> {
    let stanza_id = id();
    let stanza = Element::new("presence", ns::CLIENT)
        .attr("type", kind)
        .attr("to", whom.as_str())
        .attr("id", &stanza_id)
        .children_from(content);
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
