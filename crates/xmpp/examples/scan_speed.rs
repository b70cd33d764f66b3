//! How long one stanza takes: scanned; scanned and read; scanned, read and written.
//!
//! `cargo run --release -p xmpp --example scan_speed`

use std::hint::black_box;
use std::time::Instant;
use xmpp::write::{Additions, Wire, write_stanza};
use xmpp::xml::{Frame, Limits, Scanner};
use xmpp::{Element, Stanza};

const HEADER: &[u8] = b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";

/// 316 bytes, as a chat client sends them.
const MESSAGE: &str = "<message from='juliet@capulet.example/balcony' to='romeo@montague.example' id='6e2c9e4a-7a5e' \
     type='chat'><body>Wherefore art thou, Romeo? Deny thy father</body><active xmlns='http://jabber.org/protocol/chatstates'/>\
     <origin-id xmlns='urn:xmpp:sid:0' id='6e2c9e4a-7a5e'/><request xmlns='urn:xmpp:receipts'/></message>";

fn main() {
    assert_eq!(MESSAGE.len(), 316);
    let one = vec![MESSAGE.to_owned()];
    let mixed: Vec<String> = (0..4096).map(mixed).collect();
    let large = vec![large()];
    println!(
        "{:<30} {:>6} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "ns a stanza, best of 7", "bytes", "MB/s", "scan", "+ read", "+ write", "tree"
    );
    for (name, stanzas) in [("message, always the same", &one), ("mixed, 4,096 distinct", &mixed), ("OMEMO", &large)] {
        // Enough for a few milliseconds a run.
        let rounds = (20_000 / stanzas.len()).max(1);
        let text: String = stanzas.concat();
        let input: Vec<u8> = text.as_bytes().repeat(rounds);
        let count = stanzas.len() * rounds;
        let bytes = text.len() as f64 / stanzas.len() as f64;
        let scan = best(count, || each(&input, |frame| drop(black_box(frame))));
        let read = best(count, || {
            each(&input, |frame| {
                if let Frame::Element(raw) = frame {
                    drop(black_box(Stanza::from_raw(raw)));
                }
            })
        });
        let mut out = Vec::with_capacity(8192);
        let write = best(count, || {
            each(&input, |frame| {
                let Frame::Element(raw) = frame else { return };
                if let Ok(stanza) = Stanza::from_raw(raw) {
                    out.clear();
                    write_stanza(&mut out, &stanza, None, &Additions::default(), Wire::Client);
                    black_box(&out);
                }
            })
        });
        let tree = best(stanzas.len() * 5, || {
            for stanza in stanzas.iter().cycle().take(stanzas.len() * 5) {
                let _ = black_box(Element::parse(stanza.as_bytes(), xmpp::ns::CLIENT));
            }
        });
        println!(
            "{name:<30} {bytes:>6.0} {:>9.0} {scan:>9.0} {read:>9.0} {write:>9.0} {tree:>9.0}",
            bytes * 1000.0 / scan
        );
    }
}

/// Nanoseconds for one of `count`.
fn best(count: usize, mut run: impl FnMut()) -> f64 {
    (0..7)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_nanos() as f64 / count as f64
        })
        .fold(f64::INFINITY, f64::min)
}

fn each(stanzas: &[u8], mut take: impl FnMut(Frame)) {
    let mut scanner = Scanner::new(Limits::CLIENT);
    let mut header = HEADER;
    scanner.next(&mut header).expect("a stream header");
    for mut input in stanzas.chunks(16 * 1024) {
        while let Some(frame) = scanner.next(&mut input).expect("well-formed stanzas") {
            take(frame);
        }
    }
}

/// Presence, iqs, chat states, marks and messages in the shares of an ordinary server.
fn mixed(i: usize) -> String {
    let hash = i.wrapping_mul(0x9E37_79B9).rotate_left(7) & 0xFFFF_FFFF;
    let words =
        ["thou", "art", "more", "lovely", "and", "temperate", "größer", "Rough", "winds", "&amp;", "do", "shake"];
    let body: String = (0..3 + hash % 17).map(|n| format!("{} ", words[(hash >> n) % words.len()])).collect();
    match i % 8 {
        0 => format!(
            "<presence><priority>{}</priority><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://client.example' ver='{hash:x}AAAAAAAAAAAAAAAAAA='/></presence>",
            hash % 100
        ),
        1 => format!(
            "<iq id='{hash:x}' type='get' to='user{}@example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
            hash % 1000
        ),
        2 => format!(
            "<message to='user{}@example.org/phone' type='chat' id='{hash:x}'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>",
            hash % 1000
        ),
        3 => format!("<iq id=\"{hash:x}\" type=\"result\" to=\"example.org\"/>"),
        4 => format!(
            "<message to='room{}@muc.example.org' type='groupchat' id='{hash:x}'><body>{body}</body><markable xmlns='urn:xmpp:chat-markers:0'/></message>",
            hash % 50
        ),
        5 => format!(
            "<iq id='{hash:x}' type='set'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:mood'><item id='current'><mood xmlns='http://jabber.org/protocol/mood'><happy/><text>{body}</text></mood></item></publish></pubsub></iq>"
        ),
        _ => format!(
            "<message to='user{}@example.org' type='chat' id='{hash:x}' xml:lang='en'><body>{body}</body><active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/><origin-id xmlns='urn:xmpp:sid:0' id='{hash:x}'/></message>",
            hash % 1000
        ),
    }
}

/// About 1.9 kB, most of it Base64.
fn large() -> String {
    let key =
        |n: usize| format!("<key rid='{}'>{}</key>", n * 7919, "MwohBTGcRfQ3gVb9aY2xk0LtE7ZyUuSjWm4oNpQh".repeat(5));
    let keys: String = (1..=6).map(key).collect();
    format!(
        "<message to='romeo@montague.example' type='chat' id='6e2c9e4a'><encrypted xmlns='eu.siacs.conversations.axolotl'>\
         <header sid='27183'>{keys}<iv>BASE64ENCODEDIV0</iv></header><payload>{}</payload></encrypted>\
         <encryption xmlns='urn:xmpp:eme:0' name='OMEMO' namespace='eu.siacs.conversations.axolotl'/><store xmlns='urn:xmpp:hints'/></message>",
        "QmFzZTY0U3R1ZmY".repeat(14)
    )
}
