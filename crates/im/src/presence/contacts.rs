//! What the account is told of its contacts, and what it remembers of that.
//!
//! As long as a session of the account hears presence, the last word of each resource of each contact is kept: a further
//! session is shown it at once, and no contact's server is asked again (RFC 6121 §4.3.1, RFC 2779 §3.3.1). Each
//! notification brings it up to date (§3.3.2). It holds what this one account was told, behind its own block list, and what
//! a contact takes back is gone from it with the notification that says so (§3.3.3).

use super::{OWN, tell};
use crate::account::Account;
use crate::effects::{Delivery, Effects};
use crate::item::{SessionId, Ticket};
use crate::session::{self, Session};
use crate::ways::Passage;
use std::collections::BTreeMap;
use std::sync::Arc;
use xmpp::{BareJid, Jid, PresenceType, Stanza, StanzaType};

/// Presences that one account remembers; of more its contacts are asked each time.
const PRESENCES_MAX: usize = 4_000;
/// How long what was heard of a contact is taken to be all that there is; then its server is asked again.
const FRESH_MS: u64 = 30 * 60_000;

/// What was heard of the contacts.
#[derive(Debug, Default)]
pub struct Contacts {
    known: BTreeMap<BareJid, Known>,
    presences: usize,
}

#[derive(Debug, Default)]
struct Known {
    /// Available presence, the last of each resource. None: the contact is away.
    there: Vec<Arc<Stanza>>,
    /// When anything was last heard, monotonic milliseconds.
    heard_at: u64,
}

impl Contacts {
    /// A contact's presence came, available or not.
    fn hear(&mut self, from: &Jid, stanza: &Arc<Stanza>, now_ms: u64) {
        let is_there = stanza.kind == StanzaType::Presence(PresenceType::Available);
        if is_there && (from.resource().is_none() || self.presences >= PRESENCES_MAX) {
            return self.forget(&from.to_bare());
        }
        // (Most are known: then the address is not copied.)
        let known = match self.known.get_mut(from.bare_str()) {
            Some(known) => known,
            None => self.known.entry(from.to_bare()).or_default(),
        };
        let before = known.there.len();
        // What a bare JID says of being gone is of all its resources.
        known.there.retain(|other| !from.is_bare() && other.from.as_ref() != Some(from));
        if is_there {
            known.there.push(stanza.clone());
        }
        known.heard_at = now_ms;
        self.presences = self.presences + known.there.len() - before;
    }

    /// The contact is none any more, or not let in.
    pub fn forget(&mut self, contact: &BareJid) {
        if let Some(known) = self.known.remove(contact) {
            self.presences -= known.there.len();
        }
    }

    fn clear(&mut self) {
        *self = Contacts::default();
    }

    /// Each resource that is there.
    pub fn there(&self) -> impl Iterator<Item = &Arc<Stanza>> {
        self.known.values().flat_map(|known| &known.there)
    }

    /// All that is known of a contact; `None` if it must be asked for.
    fn of(&self, contact: &BareJid, now_ms: u64) -> Option<&[Arc<Stanza>]> {
        let known = self.known.get(contact)?;
        (now_ms.saturating_sub(known.heard_at) < FRESH_MS).then_some(&known.there)
    }
}

/// To the bare JID: to all available resources; to a full JID: to that resource. RFC 6121 §8.5.2.1.2, §8.5.3.1.
pub(super) fn deliver(account: &mut Account, passage: &mut Passage, fx: &mut Effects) {
    if !account.policy.client_presence {
        return;
    }
    remember(account, passage);
    let to = passage.to.clone();
    // A broadcast has no `to` of its own.
    let rewritten = (passage.stanza.to.as_ref() != Some(&to)).then_some(&to);
    if to.is_bare() {
        session::deliver_where(account, Session::hears_presence, &passage.stanza, rewritten, fx);
    } else {
        session::deliver_where(account, |s| *s.jid == to && s.roles.watcher, &passage.stanza, rewritten, fx);
    }
}

fn remember(account: &mut Account, passage: &Passage) {
    let kind = passage.stanza.kind;
    let is_state = matches!(kind, StanzaType::Presence(PresenceType::Available | PresenceType::Unavailable));
    let Some(from) = passage.stanza.from.as_ref().filter(|_| is_state && passage.to.is_bare()) else { return };
    if !account.sessions.iter().any(Session::hears_presence) {
        return;
    }
    if account.roster.subscription(from).to {
        account.contacts.hear(from, &passage.stanza, account.now.mono_ms);
    } else {
        account.contacts.forget(&from.to_bare());
    }
}

/// A session has ended or hears presence no longer: if it was the last, nobody brings up to date what is remembered.
pub(super) fn settle(account: &mut Account) {
    if !account.sessions.iter().any(Session::hears_presence) {
        account.contacts.clear();
    }
}

/// A session that became available learns of its contacts: of some what is remembered, of the others by probes.
pub(super) fn greet(
    account: &mut Account,
    id: SessionId,
    asked: impl Fn(&Account, &BareJid) -> bool,
    fx: &mut Effects,
) {
    let own = Jid::from(account.jid.clone());
    let now_ms = account.now.mono_ms;
    let contacts: Vec<BareJid> = account.roster.contacts().filter(|contact| asked(account, contact)).cloned().collect();
    for contact in contacts {
        let Some(known) = account.contacts.of(&contact, now_ms).map(<[_]>::to_vec) else {
            probe(account, &contact, fx);
            continue;
        };
        for stanza in known {
            let delivery = Delivery { stanza, to: Some(own.clone()), more: Default::default(), position: None };
            session::deliver(account, id, delivery, fx);
        }
    }
}

/// "Who is there?", from bare JID to bare JID. RFC 6121 §4.3.1.
pub(crate) fn probe(account: &Account, contact: &BareJid, fx: &mut Effects) {
    let stanza = Stanza::presence(PresenceType::Probe).with_from(account.jid.clone()).with_to(contact.clone());
    tell(contact, stanza, OWN, &Ticket::default(), fx);
}

#[cfg(test)]
mod tests {
    use crate::testing::{Fx, Scene, account_with, contact};
    use store::AccountRecord;

    fn juliet() -> Scene {
        let roster = vec![contact("romeo@example.net", "both"), contact("nurse@example.com", "to")];
        account_with("juliet@example.com", AccountRecord { roster, ..AccountRecord::default() })
    }

    fn probes(fx: &Fx) -> Vec<String> {
        fx.told().into_iter().filter(|(_, xml)| xml.contains("type='probe'")).map(|(to, _)| to).collect()
    }

    // RFC 2779 §3.3.1, §3.3.2.
    #[test]
    fn a_further_session_is_shown_what_is_remembered_and_nobody_is_asked_again() {
        let mut juliet = juliet().connected("balcony").connected("chamber").connected("cellar");
        assert_eq!(probes(&juliet.sends("balcony", "<presence/>")), ["nurse@example.com", "romeo@example.net"]);
        juliet.receive("<presence from='romeo@example.net/orchard'><show>away</show></presence>");
        juliet.receive("<presence from='romeo@example.net/tomb'/>");
        juliet.receive("<presence from='nurse@example.com' type='unavailable'/>");
        // The copy follows the master.
        juliet.receive("<presence from='romeo@example.net/orchard'><show>dnd</show></presence>");
        juliet.receive("<presence from='romeo@example.net/tomb' type='unavailable'/>");
        let fx = juliet.sends("chamber", "<presence/>");
        assert!(probes(&fx).is_empty(), "{:?}", fx.told());
        let shown = fx.delivered("chamber");
        let romeo: Vec<_> = shown.iter().filter(|xml| xml.contains("romeo@")).collect();
        assert!(romeo.len() == 1 && romeo[0].contains("<show>dnd</show>"), "{shown:?}");
        assert!(romeo[0].contains("to='juliet@example.com'"), "{romeo:?}");
        // What is old is asked for again.
        juliet.after_ms(super::FRESH_MS);
        assert_eq!(probes(&juliet.sends("cellar", "<presence/>")), ["nurse@example.com", "romeo@example.net"]);
    }

    // RFC 2779 §3.3.3.
    #[test]
    fn nothing_is_remembered_of_whom_the_account_may_not_see_or_does_not_want_to() {
        for ends in [
            "<presence to='romeo@example.net' type='unsubscribe'/>",
            "<iq type='set' id='1'><block xmlns='urn:xmpp:blocking'><item jid='romeo@example.net'/></block></iq>",
            "<iq type='set' id='1'><query xmlns='jabber:iq:roster'><item jid='romeo@example.net' subscription='remove'/></query></iq>",
        ] {
            let mut juliet = juliet().connected("balcony").connected("chamber");
            juliet.sends("balcony", "<presence/>");
            juliet.receive("<presence from='romeo@example.net/orchard'/>");
            juliet.sends("balcony", ends);
            let shown = juliet.sends("chamber", "<presence/>").delivered("chamber");
            assert!(shown.iter().all(|xml| !xml.contains("romeo@")), "{ends}: {shown:?}");
            assert_eq!(juliet.contacts.presences, 0, "{ends}");
        }
        let mut juliet = juliet().connected("balcony").connected("chamber");
        juliet.sends("balcony", "<presence/>");
        juliet.receive("<presence from='romeo@example.net/orchard'/>");
        juliet.receive("<presence from='romeo@example.net' type='unsubscribed'/>");
        assert!(juliet.sends("chamber", "<presence/>").delivered("chamber").iter().all(|xml| !xml.contains("romeo@")));
        // Of strangers nothing is, and when nobody is there any more, of nobody.
        juliet.receive("<presence from='paris@example.net/x'/>");
        juliet.receive("<presence from='nurse@example.com/x'/>");
        assert_eq!(juliet.contacts.presences, 1);
        juliet.sends("balcony", "<presence type='unavailable'/>");
        juliet.closes("chamber");
        assert_eq!(juliet.contacts.presences, 0);
    }
}
