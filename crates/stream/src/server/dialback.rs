//! Dialback: keys (XEP-0185) and the elements that carry them (XEP-0220).

use super::Pair;
use crate::crypto::{Crypto, Hash};
use crate::frame::attribute;
use xmpp::xml::{Raw, escape_text};
use xmpp::{StanzaCondition, StreamCondition, StreamFault, ns};

pub(crate) const NS: &str = "jabber:server:dialback";
/// XEP-0220 §2.4.2: pairs that fail do not end the stream.
pub(crate) const FEATURE_NS: &str = "urn:xmpp:features:dialback";
pub(crate) const FEATURE: &[u8] = b"<dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback>";

/// What became of a key. XEP-0220 §2.1.1, §2.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Valid,
    Invalid,
    /// It could not be judged.
    Error(StanzaCondition),
}

/// The key that a sender domain gives a target domain on the stream `id`. XEP-0185 §2: hexadecimal.
pub(crate) fn key(crypto: &dyn Crypto, secret: &[u8], pair: &Pair, id: &str) -> String {
    let hashed = hex(&crypto.digest(Hash::Sha256, secret));
    hex(&crypto.hmac(Hash::Sha256, hashed.as_bytes(), format!("{} {} {id}", pair.to, pair.from).as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        write!(out, "{byte:02x}").expect("a String takes all that is written to it");
        out
    })
}

/// `<db:result/>` and `<db:verify/>` as they come.
#[derive(Debug, PartialEq)]
pub(crate) struct Said {
    pub name: Name,
    pub pair: Pair,
    /// Of the stream that a key is about; only `verify` has it.
    pub id: String,
    pub what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Result,
    Verify,
}

#[derive(Debug, PartialEq)]
pub(crate) enum What {
    /// No `type`: a question.
    Key(String),
    Answer(Verdict),
}

/// # Errors
/// `improper-addressing` without addresses, `bad-format` for what is none of the two.
pub(crate) fn read(raw: &Raw) -> Result<Said, StreamFault> {
    let wrong = |text| StreamFault::Other(StreamCondition::BadFormat, text);
    let name = match raw.name() {
        "result" => Name::Result,
        "verify" => Name::Verify,
        other => return Err(StreamFault::UnsupportedStanzaType(other.into())),
    };
    let pair = Pair::read(raw)
        .ok_or(StreamFault::Other(StreamCondition::ImproperAddressing, "Dialback needs two domains."))?;
    let id = raw.attribute("id").map(|id| id.into_owned());
    if name == Name::Verify && id.is_none() {
        return Err(wrong("A verification needs the id of a stream."));
    }
    let what = match raw.attribute("type").as_deref() {
        None => What::Key(raw.to_element().text_content().trim().to_owned()),
        Some("valid") => What::Answer(Verdict::Valid),
        Some("invalid") => What::Answer(Verdict::Invalid),
        Some("error") => What::Answer(Verdict::Error(condition(raw))),
        Some(_) => return Err(wrong("A dialback's type is valid, invalid or error.")),
    };
    Ok(Said { name, pair, id: id.unwrap_or_default(), what })
}

/// Of `<error><…/></error>`; what is not known counts as `undefined-condition`.
fn condition(raw: &Raw) -> StanzaCondition {
    let element = raw.to_element();
    // Its namespace is that of the content, which is not rewritten within an element of another one.
    let error =
        element.elements().find(|child| &*child.name == "error" && [ns::SERVER, ns::CLIENT].contains(&&*child.ns));
    let condition = error
        .and_then(|error| error.elements().find(|child| &*child.ns == ns::STANZA_ERRORS && &*child.name != "text"));
    let name = condition.map_or("", |condition| &*condition.name);
    let known = StanzaCondition::ALL.into_iter().find(|known| known.name() == name);
    known.unwrap_or(StanzaCondition::UndefinedCondition)
}

/// Asks: is this pair's key accepted? XEP-0220 §2.1.1 step 1.
pub(crate) fn write_result(out: &mut Vec<u8>, pair: &Pair, key: &str) {
    begin(out, Name::Result, pair, None);
    out.push(b'>');
    escape_text(out, key);
    out.extend_from_slice(b"</db:result>");
}

/// Asks the authoritative server. XEP-0220 §2.1.2 step 2: from the receiving domain to the one that is claimed.
pub(crate) fn write_verify(out: &mut Vec<u8>, pair: &Pair, id: &str, key: &str) {
    begin(out, Name::Verify, pair, Some(id));
    out.push(b'>');
    escape_text(out, key);
    out.extend_from_slice(b"</db:verify>");
}

/// Answers either; `pair` is that of the answer, the inverse of the question's.
pub(crate) fn write_answer(out: &mut Vec<u8>, name: Name, pair: &Pair, id: Option<&str>, verdict: Verdict) {
    begin(out, name, pair, id);
    match verdict {
        Verdict::Valid => out.extend_from_slice(b" type='valid'/>"),
        Verdict::Invalid => out.extend_from_slice(b" type='invalid'/>"),
        Verdict::Error(condition) => {
            out.extend_from_slice(b" type='error'><error type='cancel'><");
            out.extend_from_slice(condition.name().as_bytes());
            out.extend_from_slice(b" xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></db:");
            out.extend_from_slice(name.text().as_bytes());
            out.push(b'>');
        }
    }
}

fn begin(out: &mut Vec<u8>, name: Name, pair: &Pair, id: Option<&str>) {
    out.extend_from_slice(b"<db:");
    out.extend_from_slice(name.text().as_bytes());
    attribute(out, "from", &pair.from);
    attribute(out, "to", &pair.to);
    if let Some(id) = id {
        attribute(out, "id", id);
    }
}

impl Name {
    fn text(self) -> &'static str {
        match self {
            Name::Result => "result",
            Name::Verify => "verify",
        }
    }
}

/// An answer that nobody asked for. LIMITS.md §2 row 20, XEP-0220 §3.1.
pub(crate) fn unsolicited() -> StreamFault {
    StreamFault::Other(StreamCondition::PolicyViolation, "Nobody asked for this dialback answer.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    #[test]
    fn the_key_is_that_of_the_specification_s_example() {
        let pair = Pair::new("example.org", "xmpp.example.com");
        assert_eq!(
            key(&Fake::default(), b"s3cr3tf0rd14lb4ck", &pair, "D60000229F"),
            "37c69b1cf07a3f67c04a5ef5902fa5114f2c76fe4a2686482ba5b89323075643"
        );
    }

    #[test]
    fn keys_of_other_pairs_and_streams_are_others() {
        let of = |from, to, id| key(&Fake::default(), b"secret", &Pair::new(from, to), id);
        let one = of("a.example", "b.example", "1");
        assert_ne!(one, of("b.example", "a.example", "1"));
        assert_ne!(one, of("a.example", "b.example", "2"));
        assert_ne!(one, of("a.example", "c.example", "1"));
    }

    #[test]
    fn an_answer_is_read_as_it_is_written() {
        let pair = Pair::new("a.example", "b.example");
        let verdicts = [Verdict::Valid, Verdict::Invalid, Verdict::Error(StanzaCondition::RemoteServerNotFound)];
        for verdict in verdicts {
            let mut out = Vec::new();
            write_answer(&mut out, Name::Verify, &pair, Some("i'd"), verdict);
            let text =
                String::from_utf8(out).expect("UTF-8").replacen("from=", "xmlns:db='jabber:server:dialback' from=", 1);
            let said = read(&Raw::parse(text.as_bytes()).expect("what we write is XML")).expect("and dialback");
            assert_eq!(
                said,
                Said { name: Name::Verify, pair: pair.clone(), id: "i'd".into(), what: What::Answer(verdict) }
            );
        }
    }
}
