//! A client's stream, seen from the server.

use crate::config::Config;
use crate::crypto::Crypto;
use crate::event::{Account, Bound, Event, Managed, TlsInfo};
use std::sync::Arc;
use xmpp::{BareJid, FullJid, Stamp, StanzaCondition, StanzaError, StreamFault};

/// One client's stream, from the first byte to the close tag. RFC 6120.
///
/// Pull-style: the caller feeds bytes and takes events one at a time, so that it can await between them.
/// ```ignore
/// let mut input: &[u8] = &buf[..n];
/// loop {
///     match stream.next(&mut input, &mut out) {
///         Ok(Some(event)) => …,      // may await; then call the method that the event names
///         Ok(None) => break,         // all of `input` is taken, or an answer is awaited (`is_waiting`)
///         Err(fault) => { stream.fail(&fault, &mut out); … } // write `out`, close
///     }
/// }
/// ```
/// When an answer comes later than the loop (`is_waiting`), keep what is left of `input` and call `next` again after
/// the answer, even with nothing new: the answer may set off further events.
pub struct ClientStream {
    config: Arc<Config>,
    crypto: Arc<dyn Crypto>,
}

#[allow(unused_variables, clippy::todo)]
impl ClientStream {
    pub fn new(config: Arc<Config>, crypto: Arc<dyn Crypto>) -> ClientStream { ClientStream { config, crypto } }

    /// The next thing that happened. Takes bytes from the front of `input`; what is to be written is appended to
    /// `out`, also when `None` comes back.
    ///
    /// # Errors
    /// What ends the stream: give it to [`ClientStream::fail`]. The stream is dead afterwards.
    pub fn next(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<Option<Event>, StreamFault> { todo!() }

    // ---- answers ----

    /// Answers [`Event::StartTls`]; or, with `Tls::Direct`, comes before the first `next`.
    pub fn tls_up(&mut self, info: TlsInfo) { todo!() }
    /// Answers [`Event::Lookup`]. `now` is UTC, for the expiry of tokens.
    pub fn looked_up(&mut self, account: Option<Account>, now: Stamp, out: &mut Vec<u8>) { todo!() }
    /// Answers [`Event::CheckPassword`].
    pub fn password_checked(&mut self, good: bool, out: &mut Vec<u8>) { todo!() }
    /// Answers [`Event::Lookup`] or [`Event::CheckPassword`] when we cannot say: `temporary-auth-failure`.
    pub fn auth_unavailable(&mut self, out: &mut Vec<u8>) { todo!() }
    /// Answers [`Event::PutToken`] and [`Event::DeleteToken`]. A token that could not be stored is not told.
    pub fn token_stored(&mut self, stored: bool, out: &mut Vec<u8>) { todo!() }
    /// Answers [`Event::Register`].
    pub fn registered(&mut self, outcome: Result<(), StanzaError>, out: &mut Vec<u8>) { todo!() }
    /// Answers [`Event::Bind`].
    pub fn bound(&mut self, bound: Bound, out: &mut Vec<u8>) { todo!() }
    /// Answers [`Event::Bind`]. The client may try again.
    pub fn bind_refused(&mut self, error: &StanzaError, out: &mut Vec<u8>) { todo!() }
    /// Answers [`Event::Resume`]: `h` stanzas of the client were handled. The caller then writes what is to be sent
    /// again, as after any `sent`.
    pub fn resumed(&mut self, jid: FullJid, id: &str, h: u32, out: &mut Vec<u8>) { todo!() }
    /// Answers [`Event::Resume`]; `h` if the session is known but over. Usually `item-not-found`. XEP-0198 §5.
    pub fn resume_refused(&mut self, condition: StanzaCondition, h: Option<u32>, out: &mut Vec<u8>) { todo!() }
    /// Answers [`Event::Manage`].
    pub fn managed(&mut self, managed: &Managed, out: &mut Vec<u8>) { todo!() }
    /// Answers [`Event::Manage`].
    pub fn manage_refused(&mut self, condition: StanzaCondition, out: &mut Vec<u8>) { todo!() }

    // ---- sending ----

    /// A stanza was appended to `out`. With stream management, an `<r/>` follows now and then.
    pub fn sent(&mut self, out: &mut Vec<u8>) { todo!() }
    /// Nothing more is queued: ask for an acknowledgement of what was sent, unless one is awaited.
    pub fn drained(&mut self, out: &mut Vec<u8>) { todo!() }
    /// `<r/>` in any case, to see whether the client is there. Does nothing without stream management.
    pub fn request_ack(&mut self, out: &mut Vec<u8>) { todo!() }
    /// `<a h=…/>`. Does nothing without stream management.
    pub fn write_ack(&mut self, h: u32, out: &mut Vec<u8>) { todo!() }
    /// Ends the stream: our header if none was sent (RFC 6120 §4.9.1.1), the error, the close tag. Writes nothing
    /// between `<proceed/>` and `tls_up`, and nothing after a close tag.
    pub fn fail(&mut self, fault: &StreamFault, out: &mut Vec<u8>) { todo!() }
    /// `</stream:stream>`, once. RFC 6120 §4.4.
    pub fn close(&mut self, out: &mut Vec<u8>) { todo!() }

    // ---- what is known ----

    /// Is an answer awaited? Then `next` takes nothing.
    pub fn is_waiting(&self) -> bool { todo!() }
    /// Our domain, once the header has named it.
    pub fn host(&self) -> Option<&str> { todo!() }
    /// Once authenticated.
    pub fn account(&self) -> Option<&BareJid> { todo!() }
    /// Once bound.
    pub fn jid(&self) -> Option<&FullJid> { todo!() }
    pub fn is_encrypted(&self) -> bool { todo!() }
    pub fn is_authenticated(&self) -> bool { todo!() }
    pub fn is_managed(&self) -> bool { todo!() }
    /// Was an `<r/>` sent that the client has not answered?
    pub fn awaits_ack(&self) -> bool { todo!() }
    /// Bytes held for a half-read element.
    pub fn held_bytes(&self) -> usize { todo!() }
    /// For `xmpp::write::write_stanza`.
    pub fn wire(&self) -> xmpp::write::Wire { todo!() }
}
