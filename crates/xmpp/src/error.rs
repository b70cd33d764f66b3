//! The two kinds of error that a peer sees: of a stanza (RFC 6120 §8.3) and of a stream (RFC 6120 §4.9).

use std::borrow::Cow;

use crate::xml::{Element, XmlFault, escape_attribute, escape_text};
use crate::{JidError, ns};

/// RFC 6120 §8.3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType {
    /// Retry after providing credentials.
    Auth,
    /// Do not retry: the error cannot be remedied.
    Cancel,
    /// Proceed: the condition was only a warning.
    Continue,
    /// Retry after changing the data sent.
    Modify,
    /// Retry after waiting: the error is temporary.
    Wait,
}

impl ErrorType {
    /// The value of the `type` attribute.
    pub fn name(self) -> &'static str {
        match self {
            ErrorType::Auth => "auth",
            ErrorType::Cancel => "cancel",
            ErrorType::Continue => "continue",
            ErrorType::Modify => "modify",
            ErrorType::Wait => "wait",
        }
    }

    /// `None` if it is no error type.
    pub fn from_name(name: &str) -> Option<ErrorType> {
        use ErrorType::*;
        [Auth, Cancel, Continue, Modify, Wait].into_iter().find(|kind| kind.name() == name)
    }
}

/// Defined conditions of stanza errors, RFC 6120 §8.3.3, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StanzaCondition {
    BadRequest,
    Conflict,
    FeatureNotImplemented,
    Forbidden,
    Gone,
    InternalServerError,
    ItemNotFound,
    JidMalformed,
    NotAcceptable,
    NotAllowed,
    NotAuthorized,
    PolicyViolation,
    RecipientUnavailable,
    Redirect,
    RegistrationRequired,
    RemoteServerNotFound,
    RemoteServerTimeout,
    ResourceConstraint,
    ServiceUnavailable,
    SubscriptionRequired,
    UndefinedCondition,
    UnexpectedRequest,
}

impl StanzaCondition {
    /// All of them, in the order of RFC 6120 §8.3.3.
    pub const ALL: [StanzaCondition; 22] = {
        use StanzaCondition::*;
        [
            BadRequest,
            Conflict,
            FeatureNotImplemented,
            Forbidden,
            Gone,
            InternalServerError,
            ItemNotFound,
            JidMalformed,
            NotAcceptable,
            NotAllowed,
            NotAuthorized,
            PolicyViolation,
            RecipientUnavailable,
            Redirect,
            RegistrationRequired,
            RemoteServerNotFound,
            RemoteServerTimeout,
            ResourceConstraint,
            ServiceUnavailable,
            SubscriptionRequired,
            UndefinedCondition,
            UnexpectedRequest,
        ]
    };

    /// The element's name, e.g. `service-unavailable`.
    pub fn name(self) -> &'static str {
        match self {
            StanzaCondition::BadRequest => "bad-request",
            StanzaCondition::Conflict => "conflict",
            StanzaCondition::FeatureNotImplemented => "feature-not-implemented",
            StanzaCondition::Forbidden => "forbidden",
            StanzaCondition::Gone => "gone",
            StanzaCondition::InternalServerError => "internal-server-error",
            StanzaCondition::ItemNotFound => "item-not-found",
            StanzaCondition::JidMalformed => "jid-malformed",
            StanzaCondition::NotAcceptable => "not-acceptable",
            StanzaCondition::NotAllowed => "not-allowed",
            StanzaCondition::NotAuthorized => "not-authorized",
            StanzaCondition::PolicyViolation => "policy-violation",
            StanzaCondition::RecipientUnavailable => "recipient-unavailable",
            StanzaCondition::Redirect => "redirect",
            StanzaCondition::RegistrationRequired => "registration-required",
            StanzaCondition::RemoteServerNotFound => "remote-server-not-found",
            StanzaCondition::RemoteServerTimeout => "remote-server-timeout",
            StanzaCondition::ResourceConstraint => "resource-constraint",
            StanzaCondition::ServiceUnavailable => "service-unavailable",
            StanzaCondition::SubscriptionRequired => "subscription-required",
            StanzaCondition::UndefinedCondition => "undefined-condition",
            StanzaCondition::UnexpectedRequest => "unexpected-request",
        }
    }

    /// An element's condition; `None` for a name that RFC 6120 does not define, to be treated as
    /// [`StanzaCondition::UndefinedCondition`] (§8.3.2).
    pub fn from_name(name: &str) -> Option<StanzaCondition> {
        Self::ALL.into_iter().find(|condition| condition.name() == name)
    }

    /// The error type that RFC 6120 §8.3.3 gives the condition (the first, where it allows several).
    pub fn default_type(self) -> ErrorType {
        match self {
            StanzaCondition::Forbidden
            | StanzaCondition::NotAuthorized
            | StanzaCondition::RegistrationRequired
            | StanzaCondition::SubscriptionRequired => ErrorType::Auth,

            StanzaCondition::Conflict
            | StanzaCondition::FeatureNotImplemented
            | StanzaCondition::Gone
            | StanzaCondition::InternalServerError
            | StanzaCondition::ItemNotFound
            | StanzaCondition::NotAllowed
            | StanzaCondition::RemoteServerNotFound
            | StanzaCondition::ServiceUnavailable => ErrorType::Cancel,

            StanzaCondition::BadRequest
            | StanzaCondition::JidMalformed
            | StanzaCondition::NotAcceptable
            | StanzaCondition::PolicyViolation
            | StanzaCondition::Redirect => ErrorType::Modify,

            StanzaCondition::RecipientUnavailable
            | StanzaCondition::RemoteServerTimeout
            | StanzaCondition::ResourceConstraint
            | StanzaCondition::UnexpectedRequest => ErrorType::Wait,

            // Any type may go with it; this one does not invite to try again.
            StanzaCondition::UndefinedCondition => ErrorType::Cancel,
        }
    }
}

/// An error about one stanza; it goes to the stanza's sender and is never an answer to an error or a result
/// (RFC 6120 §8.3.1, §8.2.3).
#[derive(Debug, Clone, PartialEq)]
pub struct StanzaError {
    pub condition: StanzaCondition,
    pub kind: ErrorType,
    /// English; for people.
    pub text: Option<Box<str>>,
    /// An application-specific condition: name and namespace of one element without content. RFC 6120 §8.3.4.
    pub application: Option<(&'static str, &'static str)>,
    /// Its attribute `feature`: what is not supported. XEP-0060 §11.
    pub feature: Option<&'static str>,
    /// The limit that was hit, by the name of its option: for whoever counts.
    pub limit: Option<&'static str>,
}

impl From<StanzaCondition> for StanzaError {
    fn from(condition: StanzaCondition) -> Self {
        let kind = condition.default_type();
        StanzaError { condition, kind, text: None, application: None, feature: None, limit: None }
    }
}

impl StanzaError {
    pub fn with_text(mut self, text: impl Into<Box<str>>) -> Self {
        self.text = Some(text.into());
        self
    }

    pub fn with_type(mut self, kind: ErrorType) -> Self {
        self.kind = kind;
        self
    }

    pub fn with_application(mut self, name: &'static str, ns: &'static str) -> Self {
        self.application = Some((name, ns));
        self
    }

    /// The application-specific condition says which feature is not supported.
    pub fn with_feature(mut self, feature: &'static str) -> Self {
        self.feature = Some(feature);
        self
    }

    /// A limit was hit, by the name of its option.
    pub fn over(mut self, limit: &'static str) -> Self {
        self.limit = Some(limit);
        self
    }

    /// `<error type='…'><condition xmlns='…'/>…</error>`, in the content namespace. RFC 6120 §8.3.2.
    pub fn to_element(&self) -> Element {
        let text =
            self.text.as_deref().map(|text| Element::new("text", ns::STANZA_ERRORS).attr("xml:lang", "en").text(text));
        let application = self.application.map(|(name, ns)| Element::new(name, ns).attr_opt("feature", self.feature));
        Element::new("error", ns::CLIENT)
            .attr("type", self.kind.name())
            .child(Element::new(self.condition.name(), ns::STANZA_ERRORS))
            .children_from(text)
            .children_from(application)
    }
}

/// Defined conditions of stream errors, RFC 6120 §4.9.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamCondition {
    BadFormat,
    BadNamespacePrefix,
    Conflict,
    ConnectionTimeout,
    HostGone,
    HostUnknown,
    ImproperAddressing,
    InternalServerError,
    InvalidFrom,
    InvalidNamespace,
    InvalidXml,
    NotAuthorized,
    NotWellFormed,
    PolicyViolation,
    RemoteConnectionFailed,
    Reset,
    ResourceConstraint,
    RestrictedXml,
    SeeOtherHost,
    SystemShutdown,
    UndefinedCondition,
    UnsupportedEncoding,
    UnsupportedFeature,
    UnsupportedStanzaType,
    UnsupportedVersion,
}

impl StreamCondition {
    /// All of them, in the order of RFC 6120 §4.9.3.
    pub const ALL: [StreamCondition; 25] = {
        use StreamCondition::*;
        [
            BadFormat,
            BadNamespacePrefix,
            Conflict,
            ConnectionTimeout,
            HostGone,
            HostUnknown,
            ImproperAddressing,
            InternalServerError,
            InvalidFrom,
            InvalidNamespace,
            InvalidXml,
            NotAuthorized,
            NotWellFormed,
            PolicyViolation,
            RemoteConnectionFailed,
            Reset,
            ResourceConstraint,
            RestrictedXml,
            SeeOtherHost,
            SystemShutdown,
            UndefinedCondition,
            UnsupportedEncoding,
            UnsupportedFeature,
            UnsupportedStanzaType,
            UnsupportedVersion,
        ]
    };

    /// The element's name, e.g. `not-well-formed`.
    pub fn name(self) -> &'static str {
        match self {
            StreamCondition::BadFormat => "bad-format",
            StreamCondition::BadNamespacePrefix => "bad-namespace-prefix",
            StreamCondition::Conflict => "conflict",
            StreamCondition::ConnectionTimeout => "connection-timeout",
            StreamCondition::HostGone => "host-gone",
            StreamCondition::HostUnknown => "host-unknown",
            StreamCondition::ImproperAddressing => "improper-addressing",
            StreamCondition::InternalServerError => "internal-server-error",
            StreamCondition::InvalidFrom => "invalid-from",
            StreamCondition::InvalidNamespace => "invalid-namespace",
            StreamCondition::InvalidXml => "invalid-xml",
            StreamCondition::NotAuthorized => "not-authorized",
            StreamCondition::NotWellFormed => "not-well-formed",
            StreamCondition::PolicyViolation => "policy-violation",
            StreamCondition::RemoteConnectionFailed => "remote-connection-failed",
            StreamCondition::Reset => "reset",
            StreamCondition::ResourceConstraint => "resource-constraint",
            StreamCondition::RestrictedXml => "restricted-xml",
            StreamCondition::SeeOtherHost => "see-other-host",
            StreamCondition::SystemShutdown => "system-shutdown",
            StreamCondition::UndefinedCondition => "undefined-condition",
            StreamCondition::UnsupportedEncoding => "unsupported-encoding",
            StreamCondition::UnsupportedFeature => "unsupported-feature",
            StreamCondition::UnsupportedStanzaType => "unsupported-stanza-type",
            StreamCondition::UnsupportedVersion => "unsupported-version",
        }
    }

    /// A peer's condition; `None` for a name that RFC 6120 does not define, to be treated as
    /// [`StreamCondition::UndefinedCondition`] (§4.9.2).
    pub fn from_name(name: &str) -> Option<StreamCondition> {
        Self::ALL.into_iter().find(|condition| condition.name() == name)
    }
}

/// What ends a stream, named for the offence. RFC 6120 §4.9. Extended by whoever finds a new offence.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamFault {
    /// From the scanner.
    Xml(XmlFault),
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
    /// Stream management: the peer acknowledged what was never sent. XEP-0198 §6.
    AckTooHigh {
        h: u32,
        sent: u32,
    },
    SystemShutdown,
    AccountRemoved,
    InternalError,
    SeeOtherHost(Box<str>),
    /// A limit of connections or sessions.
    TooManyConnections,
    Reset,
    Other(StreamCondition, &'static str),
}

impl From<XmlFault> for StreamFault {
    fn from(fault: XmlFault) -> StreamFault {
        StreamFault::Xml(fault)
    }
}

impl StreamFault {
    /// The one place where a fault becomes a condition on the wire. RFC 6120 §4.9.3. No `_` arm.
    pub fn condition(&self) -> StreamCondition {
        match self {
            StreamFault::Xml(fault) => xml_condition(fault),
            // §4.9.3.6
            StreamFault::HostUnknown(_) => StreamCondition::HostUnknown,
            // §4.9.3.9, §8.1.2.1
            StreamFault::FromNotOurs(_) => StreamCondition::InvalidFrom,
            // §4.9.3.7
            StreamFault::ToMalformed => StreamCondition::ImproperAddressing,
            StreamFault::UnsupportedVersion(_) => StreamCondition::UnsupportedVersion,
            StreamFault::UnsupportedStanzaType(_) => StreamCondition::UnsupportedStanzaType,
            StreamFault::InvalidNamespace(_) => StreamCondition::InvalidNamespace,
            StreamFault::BadNamespacePrefix => StreamCondition::BadNamespacePrefix,
            // §4.3.5, §7.1: stanzas before negotiation is completed.
            StreamFault::StanzaBeforeAuth | StreamFault::StanzaBeforeBind => StreamCondition::NotAuthorized,
            // §4.9.3.12: "other outbound data before the stream has been authenticated".
            StreamFault::PlaintextBehindStartTls => StreamCondition::NotAuthorized,
            StreamFault::TlsRequired => StreamCondition::PolicyViolation,
            // §6.4.5
            StreamFault::TooManyAuthFailures => StreamCondition::PolicyViolation,
            // §4.6.2, §4.9.3.4: it has not answered what was sent.
            StreamFault::NegotiationTimeout | StreamFault::IdleTimeout => StreamCondition::ConnectionTimeout,
            // §4.9.3.17: the room for what is to be sent is used up.
            StreamFault::SlowReader => StreamCondition::ResourceConstraint,
            // §13.12
            StreamFault::RateLimit => StreamCondition::PolicyViolation,
            // §4.9.3.3, §7.7.2.2; XEP-0198 §5
            StreamFault::ReplacedByNewSession => StreamCondition::Conflict,
            // XEP-0198 §6
            StreamFault::AckTooHigh { .. } => StreamCondition::UndefinedCondition,
            StreamFault::SystemShutdown => StreamCondition::SystemShutdown,
            // XEP-0077 §3.2
            StreamFault::AccountRemoved => StreamCondition::NotAuthorized,
            StreamFault::InternalError => StreamCondition::InternalServerError,
            StreamFault::SeeOtherHost(_) => StreamCondition::SeeOtherHost,
            // §4.6.3. Not `conflict` (§4.9.3.3), which clients take for "signed in elsewhere" and stay away.
            StreamFault::TooManyConnections => StreamCondition::ResourceConstraint,
            StreamFault::Reset => StreamCondition::Reset,
            StreamFault::Other(condition, _) => *condition,
        }
    }

    /// For people; never tells one peer anything about another.
    pub fn text(&self) -> Option<String> {
        let text: Cow<'static, str> = match self {
            StreamFault::Xml(
                XmlFault::NotWellFormed(what)
                | XmlFault::Restricted(what)
                | XmlFault::Encoding(what)
                | XmlFault::Prefix(what),
            ) => (*what).into(),
            StreamFault::Xml(XmlFault::TooBig { what, max }) => format!("at most {max} allowed: {what}").into(),
            StreamFault::Xml(XmlFault::TextBetweenStanzas) => "only white space may stand between stanzas".into(),
            StreamFault::HostUnknown(host) => format!("{} is not served here", excerpt(host)).into(),
            StreamFault::FromNotOurs(from) => format!("{} is not your address", excerpt(from)).into(),
            StreamFault::ToMalformed => "the address in 'to' is missing or malformed".into(),
            StreamFault::UnsupportedVersion(version) => {
                format!("version {} is not supported, 1.0 is", excerpt(version)).into()
            }
            StreamFault::UnsupportedStanzaType(name) => format!("{} is not understood here", excerpt(name)).into(),
            StreamFault::InvalidNamespace(ns) => format!("{} is not a namespace for this place", excerpt(ns)).into(),
            StreamFault::BadNamespacePrefix => "the stream's namespace wants the prefix 'stream'".into(),
            StreamFault::StanzaBeforeAuth => "authenticate before you send stanzas".into(),
            StreamFault::StanzaBeforeBind => "bind a resource before you send stanzas".into(),
            StreamFault::PlaintextBehindStartTls => "nothing may follow <starttls/> before TLS".into(),
            StreamFault::TlsRequired => "use TLS first".into(),
            StreamFault::TooManyAuthFailures => "too many failed attempts to authenticate".into(),
            StreamFault::NegotiationTimeout => "the stream was not negotiated in time".into(),
            StreamFault::IdleTimeout => "no answer".into(),
            StreamFault::SlowReader => "you read more slowly than others write to you".into(),
            StreamFault::RateLimit => "you send too much too fast".into(),
            StreamFault::ReplacedByNewSession => "replaced by a new session".into(),
            StreamFault::AckTooHigh { h, sent } => {
                format!("you acknowledged {h} stanzas, but only {sent} were sent").into()
            }
            StreamFault::AccountRemoved => "the account has been removed".into(),
            StreamFault::TooManyConnections => "too many connections".into(),
            StreamFault::SystemShutdown
            | StreamFault::InternalError
            | StreamFault::SeeOtherHost(_)
            | StreamFault::Reset => return None,
            StreamFault::Other(_, text) => (*text).into(),
        };
        (!text.is_empty()).then(|| text.into_owned())
    }

    /// `<stream:error>…</stream:error>`, prefix `stream` declared in the stream header.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<stream:error>");
        self.write_inside(out);
    }

    /// As [`StreamFault::write`] where there is no stream header: the element declares its prefix itself.
    /// RFC 7395 §3.5.
    pub fn write_framed(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<stream:error xmlns:stream='");
        out.extend_from_slice(ns::STREAM.as_bytes());
        out.extend_from_slice(b"'>");
        self.write_inside(out);
    }

    /// The children and the end tag, in the order of RFC 6120 §4.9.2.
    fn write_inside(&self, out: &mut Vec<u8>) {
        let condition = match self {
            StreamFault::SeeOtherHost(host) => Some(&**host),
            _ => None,
        };
        write_child(out, self.condition().name(), ns::STREAM_ERRORS, &[], condition);
        if let Some(text) = self.text() {
            write_child(out, "text", ns::STREAM_ERRORS, &[("xml:lang", "en")], Some(&text));
        }
        match self {
            // §4.9.3.14, XEP-0205 §4.5
            StreamFault::Xml(XmlFault::TooBig { .. }) => {
                write_child(out, "stanza-too-big", "urn:xmpp:errors", &[], None);
            }
            StreamFault::AckTooHigh { h, sent } => {
                let counts = [("h", &*h.to_string()), ("send-count", &*sent.to_string())];
                write_child(out, "handled-count-too-high", ns::SM, &counts, None);
            }
            _ => {}
        }
        out.extend_from_slice(b"</stream:error>");
    }
}

fn xml_condition(fault: &XmlFault) -> StreamCondition {
    match fault {
        // §4.9.3.13, §11.3 rule 2
        XmlFault::NotWellFormed(_) => StreamCondition::NotWellFormed,
        // §4.9.3.18, §11.1
        XmlFault::Restricted(_) => StreamCondition::RestrictedXml,
        // §4.9.3.22, §11.6: another encoding, or "violating the rules of the UTF-8 encoding".
        XmlFault::Encoding(_) => StreamCondition::UnsupportedEncoding,
        // §4.9.3.2
        fault if *fault == XmlFault::CONTENT_PREFIXED => StreamCondition::BadNamespacePrefix,
        // §11.3 rule 4: what is not namespace-well-formed.
        XmlFault::Prefix(_) => StreamCondition::NotWellFormed,
        // §4.9.3.14, §13.12 rule 4
        XmlFault::TooBig { .. } => StreamCondition::PolicyViolation,
        // §4.9.3.1: well-formed, but it "cannot be processed"; none of the more specific conditions says so.
        XmlFault::TextBetweenStanzas => StreamCondition::BadFormat,
    }
}

/// The most bytes of a peer's own words that are sent back to it.
const EXCERPT_BYTES_MAX: usize = 256;

fn excerpt(text: &str) -> &str {
    let mut end = text.len().min(EXCERPT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// `<name xmlns='…' …>text</name>`; neither the namespace nor the names need escapes.
fn write_child(out: &mut Vec<u8>, name: &str, ns: &str, attributes: &[(&str, &str)], text: Option<&str>) {
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    for (name, value) in [("xmlns", ns)].iter().chain(attributes) {
        out.push(b' ');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"='");
        escape_attribute(out, value);
        out.push(b'\'');
    }
    match text {
        None => out.extend_from_slice(b"/>"),
        Some(text) => {
            out.push(b'>');
            escape_text(out, text);
            out.extend_from_slice(b"</");
            out.extend_from_slice(name.as_bytes());
            out.push(b'>');
        }
    }
}

/// A JID in an attribute was wrong.
pub fn jid_malformed(_: &JidError) -> StanzaError {
    StanzaCondition::JidMalformed.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// RFC 6120 §8.3.3.1 to §8.3.3.22: "the associated error type SHOULD be …", the first where there are two.
    const STANZA_CONDITIONS: [(&str, &str); 22] = [
        ("bad-request", "modify"),
        ("conflict", "cancel"),
        ("feature-not-implemented", "cancel"),
        ("forbidden", "auth"),
        ("gone", "cancel"),
        ("internal-server-error", "cancel"),
        ("item-not-found", "cancel"),
        ("jid-malformed", "modify"),
        ("not-acceptable", "modify"),
        ("not-allowed", "cancel"),
        ("not-authorized", "auth"),
        ("policy-violation", "modify"),
        ("recipient-unavailable", "wait"),
        ("redirect", "modify"),
        ("registration-required", "auth"),
        ("remote-server-not-found", "cancel"),
        ("remote-server-timeout", "wait"),
        ("resource-constraint", "wait"),
        ("service-unavailable", "cancel"),
        ("subscription-required", "auth"),
        ("undefined-condition", "cancel"),
        ("unexpected-request", "wait"),
    ];

    /// RFC 6120 §4.9.3.1 to §4.9.3.25.
    const STREAM_CONDITIONS: [&str; 25] = [
        "bad-format",
        "bad-namespace-prefix",
        "conflict",
        "connection-timeout",
        "host-gone",
        "host-unknown",
        "improper-addressing",
        "internal-server-error",
        "invalid-from",
        "invalid-namespace",
        "invalid-xml",
        "not-authorized",
        "not-well-formed",
        "policy-violation",
        "remote-connection-failed",
        "reset",
        "resource-constraint",
        "restricted-xml",
        "see-other-host",
        "system-shutdown",
        "undefined-condition",
        "unsupported-encoding",
        "unsupported-feature",
        "unsupported-stanza-type",
        "unsupported-version",
    ];

    fn written(fault: &StreamFault) -> String {
        let mut out = Vec::new();
        fault.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    /// As a client reads it.
    fn read(fault: &StreamFault) -> Element {
        let mut out = Vec::new();
        fault.write_framed(&mut out);
        Element::parse(&out, ns::CLIENT).unwrap()
    }

    /// One of each offence.
    fn faults() -> Vec<(StreamFault, &'static str)> {
        use StreamFault::*;
        vec![
            (Xml(XmlFault::NotWellFormed("a tag closed that was not open")), "not-well-formed"),
            (Xml(XmlFault::Restricted("a comment")), "restricted-xml"),
            (Xml(XmlFault::Encoding("not UTF-8")), "unsupported-encoding"),
            (Xml(XmlFault::Prefix("a prefix that is not declared")), "not-well-formed"),
            (Xml(XmlFault::CONTENT_PREFIXED), "bad-namespace-prefix"),
            (Xml(XmlFault::TooBig { what: "bytes of a stanza", max: 10_000 }), "policy-violation"),
            (Xml(XmlFault::TextBetweenStanzas), "bad-format"),
            (HostUnknown("<b>.example".into()), "host-unknown"),
            (FromNotOurs("romeo@montague.example".into()), "invalid-from"),
            (ToMalformed, "improper-addressing"),
            (UnsupportedVersion("11.0".into()), "unsupported-version"),
            (UnsupportedStanzaType("pubsub".into()), "unsupported-stanza-type"),
            (InvalidNamespace("http://wrong.example/".into()), "invalid-namespace"),
            (BadNamespacePrefix, "bad-namespace-prefix"),
            (StanzaBeforeAuth, "not-authorized"),
            (StanzaBeforeBind, "not-authorized"),
            (PlaintextBehindStartTls, "not-authorized"),
            (TlsRequired, "policy-violation"),
            (TooManyAuthFailures, "policy-violation"),
            (NegotiationTimeout, "connection-timeout"),
            (IdleTimeout, "connection-timeout"),
            (SlowReader, "resource-constraint"),
            (RateLimit, "policy-violation"),
            (ReplacedByNewSession, "conflict"),
            (AckTooHigh { h: 10, sent: 8 }, "undefined-condition"),
            (SystemShutdown, "system-shutdown"),
            (AccountRemoved, "not-authorized"),
            (InternalError, "internal-server-error"),
            (SeeOtherHost("[2001:41D0:1:A49b::1]:9222".into()), "see-other-host"),
            (TooManyConnections, "resource-constraint"),
            (Reset, "reset"),
            (Other(StreamCondition::HostGone, "moved away"), "host-gone"),
            (Other(StreamCondition::UnsupportedFeature, ""), "unsupported-feature"),
        ]
    }

    #[test]
    fn the_stanza_conditions_and_their_types_are_those_of_rfc_6120() {
        let ours = StanzaCondition::ALL.map(|condition| (condition.name(), condition.default_type().name()));
        assert_eq!(ours, STANZA_CONDITIONS);
        for condition in StanzaCondition::ALL {
            assert_eq!(StanzaCondition::from_name(condition.name()), Some(condition));
        }
        assert_eq!(StanzaCondition::from_name("payment-required"), None);
    }

    #[test]
    fn the_stream_conditions_are_those_of_rfc_6120() {
        assert_eq!(StreamCondition::ALL.map(StreamCondition::name), STREAM_CONDITIONS);
        for condition in StreamCondition::ALL {
            assert_eq!(StreamCondition::from_name(condition.name()), Some(condition));
        }
        assert_eq!(StreamCondition::from_name("xml-not-well-formed"), None);
    }

    #[test]
    fn the_error_types_are_those_of_rfc_6120() {
        for name in ["auth", "cancel", "continue", "modify", "wait"] {
            assert_eq!(ErrorType::from_name(name).map(ErrorType::name), Some(name));
        }
        assert_eq!(ErrorType::from_name("error"), None);
    }

    #[test]
    fn a_stanza_error_is_its_condition_in_the_content_namespace() {
        let error = StanzaError::from(StanzaCondition::ServiceUnavailable).to_element();
        let expected =
            "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
        assert_eq!(error, Element::parse(expected.as_bytes(), ns::CLIENT).unwrap());
    }

    #[test]
    fn a_stanza_error_carries_text_and_an_application_condition_in_that_order() {
        let error = StanzaError::from(StanzaCondition::UndefinedCondition)
            .with_type(ErrorType::Modify)
            .with_text("at most 5 < 6 & no more")
            .with_application("too-many-parameters", "http://example.org/ns");
        let expected = "<error type='modify'><undefined-condition xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
            <text xml:lang='en' xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>at most 5 &lt; 6 &amp; no more</text>\
            <too-many-parameters xmlns='http://example.org/ns'/></error>";
        assert_eq!(error.to_element(), Element::parse(expected.as_bytes(), ns::CLIENT).unwrap());
    }

    #[test]
    fn a_bad_address_is_jid_malformed() {
        let error = jid_malformed(&JidError::Local);
        assert_eq!((error.condition, error.kind), (StanzaCondition::JidMalformed, ErrorType::Modify));
    }

    #[test]
    fn each_fault_has_its_condition() {
        for (fault, condition) in faults() {
            assert_eq!(fault.condition().name(), condition, "{fault:?}");
        }
    }

    #[test]
    fn what_is_written_is_well_formed_and_in_the_order_of_rfc_6120() {
        for (fault, condition) in faults() {
            let error = read(&fault);
            assert!(error.is("error", ns::STREAM), "{fault:?}");
            let mut children = error.elements();
            assert!(children.next().is_some_and(|child| child.is(condition, ns::STREAM_ERRORS)), "{fault:?}");
            if let Some(text) = fault.text() {
                let child = children.next().unwrap();
                assert!(child.is("text", ns::STREAM_ERRORS), "{fault:?}");
                assert_eq!((child.attribute("xml:lang"), child.text_content()), (Some("en"), text));
            }
            assert!(children.all(|child| &*child.ns != ns::STREAM_ERRORS), "{fault:?}");
        }
    }

    #[test]
    fn a_stream_error_uses_the_prefix_of_the_header_or_declares_it() {
        assert_eq!(
            written(&StreamFault::Reset),
            "<stream:error><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
        );
        let mut framed = Vec::new();
        StreamFault::Reset.write_framed(&mut framed);
        assert!(framed.starts_with(b"<stream:error xmlns:stream='http://etherx.jabber.org/streams'><reset"));
    }

    #[test]
    fn a_stanza_too_big_is_named_by_its_application_condition() {
        let error = read(&StreamFault::Xml(XmlFault::TooBig { what: "bytes of a stanza", max: 10_000 }));
        assert!(error.find("stanza-too-big", "urn:xmpp:errors").is_some());
        assert!(error.find("text", ns::STREAM_ERRORS).unwrap().text_content().contains("10000"));
    }

    #[test]
    fn an_acknowledgement_too_high_names_both_counts() {
        let error = read(&StreamFault::AckTooHigh { h: 10, sent: 8 });
        let counts = error.find("handled-count-too-high", ns::SM).unwrap();
        assert_eq!((counts.attribute("h"), counts.attribute("send-count")), (Some("10"), Some("8")));
    }

    #[test]
    fn another_host_is_the_text_of_its_condition() {
        let error = read(&StreamFault::SeeOtherHost("[2001:41D0:1:A49b::1]:9222".into()));
        let host = error.find("see-other-host", ns::STREAM_ERRORS).unwrap();
        assert_eq!(host.text_content(), "[2001:41D0:1:A49b::1]:9222");
    }

    #[test]
    fn a_peers_own_words_come_back_escaped_and_cut() {
        let hostile = format!("</text>{}", "\u{1F600}".repeat(10_000));
        let fault = StreamFault::HostUnknown(hostile.into());
        assert!(written(&fault).len() < 600);
        assert_eq!(read(&fault).elements().count(), 2);
    }
}
