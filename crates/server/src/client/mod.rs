//! `waft client`: a small XMPP client, for scripts and for a first look.
//!
//! - [`trust`]: whose certificates count. [`wire`]: the socket, plain and TLS, and the frames on it.
//! - [`login`]: from a connection to a bound resource. [`scram`]: the client's side of SCRAM.
//! - [`action`]: send, watch, probe; and what is printed. [`presence`]: fetch, publish, subscribe, who watches.
//!
//! It speaks to a server as any client does: STARTTLS or direct TLS, SASL, resource binding, stream management.

pub mod action;
pub mod login;
pub mod presence;
pub mod scram;
pub mod trust;
pub mod wire;

use crate::cli;
use crate::commands::{Failure, password};
use std::time::Duration;

/// How long connecting, and each answer while logging in, may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Does what the command line says.
pub fn client(arguments: &cli::Client) -> Result<(), Failure> {
    if arguments.jid.local().is_none() {
        return Err(Failure::Said(format!("\"{}\" is no account: write it as alice@example.org", arguments.jid)));
    }
    let password = password::existing(arguments.jid.to_bare().as_str(), arguments.password_stdin)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::said)?;
    runtime.block_on(async {
        let mut session = login::login(arguments, &password).await?;
        drop(password);
        let done = action::run(&mut session, &arguments.action, arguments.json).await;
        session.end().await;
        done
    })
}
