//! `waft init`: a configuration for a domain of one's own, and what DNS must say of it.

use super::{Failure, say};
use crate::cli;
use crate::config::{self, Sources};
use crate::s2s::dns::{DnsFault, Resolve, System};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Where certbot leaves the certificates of a domain.
const CERTBOT: &str = "/etc/letsencrypt/live";

pub fn init(arguments: &cli::Init) -> Result<(), Failure> {
    let wrong = |name: &str| format!("{name} is no domain\nwrite a name such as example.org");
    let domain = xmpp::jid::prepare_domain(&arguments.domain).map_err(|_| wrong(&arguments.domain))?;
    let ascii = crate::s2s::trust::ascii(&domain).ok_or_else(|| wrong(&domain))?;
    let host = arguments.host.as_deref().unwrap_or(&ascii).trim_end_matches('.').to_owned();
    let file = arguments.config.clone().unwrap_or_else(|| PathBuf::from(config::DEFAULT_FILE));
    let text = text(&domain, arguments.data.as_deref(), certbot(Path::new(CERTBOT), &domain));
    // What is written must be what the server takes.
    config::parse(&text, Some(file.clone()), &Sources::default())?;
    write(&file, &text, arguments.force)?;
    say(format_args!("wrote {}", file.display()));
    let records = records(&ascii, &host);
    say(format_args!("\nDNS must say of {domain}:"));
    for record in &records {
        say(format_args!("  {}", record.line()));
    }
    say(format_args!("  {host}. A and AAAA: the addresses of this machine"));
    say(format_args!("worth having: CAA for {ascii}, naming who may sign its certificates"));
    if !arguments.offline {
        look(&records, &host)?;
    }
    say("\nnext: waft serve, waft user add NAME@DOMAIN, waft check DOMAIN");
    Ok(())
}

/// Chain and key, if certbot has made them.
fn certbot(folder: &Path, domain: &str) -> Option<(PathBuf, PathBuf)> {
    let of = |name: &str| folder.join(domain).join(name);
    let (chain, key) = (of("fullchain.pem"), of("privkey.pem"));
    (chain.exists() && key.exists()).then_some((chain, key))
}

fn text(domain: &str, data: Option<&Path>, certificate: Option<(PathBuf, PathBuf)>) -> String {
    let quoted = |path: &Path| config::value::quoted(&path.to_string_lossy());
    let mut out = String::from("# Written by waft init. `waft config show --defaults` lists every option.\n");
    if let Some(data) = data {
        let data = std::path::absolute(data).unwrap_or_else(|_| data.to_path_buf());
        let _ = writeln!(out, "data = {}", quoted(&data));
    }
    let _ = writeln!(out, "\n[host.{}]", config::value::quoted(domain));
    match certificate {
        Some((chain, key)) => {
            let _ = writeln!(out, "certificate = {}\nkey = {}", quoted(&chain), quoted(&key));
        }
        None => out.push_str(
            "# Until these name files, a self-signed certificate is shown, and clients warn of it.\n\
             #certificate = \"/etc/letsencrypt/live/DOMAIN/fullchain.pem\"\n\
             #key = \"/etc/letsencrypt/live/DOMAIN/privkey.pem\"\n",
        ),
    }
    for (about, listener) in [
        ("Clients.", "address = \"*:5222\""),
        ("Clients with TLS from the first byte.", "address = \"*:5223\"\ntls = \"direct\""),
        ("Servers of other domains.", "address = \"*:5269\"\nkind = \"s2s\""),
    ] {
        let _ = write!(out, "\n# {about}\n[[listen]]\n{listener}\n");
    }
    out
}

/// Makes the file, and its folder; one that is there stays unless `force`.
fn write(file: &Path, text: &str, force: bool) -> Result<(), Failure> {
    if file.exists() && !force {
        return Err(Failure::Said(format!(
            "{} is there already\nname another file with --config FILE, or let this one be replaced with --force",
            file.display()
        )));
    }
    let fails = |error: std::io::Error| {
        Failure::Said(format!(
            "cannot write {}: {error}\nrun this as root, or name a file of your own with --config FILE",
            file.display()
        ))
    };
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(fails)?;
    }
    std::fs::write(file, text).map_err(fails)
}

/// A record that must be there.
struct Record {
    name: String,
    port: u16,
    host: String,
}

impl Record {
    fn line(&self) -> String {
        format!("{}. SRV 0 5 {} {}.", self.name, self.port, self.host)
    }
}

/// RFC 6120 §3.2.1, XEP-0368 §3.
fn records(domain: &str, host: &str) -> Vec<Record> {
    let services = [("_xmpp-client._tcp", 5222), ("_xmpps-client._tcp", 5223), ("_xmpp-server._tcp", 5269)];
    services
        .into_iter()
        .map(|(service, port)| Record { name: format!("{service}.{domain}"), port, host: host.to_owned() })
        .collect()
}

/// What DNS says now.
fn look(records: &[Record], host: &str) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::said)?;
    let resolver = match runtime.block_on(async { System::new() }) {
        Ok(resolver) => resolver,
        Err(why) => {
            say(format_args!("\nDNS was not asked: {why}"));
            return Ok(());
        }
    };
    say("\nDNS says now:");
    runtime.block_on(async {
        for record in records {
            say(format_args!("  {:<40} {}", record.name, of_service(&resolver, record).await));
        }
        let addresses = match resolver.addresses(&format!("{host}.")).await {
            Ok(found) => found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            Err(fault) => missing(fault),
        };
        say(format_args!("  {host:<40} {addresses}"));
    });
    Ok(())
}

async fn of_service(resolver: &System, record: &Record) -> String {
    match resolver.srv(&format!("{}.", record.name)).await {
        Ok(found) if found.iter().any(|srv| srv.port == record.port && srv.target == record.host) => "ok".into(),
        Ok(found) => {
            let found: Vec<String> = found.iter().map(|srv| format!("{}:{}", srv.target, srv.port)).collect();
            format!("leads elsewhere: {}", found.join(", "))
        }
        Err(fault) => missing(fault),
    }
}

fn missing(fault: DnsFault) -> String {
    match fault {
        DnsFault::Absent => "missing".into(),
        DnsFault::Failed(why) => format!("not known: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ListenKind;

    #[test]
    fn what_is_written_is_a_configuration_that_serves_the_domain_and_federates() {
        let text = text("example.org", Some(Path::new("/srv/waft")), None);
        let config = config::parse(&text, None, &Sources::default()).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(config.data, Path::new("/srv/waft"));
        assert!(config.host("example.org").is_some() && config.federates());
        assert_eq!(config.listeners.iter().filter(|it| it.kind == ListenKind::C2s).count(), 2);
    }

    #[test]
    fn certificates_that_certbot_made_are_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(certbot(folder.path(), "example.org"), None);
        let of_domain = folder.path().join("example.org");
        std::fs::create_dir(&of_domain).expect("it is ours");
        for name in ["fullchain.pem", "privkey.pem"] {
            std::fs::write(of_domain.join(name), "").expect("it is ours");
        }
        let text = text("example.org", None, certbot(folder.path(), "example.org"));
        assert!(text.contains("example.org/fullchain.pem\"") && text.contains("example.org/privkey.pem\""), "{text}");
    }

    #[test]
    fn a_file_that_is_there_stays_unless_it_may_be_replaced() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("etc/waft.toml");
        write(&file, "one", false).expect("it was not there");
        assert!(write(&file, "two", false).is_err());
        write(&file, "three", true).expect("it may be replaced");
        assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "three");
    }

    #[test]
    fn the_records_lead_to_the_machine() {
        let lines: Vec<String> = records("example.org", "xmpp.example.org").iter().map(Record::line).collect();
        assert_eq!(lines[2], "_xmpp-server._tcp.example.org. SRV 0 5 5269 xmpp.example.org.");
    }
}
