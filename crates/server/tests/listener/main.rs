//! Tests through the real listener: the real binary, real sockets, bytes as a client writes them.
//!
//! - [`server`]: starts it; [`client`]: speaks to it.
//! - `sasl`, `sasl2`, `register`: how a stream is authenticated. RFC 6120 §6, XEP-0388, XEP-0077.
//! - `notices`: what an operator tells users once.
//! - `old_keys`: accounts that came with SCRAM-SHA-1 alone.
//! - `streams`, `sessions`, `management`: headers, errors, binding, XEP-0198.
//! - `transcripts`: a table of conditions and mechanisms, each with its test.
//! - `forwarding`: what a client sends comes out right at the other. RFC 6120 §4.8, §8.
//! - `bounds_before`, `bounds_after`, `bounds_of_time`, `bounds_of_addresses`, `queues`: every limit, tripped.
//!   `bounds_counted`: and counted.
//! - `components`: services of their own domains, XEP-0114.
//! - `presence_lasting`: fetch, tuples, watchers, leases, roles, the four operation sets.
//! - `model`: grants, spheres, pseudonyms, copies and leases, over restarts. RFC 2778.
//! - `rules`: access rules, between two domains. RFC 2779.
//! - `security`: what broke other servers. See docs/security.md.
//! - `draft`: what the architecture says of two domains, item by item.
//! - `federation`: servers of other domains; [`peer`]: one that says what it is told to.
//! - `many`: very many contacts. `life`: start, reload, end.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod client;
mod peer;
mod server;

mod bounds_after;
mod bounds_before;
mod bounds_counted;
mod bounds_of_addresses;
mod bounds_of_time;
mod components;
mod draft;
mod federation;
mod forwarding;
mod life;
mod management;
mod many;
mod metrics;
mod model;
mod notices;
mod old_keys;
mod presence_lasting;
mod proxied;
mod push;
mod queues;
mod register;
mod rules;
mod sasl;
mod sasl2;
mod security;
mod sessions;
mod streams;
mod transcripts;
