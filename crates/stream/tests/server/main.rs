//! Streams between servers, as transcripts: what one side says, what comes back, what happened.

#[path = "../client/fake.rs"]
mod fake;
mod harness;
mod incoming;
mod managed;
mod outgoing;
mod together;
