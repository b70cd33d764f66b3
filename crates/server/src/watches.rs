//! `waft watch`: the stanzas of one session, account or domain as they pass, for an operator who looks for a mistake.
//! Markup is shown, what people wrote is not: texts are counted, attributes of no known meaning left out.

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;
use xmpp::write::{Additions, Wire, write_stanza};
use xmpp::xml::Node;
use xmpp::{Element, Jid, Stamp, Stanza, ns};

/// Who may watch at once.
pub const WATCHES_MAX: usize = 8;
/// Lines that wait for one who watches; what comes then is left out, and how much it was is said.
const LINES_MAX: usize = 1_000;
/// Bytes of one line; the rest is cut.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Elements within one another that are shown.
const DEPTH_MAX: usize = 16;

/// Where a stanza goes past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    FromClient,
    ToClient,
    FromServer,
    ToServer,
}

impl Way {
    pub fn arrow(self) -> &'static str {
        match self {
            Way::FromClient => "C>",
            Way::ToClient => "C<",
            Way::FromServer => "S>",
            Way::ToServer => "S<",
        }
    }
}

/// A stanza that was seen, or that some were not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// As XEP-0082 writes it.
    pub at: String,
    pub way: Way,
    /// The session, or the pair of domains.
    pub of: String,
    pub stanza: String,
    /// Lines before this one that were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

struct Watch {
    who: Jid,
    lines: mpsc::Sender<Line>,
    left_out: AtomicUsize,
}

#[derive(Default)]
pub struct Watches {
    /// Looked at for every stanza, and nothing else while it is 0.
    active: AtomicUsize,
    all: RwLock<Vec<Watch>>,
}

impl Watches {
    /// Watches until the receiver is dropped.
    ///
    /// # Errors
    /// For people: too many watch already.
    pub fn open(&self, who: Jid) -> Result<mpsc::Receiver<Line>, String> {
        let mut all = self.all.write();
        all.retain(|watch| !watch.lines.is_closed());
        if all.len() >= WATCHES_MAX {
            return Err(format!("{WATCHES_MAX} watch already"));
        }
        let (lines, seen) = mpsc::channel(LINES_MAX);
        all.push(Watch { who, lines, left_out: AtomicUsize::new(0) });
        self.active.store(all.len(), Ordering::Release);
        Ok(seen)
    }

    /// Does anybody watch at all?
    #[inline]
    pub fn any(&self) -> bool {
        self.active.load(Ordering::Relaxed) > 0
    }

    /// A stanza passes. `session`: whose stream it is on; of a link between servers: neither.
    pub fn see(&self, at: Stamp, way: Way, session: Option<&Jid>, stanza: &Stanza) {
        let all = self.all.read();
        let mut shown = None;
        let mut gone = false;
        for watch in all.iter() {
            let concerned = match session {
                Some(session) => covers(&watch.who, session),
                None => [&stanza.from, &stanza.to].into_iter().flatten().any(|it| covers(&watch.who, it)),
            };
            if !concerned {
                continue;
            }
            let line = shown.get_or_insert_with(|| Line {
                at: at.to_xmpp(),
                way,
                of: session.map_or_else(|| pair(stanza), ToString::to_string),
                stanza: redacted(stanza),
                left_out: 0,
            });
            let left_out = watch.left_out.load(Ordering::Relaxed);
            match watch.lines.try_send(Line { left_out, ..line.clone() }) {
                Ok(()) => watch.left_out.store(0, Ordering::Relaxed),
                Err(mpsc::error::TrySendError::Full(_)) => {
                    watch.left_out.fetch_add(1, Ordering::Relaxed);
                }
                Err(mpsc::error::TrySendError::Closed(_)) => gone = true,
            }
        }
        drop(all);
        if gone {
            self.sweep();
        }
    }

    /// Forgets those who went.
    pub fn sweep(&self) {
        let mut all = self.all.write();
        all.retain(|watch| !watch.lines.is_closed());
        self.active.store(all.len(), Ordering::Release);
    }
}

/// Is an address within what is watched: a full JID, an account, a domain?
fn covers(who: &Jid, address: &Jid) -> bool {
    if who.domain() != address.domain() {
        return false;
    }
    match (who.local(), who.is_bare()) {
        (None, true) => true,
        (Some(_), true) => who.to_bare() == address.to_bare(),
        (_, false) => who == address,
    }
}

fn pair(stanza: &Stanza) -> String {
    let domain = |jid: &Option<Jid>| jid.as_ref().map(|it| it.domain().to_owned()).unwrap_or_default();
    format!("{} {}", domain(&stanza.from), domain(&stanza.to))
}

/// Attributes whose values say nothing private; of others only that they are there.
const SHOWN: [&str; 22] = [
    "xmlns",
    "type",
    "id",
    "from",
    "to",
    "jid",
    "by",
    "node",
    "var",
    "stamp",
    "seconds",
    "h",
    "code",
    "lang",
    "ver",
    "hash",
    "subscription",
    "ask",
    "action",
    "status",
    "version",
    "queryid",
];
/// Elements whose texts say nothing private.
const TOLD: [&str; 3] = ["show", "priority", "max"];

/// The stanza as XML, without what people wrote.
fn redacted(stanza: &Stanza) -> String {
    let mut written = Vec::new();
    write_stanza(&mut written, stanza, None, &Additions::default(), Wire::Client);
    let Ok(whole) = Element::parse(&written, ns::CLIENT) else { return "(a stanza that cannot be shown)".into() };
    let mut out = String::new();
    element(&mut out, &whole, "", 0);
    if out.len() > LINE_BYTES_MAX {
        let mut end = LINE_BYTES_MAX;
        while !out.is_char_boundary(end) {
            end -= 1;
        }
        out.truncate(end);
        out.push('…');
    }
    out
}

fn element(out: &mut String, it: &Element, outer: &str, depth: usize) {
    if out.len() > LINE_BYTES_MAX {
        return;
    }
    let _ = write!(out, "<{}", it.name);
    if &*it.ns != outer && depth > 0 {
        let _ = write!(out, " xmlns='{}'", it.ns);
    }
    for (name, value) in &it.attributes {
        if SHOWN.contains(&&**name) {
            // (Quotes and markup in it would be read as ours.)
            let _ = write!(out, " {name}='{}'", value.replace(['\'', '<', '&', '\n'], "…"));
        } else {
            let _ = write!(out, " {name}='…'");
        }
    }
    if it.nodes.is_empty() {
        out.push_str("/>");
        return;
    }
    out.push('>');
    let mut bytes = 0;
    for child in &it.nodes {
        match child {
            Node::Text(text) if TOLD.contains(&&*it.name) => out.push_str(&text.replace(['<', '&'], "…")),
            Node::Text(text) => bytes += text.len(),
            Node::Element(_) if depth >= DEPTH_MAX => out.push('…'),
            Node::Element(child) => element(out, child, &it.ns, depth + 1),
        }
    }
    if bytes > 0 {
        let _ = write!(out, "[{bytes} bytes]");
    }
    let _ = write!(out, "</{}>", it.name);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> Jid {
        Jid::parse(text).expect("an address")
    }

    fn stanza(text: &str) -> Stanza {
        Stanza::parse(text.as_bytes()).unwrap_or_else(|fault| panic!("{fault:?}"))
    }

    const SECRET: &str = "<message from='romeo@montague.example/orchard' to='juliet@capulet.example' id='m1' type='chat'>\
        <body>art thou <b xmlns='urn:x'>not</b></body><x xmlns='urn:y' token='t0p' node='n'>secret</x></message>";

    #[test]
    fn texts_and_unknown_attributes_are_not_shown() {
        let shown = redacted(&stanza(SECRET));
        assert!(shown.contains("id='m1'") && shown.contains("<body>") && shown.contains("[9 bytes]"), "{shown}");
        assert!(
            shown.contains("xmlns='urn:y'") && shown.contains("node='n'") && shown.contains("token='…'"),
            "{shown}"
        );
        for secret in ["art", "not", "t0p", "secret"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    }

    #[test]
    fn a_session_an_account_and_a_domain_are_watched() {
        let session = jid("romeo@montague.example/orchard");
        for (who, seen) in [
            ("romeo@montague.example/orchard", true),
            ("romeo@montague.example", true),
            ("montague.example", true),
            ("romeo@montague.example/garden", false),
            ("benvolio@montague.example", false),
            ("capulet.example", false),
        ] {
            let watches = Watches::default();
            let mut lines = watches.open(jid(who)).expect("there is room");
            watches.see(Stamp(0), Way::FromClient, Some(&session), &stanza(SECRET));
            assert_eq!(lines.try_recv().is_ok(), seen, "{who}");
        }
    }

    #[test]
    fn between_servers_both_ends_count() {
        let watches = Watches::default();
        let mut lines = watches.open(jid("capulet.example")).expect("there is room");
        watches.see(Stamp(0), Way::ToServer, None, &stanza(SECRET));
        assert_eq!(lines.try_recv().expect("it was seen").of, "montague.example capulet.example");
    }

    #[test]
    fn who_reads_slowly_hears_how_much_was_left_out() {
        let watches = Watches::default();
        let mut lines = watches.open(jid("capulet.example")).expect("there is room");
        for _ in 0..LINES_MAX + 7 {
            watches.see(Stamp(0), Way::ToServer, None, &stanza(SECRET));
        }
        for _ in 0..LINES_MAX {
            lines.try_recv().expect("as many as there is room for");
        }
        watches.see(Stamp(0), Way::ToServer, None, &stanza(SECRET));
        assert_eq!(lines.try_recv().expect("there is room again").left_out, 7);
    }

    #[test]
    fn who_goes_is_forgotten_and_there_is_a_bound() {
        let watches = Watches::default();
        let all: Vec<_> = (0..WATCHES_MAX).map(|_| watches.open(jid("capulet.example"))).collect();
        assert!(watches.open(jid("capulet.example")).is_err());
        drop(all);
        watches.see(Stamp(0), Way::ToServer, None, &stanza(SECRET));
        assert!(!watches.any());
    }
}
