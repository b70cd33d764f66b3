//! Certificates of an authority, by ACME (RFC 8555): got for the hosts that ask for one, renewed in time, shown from then
//! on without ending a stream.
//!
//! - [`schedule`]: when to renew, and when to try again. [`keeper`]: what was got, what is due.
//! - [`authority`]: one certificate from the authority, with [`client`], the HTTP under it.
//! - [`answers`]: what the authority finds when it asks whether a name is ours: HTTP-01, TLS-ALPN-01.
//!
//! In the folder `acme` of the data folder lies `DOMAIN.pem`, chain and key in one file, so that they always belong
//! together, and `AUTHORITY.account`, the account and its key.

pub mod answers;
pub mod authority;
pub mod client;
pub mod keeper;
pub mod schedule;

use crate::certificates::Certificates;
use crate::config::Config;
use crate::house::House;
use answers::Answers;
use keeper::{Keeper, Wanted};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// At the latest after so long it is looked again: the clock on the wall may have been set.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The name that an authority knows a domain by: A-labels, lower case. `None`: it has none, as an address.
pub fn dns_name(domain: &str) -> Option<String> {
    let ascii = crate::s2s::trust::ascii(&xmpp::jid::prepare_domain(domain).ok()?)?;
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let named = ascii.parse::<std::net::IpAddr>().is_err() && ascii.split('.').all(is_label);
    named.then(|| ascii.to_ascii_lowercase())
}

/// Where a domain's certificate and key are, if it is to have them by ACME.
pub fn file(config: &Config, domain: &str) -> PathBuf {
    config.acme_folder().join(format!("{domain}.pem"))
}

/// By which name CAA records speak of an authority (RFC 8659 §4.2), where that is known of its directory.
pub fn caa_name(directory: &str) -> Option<&'static str> {
    const NAMES: [(&str, &str); 5] = [
        ("letsencrypt.org", "letsencrypt.org"),
        ("zerossl.com", "sectigo.com"),
        ("pki.goog", "pki.goog"),
        ("buypass.com", "buypass.com"),
        ("ssl.com", "ssl.com"),
    ];
    let place = directory.strip_prefix("https://")?.split(['/', ':']).next()?;
    let of = |end: &str| place == end || place.strip_suffix(end).is_some_and(|before| before.ends_with('.'));
    NAMES.iter().find(|(end, _)| of(end)).map(|(_, name)| *name)
}

/// Whose certificates are wanted, and with which names.
pub fn wanted(config: &Config) -> Vec<Wanted> {
    let of = |domain: &str, more: &[String]| {
        let mut names: Vec<String> = Vec::new();
        for name in std::iter::once(domain).chain(more.iter().map(String::as_str)).filter_map(dns_name) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Wanted { domain: domain.into(), names, file: file(config, domain) }
    };
    let hosts = config.hosts.iter().filter(|host| host.options.acme);
    let components = config.components.iter().filter(|component| component.acme);
    hosts
        .map(|host| of(&host.domain, &host.options.acme_names))
        .chain(components.map(|component| of(component.domain(), &[])))
        .filter(|wanted| !wanted.names.is_empty())
        .collect()
}

/// Gets and renews until the task is ended.
pub async fn carry(house: Arc<House>, certificates: Arc<Certificates>) {
    let status = certificates.renewals.clone();
    let answers = certificates.answers.clone();
    let mut keeper = Keeper::default();
    loop {
        let config = house.config.read().clone();
        if !config.uses_acme() {
            status.set(Vec::new());
            status.wake.notified().await;
            continue;
        }
        let now = || house.now().utc.0 / 1_000_000;
        let mut random = || {
            let mut bytes = [0; 4];
            house.crypto.random(&mut bytes);
            f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
        };
        let authority = authority::Authority::new(&config, answers.clone());
        let show = || certificates.reload(&config).map_err(|error| error.to_string());
        let first_pause = i64::from(config.acme.retry_seconds);
        let asked = status.take_asked();
        keeper.renew_now(&asked);
        let due = keeper.step(&wanted(&config), &authority, first_pause, &now, &mut random, &show).await;
        status.set(keeper.shown());
        let pause = due.map_or(LOOK_EVERY, |at| {
            Duration::from_secs((at - now()).max(0).unsigned_abs()).clamp(Duration::from_millis(200), LOOK_EVERY)
        });
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = status.wake.notified() => {}
        }
    }
}

/// Chain and key of a file that was written here.
///
/// # Errors
/// Those of the file system.
pub fn write_pair(file: &Path, chain: &str, key: &str) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        crate::data::make_subfolder(folder)?;
    }
    let end = if chain.ends_with('\n') { "" } else { "\n" };
    crate::data::write_secret(file, format!("{chain}{end}{key}").as_bytes())
}

/// Listens for the authority's questions, where the configuration says.
///
/// # Errors
/// For people: the address cannot be had.
pub fn listen(
    house: &Arc<House>,
    config: &Config,
    answers: &Arc<Answers>,
    network: &crate::world::Network,
) -> Result<Vec<tokio::task::JoinHandle<()>>, String> {
    let Some(address) = config.acme_address() else { return Ok(Vec::new()) };
    let sockets = network.listen(&address).map_err(|why| {
        let first = why.lines().next().unwrap_or_default();
        format!("{first}\nthere the authority of [acme] is answered: set address in [acme]")
    })?;
    let tasks = sockets.into_iter().map(|socket| match config.acme.challenge {
        crate::config::AcmeChallenge::Http01 => tokio::spawn(answers::serve_http(answers.clone(), socket)),
        crate::config::AcmeChallenge::TlsAlpn01 => {
            let patience = Duration::from_secs(u64::from(house.config.read().limits.tls_handshake_seconds));
            tokio::spawn(answers::serve_tls(answers.clone(), socket, patience))
        }
    });
    Ok(tasks.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_known_by_its_domain_alone() {
        assert_eq!(caa_name("https://acme-v02.api.letsencrypt.org/directory"), Some("letsencrypt.org"));
        assert_eq!(caa_name("https://letsencrypt.org.example/directory"), None);
        assert_eq!(caa_name("https://evilletsencrypt.org/"), None);
    }

    #[test]
    fn names_in_dns_are_ascii_and_no_addresses() {
        assert_eq!(dns_name("Bücher.example").as_deref(), Some("xn--bcher-kva.example"));
        assert_eq!(dns_name("example.org").as_deref(), Some("example.org"));
        for wrong in ["127.0.0.1", "[::1]", "a b", "", "x..y"] {
            assert_eq!(dns_name(wrong), None, "{wrong}");
        }
    }
}
