//! Messages: delivery rules of RFC 6121 §5 and §8.5.

use crate::account::Account;
use crate::effects::{Effect, Effects};
use crate::inbox;
use crate::item::SessionId;
use crate::modules::carbons::{self, Side};
use crate::view::{Exit, Seen, view};
use crate::ways::{Flow, Passage};
use std::sync::Arc;
use xmpp::stanza::Child;
use xmpp::{Jid, MessageType, Stanza, StanzaCondition, StanzaError, StanzaType, ns};

const CARBONS: &str = carbons::NS;
const CHAT_STATES: &str = "http://jabber.org/protocol/chatstates";
const MAM: &str = "urn:xmpp:mam:";

/// The instant message service of the host is on. MISSION: services can be switched off one by one.
///
/// # Errors
/// `service-unavailable` if it is off.
pub fn service(
    account: &mut Account,
    passage: &mut Passage,
    _: &mut Effects,
) -> Result<Flow, StanzaError> {
    match passage.stanza.kind {
        StanzaType::Message(MessageType::Error) if !account.policy.messages => Ok(Flow::Done),
        _ if !account.policy.messages => Err(StanzaCondition::ServiceUnavailable.into()),
        _ => Ok(Flow::Next),
    }
}

/// Takes out what only the server may say: carbons and archive results (LIMITS.md §2 row 16), stanza-ids of the own
/// account (row 15, XEP-0359 §5), delays of the own host. A message that was nothing else is dropped.
pub fn strip_outbound(
    account: &mut Account,
    passage: &mut Passage,
    fx: &mut Effects,
) -> Result<Flow, StanzaError> {
    strip(account, passage, true, fx)
}

/// The same for what comes in; archive results may come from rooms.
pub fn strip_inbound(
    account: &mut Account,
    passage: &mut Passage,
    fx: &mut Effects,
) -> Result<Flow, StanzaError> {
    strip(account, passage, false, fx)
}

fn strip(
    account: &mut Account,
    passage: &mut Passage,
    outbound: bool,
    fx: &mut Effects,
) -> Result<Flow, StanzaError> {
    let wrapper = |child: &Child<'_>| {
        (child.ns == CARBONS && matches!(child.name, "received" | "sent"))
            || (outbound && child.name == "result" && child.ns.starts_with(MAM))
    };
    let names = |child: &Child<'_>, attribute: &str, jid: &Jid| {
        child
            .attribute(attribute)
            .and_then(|value| Jid::parse(&value).ok())
            .is_some_and(|by| by == *jid)
    };
    let forged = |child: &Child<'_>| {
        wrapper(child)
            || (child.ns == ns::SID
                && child.name == "stanza-id"
                && names(child, "by", &account.jid))
            || (child.ns == ns::DELAY
                && child.name == "delay"
                && names(child, "from", &account.policy.domain))
    };
    if !passage
        .stanza
        .payload
        .children()
        .any(|child| forged(&child))
    {
        return Ok(Flow::Next);
    }
    let had_wrapper = passage
        .stanza
        .payload
        .children()
        .any(|child| wrapper(&child));
    let payload = passage.stanza.payload.without(forged);
    fx.push(Effect::Count("forged_children_cut"));
    if had_wrapper && payload.children().next().is_none() {
        return Ok(Flow::Done);
    }
    passage.stanza = Arc::new(Stanza {
        payload,
        ..Stanza::clone(&passage.stanza)
    });
    Ok(Flow::Next)
}

/// Is a message kept, and where?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// Delivered now or not at all.
    No,
    /// Until it is delivered. XEP-0334 §4.1 `no-permanent-store`.
    Pending,
    /// In the archive also. XEP-0313 §6.1.1.
    Archive,
}

/// What is worth keeping: `normal` and `chat` (XEP-0160 §3) with any content but chat states and other passing things,
/// unless a hint says otherwise (XEP-0334 §4).
pub fn keeping(stanza: &Stanza) -> Keeping {
    if !matches!(
        stanza.kind,
        StanzaType::Message(MessageType::Normal | MessageType::Chat)
    ) {
        return Keeping::No;
    }
    let (mut content, mut permanent) = (false, true);
    for child in stanza.payload.children() {
        match (child.ns, child.name) {
            (ns::HINTS, "no-store") => return Keeping::No,
            (ns::HINTS, "no-permanent-store") => permanent = false,
            (ns::HINTS, "store") => content = true,
            (ns::HINTS | CHAT_STATES | CARBONS | ns::DELAY | ns::SID, _)
            | (ns::CLIENT, "thread") => {}
            _ => content = true,
        }
    }
    match (content, permanent) {
        (false, _) => Keeping::No,
        (true, false) => Keeping::Pending,
        (true, true) => Keeping::Archive,
    }
}

/// A message of the own client: told onwards, and into the own archive. RFC 6120 §10.3.1: without `to` it is for the
/// own bare JID.
pub fn outbound(
    account: &mut Account,
    passage: &mut Passage,
    fx: &mut Effects,
) -> Result<Flow, StanzaError> {
    fx.push(Effect::Tell {
        to: passage.to.clone(),
        stanza: passage.stanza.clone(),
        ingress: passage.ingress,
        ticket: passage.ticket.clone(),
    });
    // A message to oneself is in the archive once: as it comes in. XEP-0313 §6.1.1.
    let to_self = passage.to.same_bare(&account.jid);
    if account.policy.archive && !to_self && keeping(&passage.stanza) == Keeping::Archive {
        return Ok(inbox::log_outgoing(account, passage, fx));
    }
    Ok(Flow::Next)
}

/// A message for the account or one of its resources. RFC 6121 §8.5.2.1.1, §8.5.2.2.1, §8.5.3.1, §8.5.3.2.1.
///
/// # Errors
/// `service-unavailable` if nobody takes it and it cannot be kept.
pub fn inbound(
    account: &mut Account,
    passage: &mut Passage,
    fx: &mut Effects,
) -> Result<Flow, StanzaError> {
    let StanzaType::Message(kind) = passage.stanza.kind else {
        return Ok(Flow::Next);
    };
    let keeping = keeping(&passage.stanza);
    let ids = match fate(account, &passage.to, kind) {
        Fate::Deliver(ids) => ids,
        Fate::Keep if keeping == Keeping::No && !worth_an_error(&passage.stanza) => {
            return Ok(Flow::Done);
        }
        Fate::Keep => Vec::new(),
        Fate::Refuse => {
            let from = passage
                .stanza
                .from
                .clone()
                .unwrap_or_else(|| passage.to.clone());
            // To a stranger the error would tell that the resource is not there. RFC 6121 §8.1. A message that would
            // be kept has an outcome nevertheless: the same as from an account that does not exist.
            let bare = passage.to.is_bare();
            if !bare
                && keeping == Keeping::No
                && view(account, &from, Exit::MessageError) == Seen::Nothing
            {
                return Ok(Flow::Done);
            }
            return Err(StanzaCondition::ServiceUnavailable.into());
        }
        Fate::Ignore => return Ok(Flow::Done),
    };
    let ingress = Some(passage.ingress);
    inbox::accept(account, passage, &ids, keeping, ingress, fx)
}

/// Carbons of what the own client sent, for the other clients. XEP-0280 §8.
pub fn copy_sent(
    account: &mut Account,
    passage: &mut Passage,
    fx: &mut Effects,
) -> Result<Flow, StanzaError> {
    // A message to oneself comes in as such.
    if !passage.to.same_bare(&account.jid) {
        let more = inbox::additions(account, passage, false);
        let had: Vec<SessionId> = passage.session.into_iter().collect();
        carbons::copies(account, &passage.stanza, Side::Sent, &had, &more, fx);
    }
    Ok(Flow::Next)
}

/// Carbons of what came in, for those who have not been given it. XEP-0280 §7.
pub fn copy_received(
    account: &mut Account,
    passage: &mut Passage,
    fx: &mut Effects,
) -> Result<Flow, StanzaError> {
    let more = inbox::additions(account, passage, false);
    let mut had = passage.taken_by.clone();
    // The own client that sent a message to its own account knows it.
    let sender = passage.stanza.from.as_ref();
    had.extend(
        account
            .sessions
            .iter()
            .filter(|s| sender == Some(&*s.jid))
            .map(|s| s.id),
    );
    carbons::copies(account, &passage.stanza, Side::Received, &had, &more, fx);
    Ok(Flow::Next)
}

/// A message that a session had and did not take goes its way again. XEP-0198 §4.
pub(crate) fn again(account: &mut Account, stanza: &Arc<Stanza>, fx: &mut Effects) {
    let ids = most_available(account);
    let mut passage = Passage::of(account, stanza.clone());
    let keeping = keeping(stanza);
    if let Err(error) = inbox::accept(account, &mut passage, &ids, keeping, None, fx)
        && let Some(from) = stanza.from.clone()
    {
        crate::ways::answer(account, &from, stanza, &error, &passage.ticket, fx);
    }
}

/// What RFC 6121 §8.5 says of a message.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// To these sessions; never empty.
    Deliver(Vec<SessionId>),
    /// Nobody is there to take it: store it, or refuse.
    Keep,
    Refuse,
    Ignore,
}

fn fate(account: &Account, to: &Jid, kind: MessageType) -> Fate {
    let matching = to.resource().and_then(|resource| {
        account
            .sessions
            .iter()
            .find(|s| s.jid.resource_str() == resource)
    });
    if let Some(session) = matching {
        return Fate::Deliver(vec![session.id]);
    }
    let deliver_or = |ids: Vec<SessionId>, otherwise| {
        if ids.is_empty() {
            otherwise
        } else {
            Fate::Deliver(ids)
        }
    };
    match (kind, to.is_bare()) {
        (MessageType::Error, _) => Fate::Ignore,
        (MessageType::Normal, true) | (MessageType::Chat, _) => {
            deliver_or(most_available(account), Fate::Keep)
        }
        (MessageType::Headline, true) => {
            let takers = account.sessions.iter().filter(|s| s.takes_messages());
            deliver_or(takers.map(|s| s.id).collect(), Fate::Ignore)
        }
        (MessageType::Groupchat, _) | (MessageType::Normal | MessageType::Headline, false) => {
            Fate::Refuse
        }
    }
}

/// The "most available" resources: all of the highest priority, provided that is not negative. RFC 6121 §8.5.2.1.1.
pub fn most_available(account: &Account) -> Vec<SessionId> {
    let takers = || account.sessions.iter().filter(|s| s.takes_messages());
    let highest = takers().map(|s| s.priority).max();
    takers()
        .filter(|s| Some(s.priority) == highest)
        .map(|s| s.id)
        .collect()
}

/// May not be stored, but somebody wrote it: the sender hears that it did not arrive.
fn worth_an_error(stanza: &Stanza) -> bool {
    stanza.payload.has("body", ns::CLIENT)
}
