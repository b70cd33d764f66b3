//! Presence that waits for a session whose queue is full: of each sender only what it said last.
//!
//! Whoever comes online hears at once of all its contacts, and of all who want to subscribe. These are many more than
//! may be unacknowledged; so what is beyond that waits here and goes out as the client takes what it was sent.

use crate::account::Account;
use crate::effects::{Delivery, Effects};
use crate::item::SessionId;
use crate::policy::Limits;
use crate::session::{self, Session};
use smallvec::SmallVec;
use std::collections::{BTreeMap, HashMap};
use xmpp::{Jid, PresenceType, Stanza, StanzaType};

/// So many times `unacked_stanzas_max` may wait; with more the session is too slow and ends.
const STANZAS_TIMES: usize = 8;
/// The same for `unacked_bytes_max`.
const BYTES_TIMES: usize = 2;
/// Presence goes out while this share of `unacked_stanzas_max` is free: the rest is for answers and messages.
const FREE_SHARE: usize = 4;
/// … and while less than this share of `unacked_bytes_max` is queued: more at once would overrun a stream's own queue.
const BYTES_SHARE: usize = 8;
/// Below this nothing waits. (A stream without acknowledgements tells what is written now and then only.)
const STANZAS_LEAST: u64 = 128;
const BYTES_LEAST: usize = 256 << 10;

/// What waits in one session, oldest first.
#[derive(Debug, Default)]
pub struct Late {
    deliveries: BTreeMap<u64, Delivery>,
    /// By whom; a sender has few: one for each of my addresses that it writes to.
    of: HashMap<Jid, SmallVec<[u64; 1]>>,
    next: u64,
    bytes: usize,
}

impl Late {
    /// Keeps a stanza, in place of what the same sender said before. False: there is no room for it.
    fn keep(&mut self, delivery: Delivery, limits: &Limits) -> bool {
        let Some(from) = delivery.stanza.from.clone() else { return true };
        let weight = delivery.stanza.weight();
        let numbers = self.of.entry(from).or_default();
        let earlier =
            numbers.iter().find(|n| self.deliveries.get(n).is_some_and(|earlier| replaces(&delivery, earlier)));
        if let Some(place) = earlier.and_then(|n| self.deliveries.get_mut(n)) {
            self.bytes = (self.bytes + weight).saturating_sub(place.stanza.weight());
            *place = delivery;
        } else {
            numbers.push(self.next);
            self.deliveries.insert(self.next, delivery);
            self.next += 1;
            self.bytes += weight;
        }
        self.deliveries.len() <= STANZAS_TIMES * limits.unacked_stanzas_max
            && self.bytes <= BYTES_TIMES * limits.unacked_bytes_max
    }

    /// The one that waits longest.
    fn pop(&mut self) -> Option<Delivery> {
        let (number, delivery) = self.deliveries.pop_first()?;
        self.bytes = self.bytes.saturating_sub(delivery.stanza.weight());
        if let Some(from) = &delivery.stanza.from
            && let Some(numbers) = self.of.get_mut(from)
        {
            numbers.retain(|n| *n != number);
            if numbers.is_empty() {
                self.of.remove(from);
            }
        }
        Some(delivery)
    }

    /// All of one sender.
    fn take_from(&mut self, from: &Jid) -> Vec<Delivery> {
        let numbers = self.of.remove(from).unwrap_or_default();
        let taken: Vec<Delivery> = numbers.iter().filter_map(|n| self.deliveries.remove(n)).collect();
        self.bytes = self.bytes.saturating_sub(taken.iter().map(|d| d.stanza.weight()).sum());
        taken
    }

    pub fn len(&self) -> usize {
        self.deliveries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }
}

/// Is it all that counts of what was said before?
fn replaces(later: &Delivery, earlier: &Delivery) -> bool {
    is_request(&later.stanza) == is_request(&earlier.stanza)
        && later.to == earlier.to
        && later.stanza.to == earlier.stanza.to
}

fn is_request(stanza: &Stanza) -> bool {
    stanza.kind == StanzaType::Presence(PresenceType::Subscribe)
}

/// Who is there, and who wants to see: what comes by the thousand at login.
fn can_be_late(delivery: &Delivery) -> bool {
    use PresenceType::{Available, Subscribe, Unavailable};
    delivery.position.is_none()
        && matches!(delivery.stanza.kind, StanzaType::Presence(Available | Unavailable | Subscribe))
}

/// Would more presence only make a queue longer?
fn is_full(session: &Session, limits: &Limits) -> bool {
    let stanzas_max = limits.unacked_stanzas_max - limits.unacked_stanzas_max / FREE_SHARE;
    let bytes_max = (limits.unacked_bytes_max / BYTES_SHARE).max(BYTES_LEAST);
    match &session.management {
        Some(management) => management.unacked.len() >= stanzas_max || management.unacked_bytes >= bytes_max,
        None => {
            session.queued.saturating_sub(session.written) >= STANZAS_LEAST.max(stanzas_max as u64)
                || session.queued_bytes >= bytes_max
        }
    }
}

/// Keeps a stanza that has to wait, and gives back one that goes out now.
///
/// A session that would have to keep too many ends with this step.
pub(crate) fn wait(account: &mut Account, id: SessionId, delivery: Delivery, fx: &mut Effects) -> Option<Delivery> {
    let limits = &account.policy.limits;
    let session = account.sessions.iter_mut().find(|s| s.id == id)?;
    if !can_be_late(&delivery) {
        // What one sender says keeps its order. RFC 6120 §10.1.
        let earlier = match (&mut session.late, &delivery.stanza.from) {
            (Some(late), Some(from)) => late.take_from(from),
            _ => Vec::new(),
        };
        for earlier in earlier {
            session::queue(account, id, earlier, fx);
        }
        return Some(delivery);
    }
    if session.late.is_none() && !is_full(session, limits) {
        return Some(delivery);
    }
    if !session.late.get_or_insert_default().keep(delivery, limits) {
        session.overrun = true;
        account.overrun = true;
    }
    None
}

/// The session took some: what waits follows.
pub(crate) fn follow(account: &mut Account, id: SessionId, fx: &mut Effects) {
    loop {
        let limits = &account.policy.limits;
        let Some(session) = account.sessions.iter_mut().find(|s| s.id == id) else { return };
        if session.edge.is_none() || session.late.is_none() || is_full(session, limits) {
            return;
        }
        match session.late.as_mut().and_then(|late| late.pop()) {
            Some(delivery) => session::queue(account, id, delivery, fx),
            None => {
                session.late = None;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::effects::EdgeItem;
    use crate::item::{Item, ManagementRequest};
    use crate::testing::{Fx, Scene, account, account_with, contact};
    use store::AccountRecord;
    use xmpp::StreamFault;

    const JULIET: &str = "juliet@capulet.example";

    /// Juliet at home; at most 16 stanzas may be unacknowledged.
    fn juliet(managed: bool) -> Scene {
        let mut juliet = account(JULIET).with("home", 0).policy(|p| p.limits.unacked_stanzas_max = 16);
        if managed {
            let session = juliet.id("home");
            let request = ManagementRequest { resume: true, max: None, id: "sm1".into() };
            juliet.item(Item::Manage { session, request });
        }
        juliet
    }

    fn presence(n: usize, status: &str) -> String {
        format!("<presence from='c{n}@capulet.example/x'><status>{status}</status></presence>")
    }

    fn statuses(fx: &Fx) -> Vec<String> {
        let status = |xml: String| {
            let from =
                xml.split("from='").nth(1).and_then(|rest| rest.split('@').next()).unwrap_or_default().to_owned();
            let said = xml.split("<status>").nth(1).and_then(|rest| rest.split('<').next()).unwrap_or_default();
            format!("{from} {said}")
        };
        fx.delivered("home").into_iter().map(status).collect()
    }

    fn closed(fx: &Fx) -> bool {
        fx.edge_items().iter().any(|(_, item)| matches!(item, EdgeItem::Close(StreamFault::SlowReader)))
    }

    /// Acknowledges all that was sent; gives what follows.
    fn acks_all(juliet: &mut Scene) -> Fx {
        let sent = juliet.sessions[0].management.as_ref().expect("management is on").sent();
        juliet.acks("home", sent)
    }

    #[test]
    fn presence_of_more_contacts_than_may_be_unacknowledged_comes_as_the_client_acknowledges() {
        let mut juliet = juliet(true);
        let mut heard = Vec::new();
        for n in 0..100 {
            let fx = juliet.receive(&presence(n, "here"));
            assert!(!closed(&fx));
            heard.extend(statuses(&fx));
        }
        assert_eq!(heard.len(), 12, "a quarter is left for messages");
        for _ in 0..20 {
            let fx = acks_all(&mut juliet);
            assert!(statuses(&fx).len() <= 12);
            heard.extend(statuses(&fx));
        }
        let all: Vec<String> = (0..100).map(|n| format!("c{n} here")).collect();
        assert_eq!(heard, all);
        assert!(juliet.sessions[0].late.is_none());
    }

    #[test]
    fn of_each_contact_only_the_latest_waits() {
        let mut juliet = juliet(true);
        (0..20).for_each(|n| drop(juliet.receive(&presence(n, "here"))));
        (0..20).for_each(|n| drop(juliet.receive(&presence(n, "away"))));
        juliet.receive("<presence from='c15@capulet.example/x' type='unavailable'/>");
        let heard = [statuses(&acks_all(&mut juliet)), statuses(&acks_all(&mut juliet))].concat();
        assert_eq!(heard.len(), 20, "{heard:?}");
        assert!(heard.contains(&"c14 away".to_owned()) && heard.contains(&"c15 ".to_owned()), "{heard:?}");
        assert!(!heard.contains(&"c15 here".to_owned()), "{heard:?}");
    }

    // RFC 6120 §10.1.
    #[test]
    fn what_one_sender_says_keeps_its_order() {
        let mut juliet = juliet(true);
        (0..14).for_each(|n| drop(juliet.receive(&presence(n, "here"))));
        let fx = juliet.receive("<message from='c13@capulet.example/x' type='chat'><body>hi</body></message>");
        let wire = fx.delivered("home");
        assert_eq!(wire.len(), 2, "{wire:?}");
        assert!(wire[0].contains("<status>here") && wire[1].contains("<body>hi"), "{wire:?}");
        assert_eq!(statuses(&acks_all(&mut juliet)), ["c12 here"]);
    }

    #[test]
    fn without_acknowledgements_presence_waits_until_what_came_before_is_written() {
        let mut juliet = juliet(false);
        let mut heard: usize = (0..250).map(|n| statuses(&juliet.receive(&presence(n, "here"))).len()).sum();
        assert_eq!(heard, 128);
        heard += statuses(&juliet.writes_all("home")).len();
        assert_eq!(heard, 250);
    }

    #[test]
    fn requests_by_the_hundred_wait_as_well() {
        let mut juliet = juliet(true);
        let ask = |n: usize| format!("<presence from='c{n}@capulet.example' type='subscribe'/>");
        let mut heard: usize = (0..40).map(|n| juliet.receive(&ask(n)).delivered("home").len()).sum();
        assert_eq!(heard, 12);
        for _ in 0..4 {
            heard += acks_all(&mut juliet).delivered("home").len();
        }
        assert_eq!((heard, juliet.sessions.len()), (40, 1));
    }

    #[test]
    fn a_session_that_is_resumed_is_given_what_waited() {
        let mut juliet = juliet(true);
        (0..30).for_each(|n| drop(juliet.receive(&presence(n, "here"))));
        juliet.loses("home", 12, 0);
        (30..40).for_each(|n| drop(juliet.receive(&presence(n, "here"))));
        let fx = juliet.item(Item::Resume { edge: crate::EdgeRef(900), id: "sm1".into(), h: 12 });
        let mut heard = statuses(&fx);
        heard.extend(statuses(&acks_all(&mut juliet)));
        heard.extend(statuses(&acks_all(&mut juliet)));
        let rest: Vec<String> = (12..40).map(|n| format!("c{n} here")).collect();
        assert_eq!(heard, rest);
    }

    #[test]
    fn what_waits_has_a_bound_and_a_session_beyond_it_ends() {
        let mut juliet = juliet(true);
        for n in 0..12 + 8 * 16 {
            assert!(!closed(&juliet.receive(&presence(n, "here"))), "{n}");
        }
        assert!(closed(&juliet.receive(&presence(1_000, "here"))));
        assert!(juliet.sessions.is_empty());
    }

    #[test]
    fn the_own_login_hears_of_all_contacts() {
        let contacts = (0..50).map(|n| contact(&format!("c{n}@capulet.example"), "both")).collect();
        let stored = AccountRecord { roster: contacts, ..AccountRecord::default() };
        let mut juliet = account_with(JULIET, stored).connected("home").policy(|p| p.limits.unacked_stanzas_max = 16);
        let session = juliet.id("home");
        juliet.item(Item::Manage { session, request: ManagementRequest { resume: true, max: None, id: "sm1".into() } });
        assert_eq!(
            juliet.sends("home", "<presence/>").told().iter().filter(|(_, xml)| xml.contains("probe")).count(),
            50
        );
        (0..50).for_each(|n| drop(juliet.receive(&presence(n, "here"))));
        let mut rounds = 0;
        while juliet.sessions[0].late.is_some() && rounds < 20 {
            acks_all(&mut juliet);
            rounds += 1;
        }
        assert!(rounds < 20 && juliet.sessions.len() == 1);
    }
}
