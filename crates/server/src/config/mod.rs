//! The configuration: one TOML file, every option with a default, unknown keys refused.
//!
//! ```text
//! Sources { file, overrides }.load() -> Result<Config, Problems>     again for a reload (SIGHUP)
//! Config  { data, hosts, listeners, accounts, store, log, limits, admin, sources }
//!         .host(domain) .policy(&Host) -> im::HostPolicy .unreloadable(&new) -> what needs a restart
//!         .certificates_folder() .admin_socket()
//! Limits  .before_auth() .after_auth() -> xmpp::xml::Limits     .of_accounts() -> im::Limits
//! ```
//!
//! - [`options`]: every option there is: name, type, default, range, meaning, in one list.
//! - [`read`]: from TOML text to values; [`value`]: the types of options.
//! - [`check`]: what only makes sense together; [`problem`]: how errors are told, all at once.
//! - [`show`]: the effective configuration, the defaults and the reference as text.
//! - [`policy`]: what the deciding crates are given of it.

pub mod check;
pub mod options;
pub mod policy;
pub mod problem;
pub mod read;
pub mod show;
pub mod value;

pub use options::{
    Accounts, Acme, AcmeChallenge, Admin, Class, ClassOptions, Component, Durability, Federation, Host, HostOptions,
    Limits, ListenKind, ListenOperations, ListenTls, Listener, Log, LogFormat, Mechanism, Metrics, Registration,
    Remote, ResourceConflict, StoreOptions, Trust,
};
pub use problem::Problems;

use read::Reader;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use toml::de::{DeTable, DeValue};
use value::Value;

/// Where a configuration comes from; kept, so that it can be read again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sources {
    /// As given by `--config`; else `$WAFT_CONFIG`, else [`DEFAULT_FILE`] if it is there.
    pub file: Option<PathBuf>,
    pub overrides: Overrides,
}

/// What the command line says; it wins over the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    pub data: Option<PathBuf>,
    /// Host these and no others; a table of the file still gives a domain's options.
    pub domains: Vec<String>,
    /// Instead of the file's listeners with STARTTLS; `None` inside: no such listener.
    pub c2s: Vec<Option<ListenAddress>>,
    /// Instead of the file's listeners with direct TLS.
    pub direct_tls: Vec<Option<ListenAddress>>,
    /// Instead of the file's listeners for servers, with STARTTLS.
    pub s2s: Vec<Option<ListenAddress>>,
    /// See [`Config::ad_hoc`].
    pub ad_hoc: bool,
}

/// Within the data folder: domains that were added while the server ran, one a line.
pub const DOMAINS_FILE: &str = "domains";

/// Within the data folder: domains that were blocked while the server ran, one a line; besides those of the file.
pub const BLOCKED_FILE: &str = "blocked";

/// Domains of [`BLOCKED_FILE`].
pub fn blocked_domains(data: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(data.join(BLOCKED_FILE)).unwrap_or_default();
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// A line of [`DOMAINS_FILE`]: the domain, and behind tabs what differs from the defaults, each as in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    pub domain: String,
    /// `NAME = VALUE` in TOML.
    pub options: Vec<String>,
}

impl Added {
    fn read(line: &str) -> Option<Added> {
        let mut parts = line.split('\t');
        let domain = xmpp::jid::prepare_domain(parts.next()?.trim()).ok().filter(|it| !it.is_empty())?;
        Some(Added { domain, options: parts.map(str::to_owned).collect() })
    }

    pub fn line(&self) -> String {
        [&self.domain].into_iter().chain(&self.options).map(String::as_str).collect::<Vec<_>>().join("\t")
    }

    /// An option as somebody types it: a value that is no TOML is meant as text.
    ///
    /// # Errors
    /// For people.
    pub fn option(text: &str) -> Result<String, String> {
        let named = text.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
        let Some((name, value)) = named.filter(|(name, _)| !name.is_empty() && !text.contains(['\t', '\n'])) else {
            return Err(format!("\"{text}\" sets nothing\nwrite NAME=VALUE, such as registration=invite"));
        };
        let said = format!("{name} = {value}");
        if DeTable::parse(&said).is_ok() {
            return Ok(said);
        }
        Ok(format!("{name} = {}", value::Value::show(&value.to_owned())))
    }

    /// What is wrong is noted as of this domain. Paths are relative to the data folder.
    fn host(&self, data: &Path, reader: &mut Reader) -> Host {
        let text = self.options.join("\n");
        let (table, syntax) = DeTable::parse_recoverable(&text);
        let mut own = Reader::default();
        own.unknown_keys(table.get_ref(), "host", HostOptions::KEYS, &[]);
        let mut options = HostOptions::read(&mut own, table.get_ref(), "host");
        [&mut options.certificate, &mut options.key, &mut options.client_ca, &mut options.turn_secret]
            .into_iter()
            .flatten()
            .for_each(|path| *path = data.join(&*path));
        let domain = &self.domain;
        for error in syntax {
            reader.problem(
                None,
                format!("{domain}: {}", error.message()),
                "write NAME=VALUE, the value as in the file",
            );
        }
        for problem in own.problems {
            reader.problem(None, format!("{domain}, added at run time: {}", problem.title), problem.remedy);
        }
        Host { domain: domain.as_str().into(), options }
    }
}

/// Domains of [`DOMAINS_FILE`].
pub fn added_domains(data: &Path) -> Vec<Added> {
    let text = std::fs::read_to_string(data.join(DOMAINS_FILE)).unwrap_or_default();
    text.lines().filter_map(Added::read).collect()
}

/// Read when no other file is named.
pub const DEFAULT_FILE: &str = "/etc/waft/waft.toml";

/// The effective configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Absolute.
    pub data: PathBuf,
    /// In the order of the file or the command line; never empty. The first answers where no domain is named.
    pub hosts: Vec<Host>,
    pub listeners: Vec<Listener>,
    pub federation: Federation,
    /// Other domains of which something particular is said.
    pub remotes: Vec<Remote>,
    /// External components; their domains are prepared.
    pub components: Vec<Component>,
    pub acme: Acme,
    pub accounts: Accounts,
    /// Of accounts, by name.
    pub classes: Vec<Class>,
    pub store: StoreOptions,
    pub log: Log,
    pub limits: Limits,
    pub admin: Admin,
    /// Other servers are found on the local network. From the command line.
    pub ad_hoc: bool,
    pub metrics: Metrics,
    pub sources: Sources,
}

impl Sources {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// All that is wrong, each with its place and a remedy.
    pub fn load(&self) -> Result<Config, Problems> {
        let (file, text) = self.read_file()?;
        parse(&text, file, self)
    }

    /// The file that counts and its text; no file is an empty one.
    fn read_file(&self) -> Result<(Option<PathBuf>, String), Problems> {
        let named = self
            .file
            .clone()
            .or_else(|| std::env::var_os("WAFT_CONFIG").filter(|it| !it.is_empty()).map(PathBuf::from));
        let (path, required) = match named {
            Some(path) => (path, true),
            None => (PathBuf::from(DEFAULT_FILE), false),
        };
        match std::fs::read(&path) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Ok((Some(path), text)),
                Err(_) => {
                    Err(Problems::of(Some(path), "the configuration is not UTF-8 text", "save the file as UTF-8"))
                }
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => Ok((None, String::new())),
            Err(error) => Err(Problems::of(
                Some(path.clone()),
                format!("the configuration {} cannot be read: {error}", path.display()),
                match error.kind() {
                    std::io::ErrorKind::NotFound => {
                        "name an existing file with --config FILE, or leave it out to serve with the defaults"
                    }
                    std::io::ErrorKind::PermissionDenied => {
                        "let the user that runs waft read it, or name another file with --config FILE"
                    }
                    _ => "name another file with --config FILE",
                },
            )),
        }
    }
}

/// From the text of a file (empty: all defaults) and the command line to the effective configuration.
///
/// # Errors
/// All that is wrong with the text.
pub fn parse(text: &str, file: Option<PathBuf>, sources: &Sources) -> Result<Config, Problems> {
    let (document, syntax) = DeTable::parse_recoverable(text);
    let mut reader = Reader::default();
    for error in &syntax {
        reader.problem(
            error.span(),
            format!("this is no TOML: {}", error.message()),
            "see https://toml.io for how TOML is written; strings are in quotes, tables in brackets",
        );
    }
    // A document that is broken is not judged further: what recovery guessed would only confuse.
    let mut config = Config::of_table(document.get_ref(), &mut reader, !syntax.is_empty());
    let folder = file.as_deref().and_then(Path::parent).map(Path::to_path_buf).unwrap_or_default();
    config.resolve_paths(&folder);
    config.apply(sources, &mut reader);
    check::check(&config, &mut reader);
    if reader.problems.is_empty() {
        Ok(config)
    } else {
        reader.problems.sort_by_key(|problem| problem.span.as_ref().map_or(usize::MAX, |span| span.start));
        Err(Problems { file, text: text.to_string(), list: reader.problems })
    }
}

impl Config {
    fn of_table(document: &DeTable<'_>, reader: &mut Reader, broken: bool) -> Config {
        let empty = DeTable::new();
        let document = if broken { &empty } else { document };
        let mut known = options::Top::KEYS.to_vec();
        known.extend([
            "host",
            "listen",
            "s2s",
            "component",
            "acme",
            "accounts",
            "account_class",
            "store",
            "log",
            "limits",
            "admin",
            "metrics",
        ]);
        let elsewhere = options::elsewhere();
        reader.unknown_keys(document, "", &known, &elsewhere);

        let top = options::Top::read(reader, document, "");
        let table_at = |reader: &mut Reader, key: &str, known: &[&'static str]| -> DeTable<'_> {
            let Some((_, value)) = document.iter().find(|(name, _)| name.get_ref() == key) else {
                return DeTable::new();
            };
            let Some(table) = reader.table(value, key, &format!("[{key}] on a line of its own, and its options below"))
            else {
                return DeTable::new();
            };
            reader.unknown_keys(table, key, known, &elsewhere);
            table.clone()
        };
        let mut federation_keys = Federation::KEYS.to_vec();
        federation_keys.push("domain");
        let federation = table_at(reader, "s2s", &federation_keys);
        let acme = table_at(reader, "acme", Acme::KEYS);
        let accounts = table_at(reader, "accounts", Accounts::KEYS);
        let store = table_at(reader, "store", StoreOptions::KEYS);
        let log = table_at(reader, "log", Log::KEYS);
        let limits = table_at(reader, "limits", Limits::KEYS);
        let admin = table_at(reader, "admin", Admin::KEYS);
        let metrics = table_at(reader, "metrics", Metrics::KEYS);
        Config {
            data: top.data.unwrap_or_else(default_data_folder),
            hosts: read_hosts(document, reader, &elsewhere),
            listeners: read_listeners(document, reader, &elsewhere),
            remotes: read_remotes(&federation, reader, &elsewhere),
            components: read_components(document, reader, &elsewhere),
            federation: Federation::read(reader, &federation, "s2s"),
            acme: Acme::read(reader, &acme, "acme"),
            accounts: Accounts::read(reader, &accounts, "accounts"),
            classes: read_classes(document, reader, &elsewhere),
            store: StoreOptions::read(reader, &store, "store"),
            log: Log::read(reader, &log, "log"),
            limits: Limits::read(reader, &limits, "limits"),
            admin: Admin::read(reader, &admin, "admin"),
            ad_hoc: false,
            metrics: Metrics::read(reader, &metrics, "metrics"),
            sources: Sources::default(),
        }
    }

    /// Paths in the file are relative to its folder; on the command line, to the working folder.
    fn resolve_paths(&mut self, folder: &Path) {
        let absolute = |path: &mut PathBuf| {
            let joined = folder.join(&*path);
            *path = std::path::absolute(&joined).unwrap_or(joined);
        };
        absolute(&mut self.data);
        for host in &mut self.hosts {
            [
                &mut host.options.certificate,
                &mut host.options.key,
                &mut host.options.client_ca,
                &mut host.options.turn_secret,
            ]
            .into_iter()
            .flatten()
            .for_each(absolute);
        }
        for component in &mut self.components {
            [&mut component.secret, &mut component.certificate, &mut component.key]
                .into_iter()
                .flatten()
                .for_each(absolute);
        }
        [&mut self.acme.ca, &mut self.acme.eab_key].into_iter().flatten().for_each(absolute);
        self.admin.socket.iter_mut().for_each(absolute);
        let federation = &mut self.federation;
        let lists = [&mut federation.blocked_file, &mut federation.allowed_file];
        let files = [&mut federation.ca, &mut federation.dane_anchors].into_iter().chain(lists);
        files.flatten().for_each(absolute);
    }

    /// The command line wins.
    fn apply(&mut self, sources: &Sources, reader: &mut Reader) {
        let over = &sources.overrides;
        self.sources = sources.clone();
        if let Some(data) = &over.data {
            self.data = std::path::absolute(data).unwrap_or_else(|_| data.clone());
        }
        if !over.domains.is_empty() {
            let told = std::mem::take(&mut self.hosts);
            for domain in &over.domains {
                match xmpp::jid::prepare_domain(domain) {
                    Ok(domain) if self.host(&domain).is_some() => {}
                    Ok(domain) => {
                        let host = told.iter().find(|host| *host.domain == *domain).cloned();
                        self.hosts
                            .push(host.unwrap_or(Host { domain: domain.into(), options: HostOptions::default() }));
                    }
                    Err(_) => reader.problem(
                        None,
                        format!("--domain {domain} is no domain"),
                        "write a name such as example.org",
                    ),
                }
            }
        }
        if over.ad_hoc {
            self.apply_ad_hoc(over.domains.is_empty(), reader);
        }
        let added = added_domains(&self.data);
        if self.hosts.is_empty() {
            self.hosts.push(Host { domain: "localhost".into(), options: HostOptions::default() });
        }
        for added in added {
            if self.host(&added.domain).is_none() {
                let host = added.host(&self.data, reader);
                self.hosts.push(host);
            }
        }
        let replace = |listeners: &mut Vec<Listener>, addresses: &[Option<ListenAddress>], direct: bool| {
            if addresses.is_empty() {
                return;
            }
            listeners
                .retain(|listener| listener.kind != ListenKind::C2s || (listener.tls == ListenTls::Direct) != direct);
            let tls = if direct { ListenTls::Direct } else { ListenTls::Required };
            listeners.extend(addresses.iter().flatten().map(|address| Listener {
                address: *address,
                tls,
                ..Listener::default()
            }));
        };
        // Whoever chooses listeners chooses all of them.
        let chosen = !over.c2s.is_empty() || !over.direct_tls.is_empty() || self.listeners != default_listeners();
        replace(&mut self.listeners, &over.c2s, false);
        replace(&mut self.listeners, &over.direct_tls, true);
        if !over.s2s.is_empty() {
            self.listeners.retain(|listener| listener.kind != ListenKind::S2s);
            let named = over.s2s.iter().flatten();
            self.listeners.extend(named.map(|address| Listener {
                address: *address,
                kind: ListenKind::S2s,
                ..Listener::default()
            }));
        } else if !chosen && self.hosts.iter().any(|host| is_reachable(&host.domain)) {
            self.listeners.extend(default_server_listeners());
        }
    }

    /// On a network without DNS: the host name is the domain, beside those of the file; servers are welcome, wherever
    /// their addresses, and trusted on first use unless only certificates are.
    fn apply_ad_hoc(&mut self, named_by_host: bool, reader: &mut Reader) {
        self.ad_hoc = true;
        if named_by_host {
            match crate::s2s::nearby::own_domain() {
                Ok(domain) if self.host(&domain).is_some() => {}
                Ok(domain) => {
                    self.hosts.insert(0, Host { domain: domain.into(), options: HostOptions::default() });
                }
                Err(why) => {
                    let (title, remedy) = why.split_once('\n').unwrap_or((&why, ""));
                    reader.problem(None, title, remedy);
                }
            }
        }
        if !self.federates() {
            self.listeners.push(Listener {
                kind: ListenKind::S2s,
                address: ListenAddress::Any(5269),
                ..Listener::default()
            });
        }
        self.federation.allow_private = true;
        if self.federation.trust == Trust::Dialback {
            self.federation.trust = Trust::FirstUse;
        }
    }

    /// A hosted domain, by its prepared name.
    pub fn host(&self, domain: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| &*host.domain == domain)
    }

    /// Where certificates are that no option names.
    pub fn certificates_folder(&self) -> PathBuf {
        self.data.join("certificates")
    }

    /// Where certificates of an authority are, and the key of the account there.
    pub fn acme_folder(&self) -> PathBuf {
        self.data.join("acme")
    }

    /// Does anybody here get a certificate by ACME?
    pub fn uses_acme(&self) -> bool {
        self.hosts.iter().any(|host| host.options.acme) || self.components.iter().any(|it| it.acme)
    }

    /// Where the authority's questions are answered, besides listeners with direct TLS.
    pub fn acme_address(&self) -> Option<ListenAddress> {
        let default = match self.acme.challenge {
            AcmeChallenge::Http01 => Some(ListenAddress::Any(80)),
            AcmeChallenge::TlsAlpn01 => None,
        };
        self.uses_acme().then(|| self.acme.address.or(default)).flatten()
    }

    /// Are there servers of other domains?
    pub fn federates(&self) -> bool {
        self.listeners.iter().any(|listener| listener.kind == ListenKind::S2s)
    }

    pub fn class(&self, name: &str) -> Option<&Class> {
        self.classes.iter().find(|class| *class.name == *name)
    }

    /// Every domain that is served here: the hosts' and the components'.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        let hosts = self.hosts.iter().map(|host| &*host.domain);
        hosts.chain(self.components.iter().map(|component| component.domain()))
    }

    /// Addresses on which components are waited for.
    pub fn component_addresses(&self) -> Vec<ListenAddress> {
        let mut addresses = Vec::new();
        for component in &self.components {
            if !addresses.contains(&component.address) {
                addresses.push(component.address);
            }
        }
        addresses
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.admin.socket.clone().unwrap_or_else(|| self.data.join("waft.sock"))
    }

    /// What differs in `new` and takes effect only after a restart: one sentence each.
    pub fn unreloadable(&self, new: &Config) -> Vec<String> {
        let mut out = Vec::new();
        let mut note = |differs: bool, what: &str| {
            if differs {
                out.push(format!("{what} changed: this takes effect after a restart"));
            }
        };
        note(self.data != new.data, "data (the data folder)");
        note(self.listeners != new.listeners, "[[listen]]");
        note(self.component_addresses() != new.component_addresses(), "address of a [[component]]");
        note(self.store != new.store, "[store]");
        note(self.admin_socket() != new.admin_socket(), "admin.socket");
        // The socket's mode is set when it is made.
        note(self.admin.uids.is_empty() && !new.admin.uids.is_empty(), "admin.uids");
        note(self.log.format != new.log.format, "log.format");
        note(self.metrics != new.metrics, "[metrics]");
        let answers = |config: &Config| config.acme_address().map(|at| (at, config.acme.challenge));
        note(answers(self) != answers(new), "where [acme] answers the authority");
        note(self.federation.dane != new.federation.dane, "s2s.dane");
        note(self.federation.dane_anchors != new.federation.dane_anchors, "s2s.dane_anchors");
        out
    }
}

fn read_hosts(document: &DeTable<'_>, reader: &mut Reader, elsewhere: &[(String, &'static str)]) -> Vec<Host> {
    let write = "[host.\"example.org\"], with the domain in quotes";
    let Some((_, value)) = document.iter().find(|(name, _)| name.get_ref() == "host") else {
        return Vec::new();
    };
    let Some(table) = reader.table(value, "host", write) else {
        return Vec::new();
    };
    let mut hosts: Vec<(usize, Host)> = Vec::new();
    for (name, value) in table.iter() {
        let Ok(domain) = xmpp::jid::prepare_domain(name.get_ref()) else {
            reader.problem(Some(name.span()), format!("\"{}\" is no domain", name.get_ref()), format!("write {write}"));
            continue;
        };
        let at = format!("host.\"{domain}\"");
        // `[host.example.org]` without quotes is the table `example` with a table `org` in it.
        if let DeValue::Table(inner) = value.get_ref()
            && !domain.contains('.')
            && let Some((below, _)) = inner.iter().find(|(key, value)| {
                matches!(value.get_ref(), DeValue::Table(_))
                    && !HostOptions::KEYS.contains(&key.get_ref().as_ref())
                    && key.get_ref() != "contact"
            })
        {
            reader.problem(
                Some(name.span()),
                format!("host.{domain}.{} needs quotes: a dot divides tables", below.get_ref()),
                format!("write [host.\"{domain}.{}\"]", below.get_ref()),
            );
            continue;
        }
        let Some(table) = reader.table(value, &at, write) else { continue };
        let mut known = HostOptions::KEYS.to_vec();
        known.push("contact");
        reader.unknown_keys(table, &at, &known, elsewhere);
        reader.note_span(at.clone(), name.span());
        let mut options = HostOptions::read(reader, table, &at);
        options.contact = read_contact(table, reader, &at, elsewhere);
        if hosts.iter().any(|(_, host)| *host.domain == *domain) {
            reader.problem(Some(name.span()), format!("{domain} is hosted twice"), "keep one of the tables");
            continue;
        }
        hosts.push((name.span().start, Host { domain: domain.into(), options }));
    }
    hosts.sort_by_key(|(start, _)| *start);
    hosts.into_iter().map(|(_, host)| host).collect()
}

fn read_classes(document: &DeTable<'_>, reader: &mut Reader, elsewhere: &[(String, &'static str)]) -> Vec<Class> {
    let write = "[account_class.\"guest\"], and what differs below";
    let Some((_, value)) = document.iter().find(|(name, _)| name.get_ref() == "account_class") else {
        return Vec::new();
    };
    let Some(table) = reader.table(value, "account_class", write) else { return Vec::new() };
    let mut classes = Vec::new();
    for (name, value) in table.iter() {
        let at = format!("account_class.\"{}\"", name.get_ref());
        let Some(table) = reader.table(value, &at, write) else { continue };
        reader.unknown_keys(table, &at, ClassOptions::KEYS, elsewhere);
        reader.note_span(at.clone(), name.span());
        let options = ClassOptions::read(reader, table, &at);
        classes.push(Class { name: name.get_ref().as_ref().into(), options });
    }
    classes
}

fn read_remotes(federation: &DeTable<'_>, reader: &mut Reader, elsewhere: &[(String, &'static str)]) -> Vec<Remote> {
    let write = "[s2s.domain.\"example.net\"], with the domain in quotes";
    let Some((_, value)) = federation.iter().find(|(name, _)| name.get_ref() == "domain") else {
        return Vec::new();
    };
    let Some(table) = reader.table(value, "s2s.domain", write) else { return Vec::new() };
    let mut remotes = Vec::new();
    for (name, value) in table.iter() {
        let Ok(domain) = xmpp::jid::prepare_domain(name.get_ref()) else {
            reader.problem(Some(name.span()), format!("\"{}\" is no domain", name.get_ref()), format!("write {write}"));
            continue;
        };
        let at = format!("s2s.domain.\"{domain}\"");
        let Some(table) = reader.table(value, &at, write) else { continue };
        reader.unknown_keys(table, &at, options::FederationDomain::KEYS, elsewhere);
        reader.note_span(at.clone(), name.span());
        let options = options::FederationDomain::read(reader, table, &at);
        if let Some(ListenAddress::Any(_)) = options.address {
            reader.problem(
                reader.span(&format!("{at}.address")),
                format!("{at}.address names no host"),
                "write an address and a port, such as \"192.0.2.7:5269\"",
            );
        }
        remotes.push(Remote { domain: domain.into(), options });
    }
    remotes
}

fn read_contact(
    table: &DeTable<'_>,
    reader: &mut Reader,
    at: &str,
    elsewhere: &[(String, &'static str)],
) -> options::Contact {
    let Some((_, value)) = table.iter().find(|(name, _)| name.get_ref() == "contact") else {
        return options::Contact::default();
    };
    let at = format!("{at}.contact");
    let Some(table) = reader.table(value, &at, &format!("[{at}], and lists of addresses below")) else {
        return options::Contact::default();
    };
    reader.unknown_keys(table, &at, options::Contact::KEYS, elsewhere);
    options::Contact::read(reader, table, &at)
}

fn read_listeners(document: &DeTable<'_>, reader: &mut Reader, elsewhere: &[(String, &'static str)]) -> Vec<Listener> {
    let Some((_, value)) = document.iter().find(|(name, _)| name.get_ref() == "listen") else {
        return default_listeners();
    };
    let write = "[[listen]] on a line of its own for each listener, and its options below";
    let DeValue::Array(array) = value.get_ref() else {
        reader.problem(Some(value.span()), "listen is not a list of tables", format!("write {write}"));
        return default_listeners();
    };
    let mut listeners = Vec::new();
    for (index, item) in array.iter().enumerate() {
        let at = format!("listen[{index}]");
        let Some(table) = reader.table(item, &at, write) else { continue };
        reader.unknown_keys(table, &at, Listener::KEYS, elsewhere);
        let start = item.span().start;
        reader.note_span(at.clone(), start..item.span().end.min(start + "[[listen]]".len()));
        let listener = Listener::read(reader, table, &at);
        if !table.iter().any(|(name, _)| name.get_ref() == "address") {
            reader.problem(
                reader.span(&at),
                format!("{at} has no address"),
                "write address = \"*:5222\" below [[listen]]",
            );
            continue;
        }
        listeners.push(listener);
    }
    listeners
}

fn read_components(
    document: &DeTable<'_>,
    reader: &mut Reader,
    elsewhere: &[(String, &'static str)],
) -> Vec<Component> {
    let Some((_, value)) = document.iter().find(|(name, _)| name.get_ref() == "component") else {
        return Vec::new();
    };
    let write = "[[component]] on a line of its own for each component, and its options below";
    let DeValue::Array(array) = value.get_ref() else {
        reader.problem(Some(value.span()), "component is not a list of tables", format!("write {write}"));
        return Vec::new();
    };
    let mut components = Vec::new();
    for (index, item) in array.iter().enumerate() {
        let at = format!("component[{index}]");
        let Some(table) = reader.table(item, &at, write) else { continue };
        reader.unknown_keys(table, &at, Component::KEYS, elsewhere);
        let start = item.span().start;
        reader.note_span(at.clone(), start..item.span().end.min(start + "[[component]]".len()));
        let mut component = Component::read(reader, table, &at);
        match xmpp::jid::prepare_domain(component.domain()) {
            Ok(domain) => component.domain = Some(domain),
            Err(_) => {
                let span = reader.span(&format!("{at}.domain")).or_else(|| reader.span(&at));
                reader.problem(span, format!("{at} names no domain"), "write domain = \"irc.example.org\"");
                continue;
            }
        }
        components.push(component);
    }
    components
}

/// 5222 with STARTTLS and 5223 with TLS from the first byte, on every address.
pub fn default_listeners() -> Vec<Listener> {
    vec![
        Listener { address: ListenAddress::Any(5222), tls: ListenTls::Required, ..Listener::default() },
        Listener { address: ListenAddress::Any(5223), tls: ListenTls::Direct, ..Listener::default() },
    ]
}

/// For servers of other domains: 5269 with STARTTLS and 5270 with TLS from the first byte (XEP-0368).
pub fn default_server_listeners() -> Vec<Listener> {
    let of =
        |port, tls| Listener { kind: ListenKind::S2s, address: ListenAddress::Any(port), tls, ..Listener::default() };
    vec![of(5269, ListenTls::Required), of(5270, ListenTls::Direct)]
}

/// May other domains' servers find this one by its name? Not names without a dot, those for one machine or one network
/// (RFC 6761, RFC 6762), nor addresses.
fn is_reachable(domain: &str) -> bool {
    let last = domain.rsplit('.').next().unwrap_or_default();
    domain.contains('.')
        && !["localhost", "local", "invalid"].contains(&last)
        && domain.trim_matches(['[', ']']).parse::<IpAddr>().is_err()
}

/// `$WAFT_DATA`, else systemd's `$STATE_DIRECTORY`, else `/var/lib/waft` for root and `~/.local/share/waft`
/// (`$XDG_DATA_HOME/waft`) for everybody else, else `waft-data` in the working folder.
pub fn default_data_folder() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = set("WAFT_DATA") {
        return folder;
    }
    if let Some(folders) = set("STATE_DIRECTORY") {
        // A list with colons; the unit names one.
        return PathBuf::from(folders.to_string_lossy().split(':').next().unwrap_or_default());
    }
    if crate::data::effective_uid() == Some(0) {
        return PathBuf::from("/var/lib/waft");
    }
    if let Some(folder) = set("XDG_DATA_HOME").filter(|folder| folder.is_absolute()) {
        return folder.join("waft");
    }
    match set("HOME") {
        Some(home) => home.join(".local/share/waft"),
        None => PathBuf::from("waft-data"),
    }
}

/// Where a listener stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// `*:5222`: every address, IPv6 and IPv4.
    Any(u16),
    At(SocketAddr),
}

impl ListenAddress {
    pub fn port(&self) -> u16 {
        match self {
            ListenAddress::Any(port) => *port,
            ListenAddress::At(address) => address.port(),
        }
    }

    pub fn is_loopback(&self) -> bool {
        match self {
            ListenAddress::Any(_) => false,
            ListenAddress::At(address) => address.ip().to_canonical().is_loopback(),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = ();

    /// `*:5222`, `:5222`, `5222`, `127.0.0.1:5222`, `[::1]:5222`, `localhost:5222`.
    fn from_str(text: &str) -> Result<ListenAddress, ()> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(ListenAddress::At(address));
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("*", text));
        let port = port.parse::<u16>().map_err(|_| ())?;
        match host {
            "*" | "" => Ok(ListenAddress::Any(port)),
            "localhost" => Ok(ListenAddress::At(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port))),
            _ => Err(()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Any(port) => write!(f, "*:{port}"),
            ListenAddress::At(address) => write!(f, "{address}"),
        }
    }
}

impl Value for options::Contact {
    fn kind() -> String {
        "table".into()
    }
    fn read(_: &DeValue<'_>) -> Result<Self, String> {
        // Read by `read_contact`, which knows the place.
        Ok(options::Contact::default())
    }
    fn show(&self) -> String {
        String::new()
    }
}

#[cfg(test)]
mod tests;
