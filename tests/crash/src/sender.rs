//! One who sends, with stream management; resumes after a crash if it can, and sends again what is not acknowledged.

use crate::client::{ANSWER_TIMEOUT, Client, Got, Resumed, SM, stuck};
use crate::cycles::Trap;
use crate::ledger::{Fate, Id, Ledger, Wrong, hash_of};
use crate::random::Random;
use crate::receiver::Archive;
use crate::{PASSWORD, RECEIVERS};
use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use xmpp::xml::escape_text;

/// Messages between two requests for acknowledgement.
const BATCH: u32 = 5;

pub struct Sender {
    index: usize,
    name: String,
    random: Random,
    /// The number of the last message.
    number: u32,
    /// Stanzas sent since stream management was enabled.
    sent: u32,
    unacked: VecDeque<Out>,
    resumption: Option<(String, u32)>,
    pub archive: Archive,
    pub resumed: u64,
    pub resent: u64,
    /// How long the slowest acknowledgement took in this cycle, or was waited for when the server ended.
    pub slowest: Duration,
    /// The disk is full for a while: the sender's own copy may be missing of what the recipient has.
    pub may_lack: bool,
    without: HashSet<Id>,
    pub wrong: Vec<Wrong>,
}

struct Out {
    /// Which stanza of the stream it is, from 1.
    nth: u32,
    /// `None` for presence.
    id: Option<Id>,
    text: String,
    has_origin_id: bool,
    /// An error was its outcome: it is not sent again.
    refused: bool,
    at: Instant,
}

impl Sender {
    pub fn new(index: usize, seed: u64) -> Sender {
        Sender {
            index,
            name: format!("sender{index}"),
            random: Random::new(seed, 100 + index as u64),
            number: 0,
            sent: 0,
            unacked: VecDeque::new(),
            resumption: None,
            archive: Archive::of_sender(),
            resumed: 0,
            resent: 0,
            slowest: Duration::ZERO,
            may_lack: false,
            without: HashSet::new(),
            wrong: Vec::new(),
        }
    }

    /// Sends until the server is no more.
    pub fn run(&mut self, address: SocketAddr, ledger: &Ledger, trap: &Trap<'_>) -> io::Result<()> {
        self.slowest = Duration::ZERO;
        let began = Instant::now();
        let mut client = Client::login(address, &self.name, PASSWORD)?;
        let result = self.send_all(&mut client, ledger, trap);
        if let Some(oldest) = self.unacked.iter().find(|out| out.at >= began) {
            self.slowest = self.slowest.max(oldest.at.elapsed());
        }
        if let (Some((_, handled)), Some(h)) = (&mut self.resumption, client.handled) {
            *handled = h;
        }
        result
    }

    fn send_all(&mut self, client: &mut Client, ledger: &Ledger, trap: &Trap<'_>) -> io::Result<()> {
        self.begin(client, ledger)?;
        // Some wait for every acknowledgement, some are ahead of it.
        let ahead = (self.index % 4) as u32 * BATCH;
        loop {
            self.batch(client, ledger)?;
            while self.unacked.len() as u32 > ahead {
                self.read(client, ledger, trap, ANSWER_TIMEOUT)?;
            }
            let pause = Duration::from_millis(self.random.below(12));
            let until = Instant::now() + pause;
            while Instant::now() < until {
                self.read(client, ledger, trap, until.saturating_duration_since(Instant::now()))?;
            }
        }
    }

    /// Resumes, or binds; sends again what can be.
    fn begin(&mut self, client: &mut Client, ledger: &Ledger) -> io::Result<()> {
        // One in four never resumes.
        let last = self.resumption.take().filter(|_| self.index % 4 != 3);
        if let Some((id, handled)) = last {
            match client.resume(&id, handled)? {
                Resumed::Yes(h) => {
                    self.resumed += 1;
                    self.resumption = Some((id, handled));
                    self.acked(h, ledger, None)?;
                    self.unacked.retain(|out| !out.refused);
                    (1..).zip(&mut self.unacked).for_each(|(nth, out)| out.nth = h.wrapping_add(nth));
                    self.sent = h.wrapping_add(self.unacked.len() as u32);
                    let again: String = self.unacked.iter().map(|out| out.text.as_str()).collect();
                    self.resent += self.unacked.len() as u64;
                    return client.send(&again);
                }
                Resumed::No(Some(h)) => self.acked(h, ledger, None)?,
                Resumed::No(None) => {}
            }
        }
        let resource =
            if self.index.is_multiple_of(2) { "crash".to_owned() } else { format!("r{}", self.random.next()) };
        self.resumption = client.bind(&resource, true)?.map(|id| (id, 0));
        self.sent = 0;
        let old = std::mem::take(&mut self.unacked);
        if !self.index.is_multiple_of(3) {
            self.push(client, ledger, None, "<presence/>".to_owned(), false)?;
        }
        // A new session: only what carries an origin-id can be recognised.
        for out in old {
            if out.has_origin_id && !out.refused {
                self.resent += 1;
                self.push(client, ledger, out.id, out.text, true)?;
            }
        }
        Ok(())
    }

    fn push(
        &mut self,
        client: &mut Client,
        ledger: &Ledger,
        id: Option<Id>,
        text: String,
        has_origin_id: bool,
    ) -> io::Result<()> {
        self.sent = self.sent.wrapping_add(1);
        if let Some(id) = id.filter(|_| self.may_lack) {
            ledger.may_be_late(id);
        }
        let sent = client.send(&text);
        self.unacked.push_back(Out { nth: self.sent, id, text, has_origin_id, refused: false, at: Instant::now() });
        sent
    }

    fn batch(&mut self, client: &mut Client, ledger: &Ledger) -> io::Result<()> {
        let mut messages = Vec::new();
        let mut intents = Vec::new();
        for _ in 0..BATCH {
            self.number += 1;
            let id = (self.index, self.number);
            let to = self.random.below(RECEIVERS.len() as u64) as usize;
            let payload = payload(&mut self.random);
            let hash = hash_of(&payload);
            let has_origin_id = self.random.one_in(2);
            let mut text = format!("<message type='chat' to='{}@localhost' id='m{}'><body>", RECEIVERS[to], id.1);
            let mut body = Vec::new();
            escape_text(&mut body, &format!("{}:{}:{hash}:{payload}", id.0, id.1));
            text.push_str(&String::from_utf8_lossy(&body));
            text.push_str("</body>");
            if has_origin_id {
                text.push_str(&format!("<origin-id xmlns='urn:xmpp:sid:0' id='o{}-{}'/>", id.0, id.1));
            }
            text.push_str("</message>");
            intents.push((id, to, hash));
            messages.push((id, text, has_origin_id));
        }
        ledger.intend(&intents)?;
        for (id, text, has_origin_id) in messages {
            self.push(client, ledger, Some(id), text, has_origin_id)?;
        }
        client.send(&format!("<r xmlns='{SM}'/>"))
    }

    /// Reads once.
    fn read(&mut self, client: &mut Client, ledger: &Ledger, trap: &Trap<'_>, wait: Duration) -> io::Result<()> {
        match client.next(wait)? {
            Got::Element(e) if e.is("a", SM) => {
                let h = e.attribute("h").and_then(|h| h.parse().ok());
                let h = h.ok_or_else(|| io::Error::other("an <a/> without an 'h'"))?;
                self.acked(h, ledger, Some(trap))
            }
            Got::Element(e) if *e.name == *"message" && e.attribute("type") == Some("error") => {
                let number = e.attribute("id").and_then(|id| id.strip_prefix('m')).and_then(|n| n.parse().ok());
                match number {
                    Some(number) => {
                        let id = (self.index, number);
                        self.unacked.iter_mut().filter(|out| out.id == Some(id)).for_each(|out| out.refused = true);
                        ledger.tell(&[id], Fate::Refused)
                    }
                    None => Ok(()),
                }
            }
            Got::Element(_) => Ok(()),
            Got::Nothing if wait == ANSWER_TIMEOUT => Err(stuck("an acknowledgement")),
            Got::Nothing => Ok(()),
            Got::End => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The server has handled `h` stanzas. The crash that waits for an acknowledgement comes before all else.
    fn acked(&mut self, h: u32, ledger: &Ledger, trap: Option<&Trap<'_>>) -> io::Result<()> {
        let mut ids = Vec::new();
        while self.unacked.front().is_some_and(|out| out.nth <= h) {
            let Some(out) = self.unacked.pop_front() else { break };
            if trap.is_some() {
                self.slowest = self.slowest.max(out.at.elapsed());
            }
            ids.extend(out.id);
        }
        if h > self.sent {
            self.wrong.push(Wrong::Invented(format!("{} sent {} stanzas, {h} were handled", self.name, self.sent)));
        }
        if ids.is_empty() {
            return Ok(());
        }
        if let Some(trap) = trap {
            trap.spring();
        }
        if self.may_lack {
            self.without.extend(&ids);
        }
        ledger.tell(&ids, Fate::Acked)
    }

    /// Walks the sender's own archive: what was acknowledged is there too, once.
    pub fn look(&mut self, address: SocketAddr, ledger: &Ledger, whole: bool) -> io::Result<()> {
        let mut client = Client::login(address, &self.name, PASSWORD)?;
        client.bind("look", false)?;
        self.archive.walk(&mut client, ledger, whole, |_| {})?;
        if self.archive.answers {
            let without = &self.without;
            for id in ledger.missing_of(self.index, |id| self.archive.ids.contains_key(id) || without.contains(id)) {
                let name = &self.name;
                self.wrong.push(Wrong::Lost(format!("{id:?} was acknowledged and is not in the archive of {name}")));
            }
        }
        self.wrong.append(&mut self.archive.wrong);
        client.end(|_| {})
    }
}

/// Text of up to 600 characters, with what XML minds in it.
fn payload(random: &mut Random) -> String {
    const PIECES: [&str; 8] = ["plain ", "<&>", "'\"", "é", "\u{1F600}", "]]>", "\n\t", "0123456789abcdef"];
    let pieces = random.below(60);
    let text: String = (0..pieces).map(|_| PIECES[random.below(PIECES.len() as u64) as usize]).collect();
    format!("{text}.")
}
