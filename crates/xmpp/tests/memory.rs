//! How much memory input takes, as the allocator counts it. LIMITS: at most eight times its bytes, and 64 KiB.

use xmpp::Stanza;
use xmpp::xml::{Frame, Limits, Scanner};

const HEADER: &str =
    "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";
const TIMES: u64 = 8;
const MORE: u64 = 64 << 10;

/// Small XML that other servers made large: (what it is, the bytes).
fn inputs() -> Vec<(&'static str, String)> {
    let many = |text: &str, times: usize| text.repeat(times);
    let attributes: String = (0..60).map(|n| format!(" a{n}='{n}'")).collect();
    let declarations: String = (0..15).map(|n| format!(" xmlns:p{n}='u{n}'")).collect();
    let deep = |depth: usize| format!("{}{}", many("<a>", depth), many("</a>", depth));
    vec![
        ("empty elements", format!("<message>{}</message>", many("<a/>", 9_900))),
        ("elements of other namespaces", format!("<message>{}</message>", many("<a xmlns='b'/>", 9_900))),
        ("prefixed elements", format!("<message><b xmlns:p='u'>{}</b></message>", many("<p:a/>", 9_900))),
        ("children with a prefix of the stanza", format!("<message xmlns:p='u'>{}</message>", many("<p:a/>", 250))),
        ("attributes", format!("<message>{}</message>", many(&format!("<a{attributes}/>"), 300))),
        ("declarations", format!("<message>{}</message>", many(&format!("<p0:a{declarations}/>"), 300))),
        ("references", format!("<message><body>{}</body></message>", many("&lt;", 60_000))),
        ("references in an attribute", format!("<message id='{}'/>", many("&#x27;", 5_000))),
        ("texts between elements", format!("<message>{}</message>", many("x<a/>", 9_900))),
        ("depth", format!("<message>{}</message>", many(&deep(60), 150))),
        ("children of several names", format!("<message>{}</message>", many("<a/><b c='d'/><e>f</e>", 3_200))),
        ("one text", format!("<message><body>{}</body></message>", many("x", 250_000))),
        ("carriage returns", format!("<message><body>{}</body></message>", many("\r\n", 60_000))),
        ("sections", format!("<message><body>{}</body></message>", many("<![CDATA[<]]>", 9_000))),
    ]
}

/// The most that was in use at a time while this was done.
fn peak(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).bytes_max
}

fn read(scanner: &mut Scanner, mut input: &[u8], frames: &mut usize) {
    while let Ok(Some(frame)) = scanner.next(&mut input) {
        if let Frame::Element(raw) = frame {
            *frames += 1;
            // As a stream does with it.
            drop(Stanza::from_raw(raw));
        }
    }
}

#[track_caller]
fn stays_in_proportion(what: &str, input: &str, piece: usize) {
    let mut scanner = Scanner::new(Limits::CLIENT);
    let mut frames = 0;
    read(&mut scanner, HEADER.as_bytes(), &mut frames);
    let bytes = peak(|| input.as_bytes().chunks(piece).for_each(|piece| read(&mut scanner, piece, &mut frames)));
    assert_eq!(frames, 1, "{what} is a stanza within the limits");
    let most = TIMES * input.len() as u64 + MORE;
    assert!(bytes <= most, "{what}: {} bytes took {bytes}, in pieces of {piece}", input.len());
}

#[test]
fn row_38_memory_stays_in_proportion_to_what_comes_at_once() {
    for (what, input) in inputs() {
        stays_in_proportion(what, &input, input.len());
    }
}

#[test]
fn row_38_memory_stays_in_proportion_to_what_comes_in_pieces() {
    for (what, input) in inputs() {
        stays_in_proportion(what, &input, 1_000);
    }
}

// What a stranger may send, held open and never ended.
#[test]
fn row_2_elements_of_a_stranger_cost_no_more_than_their_bytes_say() {
    let half = format!("<a>{}", "<a/>".repeat(30));
    let mut scanner = Scanner::new(Limits::BEFORE_AUTH);
    let mut frames = 0;
    read(&mut scanner, HEADER.as_bytes(), &mut frames);
    let bytes = peak(|| read(&mut scanner, half.as_bytes(), &mut frames));
    assert!(bytes <= TIMES * half.len() as u64 + 4_096, "{} bytes took {bytes}", half.len());
}

// A tree is built of what a module reads, and of nothing larger than a stanza may be.
#[test]
fn row_38_a_tree_of_the_largest_stanza_is_bounded() {
    for (what, input) in inputs() {
        let stanza = Stanza::parse(input.as_bytes()).unwrap_or_else(|fault| panic!("{what}: {fault:?}"));
        let bytes = peak(|| stanza.payload.children().for_each(|child| drop(child.to_element())));
        assert!(bytes <= 8 << 20, "{what}: {bytes} bytes");
    }
}
