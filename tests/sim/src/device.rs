//! A client: what a person with a phone does, at random times, over a network that breaks.

use crate::ledger::{Entry, Final, Id, Ledger, Message, Question, Rule};
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

    /// One thing that a person does.
    async fn act(&mut self, stream: &mut Stream) -> io::Result<Option<End>> {
        match self.random.below(110) {
            0..45 => {
                for _ in 0..1 + self.random.below(3) {
                    self.message(stream).await?;
                }
                if self.random.one_in(2) {
                    self.ask_for_ack(stream).await?;
                }
            }
            45..55 => self.publish(stream).await?,
            55..58 => {
                // Away and back again.
                self.say(stream, "<presence type='unavailable'/>".into(), None, None).await?;
                self.status = None;
                sleep(self.random.millis(0, 500)).await;
                self.publish(stream).await?;
            }
            58..62 => self.subscribe(stream).await?,
            62..66 => self.answer_requests(stream).await?,
            66..69 => self.unsubscribe(stream).await?,
            69..72 => self.rename(stream).await?,
            72..77 => self.ping(stream).await?,
            77..81 => self.read_archive(stream, None).await?,
            81..84 => {
                // A slow reader, for a while.
                sleep(self.random.millis(200, 6_000)).await;
            }
            84..86 => {
                // Who is there? What comes is decided by the one who is asked.
                let to = self.somebody();
                let to = self.jid_of(to);
                self.say(stream, format!("<presence to='{to}' type='probe' id='probe'/>"), None, None).await?;
            }
            86..89 => {
                self.trace("loses the network");
                return Ok(Some(End::Lost));
            }
            89..91 => {
                self.trace("says goodbye");
                self.away_until = Some(Instant::now() + self.random.millis(500, 9_000));
                return Ok(Some(End::Goodbye));
            }
            91..97 if self.edits_rules => self.edit_rules(stream).await?,
            97..102 => self.fetch(stream).await?,
            _ => self.ask_for_ack(stream).await?,
        }
        Ok(None)
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

    /// Somebody of the scene, most often a contact.
    fn somebody(&mut self) -> usize {
        let friends = &self.shared.friends[self.account];
        if !friends.is_empty() && !self.random.one_in(4) {
            return *self.random.of(friends).unwrap_or(&self.account);
        }
        let all = self.shared.friends.len() as u64;
        self.random.below(all) as usize
    }

    fn jid_of(&self, account: usize) -> String {
        self.shared.ledger.lock().accounts[account].1.clone()
    }

    async fn message(&mut self, stream: &mut Stream) -> io::Result<()> {
        let to = self.somebody();
        let bare = self.jid_of(to);
        let full = self.view.keys().find(|it| it.starts_with(&format!("{bare}/"))).cloned();
        let address = full.filter(|_| self.random.one_in(6)).unwrap_or_else(|| bare.clone());
        self.messages += 1;
        let id = (self.n, self.messages);
        let filling = "x".repeat(self.random.below(40) as usize);
        let body = format!("m:{}:{}:{filling}", id.0, id.1);
        let name = format!("m-{}-{}", id.0, id.1);
        let text = format!(
            "<message to='{address}' type='chat' id='{name}'><body>{body}</body>\
             <origin-id xmlns='{STANZA_IDS}' id='{name}'/></message>"
        );
        self.shared.ledger.lock().messages.insert(
            id,
            Message {
                from: self.account,
                to,
                body,
                binding: self.binding,
                at: Instant::now(),
                managed: self.managed,
                acked: false,
                error: None,
                again: false,
                errors: 0,
            },
        );
        self.say(stream, text, Some(id), None).await
    }

    async fn publish(&mut self, stream: &mut Stream) -> io::Result<()> {
        let number = self.shared.ledger.lock().publish(self.n);
        self.status = Some(number);
        let text = format!("<presence><status>s:{}:{number}</status></presence>", self.n);
        self.say(stream, text, None, Some(number)).await
    }

    async fn subscribe(&mut self, stream: &mut Stream) -> io::Result<()> {
        let to = self.somebody();
        if to == self.account {
            return Ok(());
        }
        let to = self.jid_of(to);
        // Now and then for a minute, as long as the shortest lease.
        let lease = if self.shared.leases && self.random.one_in(4) {
            format!("<lease xmlns='{LEASES}' seconds='60'/>")
        } else {
            String::new()
        };
        self.say(stream, format!("<presence to='{to}' type='subscribe'>{lease}</presence>"), None, None).await
    }

    /// Another rule for one watcher.
    async fn edit_rules(&mut self, stream: &mut Stream) -> io::Result<()> {
        let watcher = self.somebody();
        if watcher == self.account {
            return Ok(());
        }
        let rule = match self.random.below(5) {
            0 | 1 => Rule::Hidden { polite: self.random.one_in(2) },
            2 => Rule::Wordless,
            _ => Rule::Silent,
        };
        let says = |handling: &str, shows: &str| {
            let jid = self.jid_of(watcher);
            format!(
                "<rule xmlns='urn:ietf:params:xml:ns:common-policy' id='w{watcher}'>\
                 <conditions><identity><one id='xmpp:{jid}'/></identity></conditions>\
                 <actions><sub-handling xmlns='urn:ietf:params:xml:ns:pres-rules'>{handling}</sub-handling></actions>\
                 {shows}</rule>"
            )
        };
        let edit = match rule {
            Rule::Silent => format!("<remove id='w{watcher}'/>"),
            Rule::Hidden { polite: true } => says("polite-block", ""),
            Rule::Hidden { polite: false } => says("confirm", ""),
            Rule::Wordless => says(
                "allow",
                &format!(
                    "<transformations><provide-services xmlns='urn:ietf:params:xml:ns:pres-rules'><all-services/>\
                     </provide-services><provide-show xmlns='{RULES}'>true</provide-show></transformations>"
                ),
            ),
        };
        self.shared.ledger.lock().rule_sent(self.account, watcher, rule);
        self.rules.insert(watcher, (format!("rules-{}", self.iqs + 1), rule));
        self.ask(stream, "rules", false, &format!("<rules xmlns='{RULES}' etag='*'>{edit}</rules>"), "set", None).await
    }

    fn rules_answered(&mut self, id: &str, answer: &Element) {
        let Some((watcher, (_, rule))) = self.rules.iter().find(|(_, (it, _))| it == id) else { return };
        // What is not there needs no removing.
        let is_absent =
            answer.find("error", CLIENT).is_some_and(|it| it.elements().any(|it| *it.name == *"item-not-found"));
        if answer.attribute("type") == Some("result") || *rule == Rule::Silent && is_absent {
            self.shared.ledger.lock().rule_in_force(self.account, *watcher, *rule);
        }
    }

    /// All that there is to know of somebody, once.
    async fn fetch(&mut self, stream: &mut Stream) -> io::Result<()> {
        let to = self.somebody();
        let to = self.jid_of(to);
        self.ask(stream, "fetch", true, &format!("<fetch xmlns='{FETCH}'/>"), "get", Some(&to)).await
    }

    async fn answer_requests(&mut self, stream: &mut Stream) -> io::Result<()> {
        while let Some(from) = self.requests.pop_first() {
            let yes = !self.random.one_in(4);
            let watcher = self.shared.ledger.lock().account_of(&from);
            if let (true, Some(watcher)) = (yes, watcher) {
                self.shared.ledger.lock().allow(self.account, watcher, true);
            }
            let kind = if yes { "subscribed" } else { "unsubscribed" };
            self.say(stream, format!("<presence to='{from}' type='{kind}'/>"), None, None).await?;
        }
        Ok(())
    }

    async fn unsubscribe(&mut self, stream: &mut Stream) -> io::Result<()> {
        let contacts: Vec<String> = self.roster.keys().cloned().collect();
        let Some(contact) = self.random.of(&contacts).cloned() else { return Ok(()) };
        match self.random.below(3) {
            0 => self.say(stream, format!("<presence to='{contact}' type='unsubscribe'/>"), None, None).await,
            1 => self.say(stream, format!("<presence to='{contact}' type='unsubscribed'/>"), None, None).await,
            _ => {
                let item = format!("<query xmlns='{ROSTER}'><item jid='{contact}' subscription='remove'/></query>");
                self.ask(stream, "remove", false, &item, "set", None).await
            }
        }
    }

    async fn rename(&mut self, stream: &mut Stream) -> io::Result<()> {
        let contact = self.somebody();
        if contact == self.account {
            return Ok(());
        }
        let contact = self.jid_of(contact);
        let name = self.random.below(1_000);
        let item = format!("<query xmlns='{ROSTER}'><item jid='{contact}' name='n{name}'/></query>");
        self.ask(stream, "rename", false, &item, "set", None).await
    }

    async fn ping(&mut self, stream: &mut Stream) -> io::Result<()> {
        let full: Vec<String> = self.view.keys().cloned().collect();
        let to = match self.random.below(3) {
            0 => self.domain.clone(),
            1 => {
                let other = self.somebody();
                self.jid_of(other)
            }
            _ => match self.random.of(&full) {
                Some(to) => to.clone(),
                None => self.domain.clone(),
            },
        };
        // Another client answers, or does not: only a server has to.
        let far = to != self.domain && !to.ends_with(&format!("@{}", self.domain));
        self.ask(stream, "ping", far, &format!("<ping xmlns='{PING}'/>"), "get", Some(&to)).await
    }

    async fn read_archive(&mut self, stream: &mut Stream, after: Option<&str>) -> io::Result<()> {
        let after = after.map(|it| format!("<after>{it}</after>")).unwrap_or_default();
        let query = format!("<query xmlns='{ARCHIVE}'><set xmlns='{RSM}'><max>{PAGE}</max>{after}</set></query>");
        self.ask(stream, "archive", false, &query, "set", None).await
    }

    async fn ask(
        &mut self,
        stream: &mut Stream,
        what: &str,
        far: bool,
        payload: &str,
        kind: &str,
        to: Option<&str>,
    ) -> io::Result<()> {
        self.iqs += 1;
        let id = format!("{what}-{}", self.iqs);
        let to = to.map(|it| format!(" to='{it}'")).unwrap_or_default();
        let text = format!("<iq type='{kind}' id='{id}'{to}>{payload}</iq>");
        {
            let mut ledger = self.shared.ledger.lock();
            let crashes = ledger.crashes[self.server];
            let question = Question {
                device: self.n,
                binding: self.binding,
                at: Instant::now(),
                far,
                crashes,
                answers: 0,
                what: text.clone(),
            };
            ledger.questions.insert((self.n, id), question);
        }
        self.say(stream, text, None, None).await
    }

    /// When all is calm: the roster as the server says, the whole archive.
    async fn look(&mut self, stream: &mut Stream) -> io::Result<()> {
        if self.looked {
            return Ok(());
        }
        self.looked = true;
        self.archive.clear();
        self.tell_final();
        self.ask(stream, "look-roster", false, &format!("<query xmlns='{ROSTER}'/>"), "get", None).await?;
        self.read_archive(stream, None).await
    }

    fn tell_final(&mut self) {
        let online = self.stays && self.looked;
        let unacked = self.unacked.len();
        let mut ledger = self.shared.ledger.lock();
        let it = ledger.finals.entry(self.n).or_default();
        *it = Final {
            online,
            managed: self.managed,
            binding: self.binding,
            status: self.status,
            jid: self.jid.clone(),
            view: self.view.clone(),
            pushed: self.roster.clone(),
            roster: std::mem::take(&mut it.roster),
            archive: self.archive.clone(),
            unacked,
            requests: self.requests.clone(),
        };
    }

    // ---- hearing ----

    /// Takes an element; gives what to answer.
    fn take(&mut self, element: &Element) -> Option<String> {
        if element.is("r", SM) {
            return Some(format!("<a xmlns='{SM}' h='{}'/>", self.handled));
        }
        if element.is("a", SM) {
            let h = element.attribute("h").and_then(|it| it.parse().ok())?;
            self.take_ack(h);
            return None;
        }
        if *element.ns != *CLIENT {
            return None;
        }
        self.handled = self.handled.wrapping_add(1);
        let text = String::from_utf8(element.to_bytes(CLIENT)).unwrap_or_default();
        self.trace(&format!("< {text}"));
        match &*element.name {
            "message" => self.take_message(element),
            "presence" => self.take_presence(element),
            "iq" => return self.take_iq(element),
            _ => {}
        }
        None
    }

    fn take_ack(&mut self, h: u32) {
        if !self.managed {
            return;
        }
        let count = h.wrapping_sub(self.acked);
        if count as usize > self.unacked.len() {
            let what = format!("device {} has h={h} for {} of {}", self.n, self.acked, self.unacked.len());
            self.shared.ledger.lock().wrong("outcome", what);
            return;
        }
        self.acked = h;
        let mut ledger = self.shared.ledger.lock();
        for it in self.unacked.drain(..count as usize) {
            if let Some(message) = it.message.and_then(|id| ledger.messages.get_mut(&id)) {
                message.acked = true;
            }
            if let Some(status) = it.status {
                ledger.superseded(self.n, status);
            }
        }
    }

    fn take_message(&mut self, element: &Element) {
        if element.attribute("type") == Some("error") {
            let condition = element.find("error", CLIENT).and_then(|it| it.elements().next());
            let condition = condition.map(|it| it.name.to_string()).unwrap_or_default();
            let mut name = element.attribute("id").unwrap_or_default().split('-').skip(1);
            let number = |it: Option<&str>| it.and_then(|it| it.parse::<u64>().ok());
            if let (Some(device), Some(number)) = (number(name.next()), number(name.next())) {
                // It has its outcome: it is not sent again.
                let id = (device as usize, number);
                self.unacked.iter_mut().filter(|it| it.message == Some(id)).for_each(|it| it.over = true);
                let mut ledger = self.shared.ledger.lock();
                if let Some(message) = ledger.messages.get_mut(&id) {
                    message.errors += 1;
                    message.error = Some(condition);
                }
            }
            return;
        }
        if let Some(result) = element.find("result", ARCHIVE) {
            let forwarded = result.find("forwarded", FORWARD).and_then(|it| it.find("message", CLIENT));
            if let (Some(message), Phase::Look) = (forwarded, self.phase()) {
                self.archive.push(Entry {
                    stanza_id: result.attribute("id").unwrap_or_default().to_owned(),
                    from: message.attribute("from").unwrap_or_default().to_owned(),
                    to: message.attribute("to").unwrap_or_default().to_owned(),
                    id: message.attribute("id").map(str::to_owned),
                    body: message.find("body", CLIENT).map(Element::text_content).unwrap_or_default(),
                });
            }
            return;
        }
        let Some(body) = element.find("body", CLIENT).map(Element::text_content) else { return };
        let stanza_id = element
            .elements()
            .find(|it| it.is("stanza-id", STANZA_IDS) && it.attribute("by") == Some(&self.bare))
            .and_then(|it| it.attribute("id").map(str::to_owned));
        let from = element.attribute("from").unwrap_or_default();
        let mut ledger = self.shared.ledger.lock();
        match ledger.recognise(self.account, from, &body) {
            Ok(id) => ledger.delivered(self.n, self.binding, id, stanza_id),
            Err(why) => ledger.wrong("invented", format!("device {}: {why}", self.n)),
        }
    }

    fn take_presence(&mut self, element: &Element) {
        let from = element.attribute("from").unwrap_or_default().to_owned();
        // Answers to a question of our own: they say how it is, not how it will be.
        let is_answer = element.attribute("id") == Some("probe");
        match element.attribute("type") {
            None => {
                let status = element.find("status", CLIENT).map(Element::text_content).unwrap_or_default();
                self.shared.ledger.lock().saw(self.n, &from, &status);
                if !is_answer {
                    self.view.insert(from, status);
                }
            }
            Some("unavailable") if is_answer => {}
            // The server has it that we are not there, and tells us nothing until we are: what we know ends with it.
            Some("unavailable") if from == self.jid => self.view.clear(),
            Some("unavailable") => {
                if from.contains('/') {
                    self.view.remove(&from);
                } else {
                    self.view.retain(|it, _| it.split('/').next() != Some(&from));
                }
            }
            Some("subscribe") => {
                self.requests.insert(from);
            }
            Some(_) => {}
        }
    }

    fn take_iq(&mut self, element: &Element) -> Option<String> {
        let id = element.attribute("id").unwrap_or_default().to_owned();
        let from = element.attribute("from");
        match element.attribute("type") {
            Some("get") if element.find("ping", PING).is_some() => {
                let to = from.map(|it| format!(" to='{it}'")).unwrap_or_default();
                return self.answer(format!("<iq type='result' id='{id}'{to}/>"));
            }
            Some("set") => {
                if let Some(query) = element.find("query", ROSTER)
                    && from.is_none_or(|it| it == self.bare)
                {
                    self.take_items(query);
                }
                return self.answer(format!("<iq type='result' id='{id}'/>"));
            }
            Some("get") => {
                let to = from.map(|it| format!(" to='{it}'")).unwrap_or_default();
                return self.answer(format!(
                    "<iq type='error' id='{id}'{to}><error type='cancel'>\
                     <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
                ));
            }
            _ => {}
        }
        if let Some(question) = self.shared.ledger.lock().questions.get_mut(&(self.n, id.clone())) {
            question.answers += 1;
        }
        if id.starts_with("rules") {
            self.rules_answered(&id, element);
        } else if id.starts_with("fetch") {
            let text = String::from_utf8(element.to_bytes(CLIENT)).unwrap_or_default();
            let from = from.unwrap_or_default();
            for words in text.split(">s:").skip(1).filter_map(|it| it.split('<').next()) {
                self.shared.ledger.lock().saw(self.n, from, &format!("s:{words}"));
            }
        } else if id.starts_with("look-roster") {
            let items = element.find("query", ROSTER).map(items).unwrap_or_default();
            if let Some(it) = self.shared.ledger.lock().finals.get_mut(&self.n) {
                it.roster = items.into_iter().filter_map(|(jid, item)| Some((jid, item?))).collect();
            }
        } else if id.starts_with("roster") {
            self.roster.clear();
            if let Some(query) = element.find("query", ROSTER) {
                self.take_items(query);
            }
        } else if let Some(fin) = element.find("fin", ARCHIVE)
            && self.phase() == Phase::Look
        {
            let last = fin.find("set", RSM).and_then(|it| it.find("last", RSM)).map(Element::text_content);
            if fin.attribute("complete") != Some("true")
                && let Some(last) = last
            {
                return self.next_page(&last);
            }
            self.tell_final();
        }
        None
    }

    fn next_page(&mut self, last: &str) -> Option<String> {
        self.iqs += 1;
        let id = format!("archive-{}", self.iqs);
        self.answer(format!(
            "<iq type='set' id='{id}'><query xmlns='{ARCHIVE}'><set xmlns='{RSM}'><max>{PAGE}</max>\
             <after>{last}</after></set></query></iq>"
        ))
    }

    /// What is sent without having been thought of: it counts as our stanza all the same.
    fn answer(&mut self, text: String) -> Option<String> {
        if self.managed {
            self.unacked.push_back(Unacked { text: text.clone(), message: None, status: None, over: false });
        }
        self.trace(&format!("> {text}"));
        Some(text)
    }

    fn take_items(&mut self, query: &Element) {
        for (jid, item) in items(query) {
            let watcher = self.shared.ledger.lock().account_of(&jid);
            let sees = item.as_ref().is_some_and(|(subscription, _)| subscription == "from" || subscription == "both");
            if let Some(watcher) = watcher {
                self.shared.ledger.lock().allow(self.account, watcher, sees);
            }
            match item {
                Some(item) => self.roster.insert(jid, item),
                None => self.roster.remove(&jid),
            };
        }
    }
}

/// Items of a roster: subscription, and whether an answer is waited for. `None`: removed.
fn items(query: &Element) -> Vec<(String, Option<(String, bool)>)> {
    let all = query.elements().filter(|it| it.is("item", ROSTER));
    all.map(|it| {
        let jid = it.attribute("jid").unwrap_or_default().to_owned();
        let subscription = it.attribute("subscription").unwrap_or("none").to_owned();
        let asks = it.attribute("ask").is_some();
        (jid, (subscription != "remove").then_some((subscription, asks)))
    })
    .collect()
}
