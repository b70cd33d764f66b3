//! `waft dns`: what DNS must say of the domains here, and what it does say.

use super::{Failure, say};
use crate::admin::Certificate;
use crate::cli;
use crate::config::{Config, ListenKind, ListenTls};
use crate::s2s::dns::{DnsFault, Resolve, System};
use serde::Serialize;
use std::future::poll_fn;
use std::task::Poll;

/// Labels above a name at which CAA records are looked for (RFC 8659 §3).
const ABOVE_MAX: usize = 16;

/// A record that DNS should have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Without a final dot.
    pub name: String,
    /// `SRV`, `A/AAAA`, `CAA`, `TLSA`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub data: String,
    /// Nothing is found without it.
    pub needed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<Found>,
}

/// What DNS says instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "detail")]
pub enum Found {
    Ok(String),
    Missing,
    /// Something that leads astray.
    Wrong(String),
    /// Nobody answered.
    Unknown(String),
}

impl Record {
    pub fn line(&self) -> String {
        format!("{}. {} {}", self.name, self.kind, self.data)
    }
}

/// What must be said of `domain`, served by the machine `host` as configured. RFC 6120 §3.2.1, XEP-0368 §3, RFC 7673.
pub fn plan(config: &Config, domain: &str, host: &str, certificate: Option<&Certificate>) -> Vec<Record> {
    let mut records = Vec::new();
    let mut ports = Vec::new();
    for listener in config.listeners.iter().filter(|it| !it.address.is_loopback() && it.tls != ListenTls::Optional) {
        let service = match (listener.kind, listener.tls == ListenTls::Direct) {
            (ListenKind::C2s, false) => "_xmpp-client._tcp",
            (ListenKind::C2s, true) => "_xmpps-client._tcp",
            (ListenKind::S2s, false) => "_xmpp-server._tcp",
            (ListenKind::S2s, true) => "_xmpps-server._tcp",
        };
        let port = listener.address.port();
        ports.push(port);
        let data = format!("0 5 {port} {host}.");
        records.push(Record { name: format!("{service}.{domain}"), kind: "SRV", data, needed: true, found: None });
    }
    records.push(Record {
        name: host.to_owned(),
        kind: "A/AAAA",
        data: "the addresses of this machine".into(),
        needed: true,
        found: None,
    });
    let by_acme = config.uses_acme().then(|| crate::acme::caa_name(&config.acme.directory)).flatten();
    let named = certificate.and_then(|it| it.caa.clone()).or(by_acme.map(|name| format!("0 issue \"{name}\"")));
    let data = named.unwrap_or_else(|| "0 issue \"the authority that signs your certificates\"".into());
    records.push(Record { name: domain.to_owned(), kind: "CAA", data, needed: false, found: None });
    if let Some(tlsa) = certificate.map(|it| &it.tlsa).filter(|it| !it.is_empty()) {
        records.extend(ports.iter().map(|port| Record {
            name: format!("_{port}._tcp.{host}"),
            kind: "TLSA",
            data: tlsa.clone(),
            needed: false,
            found: None,
        }));
    }
    records
}

/// Asks DNS for all of them at once: a name server that is silent is waited for once. `authority`: who signs certificates,
/// by the name that CAA records have for it.
pub async fn look(records: &mut [Record], resolver: &dyn Resolve, authority: Option<&str>) {
    let mut asked: Vec<_> = records
        .iter_mut()
        .map(|record| Box::pin(async { record.found = Some(ask(record, resolver, authority).await) }))
        .collect();
    poll_fn(|cx| {
        asked.retain_mut(|it| it.as_mut().poll(cx).is_pending());
        if asked.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn ask(record: &Record, resolver: &dyn Resolve, authority: Option<&str>) -> Found {
    let name = format!("{}.", record.name);
    match record.kind {
        "SRV" => srv(resolver, &name, &record.data).await,
        "CAA" => caa(resolver, &record.name, authority).await,
        "TLSA" => tlsa(resolver, &name, &record.data).await,
        _ => match resolver.addresses(&name).await {
            Ok(found) => Found::Ok(found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
            Err(fault) => fault.into(),
        },
    }
}

impl From<DnsFault> for Found {
    fn from(fault: DnsFault) -> Found {
        match fault {
            DnsFault::Absent => Found::Missing,
            DnsFault::Failed(why) => Found::Unknown(why),
        }
    }
}

async fn srv(resolver: &dyn Resolve, name: &str, data: &str) -> Found {
    match resolver.srv(name).await {
        Ok(found) => {
            let told = found.iter().map(|it| format!("{} {} {} {}.", it.priority, it.weight, it.port, it.target));
            // Priority and weight are the operator's business.
            let ours = data.splitn(3, ' ').nth(2).unwrap_or_default();
            let is_ours = found.iter().any(|it| ours.eq_ignore_ascii_case(&format!("{} {}.", it.port, it.target)));
            let told = told.collect::<Vec<_>>().join(", ");
            if is_ours { Found::Ok(told) } else { Found::Wrong(format!("leads elsewhere: {told}")) }
        }
        Err(fault) => fault.into(),
    }
}

/// The records of the name or, if it has none, of the nearest name above it count. RFC 8659 §3.
async fn caa(resolver: &dyn Resolve, name: &str, authority: Option<&str>) -> Found {
    let mut name = name;
    for _ in 0..ABOVE_MAX {
        match resolver.caa(&format!("{name}.")).await {
            Ok(found) => {
                let issue: Vec<&str> = found
                    .iter()
                    .filter(|(tag, _)| tag.eq_ignore_ascii_case("issue"))
                    .map(|(_, value)| value.as_str())
                    .collect();
                let permits = |authority: &str| {
                    issue.iter().any(|value| value.split(';').next().unwrap_or_default().trim() == authority)
                };
                let told =
                    format!("{name}. permits {}", if issue.is_empty() { "all".into() } else { issue.join(", ") });
                return match authority {
                    Some(authority) if !issue.is_empty() && !permits(authority) => {
                        Found::Wrong(format!("{told}, and not {authority}: it will give no certificate"))
                    }
                    _ => Found::Ok(told),
                };
            }
            Err(DnsFault::Absent) => match name.split_once('.') {
                Some((_, above)) => name = above,
                None => return Found::Missing,
            },
            Err(fault) => return fault.into(),
        }
    }
    Found::Missing
}

async fn tlsa(resolver: &dyn Resolve, name: &str, data: &str) -> Found {
    match resolver.tlsa(name).await {
        Ok(found) => {
            let told: Vec<String> = found.iter().map(ToString::to_string).collect();
            match told.iter().any(|it| it.eq_ignore_ascii_case(data)) {
                true => Found::Ok(data.to_owned()),
                false => Found::Wrong(format!("names another key: {}", told.join(", "))),
            }
        }
        Err(fault) => fault.into(),
    }
}

/// Prints the records and what was found.
pub fn show(records: &[Record]) {
    for record in records {
        say(format_args!("  {}", record.line()));
        let told = match &record.found {
            None => continue,
            Some(Found::Ok(told)) => format!("ok: {told}"),
            Some(Found::Missing) if record.needed => "MISSING".into(),
            Some(Found::Missing) => "not there; worth having".into(),
            Some(Found::Wrong(told)) => format!("WRONG: {told}"),
            Some(Found::Unknown(why)) => format!("not known: {why}"),
        };
        say(format_args!("      {told}"));
    }
}

/// How many of them keep others from finding the domain, or lead them astray.
fn wrong(records: &[Record]) -> usize {
    let is_wrong = |it: &&Record| match it.found {
        Some(Found::Missing) => it.needed,
        Some(Found::Wrong(_)) => true,
        _ => false,
    };
    records.iter().filter(is_wrong).count()
}

/// The resolver that a command asks: the system's, or the one that is named.
pub fn resolver(server: Option<std::net::SocketAddr>) -> Result<System, String> {
    match server {
        Some(address) => System::at(address, None),
        None => System::new(),
    }
}

pub fn dns(arguments: &cli::Dns) -> Result<(), Failure> {
    let config = arguments.place.sources().load()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::said)?;
    let resolver = runtime.block_on(async { resolver(arguments.dns) }).map_err(Failure::Said)?;
    let mut all_wrong = 0;
    for host in &config.hosts {
        let Some(domain) = crate::acme::dns_name(&host.domain) else { continue };
        let machine = arguments.host.as_deref().unwrap_or(&domain).trim_end_matches('.').to_owned();
        let certificate = crate::certificates::shown::of(&config, host, &[]);
        let mut records = plan(&config, &domain, &machine, Some(&certificate));
        let authority = host.options.acme.then(|| crate::acme::caa_name(&config.acme.directory)).flatten();
        runtime.block_on(look(&mut records, &resolver, authority));
        if arguments.json {
            for record in &records {
                say(serde_json::to_string(record).map_err(Failure::said)?);
            }
        } else {
            say(format_args!("{}:", host.domain));
            show(&records);
        }
        all_wrong += wrong(&records);
    }
    if all_wrong > 0 {
        return Err(Failure::Said(format!(
            "{all_wrong} records are missing or wrong\nsee above; changes take a while to spread"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Sources};
    use crate::s2s::dane::Tlsa;
    use crate::s2s::dns::{Answer, Srv};
    use std::net::IpAddr;
    use std::time::Duration;

    #[derive(Default)]
    struct Table {
        srv: Vec<(&'static str, u16, &'static str)>,
        addresses: Vec<(&'static str, IpAddr)>,
        caa: Vec<(&'static str, &'static str, &'static str)>,
        tlsa: Vec<(&'static str, String)>,
    }

    fn rows<T>(rows: Vec<T>) -> Answer<'static, T>
    where
        T: Send + 'static,
    {
        Box::pin(async move { if rows.is_empty() { Err(DnsFault::Absent) } else { Ok(rows.into()) } })
    }

    impl Resolve for Table {
        fn srv<'a>(&'a self, name: &'a str) -> Answer<'a, Srv> {
            let of = self.srv.iter().filter(|(it, _, _)| *it == name);
            rows(
                of.map(|(_, port, target)| Srv { priority: 0, weight: 5, port: *port, target: (*target).into() })
                    .collect(),
            )
        }
        fn addresses<'a>(&'a self, name: &'a str) -> Answer<'a, IpAddr> {
            rows(self.addresses.iter().filter(|(it, _)| *it == name).map(|(_, address)| *address).collect())
        }
        fn caa<'a>(&'a self, name: &'a str) -> Answer<'a, (String, String)> {
            let of = self.caa.iter().filter(|(it, _, _)| *it == name);
            rows(of.map(|(_, tag, value)| ((*tag).into(), (*value).into())).collect())
        }
        fn tlsa<'a>(&'a self, name: &'a str) -> Answer<'a, Tlsa> {
            rows(self.tlsa.iter().filter(|(it, _)| *it == name).map(|(_, data)| parsed(data)).collect())
        }
    }

    /// Three numbers and hexadecimal digits.
    fn parsed(text: &str) -> Tlsa {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |n: usize| words[n].parse().expect("a number");
        let byte = |at: usize| u8::from_str_radix(&words[3][at..at + 2], 16).expect("two digits");
        let data = (0..words[3].len()).step_by(2).map(byte).collect();
        Tlsa { usage: number(0), selector: number(1), matching: number(2), data }
    }

    fn planned() -> Vec<Record> {
        let text = "[host.\"example.org\"]\nacme = true\n[acme]\nagree = true\n\
            [[listen]]\naddress = \"*:5222\"\n[[listen]]\naddress = \"*:5223\"\ntls = \"direct\"\n\
            [[listen]]\naddress = \"*:5269\"\nkind = \"s2s\"\n[[listen]]\naddress = \"*:5270\"\nkind = \"s2s\"\ntls = \"direct\"\n\
            [[listen]]\naddress = \"127.0.0.1:5224\"\n";
        let config = config::parse(text, None, &Sources::default()).unwrap_or_else(|problems| panic!("{problems}"));
        let certificate = Certificate { tlsa: "3 1 1 ab".into(), ..Certificate::default() };
        plan(&config, "example.org", "xmpp.example.org", Some(&certificate))
    }

    async fn found(table: &Table) -> Vec<(String, Option<Found>)> {
        let mut records = planned();
        look(&mut records, table, Some("letsencrypt.org")).await;
        records.into_iter().map(|it| (it.line(), it.found)).collect()
    }

    /// Answers nothing for five seconds.
    struct Silent;

    fn silent<T: Send + 'static>() -> Answer<'static, T> {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Err(DnsFault::Failed("no answer".into()))
        })
    }

    impl Resolve for Silent {
        fn srv<'a>(&'a self, _: &'a str) -> Answer<'a, Srv> {
            silent()
        }
        fn addresses<'a>(&'a self, _: &'a str) -> Answer<'a, IpAddr> {
            silent()
        }
        fn caa<'a>(&'a self, _: &'a str) -> Answer<'a, (String, String)> {
            silent()
        }
        fn tlsa<'a>(&'a self, _: &'a str) -> Answer<'a, Tlsa> {
            silent()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_server_that_is_silent_is_waited_for_once() {
        let began = tokio::time::Instant::now();
        let mut records = planned();
        look(&mut records, &Silent, None).await;
        assert!(records.iter().all(|it| matches!(it.found, Some(Found::Unknown(_)))));
        assert_eq!(began.elapsed(), Duration::from_secs(5));
    }

    #[test]
    fn every_listener_that_others_can_reach_has_its_record() {
        let lines: Vec<String> = planned().iter().map(Record::line).collect();
        assert_eq!(
            lines,
            [
                "_xmpp-client._tcp.example.org. SRV 0 5 5222 xmpp.example.org.",
                "_xmpps-client._tcp.example.org. SRV 0 5 5223 xmpp.example.org.",
                "_xmpp-server._tcp.example.org. SRV 0 5 5269 xmpp.example.org.",
                "_xmpps-server._tcp.example.org. SRV 0 5 5270 xmpp.example.org.",
                "xmpp.example.org. A/AAAA the addresses of this machine",
                "example.org. CAA 0 issue \"letsencrypt.org\"",
                "_5222._tcp.xmpp.example.org. TLSA 3 1 1 ab",
                "_5223._tcp.xmpp.example.org. TLSA 3 1 1 ab",
                "_5269._tcp.xmpp.example.org. TLSA 3 1 1 ab",
                "_5270._tcp.xmpp.example.org. TLSA 3 1 1 ab",
            ]
        );
    }

    #[tokio::test]
    async fn what_is_right_is_ok_and_what_is_not_there_is_missing() {
        let table = Table {
            srv: vec![("_xmpp-client._tcp.example.org.", 5222, "XMPP.example.org")],
            addresses: vec![("xmpp.example.org.", "192.0.2.1".parse().expect("an address"))],
            tlsa: vec![("_5222._tcp.xmpp.example.org.", "3 1 1 AB".into())],
            ..Table::default()
        };
        let found = found(&table).await;
        let ok = |at: usize| matches!(found[at].1, Some(Found::Ok(_)));
        assert!(ok(0) && ok(4) && ok(6), "{found:?}");
        assert!([1, 2, 3, 5, 7, 8, 9].iter().all(|at| found[*at].1 == Some(Found::Missing)), "{found:?}");
    }

    #[tokio::test]
    async fn what_leads_astray_is_said() {
        let table = Table {
            srv: vec![("_xmpp-client._tcp.example.org.", 5222, "old.example.org")],
            caa: vec![("org.", "issue", "other.example")],
            tlsa: vec![("_5222._tcp.xmpp.example.org.", "3 1 1 cd".into())],
            ..Table::default()
        };
        let found = found(&table).await;
        for (at, says) in [(0, "old.example.org"), (5, "it will give no certificate"), (6, "another key")] {
            assert!(matches!(&found[at].1, Some(Found::Wrong(told)) if told.contains(says)), "{:?}", found[at]);
        }
    }

    #[tokio::test]
    async fn caa_records_of_the_name_count_before_those_above_it() {
        let table = Table {
            caa: vec![("example.org.", "issue", "letsencrypt.org; accounturi=x"), ("org.", "issue", "other.example")],
            ..Table::default()
        };
        assert!(matches!(&found(&table).await[5].1, Some(Found::Ok(_))));
    }
}
