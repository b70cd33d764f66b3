//! Simple Authentication and Security Layer: mechanisms, and the two profiles that carry them. RFC 4422.

/// A mechanism that we can speak. Which are offered decide the host's list and the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// RFC 7677; `-PLUS` binds to the TLS channel, RFC 5802 §6.
    ScramSha256Plus,
    ScramSha256,
    /// RFC 5802.
    ScramSha1Plus,
    ScramSha1,
    /// RFC 4616; only under TLS.
    Plain,
    /// RFC 4422 appendix A: by the client's certificate, XEP-0178.
    External,
    /// RFC 4505.
    Anonymous,
    /// Hashed tokens of XEP-0484, never in the list of mechanisms. Bound to tls-server-end-point,
    HtSha256Endp,
    /// … to tls-exporter,
    HtSha256Expr,
    /// … to nothing.
    HtSha256None,
}

impl Mechanism {
    /// As on the wire, e.g. `SCRAM-SHA-256-PLUS`.
    pub const fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha1Plus => "SCRAM-SHA-1-PLUS",
            Mechanism::ScramSha1 => "SCRAM-SHA-1",
            Mechanism::Plain => "PLAIN",
            Mechanism::External => "EXTERNAL",
            Mechanism::Anonymous => "ANONYMOUS",
            Mechanism::HtSha256Endp => "HT-SHA-256-ENDP",
            Mechanism::HtSha256Expr => "HT-SHA-256-EXPR",
            Mechanism::HtSha256None => "HT-SHA-256-NONE",
        }
    }
}

/// Why authentication failed. RFC 6120 §6.5, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Condition {
    Aborted,
    AccountDisabled,
    CredentialsExpired,
    EncryptionRequired,
    IncorrectEncoding,
    InvalidAuthzid,
    InvalidMechanism,
    MalformedRequest,
    MechanismTooWeak,
    NotAuthorized,
    TemporaryAuthFailure,
}
