//! One who receives: what came, when, under which id; what the archive has.

use crate::client::{self, ANSWER_TIMEOUT, Client, Got, Resumed};
use crate::cycles::End;
use crate::ledger::{Id, Ledger, Wrong};
use crate::{PASSWORD, RECEIVERS};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use xmpp::Element;
use xmpp::ns::CLIENT;

const STANZA_IDS: &str = "urn:xmpp:sid:0";
const ARCHIVE: &str = "urn:xmpp:mam:2";
const RSM: &str = "http://jabber.org/protocol/rsm";

/// What a crash may make the server send again: marks are cleared a second after the acknowledgement (and the tick of a
/// timer), …
const REPEAT_WINDOW: Duration = Duration::from_millis(1_100);
/// … or after the report that all was written, which comes so much later, …
const REPORT_WINDOW: Duration = Duration::from_millis(300);
/// … by a server that takes as long to hear of it, and as long again to commit, as the slowest answer took: at
/// least so long, as none may have been waited for, and at most so long, as a server that is slower is stuck.
const COMMIT_MIN: Duration = Duration::from_millis(100);
const COMMIT_MAX: Duration = Duration::from_millis(1_500);
/// Nothing more comes when nothing came for so long.
const QUIET: Duration = Duration::from_millis(60);

/// How it receives.
#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    /// Online with stream management.
    Managed,
    /// Online without.
    Plain,
    /// Offline; comes after each crash.
    Away,
}

struct Receipt {
    stanza_id: Option<String>,
    at: Instant,
    /// By a stream that acknowledges.
    managed: bool,
    /// When the server heard that it is taken; it may come again as long as it did not. Without acknowledgements, when
    /// it came.
    taken_at: Option<Instant>,
}

pub struct Receiver {
    index: usize,
    way: Way,
    received: HashMap<Id, Receipt>,
    /// Does the present stream acknowledge?
    managed: bool,
    /// Received and not acknowledged.
    fresh: Vec<Id>,
    /// The highest number first received, by sender.
    newest: HashMap<usize, u32>,
    /// The same within the stream.
    newest_in_stream: HashMap<usize, u32>,
    /// When the last server ended, if what came shortly before may come again.
    pub forgives: Option<Instant>,
    /// How long a commit took then, at most.
    pub slowest: Duration,
    /// How long the slowest answer took when it came last.
    pub answered_in: Duration,
    /// How long the server's threads waited for a processor before it ended: its timers were late by that.
    pub starved: Duration,
    resumption: Option<(String, u32)>,
    pub client: Option<Client>,
    pub archive: Archive,
    pub repeated: u64,
    pub resumed: u64,
    pub wrong: Vec<Wrong>,
}

impl Receiver {
    pub fn new(index: usize, way: Way) -> Receiver {
        Receiver {
            index,
            way,
            received: HashMap::new(),
            managed: false,
            fresh: Vec::new(),
            newest: HashMap::new(),
            newest_in_stream: HashMap::new(),
            forgives: None,
            slowest: Duration::ZERO,
            answered_in: Duration::ZERO,
            starved: Duration::ZERO,
            resumption: None,
            client: None,
            archive: Archive::default(),
            repeated: 0,
            resumed: 0,
            wrong: Vec::new(),
        }
    }

    /// May the last that came come again after such an end? A server that stops in order forgets only acknowledgements
    /// that are on their way; who gives none is not given anything twice.
    pub fn may_repeat(&self, end: End) -> bool {
        end != End::Terminate || self.way == Way::Managed
    }

    pub fn found(&self) -> usize {
        self.received.len()
    }

    /// Comes (or comes again), takes what waits, walks the archive and compares. Stays connected unless it is away.
    /// `resumes`: tries to resume the last stream. Gives when it was logged in.
    pub fn come(&mut self, address: SocketAddr, ledger: &Ledger, resumes: bool, whole: bool) -> io::Result<Instant> {
        let name = RECEIVERS[self.index];
        let mut client = Client::login(address, name, PASSWORD)?;
        let mut at = Instant::now();
        let managed = self.way == Way::Managed || (self.way == Way::Away && resumes);
        self.managed = managed;
        let last = self.resumption.take().filter(|_| resumes && self.way == Way::Managed);
        let mut is_resumed = false;
        if let Some((id, handled)) = last {
            is_resumed = matches!(client.resume(&id, handled)?, Resumed::Yes(_));
            if is_resumed {
                self.resumed += 1;
                self.resumption = Some((id, handled));
            }
        }
        if !is_resumed {
            let id = client.bind("crash", managed)?;
            at = Instant::now();
            self.resumption = id.map(|id| (id, 0));
            client.send("<presence/>")?;
        }
        self.newest_in_stream.clear();
        self.fresh.clear();
        self.take_what_waits(&mut client, ledger)?;
        let mut archive = std::mem::take(&mut self.archive);
        let walked = archive.walk(&mut client, ledger, whole, |element| self.take(&element, ledger));
        self.archive = archive;
        walked?;
        self.answered_in = client.slowest;
        self.acknowledged(client.acked_at);
        match self.way {
            Way::Away => {
                self.resumption = None;
                // What comes behind the last acknowledgement comes again.
                self.acknowledged(managed.then(Instant::now));
                let counts = !managed;
                client.end(|element| {
                    if counts {
                        self.take(&element, ledger);
                    }
                })?;
            }
            Way::Managed | Way::Plain => self.client = Some(client),
        }
        self.compare(ledger);
        Ok(at)
    }

    /// Reads until all that was acknowledged has come and nothing more comes.
    fn take_what_waits(&mut self, client: &mut Client, ledger: &Ledger) -> io::Result<()> {
        let until = Instant::now() + ANSWER_TIMEOUT;
        loop {
            match client.next(QUIET)? {
                Got::Element(element) => {
                    self.acknowledged(client.acked_at);
                    self.take(&element, ledger);
                }
                Got::Nothing => {
                    let missing = ledger.missing(self.index, |id| self.received.contains_key(id));
                    if missing.is_empty() || Instant::now() > until {
                        return Ok(());
                    }
                }
                Got::End => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// Reads until the server is no more.
    pub fn stay(&mut self, ledger: &Ledger) -> io::Result<()> {
        let Some(mut client) = self.client.take() else { return Ok(()) };
        loop {
            match client.next(Duration::from_secs(3600)) {
                Ok(Got::Element(element)) => {
                    self.acknowledged(client.acked_at);
                    self.take(&element, ledger);
                }
                Ok(Got::Nothing) => {}
                Ok(Got::End) => break,
                Err(error) if client::is_stuck(&error) => return Err(error),
                Err(_) => break,
            }
        }
        self.acknowledged(client.acked_at);
        if let (Some((_, handled)), Some(h)) = (&mut self.resumption, client.handled) {
            *handled = h;
        }
        Ok(())
    }

    /// What was received until then is acknowledged. (Elements are taken between two acknowledgements.)
    fn acknowledged(&mut self, at: Option<Instant>) {
        let Some(at) = at else { return };
        let received = &mut self.received;
        self.fresh.retain(|id| {
            let Some(receipt) = received.get_mut(id).filter(|receipt| receipt.at <= at) else { return true };
            receipt.taken_at = Some(at);
            false
        });
    }

    /// Takes a stanza as it comes.
    fn take(&mut self, element: &Element, ledger: &Ledger) {
        let Some(body) = element.find("body", CLIENT).filter(|_| *element.name == *"message") else { return };
        let ((sender, number), to) = match ledger.recognise(&body.text_content()) {
            Ok(known) => known,
            Err(why) => return self.wrong.push(Wrong::Invented(why)),
        };
        let id = (sender, number);
        let name = RECEIVERS[self.index];
        if to != self.index {
            return self.wrong.push(Wrong::Invented(format!("{name} got {id:?}, which was to {}", RECEIVERS[to])));
        }
        let is_late = ledger.is_late(&id);
        let in_stream = self.newest_in_stream.entry(sender).or_default();
        if number <= *in_stream && !is_late {
            self.wrong.push(Wrong::Reordered(format!("{name} got {id:?} after {in_stream} in one stream")));
        }
        *in_stream = (*in_stream).max(number);
        let stanza_id = element.find("stanza-id", STANZA_IDS).and_then(|e| e.attribute("id")).map(str::to_owned);
        let now = Instant::now();
        let taken_at = (!self.managed).then_some(now);
        if let Some(before) = self.received.get_mut(&id) {
            let late = REPEAT_WINDOW + 2 * self.slowest.clamp(COMMIT_MIN, COMMIT_MAX) + self.starved;
            let window = if before.managed { late } else { late + REPORT_WINDOW };
            let ago = self.forgives.zip(before.taken_at).map(|(crash, taken)| crash.saturating_duration_since(taken));
            let near = self.forgives.is_some() && ago.is_none_or(|ago| ago <= window);
            if near && before.stanza_id == stanza_id {
                self.repeated += 1;
            } else {
                self.wrong.push(Wrong::Doubled(format!(
                    "{name} got {id:?} as {:?}, taken {ago:?} before the end (of {window:?}), and again as {stanza_id:?}",
                    before.stanza_id,
                )));
            }
            (before.at, before.taken_at, before.managed) = (now, taken_at, self.managed);
            self.fresh.push(id);
            return;
        }
        let newest = self.newest.entry(sender).or_default();
        if number < *newest && !is_late {
            self.wrong.push(Wrong::Reordered(format!("{name} got {id:?} only after {newest}")));
        }
        *newest = (*newest).max(number);
        self.received.insert(id, Receipt { stanza_id, at: now, taken_at, managed: self.managed });
        self.fresh.push(id);
    }

    fn compare(&mut self, ledger: &Ledger) {
        let name = RECEIVERS[self.index];
        for id in ledger.missing(self.index, |id| self.received.contains_key(id)) {
            let archived = if self.archive.ids.contains_key(&id) { "and is archived" } else { "and is not archived" };
            self.wrong.push(Wrong::Lost(format!("{name} never got {id:?}, which was acknowledged {archived}")));
        }
        if !self.archive.answers {
            return;
        }
        for id in ledger.missing(self.index, |id| self.archive.ids.contains_key(id)) {
            self.wrong.push(Wrong::Lost(format!("{id:?} was acknowledged and is not in the archive of {name}")));
        }
        for (id, receipt) in &self.received {
            match (self.archive.ids.get(id), &receipt.stanza_id) {
                (Some(archived), Some(told)) if archived == told => {}
                (archived, told) => self.wrong.push(Wrong::Invented(format!(
                    "{name} got {id:?} with the stanza-id {told:?}, the archive says {archived:?}"
                ))),
            }
        }
        self.wrong.append(&mut self.archive.wrong);
    }
}

/// An archive, as far as it was walked.
#[derive(Default)]
pub struct Archive {
    /// Does the server have one?
    pub answers: bool,
    /// Is it its sender's?
    own: bool,
    pub ids: HashMap<Id, String>,
    newest: HashMap<(usize, usize), u32>,
    last: Option<String>,
    queries: u64,
    pub wrong: Vec<Wrong>,
}

impl Archive {
    pub fn of_sender() -> Archive {
        Archive { own: true, ..Archive::default() }
    }

    /// Reads on from where the last walk ended; with `whole` from the start, and compares with what earlier walks saw.
    pub fn walk(
        &mut self,
        client: &mut Client,
        ledger: &Ledger,
        whole: bool,
        mut other: impl FnMut(Element),
    ) -> io::Result<()> {
        let known = std::mem::take(&mut self.ids);
        if whole {
            self.newest.clear();
            self.last = None;
        } else {
            self.ids = known.clone();
        }
        loop {
            self.queries += 1;
            let id = format!("walk{}", self.queries);
            let after = self.last.as_ref().map(|last| format!("<after>{last}</after>")).unwrap_or_default();
            let query = format!(
                "<iq type='set' id='{id}'><query xmlns='{ARCHIVE}' queryid='{id}'>\
                 <set xmlns='{RSM}'><max>100</max>{after}</set></query></iq>"
            );
            let answer = client.ask(&query, &id, |element| match element.find("result", ARCHIVE) {
                Some(result) => self.add(result, ledger),
                None => other(element),
            })?;
            let Some(fin) = answer.find("fin", ARCHIVE) else {
                if self.answers {
                    self.wrong.push(Wrong::Lost(format!("the archive does not answer any more: {answer:?}")));
                }
                break;
            };
            self.answers = true;
            let last = fin.find("set", RSM).and_then(|set| set.find("last", RSM)).map(Element::text_content);
            let is_complete = fin.attribute("complete") == Some("true");
            if last.is_some() {
                self.last = last;
            } else if !is_complete {
                self.wrong.push(Wrong::Lost(format!("a page of the archive without a last: {answer:?}")));
                break;
            }
            if is_complete {
                break;
            }
        }
        if whole && self.answers {
            for (id, position) in known {
                if self.ids.get(&id) != Some(&position) {
                    self.wrong.push(Wrong::Lost(format!("{id:?} was in the archive as {position} and is not now")));
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, result: &Element, ledger: &Ledger) {
        const FORWARD: &str = "urn:xmpp:forward:0";
        let message = result.find("forwarded", FORWARD).and_then(|f| f.find("message", CLIENT));
        let body = message.and_then(|m| m.find("body", CLIENT)).map(Element::text_content).unwrap_or_default();
        let position = result.attribute("id").unwrap_or_default();
        let recognised = if self.own { ledger.recognise_sent(&body) } else { ledger.recognise(&body) };
        match recognised {
            Ok((id, to)) => {
                if let Some(before) = self.ids.insert(id, position.to_owned()) {
                    self.wrong.push(Wrong::Doubled(format!("{id:?} is archived as {before} and as {position}")));
                }
                let newest = self.newest.entry((id.0, to)).or_default();
                if id.1 < *newest && !ledger.is_late(&id) {
                    let whose = if self.own { "its sender's" } else { "its recipient's" };
                    self.wrong.push(Wrong::Reordered(format!("{id:?} stands after {newest} in {whose} archive")));
                }
                *newest = (*newest).max(id.1);
            }
            Err(why) => self.wrong.push(Wrong::Invented(format!("in the archive as {position}: {why}"))),
        }
    }
}
