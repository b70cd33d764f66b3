//! A client's stream before authentication, SASL included: never a panic, never more held than the limits say.
#![no_main]

#[path = "common.rs"]
mod common;

use libfuzzer_sys::fuzz_target;
use std::collections::HashMap;
use std::sync::Arc;
use stream::{ClientStream, Config, HostAuth, Tls, TlsInfo};

fuzz_target!(|data: &[u8]| {
    let config = Config {
        hosts: HashMap::from([("a.example".into(), HostAuth::default())]),
        default_host: Some("a.example".into()),
        tls: Tls::Direct,
        secret: b"secret".to_vec(),
        ..Config::default()
    };
    let mut stream = ClientStream::new(Arc::new(config), Arc::new(common::Quick));
    stream.tls_up(TlsInfo::default());
    let mut out = Vec::new();
    for piece in data.chunks(97) {
        let mut rest = piece;
        loop {
            match stream.next(&mut rest, &mut out) {
                // The questions are never answered: the stream waits.
                Ok(Some(_)) if stream.is_waiting() => return,
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(fault) => return stream.fail(&fault, &mut out),
            }
        }
        assert!(stream.held_bytes() <= 256 * 1024);
        assert!(!stream.is_authenticated());
    }
});
