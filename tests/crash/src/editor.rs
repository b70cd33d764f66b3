//! One who changes what is kept of an account: roster, block list, private XML, card. One change after the other.

use crate::PASSWORD;
use crate::client::Client;
use crate::cycles::Trap;
use crate::ledger::{Ledger, Wrong};
use crate::random::Random;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use xmpp::Element;

const ROSTER: &str = "jabber:iq:roster";
const BLOCKING: &str = "urn:xmpp:blocking";
const PRIVATE: &str = "jabber:iq:private";
const CARD: &str = "vcard-temp";
/// Different things of each kind.
const KEYS: u64 = 20;

pub struct Editor {
    name: &'static str,
    kinds: &'static [&'static str],
    random: Random,
    count: u64,
    /// The disk fails: an error is an answer too, and then nothing was set.
    pub may_be_refused: bool,
    pub wrong: Vec<Wrong>,
}

impl Editor {
    pub fn new(name: &'static str, kinds: &'static [&'static str], seed: u64, stream: u64) -> Editor {
        Editor { name, kinds, random: Random::new(seed, stream), count: 0, may_be_refused: false, wrong: Vec::new() }
    }

    /// Sets values until the server is no more.
    pub fn run(&mut self, address: SocketAddr, ledger: &Ledger, trap: &Trap<'_>) -> io::Result<()> {
        let mut client = Client::login(address, self.name, PASSWORD)?;
        client.bind("editor", false)?;
        loop {
            self.count += 1;
            let kind = self.kinds[self.random.below(self.kinds.len() as u64) as usize];
            let key = format!("k{}", if kind == "card" { 0 } else { self.random.below(KEYS) });
            let n = self.count;
            let value = match kind {
                "block" if self.random.one_in(2) => String::new(),
                "block" => "blocked".to_owned(),
                "roster" if self.random.one_in(4) => String::new(),
                _ => format!("value {n}"),
            };
            let content = match (kind, value.as_str()) {
                ("roster", "") => {
                    format!("<query xmlns='{ROSTER}'><item jid='{key}@localhost' subscription='remove'/></query>")
                }
                ("roster", _) => {
                    format!("<query xmlns='{ROSTER}'><item jid='{key}@localhost' name='{value}'/></query>")
                }
                ("block", "") => format!("<unblock xmlns='{BLOCKING}'><item jid='{key}@localhost'/></unblock>"),
                ("block", _) => format!("<block xmlns='{BLOCKING}'><item jid='{key}@localhost'/></block>"),
                ("private", _) => format!("<query xmlns='{PRIVATE}'><note xmlns='crash:{key}'>{value}</note></query>"),
                _ => format!("<vCard xmlns='{CARD}'><NOTE>{value}</NOTE></vCard>"),
            };
            ledger.intend_value(kind, &key, &value)?;
            let answer = client.ask(&format!("<iq type='set' id='e{n}'>{content}</iq>"), &format!("e{n}"), |_| {})?;
            if answer.attribute("type") == Some("result") {
                trap.spring();
                ledger.ack_value(kind, &key, &value)?;
            } else if self.may_be_refused && !is_missing(&answer) {
                ledger.refuse_value(kind, &key, &value)?;
            } else if !(kind == "roster" && value.is_empty()) {
                // Removing what is not there is an error, rightly.
                self.wrong.push(Wrong::Lost(format!("{kind} {key} was not set: {answer:?}")));
            }
        }
    }

    /// Reads everything and compares.
    pub fn look(&mut self, address: SocketAddr, ledger: &Ledger) -> io::Result<()> {
        let mut client = Client::login(address, self.name, PASSWORD)?;
        client.bind("look", false)?;
        for kind in self.kinds {
            let mut found: BTreeMap<String, String> = BTreeMap::new();
            let mut ask = |content: &str| {
                self.count += 1;
                let id = format!("l{}", self.count);
                client.ask(&format!("<iq type='get' id='{id}'>{content}</iq>"), &id, |_| {})
            };
            match *kind {
                "roster" => {
                    let answer = ask(&format!("<query xmlns='{ROSTER}'/>"))?;
                    for item in answer.find("query", ROSTER).into_iter().flat_map(Element::elements) {
                        found.insert(key_of(item), item.attribute("name").unwrap_or_default().to_owned());
                    }
                }
                "block" => {
                    let answer = ask(&format!("<blocklist xmlns='{BLOCKING}'/>"))?;
                    for item in answer.find("blocklist", BLOCKING).into_iter().flat_map(Element::elements) {
                        found.insert(key_of(item), "blocked".to_owned());
                    }
                }
                "private" => {
                    for key in (0..KEYS).map(|k| format!("k{k}")) {
                        let ns = format!("crash:{key}");
                        let answer = ask(&format!("<query xmlns='{PRIVATE}'><note xmlns='{ns}'/></query>"))?;
                        let note = answer.find("query", PRIVATE).and_then(|query| query.find("note", &ns));
                        if let Some(text) = note.map(Element::text_content).filter(|text| !text.is_empty()) {
                            found.insert(key, text);
                        }
                    }
                }
                _ => {
                    let answer = ask(&format!("<vCard xmlns='{CARD}'/>"))?;
                    let note = answer.find("vCard", CARD).and_then(|card| card.find("NOTE", CARD));
                    found.extend(note.map(|note| ("k0".to_owned(), note.text_content())));
                }
            }
            self.wrong.extend(ledger.check_values(kind, &found));
        }
        client.end(|_| {})
    }
}

/// Is it the error that there is no such thing?
fn is_missing(answer: &Element) -> bool {
    let mut errors = answer.elements().filter(|child| *child.name == *"error");
    errors.any(|error| error.elements().any(|condition| *condition.name == *"item-not-found"))
}

/// The localpart of an item's JID.
fn key_of(item: &Element) -> String {
    let jid = item.attribute("jid").unwrap_or_default();
    jid.split('@').next().unwrap_or_default().to_owned()
}
