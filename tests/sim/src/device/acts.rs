//! What a person does.

use super::{ARCHIVE, Device, End, FETCH, LEASES, PAGE, PING, ROSTER, RSM, RULES, STANZA_IDS};
use crate::ledger::{Final, Message, Question, Rule};
use crate::stream::Stream;
use std::io;
use tokio::time::{Instant, sleep};
use xmpp::Element;
use xmpp::ns::CLIENT;

impl Device {
    /// One thing that a person does.
    pub(super) async fn act(&mut self, stream: &mut Stream) -> io::Result<Option<End>> {
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

    pub(super) async fn publish(&mut self, stream: &mut Stream) -> io::Result<()> {
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

    pub(super) fn rules_answered(&mut self, id: &str, answer: &Element) {
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

    pub(super) async fn ask(
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
    pub(super) async fn look(&mut self, stream: &mut Stream) -> io::Result<()> {
        if self.looked {
            return Ok(());
        }
        self.looked = true;
        self.archive.clear();
        self.tell_final();
        self.ask(stream, "look-roster", false, &format!("<query xmlns='{ROSTER}'/>"), "get", None).await?;
        self.read_archive(stream, None).await
    }

    pub(super) fn tell_final(&mut self) {
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
}
