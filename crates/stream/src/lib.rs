//! One XMPP stream, without I/O: bytes in, events out, bytes to write. RFC 6120 §4 to §7.
//!
//! This crate knows no socket, no clock and no store. What needs one of them becomes an [`Event`]; the caller does
//! it and calls the method that the event names. Randomness and hashes come through [`Crypto`].
//!
//! - [`client`]: a client's stream, seen from the server: the states between header and close.
//! - [`server`]: the streams between servers, in both roles. [`component`]: those of external components.
//! - [`event`]: what a stream asks and tells, and the types of the answers.
//! - [`config`]: what a listener offers: hosts, mechanisms, limits.
//! - `frame`: headers, errors and closing tags, shared by all kinds of stream.
//! - `features`: what is offered after a header.
//! - [`sasl`]: mechanisms and the two profiles that carry them (RFC 6120 §6, XEP-0388).
//! - `management`: counting and acknowledging, XEP-0198.
//! - `register`: an account before there is one, XEP-0077.
//! - [`password`]: passwords and the keys that prove them.
//! - [`crypto`]: what the caller's crypto library does for us.
//!
//! What this crate does *not* know: accounts, rosters, routing, who may speak to whom.

pub mod client;
pub mod component;
pub mod config;
pub mod crypto;
pub mod event;
mod features;
mod frame;
mod management;
pub mod password;
mod register;
pub mod sasl;
pub mod server;

pub use client::ClientStream;
pub use component::{ComponentConfig, ComponentEvent, ComponentStream};
pub use config::{Config, Fast, Framing, HostAuth, Tls};
pub use crypto::{Crypto, Hash};
pub use event::{
    Account, AuthFailed, Authenticated, BindRequest, Bound, CheckPassword, ClientCert, Event, Lookup, ManageRequest,
    Managed, Registration, ResumeRequest, Secret, TlsInfo, Token, UserAgent,
};
pub use management::Counting;
pub use password::{ScramKeys, prepare_password, scram_keys, verify_plain};
pub use sasl::{Condition, Mechanism};
pub use server::{IncomingStream, OutgoingStream, Pair, PeerCertificate, ServerConfig, Verdict, Verify};

/// So that the tests' crypto can be written once, for the inside and the outside.
#[cfg(test)]
extern crate self as stream;
#[cfg(test)]
#[path = "../tests/client/fake.rs"]
mod fake;
