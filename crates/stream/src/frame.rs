//! Headers, errors and closing tags: how a stream begins and ends, for all kinds of stream. RFC 6120 §4, RFC 7395.

use crate::config::Framing;
use crate::crypto::Crypto;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xmpp::xml::{Frame, Header, Limits, Raw, Scanner, escape_attribute};
use xmpp::{StreamCondition, StreamFault, ns};

/// RFC 7395 §3.3.
pub(crate) const FRAMING: &str = "urn:ietf:params:xml:ns:xmpp-framing";
/// 128 bits, RFC 6120 §4.7.3.
const STREAM_ID_BYTES: usize = 16;

/// Whole frames of one connection, and what was said of our own stream on it.
#[derive(Debug)]
pub(crate) struct Frames {
    scanner: Scanner,
    framing: Framing,
    /// Our header is out, for the stream that the peer has begun (or that an error needed).
    pub opened: bool,
    /// Our close tag is out.
    pub closed: bool,
    /// White space belongs to the stream that was restarted, not before the XML declaration of the next.
    between: bool,
}

impl Frames {
    pub fn new(framing: Framing, limits: Limits, content_ns: &str) -> Frames {
        let scanner = match framing {
            Framing::Tcp => Scanner::new(limits),
            Framing::WebSocket => Scanner::framed(limits, content_ns),
        };
        Frames { scanner, framing, opened: false, closed: false, between: false }
    }

    pub fn framing(&self) -> Framing {
        self.framing
    }

    pub fn set_limits(&mut self, limits: Limits) {
        self.scanner.set_limits(limits);
    }

    /// A new header is due. RFC 6120 §4.3.3.
    pub fn restart(&mut self) {
        self.scanner.restart();
        self.opened = false;
        self.between = true;
    }

    /// The next whole frame. On a WebSocket `<open/>` is the header and `<close/>` the end. RFC 7395 §3.4, §3.6.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, StreamFault> {
        if self.between {
            let space = input.iter().take_while(|byte| b" \t\r\n".contains(byte)).count();
            *input = &input[space..];
            self.between = input.is_empty();
        }
        let frame = self.scanner.next(input)?;
        Ok(match frame {
            Some(Frame::Element(raw)) if self.framing == Framing::WebSocket && raw.ns() == FRAMING => {
                Some(match raw.name() {
                    "open" => Frame::Header(header_of_open(&raw)),
                    "close" => Frame::Close,
                    other => return Err(StreamFault::UnsupportedStanzaType(other.into())),
                })
            }
            other => other,
        })
    }

    pub fn is_mid_frame(&self) -> bool {
        self.scanner.is_mid_frame()
    }

    pub fn held_bytes(&self) -> usize {
        self.scanner.held_bytes()
    }

    /// Our header, in answer. RFC 6120 §4.7. Gives its id, which is made here, unguessable.
    pub fn open(&mut self, out: &mut Vec<u8>, crypto: &dyn Crypto, content_ns: &str, said: &Said<'_>) -> String {
        let id = random_id(crypto, STREAM_ID_BYTES);
        match self.framing {
            Framing::Tcp => {
                out.extend_from_slice(b"<?xml version='1.0'?><stream:stream xmlns='");
                out.extend_from_slice(content_ns.as_bytes());
                out.extend_from_slice(b"' xmlns:stream='http://etherx.jabber.org/streams'");
                if content_ns == ns::SERVER {
                    out.extend_from_slice(DIALBACK_PREFIX);
                }
            }
            Framing::WebSocket => out.extend_from_slice(b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing'"),
        }
        attribute(out, "id", &id);
        attribute(out, "from", said.from);
        if let Some(to) = said.to {
            attribute(out, "to", to);
        }
        if said.version {
            attribute(out, "version", "1.0");
        }
        attribute(out, "xml:lang", said.lang);
        out.extend_from_slice(if self.framing == Framing::Tcp { b">" } else { b"/>" });
        self.opened = true;
        id
    }

    /// Our header, as the one who opens a stream to another server. RFC 6120 §4.7.
    pub fn initiate(&mut self, out: &mut Vec<u8>, from: &str, to: &str, lang: &str) {
        out.extend_from_slice(b"<?xml version='1.0'?><stream:stream xmlns='jabber:server'");
        out.extend_from_slice(STREAM_PREFIX);
        out.extend_from_slice(DIALBACK_PREFIX);
        for (name, value) in [("from", from), ("to", to), ("version", "1.0"), ("xml:lang", lang)] {
            attribute(out, name, value);
        }
        out.push(b'>');
        self.opened = true;
    }

    /// The error element. RFC 6120 §4.9.2.
    fn error(&self, out: &mut Vec<u8>, fault: &StreamFault) {
        match self.framing {
            Framing::Tcp => fault.write(out),
            Framing::WebSocket => fault.write_framed(out),
        }
    }

    /// The last words of a stream that is open: what is wrong, if anything is, and the close tag. Nothing behind a close
    /// tag.
    pub fn end(&mut self, out: &mut Vec<u8>, fault: Option<&StreamFault>) {
        if !self.opened || self.closed {
            return;
        }
        if let Some(fault) = fault {
            self.error(out, fault);
        }
        self.close(out);
    }

    /// Our close tag, once. RFC 6120 §4.4.
    fn close(&mut self, out: &mut Vec<u8>) {
        if !self.closed {
            self.closed = true;
            out.extend_from_slice(match self.framing {
                Framing::Tcp => b"</stream:stream>",
                Framing::WebSocket => b"<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>",
            });
        }
    }

    /// `<stream:features>`, to be closed with [`FEATURES_END`].
    pub fn begin_features(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<stream:features");
        if self.framing == Framing::WebSocket {
            out.extend_from_slice(STREAM_PREFIX);
        }
        out.push(b'>');
    }

    /// An iq that the stream itself answers with.
    pub fn iq(&self, out: &mut Vec<u8>, kind: &str, id: &str, content: impl FnOnce(&mut Vec<u8>)) {
        out.extend_from_slice(b"<iq");
        if self.framing == Framing::WebSocket {
            attribute(out, "xmlns", ns::CLIENT);
        }
        attribute(out, "type", kind);
        attribute(out, "id", id);
        out.push(b'>');
        content(out);
        out.extend_from_slice(b"</iq>");
    }
}

pub(crate) const FEATURES_END: &[u8] = b"</stream:features>";
const STREAM_PREFIX: &[u8] = b" xmlns:stream='http://etherx.jabber.org/streams'";
/// XEP-0220 §2.4.1.
const DIALBACK_PREFIX: &[u8] = b" xmlns:db='jabber:server:dialback'";

/// What our header says besides namespaces and id.
pub(crate) struct Said<'a> {
    pub from: &'a str,
    pub to: Option<&'a str>,
    /// `version='1.0'`: not said to a peer that said none. RFC 6120 §4.7.5.
    pub version: bool,
    pub lang: &'a str,
}

/// Is it a header that we speak? RFC 6120 §4.8.1, §4.8.2, §4.8.5, §4.7.5.
pub(crate) fn check_header(header: &Header, content_ns: &str) -> Result<(), StreamFault> {
    if header.ns != ns::STREAM {
        return Err(StreamFault::InvalidNamespace(header.ns.as_str().into()));
    }
    if header.prefix != "stream" {
        return Err(StreamFault::BadNamespacePrefix);
    }
    if header.name != "stream" {
        return Err(StreamFault::Other(StreamCondition::BadFormat, "The root element is not <stream/>."));
    }
    if header.content_ns != content_ns {
        return Err(StreamFault::InvalidNamespace(header.content_ns.as_str().into()));
    }
    match &header.version {
        Some(version) if major(version).is_some_and(|major| major >= 1) => Ok(()),
        Some(version) => Err(StreamFault::UnsupportedVersion(version.as_str().into())),
        None => Err(StreamFault::UnsupportedVersion("0.9".into())),
    }
}

/// The major number of `<major>.<minor>`; leading zeros count nothing. RFC 6120 §4.7.5.
fn major(version: &str) -> Option<u32> {
    let (major, minor) = version.split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // A number beyond u32 is a number above ours.
    (digits(major) && digits(minor)).then(|| major.parse().unwrap_or(u32::MAX))
}

/// Longer language tags are not remembered; RFC 5646 §4.4.1 asks for 35. They are written with every stanza.
const LANG_BYTES_MAX: usize = 64;

/// The default `xml:lang` of the stanzas behind a header. RFC 6120 §4.7.4, §8.1.5; the shape is that of RFC 5646 §2.1.
pub(crate) fn default_lang(header: &Header) -> Option<Box<str>> {
    let lang = header.lang.as_deref().filter(|lang| !lang.is_empty() && lang.len() <= LANG_BYTES_MAX)?;
    lang.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-').then(|| lang.into())
}

fn header_of_open(raw: &Raw) -> Header {
    let text = |name| raw.attribute(name).map(|value| value.into_owned());
    Header {
        name: "stream".into(),
        ns: ns::STREAM.into(),
        prefix: "stream".into(),
        content_ns: ns::CLIENT.into(),
        from: text("from"),
        to: text("to"),
        id: text("id"),
        version: text("version"),
        lang: raw.to_element().attribute("xml:lang").map(str::to_owned),
        prefixes: Vec::new(),
    }
}

/// ` name='value'`, escaped.
pub(crate) fn attribute(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"='");
    escape_attribute(out, value);
    out.push(b'\'');
}

/// Random bytes in base64url.
pub(crate) fn random_id(crypto: &dyn Crypto, bytes: usize) -> String {
    let mut random = vec![0; bytes];
    crypto.random(&mut random);
    URL_SAFE_NO_PAD.encode(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: Option<&str>) -> Header {
        Header {
            name: "stream".into(),
            ns: ns::STREAM.into(),
            prefix: "stream".into(),
            content_ns: ns::CLIENT.into(),
            version: version.map(str::to_owned),
            ..Header::default()
        }
    }

    #[test]
    fn the_language_of_a_stream_is_a_short_tag_or_none() {
        let of = |lang: &str| default_lang(&Header { lang: Some(lang.into()), ..header(None) });
        assert_eq!(of("de-CH-1996").as_deref(), Some("de-CH-1996"));
        for bad in ["", "e n", "'", "en_US", &"a".repeat(LANG_BYTES_MAX + 1)] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for good in ["1.0", "1.7", "2.4", "01.0", "12.3", "99999999999.0"] {
            assert_eq!(check_header(&header(Some(good)), ns::CLIENT), Ok(()), "{good}");
        }
        for bad in ["0.9", "", "1", "one.zero", "1.", ".0", "-1.0", "1.0 "] {
            let fault = check_header(&header(Some(bad)), ns::CLIENT);
            assert_eq!(fault, Err(StreamFault::UnsupportedVersion(bad.into())), "{bad}");
        }
        assert_eq!(check_header(&header(None), ns::CLIENT), Err(StreamFault::UnsupportedVersion("0.9".into())));
    }
}
