//! `waft status`, `waft watchers`, `waft fetch`, `waft reload`, `waft stop`: commands that need a running server.

use super::{Failure, say};
use crate::admin::client::AdminConnection;
use crate::admin::{Answer, Request};
use crate::cli::{self, Place};
use crate::client::presence::print_document;

pub fn connect(place: &Place) -> Result<AdminConnection, Failure> {
    let config = place.sources().load()?;
    let socket = config.admin_socket();
    AdminConnection::open(&socket)?.ok_or_else(|| {
        Failure::Said(format!("no server runs on the data folder {}\nstart it with `waft`, or name the folder of the one that runs with --data DIR", config.data.display()))
    })
}

pub fn status(arguments: &cli::Status) -> Result<(), Failure> {
    let mut server = connect(&arguments.place)?;
    let Answer::Status(status) = server.ask(&Request::Status)? else { return Err(unexpected()) };
    if arguments.json {
        say(serde_json::to_string(&status).map_err(Failure::said)?);
    } else {
        say(format_args!(
            "waft {} (pid {}) has served {} for {}",
            status.version,
            status.pid,
            status.hosts.join(", "),
            duration(status.uptime_seconds)
        ));
        say(format_args!("  listens on   {}", status.listeners.join(", ")));
        say(format_args!(
            "  data         {} ({} of store, {} changes wait for the disk)",
            status.data,
            bytes(status.store_bytes),
            status.store_queue
        ));
        say(format_args!("  streams      {}", status.streams));
        say(format_args!("  accounts     {}", status.accounts));
        for component in &status.components {
            let state = match (&component.connected, &component.address) {
                (Some(since), Some(address)) => {
                    format!("connected from {address} since {since}, {} stanzas wait", component.queue)
                }
                _ => "away".into(),
            };
            say(format_args!("  component    {} {state}", component.domain));
        }
        for (name, value) in &status.counters {
            say(format_args!("  {name:<24} {value}"));
        }
    }
    if arguments.sessions {
        let Answer::Sessions { sessions } = server.ask(&Request::Sessions)? else { return Err(unexpected()) };
        for session in sessions {
            if arguments.json {
                say(serde_json::to_string(&session).map_err(Failure::said)?);
            } else {
                let priority = session.priority.map(|priority| format!(" priority {priority}")).unwrap_or_default();
                say(format_args!("{} {}{priority}", session.jid, session.state));
            }
        }
    }
    Ok(())
}

/// `waft user roles`: the running server ends sessions that have more.
pub fn roles(jid: &xmpp::BareJid, roles: &[String], json: bool, place: &Place) -> Result<(), Failure> {
    let all = || im::roles::Roles::NAMES.map(str::to_string).to_vec();
    let roles = if roles.is_empty() { all() } else { roles.to_vec() };
    connect(place)?.ask(&Request::UserRoles { jid: jid.to_string(), roles: roles.clone() })?;
    if json {
        say(serde_json::json!({ "jid": jid.as_str(), "roles": roles }));
    } else {
        say(format_args!("{jid} may be {}", roles.join(", ")));
    }
    Ok(())
}

/// One watcher a line: address, kind, state, and what it got.
pub fn watchers(arguments: &cli::Watchers) -> Result<(), Failure> {
    let mut server = connect(&arguments.place)?;
    let asked = server.ask(&Request::Watchers { jid: arguments.jid.to_string() })?;
    let Answer::Watchers { watchers, unlisted } = asked else { return Err(unexpected()) };
    for it in &watchers {
        if arguments.json {
            say(serde_json::to_string(it).map_err(Failure::said)?);
            continue;
        }
        let since = |name: &str, at: &Option<String>| at.as_ref().map(|at| format!(" {name} {at}")).unwrap_or_default();
        let ends = it.expiration.map(|seconds| format!(" ends in {}", duration(seconds))).unwrap_or_default();
        say(format_args!(
            "{} {} {} ({}) by {}: {} notifications, {} fetches, {} refused{}{}{ends}{}",
            it.jid,
            it.kind,
            it.status,
            it.event,
            it.auth,
            it.notifications,
            it.fetches,
            it.refused,
            since("first", &it.first),
            since("last", &it.last),
            if it.pseudonym { " under a pseudonym" } else { "" },
        ));
    }
    if unlisted > 0 && !arguments.json {
        say(format_args!("and {unlisted} refused attempts of others"));
    }
    Ok(())
}

pub fn fetch(arguments: &cli::Fetch) -> Result<(), Failure> {
    let mut server = connect(&arguments.place)?;
    let watcher = arguments.watcher.as_ref().map(ToString::to_string);
    let asked = server.ask(&Request::Fetch { jid: arguments.jid.to_string(), watcher })?;
    let Answer::Document { xml } = asked else { return Err(unexpected()) };
    match xml {
        Some(xml) => {
            let document = xmpp::Element::parse(xml.as_bytes(), "").map_err(|_| unexpected())?;
            print_document(&document, arguments.json);
            Ok(())
        }
        None => Err(Failure::Said(format!("that watcher sees nothing of {}", arguments.jid))),
    }
}

pub fn reload(place: &Place) -> Result<(), Failure> {
    let Answer::Notes { notes } = connect(place)?.ask(&Request::Reload)? else { return Err(unexpected()) };
    say("reloaded");
    for note in notes {
        say(note);
    }
    Ok(())
}

pub fn stop(place: &Place) -> Result<(), Failure> {
    connect(place)?.ask(&Request::Stop)?;
    say("stopping");
    Ok(())
}

pub fn unexpected() -> Failure {
    Failure::Said(
        "the server's answer is to another question: are this command and the server of the same version?".into(),
    )
}

pub fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..=99_999 => format!("{bytes} B"),
        100_000..=99_999_999 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}
