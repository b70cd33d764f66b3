//! Structured logs to standard error: lines for people, or JSON. Never a message's body, never a password.

use crate::config::{Log, LogFormat};
use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
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
        std::panic::set_hook(Box::new(panicked));
    }
}

static PANICS: AtomicU64 = AtomicU64::new(0);

/// How many panics there were in this process. Each hurt one account's sessions, or one stream, at most.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Counts a panic and says where it was. Its text is only said if it is a literal: else a part of a stanza may be in it.
fn panicked(panic: &PanicHookInfo<'_>) {
    PANICS.fetch_add(1, Ordering::Relaxed);
    let text = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(a text with values)");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let trace = std::backtrace::Backtrace::force_capture();
    tracing::error!(place, text, %trace, "a panic: this is a fault in waft, please report it");
}

/// Another level from now on. The level was checked when the configuration was read.
pub fn set_level(log: &Log) {
    if let Some(handle) = LEVEL.get()
        && let Err(error) = handle.reload(filter(log))
    {
        tracing::error!(%error, "the log level could not be changed");
    }
}

/// The level in effect.
pub fn level() -> String {
    let shown = LEVEL.get().and_then(|handle| handle.with_current(ToString::to_string).ok());
    shown.unwrap_or_default().replace("server", "waft")
}

/// # Errors
/// For people: it is none.
pub fn check_level(level: &str) -> Result<(), String> {
    let checked = EnvFilter::try_new(level.replace("waft", "server"));
    checked.map(drop).map_err(|error| {
        format!("\"{level}\" is no log level: {error}\nwrite error, warn, info, debug or trace, or waft=debug,info")
    })
}

fn filter(log: &Log) -> EnvFilter {
    // The library behind the binary has a name of its own.
    let level = log.level.replace("waft", "server");
    EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"))
}
