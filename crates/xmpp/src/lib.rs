//! The language of XMPP, without I/O, without C, without a runtime.
//!
//! - [`jid`]: addresses (RFC 7622): [`Jid`], [`BareJid`], [`FullJid`].
//! - [`xml`]: from bytes to elements: the scanner, its limits, and the small tree that modules read.
//! - [`stanza`]: message, presence and iq: the start tag parsed, the payload left as it came.
//! - [`write`]: from stanzas to bytes, for each kind of stream.
//! - [`error`]: stanza errors (RFC 6120 §8.3) and stream errors (RFC 6120 §4.9).
//! - [`ns`]: the namespaces that more than one module speaks.
//! - [`stamp`]: UTC times as XEP-0082 writes them.
//! - [`planted`]: mistakes on purpose, for the simulator to find; none without its feature.

pub mod error;
pub mod jid;
pub mod ns;
pub mod planted;
pub mod stamp;
pub mod stanza;
pub mod write;
pub mod xml;

pub use error::{StanzaCondition, StanzaError, StreamCondition, StreamFault};
pub use jid::{BareJid, FullJid, Jid, JidError};
pub use stamp::Stamp;
pub use stanza::{IqType, Kind, MessageType, Payload, PresenceType, Stanza, StanzaType};
pub use xml::Element;
