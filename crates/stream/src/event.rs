//! What a stream asks and tells, and the types of the answers.

use crate::crypto::{Crypto, Hash};
use crate::password::{ScramKeys, verify_plain};
use crate::sasl::{Condition, Mechanism};
use xmpp::stanza::StanzaFault;
use xmpp::{BareJid, Element, FullJid, Stamp, Stanza};
use zeroize::{Zeroize, Zeroizing};

/// What happened, or what the stream must know before it can go on. Those that say *answer* hold the stream: until
/// the answer, `next` gives `None` and takes no input.
#[derive(Debug)]
pub enum Event {
    /// `<proceed/>` is in `out`: write it, then nothing more in clear, do the handshake. *Answer*: `tls_up`.
    StartTls,
    /// Who is this? *Answer*: `looked_up`, or `auth_unavailable` when the store fails or the peer must wait.
    Lookup(Lookup),
    /// PLAIN: is it the password? *Answer*: `password_checked` with [`CheckPassword::run`] (where blocking is
    /// allowed), or `auth_unavailable`. Also asked for users that do not exist, so that it takes as long.
    CheckPassword(CheckPassword),
    /// The proof was good. No answer. What follows (`<success/>`, binding) comes by the next events. With SASL2, what
    /// is asked for inline may still fail, and `AuthFailed` takes it back.
    Authenticated(Authenticated),
    /// An attempt failed; `<failure/>` is in `out` already (the caller may delay writing it). No answer. After too
    /// many, `next` gives the fault.
    AuthFailed(AuthFailed),
    /// A FAST token to keep, in place of that of the same client and mechanism. *Answer*: `token_stored`.
    PutToken(Token),
    /// May an account be made with this token of an invitation? XEP-0445 §4. *Answer*: `admitted`.
    Invited(Box<str>),
    /// Make an account, XEP-0077 §3.1. *Answer*: `registered`. (The form itself is answered by the stream.)
    Register(Registration),
    /// *Answer*: `bound` or `bind_refused`.
    Bind(BindRequest),
    /// XEP-0198 §5. *Answer*: `resumed` or `resume_refused`. With SASL2 a refusal is followed by `Bind`, when asked.
    Resume(ResumeRequest),
    /// `<enable/>` on a bound stream, XEP-0198 §3. *Answer*: `managed` or `manage_refused`. Stanzas count from here.
    Manage(ManageRequest),
    /// From the bound session; `from` is its full JID, `xml:lang` that of the stream where it had none.
    Stanza(Stanza),
    /// A stanza in form, but wrong: answer it with the error, in order. It counts as a stanza for `h`.
    BadStanza(Box<StanzaFault>),
    /// `<a h=…/>`: the client has handled so many.
    Acked(u32),
    /// `<r/>`: call `write_ack` soon.
    AckRequested,
    /// XEP-0352.
    ClientState { active: bool },
    /// `</stream:stream>`: end the session, then `close`. Nothing comes after it.
    Closed,
}

/// What is known of the TLS connection.
#[derive(Debug, Clone, Default)]
pub struct TlsInfo {
    /// 32 bytes of `EXPORTER-Channel-Binding`, RFC 9266 §4. Only TLS 1.3, or 1.2 with extended master secret.
    pub exporter: Option<[u8; 32]>,
    /// Hash of our certificate, RFC 5929 §4.1.
    pub server_end_point: Option<Vec<u8>>,
    pub client_certificate: Option<ClientCert>,
    pub sni: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct ClientCert {
    /// `id-on-xmppAddr` of the subject's alternative names, as they stand there. RFC 6120 §13.7.1.4.
    pub xmpp_addresses: Vec<String>,
    /// Verified against the anchors for clients. Nothing else is looked at when it is not.
    pub valid: bool,
}

/// Asks for an account.
#[derive(Debug, Clone, PartialEq)]
pub struct Lookup {
    /// Prepared. The host is one of ours; the account may not exist.
    pub account: BareJid,
    pub mechanism: Mechanism,
    /// Id of the client's installation (SASL2 user-agent), for its FAST tokens.
    pub client: Option<Box<str>>,
}

/// An account as far as authentication needs it.
#[derive(Debug, Clone, Default)]
pub struct Account {
    pub scram_sha1: Option<ScramKeys>,
    pub scram_sha256: Option<ScramKeys>,
    /// FAST tokens of [`Lookup::client`]; others are ignored.
    pub tokens: Vec<Token>,
    /// Refused with `account-disabled`, after the proof was good.
    pub disabled: bool,
}

/// A FAST token, XEP-0484. Same shape as the store's.
#[derive(Clone)]
pub struct Token {
    pub client: Box<str>,
    pub mechanism: Mechanism,
    /// The bytes of the `token` attribute.
    pub secret: Secret,
    pub expires: Stamp,
    /// The one before, good until the new one is used.
    pub previous: Option<(Secret, Stamp)>,
    /// Highest `count` seen with `secret`, 0 if none.
    pub count: u32,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({}, {})", self.client, self.mechanism.name())
    }
}

/// Bytes that are wiped when dropped and never printed. They have no `==`, only [`Crypto::eq_constant_time`]:
/// ```compile_fail
/// fn leak(a: &stream::Secret, b: &stream::Secret) -> bool {
///     a == b
/// }
/// ```
#[derive(Clone)]
pub struct Secret(pub Vec<u8>);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A password to check.
pub struct CheckPassword {
    pub account: BareJid,
    pub hash: Hash,
    /// Prepared.
    pub password: Zeroizing<String>,
    pub keys: ScramKeys,
    /// The mechanism of which the account has no keys yet: they can be made now that the password is here.
    pub missing: Option<Hash>,
}

impl CheckPassword {
    /// Slow by design.
    pub fn run(&self, crypto: &dyn Crypto) -> bool {
        verify_plain(crypto, self.hash, &self.password, &self.keys)
    }
}

impl std::fmt::Debug for CheckPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CheckPassword({})", self.account)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Authenticated {
    pub account: BareJid,
    pub mechanism: Mechanism,
    /// SASL2's `<user-agent/>`.
    pub agent: Option<UserAgent>,
}

/// What a client says of itself, XEP-0388 §2.3. Never shown to others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UserAgent {
    pub id: Option<Box<str>>,
    pub software: Option<Box<str>>,
    pub device: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AuthFailed {
    /// As claimed, if the exchange came so far.
    pub account: Option<BareJid>,
    /// `None`: asked for one we do not know.
    pub mechanism: Option<Mechanism>,
    pub condition: Condition,
}

impl AuthFailed {
    /// Was a wrong proof given, or another's name? Then it may be guessing, and counts against the peer's address.
    /// What is left is a client that cannot, or trouble of our own.
    pub fn is_guess(&self) -> bool {
        match self.condition {
            Condition::NotAuthorized | Condition::InvalidAuthzid | Condition::AccountDisabled => true,
            Condition::Aborted
            | Condition::CredentialsExpired
            | Condition::EncryptionRequired
            | Condition::IncorrectEncoding
            | Condition::InvalidMechanism
            | Condition::MalformedRequest
            | Condition::MechanismTooWeak
            | Condition::TemporaryAuthFailure => false,
        }
    }
}

pub struct Registration {
    /// Prepared; the host is the stream's.
    pub account: BareJid,
    /// Prepared.
    pub password: Zeroizing<String>,
    /// Of an invitation; it was admitted on this stream. XEP-0445.
    pub token: Option<Box<str>>,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registration({})", self.account)
    }
}

/// RFC 6120 §7, or XEP-0386.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BindRequest {
    /// What the client asks for, prepared; with Bind 2 made here of tag and client id (XEP-0386 §3.2.1): the same
    /// for the same client, else random. `None`: the server chooses.
    pub resource: Option<Box<str>>,
    /// Id of the client's installation; earlier sessions of the same should end. XEP-0386 §3.2.
    pub client: Option<Box<str>>,
    /// The `<tag/>` of Bind 2.
    pub tag: Option<Box<str>>,
    /// By Bind 2 (else by iq binding). Offline messages are then not sent: the archive has them.
    pub bind2: bool,
    pub carbons: bool,
    /// Begin inactive, XEP-0352.
    pub inactive: bool,
    /// Enable stream management at once.
    pub management: Option<ManageRequest>,
    /// What else stood in the bind request and is none of the above: for whoever knows it.
    pub others: Vec<Element>,
}

/// XEP-0198 §3.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ManageRequest {
    pub resume: bool,
    /// Seconds that the client would like.
    pub max: Option<u32>,
}

/// XEP-0198 §5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeRequest {
    pub id: Box<str>,
    /// Stanzas that the client has handled.
    pub h: u32,
}

/// A bound session.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    pub jid: FullJid,
    /// Answer to [`BindRequest::management`]; `None` says `<failed/>` if it was asked.
    pub managed: Option<Managed>,
    /// For `<bound/>` of Bind 2: `<metadata xmlns='urn:xmpp:mam:2'>`, XEP-0386 §3.2.1, and other answers.
    pub more: Vec<Element>,
}

impl From<FullJid> for Bound {
    fn from(jid: FullJid) -> Bound {
        Bound { jid, managed: None, more: Vec::new() }
    }
}

/// Stream management, granted. XEP-0198 §3.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Managed {
    /// `None`: acknowledgements only, no resumption.
    pub id: Option<Box<str>>,
    /// Seconds that the session waits.
    pub max: Option<u32>,
    /// Where to come back, `host:port`.
    pub location: Option<Box<str>>,
}
