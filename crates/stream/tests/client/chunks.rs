//! However the bytes are cut, the same happens.

use crate::fake::Fake;
use crate::harness::*;
use stream::Crypto;

/// All that a client says on one stream, in three acts.
fn conversation(chunk: impl Fn(&mut Peer)) -> (String, Vec<String>) {
    let mut peer = Peer::new(config());
    let mut said = String::new();
    let acts = [
        format!("{HEADER}{}", plain("romeo", "wrong")),
        format!("{}\n{HEADER}", plain("juliet", PASSWORD)),
        "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>balc\u{f3}n</resource></bind></iq>\
         <enable xmlns='urn:xmpp:sm:3' resume='1'/> <message to='romeo@montague.example'><body>\u{1f339} &amp; \
         &#x1f339;</body></message>\r\n<r xmlns='urn:xmpp:sm:3'/><message to='@'/><a xmlns='urn:xmpp:sm:3' h='0'/>\
         </stream:stream>"
            .to_owned(),
    ];
    for act in acts {
        chunk(&mut peer);
        said.push_str(&peer.says(&act));
    }
    assert_eq!(peer.fault, None);
    (said, peer.events)
}

#[test]
fn bytes_may_come_in_any_cut() {
    let whole = conversation(|peer| peer.chunk = usize::MAX);
    assert_eq!(whole.1.last().map(String::as_str), Some("Closed"));
    assert_eq!(whole.1.len(), 13, "{:?}", whole.1);
    for chunk in 1..80 {
        let cut = conversation(|peer| peer.chunk = chunk);
        assert_eq!(cut, whole, "in pieces of {chunk}");
    }
}

#[test]
fn random_bytes_never_break_the_stream() {
    let random = Fake::default();
    for round in 0..2000_u32 {
        let mut peer = match round % 3 {
            0 => Peer::new(config()),
            1 => Peer::new(config()).open(),
            _ => Peer::new(config()).bound(),
        };
        let mut bytes = [0; 64];
        random.random(&mut bytes);
        // Mostly markup, so that something is reached.
        let alphabet = b"<>/='\" ax:&;!?-[]auth\n";
        let noise: Vec<u8> = bytes.iter().map(|byte| alphabet[usize::from(*byte) % alphabet.len()]).collect();
        peer.chunk = 7;
        peer.says_bytes(&noise);
    }
}
