//! The two kinds of error that a peer sees: of a stanza (RFC 6120 §8.3) and of a stream (RFC 6120 §4.9).

use crate::jid::Jid;

/// RFC 6120 §8.3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType { Auth, Cancel, Continue, Modify, Wait }

/// Defined conditions of stanza errors, RFC 6120 §8.3.3, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StanzaCondition {
    BadRequest, Conflict, FeatureNotImplemented, Forbidden, Gone, InternalServerError, ItemNotFound,
    JidMalformed, NotAcceptable, NotAllowed, NotAuthorized, PolicyViolation, RecipientUnavailable,
    Redirect, RegistrationRequired, RemoteServerNotFound, RemoteServerTimeout, ResourceConstraint,
    ServiceUnavailable, SubscriptionRequired, UndefinedCondition, UnexpectedRequest,
}

impl StanzaCondition {
    /// The element's name, e.g. `service-unavailable`.
    pub fn name(self) -> &'static str { todo!() }
    /// The error type that RFC 6120 §8.3.3 gives the condition (the first, where it allows several).
    pub fn default_type(self) -> ErrorType { todo!() }
}

/// An error about one stanza; it goes to the stanza's sender and is never an answer to an error or a result
/// (RFC 6120 §8.3.1, §8.2.3).
#[derive(Debug, Clone, PartialEq)]
pub struct StanzaError {
    pub condition: StanzaCondition,
    pub kind: ErrorType,
    /// English; for people.
    pub text: Option<Box<str>>,
    /// An application-specific condition: name and namespace of one empty element. RFC 6120 §8.3.4.
    pub application: Option<(&'static str, &'static str)>,
}

impl From<StanzaCondition> for StanzaError {
    fn from(condition: StanzaCondition) -> Self { StanzaError { condition, kind: condition.default_type(), text: None, application: None } }
}

impl StanzaError {
    pub fn with_text(mut self, text: impl Into<Box<str>>) -> Self { self.text = Some(text.into()); self }
    pub fn with_type(mut self, kind: ErrorType) -> Self { self.kind = kind; self }
    pub fn with_application(mut self, name: &'static str, ns: &'static str) -> Self { self.application = Some((name, ns)); self }
    /// `<error type='…'><condition xmlns='…'/>…</error>`, in the content namespace.
    pub fn to_element(&self) -> crate::Element { todo!() }
}

/// Defined conditions of stream errors, RFC 6120 §4.9.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamCondition {
    BadFormat, BadNamespacePrefix, Conflict, ConnectionTimeout, HostGone, HostUnknown, ImproperAddressing,
    InternalServerError, InvalidFrom, InvalidNamespace, InvalidXml, NotAuthorized, NotWellFormed,
    PolicyViolation, RemoteConnectionFailed, Reset, ResourceConstraint, RestrictedXml, SeeOtherHost,
    SystemShutdown, UndefinedCondition, UnsupportedEncoding, UnsupportedFeature, UnsupportedStanzaType,
    UnsupportedVersion,
}

impl StreamCondition {
    pub fn name(self) -> &'static str { todo!() }
}

/// What ends a stream, named for the offence. RFC 6120 §4.9. Extended by whoever finds a new offence.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamFault {
    /// From the scanner.
    Xml(crate::xml::XmlFault),
    HostUnknown(Box<str>),
    /// The client's `from` is not its own address. RFC 6120 §8.1.2.1.
    FromNotOurs(Box<str>),
    ToMalformed,
    UnsupportedVersion(Box<str>),
    /// An element at the top level that is neither stanza nor a nonza known here.
    UnsupportedStanzaType(Box<str>),
    /// A wrong namespace of the stream or its content.
    InvalidNamespace(Box<str>),
    BadNamespacePrefix,
    StanzaBeforeAuth,
    StanzaBeforeBind,
    /// Bytes stood unread behind `<starttls/>`.
    PlaintextBehindStartTls,
    TlsRequired,
    TooManyAuthFailures,
    NegotiationTimeout,
    IdleTimeout,
    /// The send queue ran over and the session cannot be suspended.
    SlowReader,
    RateLimit,
    /// Another stream bound the same resource and won.
    ReplacedByNewSession,
    /// Stream management: the peer acknowledged what was never sent. XEP-0198 §4.
    AckTooHigh { h: u32, sent: u32 },
    SystemShutdown,
    AccountRemoved,
    InternalError,
    SeeOtherHost(Box<str>),
    /// A limit of connections or sessions.
    TooManyConnections,
    Reset,
    Other(StreamCondition, &'static str),
}

impl StreamFault {
    /// The one place where a fault becomes a condition on the wire. RFC 6120 §4.9.3. No `_` arm.
    pub fn condition(&self) -> StreamCondition { todo!() }
    /// For people; never tells one peer anything about another.
    pub fn text(&self) -> Option<String> { todo!() }
    /// `<stream:error>…</stream:error>`, prefix `stream` declared in the stream header.
    pub fn write(&self, out: &mut Vec<u8>) { let _ = out; todo!() }
}

/// A JID in an attribute was wrong.
pub fn jid_malformed(_: &crate::JidError) -> StanzaError { StanzaCondition::JidMalformed.into() }

#[allow(dead_code)]
fn _types(_: &Jid) {}
