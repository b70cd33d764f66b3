//! Messages: delivery rules of RFC 6121 §5 and §8.5.

use crate::account::Account;
use crate::effects::{Effect, Effects};
use crate::inbox;
use crate::item::SessionId;
use crate::modules::carbons::{self, Side};
use crate::rules::Delivery;
use crate::view::{self, Exit, view};
use crate::ways::{Flow, Passage};
use std::sync::Arc;
use xmpp::stanza::Child;
use xmpp::{Jid, MessageType, Stanza, StanzaCondition, StanzaError, StanzaType, ns};

const CARBONS: &str = carbons::NS;
pub(crate) const CHAT_STATES: &str = "http://jabber.org/protocol/chatstates";
/// XEP-0184, XEP-0333.
const RECEIPTS: &str = "urn:xmpp:receipts";
const MARKERS: &str = "urn:xmpp:chat-markers:0";
const MAM: &str = "urn:xmpp:mam:";

/// The instant message service of the host is on. MISSION: services can be switched off one by one.
///
/// # Errors
/// `service-unavailable` if it is off.
pub fn service(account: &mut Account, passage: &mut Passage, _: &mut Effects) -> Result<Flow, StanzaError> {
    match passage.stanza.kind {
        StanzaType::Message(MessageType::Error) if !account.policy.messages => Ok(Flow::Done),
        _ if !account.policy.messages => Err(StanzaCondition::ServiceUnavailable.into()),
        _ => Ok(Flow::Next),
    }
}

/// Takes out what only the server may say: carbons and archive results (LIMITS.md §2 row 16), stanza-ids of the own
/// account (row 15, XEP-0359 §5), delays of the own host. A message that was nothing else is dropped.
pub fn strip_outbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    strip(account, passage, true, fx)
}

/// The same for what comes in; archive results may come from rooms.
pub fn strip_inbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    strip(account, passage, false, fx)
}

fn strip(account: &mut Account, passage: &mut Passage, outbound: bool, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let wrapper = |child: &Child<'_>| {
        (child.ns == CARBONS && matches!(child.name, "received" | "sent"))
            || (outbound && child.name == "result" && child.ns.starts_with(MAM))
    };
    let names = |child: &Child<'_>, attribute: &str, jid: &Jid| {
        child.attribute(attribute).and_then(|value| Jid::parse(&value).ok()).is_some_and(|by| by == *jid)
    };
    let forged = |child: &Child<'_>| {
        wrapper(child)
            || (child.ns == ns::SID && child.name == "stanza-id" && names(child, "by", &account.jid))
            || (child.ns == ns::DELAY && child.name == "delay" && names(child, "from", &account.policy.domain))
    };
    if !passage.stanza.payload.children().any(|child| forged(&child)) {
        return Ok(Flow::Next);
    }
    let had_wrapper = passage.stanza.payload.children().any(|child| wrapper(&child));
    let payload = passage.stanza.payload.without(forged);
    fx.push(Effect::Count("forged_children_cut"));
    if had_wrapper && payload.children().next().is_none() {
        return Ok(Flow::Done);
    }
    passage.stanza = Arc::new(Stanza { payload, ..Stanza::clone(&passage.stanza) });
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
    if !matches!(stanza.kind, StanzaType::Message(MessageType::Normal | MessageType::Chat)) {
        return Keeping::No;
    }
    let (mut content, mut permanent) = (false, true);
    for child in stanza.payload.children() {
        match (child.ns, child.name) {
            (ns::HINTS, "no-store") => return Keeping::No,
            (ns::HINTS, "no-permanent-store") => permanent = false,
            (ns::HINTS, "store") => content = true,
            (ns::HINTS | CHAT_STATES | CARBONS | ns::DELAY | ns::SID, _) | (ns::CLIENT, "thread") => {}
            _ => content = true,
        }
    }
    match (content, permanent) {
        (false, _) => Keeping::No,
        (true, false) => Keeping::Pending,
        (true, true) => Keeping::Archive,
    }
}

/// What a client says by itself to whoever is politely blocked goes nowhere: receipts, markers and chat states would tell
/// that somebody is here.
pub fn unseen(account: &mut Account, passage: &mut Passage, _: &mut Effects) -> Result<Flow, StanzaError> {
    let is_automatic = |child: Child<'_>| {
        matches!(child.ns, RECEIPTS | MARKERS | CHAT_STATES | ns::HINTS | ns::SID) || child.is("thread", ns::CLIENT)
    };
    let says_nothing = !passage.stanza.payload.is_empty() && passage.stanza.payload.children().all(is_automatic);
    if says_nothing && view::is_away_for(account, &passage.to) {
        return Ok(Flow::Done);
    }
    Ok(Flow::Next)
}

/// A message of the own client: told onwards, and into the own archive. RFC 6120 §10.3.1: without `to` it is for the
/// own bare JID.
pub fn outbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    fx.push(Effect::Tell {
        to: passage.to.clone(),
        stanza: passage.stanza.clone(),
        ingress: passage.ingress,
        ticket: passage.ticket.clone(),
    });
    // A message to oneself is in the archive once: as it comes in. XEP-0313 §6.1.1.
    let to_self = passage.to.same_bare(&account.jid);
    if account.policy.archive
        && !to_self
        && keeping(&passage.stanza) == Keeping::Archive
        && account.archive_preferences.archive(&passage.to, &account.roster)
    {
        return Ok(inbox::log_outgoing(account, passage, fx));
    }
    Ok(Flow::Next)
}

/// A message for the account or one of its resources. RFC 6121 §8.5.2.1.1, §8.5.2.2.1, §8.5.3.1, §8.5.3.2.1.
///
/// # Errors
/// `service-unavailable` if nobody takes it and it cannot be kept.
pub fn inbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let StanzaType::Message(kind) = passage.stanza.kind else {
        return Ok(Flow::Next);
    };
    let keeping = keeping(&passage.stanza);
    let delivery = passage.stanza.from.as_ref().map_or(Delivery::Deliver, |from| view::delivery_of(account, from));
    let fate = match delivery {
        Delivery::Deliver => fate(account, &passage.to, kind),
        // What became of the owner's own message he hears from anybody: it has one outcome, and he is told.
        _ if kind == MessageType::Error && passage.to.resource().is_some() => fate(account, &passage.to, kind),
        Delivery::Store if !passage.stanza.from.as_ref().is_some_and(|from| view::is_away_for(account, from)) => {
            // What cannot be kept is not held back.
            if keeping == Keeping::No { fate(account, &passage.to, kind) } else { Fate::Keep }
        }
        // The sender hears what he would hear of somebody who is away.
        Delivery::Store | Delivery::Drop => fate_away(&passage.to, kind),
        Delivery::Refuse if kind == MessageType::Error => Fate::Ignore,
        Delivery::Refuse => Fate::Refuse,
    };
    passage.quiet = delivery != Delivery::Deliver;
    if delivery == Delivery::Drop && fate == Fate::Keep && (keeping != Keeping::No || !worth_an_error(&passage.stanza))
    {
        fx.push(Effect::Count("messages_dropped_by_rule"));
        return Ok(Flow::Done);
    }
    let ids = match fate {
        // No client is given messages on this host.
        Fate::Deliver(_) if !account.policy.client_messages => Vec::new(),
        Fate::Deliver(ids) => ids,
        Fate::Keep if keeping == Keeping::No && !worth_an_error(&passage.stanza) => {
            return Ok(Flow::Done);
        }
        Fate::Keep => Vec::new(),
        Fate::Refuse => {
            let from = passage.stanza.from.clone().unwrap_or_else(|| passage.to.clone());
            if !view(account, &from, Exit::MessageError).shows() {
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
pub fn copy_sent(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    // A message to oneself comes in as such.
    if !passage.to.same_bare(&account.jid) {
        let more = inbox::additions(account, passage, false);
        let had: Vec<SessionId> = passage.session.into_iter().collect();
        carbons::copies(account, &passage.stanza, Side::Sent, &had, &more, fx);
    }
    Ok(Flow::Next)
}

/// Carbons of what came in, for those who have not been given it. XEP-0280 §7.
pub fn copy_received(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    if passage.quiet {
        return Ok(Flow::Next);
    }
    let more = inbox::additions(account, passage, false);
    let mut had = passage.taken_by.clone();
    // The own client that sent a message to its own account knows it.
    let sender = passage.stanza.from.as_ref();
    had.extend(account.sessions.iter().filter(|s| sender == Some(&*s.jid)).map(|s| s.id));
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
    let matching =
        to.resource().and_then(|resource| account.sessions.iter().find(|s| s.jid.resource_str() == resource));
    // A session that is no inbox is none for messages.
    if let Some(session) = matching.filter(|session| session.roles.inbox) {
        return Fate::Deliver(vec![session.id]);
    }
    let takers: Vec<SessionId> = match (kind, to.is_bare()) {
        (MessageType::Normal, true) | (MessageType::Chat, _) => most_available(account),
        (MessageType::Headline, true) => account.sessions.iter().filter(|s| s.takes_messages()).map(|s| s.id).collect(),
        _ => Vec::new(),
    };
    if takers.is_empty() { fate_away(to, kind) } else { Fate::Deliver(takers) }
}

/// The same where nobody is there.
fn fate_away(to: &Jid, kind: MessageType) -> Fate {
    match (kind, to.is_bare()) {
        (MessageType::Error, _) | (MessageType::Headline, true) => Fate::Ignore,
        (MessageType::Normal, true) | (MessageType::Chat, _) => Fate::Keep,
        (MessageType::Groupchat, _) | (MessageType::Normal | MessageType::Headline, false) => Fate::Refuse,
    }
}

/// The "most available" resources: all of the highest priority, provided that is not negative. RFC 6121 §8.5.2.1.1.
pub fn most_available(account: &Account) -> Vec<SessionId> {
    let takers = || account.sessions.iter().filter(|s| s.takes_messages());
    let highest = takers().map(|s| s.priority).max();
    takers().filter(|s| Some(s.priority) == highest).map(|s| s.id).collect()
}

/// May not be stored, but somebody wrote it: the sender hears that it did not arrive.
fn worth_an_error(stanza: &Stanza) -> bool {
    stanza.payload.has("body", ns::CLIENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fx, Scene, account, archive_id, stanza};

    const JULIET: &str = "juliet@capulet.example";
    const ROMEO: &str = "romeo@montague.example/garden";

    fn juliet(resources: &[(&str, Option<i8>)]) -> Scene {
        resources.iter().fold(account(JULIET), |scene, (resource, priority)| match priority {
            Some(priority) => scene.with(resource, *priority),
            None => scene.connected(resource),
        })
    }

    fn message(kind: &str, to: &str, content: &str) -> String {
        format!("<message type='{kind}' from='{ROMEO}' to='{to}' id='m1'>{content}</message>")
    }

    /// What became of it, in one word or the resources that were given it.
    fn outcome(fx: &Fx) -> String {
        let told = fx.told();
        assert!(told.len() <= 1, "{told:?}");
        match (fx.written_to(), fx.appended().len(), told.first()) {
            (given, 0 | 1, None) if !given.is_empty() => given.join(" "),
            (_, 1, None) => "offline".into(),
            (given, 0, Some((to, xml))) if given.is_empty() => {
                assert_eq!(to, ROMEO);
                assert!(xml.contains("<service-unavailable") && xml.contains("type='error'"), "{xml}");
                assert!(xml.contains(&format!("to='{ROMEO}'")) && xml.contains("id='m1'"), "{xml}");
                "error".into()
            }
            (_, 0, None) => "nothing".into(),
            other => panic!("more than one outcome: {other:?}"),
        }
    }

    /// RFC 6121 §8.5.2, §8.5.3 and the table of §8.5.4, row by row.
    #[test]
    fn every_row_of_the_delivery_rules_is_kept() {
        // resources with their priorities | resource in 'to' | normal, chat, groupchat, headline, error
        let rows = "\
            # §8.5.2.2, §8.5.3.2: no available resource
            |       | offline  offline  error  nothing  nothing
            | gone  | error    offline  error  error    nothing
            home |      | offline offline error nothing nothing
            home | gone | error   offline error error   nothing
            # §8.5.3.1: a resource that is connected and not available matches, too
            home | home | home home home home home
            # §8.5.2.1.1: none of non-negative priority
            home=-1 phone=-128 |       | offline offline error nothing nothing
            home=-1 phone=-128 | phone | phone   phone   phone phone   phone
            home=-1 phone=-128 | gone  | error   offline error error   nothing
            # one of non-negative priority
            home=0          |       | home  home  error home  nothing
            home=0          | home  | home  home  home  home  home
            home=0          | gone  | error home  error error nothing
            home=0 phone=-5 |       | home  home  error home  nothing
            home=0 phone=-5 | phone | phone phone phone phone phone
            home=0 phone=-5 | gone  | error home  error error nothing
            # several: the most available one; headlines to all
            home=5 phone=0 tablet=-1 tv |        | home   home   error  home+phone nothing
            home=5 phone=0 tablet=-1 tv | phone  | phone  phone  phone  phone      phone
            home=5 phone=0 tablet=-1 tv | tablet | tablet tablet tablet tablet     tablet
            home=5 phone=0 tablet=-1 tv | tv     | tv     tv     tv     tv         tv
            home=5 phone=0 tablet=-1 tv | gone   | error  home   error  error      nothing
            # equal priorities: all of the highest
            home=3 phone=1 tablet=3 |       | home+tablet home+tablet error home+phone+tablet nothing
            home=3 phone=1 tablet=3 | phone | phone       phone       phone phone             phone
            home=3 phone=1 tablet=3 | gone  | error       home+tablet error error             nothing";
        let mut tried = 0;
        for row in rows.lines().map(str::trim).filter(|row| !row.starts_with('#')) {
            let [resources, resource, outcomes] =
                row.split('|').map(str::trim).collect::<Vec<_>>().try_into().expect("three columns");
            let to = if resource.is_empty() { JULIET.to_owned() } else { format!("{JULIET}/{resource}") };
            for (kind, expected) in KINDS.iter().zip(outcomes.split_whitespace()) {
                let mut juliet =
                    resources.split_whitespace().fold(account(JULIET), |scene, item| match item.split_once('=') {
                        Some((name, priority)) => scene.with(name, priority.parse().expect("a priority")),
                        None => scene.connected(item),
                    });
                let fx = juliet.receive(&message(kind, &to, "<body>hi</body>"));
                assert_eq!(outcome(&fx).replace(' ', "+"), expected, "{kind} to '{resource}' of {resources}");
                tried += 1;
            }
        }
        assert_eq!(tried, 22 * 5);
    }

    const KINDS: [&str; 5] = ["normal", "chat", "groupchat", "headline", "error"];

    #[test]
    fn a_message_to_the_bare_jid_goes_to_the_resource_of_highest_priority() {
        let mut juliet = account("juliet@capulet.example").with("home", 5).with("phone", 0);
        let fx = juliet.receive("<message type='chat' from='romeo@montague.example/x'><body>hi</body></message>");
        assert_eq!(fx.written_to(), ["home"]);
    }

    // RFC 6121 §8.5.2.1.1: "MUST NOT rewrite the 'to' attribute".
    #[test]
    fn the_address_of_a_message_is_delivered_as_it_came() {
        let mut juliet = juliet(&[("home", Some(0))]);
        let fx = juliet.receive(&message("chat", JULIET, "<body>hi</body>"));
        assert!(fx.delivered("home")[0].contains("to='juliet@capulet.example'"), "{:?}", fx.delivered("home"));
        let fx = juliet.receive(&message("chat", "juliet@capulet.example/gone", "<body>ho</body>"));
        assert!(fx.delivered("home")[0].contains("to='juliet@capulet.example/gone'"));
    }

    // LIMITS.md §2 row 41.
    #[test]
    fn a_stranger_hears_of_a_resource_that_is_gone_what_an_account_that_does_not_exist_would_say() {
        let mut juliet = juliet(&[("home", Some(0))]);
        let gone = format!("{JULIET}/gone");
        for kind in ["normal", "groupchat", "headline"] {
            assert_eq!(outcome(&juliet.receive(&message(kind, &gone, "<body>hi</body>"))), "error", "{kind}");
        }
    }

    // XEP-0160 §3, XEP-0313 §6.1.1, XEP-0334 §4.
    #[test]
    fn a_message_is_kept_according_to_type_content_and_hints() {
        use Keeping::{Archive, No, Pending};
        let rows = [
            ("chat", "<body>hi</body>", Archive),
            ("normal", "<body>hi</body>", Archive),
            ("normal", "<subject>hi</subject>", Archive),
            ("chat", "<received xmlns='urn:xmpp:receipts' id='1'/>", Archive),
            ("chat", "<composing xmlns='http://jabber.org/protocol/chatstates'/>", No),
            ("chat", "<paused xmlns='http://jabber.org/protocol/chatstates'/><thread>t</thread>", No),
            ("chat", "<active xmlns='http://jabber.org/protocol/chatstates'/><body>hi</body>", Archive),
            ("chat", "", No),
            ("chat", "<body>hi</body><no-store xmlns='urn:xmpp:hints'/>", No),
            ("chat", "<body>hi</body><no-permanent-store xmlns='urn:xmpp:hints'/>", Pending),
            ("chat", "<store xmlns='urn:xmpp:hints'/>", Archive),
            ("chat", "<store xmlns='urn:xmpp:hints'/><no-store xmlns='urn:xmpp:hints'/>", No),
            ("groupchat", "<body>hi</body>", No),
            ("headline", "<body>hi</body>", No),
            ("error", "<body>hi</body><store xmlns='urn:xmpp:hints'/>", No),
        ];
        for (kind, content, expected) in rows {
            let stanza = stanza(&format!("<message type='{kind}'>{content}</message>"));
            assert_eq!(super::keeping(&stanza), expected, "{kind} {content}");
        }
    }

    #[test]
    fn a_chat_state_is_not_stored_and_not_refused() {
        let mut juliet = juliet(&[]);
        let state = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
        assert_eq!(outcome(&juliet.receive(&message("chat", JULIET, state))), "nothing");
    }

    #[test]
    fn a_message_that_must_not_be_stored_is_refused_when_nobody_is_there() {
        let mut juliet = juliet(&[]);
        let text = "<body>hi</body><no-store xmlns='urn:xmpp:hints'/>";
        assert_eq!(outcome(&juliet.receive(&message("chat", JULIET, text))), "error");
    }

    // LIMITS.md §2 row 15.
    #[test]
    fn no_forged_stanza_id_of_the_account_survives() {
        let mut juliet = juliet(&[("home", Some(0))]);
        let forged = "<stanza-id xmlns='urn:xmpp:sid:0' id='1' by='juliet@capulet.example'/>\
            <body>hi</body>\
            <stanza-id xmlns='urn:xmpp:sid:0' id='2' by='Juliet@CAPULET.example'/>\
            <stanza-id xmlns='urn:xmpp:sid:0' id='3' by='room@muc.example'/>";
        let fx = juliet.receive(&message("chat", JULIET, forged));
        let xml = fx.delivered("home").remove(0);
        assert_eq!(xml.matches("<stanza-id").count(), 2, "{xml}");
        assert!(xml.contains("id='3' by='room@muc.example'"), "{xml}");
        let position = archive_id(fx.appended()[0].position);
        assert!(xml.contains(&format!("id='{position}' by='juliet@capulet.example'")), "{xml}");
        let stored = String::from_utf8(fx.appended()[0].stanza.clone()).expect("UTF-8");
        assert_eq!(stored.matches("<stanza-id").count(), 1, "{stored}");
    }

    #[test]
    fn no_forged_delay_of_the_host_survives() {
        let mut juliet = juliet(&[("home", Some(0))]);
        let text = "<body>hi</body><delay xmlns='urn:xmpp:delay' from='capulet.example' stamp='2002-09-10T23:08:25Z'/>\
            <delay xmlns='urn:xmpp:delay' from='montague.example' stamp='2002-09-10T23:08:25Z'/>";
        let xml = juliet.receive(&message("chat", JULIET, text)).delivered("home").remove(0);
        assert!(!xml.contains("from='capulet.example'") && xml.contains("from='montague.example'"), "{xml}");
    }

    // LIMITS.md §2 row 16.
    #[test]
    fn wrappers_that_only_a_server_makes_do_not_leave_the_client() {
        let forwarded = "<forwarded xmlns='urn:xmpp:forward:0'><message><body>forged</body></message></forwarded>";
        let wrappers = [
            format!("<received xmlns='urn:xmpp:carbons:2'>{forwarded}</received>"),
            format!("<sent xmlns='urn:xmpp:carbons:2'>{forwarded}</sent>"),
            format!("<result xmlns='urn:xmpp:mam:2' id='1'>{forwarded}</result>"),
        ];
        let mut juliet = juliet(&[("home", Some(0))]);
        for wrapper in wrappers {
            let fx = juliet.sends("home", &format!("<message to='{ROMEO}'>{wrapper}</message>"));
            assert_eq!(fx.told_to(), Vec::<String>::new(), "{wrapper}");
            let fx = juliet.sends("home", &format!("<message to='{ROMEO}'><body>hi</body>{wrapper}</message>"));
            let told = fx.told();
            assert!(!told[0].1.contains("forged") && told[0].1.contains("<body>hi</body>"), "{told:?}");
        }
    }

    #[test]
    fn a_forged_carbon_is_not_delivered() {
        let mut juliet = juliet(&[("home", Some(0))]);
        let carbon = "<sent xmlns='urn:xmpp:carbons:2'/>";
        assert_eq!(outcome(&juliet.receive(&message("chat", JULIET, carbon))), "nothing");
    }

    #[test]
    fn the_sender_of_a_message_is_the_session() {
        let mut juliet = juliet(&[("home", Some(0))]);
        let fx = juliet.sends("home", "<message to='romeo@montague.example' type='chat'><body>hi</body></message>");
        let told = fx.told();
        assert_eq!(told[0].0, "romeo@montague.example");
        assert!(told[0].1.contains("from='juliet@capulet.example/home'"), "{told:?}");
    }

    // RFC 6120 §10.3.1.
    #[test]
    fn a_message_without_an_address_is_for_the_own_bare_jid() {
        let mut juliet = juliet(&[("home", Some(0))]);
        let fx = juliet.sends("home", "<message type='chat'><body>note</body></message>");
        assert_eq!(fx.told_to(), ["juliet@capulet.example"]);
        assert!(fx.told()[0].1.contains("to='juliet@capulet.example'"));
        // It is in the archive once: as it comes in. XEP-0313 §6.1.1.
        assert!(fx.appended().is_empty());
    }

    #[test]
    fn what_a_client_sends_is_told_before_it_is_logged() {
        let mut juliet = juliet(&[("home", Some(0))]);
        let fx = juliet.sends("home", "<message to='romeo@montague.example' type='chat'><body>hi</body></message>");
        let record = &fx.appended()[0];
        assert!(!record.pending && record.archived);
        assert_eq!(record.direction, store::Direction::Outgoing);
        assert_eq!(record.peer.as_str(), "romeo@montague.example");
        let told = |e: &Effect| matches!(e, Effect::Tell { .. });
        assert!(fx.in_order(told, |e| matches!(e, Effect::Commit { .. })));
    }

    #[test]
    fn without_an_archive_what_a_client_sends_is_not_logged() {
        let mut juliet = juliet(&[("home", Some(0))]).policy(|policy| policy.archive = false);
        let fx = juliet.sends("home", "<message to='romeo@montague.example' type='chat'><body>hi</body></message>");
        assert!(fx.appended().is_empty());
        assert_eq!(fx.told_to(), ["romeo@montague.example"]);
    }

    #[test]
    fn a_host_without_messages_refuses_them_both_ways() {
        let mut juliet = juliet(&[("home", Some(0))]).policy(|policy| policy.messages = false);
        let fx = juliet.sends("home", &format!("<message to='{ROMEO}' id='m1'><body>hi</body></message>"));
        assert!(fx.delivered("home")[0].contains("<service-unavailable"), "{:?}", fx.list);
        assert!(fx.told_to().is_empty());
        assert_eq!(outcome(&juliet.receive(&message("chat", JULIET, "<body>hi</body>"))), "error");
    }

    // RFC 6120 §8.3.1.
    #[test]
    fn an_error_is_never_answered() {
        let mut juliet = juliet(&[]).policy(|policy| policy.messages = false);
        assert_eq!(outcome(&juliet.receive(&message("error", JULIET, "<body>hi</body>"))), "nothing");
    }

    // XEP-0280 §7.
    #[test]
    fn a_carbon_follows_the_message_and_carries_its_stanza_id() {
        let mut juliet = juliet(&[("home", Some(5)), ("phone", Some(0))]).having("phone", |s| s.carbons = true);
        let fx = juliet.receive(&message("chat", JULIET, "<body>hi</body>"));
        assert_eq!(fx.written_to(), ["home", "phone"]);
        let carbon = fx.delivered("phone").remove(0);
        assert!(carbon.contains("<received xmlns='urn:xmpp:carbons:2'>"), "{carbon}");
        assert!(carbon.contains(&format!("id='{}'", archive_id(fx.appended()[0].position))), "{carbon}");
    }

    // XEP-0280 §8.
    #[test]
    fn what_one_client_sends_the_others_see() {
        let mut juliet = juliet(&[("home", Some(5)), ("phone", Some(0))]).having("phone", |s| s.carbons = true);
        let fx = juliet.sends("home", &format!("<message to='{ROMEO}' type='chat'><body>hi</body></message>"));
        assert_eq!(fx.written_to(), ["phone"]);
        assert!(fx.delivered("phone")[0].contains("<sent xmlns='urn:xmpp:carbons:2'>"));
    }

    #[test]
    fn an_account_that_was_just_removed_answers_as_if_it_were_not_there() {
        let mut juliet = juliet(&[]);
        juliet.account.removed = true;
        assert_eq!(outcome(&juliet.receive(&message("chat", JULIET, "<body>hi</body>"))), "error");
    }
}
