//! Challenge, success and failure in both profiles. RFC 6120 §6.4, XEP-0388 §2.

use super::Condition;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use xmpp::StanzaCondition;
use zeroize::Zeroizing;

/// XEP-0388.
pub(crate) const SASL2: &str = "urn:xmpp:sasl:2";

/// Who carries the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// RFC 6120 §6.
    Sasl,
    /// XEP-0388.
    Sasl2,
}

impl Profile {
    pub fn of(ns: &str) -> Option<Profile> {
        match ns {
            xmpp::ns::SASL => Some(Profile::Sasl),
            SASL2 => Some(Profile::Sasl2),
            _ => None,
        }
    }

    fn ns(self) -> &'static str {
        match self {
            Profile::Sasl => xmpp::ns::SASL,
            Profile::Sasl2 => SASL2,
        }
    }

    /// The bytes of a response. Base64 in its one canonical form, no white space: RFC 6120 §6.3.7, XEP-0388 §2.2.
    ///
    /// # Errors
    /// `incorrect-encoding`.
    pub fn decode(self, text: &str) -> Result<Zeroizing<Vec<u8>>, Condition> {
        match (self, text) {
            (Profile::Sasl, "=") => Ok(Zeroizing::default()),
            (_, text) => STANDARD.decode(text).map(Zeroizing::new).map_err(|_| Condition::IncorrectEncoding),
        }
    }

    pub fn challenge(self, out: &mut Vec<u8>, data: &[u8]) {
        begin(out, "challenge", self.ns());
        out.extend_from_slice(STANDARD.encode(data).as_bytes());
        out.extend_from_slice(b"</challenge>");
    }

    /// `application` is a condition of our own beside it. RFC 6120 §6.5, XEP-0388 §2.6.2.
    pub fn failure(self, out: &mut Vec<u8>, condition: Condition, application: Option<StanzaCondition>) {
        begin(out, "failure", self.ns());
        out.push(b'<');
        out.extend_from_slice(condition.name().as_bytes());
        if self == Profile::Sasl2 {
            out.extend_from_slice(b" xmlns='urn:ietf:params:xml:ns:xmpp-sasl'");
        }
        out.extend_from_slice(b"/>");
        if let Some(application) = application {
            out.push(b'<');
            out.extend_from_slice(application.name().as_bytes());
            out.extend_from_slice(b" xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>");
        }
        out.extend_from_slice(b"</failure>");
    }
}

/// RFC 6120 §6.4.6.
pub(crate) fn success(out: &mut Vec<u8>, additional: Option<&[u8]>) {
    begin(out, "success", Profile::Sasl.ns());
    match additional {
        None => {}
        Some([]) => out.push(b'='),
        Some(data) => out.extend_from_slice(STANDARD.encode(data).as_bytes()),
    }
    out.extend_from_slice(b"</success>");
}

/// Begins SASL2's success; what was negotiated inline follows, then [`SUCCESS_END`]. XEP-0388 §2.6.1.
pub(crate) fn begin_success(out: &mut Vec<u8>, additional: Option<&[u8]>, identity: &str) {
    begin(out, "success", SASL2);
    if let Some(data) = additional {
        out.extend_from_slice(b"<additional-data>");
        out.extend_from_slice(STANDARD.encode(data).as_bytes());
        out.extend_from_slice(b"</additional-data>");
    }
    out.extend_from_slice(b"<authorization-identifier>");
    xmpp::xml::escape_text(out, identity);
    out.extend_from_slice(b"</authorization-identifier>");
}

pub(crate) const SUCCESS_END: &[u8] = b"</success>";

fn begin(out: &mut Vec<u8>, name: &str, ns: &str) {
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b" xmlns='");
    out.extend_from_slice(ns.as_bytes());
    out.extend_from_slice(b"'>");
}
