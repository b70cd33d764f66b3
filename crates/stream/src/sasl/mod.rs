//! Simple Authentication and Security Layer, RFC 4422: mechanisms, and the two profiles that carry them.
//!
//! - `scram`, `plain`, `external`, `anonymous`, `token`: one mechanism each, as states that consume
//!   themselves and return the next `Step`.
//! - `offer`: which mechanisms and channel bindings a connection may use.
//! - `wire`: challenge, success and failure in both profiles.
//! - `request`: what a client asks for with SASL2 besides authentication (XEP-0388, XEP-0386, XEP-0484).

mod anonymous;
mod external;
pub(crate) mod offer;
mod plain;
pub(crate) mod request;
mod scram;
pub(crate) mod token;
pub(crate) mod wire;

use crate::config::Config;
use crate::crypto::{Crypto, Hash};
use crate::event::{Account, CheckPassword, TlsInfo};
use crate::password::{SALT_BYTES, ScramKeys};
use offer::Offer;
use xmpp::{BareJid, Jid, Stamp};

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

impl Mechanism {
    const ALL: [Mechanism; 10] = [
        Mechanism::ScramSha256Plus,
        Mechanism::ScramSha256,
        Mechanism::ScramSha1Plus,
        Mechanism::ScramSha1,
        Mechanism::Plain,
        Mechanism::External,
        Mechanism::Anonymous,
        Mechanism::HtSha256Endp,
        Mechanism::HtSha256Expr,
        Mechanism::HtSha256None,
    ];

    /// The mechanism of that name, if we can speak it. Names are as registered, in capitals. RFC 4422 §3.1.
    pub fn from_name(name: &str) -> Option<Mechanism> {
        Mechanism::ALL.into_iter().find(|mechanism| mechanism.name() == name)
    }

    /// SCRAM that binds to the channel.
    pub(crate) fn is_plus(self) -> bool {
        matches!(self, Mechanism::ScramSha256Plus | Mechanism::ScramSha1Plus)
    }

    /// Hashed tokens, XEP-0484.
    pub(crate) fn is_token(self) -> bool {
        matches!(self, Mechanism::HtSha256Endp | Mechanism::HtSha256Expr | Mechanism::HtSha256None)
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

impl Condition {
    /// The element's name, e.g. `not-authorized`.
    pub const fn name(self) -> &'static str {
        match self {
            Condition::Aborted => "aborted",
            Condition::AccountDisabled => "account-disabled",
            Condition::CredentialsExpired => "credentials-expired",
            Condition::EncryptionRequired => "encryption-required",
            Condition::IncorrectEncoding => "incorrect-encoding",
            Condition::InvalidAuthzid => "invalid-authzid",
            Condition::InvalidMechanism => "invalid-mechanism",
            Condition::MalformedRequest => "malformed-request",
            Condition::MechanismTooWeak => "mechanism-too-weak",
            Condition::NotAuthorized => "not-authorized",
            Condition::TemporaryAuthFailure => "temporary-auth-failure",
        }
    }
}

/// What an exchange needs to know of its surroundings.
pub(crate) struct Context<'a> {
    pub crypto: &'a dyn Crypto,
    pub config: &'a Config,
    pub host: &'a str,
    pub tls: Option<&'a TlsInfo>,
    /// The header's `from`, if it came encrypted.
    pub from: Option<&'a Jid>,
    /// Id of the client's installation.
    pub client: Option<&'a str>,
    pub offer: &'a Offer,
}

/// An exchange that goes on.
pub(crate) enum Exchange {
    /// No initial response came: an empty challenge asks for it. RFC 4422 §3.
    Initial(Mechanism),
    ScramNamed(Box<scram::Named>),
    ScramChallenged(Box<scram::Challenged>),
    PlainNamed(Box<plain::Named>),
    PlainChecked(plain::Checked),
    ExternalNamed(external::Named),
    TokenNamed(Box<token::Named>),
    /// Its state was taken for the next step.
    Spent,
}

impl Exchange {
    /// Takes the exchange out; what stays behind takes no step.
    pub fn take(&mut self) -> Exchange {
        std::mem::replace(self, Exchange::Spent)
    }
}

/// What comes next.
pub(crate) enum Step {
    Challenge(Vec<u8>, Exchange),
    Lookup(BareJid, Exchange),
    Check(Box<CheckPassword>, Exchange),
    /// The proof was good. `additional` goes with the success.
    Done {
        account: BareJid,
        additional: Option<Vec<u8>>,
        token: Option<Box<token::Used>>,
    },
    /// The account as claimed, if the exchange came so far.
    Failed(Condition, Option<BareJid>),
}

impl From<Condition> for Step {
    fn from(condition: Condition) -> Step {
        Step::Failed(condition, None)
    }
}

/// Begins an exchange of a mechanism that was offered.
pub(crate) fn start(mechanism: Mechanism, initial: Option<&[u8]>, cx: &Context<'_>) -> Step {
    match initial {
        None => Step::Challenge(Vec::new(), Exchange::Initial(mechanism)),
        Some(message) => first(mechanism, message, cx),
    }
}

/// Takes a client's response.
pub(crate) fn respond(exchange: Exchange, message: &[u8], cx: &Context<'_>) -> Step {
    match exchange {
        Exchange::Initial(mechanism) => first(mechanism, message, cx),
        Exchange::ScramChallenged(challenged) => challenged.respond(message, cx),
        // No other state challenges.
        _ => Condition::MalformedRequest.into(),
    }
}

/// Takes the answer to [`Step::Lookup`].
pub(crate) fn looked_up(exchange: Exchange, account: Option<Account>, now: Stamp, cx: &Context<'_>) -> Step {
    match exchange {
        Exchange::ScramNamed(named) => named.looked_up(account, cx),
        Exchange::PlainNamed(named) => named.looked_up(account, cx),
        Exchange::ExternalNamed(named) => named.looked_up(account),
        Exchange::TokenNamed(named) => named.looked_up(account, now, cx),
        _ => Condition::TemporaryAuthFailure.into(),
    }
}

/// Takes the answer to [`Step::Check`].
pub(crate) fn checked(exchange: Exchange, good: bool) -> Step {
    match exchange {
        Exchange::PlainChecked(checked) => checked.checked(good),
        _ => Condition::TemporaryAuthFailure.into(),
    }
}

fn first(mechanism: Mechanism, message: &[u8], cx: &Context<'_>) -> Step {
    let step = match mechanism {
        Mechanism::ScramSha256Plus => scram::start(Hash::Sha256, true, message, cx),
        Mechanism::ScramSha256 => scram::start(Hash::Sha256, false, message, cx),
        Mechanism::ScramSha1Plus => scram::start(Hash::Sha1, true, message, cx),
        Mechanism::ScramSha1 => scram::start(Hash::Sha1, false, message, cx),
        Mechanism::Plain => plain::start(message, cx),
        Mechanism::External => external::start(message, cx),
        Mechanism::Anonymous => anonymous::start(message, cx),
        Mechanism::HtSha256Endp | Mechanism::HtSha256Expr | Mechanism::HtSha256None => {
            token::start(mechanism, message, cx)
        }
    };
    step.unwrap_or_else(Step::from)
}

/// Who wants to be authenticated, and may they act as whom they say? The authorization identity must be the
/// authentication identity, in every mechanism, and the header's `from` must not name another. RFC 6120 §6.3.8,
/// §6.4.6.
///
/// # Errors
/// `not-authorized` for a name that can be no account's, `invalid-authzid` for another's.
fn claim(user: &str, authzid: Option<&str>, cx: &Context<'_>) -> Result<BareJid, Condition> {
    let jid = Jid::from_parts(Some(user), cx.host, None).map_err(|_| Condition::NotAuthorized)?;
    let account = jid.to_bare();
    let other = |said: &Jid| !said.is_bare() || *said != jid;
    if let Some(authzid) = authzid
        && Jid::parse(authzid).map_or(true, |said| other(&said))
    {
        return Err(Condition::InvalidAuthzid);
    }
    // A bare domain as `from` names nobody.
    if cx.from.is_some_and(|from| from.local().is_some() && !from.same_bare(&jid)) {
        return Err(Condition::InvalidAuthzid);
    }
    Ok(account)
}

/// Keys that no password has, the same each time for one name: so unknown users look like others. RFC 5802 §9 asks
/// not to tell.
fn fake_keys(hash: Hash, account: &BareJid, cx: &Context<'_>) -> ScramKeys {
    let made = |what: &str, hash| {
        let message = [what.as_bytes(), b"\0", account.as_str().as_bytes()].concat();
        cx.crypto.hmac(hash, &cx.config.secret, &message)
    };
    let (iterations, salt) = match hash {
        Hash::Sha1 => (cx.config.iterations_sha1, made("salt of SHA-1", Hash::Sha256)),
        Hash::Sha256 => (cx.config.iterations_sha256, made("salt of SHA-256", Hash::Sha256)),
    };
    ScramKeys {
        salt: salt[..SALT_BYTES].to_vec(),
        iterations,
        stored_key: made("stored key", hash),
        server_key: made("server key", hash),
    }
}
