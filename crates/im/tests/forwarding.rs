//! On the way of a message whose payload no module reads no tree is built, and the payload is copied once: from what
//! was read into a buffer of its own. DESIGN.md D3. What the log keeps is a copy more for each of the two accounts.

use im::{Account, Attach, EdgeItem, EdgeRef, Effect, Effects, HostPolicy, Ingress, Item, Now, SessionId, Ticket};
use std::sync::Arc;
use store::AccountRecord;
use xmpp::write::{Additions, Wire, write_stanza};
use xmpp::xml::{Frame, Limits, Scanner};
use xmpp::{BareJid, PresenceType, Stamp, Stanza};

const HEADER: &str =
    "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";
const NOW: Now = Now { utc: Stamp(1_767_225_600_000_000), mono_ms: 1_000 };

/// An account with one available resource, and that resource's session.
fn available(jid: &str, archive: bool) -> (Account, SessionId) {
    let jid = BareJid::parse(jid).expect("a bare JID");
    let mut policy = HostPolicy::of(jid.domain_jid());
    policy.archive = archive;
    let mut account = Account::new(jid, Arc::new(policy), 1, AccountRecord::default());
    account.offer_key([7; 32]);
    let attach = Attach {
        edge: EdgeRef(1),
        resource: Some("here".into()),
        seed: 1,
        client: None,
        bind2: false,
        carbons: false,
        inactive: false,
        management: None,
        stream: 1,
        roles: im::roles::Roles::ALL,
        secure: true,
    };
    let session = step(&mut account, Item::Attach(attach))
        .into_iter()
        .find_map(|effect| match effect {
            Effect::Edge { item: EdgeItem::Attached { session, .. }, .. } => Some(session),
            _ => None,
        })
        .expect("the resource is bound");
    let presence = Arc::new(Stanza::presence(PresenceType::Available));
    let ingress = Ingress { stream: 1, ordinal: 1 };
    step(&mut account, Item::FromClient { session, stanza: presence, ingress, ticket: Ticket::default() });
    (account, session)
}

fn step(account: &mut Account, item: Item) -> Vec<Effect> {
    let mut fx = Effects::default();
    account.step(item, NOW, &mut fx);
    fx.list
}

fn read(scanner: &mut Scanner, mut input: &[u8]) -> Stanza {
    loop {
        match scanner.next(&mut input).expect("well-formed") {
            Some(Frame::Element(raw)) => return Stanza::from_raw(raw).unwrap_or_else(|fault| panic!("{fault:?}")),
            Some(_) => {}
            None => panic!("no whole stanza"),
        }
    }
}

/// A message with so many elements that nobody here reads.
fn message(elements: usize) -> String {
    let inside = "<i n='1'>some text &amp; more</i><j/>".repeat(elements);
    format!("<message to='juliet@capulet.example' type='chat' id='m'><x xmlns='urn:example:x'>{inside}</x></message>")
}

/// The way of one message: read, OUTBOUND of romeo, INBOUND of juliet, written. What the heap gave meanwhile: how often
/// and how many bytes.
fn way(elements: usize, archive: bool) -> (u64, u64) {
    let (mut romeo, session) = available("romeo@montague.example", archive);
    let (mut juliet, _) = available("juliet@capulet.example", archive);
    let text = message(elements);
    let mut scanner = Scanner::new(Limits::CLIENT);
    let mut header = HEADER.as_bytes();
    scanner.next(&mut header).expect("a header");
    // The buffer of a connection is there before.
    let mut out: Vec<u8> = Vec::with_capacity(text.len() + 1_000);
    let (mut before, mut behind) = (None, None);
    let taken = allocation_counter::measure(|| {
        let stanza = read(&mut scanner, text.as_bytes());
        before = Some(stanza.payload.bytes().as_ptr());
        let ingress = Ingress { stream: 1, ordinal: 2 };
        let item = Item::FromClient { session, stanza: Arc::new(stanza), ingress, ticket: Ticket::default() };
        for effect in step(&mut romeo, item) {
            let Effect::Tell { to, stanza, ingress, ticket } = effect else { continue };
            for effect in step(&mut juliet, Item::Inbound { stanza, to, ingress, ticket }) {
                let Effect::Edge { item: EdgeItem::Deliver { delivery, .. }, .. } = effect else { continue };
                behind = Some(delivery.stanza.payload.bytes().as_ptr());
                write_stanza(&mut out, &delivery.stanza, delivery.to.as_ref(), &Additions::default(), Wire::Client);
            }
        }
    });
    assert!(behind.is_some() && behind == before, "what is written is the buffer that the scanner made");
    let inside = &text[text.find("<x ").expect("a payload")..text.find("</message>").expect("an end")];
    let written = String::from_utf8(out).expect("UTF-8");
    assert!(written.starts_with("<message ") && written.contains(inside), "it comes as it went");
    (taken.count_total, taken.bytes_total)
}

const FEW: usize = 1;
const MANY: usize = 2_000;

fn difference() -> u64 {
    (message(MANY).len() - message(FEW).len()) as u64
}

#[test]
fn a_payload_that_nobody_reads_is_copied_once_and_never_made_a_tree() {
    let ((few, small), (many, large)) = (way(FEW, false), way(MANY, false));
    assert!(many <= few + 2, "{many} allocations for {MANY} elements, {few} for {FEW}");
    assert!(large - small <= difference() + 1_024, "{} bytes more were taken for {} more", large - small, difference());
}

#[test]
fn each_of_two_logs_takes_one_copy_more() {
    let ((few, small), (many, large)) = (way(FEW, true), way(MANY, true));
    assert!(many <= few + 2, "{many} allocations for {MANY} elements, {few} for {FEW}");
    assert!(
        large - small <= 3 * difference() + 4_096,
        "{} bytes more were taken for {} more",
        large - small,
        difference()
    );
}
