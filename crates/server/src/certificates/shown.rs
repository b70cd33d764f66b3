//! The certificates as operators see them.

use super::{ORGANISATION, certified, paths, read_chain};
use crate::acme::keeper::Renewal;
use crate::admin::Certificate;
use crate::config::{Config, Host};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use xmpp::Stamp;

/// All that are shown, in the order of the configuration. Blocks on files.
pub fn list(config: &Config, renewals: &[Renewal]) -> Vec<Certificate> {
    certified(config).iter().map(|host| of(config, host, renewals)).collect()
}

/// A host's certificate.
pub fn of(config: &Config, host: &Host, renewals: &[Renewal]) -> Certificate {
    let (file, _) = paths(config, host);
    let mut out = Certificate {
        domain: host.domain.to_string(),
        source: if host.options.certificate.is_some() { "file" } else { "self-signed" }.into(),
        file: file.display().to_string(),
        ..Certificate::default()
    };
    if let Some(renewal) = renewals.iter().find(|it| *it.domain == *host.domain) {
        out.renewal = Some(at(renewal.next));
        (out.failures, out.failure) = (renewal.failures, renewal.failure.clone());
    }
    if host.options.acme {
        out.caa = caa(config);
    }
    let chain = match read_chain(&file) {
        Ok(chain) => chain,
        Err(error) => {
            out.wrong = Some(error.to_string());
            return out;
        }
    };
    let Some((_, parsed)) = chain.first().and_then(|own| X509Certificate::from_der(own).ok()) else { return out };
    if host.options.acme && file == crate::acme::file(config, &host.domain) {
        out.source = "acme".into();
    } else if host.options.certificate.is_none()
        && !parsed.subject().iter_organization().any(|name| name.as_str() == Ok(ORGANISATION))
    {
        // Somebody has put it into the data folder.
        out.source = "file".into();
    }
    let validity = parsed.validity();
    let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    (out.from, out.until) = (Some(at(from)), Some(at(until)));
    out.days = (until - super::now_seconds()).div_euclid(86_400);
    out.issuer = parsed.issuer().to_string();
    out.names = names(&parsed);
    out.tlsa = tlsa(&parsed);
    out
}

fn at(seconds: i64) -> String {
    Stamp(seconds.max(0).saturating_mul(1_000_000)).to_xmpp()
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let all = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => super::ip_of(bytes).map(|ip| ip.to_string()),
        _ => None,
    });
    all.collect()
}

/// The end entity's key by its SHA-256: RFC 6698 §2.1, RFC 7671 §5.1.
fn tlsa(certificate: &X509Certificate<'_>) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.public_key().raw);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("3 1 1 {hex}")
}

/// Who alone may give certificates for the names, and to whose account: RFC 8659, RFC 8657.
fn caa(config: &Config) -> Option<String> {
    let authority = crate::acme::caa_name(&config.acme.directory)?;
    let account = crate::acme::authority::account_uri(config);
    let of_account = account.map(|uri| format!("; accounturi={uri}")).unwrap_or_default();
    Some(format!("0 issue \"{authority}{of_account}\""))
}
