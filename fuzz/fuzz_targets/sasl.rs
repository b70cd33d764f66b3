//! SASL of clients, both profiles: whoever is let in is who was looked up, and no mechanism that was not offered works.
#![no_main]

#[path = "common.rs"]
mod common;

use libfuzzer_sys::fuzz_target;
use std::collections::HashMap;
use std::sync::Arc;
use stream::{ClientStream, Config, Crypto, Event, Hash, HostAuth, Tls, TlsInfo};
use xmpp::Stamp;

const MECHANISMS: [&str; 8] = [
    "PLAIN",
    "SCRAM-SHA-1",
    "SCRAM-SHA-256",
    "SCRAM-SHA-256-PLUS",
    "EXTERNAL",
    "ANONYMOUS",
    "HT-SHA-256-NONE",
    "X-UNKNOWN",
];

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, byte| n << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let letter = char::from(LETTERS[(n >> (18 - 6 * i) & 63) as usize]);
            out.push(if i <= chunk.len() { letter } else { '=' });
        }
    }
    out
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    let config = Config {
        hosts: HashMap::from([("a.example".into(), HostAuth::default())]),
        default_host: Some("a.example".into()),
        tls: Tls::Direct,
        secret: b"secret".to_vec(),
        ..Config::default()
    };
    let crypto = Arc::new(common::Quick);
    let mut stream = ClientStream::new(Arc::new(config), crypto.clone());
    stream.tls_up(TlsInfo::default());
    let mut out = Vec::new();
    let sasl2 = choice & 0x80 != 0;
    let mechanism = MECHANISMS[usize::from(choice & 7)];
    let mut pieces = data.split(|byte| *byte == 0xff).take(8);
    let first = pieces.next().unwrap_or_default();
    let begin = match sasl2 {
        false => {
            format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{}</auth>", base64(first))
        }
        true => format!(
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'><initial-response>{}</initial-response>\
             </authenticate>",
            base64(first)
        ),
    };
    let header = "<stream:stream to='a.example' version='1.0' xmlns='jabber:client' \
                  xmlns:stream='http://etherx.jabber.org/streams'>";
    let mut says = vec![header.to_owned(), begin];
    says.extend(pieces.map(|piece| {
        let ns = if sasl2 { "urn:xmpp:sasl:2" } else { "urn:ietf:params:xml:ns:xmpp-sasl" };
        format!("<response xmlns='{ns}'>{}</response>", base64(piece))
    }));
    let mut looked_up = None;
    for text in says {
        let mut rest = text.as_bytes();
        loop {
            match stream.next(&mut rest, &mut out) {
                Ok(Some(Event::Lookup(lookup))) => {
                    let known = lookup.account.as_str().starts_with('u');
                    looked_up = Some(lookup.account);
                    let keys = |hash: Hash| stream::ScramKeys {
                        salt: b"salt".to_vec(),
                        iterations: 4096,
                        stored_key: crypto.digest(hash, b"stored"),
                        server_key: crypto.digest(hash, b"server"),
                    };
                    let account = stream::Account {
                        scram_sha1: Some(keys(Hash::Sha1)),
                        scram_sha256: Some(keys(Hash::Sha256)),
                        disabled: choice & 0x40 != 0,
                        ..stream::Account::default()
                    };
                    stream.looked_up(known.then_some(account), Stamp(0), &mut out);
                }
                // The hashes of this target are no obstacle: the password is right when the input says so.
                Ok(Some(Event::CheckPassword(_))) => stream.password_checked(choice & 0x20 != 0, &mut out),
                Ok(Some(Event::Authenticated(who))) => {
                    assert_eq!(Some(&who.account), looked_up.as_ref(), "somebody else was let in");
                    assert!(choice & 0x40 == 0, "a disabled account was let in");
                    assert!(MECHANISMS[..3].contains(&mechanism), "{mechanism} was not offered");
                }
                Ok(Some(_)) if stream.is_waiting() => return,
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(fault) => return stream.fail(&fault, &mut out),
            }
        }
        assert!(stream.held_bytes() <= 256 * 1024);
    }
});
