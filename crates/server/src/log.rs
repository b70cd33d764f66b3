//! Structured logs to standard error: lines for people, or JSON. Never a message's body, never a password.

use crate::config::{Log, LogFormat};
use std::io::IsTerminal;
use std::sync::OnceLock;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Starts logging; only the first call in a process counts.
pub fn start(log: &Log) {
    let (filter, handle) = reload::Layer::new(filter(log));
    let registry = tracing_subscriber::registry().with(filter);
    let started = match log.format {
        LogFormat::Json => {
            registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()
        }
        LogFormat::Human => {
            let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
            // The journal has its own clock.
            if std::env::var_os("JOURNAL_STREAM").is_some() {
                registry.with(lines.without_time()).try_init()
            } else {
                registry.with(lines).try_init()
            }
        }
    };
    if started.is_ok() {
        let _ = LEVEL.set(handle);
    }
}

/// Another level from now on. The level was checked when the configuration was read.
pub fn set_level(log: &Log) {
    if let Some(handle) = LEVEL.get()
        && let Err(error) = handle.reload(filter(log))
    {
        tracing::error!(%error, "the log level could not be changed");
    }
}

fn filter(log: &Log) -> EnvFilter {
    EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"))
}
