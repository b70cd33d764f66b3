//! DANE: certificates of other servers that DNSSEC vouches for. RFC 7712 §5.1, RFC 7673, RFC 6698, RFC 7671.
//!
//! Where the name servers' answers are validated (`s2s.dane`), a domain can prove itself without an authority: signed SRV
//! records name its servers, and signed TLSA records their certificates or keys.
//! - Such a record that matches proves the domain, also where `trust = "certificate"`.
//! - Records that do not match end the attempt, whatever else would be believed (RFC 7673 §3.4).
//! - Without usable records a server may show a certificate for its own name instead of the domain's, if signed SRV
//!   records name it (RFC 7673 §4.1).

use super::trust::Trust;
use super::{Federation, dns};
use crate::certificates::names_of_server;
use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::time::Duration;
use stream::PeerCertificate;
use x509_parser::prelude::{FromDer, X509Certificate};

/// For the questions about a server that connected, all together.
const PATIENCE: Duration = Duration::from_secs(10);

/// A TLSA record. RFC 6698 §2.1, with the names of RFC 7218.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tlsa {
    /// 0 PKIX-TA, 1 PKIX-EE, 2 DANE-TA, 3 DANE-EE.
    pub usage: u8,
    /// 0 the certificate, 1 its public key.
    pub selector: u8,
    /// 0 as it is, 1 SHA-256, 2 SHA-512.
    pub matching: u8,
    pub data: Vec<u8>,
}

impl fmt::Display for Tlsa {
    /// As it stands in a zone file: three numbers and hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} ", self.usage, self.selector, self.matching)?;
        self.data.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Tlsa {
    /// RFC 6698 §4.1: what is not understood is as if it were not there.
    pub fn is_usable(&self) -> bool {
        let length = match self.matching {
            0 => !self.data.is_empty(),
            1 => self.data.len() == 32,
            2 => self.data.len() == 64,
            _ => false,
        };
        self.usage <= 3 && self.selector <= 1 && length
    }

    fn matches(&self, certificate: &CertificateDer<'_>) -> bool {
        let selected = match self.selector {
            0 => Some(certificate.to_vec()),
            _ => X509Certificate::from_der(certificate).ok().map(|(_, it)| it.public_key().raw.to_vec()),
        };
        let Some(selected) = selected else { return false };
        match self.matching {
            0 => selected == self.data,
            1 => digest::digest(&digest::SHA256, &selected).as_ref() == self.data,
            _ => digest::digest(&digest::SHA512, &selected).as_ref() == self.data,
        }
    }
}

/// A server that a domain names in signed SRV records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    /// The target of the SRV record.
    pub name: String,
    /// Usable ones, secure; empty: there are none.
    pub tlsa: Vec<Tlsa>,
}

/// What signed records say of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// There are no TLSA records: it is judged as ever. `named`: signed SRV records lead to one of its names.
    Nothing { named: bool },
    /// A record vouches for it.
    Vouched,
    /// There are records, and none does.
    Differs,
}

impl Delegation {
    /// What the records say of a chain that a server of `domain` (in ASCII) showed.
    pub fn says(&self, domain: &str, chain: &[CertificateDer<'_>], trust: &Trust) -> Said {
        let Some((own, others)) = chain.split_first() else {
            return if self.tlsa.is_empty() { Said::Nothing { named: false } } else { Said::Differs };
        };
        let names = PeerCertificate { valid: true, ..names_of_server(own) };
        if self.tlsa.is_empty() {
            return Said::Nothing { named: names.speaks_for(&self.name) };
        }
        // RFC 7673 §6: either name will do, where names are looked at.
        let is_named = names.speaks_for(domain) || names.speaks_for(&self.name);
        let vouches = |record: &Tlsa| match record.usage {
            // Neither names nor dates are looked at. RFC 7671 §5.1.
            3 => record.matches(own),
            2 => is_named && self.is_under(record, chain, trust),
            1 => is_named && record.matches(own) && trust.verify(chain).is_ok(),
            _ => {
                is_named
                    && trust.verify(chain).is_ok()
                    && others.iter().any(|it| record.matches(it))
                    && self.is_under(record, chain, trust)
            }
        };
        if self.tlsa.iter().any(vouches) { Said::Vouched } else { Said::Differs }
    }

    /// Does the chain lead to the authority that the record names? It must be shown with the chain, but for one that the
    /// record holds as a whole. RFC 7671 §5.2.
    fn is_under(&self, record: &Tlsa, chain: &[CertificateDer<'_>], trust: &Trust) -> bool {
        let held = CertificateDer::from(record.data.as_slice());
        let held = Some(&held).filter(|_| (record.selector, record.matching) == (0, 0));
        let mut anchors = chain.iter().filter(|it| record.matches(it)).chain(held);
        anchors.any(|anchor| trust.verify_under(anchor, chain).is_ok())
    }
}

/// What is known of a server's certificate.
#[derive(Debug, Default)]
pub struct Judged {
    pub certificate: Option<PeerCertificate>,
    pub by_dane: bool,
}

impl Federation {
    /// What the chain of a server that we dialled says of it.
    ///
    /// # Errors
    /// Why it is not to be spoken with, whatever else it can prove.
    pub fn judge_dialled(
        &self,
        domain: &str,
        chain: Option<&[CertificateDer<'_>]>,
        delegation: Option<&Delegation>,
    ) -> Result<Judged, &'static str> {
        let ascii = super::trust::ascii(domain).unwrap_or_default();
        let said = match delegation {
            Some(delegation) => delegation.says(&ascii, chain.unwrap_or_default(), &self.trust.read()),
            None => Said::Nothing { named: false },
        };
        if said == Said::Differs {
            self.house.count("s2s_dane_refused");
            return Err("its certificate is none of those that its signed TLSA records name");
        }
        if said == Said::Vouched {
            let certificate = PeerCertificate { valid: true, dns_names: vec![ascii], ..PeerCertificate::default() };
            return Ok(Judged { certificate: Some(certificate), by_dane: true });
        }
        if self.is_changed(domain, chain) {
            return Err("its certificate is not the one of the first contact");
        }
        let mut certificate = self.judge(chain);
        if said == (Said::Nothing { named: true })
            && let Some(certificate) = certificate.as_mut().filter(|it| it.valid)
        {
            certificate.dns_names.push(ascii);
        }
        Ok(Judged { certificate, by_dane: false })
    }

    /// Do signed records of the domain vouch for the chain that somebody showed who connected and says to be its server?
    pub async fn is_vouched_for(&self, domain: &str, chain: &[CertificateDer<'_>]) -> bool {
        if !self.resolver.validates() || chain.is_empty() {
            return false;
        }
        let Some(ascii) = super::trust::ascii(domain) else { return false };
        // Nobody is dialled: any address will do.
        let targets = async { dns::targets(&*self.resolver, &ascii, true, &mut |_| 0).await };
        let Ok(Ok(targets)) = tokio::time::timeout(PATIENCE, targets).await else { return false };
        let trust = self.trust.read();
        let mut delegations = targets.iter().filter_map(|target| target.delegation.as_deref());
        delegations.any(|delegation| delegation.says(&ascii, chain, &trust) == Said::Vouched)
    }
}

#[cfg(test)]
mod tests;
