//! The streams between servers. RFC 6120 §4 to §6 and §13.7 with XEP-0178 (SASL EXTERNAL), XEP-0220 and XEP-0185
//! (dialback), XEP-0288 (both directions on one stream).
//!
//! - [`incoming`]: a stream that another server opened: who it speaks for, stanzas, keys that it asks us to verify.
//! - [`outgoing`]: a stream that we opened: proving who we are, asking others to verify.
//! - [`peer`]: what a certificate says of the other server.
//! - [`marks`]: what is counted and acknowledged (XEP-0198), and how a message that comes again is known.
//! - `dialback`: keys, and the elements that carry them.
//!
//! Both are pull-style, as [`crate::ClientStream`] is: feed bytes, take events one at a time, answer those that ask.

pub(crate) mod dialback;
pub mod incoming;
pub mod marks;
pub mod outgoing;
pub mod peer;

pub use dialback::Verdict;
pub use incoming::{InEvent, IncomingStream};
pub use marks::Managing;
pub use outgoing::{OutEvent, OutgoingStream, Verify};
pub use peer::PeerCertificate;

use crate::config::Tls;
use std::collections::HashSet;
use std::fmt;
use xmpp::xml::{Limits, Raw};
use xmpp::{Stanza, StreamFault};

/// XEP-0288.
pub(crate) const BIDI: &str = "urn:xmpp:bidi";
pub(crate) const BIDI_FEATURE: &[u8] = b"<bidi xmlns='urn:xmpp:features:bidi'/>";

/// Who speaks to whom: a sender domain and a target domain, both prepared. Directed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pair {
    pub from: Box<str>,
    pub to: Box<str>,
}

impl Pair {
    pub fn new(from: &str, to: &str) -> Pair {
        Pair { from: from.into(), to: to.into() }
    }

    /// The way back.
    pub fn inverse(&self) -> Pair {
        Pair { from: self.to.clone(), to: self.from.clone() }
    }

    /// Of the two addresses of a stanza or a dialback element; `None` when one is missing or no domain.
    pub(crate) fn read(raw: &Raw) -> Option<Pair> {
        let domain = |name| raw.attribute(name).and_then(|said| xmpp::jid::prepare_domain(&said).ok());
        Some(Pair { from: domain("from")?.into(), to: domain("to")?.into() })
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.from, self.to)
    }
}

/// What all streams between servers share. Immutable; a changed configuration is a new value for later streams.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Prepared domains.
    pub hosts: HashSet<Box<str>>,
    /// Of listeners; of outgoing streams, whether TLS is insisted on.
    pub tls: Tls,
    /// Is dialback spoken? Else only certificates count.
    pub dialback: bool,
    /// May one stream carry both directions?
    pub bidi: bool,
    /// Are stanzas acknowledged? XEP-0198.
    pub management: bool,
    pub limits_before_auth: Limits,
    pub limits_after_auth: Limits,
    /// Makes dialback keys: the same on all servers of the domain. Secret.
    pub secret: Vec<u8>,
    pub lang: Box<str>,
}

impl Default for ServerConfig {
    /// No hosts, TLS required.
    fn default() -> ServerConfig {
        ServerConfig {
            hosts: HashSet::new(),
            tls: Tls::Required,
            dialback: true,
            bidi: true,
            management: true,
            limits_before_auth: Limits::BEFORE_AUTH,
            limits_after_auth: Limits::SERVER,
            secret: Vec::new(),
            lang: "en".into(),
        }
    }
}

/// A stanza on a stream that is authenticated for `pairs`, or why it may not be one. RFC 6120 §8.1.1.2, §8.1.2.2.
/// `lang`: what it is in when it does not say (§8.1.5), if our own streams say another.
///
/// # Errors
/// The inner ones are for the stanza's sender, who was verified.
pub(crate) fn stanza<'a>(
    raw: Raw,
    pairs: impl IntoIterator<Item = &'a Pair>,
    lang: Option<&str>,
) -> Result<Result<Stanza, Box<xmpp::stanza::StanzaFault>>, StreamFault> {
    let domain = |name| {
        let said = raw.attribute(name)?;
        let jid = xmpp::Jid::parse(&said).ok()?;
        Some(Box::<str>::from(jid.domain()))
    };
    let improper = |text| StreamFault::Other(xmpp::StreamCondition::ImproperAddressing, text);
    let from = domain("from").ok_or(improper("A stanza between servers needs a 'from' that is an address."))?;
    if raw.attribute("to").is_none() {
        return Err(improper("A stanza between servers needs a 'to'."));
    }
    let to = domain("to");
    let mut of_sender = pairs.into_iter().filter(|pair| pair.from == from).peekable();
    if of_sender.peek().is_none() {
        return Err(StreamFault::FromNotOurs(from));
    }
    // A malformed `to` is answered to the sender, who was verified for this stream.
    if let Some(to) = to
        && !of_sender.any(|pair| pair.to == to)
    {
        return Err(StreamFault::FromNotOurs(format!("{from} to {to}").into()));
    }
    Ok(Stanza::from_raw(raw).map(|mut stanza| {
        if stanza.lang.is_none() {
            stanza.lang = lang.map(Into::into);
        }
        stanza
    }))
}

/// The condition of a `<stream:error/>` that the peer sent; RFC 6120 §4.9.3.
pub(crate) fn peer_error(raw: &Raw) -> Box<str> {
    let element = raw.to_element();
    let condition = element.elements().find(|child| &*child.ns == xmpp::ns::STREAM_ERRORS && &*child.name != "text");
    condition.map_or_else(|| "undefined-condition".into(), |child| Box::<str>::from(&*child.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(xml: &str) -> Raw {
        Raw::parse(xml.as_bytes()).expect("the test's XML is right")
    }

    fn judged(xml: &str) -> Result<bool, StreamFault> {
        stanza(raw(xml), &[Pair::new("montague.example", "capulet.example")], None).map(|stanza| stanza.is_ok())
    }

    #[test]
    fn a_stanza_of_the_verified_pair_is_taken() {
        assert_eq!(judged("<message from='romeo@montague.example/x' to='juliet@capulet.example'/>"), Ok(true));
        assert_eq!(judged("<presence from='montague.example' to='capulet.example'/>"), Ok(true));
    }

    #[test]
    fn a_stanza_of_any_other_pair_is_refused() {
        for (from, to) in [
            ("romeo@verona.example", "juliet@capulet.example"),
            ("romeo@montague.example", "juliet@verona.example"),
            ("juliet@capulet.example", "romeo@montague.example"),
            ("romeo@sub.montague.example", "juliet@capulet.example"),
            ("romeo@montague.example.verona.example", "juliet@capulet.example"),
        ] {
            let verdict = judged(&format!("<message from='{from}' to='{to}'/>"));
            assert!(matches!(verdict, Err(StreamFault::FromNotOurs(_))), "{from} to {to}: {verdict:?}");
        }
    }

    #[test]
    fn a_stanza_without_an_address_ends_the_stream() {
        for addresses in
            ["from='romeo@montague.example'", "to='juliet@capulet.example'", "", "from='@' to='juliet@capulet.example'"]
        {
            let verdict = judged(&format!("<message {addresses}/>"));
            assert!(matches!(verdict, Err(StreamFault::Other(..))), "{addresses}: {verdict:?}");
        }
    }

    #[test]
    fn a_malformed_to_of_a_verified_sender_is_for_the_sender() {
        assert_eq!(judged("<message from='romeo@montague.example' to='@@'/>"), Ok(false));
        assert!(judged("<message from='romeo@verona.example' to='@@'/>").is_err());
    }
}
