//! waft: the house itself: sockets, tasks, clock, configuration, administration.
//!
//! - [`cli`]: the command line; [`commands`]: what each command does, `serve` among them.
//! - [`config`]: the configuration; [`data`]: the data folder; [`certificates`]: certificates and TLS.
//! - [`crypto`]: hashes and randomness for `stream`; [`log`], [`signals`], [`systemd`]: what surrounds a server;
//!   [`stopping`]: the word that it ends.
//! - [`archives`]: one account's archive, for those who run the server.
//! - [`listen`], [`edge`], [`house`]: connections, streams, and the accounts behind them.
//! - [`s2s`]: streams between servers, and what waits for other domains.
//! - [`component`]: services of their own domains that connect to the server.
//! - [`world`]: the network, the clock, randomness: what may be simulated.
//! - [`invites`]: invitations, their tokens.
//! - [`metrics`]: figures and health, over [`http`]. [`latency`]: how long things take. [`watches`]: stanzas as they pass. [`acme`]: certificates of an authority, got and renewed.
//! - [`admin`]: commands to the running server, by a unix socket; [`client`]: the XMPP client of `waft client`.

pub mod acme;
mod admin;
mod archives;
mod audit;
pub mod certificates;
pub mod cli;
mod client;
pub mod commands;
pub mod component;
pub mod config;
pub mod crypto;
mod data;
pub mod edge;
pub mod house;
pub mod http;
pub mod invites;
pub mod latency;
mod limits_hit;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod s2s;
mod signals;
pub mod stopping;
pub mod systemd;
pub mod watches;
pub mod world;
