//! XML from outside: what is taken and refused, what is forwarded, and what an independent parser says to it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
mod forwarding;
mod oracle;
mod scanner;
