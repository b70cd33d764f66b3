//! What a certificate says of the other server. RFC 6120 §13.7.2, RFC 6125, RFC 9525, XEP-0178 §3.

/// The other server's certificate, as far as identity goes. There is no common name here: it counts nothing
/// (RFC 9525 §2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The chain leads to a trusted anchor and is in force. Nothing else is looked at when it is not.
    pub valid: bool,
    /// DNS-ID, as they stand there: A-labels, perhaps `*.` in front.
    pub dns_names: Vec<String>,
    /// SRV-ID, RFC 4985: `_xmpp-server.example.org`.
    pub srv_names: Vec<String>,
    /// `id-on-xmppAddr`, RFC 6120 §13.7.1.4.
    pub xmpp_addresses: Vec<String>,
}

impl PeerCertificate {
    /// Does it prove that its holder is a server of `domain` (prepared)?
    pub fn speaks_for(&self, domain: &str) -> bool {
        self.valid
            && (self.dns_names.iter().any(|name| matches_dns(name, domain))
                || self.srv_names.iter().any(|name| matches_srv(name, domain))
                || self.xmpp_addresses.iter().any(|address| is_same(address, domain)))
    }
}

/// RFC 9525 §6.3: a wildcard is the whole left-most label and stands for exactly one.
fn matches_dns(name: &str, domain: &str) -> bool {
    match name.strip_prefix("*.") {
        None => is_same(name, domain),
        // `*.org` speaks for nobody.
        Some(parent) => {
            parent.trim_end_matches('.').contains('.')
                && domain.split_once('.').is_some_and(|(_, rest)| is_same(parent, rest))
        }
    }
}

/// RFC 6120 §13.7.1.2.1: the service is `_xmpp-server`; no wildcards (RFC 9525 §6.3).
fn matches_srv(name: &str, domain: &str) -> bool {
    const SERVICE: &str = "_xmpp-server.";
    name.get(..SERVICE.len()).is_some_and(|service| service.eq_ignore_ascii_case(SERVICE))
        && is_same(&name[SERVICE.len()..], domain)
}

/// The same domain, in whatever form the certificate writes it.
fn is_same(said: &str, domain: &str) -> bool {
    !said.contains('*') && (said == domain || xmpp::jid::prepare_domain(said).is_ok_and(|said| said == domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    fn dns(name: &str) -> PeerCertificate {
        PeerCertificate { valid: true, dns_names: names(&[name]), ..PeerCertificate::default() }
    }

    #[test]
    fn a_dns_name_speaks_for_its_domain_alone() {
        assert!(dns("example.org").speaks_for("example.org"));
        assert!(dns("EXAMPLE.org").speaks_for("example.org"));
        for other in ["sub.example.org", "example.com", "org", "xexample.org"] {
            assert!(!dns("example.org").speaks_for(other), "{other}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_whole_label() {
        assert!(dns("*.example.org").speaks_for("chat.example.org"));
        for other in ["example.org", "a.b.example.org", "example.com"] {
            assert!(!dns("*.example.org").speaks_for(other), "{other}");
        }
        assert!(!dns("*.org").speaks_for("example.org"));
        assert!(!dns("*").speaks_for("example.org"));
        assert!(!dns("ch*.example.org").speaks_for("chat.example.org"));
        assert!(!dns("a.*.example.org").speaks_for("a.b.example.org"));
    }

    #[test]
    fn an_srv_name_counts_for_the_service_between_servers() {
        let srv = |name: &str| PeerCertificate { valid: true, srv_names: names(&[name]), ..PeerCertificate::default() };
        assert!(srv("_xmpp-server.example.org").speaks_for("example.org"));
        assert!(!srv("_xmpp-client.example.org").speaks_for("example.org"));
        assert!(!srv("_xmpp-server.*.org").speaks_for("example.org"));
        assert!(!srv("example.org").speaks_for("example.org"));
    }

    #[test]
    fn an_xmpp_address_that_is_the_domain_counts() {
        let xmpp =
            |name: &str| PeerCertificate { valid: true, xmpp_addresses: names(&[name]), ..PeerCertificate::default() };
        assert!(xmpp("example.org").speaks_for("example.org"));
        assert!(!xmpp("romeo@example.org").speaks_for("example.org"));
    }

    #[test]
    fn a_certificate_that_is_not_valid_proves_nothing() {
        assert!(!PeerCertificate { valid: false, ..dns("example.org") }.speaks_for("example.org"));
    }

    #[test]
    fn an_a_label_speaks_for_the_name_it_encodes() {
        assert!(dns("xn--bcher-kva.example").speaks_for("bücher.example"));
    }
}
