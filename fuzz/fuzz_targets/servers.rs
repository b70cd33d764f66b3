//! Streams between servers and dialback, in both directions: nobody is authenticated by what he says alone.
#![no_main]

#[path = "common.rs"]
mod common;

use libfuzzer_sys::fuzz_target;
use std::sync::Arc;
use stream::server::{InEvent, IncomingStream, OutgoingStream, ServerConfig};
use stream::{Pair, Tls, Verdict};

fuzz_target!(|data: &[u8]| {
    let config = Arc::new(ServerConfig {
        hosts: ["a.example".into()].into(),
        tls: Tls::Direct,
        secret: b"secret".to_vec(),
        ..ServerConfig::default()
    });
    let mut out = Vec::new();
    let mut incoming = IncomingStream::new(config.clone(), Arc::new(common::Quick));
    incoming.tls_up(None);
    let mut rest = data;
    loop {
        match incoming.next(&mut rest, &mut out) {
            Ok(Some(InEvent::Dialback { pair, .. })) => {
                incoming.dialback(&pair, Verdict::Invalid, &mut out);
            }
            Ok(Some(InEvent::External(_))) => incoming.external(false, &mut out),
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(fault) => {
                incoming.fail(&fault, &mut out);
                break;
            }
        }
        assert_eq!(incoming.pairs().count(), 0);
        if incoming.is_waiting() {
            break;
        }
    }
    let pair = Pair::new("a.example", "b.example");
    let mut outgoing = OutgoingStream::new(config, Arc::new(common::Quick), pair, false);
    outgoing.start(&mut out);
    let mut rest = data;
    loop {
        match outgoing.next(&mut rest, &mut out) {
            Ok(Some(_)) if outgoing.is_waiting() => break,
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(fault) => {
                outgoing.fail(&fault, &mut out);
                break;
            }
        }
    }
});
