//! `waft s2s list`: links to servers of other domains, as the running server sees them.

use super::status::{connect, unexpected};
use super::{Failure, say};
use crate::admin::{Answer, Link, Request};
use crate::cli::{Place, S2s};

pub fn s2s(command: &S2s) -> Result<(), Failure> {
    match command {
        S2s::List { domain, json, place } => list(domain.as_deref(), *json, place),
    }
}

fn list(domain: Option<&str>, json: bool, place: &Place) -> Result<(), Failure> {
    let Answer::Links { links } = connect(place)?.ask(&Request::Links)? else { return Err(unexpected()) };
    let links: Vec<Link> = links.into_iter().filter(|link| domain.is_none_or(|domain| link.remote == domain)).collect();
    if json {
        for link in &links {
            say(serde_json::to_string(link).map_err(Failure::said)?);
        }
        return Ok(());
    }
    if links.is_empty() {
        say("no links: nothing is said to other domains, and nothing waits");
    }
    for link in &links {
        say(line(link));
    }
    Ok(())
}

fn line(link: &Link) -> String {
    let arrow = match link.direction.as_str() {
        "out" => "-->",
        "in" => "<--",
        "both" => "<->",
        _ => "-/-",
    };
    let mut line = format!("{} {arrow} {}  {}", link.local, link.remote, link.trust);
    if let Some(address) = &link.address {
        line.push_str(&format!("  {address}"));
    }
    if let Some(since) = &link.since {
        line.push_str(&format!("  since {since}"));
    }
    if link.queue > 0 {
        line.push_str(&format!("  {} wait ({} bytes)", link.queue, link.queue_bytes));
    }
    if let Some(failure) = &link.failure {
        line.push_str(&format!("  last attempt: {failure}"));
    }
    line
}
