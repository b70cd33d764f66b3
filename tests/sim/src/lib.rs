//! Whole servers in one process: streams, accounts, router, store, federation, on a virtual clock, network and disk, all
//! driven from one seed. The same seed gives the same run, event for event.
//!
//! ```text
//! cargo xtask sim 1000                           many seeds
//! cargo run -p sim -- --seed 7 --log             one, with every event
//! ```
//!
//! - [`scene`]: what is there, what happens to it, and when it is looked at.
//! - [`pair`]: two servers and two users, for tests that look at one thing.
//! - [`node`]: a server and its machine. [`network`], [`disk`]: what it stands on.
//! - [`device`], [`stream`]: the clients. [`ledger`]: what they did and saw, and the checkers.
//! - [`random`]: numbers from the seed. [`planted`]: mistakes on purpose, which the checkers must find.

pub mod device;
pub mod disk;
pub mod ledger;
pub mod network;
pub mod node;
pub mod pair;
pub mod planted;
pub mod random;
pub mod scene;
pub mod stream;
