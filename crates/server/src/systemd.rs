//! systemd: readiness, reloads and the watchdog (`sd_notify`), sockets that it opened for us. Without systemd nothing
//! happens here.

use crate::config::ListenAddress;
use listenfd::ListenFd;
use sd_notify::NotifyState;
use std::net::TcpListener;
use std::time::Duration;

/// Serving; `status` is shown by `systemctl status`.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Reading the configuration again; say [`ready`] afterwards.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// Draining.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Alive; call it every [`watchdog`].
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How often the unit wants to hear [`alive`]: half its `WatchdogSec`.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|period| period / 2)
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

/// Sockets that systemd listens on for us (a `.socket` unit). Take them before there are threads.
#[derive(Debug, Default)]
pub struct Inherited(Vec<TcpListener>);

impl Inherited {
    pub fn take() -> Inherited {
        let mut passed = ListenFd::from_env();
        let sockets = (0..passed.len()).filter_map(|at| passed.take_tcp_listener(at).ok().flatten()).collect();
        Inherited(sockets)
    }

    /// Nothing was passed.
    pub fn none() -> Inherited {
        Inherited(Vec::new())
    }

    /// The socket that a listener of the configuration means: that of its port and, unless it listens everywhere, its
    /// address. Non-blocking.
    pub fn claim(&mut self, address: &ListenAddress) -> Option<TcpListener> {
        let at = self.0.iter().position(|socket| {
            socket.local_addr().is_ok_and(|local| match address {
                ListenAddress::Any(port) => local.port() == *port,
                ListenAddress::At(wanted) => local == *wanted,
            })
        })?;
        let socket = self.0.swap_remove(at);
        socket.set_nonblocking(true).ok()?;
        Some(socket)
    }

    /// What no listener claimed.
    pub fn unclaimed(&self) -> Vec<std::net::SocketAddr> {
        self.0.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }
}
