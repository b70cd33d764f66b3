//! Dialback by its model: an incoming stream speaks for exactly the pairs that were verified when it had asked for that,
//! and an outgoing one for those that were answered `valid` when it had asked.
#![no_main]

#[path = "common.rs"]
mod common;

use libfuzzer_sys::fuzz_target;
use std::collections::BTreeSet;
use std::sync::Arc;
use stream::server::{InEvent, IncomingStream, OutEvent, OutgoingStream, ServerConfig};
use stream::{Pair, Tls, Verdict};

const DOMAINS: [&str; 5] = ["a.example", "b.example", "c.example", "A.example", "x y"];
const HEADER: &str = "<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' version='1.0' \
                      xmlns:stream='http://etherx.jabber.org/streams' from='b.example' to='a.example' id='i'>";
const FEATURES: &str = "<stream:features><dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback>\
                        </stream:features>";

/// Three bytes say one element.
fn said(bytes: &[u8]) -> String {
    let name = if bytes[0] & 1 == 0 { "result" } else { "verify" };
    let kind = ["", " type='valid'", " type='invalid'", " type='error'"][usize::from(bytes[0] >> 1 & 3)];
    let domain = |at: u8| DOMAINS[usize::from(at) % DOMAINS.len()];
    let id = if bytes[0] & 8 == 0 { "" } else { " id='i'" };
    format!("<db:{name} from='{}' to='{}'{id}{kind}>key</db:{name}>", domain(bytes[1]), domain(bytes[2]))
}

fn config() -> Arc<ServerConfig> {
    Arc::new(ServerConfig {
        hosts: ["a.example".into(), "c.example".into()].into(),
        tls: Tls::Direct,
        secret: b"secret".to_vec(),
        ..ServerConfig::default()
    })
}

fn incoming(data: &[u8]) {
    let mut out = Vec::new();
    let mut stream = IncomingStream::new(config(), Arc::new(common::Quick));
    stream.tls_up(None);
    let mut asked: BTreeSet<Pair> = BTreeSet::new();
    let mut proved: BTreeSet<Pair> = BTreeSet::new();
    let mut header = HEADER.as_bytes();
    while let Ok(Some(_)) = stream.next(&mut header, &mut out) {}
    for bytes in data.chunks_exact(4).take(64) {
        // The fourth byte answers what is asked, or answers what nobody asked.
        let pair = Pair::new(DOMAINS[usize::from(bytes[1]) % 3], DOMAINS[usize::from(bytes[2]) % 3]);
        if bytes[3] & 1 == 1 {
            let verdict = if bytes[3] & 2 == 2 { Verdict::Valid } else { Verdict::Invalid };
            stream.dialback(&pair, verdict, &mut out);
            if asked.remove(&pair) && verdict == Verdict::Valid {
                proved.insert(pair);
            }
        }
        let text = said(bytes);
        let mut rest = text.as_bytes();
        loop {
            match stream.next(&mut rest, &mut out) {
                Ok(Some(InEvent::Dialback { pair, .. })) => {
                    asked.insert(pair);
                }
                Ok(Some(InEvent::Stanza(_))) => panic!("nobody said one"),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(fault) => return stream.fail(&fault, &mut out),
            }
            assert!(stream.verifications() <= 8, "too many are verified at once");
        }
        let now: BTreeSet<Pair> = stream.pairs().cloned().collect();
        assert!(now.is_subset(&proved), "{now:?} but {proved:?}");
    }
}

fn outgoing(data: &[u8]) {
    let mut out = Vec::new();
    let first = Pair::new("a.example", "b.example");
    let mut stream = OutgoingStream::new(config(), Arc::new(common::Quick), first.clone(), false);
    stream.start(&mut out);
    let mut asked = BTreeSet::new();
    let mut begin = [HEADER, FEATURES].concat().into_bytes();
    begin.extend(data.chunks_exact(4).take(64).flat_map(|bytes| said(bytes).into_bytes()));
    let mut rest = begin.as_slice();
    loop {
        match stream.next(&mut rest, &mut out) {
            Ok(Some(OutEvent::Authenticated(pair))) => assert!(asked.contains(&pair), "{pair:?} was not asked for"),
            Ok(Some(OutEvent::Ready)) => {
                asked.insert(first.clone());
                stream.authenticate(&mut out);
            }
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(fault) => return stream.fail(&fault, &mut out),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    incoming(data);
    outgoing(data);
});
