//! `waft s2s`: links to servers of other domains as the running server sees them, their keys, and what they lost.

use super::acts::act;
use super::status::{connect, unexpected};
use super::{Failure, say};
use crate::admin::acts::Act;
use crate::admin::{Answer, Link, Request};
use crate::cli::{Place, S2s};

pub fn s2s(command: &S2s) -> Result<(), Failure> {
    match command {
        S2s::List { domain, json, place } => list(domain.as_deref(), *json, place),
        S2s::Known { json, place } => known(*json, place),
        S2s::Lost { domain, json, place } => lost(domain.as_deref(), *json, place),
        S2s::Block { domain, place } => act(Act::Block { domain: domain.clone(), blocked: true }, place),
        S2s::Unblock { domain, place } => act(Act::Block { domain: domain.clone(), blocked: false }, place),
        S2s::Blocked(place) => act(Act::Blocked, place),
        S2s::Forget { domain, place } => {
            connect(place)?.ask(&Request::Forget { domain: domain.clone() })?;
            say(format_args!("forgotten: the next contact with {domain} is a first one"));
            Ok(())
        }
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

fn known(json: bool, place: &Place) -> Result<(), Failure> {
    let Answer::Servers { servers } = connect(place)?.ask(&Request::Known)? else { return Err(unexpected()) };
    if servers.is_empty() && !json {
        say("no servers: none is nearby, and no key was noted");
    }
    for server in servers {
        if json {
            say(serde_json::to_string(&server).map_err(Failure::said)?);
            continue;
        }
        let nearby = if server.nearby { "nearby" } else { "" };
        let key = match (&server.fingerprint, &server.since) {
            (Some(fingerprint), Some(since)) => format!("SHA-256 {fingerprint} since {since}"),
            _ => "not met yet".into(),
        };
        say(format_args!("{:<32} {nearby:<7} {key}", server.domain));
    }
    Ok(())
}

fn lost(domain: Option<&str>, json: bool, place: &Place) -> Result<(), Failure> {
    let mut admin = connect(place)?;
    let (mut after, mut none) = (String::new(), true);
    loop {
        let Answer::LostSubscriptions { lost, next } = admin.ask(&Request::LostSubscriptions { after })? else {
            return Err(unexpected());
        };
        let of_domain = |contact: &str| domain.is_none_or(|domain| contact.ends_with(&format!("@{domain}")));
        for it in lost.iter().filter(|it| of_domain(&it.contact)) {
            none = false;
            if json {
                say(serde_json::to_string(it).map_err(Failure::said)?);
                continue;
            }
            let asked = if it.asked { ", asked again" } else { "" };
            say(format_args!(
                "{} sees {}: lost at {}; now {}{asked}",
                it.account, it.contact, it.lost, it.subscription
            ));
        }
        match next {
            Some(next) => after = next,
            None => break,
        }
    }
    if none && !json {
        say("no subscriptions were lost");
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
