//! With whom we speak, whom we believe, and within which bounds: the configuration, as the streams between servers need
//! it.

use crate::config::options::FederationDomain;
use crate::config::{Config, ListenAddress, Trust};
use crate::edge::EdgeLimits;
use crate::edge::rates::Rates;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use stream::{Crypto, ServerConfig};

/// Domains by name, and with all that is below them.
#[derive(Debug, Clone, Default)]
struct Names {
    exact: HashSet<Box<str>>,
    /// `*.example.net`, without the star and its dot.
    below: HashSet<Box<str>>,
}

impl Names {
    fn of<'a>(names: impl Iterator<Item = &'a str>) -> Names {
        let mut all = Names::default();
        for name in names {
            let (below, name) = match name.strip_prefix("*.") {
                Some(name) => (true, name),
                None => (false, name),
            };
            // What is none was told of when the configuration was read.
            let Ok(name) = xmpp::jid::prepare_domain(name) else { continue };
            let into = if below { &mut all.below } else { &mut all.exact };
            into.insert(name.into());
        }
        all
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty()
    }

    fn has(&self, domain: &str) -> bool {
        let above = |domain: &str| domain.split_once('.').map(|(_, above)| above.to_owned());
        self.exact.contains(domain)
            || !self.below.is_empty()
                && std::iter::successors(above(domain), |name| above(name)).any(|name| self.below.contains(&*name))
    }
}

/// What is particular about one other domain.
#[derive(Debug, Clone)]
struct Remote {
    trust: Option<Trust>,
    address: Option<SocketAddr>,
    server: Option<(Box<str>, u16)>,
}

/// Bounds and policy, as the configuration says now.
#[derive(Debug, Clone)]
pub struct Policy {
    pub stream: Arc<ServerConfig>,
    blocked: Names,
    /// Empty: everybody.
    allowed: Names,
    trust: Trust,
    remotes: HashMap<Box<str>, Remote>,
    pub allow_private: bool,
    /// For a stanza to a domain that does not exist, one that does not answer, and for a kept one to a domain that was
    /// there in the last days.
    pub absent: Duration,
    pub patience: Duration,
    pub keep: Duration,
    pub idle: Duration,
    pub connect: Duration,
    pub retry_max: Duration,
    pub negotiation: Duration,
    pub handshake: Duration,
    pub queue_items_max: usize,
    pub queue_bytes_max: usize,
    pub bytes_per_second: u32,
    pub bytes_burst: u32,
}

impl Policy {
    pub fn of(config: &Config, secret: &[u8], crypto: &dyn Crypto) -> Policy {
        let federation = &config.federation;
        let limits = &config.limits;
        let seconds = |s: u32| Duration::from_secs(u64::from(s));
        let rate = |value: u64| if limits.rates { u32::try_from(value).unwrap_or(u32::MAX) } else { 0 };
        Policy {
            stream: Arc::new(ServerConfig {
                hosts: config.domains().map(Into::into).collect(),
                bidi: federation.bidi,
                limits_before_auth: limits.before_auth(),
                limits_after_auth: limits.after_auth_of_servers(),
                // Its own use of the secret: what dialback tells says nothing of other uses.
                secret: crypto.hmac(stream::Hash::Sha256, secret, b"dialback"),
                ..ServerConfig::default()
            }),
            blocked: listed(
                &[federation.blocked.clone(), crate::config::blocked_domains(&config.data)].concat(),
                federation.blocked_file.as_deref(),
            ),
            allowed: listed(&federation.allowed, federation.allowed_file.as_deref()),
            trust: federation.trust,
            remotes: config.remotes.iter().map(|remote| (remote.domain.clone(), of_remote(&remote.options))).collect(),
            allow_private: federation.allow_private,
            absent: seconds(federation.absent_seconds),
            patience: seconds(federation.patience_seconds),
            keep: seconds(federation.keep_seconds),
            idle: seconds(federation.idle_seconds),
            connect: seconds(limits.s2s_connect_seconds),
            retry_max: seconds(limits.s2s_retry_seconds_max),
            negotiation: seconds(limits.authentication_seconds),
            handshake: seconds(limits.tls_handshake_seconds),
            queue_items_max: limits.s2s_queue_stanzas_max,
            queue_bytes_max: limits.s2s_queue_bytes_max,
            bytes_per_second: rate(limits.s2s_bytes_per_second),
            bytes_burst: rate(limits.s2s_bytes_burst),
        }
    }

    /// May we speak with this domain at all?
    pub fn allows(&self, domain: &str) -> bool {
        !self.blocked.has(domain)
            && (self.allowed.is_empty() || self.allowed.has(domain))
            && self.trust_of(domain) != Trust::Refuse
    }

    /// Does only a certificate prove this domain?
    pub fn is_strict(&self, domain: &str) -> bool {
        self.trust_of(domain) == Trust::Certificate
    }

    /// Must its certificate stay the one of the first contact?
    pub fn is_first_use(&self, domain: &str) -> bool {
        self.trust_of(domain) == Trust::FirstUse
    }

    fn trust_of(&self, domain: &str) -> Trust {
        self.remotes.get(domain).and_then(|remote| remote.trust).unwrap_or(self.trust)
    }

    /// How fast one stream is read.
    pub fn rates(&self) -> Rates {
        Rates::new(&EdgeLimits {
            bytes_per_second: self.bytes_per_second,
            bytes_burst: self.bytes_burst,
            stanzas_per_second: 0,
            ..EdgeLimits::default()
        })
    }

    /// Where the configuration says that its server is.
    pub fn pinned(&self, domain: &str) -> Option<SocketAddr> {
        self.remotes.get(domain).and_then(|remote| remote.address)
    }

    /// … or by what name and port it is to be looked for.
    pub fn pinned_name(&self, domain: &str) -> Option<(&str, u16)> {
        self.remotes.get(domain).and_then(|remote| remote.server.as_ref()).map(|(name, port)| (&**name, *port))
    }
}

/// The names of a list and of a file: one a line, what follows a `#` is for people. A file that cannot be read now was
/// there when the configuration was checked.
fn listed(names: &[String], file: Option<&Path>) -> Names {
    let text = file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    Names::of(names.iter().map(String::as_str).chain(lines.filter(|line| !line.is_empty())))
}

fn of_remote(options: &FederationDomain) -> Remote {
    let address = match options.address {
        Some(ListenAddress::At(address)) => Some(address),
        Some(ListenAddress::Any(_)) | None => None,
    };
    let server = options.server.as_deref().and_then(|server| {
        let (name, port) = server.rsplit_once(':')?;
        Some((name.into(), port.parse().ok()?))
    });
    Remote { trust: options.trust, address, server }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        let config =
            crate::config::parse(text, None, &crate::config::Sources::default()).expect("the test's file is right");
        Policy::of(&config, b"secret", &crate::crypto::AwsLc)
    }

    #[test]
    fn blocked_domains_and_those_not_among_the_allowed_are_not_spoken_with() {
        let open = policy("[s2s]\nblocked = [\"Bad.example\"]");
        assert!(open.allows("good.example") && open.allows("sub.bad.example") && !open.allows("bad.example"));
        let closed = policy("[s2s]\nallowed = [\"good.example\"]");
        assert!(closed.allows("good.example") && !closed.allows("other.example"));
    }

    #[test]
    fn a_star_stands_for_all_that_is_below_and_a_file_adds_to_the_list() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("blocked");
        std::fs::write(&file, "# spam\nworse.example  # since May\n\n*.worst.example\n").expect("it can be written");
        let it = policy(&format!("[s2s]\nblocked = [\"*.bad.example\"]\nblocked_file = \"{}\"\n", file.display()));
        for (domain, allowed) in [
            ("bad.example", true),
            ("a.bad.example", false),
            ("a.b.bad.example", false),
            ("xbad.example", true),
            ("worse.example", false),
            ("a.worse.example", true),
            ("a.worst.example", false),
        ] {
            assert_eq!(it.allows(domain), allowed, "{domain}");
        }
    }

    #[test]
    fn what_was_blocked_at_run_time_is_not_spoken_with() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join(crate::config::BLOCKED_FILE), "bad.example\n*.worse.example\n")
            .expect("it can be written");
        let it = policy(&format!("data = \"{}\"\n", folder.path().display()));
        assert!(!it.allows("bad.example") && !it.allows("a.worse.example") && it.allows("good.example"));
    }

    #[test]
    fn a_domain_can_be_refused_and_all_but_some_can() {
        let one = policy("[s2s.domain.\"bad.example\"]\ntrust = \"refuse\"\n");
        assert!(!one.allows("bad.example") && one.allows("good.example"));
        let all = policy("[s2s]\ntrust = \"refuse\"\n[s2s.domain.\"good.example\"]\ntrust = \"certificate\"\n");
        assert!(!all.allows("bad.example") && all.allows("good.example") && all.is_strict("good.example"));
    }

    #[test]
    fn a_name_and_port_can_be_pinned() {
        let it = policy("[s2s.domain.\"good.example\"]\nserver = \"xmpp.good.example:5280\"\n");
        assert_eq!(it.pinned_name("good.example"), Some(("xmpp.good.example", 5280)));
    }

    #[test]
    fn a_domain_s_own_table_wins() {
        let it = policy(
            "[s2s]\ntrust = \"certificate\"\n[s2s.domain.\"old.example\"]\ntrust = \"dialback\"\naddress = \"192.0.2.7:5269\"",
        );
        assert!(it.is_strict("new.example") && !it.is_strict("old.example"));
        assert_eq!(it.pinned("old.example").map(|address| address.port()), Some(5269));
        assert_eq!(it.pinned("new.example"), None);
    }

    #[test]
    fn dialback_has_a_secret_of_its_own() {
        let secret = policy("").stream.secret.clone();
        assert_eq!(secret.len(), 32);
        assert_ne!(secret, b"secret");
    }
}
