//! waft: the house itself: sockets, tasks, clock, configuration, administration.
//!
//! - [`cli`]: the command line; [`commands`]: what each command does, `serve` among them.
//! - [`config`]: the configuration; [`data`]: the data folder; [`certificates`]: certificates and TLS.
//! - [`crypto`]: hashes and randomness for `stream`; [`log`], [`signals`], [`systemd`]: what surrounds a server.
//! - [`listen`], [`edge`], [`house`]: connections, streams, and the accounts behind them.
//! - [`s2s`]: streams between servers, and what waits for other domains.
//! - [`admin`]: commands to the running server, by a unix socket; [`client`]: the XMPP client of `waft client`.

mod admin;
mod certificates;
mod cli;
mod client;
mod commands;
mod config;
mod crypto;
mod data;
mod edge;
mod house;
mod listen;
mod log;
mod s2s;
mod signals;
mod systemd;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    commands::run(clap::Parser::parse())
}
