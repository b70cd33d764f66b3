//! What a server decides for an account, sans-IO: (account, item, now) → effects.
//!
//! Read in this order:
//! - [`item`]: what comes in: from a session's stream, from another entity, from the house.
//! - [`effects`]: what goes out, in order. Effects behind a [`effects::Effect::Commit`] wait for it.
//! - [`account`]: the state of one account and [`Account::step`], the only way to change it.
//! - [`ways`]: who comes before whom on the way of a stanza, OUTBOUND and INBOUND.
//! - [`session`], [`resume`]: connected resources; what a stream that broke leaves behind.
//! - [`archive_ids`]: positions of the log as clients know them.
//! - [`inbox`], [`messages`]: the log, pending marks, delivery rules (RFC 6121 §5, §8).
//! - [`readers`]: who has read the inbox by a grant.
//! - [`strangers`], [`retention`]: whom a session may write to; what leaves the log by age and size.
//! - [`roster`], [`subscription`], [`presence`], [`block`], [`rules`], [`view`]: who sees whom, and what of it (RFC 6121
//!   §2–§4, XEP-0191, RFC 5025).
//! - [`tuples`], [`pidf`], [`leases`], [`watchers`]: presence information as documents that last, subscriptions with a
//!   duration, and who watched (RFC 2778, RFC 3863, RFC 3858).
//! - [`pseudonyms`]: watching under another name.
//! - [`operations`], [`roles`]: presence and messages told apart; who plays which part (RFC 2778 §2).
//! - [`nodes`]: what an account publishes to itself (XEP-0163).
//! - [`host`]: the domain itself as an entity. [`module`], [`modules`]: extensions, one file each, with a card on top.
//!
//! This crate does no I/O, knows no stream, no task and no clock.

pub mod account;
pub mod archive_ids;
pub mod block;
pub mod capabilities;
pub mod doubts;
pub mod effects;
pub mod host;
pub mod inbox;
pub mod item;
pub mod late;
pub mod leases;
pub mod lost;
pub mod messages;
pub mod module;
pub mod modules;
pub mod nodes;
pub mod operations;
pub mod pidf;
pub mod policy;
pub mod presence;
pub mod pseudonyms;
pub mod readers;
pub mod resume;
pub mod retention;
pub mod roles;
pub mod roster;
#[cfg(test)]
mod rows;
pub mod rules;
pub mod session;
pub mod strangers;
pub mod subscription;
#[cfg(test)]
pub(crate) mod testing;
pub mod tuples;
pub mod view;
pub mod watchers;
pub mod ways;

pub use account::Account;
pub use effects::{Delivery, EdgeItem, Effect, Effects, Query, QueryAnswer, Then};
pub use host::Host;
pub use item::{Attach, DetachReason, EdgeRef, Ingress, Item, Now, SessionId, Ticket};
pub use policy::{HostPolicy, Limits};
