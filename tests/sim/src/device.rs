//! A client: what a person with a phone does, at random times, over a network that breaks.
//!
//! Here: its life, how it comes and goes, and the wire. [`acts`]: what it does. [`hearing`]: what it makes of what it is
//! told, and what it checks of that at once.

mod acts;
mod hearing;

use crate::ledger::{Entry, Id, Ledger, Rule};
use crate::network::HostNet;
use crate::node;
use crate::random::Random;
use crate::stream::Stream;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use xmpp::Element;
use xmpp::ns::CLIENT;

const SM: &str = "urn:xmpp:sm:3";
const ROSTER: &str = "jabber:iq:roster";
const STANZA_IDS: &str = "urn:xmpp:sid:0";
const ARCHIVE: &str = "urn:xmpp:mam:2";
const RSM: &str = "http://jabber.org/protocol/rsm";
const FORWARD: &str = "urn:xmpp:forward:0";
const PING: &str = "urn:xmpp:ping";
const RULES: &str = "urn:waft:rules:0";
const FETCH: &str = "urn:waft:fetch:0";
const LEASES: &str = "urn:waft:leases:0";
/// Lines of the archive read at once.
const PAGE: usize = 30;

/// What the scene is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Everybody acts, everything breaks.
    Storm,
    /// Nobody acts, all that broke is well again: what is under way arrives.
    Calm,
    /// Everybody looks at what there is.
    Look,
    End,
}

/// Where the scene is, and who waits for it to go on. (Wakes in one order always.)
pub struct Phases {
    now: Mutex<Phase>,
    next: Notify,
}

impl Default for Phases {
    fn default() -> Phases {
        Phases { now: Mutex::new(Phase::Storm), next: Notify::new() }
    }
}

impl Phases {
    pub fn now(&self) -> Phase {
        *self.now.lock()
    }

    pub fn go_on(&self, to: Phase) {
        *self.now.lock() = to;
        self.next.notify_waiters();
    }

    /// Waits until it is no longer `this`.
    async fn after(&self, this: Phase) {
        loop {
            let next = self.next.notified();
            if self.now() != this {
                return;
            }
            next.await;
        }
    }
}

/// What all devices of a scene share.
pub struct Shared {
    pub ledger: Mutex<Ledger>,
    pub phases: Phases,
    /// Accounts of whom one's own is a contact, at the beginning.
    pub friends: Vec<Vec<usize>>,
    /// Milliseconds between two acts.
    pub pace_ms: u64,
    /// Subscriptions for a minute are asked for: not where clocks jump, for then they end at any time.
    pub leases: bool,
}

/// Sent, and not acknowledged.
struct Unacked {
    text: String,
    message: Option<Id>,
    /// A status that is in force with this.
    status: Option<u64>,
    /// An error came: it is not sent again.
    over: bool,
}

pub struct Device {
    pub n: usize,
    account: usize,
    user: String,
    domain: String,
    bare: String,
    server: usize,
    host: Arc<HostNet>,
    random: Random,
    shared: Arc<Shared>,
    /// Uses stream management.
    managed: bool,
    /// Is there when all is calm.
    stays: bool,
    /// Until then it is away.
    away_until: Option<Instant>,
    jid: String,
    binding: u64,
    resumption: Option<String>,
    handled: u32,
    unacked: VecDeque<Unacked>,
    /// Our stanzas that the server has acknowledged.
    acked: u32,
    messages: u64,
    iqs: u64,
    status: Option<u64>,
    view: BTreeMap<String, String>,
    roster: BTreeMap<String, (String, bool)>,
    requests: BTreeSet<String>,
    looked: bool,
    archive: Vec<Entry>,
    /// The first device of an account edits its rules, so that it is known which came last.
    edits_rules: bool,
    /// Of each watcher: the last edit, by the id of the iq.
    rules: BTreeMap<usize, (String, Rule)>,
}

/// How a connection ends.
enum End {
    /// It broke, or we let it.
    Lost,
    /// We said goodbye.
    Goodbye,
    Over,
}

impl Device {
    pub fn new(n: usize, account: usize, host: Arc<HostNet>, mut random: Random, shared: Arc<Shared>) -> Device {
        let (server, bare) = shared.ledger.lock().accounts[account].clone();
        let (managed, stays) = (!random.one_in(5), !random.one_in(6));
        shared.ledger.lock().managed[n] = managed;
        let edits_rules = shared.ledger.lock().devices.iter().position(|it| *it == account) == Some(n);
        if stays {
            shared.ledger.lock().expected.push(n);
        }
        Device {
            n,
            account,
            user: bare.split('@').next().unwrap_or_default().to_owned(),
            domain: node::domain(server),
            bare,
            server,
            host,
            managed,
            stays,
            away_until: None,
            jid: String::new(),
            binding: 0,
            resumption: None,
            handled: 0,
            unacked: VecDeque::new(),
            acked: 0,
            messages: 0,
            iqs: 0,
            status: None,
            view: BTreeMap::new(),
            roster: BTreeMap::new(),
            requests: BTreeSet::new(),
            looked: false,
            archive: Vec::new(),
            edits_rules,
            rules: BTreeMap::new(),
            random,
            shared,
        }
    }

    fn trace(&self, what: &str) {
        self.shared.ledger.lock().trace(&format!("device {}", self.n), what);
    }

    fn phase(&self) -> Phase {
        self.shared.phases.now()
    }

    /// From the beginning of the scene to its end.
    pub async fn live(mut self) {
        sleep(self.random.millis(0, 2_000)).await;
        loop {
            if !self.wait_while_away().await {
                break;
            }
            let end = match self.log_in().await {
                Ok(mut stream) => {
                    let end = self.talk(&mut stream).await;
                    self.part(stream, &end).await;
                    end
                }
                Err(error) => {
                    self.trace(&format!("cannot log in: {error}"));
                    End::Lost
                }
            };
            match end {
                End::Over => break,
                End::Goodbye => {}
                End::Lost => sleep(self.random.millis(100, 2_500)).await,
            }
        }
    }

    /// `false`: the scene is over and we never come back.
    async fn wait_while_away(&mut self) -> bool {
        let shared = self.shared.clone();
        loop {
            let now = self.phase();
            if now == Phase::End || now >= Phase::Calm && !self.stays {
                return false;
            }
            let Some(until) = self.away_until.filter(|until| now < Phase::Calm && *until > Instant::now()) else {
                self.away_until = None;
                return true;
            };
            tokio::select! {
                biased;
                () = shared.phases.after(now) => {}
                () = sleep_until(until) => {}
            }
        }
    }

    async fn part(&mut self, mut stream: Stream, end: &End) {
        match end {
            End::Over | End::Goodbye => {
                let _ = stream.send("</stream:stream>").await;
                // The server closes, too; what comes before that is taken.
                let rest = async {
                    while let Ok(Some(element)) = stream.next().await {
                        self.take(&element);
                    }
                };
                let _ = timeout(Duration::from_secs(5), rest).await;
                self.forget_session();
            }
            End::Lost => {
                let told = self.random.one_in(2);
                stream.abandon(told);
            }
        }
    }

    /// The session is over: what it had in memory is gone.
    fn forget_session(&mut self) {
        self.resumption = None;
        self.status = None;
        self.view.clear();
        self.roster.clear();
    }

    // ---- coming ----

    async fn log_in(&mut self) -> io::Result<Stream> {
        let server = node::address(self.server);
        let mut stream = Stream::login(&self.host, server, &self.domain, &self.user, &mut self.random).await?;
        if let Some(id) = self.resumption.take() {
            if !self.random.one_in(8) {
                stream.send(&format!("<resume xmlns='{SM}' previd='{id}' h='{}'/>", self.handled)).await?;
                // Asked and perhaps answered: if this breaks off, it can be tried again.
                self.resumption = Some(id.clone());
                let answer = stream.until(|it| it.is("resumed", SM) || it.is("failed", SM)).await?;
                let h = answer.attribute("h").and_then(|it| it.parse().ok());
                if answer.is("resumed", SM) {
                    self.trace(&format!("resumed h={h:?}"));
                    self.take_ack(h.unwrap_or(self.acked));
                    self.unacked.retain(|it| !it.over);
                    let again: Vec<String> = self.unacked.iter().map(|it| it.text.clone()).collect();
                    for text in again {
                        stream.send(&text).await?;
                    }
                    return Ok(stream);
                }
                self.resumption = None;
                self.trace(&format!("not resumed h={h:?}"));
                if let Some(h) = h {
                    self.take_ack(h);
                }
            }
            self.forget_session();
        }
        self.bind(&mut stream).await?;
        Ok(stream)
    }

    async fn bind(&mut self, stream: &mut Stream) -> io::Result<()> {
        // What was said in earlier bindings and not acknowledged: messages are sent again, the rest is past.
        let again: Vec<Unacked> = self.unacked.drain(..).filter(|it| it.message.is_some() && !it.over).collect();
        // Kept for the next time, if this one fails.
        self.unacked = again.into();
        self.forget_session();
        let resource = format!("r{}", self.n);
        stream
            .send(&format!(
                "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                 <resource>{resource}</resource></bind></iq>"
            ))
            .await?;
        let bound = stream.until(|it| it.is("iq", CLIENT) && it.attribute("id") == Some("bind")).await?;
        if bound.attribute("type") != Some("result") {
            return Err(io::Error::other("not bound"));
        }
        self.jid = bound
            .find("bind", "urn:ietf:params:xml:ns:xmpp-bind")
            .and_then(|it| it.find("jid", "urn:ietf:params:xml:ns:xmpp-bind"))
            .map(Element::text_content)
            .unwrap_or_default();
        self.binding += 1;
        self.handled = 0;
        self.acked = 0;
        self.trace(&format!("bound {}", self.jid));
        // The session that had our resource is replaced, and its status with it.
        self.shared.ledger.lock().superseded(self.n, u64::MAX);
        let mut answers = Vec::new();
        if self.managed {
            stream.send(&format!("<enable xmlns='{SM}' resume='true'/>")).await?;
            // A message for this very resource may be quicker.
            let enabled = stream
                .until_with(
                    |it| it.is("enabled", SM) || it.is("failed", SM),
                    |element| answers.extend(self.take(&element)),
                )
                .await?;
            self.handled = 0;
            self.resumption = enabled.attribute("id").map(str::to_owned);
            if !enabled.is("enabled", SM) {
                return Err(io::Error::other("not managed"));
            }
        }
        let mut again: VecDeque<Unacked> = self.unacked.drain(..).filter(|it| it.message.is_some()).collect();
        for it in &again {
            self.shared.ledger.lock().said_again(it.message);
        }
        let begun = self.begin(stream, answers, &mut again).await;
        // What could not be said again waits for the next time.
        self.unacked.extend(again);
        begun
    }

    /// The first words of a session; what is said `again` is taken out of it.
    async fn begin(
        &mut self,
        stream: &mut Stream,
        answers: Vec<String>,
        again: &mut VecDeque<Unacked>,
    ) -> io::Result<()> {
        for answer in answers {
            self.say(stream, answer, None, None).await?;
        }
        self.ask(stream, "roster", false, &format!("<query xmlns='{ROSTER}'/>"), "get", None).await?;
        self.publish(stream).await?;
        while let Some(it) = again.pop_front() {
            self.say(stream, it.text, it.message, None).await?;
        }
        Ok(())
    }

    // ---- talking ----

    async fn talk(&mut self, stream: &mut Stream) -> End {
        let shared = self.shared.clone();
        let mut act_at = Instant::now() + self.pause();
        loop {
            let now = self.phase();
            if now == Phase::End {
                self.tell_final();
                return End::Over;
            }
            if now >= Phase::Calm && !self.stays {
                self.trace("leaves for good");
                return End::Over;
            }
            tokio::select! {
                biased;
                () = shared.phases.after(now) => {}
                got = stream.next() => match got {
                    Ok(Some(element)) => {
                        if *element.name == *"error" && *element.ns == *xmpp::ns::STREAM {
                            self.trace(&format!("stream error {:?}", element.elements().next().map(|it| it.name.clone())));
                            return End::Lost;
                        }
                        if let Some(answer) = self.take(&element)
                            && stream.send(&answer).await.is_err()
                        {
                            return End::Lost;
                        }
                    }
                    Ok(None) => return End::Lost,
                    Err(error) => {
                        self.trace(&format!("lost: {error}"));
                        return End::Lost;
                    }
                },
                () = sleep_until(act_at) => {
                    let acted = match now {
                        Phase::Storm => self.act(stream).await,
                        Phase::Calm | Phase::End => self.ask_for_ack(stream).await.map(|()| None),
                        Phase::Look => self.look(stream).await.map(|()| None),
                    };
                    match acted {
                        Ok(Some(end)) => return end,
                        Ok(None) => {}
                        Err(_) => return End::Lost,
                    }
                    act_at = Instant::now() + self.pause();
                }
            }
        }
    }

    fn pause(&mut self) -> Duration {
        match self.phase() {
            Phase::Storm => {
                let pace = self.shared.pace_ms;
                self.random.millis(20, pace * 2)
            }
            Phase::Calm => self.random.millis(4_000, 8_000),
            Phase::Look | Phase::End => self.random.millis(10, 300),
        }
    }

    async fn say(
        &mut self,
        stream: &mut Stream,
        text: String,
        message: Option<Id>,
        status: Option<u64>,
    ) -> io::Result<()> {
        self.trace(&format!("> {text}"));
        if self.managed {
            self.unacked.push_back(Unacked { text: text.clone(), message, status, over: false });
        }
        stream.send(&text).await
    }

    async fn ask_for_ack(&mut self, stream: &mut Stream) -> io::Result<()> {
        if self.managed { stream.send(&format!("<r xmlns='{SM}'/>")).await } else { Ok(()) }
    }
}
