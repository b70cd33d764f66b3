//! A client's stream from outside: what is written, what happens, what ends it.

mod chunks;
mod fake;
mod fast;
mod flow;
mod harness;
mod header;
mod limits;
mod management;
mod register;
mod sasl;
mod sasl2;
mod scram;
mod session;
mod starttls;
mod websocket;
