//! The scanner: an independent parser takes whatever it takes; pieces change nothing; what it gives means the same when
//! it is scanned again; it holds no more than a bound.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rxml::{Parse, Parser};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use xmpp::Element;
use xmpp::xml::{Frame, Limits, Scanner};

const HEADER: &[u8] = b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";

/// Counts what is allocated.
struct Counting;
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The elements, and whether all of it was taken.
fn scan(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
    let mut scanner = Scanner::new(Limits::SERVER);
    let mut out = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            match scanner.next(&mut rest) {
                Ok(Some(Frame::Element(raw))) => out.push(raw.bytes().to_vec()),
                Ok(Some(Frame::Header(_))) => {}
                Ok(Some(Frame::Close)) => return (out, true),
                Ok(None) => break,
                Err(_) => return (out, false),
            }
        }
    }
    (out, true)
}

fn oracle_takes(bytes: &[u8]) -> bool {
    let mut parser = Parser::default();
    let mut rest = bytes;
    loop {
        match parser.parse(&mut rest, true) {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let before = ALLOCATED.load(Relaxed);
    let whole = scan(&[HEADER, data]);
    let allocated = ALLOCATED.load(Relaxed) - before;
    assert!(allocated <= 8 * (data.len() + HEADER.len()) + 64 * 1024, "{allocated} bytes for {}", data.len());
    // In two pieces, and byte by byte.
    let at = data.first().map_or(0, |first| usize::from(*first) * data.len() / 256);
    assert_eq!(scan(&[HEADER, &data[..at], &data[at..]]), whole);
    if data.len() < 512 {
        let mut pieces = vec![HEADER];
        pieces.extend(data.chunks(1));
        assert_eq!(scan(&pieces), whole);
    }
    for bytes in &whole.0 {
        let mut wrapped = HEADER.to_vec();
        wrapped.extend_from_slice(bytes);
        wrapped.extend_from_slice(b"</stream:stream>");
        assert!(oracle_takes(&wrapped), "only we take {:?}", String::from_utf8_lossy(bytes));
        let element = Element::parse(bytes, "jabber:client").expect("it was taken once");
        let again = Element::parse(&element.to_bytes("jabber:client"), "jabber:client").expect("what we write we read");
        assert_eq!(element, again);
    }
});
