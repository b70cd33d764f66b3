//! Which mechanisms and channel bindings a connection may use. What is not offered is refused.

use super::{Condition, Mechanism};
use crate::config::{HostAuth, Tls};
use crate::crypto::{Crypto, Hash};
use crate::event::TlsInfo;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// How a proof can be bound to the TLS channel. RFC 5056.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChannelBinding {
    /// RFC 9266.
    TlsExporter,
    /// RFC 5929 §4.
    TlsServerEndPoint,
}

impl ChannelBinding {
    pub const ALL: [ChannelBinding; 2] = [ChannelBinding::TlsExporter, ChannelBinding::TlsServerEndPoint];

    /// As registered with IANA.
    pub const fn name(self) -> &'static str {
        match self {
            ChannelBinding::TlsExporter => "tls-exporter",
            ChannelBinding::TlsServerEndPoint => "tls-server-end-point",
        }
    }

    /// The binding data of this connection, if it has one of this type.
    pub fn data(self, tls: Option<&TlsInfo>) -> Option<&[u8]> {
        let tls = tls?;
        match self {
            ChannelBinding::TlsExporter => tls.exporter.as_ref().map(<[u8; 32]>::as_slice),
            ChannelBinding::TlsServerEndPoint => tls.server_end_point.as_deref(),
        }
    }
}

/// Everything that may be used now, in the host's order.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Offer {
    pub mechanisms: Vec<Mechanism>,
    /// Announced by XEP-0440; empty when no mechanism binds.
    pub bindings: Vec<ChannelBinding>,
    /// For SASL2 alone: it must not be used in clear. XEP-0388 §3.
    pub sasl2: bool,
    /// Token mechanisms, XEP-0484 §3.1.
    pub fast: Vec<Mechanism>,
}

impl Offer {
    /// `tls` is `None` in clear.
    pub fn new(host: &HostAuth, policy: Tls, tls: Option<&TlsInfo>) -> Offer {
        let Some(info) = tls else {
            // RFC 6120 §6.4.1: not before TLS, where TLS is required.
            let open = matches!(policy, Tls::Optional | Tls::Absent);
            let mechanisms = host.mechanisms.iter().copied().filter(|mechanism| open && fits_clear(*mechanism));
            return Offer { mechanisms: mechanisms.collect(), ..Offer::default() };
        };
        let available = |binding: &ChannelBinding| binding.data(tls).is_some();
        let bindings: Vec<_> = ChannelBinding::ALL.into_iter().filter(available).collect();
        let fits = |mechanism: &Mechanism| match mechanism {
            plus if plus.is_plus() => !bindings.is_empty(),
            Mechanism::External => {
                info.client_certificate.as_ref().is_some_and(|cert| cert.valid && !cert.xmpp_addresses.is_empty())
            }
            token => !token.is_token(),
        };
        let mechanisms: Vec<_> = host.mechanisms.iter().copied().filter(fits).collect();
        let fast = match host.fast {
            Some(_) if host.sasl2 => [Mechanism::HtSha256Expr, Mechanism::HtSha256Endp, Mechanism::HtSha256None]
                .into_iter()
                .filter(|mechanism| token_binding(*mechanism).is_none_or(|binding| available(&binding)))
                .collect(),
            _ => Vec::new(),
        };
        let binds = mechanisms.iter().any(|mechanism| mechanism.is_plus());
        Offer {
            sasl2: host.sasl2 && !mechanisms.is_empty(),
            bindings: if binds { bindings } else { Vec::new() },
            mechanisms,
            fast,
        }
    }

    /// The mechanism of that name, if it was offered.
    ///
    /// # Errors
    /// `encryption-required` for one that TLS would allow, `mechanism-too-weak` for one that the host has switched
    /// off, `invalid-mechanism` for all others. RFC 6120 §6.5.
    pub fn pick(&self, name: &str, host: &HostAuth, encrypted: bool) -> Result<Mechanism, Condition> {
        let mechanism = Mechanism::from_name(name).ok_or(Condition::InvalidMechanism)?;
        if self.mechanisms.contains(&mechanism) {
            return Ok(mechanism);
        }
        Err(match mechanism {
            token if token.is_token() => Condition::InvalidMechanism,
            known if host.mechanisms.contains(&known) && !encrypted => Condition::EncryptionRequired,
            Mechanism::Plain | Mechanism::ScramSha1 | Mechanism::Anonymous if !host.mechanisms.contains(&mechanism) => {
                Condition::MechanismTooWeak
            }
            _ => Condition::InvalidMechanism,
        })
    }

    /// What was offered, as a digest in base64, for SCRAM's attribute `h`. XEP-0474 §6.1.
    pub fn digest(&self, crypto: &dyn Crypto, hash: Hash) -> String {
        let mut names: Vec<_> = self.mechanisms.iter().map(|mechanism| mechanism.name()).collect();
        names.sort_unstable();
        let mut text = names.join("\x1e");
        if !self.bindings.is_empty() {
            let mut names: Vec<_> = self.bindings.iter().map(|binding| binding.name()).collect();
            names.sort_unstable();
            text.push('\x1f');
            text.push_str(&names.join("\x1e"));
        }
        STANDARD.encode(crypto.digest(hash, text.as_bytes()))
    }
}

/// What a token mechanism is bound to.
pub(crate) fn token_binding(mechanism: Mechanism) -> Option<ChannelBinding> {
    match mechanism {
        Mechanism::HtSha256Endp => Some(ChannelBinding::TlsServerEndPoint),
        Mechanism::HtSha256Expr => Some(ChannelBinding::TlsExporter),
        _ => None,
    }
}

/// Tells no secret to who listens.
fn fits_clear(mechanism: Mechanism) -> bool {
    matches!(mechanism, Mechanism::ScramSha256 | Mechanism::ScramSha1 | Mechanism::Anonymous)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    #[test]
    fn what_was_offered_is_digested_as_in_the_example_of_xep_0474() {
        let offer = Offer {
            mechanisms: vec![Mechanism::ScramSha1Plus, Mechanism::ScramSha1],
            bindings: vec![ChannelBinding::TlsServerEndPoint, ChannelBinding::TlsExporter],
            ..Offer::default()
        };
        assert_eq!(offer.digest(&Fake::default(), Hash::Sha1), "G6k/rBLDqgOhRRaCuuatSDFkJ08=");
    }

    #[test]
    fn without_channel_binding_no_mechanism_that_binds_is_offered() {
        let offer = Offer::new(&HostAuth::default(), Tls::Direct, Some(&TlsInfo::default()));
        assert!(offer.bindings.is_empty());
        assert_eq!(offer.mechanisms, [Mechanism::ScramSha256, Mechanism::ScramSha1, Mechanism::Plain]);
        assert_eq!(offer.fast, [Mechanism::HtSha256None]);
    }

    #[test]
    fn in_clear_only_what_tells_no_secret_is_offered_and_nothing_where_tls_is_required() {
        let host = HostAuth::default();
        let offer = Offer::new(&host, Tls::Optional, None);
        assert_eq!(offer.mechanisms, [Mechanism::ScramSha256, Mechanism::ScramSha1]);
        assert!(!offer.sasl2 && offer.fast.is_empty());
        assert_eq!(Offer::new(&host, Tls::Required, None), Offer::default());
    }
}
