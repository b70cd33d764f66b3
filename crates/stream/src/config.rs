//! What a listener offers. Immutable; a changed configuration is a new value for the streams that come after.

use crate::sasl::Mechanism;
use std::collections::HashMap;
use xmpp::xml::Limits;

/// How stanzas are framed on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One XML document, RFC 6120 §4.2.
    Tcp,
    /// One element a message, RFC 7395. Then `next` is given whole messages.
    WebSocket,
}

/// When the connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// STARTTLS before anything else. RFC 6120 §5.3.1.
    Required,
    /// STARTTLS is offered; PLAIN stays forbidden in clear.
    Optional,
    /// Before the first byte (XEP-0368, or an HTTPS listener): call `tls_up` before the first `next`.
    Direct,
    /// No certificate: STARTTLS is not offered. Mechanisms as with `Optional` in clear.
    Absent,
}

/// FAST, XEP-0484.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fast {
    /// How long a token is good.
    pub lifetime_seconds: u32,
    /// A token older than this is replaced when it is used (§3.5).
    pub rotate_after_seconds: u32,
}

impl Default for Fast {
    /// 21 days, rotated after one.
    fn default() -> Fast {
        Fast { lifetime_seconds: 21 * 86_400, rotate_after_seconds: 86_400 }
    }
}

/// What the streams of one hosted domain offer: authentication, mostly.
#[derive(Debug, Clone, PartialEq)]
pub struct HostAuth {
    /// May be used, the preferred first. What the connection does not allow (`-PLUS` without channel binding, PLAIN
    /// in clear, EXTERNAL without a certificate) is left out by the stream. HT-* do not stand here, see `fast`.
    pub mechanisms: Vec<Mechanism>,
    /// XEP-0077 before authentication.
    pub registration_open: bool,
    /// The same for whoever shows the token of an invitation. XEP-0445.
    pub invitations: bool,
    /// XEP-0388, with Bind 2 (XEP-0386) and inline resumption.
    pub sasl2: bool,
    /// Only with `sasl2`.
    pub fast: Option<Fast>,
    /// `<c xmlns='http://jabber.org/protocol/caps' …/>` of the domain, or nothing. XEP-0115 §6.3.
    pub caps: Vec<u8>,
}

impl Default for HostAuth {
    /// SCRAM with and without channel binding, PLAIN; SASL2 and FAST; registration closed.
    fn default() -> HostAuth {
        HostAuth {
            mechanisms: vec![
                Mechanism::ScramSha256Plus,
                Mechanism::ScramSha1Plus,
                Mechanism::ScramSha256,
                Mechanism::ScramSha1,
                Mechanism::Plain,
            ],
            registration_open: false,
            invitations: false,
            sasl2: true,
            fast: Some(Fast::default()),
            caps: Vec::new(),
        }
    }
}

/// One listener.
#[derive(Clone)]
pub struct Config {
    /// By domain, prepared (RFC 7622 §3.2).
    pub hosts: HashMap<Box<str>, HostAuth>,
    /// Who answers a header without `to`, and in whose name an unknown `to` is refused.
    pub default_host: Option<Box<str>>,
    pub tls: Tls,
    pub framing: Framing,
    pub limits_before_auth: Limits,
    pub limits_after_auth: Limits,
    /// Advertised by XEP-0478 (the bytes advertised are those of the limits in force).
    pub idle_seconds: Option<u32>,
    /// Makes the salts that unknown users are given, and resourceparts that stay the same for one client. Secret,
    /// 32 random bytes, kept over restarts.
    pub secret: Vec<u8>,
    /// Iterations that unknown users are told; those of new keys.
    pub iterations_sha1: u32,
    pub iterations_sha256: u32,
    /// Failed authentications a connection; the last is answered and ends it. RFC 6120 §6.4.5: 2 to 5 retries.
    pub auth_attempts_max: u8,
    /// What may stand in a bind request besides what the stream knows (XEP-0386 §3.1); handed on as
    /// [`crate::event::BindRequest::others`].
    pub bind_features: Vec<&'static str>,
    /// `xml:lang` of our headers and texts.
    pub lang: Box<str>,
    /// Say in SCRAM what was offered, XEP-0474.
    pub downgrade_protection: bool,
}

impl Default for Config {
    /// No hosts, TLS required, the limits of RFC 6120 §13.12.
    fn default() -> Config {
        Config {
            hosts: HashMap::new(),
            default_host: None,
            tls: Tls::Required,
            framing: Framing::Tcp,
            limits_before_auth: Limits::BEFORE_AUTH,
            limits_after_auth: Limits::CLIENT,
            idle_seconds: Some(300),
            secret: Vec::new(),
            iterations_sha1: crate::password::SHA1_ITERATIONS,
            iterations_sha256: crate::password::SHA256_ITERATIONS,
            auth_attempts_max: crate::client::AUTH_ATTEMPTS_MAX,
            bind_features: Vec::new(),
            lang: "en".into(),
            downgrade_protection: true,
        }
    }
}
