//! A client's stream, seen from the server. RFC 6120 §4 to §7.
//!
//! The states in their order, a file each; each reads what may come next and writes the answer:
//! - `header`: headers and features;
//! - `negotiate`: STARTTLS and registration;
//! - `authenticate`: SASL in both profiles, then what SASL2 carries `inline`;
//! - `bind`: binding and resumption;
//! - `session`: stanzas and the nonzas among them.

mod authenticate;
mod bind;
mod header;
mod inline;
mod negotiate;
mod session;

use crate::config::{Config, Framing};
use crate::crypto::Crypto;
use crate::event::{BindRequest, Event, ResumeRequest, TlsInfo};
use crate::frame::Frames;
use crate::management::{self, Counting};
use crate::sasl::request::Request;
use crate::sasl::token::TokenChange;
use crate::sasl::wire::Profile;
use crate::sasl::{Exchange, Mechanism};
use std::collections::VecDeque;
use std::sync::Arc;
use xmpp::write::Wire;
use xmpp::xml::Frame;
use xmpp::{BareJid, FullJid, Jid, Stamp, StanzaCondition, StreamCondition, StreamFault, ns};

/// Failed authentications a connection, unless the configuration says otherwise. RFC 6120 §6.4.5: 2 to 5 retries.
pub const AUTH_ATTEMPTS_MAX: u8 = 3;
/// Iqs about registration a connection. XEP-0077 §3.1.
pub const REGISTRATIONS_MAX: u8 = 10;
/// Bind requests a connection. RFC 6120 §7.7.
pub const BINDS_MAX: u8 = 5;
/// Iqs a connection that come too early, and are refused one by one; the next ends the stream.
pub const EARLY_IQS_MAX: u8 = 10;

/// One client's stream, from the first byte to the close tag. RFC 6120.
///
/// Pull-style: the caller feeds bytes and takes events one at a time, so that it can await between them.
/// ```
/// # use stream::{ClientStream, Event};
/// fn take(stream: &mut ClientStream, mut input: &[u8], out: &mut Vec<u8>) {
///     loop {
///         match stream.next(&mut input, out) {
///             // May await here; then calls the method that the event names.
///             Ok(Some(Event::AckRequested)) => stream.write_ack(0, out),
///             Ok(Some(_)) => {}
///             // All of `input` is taken, or an answer is awaited (`is_waiting`).
///             Ok(None) => break,
///             // Then writes `out` and closes.
///             Err(fault) => return stream.fail(&fault, out),
///         }
///     }
/// }
/// ```
/// When an answer comes later than the loop (`is_waiting`), keep what is left of `input` and call `next` again after
/// the answer, even with nothing new: the answer may set off further events.
pub struct ClientStream {
    config: Arc<Config>,
    crypto: Arc<dyn Crypto>,
    frames: Frames,
    stage: Stage,
    waits: Option<Wait>,
    /// Events that wait for `next`.
    events: VecDeque<Event>,
    /// Given by `next` when the events are taken, again and again.
    fault: Option<StreamFault>,
    encrypted: bool,
    host: Option<Box<str>>,
    /// The client's default `xml:lang`.
    lang: Option<Box<str>>,
    /// Who it is, once authenticated.
    account: Option<BareJid>,
    /// Once bound.
    jid: Option<FullJid>,
    /// What only matters until a resource is bound.
    negotiation: Option<Box<Negotiation>>,
    /// Stream management is on.
    counting: Option<Arc<Counting>>,
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A header.
    Header,
    /// STARTTLS, SASL, registration.
    Negotiating,
    /// Binding or resumption.
    Binding,
    /// Stanzas.
    Bound,
    /// Nothing.
    Ended,
}

/// The answer that is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    StartTls,
    Lookup,
    Password,
    Token,
    Invited,
    Register,
    Bind,
    Resume,
    Manage,
}

#[derive(Default)]
struct Negotiation {
    tls: Option<TlsInfo>,
    /// The header's, if it was an address.
    from: Option<Jid>,
    /// The header said a version: ours may too. RFC 6120 §4.7.5.
    silent_version: bool,
    attempt: Option<Attempt>,
    failures: u8,
    registrations: u8,
    /// The token of an invitation that an account may be made with; while it is asked about, that is not known yet.
    invitation: Option<Box<str>>,
    admitted: bool,
    binds: u8,
    early_iqs: u8,
    /// The id of the iq that is being answered.
    iq: Box<str>,
    /// Authenticated with SASL2, what was asked for inline is being done.
    inline: Option<Inline>,
}

/// One authentication, in either profile.
struct Attempt {
    profile: Profile,
    mechanism: Mechanism,
    exchange: Exchange,
    /// Empty with [`Profile::Sasl`].
    request: Request,
    disabled: bool,
    /// UTC, as of the lookup.
    now: Stamp,
}

/// What SASL2's success will tell. XEP-0388 §2.6.1.
#[derive(Default)]
struct Inline {
    additional: Option<Vec<u8>>,
    changes: VecDeque<TokenChange>,
    /// A new token and when it expires.
    token: Option<(String, Stamp)>,
    resume: Option<ResumeRequest>,
    resume_failed: Option<(StanzaCondition, Option<u32>)>,
    bind: Option<BindRequest>,
    manage_asked: bool,
}

impl ClientStream {
    pub fn new(config: Arc<Config>, crypto: Arc<dyn Crypto>) -> ClientStream {
        ClientStream {
            frames: Frames::new(config.framing, config.limits_before_auth.clone(), ns::CLIENT),
            config,
            crypto,
            stage: Stage::Header,
            waits: None,
            events: VecDeque::new(),
            fault: None,
            encrypted: false,
            host: None,
            lang: None,
            account: None,
            jid: None,
            negotiation: Some(Box::default()),
            counting: None,
        }
    }

    /// The next thing that happened. Takes bytes from the front of `input`; what is to be written is appended to
    /// `out`, also when `None` comes back.
    ///
    /// # Errors
    /// What ends the stream: give it to [`ClientStream::fail`]. The stream is dead afterwards.
    pub fn next(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<Option<Event>, StreamFault> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if let Some(fault) = &self.fault {
                return Err(fault.clone());
            }
            if self.stage == Stage::Ended {
                *input = &[];
                return Ok(None);
            }
            let taken = match self.waits {
                // What was sent in clear must not be read as if it had come encrypted. RFC 6120 §5.4.3.3.
                Some(Wait::StartTls) if !input.is_empty() => Err(StreamFault::PlaintextBehindStartTls),
                Some(_) => return Ok(None),
                None if self.space_in_sasl2(input) => Err(StreamFault::StanzaBeforeAuth),
                None => self.frames.next(input),
            };
            let taken = match taken {
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => self.take(frame, input, out),
                Err(fault) => Err(fault),
            };
            // COMPAT: go-xmpp ends what it says with a line, also where RFC 6120 §5.3.3 and XEP-0388 §2.4 do not want it.
            if taken.is_ok() && self.stage == Stage::Negotiating && negotiate::is_space(input) {
                *input = &[];
            }
            match taken {
                Ok(None) => {}
                Ok(event) => return Ok(event),
                Err(fault) => self.fault = Some(fault),
            }
        }
    }

    /// What a session's frame means is given at once, what a negotiation's means is queued.
    fn take(&mut self, frame: Frame, input: &[u8], out: &mut Vec<u8>) -> Result<Option<Event>, StreamFault> {
        match (frame, self.stage) {
            // The client has found a fault and is gone: an error is never answered with one. RFC 6120 §4.9.1.1.
            (Frame::Element(raw), _) if raw.ns() == ns::STREAM && raw.name() == "error" => {
                self.stage = Stage::Ended;
                return Ok(Some(Event::Closed));
            }
            (Frame::Element(raw), Stage::Bound) => return self.in_session(raw, out),
            (Frame::Element(raw), Stage::Binding) => self.binding(&raw, out)?,
            (Frame::Element(raw), Stage::Negotiating) => self.negotiating(&raw, input, out)?,
            (Frame::Header(header), Stage::Header) => self.header(header, out)?,
            (Frame::Close, _) => {
                self.stage = Stage::Ended;
                return Ok(Some(Event::Closed));
            }
            // Only in a framed stream, RFC 7395 §3.4.
            (Frame::Header(_), _) => {
                return Err(StreamFault::Other(StreamCondition::BadFormat, "The stream is open already."));
            }
            (Frame::Element(_), _) => {
                return Err(StreamFault::Other(StreamCondition::BadFormat, "The stream is not open."));
            }
        }
        Ok(None)
    }

    /// "Clients MUST NOT send whitespace" while they authenticate; the server disconnects them. XEP-0388 §2.4.
    fn space_in_sasl2(&self, input: &[u8]) -> bool {
        let exchange = self.negotiation.as_ref().and_then(|negotiation| negotiation.attempt.as_ref());
        exchange.is_some_and(|attempt| attempt.profile == Profile::Sasl2)
            && !self.frames.is_mid_frame()
            && matches!(input, [b' ' | b'\t' | b'\r' | b'\n', ..])
    }

    fn negotiation(&mut self) -> &mut Negotiation {
        self.negotiation.get_or_insert_default()
    }

    /// Is this the answer that is awaited? An answer to a stream that has ended comes too late and counts nothing.
    fn answers(&mut self, wait: Wait) -> bool {
        if self.stage == Stage::Ended || self.fault.is_some() {
            return false;
        }
        assert_eq!(self.waits.take(), Some(wait), "an answer is given once, to the event that asks for it");
        true
    }
}

/// Sending.
impl ClientStream {
    /// `<r/>` in any case, to see whether the client is there. Does nothing without stream management.
    pub fn request_ack(&mut self, out: &mut Vec<u8>) {
        if let Some(counting) = &self.counting {
            counting.request(out);
        }
    }

    /// `<a h=…/>`. Does nothing without stream management.
    pub fn write_ack(&mut self, h: u32, out: &mut Vec<u8>) {
        if self.counting.is_some() {
            management::write_ack(out, h);
        }
    }

    /// Ends the stream: our header if none was sent (RFC 6120 §4.9.1.2), the error, the close tag. Writes nothing
    /// between `<proceed/>` and `tls_up`, and nothing after a close tag.
    pub fn fail(&mut self, fault: &StreamFault, out: &mut Vec<u8>) {
        if self.may_write() {
            if !self.frames.opened {
                self.open(out);
            }
            self.frames.end(out, Some(fault));
        }
        self.end();
    }

    /// `</stream:stream>`, once. RFC 6120 §4.4.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if self.may_write() {
            self.frames.end(out, None);
        }
        self.end();
    }

    /// Nothing goes out in clear behind `<proceed/>`, nothing at all behind a close tag.
    fn may_write(&self) -> bool {
        self.waits != Some(Wait::StartTls) && !self.frames.closed
    }

    fn end(&mut self) {
        self.stage = Stage::Ended;
        self.events.clear();
        self.counting = None;
    }
}

/// What is known.
impl ClientStream {
    /// Is an answer awaited? Then `next` takes nothing.
    pub fn is_waiting(&self) -> bool {
        self.waits.is_some()
    }

    /// Our domain, once the header has named it.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref().or_else(|| self.account.as_ref().map(|account| account.domain()))
    }

    /// Once authenticated.
    pub fn account(&self) -> Option<&BareJid> {
        self.account.as_ref()
    }

    /// Once bound.
    pub fn jid(&self) -> Option<&FullJid> {
        self.jid.as_ref()
    }

    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    pub fn is_authenticated(&self) -> bool {
        self.account.is_some()
    }

    pub fn is_managed(&self) -> bool {
        self.counting.is_some()
    }

    /// With stream management: what whoever writes counts, who may not be whoever reads.
    pub fn counting(&self) -> Option<&Arc<Counting>> {
        self.counting.as_ref()
    }

    /// Was an `<r/>` sent that the client has not answered?
    pub fn awaits_ack(&self) -> bool {
        self.counting.as_ref().is_some_and(|counting| counting.awaits_ack())
    }

    /// Bytes held for a half-read element.
    pub fn held_bytes(&self) -> usize {
        self.frames.held_bytes()
    }

    /// For `xmpp::write::write_stanza`.
    pub fn wire(&self) -> Wire {
        match self.frames.framing() {
            Framing::Tcp => Wire::Client,
            Framing::WebSocket => Wire::WebSocket,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_session_costs_little() {
        // Half of it is the scanner.
        assert!(size_of::<ClientStream>() <= 384, "{} bytes", size_of::<ClientStream>());
    }
}
