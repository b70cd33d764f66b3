//! Keys of other servers that were seen once and must stay the same: trust on first use.
//!
//! On first contact with a domain whose certificate no authority vouches for, dialback proves it, and its certificate is
//! noted. From then on that certificate proves the domain, and another one does not: whoever takes its place later is
//! noticed. The operator sees each first contact and each change in the log, all with `waft s2s known`, and accepts a
//! change with `waft s2s forget`.

use super::Federation;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use stream::{Crypto, Hash, PeerCertificate};
use xmpp::Stamp;

/// Domains that are remembered; further ones are proved by dialback each time.
const KNOWN_MAX: usize = 10_000;

/// What a certificate is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// Nothing is known of the domain.
    First,
    Same,
    Changed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// SHA-256 of the certificate, in hexadecimal digits.
    pub fingerprint: String,
    pub since: String,
}

/// By domain; kept in a file of the data folder, a line each: domain, fingerprint, since when.
#[derive(Debug, Default)]
pub struct Known {
    keys: Mutex<BTreeMap<String, Key>>,
    file: Option<PathBuf>,
}

impl Known {
    /// Reads what is known; no file is nothing.
    ///
    /// # Errors
    /// For people: the file is there and cannot be read.
    pub fn load(file: PathBuf) -> Result<Known, String> {
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(format!("cannot read {}: {error}\nlet the user that runs waft read it", file.display()));
            }
        };
        let mut keys = BTreeMap::new();
        for line in text.lines().take(KNOWN_MAX) {
            let mut words = line.split_whitespace();
            if let (Some(domain), Some(fingerprint), Some(since)) = (words.next(), words.next(), words.next()) {
                keys.insert(domain.into(), Key { fingerprint: fingerprint.into(), since: since.into() });
            }
        }
        Ok(Known { keys: Mutex::new(keys), file: Some(file) })
    }

    pub fn meets(&self, domain: &str, fingerprint: &str) -> Met {
        match self.keys.lock().get(domain) {
            None => Met::First,
            Some(key) if key.fingerprint == fingerprint => Met::Same,
            Some(_) => Met::Changed,
        }
    }

    /// Is anything known of the domain?
    pub fn has(&self, domain: &str) -> bool {
        self.keys.lock().contains_key(domain)
    }

    /// Notes a first contact; what is known already stays. `true`: it was the first.
    pub fn learn(&self, domain: &str, fingerprint: &str, now: Stamp) -> bool {
        let mut keys = self.keys.lock();
        if keys.contains_key(domain) || keys.len() >= KNOWN_MAX {
            return false;
        }
        keys.insert(domain.into(), Key { fingerprint: fingerprint.into(), since: now.to_xmpp() });
        self.write(&keys);
        true
    }

    /// The next contact is a first one again. `false`: nothing was known.
    pub fn forget(&self, domain: &str) -> bool {
        let mut keys = self.keys.lock();
        let was = keys.remove(domain).is_some();
        if was {
            self.write(&keys);
        }
        was
    }

    pub fn list(&self) -> Vec<(String, Key)> {
        self.keys.lock().iter().map(|(domain, key)| (domain.clone(), key.clone())).collect()
    }

    fn write(&self, keys: &BTreeMap<String, Key>) {
        let Some(file) = &self.file else { return };
        let mut text = String::new();
        for (domain, key) in keys {
            let _ = writeln!(text, "{domain} {} {}", key.fingerprint, key.since);
        }
        if let Err(error) = crate::data::write_secret(file, text.as_bytes()) {
            tracing::error!(file = %file.display(), %error, "keys of other servers could not be kept: after a restart they are met for the first time again");
        }
    }
}

impl Federation {
    /// What a chain that the peer showed says of it. A certificate that is known counts as one that an authority vouches
    /// for, for the domains that it was noted for.
    pub fn judge(&self, chain: Option<&[CertificateDer<'_>]>) -> Option<PeerCertificate> {
        let chain = chain?;
        let certificate = self.trust.read().judge(chain)?;
        if certificate.valid || !certificate.dns_names.iter().any(|name| self.policy().is_first_use(name)) {
            return Some(certificate);
        }
        Some(known_names(&self.known, certificate, &fingerprint(&*self.crypto, chain.first()?)))
    }

    /// Is this not the certificate that the domain showed at first contact, nor one that an authority vouches for? Then
    /// whoever shows it is not believed.
    pub fn is_changed(&self, domain: &str, chain: Option<&[CertificateDer<'_>]>) -> bool {
        if !self.policy().is_first_use(domain) || !self.known.has(domain) {
            return false;
        }
        let own = chain.and_then(|chain| chain.first());
        let same = own.is_some_and(|own| self.known.meets(domain, &fingerprint(&*self.crypto, own)) == Met::Same);
        let vouched = || {
            let judged = chain.and_then(|chain| self.trust.read().judge(chain));
            judged.is_some_and(|certificate| certificate.speaks_for(domain))
        };
        let changed = !same && !vouched();
        if changed {
            self.house.count("s2s_keys_changed");
            tracing::warn!(
                domain,
                "another server shows another certificate than at first contact, and is not believed; if its administrator says that this is right: waft s2s forget {domain}"
            );
        }
        changed
    }

    /// The domain was proved on a stream with this certificate. At first contact it is noted.
    pub fn met(&self, domain: &str, chain: Option<&[CertificateDer<'_>]>) {
        if !self.policy().is_first_use(domain) {
            return;
        }
        let Some(own) = chain.and_then(|chain| chain.first()) else { return };
        let names = crate::certificates::names_of_server(own);
        let by_authority = chain.and_then(|chain| self.trust.read().judge(chain)).is_some_and(|it| it.valid);
        if by_authority || !(PeerCertificate { valid: true, ..names }).speaks_for(domain) {
            return;
        }
        let fingerprint = fingerprint(&*self.crypto, own);
        if self.known.learn(domain, &fingerprint, self.house.now().utc) {
            tracing::warn!(
                domain,
                sha256 = fingerprint,
                "first contact with another server: this certificate is trusted for it from now on; ask its administrator whether it is the right one (waft prints its own when it starts)"
            );
        }
    }
}

/// A certificate's fingerprint.
pub fn fingerprint(crypto: &dyn Crypto, certificate: &CertificateDer<'_>) -> String {
    crypto.digest(Hash::Sha256, certificate).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What a certificate that no authority vouches for proves by being known: of the names in it, only those.
pub fn known_names(known: &Known, certificate: PeerCertificate, fingerprint: &str) -> PeerCertificate {
    let is_known = |name: &String| {
        xmpp::jid::prepare_domain(name).is_ok_and(|domain| known.meets(&domain, fingerprint) == Met::Same)
    };
    let names: Vec<String> = certificate.dns_names.iter().filter(|name| is_known(name)).cloned().collect();
    match names.is_empty() {
        true => certificate,
        false => PeerCertificate { valid: true, dns_names: names, ..PeerCertificate::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_of_a_domain_stays_until_it_is_forgotten_also_over_a_restart() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("known-servers");
        let known = Known::load(file.clone()).expect("no file is nothing");
        assert_eq!(known.meets("a.local", "01"), Met::First);
        assert!(known.learn("a.local", "01", Stamp(0)));
        assert!(!known.learn("a.local", "02", Stamp(0)));
        let known = Known::load(file.clone()).expect("it was written");
        assert_eq!(known.meets("a.local", "01"), Met::Same);
        assert_eq!(known.meets("a.local", "02"), Met::Changed);
        assert!(known.forget("a.local") && !known.forget("a.local"));
        assert_eq!(Known::load(file).expect("it was written").meets("a.local", "02"), Met::First);
    }

    #[test]
    fn a_known_certificate_proves_the_names_that_were_noted_and_no_others_in_it() {
        let known = Known::default();
        known.learn("a.local", "01", Stamp(0));
        let names = |names: &[&str]| PeerCertificate {
            valid: false,
            dns_names: names.iter().map(|it| it.to_string()).collect(),
            ..PeerCertificate::default()
        };
        let proved = known_names(&known, names(&["a.local", "bank.example"]), "01");
        assert!(proved.speaks_for("a.local") && !proved.speaks_for("bank.example"));
        assert!(!known_names(&known, names(&["a.local"]), "02").speaks_for("a.local"));
        assert!(!known_names(&known, names(&["b.local"]), "01").speaks_for("b.local"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let known = Known::default();
        for n in 0..KNOWN_MAX {
            assert!(known.learn(&format!("d{n}.local"), "01", Stamp(0)));
        }
        assert!(!known.learn("one-more.local", "01", Stamp(0)));
    }
}
