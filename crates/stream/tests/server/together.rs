//! Both sides, wired to each other.

use crate::harness::*;
use std::sync::Arc;
use stream::server::{InEvent, IncomingStream, OutEvent, OutgoingStream};
use stream::{Pair, PeerCertificate, ServerConfig, Tls, Verdict, Verify};

struct Wired {
    out: OutgoingStream,
    incoming: IncomingStream,
    /// On their way, not read yet.
    there: Vec<u8>,
    back: Vec<u8>,
    events: Vec<String>,
}

impl Wired {
    /// From capulet.example to montague.example; each side sees the other's certificate.
    fn new(of_capulet: Option<PeerCertificate>, of_montague: Option<PeerCertificate>) -> Wired {
        let here = ServerConfig { tls: Tls::Required, ..config() };
        let there = ServerConfig {
            hosts: [THERE.into()].into(),
            secret: b"of montague".to_vec(),
            tls: Tls::Required,
            ..ServerConfig::default()
        };
        let mut wired = Wired {
            out: OutgoingStream::new(Arc::new(here), crypto(), Pair::new(HERE, THERE), false),
            incoming: IncomingStream::new(Arc::new(there), crypto()),
            there: Vec::new(),
            back: Vec::new(),
            events: Vec::new(),
        };
        wired.out.start(&mut wired.there);
        wired.run(&of_capulet, &of_montague);
        wired
    }

    /// Carries bytes, one at a time, until nothing moves.
    fn run(&mut self, of_capulet: &Option<PeerCertificate>, of_montague: &Option<PeerCertificate>) {
        let mut tls = 0;
        loop {
            let (there, back) = (std::mem::take(&mut self.there), std::mem::take(&mut self.back));
            if there.is_empty() && back.is_empty() {
                return;
            }
            for byte in there {
                let mut input = &[byte][..];
                while let Some(event) = self.incoming.next(&mut input, &mut self.back).expect("all is in order") {
                    match event {
                        InEvent::StartTls => {
                            self.incoming.tls_up(of_capulet.clone());
                            tls += 1;
                        }
                        InEvent::External(_) => self.incoming.external(true, &mut self.back),
                        InEvent::Dialback { pair, key, id, certified } => {
                            // The authoritative server is asked on a stream of its own: here, a copy of ours.
                            let verdict = if certified { Verdict::Valid } else { ask(&pair, &id, &key) };
                            self.incoming.dialback(&pair, verdict, &mut self.back);
                            self.events.push(format!("dialback certified={certified}"));
                        }
                        InEvent::Authenticated(pair) => self.events.push(format!("in: {pair}")),
                        InEvent::Stanza(_) => self.events.push("in: stanza".into()),
                        other => panic!("unexpected {other:?}"),
                    }
                }
            }
            for byte in back {
                let mut input = &[byte][..];
                while let Some(event) = self.out.next(&mut input, &mut self.there).expect("all is in order") {
                    match event {
                        OutEvent::StartTls => {
                            self.out.tls_up(of_montague.clone(), &mut self.there);
                            tls += 1;
                        }
                        OutEvent::Ready => self.out.authenticate(&mut self.there),
                        OutEvent::Authenticated(pair) => {
                            self.events.push(format!("out: {pair}"));
                            self.there.extend(message("juliet@capulet.example", "romeo@montague.example").bytes());
                        }
                        other => panic!("unexpected {other:?}"),
                    }
                }
            }
            assert!(tls <= 2, "TLS is negotiated once");
        }
    }
}

/// capulet.example's own server, asked by montague.example's.
fn ask(pair: &Pair, id: &str, key: &str) -> Verdict {
    let mut authoritative = In::open(None);
    let mut asking = Out::new(config(), false);
    asking.stream.tls_up(None, &mut Vec::new());
    asking.stream.start(&mut Vec::new());
    asking.hears(&features(DIALBACK));
    let mut question = Vec::new();
    let verify = Verify { pair: pair.clone(), id: id.into(), key: key.into() };
    asking.stream.verify(verify, &mut question);
    let answer = authoritative.says(std::str::from_utf8(&question).expect("UTF-8"));
    asking.hears(&answer);
    if asking.last().ends_with("Valid") { Verdict::Valid } else { Verdict::Invalid }
}

const PAIR: &str = "capulet.example to montague.example";

#[test]
fn without_certificates_dialback_brings_a_stanza_over() {
    let wired = Wired::new(None, None);
    let expected =
        ["dialback certified=false".to_owned(), format!("in: {PAIR}"), format!("out: {PAIR}"), "in: stanza".into()];
    assert_eq!(wired.events, expected);
}

#[test]
fn with_certificates_external_does() {
    let wired = Wired::new(certificate(HERE), certificate(THERE));
    assert_eq!(wired.events, [format!("in: {PAIR}"), format!("out: {PAIR}"), "in: stanza".into()]);
    assert!(wired.out.is_bidirectional() && wired.incoming.is_bidirectional());
}
