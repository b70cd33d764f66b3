//! Push Notifications, XEP-0357: a client that has no stream is woken by a service of its maker.
//!
//! A notification says how many messages wait, and nothing of who wrote them or what (§9).

use super::data_form;
use crate::account::Account;
use crate::effects::{Effect, Effects};
use crate::item::{Ingress, SessionId, Ticket};
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::ways::{Flow, Passage};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use store::{Change, SETTINGS};
use xmpp::{Element, IqType, Jid, Stanza, StanzaCondition, StanzaError, StanzaType, ns};

pub const NS: &str = "urn:xmpp:push:0";
const REGISTRATIONS: &str = "urn:waft:push-registrations:0";
const SUMMARY: &str = "urn:xmpp:push:summary";
const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
const PUBLISH_OPTIONS: &str = "http://jabber.org/protocol/pubsub#publish-options";

/// Where registrations are kept, in the space of settings.
pub const KEY: &str = "push";
/// Services and nodes of one account; the oldest goes first.
const REGISTRATIONS_MAX: usize = 16;
const REGISTRATION_BYTES_MAX: usize = 4 << 10;
/// Notifications of one service that it has not answered with a result: what comes beyond waits for that. A client may name
/// anybody as its service, who must not hear of each message.
const UNANSWERED_MAX: u32 = 8;
/// … or for a service that is back again, so long after the latest.
const UNANSWERED_MS: u64 = 60_000;
/// After so many passing errors in a row the operator reads of it.
const ERRORS_TOLD: u32 = 5;
/// Conditions by which a service says that it does not know the registration, or wants no more of it: it ends. Others
/// pass, such as those of a service that is not there at the moment. §7.1.
const PERMANENT: &[&str] = &[
    "bad-request",
    "feature-not-implemented",
    "forbidden",
    "gone",
    "item-not-found",
    "jid-malformed",
    "not-acceptable",
    "not-allowed",
    "not-authorized",
    "registration-required",
];

/// Payloads besides a body that a user wants to be woken for: encrypted messages, calls.
const WORTH: &[(&str, &str)] = &[
    ("encrypted", "eu.siacs.conversations.axolotl"),
    ("encrypted", "urn:xmpp:omemo:2"),
    ("propose", "urn:xmpp:jingle-message:0"),
];

pub static MODULE: Module = Module {
    name: "push",
    specs: &[xep(357, "0.4.1")],
    account_features: &[NS, REGISTRATIONS],
    account_iq: &[
        (IqType::Set, NS, "enable", Who::Owner, enable),
        (IqType::Set, NS, "disable", Who::Owner, disable),
        (IqType::Get, REGISTRATIONS, "registrations", Who::Owner, show),
    ],
    ..Module::EMPTY
};

/// A service that notifies one of the account's clients.
#[derive(Debug)]
pub struct Registration {
    service: Jid,
    node: String,
    /// The form of publish-options, as the client gave it.
    options: Option<Element>,
    /// Which session enabled it, if that was since the account was loaded: while it has a stream, it needs no waking.
    session: Option<SessionId>,
    errors: u32,
    /// Notifications since the last result, and when the latest was sent (monotonic milliseconds).
    unanswered: u32,
    told_at: u64,
    /// One was not sent that is due.
    owed: bool,
}

/// As they were stored, with what is known of them since; what cannot be read is left out.
pub fn restored(value: Option<&[u8]>, known: &[Registration]) -> Vec<Registration> {
    let mut registrations = from_stored(value);
    for registration in &mut registrations {
        let same = |k: &&Registration| k.service == registration.service && k.node == registration.node;
        if let Some(known) = known.iter().find(same) {
            (registration.session, registration.errors) = (known.session, known.errors);
            (registration.unanswered, registration.told_at) = (known.unanswered, known.told_at);
            registration.owed = known.owed;
        }
    }
    registrations
}

fn from_stored(value: Option<&[u8]>) -> Vec<Registration> {
    let all = value.and_then(|bytes| Element::parse(bytes, NS).ok());
    let read = |all: &Element| all.elements().filter_map(|enable| registration(enable, None).ok()).collect();
    all.as_ref().map(read).unwrap_or_default()
}

fn to_stored(registrations: &[Registration]) -> Vec<u8> {
    let stored = registrations.iter().map(|registration| {
        Element::new("enable", NS)
            .attr("jid", registration.service.as_str())
            .attr("node", &registration.node)
            .children_from(registration.options.clone())
    });
    Element::new("push", NS).children_from(stored).to_bytes("")
}

/// §5.
fn registration(enable: &Element, session: Option<SessionId>) -> Result<Registration, StanzaError> {
    let options = enable.find("x", ns::DATA_FORM);
    if options.is_some() && data_form::submitted(enable, &[PUBLISH_OPTIONS]).is_none() {
        return Err(StanzaCondition::BadRequest.into());
    }
    let (service, node) = names(enable)?;
    Ok(Registration {
        service,
        node: node.unwrap_or_default(),
        options: options.cloned(),
        session,
        errors: 0,
        unanswered: 0,
        told_at: 0,
        owed: false,
    })
}

fn names(command: &Element) -> Result<(Jid, Option<String>), StanzaError> {
    let service = command.attribute("jid").ok_or(StanzaCondition::BadRequest)?;
    let service = Jid::parse(service).map_err(|fault| xmpp::error::jid_malformed(&fault))?;
    Ok((service, command.attribute("node").map(str::to_owned)))
}

/// The same service and node again: the last request counts. §5.
fn enable(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let mut new = registration(iq.child, iq.session)?;
    if new.service.same_bare(&account.jid) {
        return Err(StanzaCondition::NotAcceptable.into());
    }
    if iq.child.to_bytes("").len() > REGISTRATION_BYTES_MAX {
        return Err(StanzaCondition::ResourceConstraint.into());
    }
    // Asking again does not make up for what is not answered.
    let known = account.push.iter().filter(|known| known.service == new.service).map(debt);
    (new.unanswered, new.told_at) = known.chain([account.push_gone]).max().unwrap_or_default();
    account.push.retain(|known| (&known.service, &known.node) != (&new.service, &new.node));
    if account.push.len() >= REGISTRATIONS_MAX {
        account.push_gone = account.push_gone.max(debt(&account.push.remove(0)));
    }
    account.push.push(new);
    save(account, Some(iq.stanza), iq.ticket, fx);
    Ok(Answer::Result(None))
}

/// Without a node: all of the service. §6.
fn disable(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let (service, node) = names(iq.child)?;
    let stays =
        |known: &Registration| known.service != service || node.as_ref().is_some_and(|node| *node != known.node);
    let Some(gone) = account.push.iter().filter(|known| !stays(known)).map(debt).max() else {
        return Err(StanzaCondition::ItemNotFound.into());
    };
    account.push_gone = account.push_gone.max(gone);
    account.push.retain(stays);
    save(account, Some(iq.stanza), iq.ticket, fx);
    Ok(Answer::Result(None))
}

/// What it has not answered, and since when.
fn debt(registration: &Registration) -> (u32, u64) {
    (registration.unanswered, registration.told_at)
}

fn save(account: &Account, bounce: Option<&Arc<Stanza>>, ticket: &Ticket, fx: &mut Effects) {
    let (owner, space, key) = (account.jid.clone(), SETTINGS.into(), KEY.into());
    let change = if account.push.is_empty() {
        Change::BlobDelete { account: owner, space, key }
    } else {
        Change::BlobPut { account: owner, space, key, value: to_stored(&account.push) }
    };
    fx.commit(vec![change], bounce, ticket);
}

/// A message came in, and is in the log if it is to be kept: whoever has no stream is notified. §7.
pub fn received(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let own = passage.stanza.from.as_ref().is_some_and(|from| from.same_bare(&account.jid));
    if !account.push.is_empty() && !own && !passage.quiet && is_worth(&passage.stanza) {
        notify(account, |_| true, fx);
    }
    Ok(Flow::Next)
}

/// The stream of a session is lost: what it was given and did not acknowledge may not have arrived.
pub(crate) fn lost(account: &mut Account, id: SessionId, fx: &mut Effects) {
    let Some(session) = account.session(id).filter(|_| !account.push.is_empty()) else { return };
    let unacked = session.management.iter().flat_map(|management| &management.unacked);
    let mut untaken = unacked.chain(session.unwritten.iter().map(|(_, delivery)| delivery));
    if untaken.any(|delivery| is_worth(&delivery.stanza)) {
        notify(account, |registration| registration.session == Some(id), fx);
    }
}

/// Would a user want to be woken for it?
fn is_worth(stanza: &Stanza) -> bool {
    stanza.is_message()
        && !stanza.is_error()
        && stanza
            .payload
            .children()
            .any(|child| (child.name == "body" && child.ns == ns::CLIENT) || WORTH.contains(&(child.name, child.ns)))
}

fn notify(account: &mut Account, which: impl Fn(&Registration) -> bool, fx: &mut Effects) {
    let waiting = account.inbox.waiting().max(1).to_string();
    let now = account.now.mono_ms;
    let mut push = std::mem::take(&mut account.push);
    for registration in push.iter_mut().filter(|registration| which(registration)) {
        let session = registration.session.and_then(|id| account.session(id));
        if session.is_some_and(|session| session.edge.is_some()) {
            continue;
        }
        if registration.unanswered >= UNANSWERED_MAX && now < registration.told_at + UNANSWERED_MS {
            registration.owed = true;
            fx.push(Effect::Count("push_unanswered"));
            continue;
        }
        registration.unanswered = registration.unanswered.saturating_add(1);
        (registration.told_at, registration.owed) = (now, false);
        let summary = data_form::form("submit", SUMMARY).child(data_form::field("message-count", [waiting.as_str()]));
        let item = Element::new("item", PUBSUB).child(Element::new("notification", NS).child(summary));
        let node = Some(&registration.node).filter(|node| !node.is_empty());
        let publish = Element::new("publish", PUBSUB).attr_opt("node", node).child(item);
        let options = registration.options.clone();
        let options = options.map(|options| Element::new("publish-options", PUBSUB).child(options));
        let iq = Stanza::iq(IqType::Set, &id_of(registration))
            .with_from(account.jid.clone())
            .with_to(registration.service.clone())
            .with_children([Element::new("pubsub", PUBSUB).child(publish).children_from(options)]);
        fx.push(Effect::Count("push_notifications"));
        fx.push(Effect::Tell {
            to: registration.service.clone(),
            stanza: Arc::new(iq),
            ingress: Ingress { stream: 0, ordinal: 0 },
            ticket: Ticket::default(),
        });
    }
    account.push = push;
}

/// Names the registration in the answer, which carries no node.
fn id_of(registration: &Registration) -> String {
    let mut hasher = DefaultHasher::new();
    (registration.service.as_str(), &registration.node).hash(&mut hasher);
    format!("push-{:016x}", hasher.finish())
}

/// The condition of an error. RFC 6120 §8.3.2.
fn condition(error: &Stanza) -> String {
    let error = error.payload.child("error", ns::CLIENT).map(|child| child.to_element());
    let conditions = error.iter().flat_map(Element::elements).filter(|child| *child.ns == *ns::STANZA_ERRORS);
    let condition = conditions.map(|child| child.name.to_string()).find(|name| name != "text");
    condition.unwrap_or_else(|| "no condition".into())
}

/// The registrations, for their owner to see. `docs/protocol/push-registrations.md`.
fn show(account: &mut Account, _: &Iq<'_>, _: &mut Effects) -> Handled {
    let registrations = account.push.iter().map(|registration| {
        Element::new("registration", REGISTRATIONS)
            .attr("jid", registration.service.as_str())
            .attr("node", &registration.node)
            .attr("errors", registration.errors.to_string())
    });
    Ok(Answer::Result(Some(Element::new("registrations", REGISTRATIONS).children_from(registrations))))
}

/// What a service answers: if it does not want the registration any more, it is told nothing more. §7.1.
pub fn answered(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let StanzaType::Iq(kind @ (IqType::Result | IqType::Error)) = passage.stanza.kind else { return Ok(Flow::Next) };
    let (Some(id), Some(from)) = (passage.stanza.id.as_deref(), passage.stanza.from.as_ref()) else {
        return Ok(Flow::Next);
    };
    if !passage.to.is_bare() || !id.starts_with("push-") {
        return Ok(Flow::Next);
    }
    let asked = account.push.iter().position(|known| known.service == *from && id_of(known) == id);
    let Some(index) = asked else { return Ok(Flow::Next) };
    let registration = &mut account.push[index];
    let Some(reason) = (kind == IqType::Error).then(|| condition(&passage.stanza)) else {
        (registration.errors, registration.unanswered) = (0, 0);
        if std::mem::take(&mut registration.owed) {
            notify(account, |known| known.service == *from && id_of(known) == id, fx);
        }
        return Ok(Flow::Done);
    };
    registration.errors += 1;
    let (service, node, errors) = (registration.service.clone(), registration.node.clone(), registration.errors);
    if PERMANENT.contains(&reason.as_str()) {
        account.push.remove(index);
        fx.push(Effect::Count("push_registrations_ended"));
        fx.push(Effect::Noted(format!("push to {service}, node {node:?}, is no longer wanted there: {reason}")));
        save(account, None, &passage.ticket, fx);
    } else if errors == ERRORS_TOLD {
        fx.push(Effect::Noted(format!("push to {service}, node {node:?}, fails again and again: {reason}")));
    }
    Ok(Flow::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{Item, ManagementRequest};
    use crate::testing::{Fx, Scene, account};

    const FORM: &str = "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
        <value>http://jabber.org/protocol/pubsub#publish-options</value></field>\
        <field var='secret'><value>eruio</value></field></x>";

    fn enables(scene: &mut Scene, node: &str, content: &str) -> Fx {
        let enable = format!("<enable xmlns='{NS}' jid='push.client.example' node='{node}'>{content}</enable>");
        scene.sends("phone", &format!("<iq type='set' id='1'>{enable}</iq>"))
    }

    /// Juliet with a phone that is to be woken.
    fn juliet() -> Scene {
        let mut juliet = account("juliet@capulet.example").with("phone", 0);
        assert!(enables(&mut juliet, "n1", FORM).delivered("phone")[0].contains("type='result'"));
        juliet
    }

    fn chat(scene: &mut Scene, content: &str) -> Fx {
        scene.receive(&format!("<message from='romeo@montague.example/x' type='chat'>{content}</message>"))
    }

    fn notified(fx: &Fx) -> Vec<String> {
        fx.told().into_iter().filter(|(to, _)| to == "push.client.example").map(|(_, xml)| xml).collect()
    }

    // §7, example 13.
    #[test]
    fn a_client_without_a_stream_is_notified_of_a_message_that_waits() {
        let mut juliet = juliet();
        juliet.closes("phone");
        let fx = chat(&mut juliet, "<body>secret words</body>");
        let iq = notified(&fx).remove(0);
        for part in ["type='set'", "from='juliet@capulet.example'", "<publish node='n1'><item><notification", FORM] {
            assert!(iq.contains(part), "{part}: {iq}");
        }
        assert!(iq.contains("<field var='message-count'><value>1</value></field>"), "{iq}");
        assert!(!iq.contains("secret words") && !iq.contains("romeo"), "{iq}");
        // Nothing is told before the message is on disk.
        assert!(fx.in_order(|e| matches!(e, Effect::Commit { .. }), |e| matches!(e, Effect::Tell { .. })));
    }

    #[test]
    fn a_client_with_a_stream_is_not_notified_and_another_client_is_none_of_its_business() {
        let mut juliet = juliet().with("home", 5);
        assert!(notified(&chat(&mut juliet, "<body>hi</body>")).is_empty());
        juliet.closes("phone");
        let fx = chat(&mut juliet, "<body>hi</body>");
        assert_eq!((fx.written_to(), notified(&fx).len()), (vec!["home".to_owned()], 1));
    }

    // LIMITS.md §2 row 44.
    #[test]
    fn a_service_that_answers_nothing_is_told_little_and_one_that_does_hears_what_it_missed() {
        let mut juliet = juliet();
        juliet.closes("phone");
        let told: Vec<String> = (0..50).flat_map(|_| notified(&chat(&mut juliet, "<body>hi</body>"))).collect();
        assert_eq!(told.len() as u32, UNANSWERED_MAX);
        // To ask anew changes nothing.
        let mut other = juliet.connected("phone");
        other.sends("phone", &format!("<iq type='set' id='0'><disable xmlns='{NS}' jid='push.client.example'/></iq>"));
        enables(&mut other, "n1", FORM);
        other.closes("phone");
        let mut juliet = other;
        assert!(notified(&chat(&mut juliet, "<body>hi</body>")).is_empty());
        let id = told[0].split("id='").nth(1).and_then(|it| it.split('\'').next()).expect("an id").to_owned();
        let answer = |kind: &str, more: &str| {
            let to = "to='juliet@capulet.example'";
            format!("<iq from='push.client.example' {to} type='{kind}' id='{id}'>{more}</iq>")
        };
        // An error that passes is no answer that calls for more.
        let busy = "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
        assert!(notified(&juliet.receive(&answer("error", busy))).is_empty());
        assert!(notified(&chat(&mut juliet, "<body>hi</body>")).is_empty());
        // One that is back is found.
        juliet.after_ms(UNANSWERED_MS);
        assert_eq!(notified(&chat(&mut juliet, "<body>hi</body>")).len(), 1);
        assert!(notified(&chat(&mut juliet, "<body>hi</body>")).is_empty());
        assert_eq!(notified(&juliet.receive(&answer("result", ""))).len(), 1, "what was missed");
        assert!(notified(&juliet.receive(&answer("result", ""))).is_empty());
        assert_eq!(notified(&chat(&mut juliet, "<body>hi</body>")).len(), 1);
    }

    #[test]
    fn nobody_is_woken_for_what_nobody_reads() {
        let mut juliet = juliet();
        juliet.closes("phone");
        for content in [
            "<received xmlns='urn:xmpp:receipts' id='1'/>",
            "<composing xmlns='http://jabber.org/protocol/chatstates'/>",
        ] {
            assert!(notified(&chat(&mut juliet, content)).is_empty(), "{content}");
        }
        let call = "<propose xmlns='urn:xmpp:jingle-message:0' id='a'/><store xmlns='urn:xmpp:hints'/>";
        assert_eq!(notified(&chat(&mut juliet, call)).len(), 1);
    }

    #[test]
    fn a_client_whose_stream_is_lost_is_notified_of_what_it_did_not_acknowledge() {
        let mut juliet = juliet();
        let session = juliet.id("phone");
        let request = ManagementRequest { resume: true, max: None, id: "sm1".into() };
        juliet.item(Item::Manage { session, request });
        assert!(notified(&chat(&mut juliet, "<body>hi</body>")).is_empty());
        assert_eq!(notified(&juliet.loses("phone", 0, 0)).len(), 1);
        assert_eq!(notified(&chat(&mut juliet, "<body>ho</body>")).len(), 1);
    }

    #[test]
    fn a_client_that_is_gone_is_notified_of_what_was_not_written_to_it() {
        let mut juliet = juliet();
        chat(&mut juliet, "<body>hi</body>");
        juliet.writes_all("phone");
        assert!(notified(&chat(&mut juliet, "<body>ho</body>")).is_empty());
        assert_eq!(notified(&juliet.loses("phone", 0, 0)).len(), 1);
    }

    #[test]
    fn what_is_enabled_is_stored_read_again_and_disabled() {
        let mut juliet = juliet();
        let stored = match &enables(&mut juliet, "n2", "").commits()[..] {
            [Change::BlobPut { space, key, value, .. }] if **space == *SETTINGS && **key == *KEY => value.clone(),
            other => panic!("{other:?}"),
        };
        let read: Vec<String> =
            from_stored(Some(&stored)).iter().map(|r| format!("{} {}", r.service, r.node)).collect();
        assert_eq!(read, ["push.client.example n1", "push.client.example n2"]);
        assert!(from_stored(Some(&stored))[0].options.is_some());
        let disable =
            |node: &str| format!("<iq type='set' id='1'><disable xmlns='{NS}' jid='push.client.example' {node}/></iq>");
        juliet.sends("phone", &disable("node='n1'"));
        assert_eq!(juliet.push.len(), 1);
        let fx = juliet.sends("phone", &disable(""));
        assert!(juliet.push.is_empty() && matches!(fx.commits()[..], [Change::BlobDelete { .. }]));
        assert!(juliet.sends("phone", &disable("")).delivered("phone")[0].contains("<item-not-found"));
    }

    #[test]
    fn registrations_are_bounded_and_the_last_of_one_node_counts() {
        let mut juliet = juliet();
        (0..20).for_each(|n| drop(enables(&mut juliet, &format!("m{n}"), "")));
        assert_eq!(juliet.push.len(), REGISTRATIONS_MAX);
        enables(&mut juliet, "m19", FORM);
        assert_eq!(juliet.push.len(), REGISTRATIONS_MAX);
        assert!(juliet.push.last().is_some_and(|last| last.options.is_some()));
        let fx = enables(&mut juliet, &"n".repeat(REGISTRATION_BYTES_MAX), "");
        assert!(fx.delivered("phone")[0].contains("<resource-constraint"));
    }

    fn answers(juliet: &mut Scene, condition: &str, from: &str) -> Fx {
        let id = id_of(&juliet.push[0]);
        let stanzas = "urn:ietf:params:xml:ns:xmpp-stanzas";
        juliet.receive(&format!(
            "<iq type='error' from='{from}' id='{id}'><error type='cancel'><{condition} xmlns='{stanzas}'/></error></iq>"
        ))
    }

    fn notes(fx: &Fx) -> Vec<&String> {
        let mut notes = Vec::new();
        for effect in &fx.list {
            if let Effect::Noted(what) = effect {
                notes.push(what);
            }
        }
        notes
    }

    // §7.1.
    #[test]
    fn a_service_that_wants_no_more_is_told_nothing_more_and_the_log_says_why() {
        let mut juliet = juliet();
        juliet.closes("phone");
        answers(&mut juliet, "item-not-found", "somebody.example");
        assert_eq!(juliet.push.len(), 1);
        let fx = answers(&mut juliet, "item-not-found", "push.client.example");
        assert!(juliet.push.is_empty() && matches!(fx.commits()[..], [Change::BlobDelete { .. }]));
        assert!(notes(&fx)[0].contains("push.client.example") && notes(&fx)[0].contains("item-not-found"));
        assert!(notified(&chat(&mut juliet, "<body>hi</body>")).is_empty());
    }

    #[test]
    fn a_service_that_is_not_there_at_the_moment_stays_registered() {
        let mut juliet = juliet();
        juliet.closes("phone");
        let mut said = 0;
        for _ in 0..20 {
            said += notes(&answers(&mut juliet, "remote-server-timeout", "push.client.example")).len();
        }
        assert_eq!((juliet.push.len(), said), (1, 1));
        assert_eq!(notified(&chat(&mut juliet, "<body>hi</body>")).len(), 1);
    }

    #[test]
    fn the_owner_sees_what_is_registered() {
        let mut juliet = juliet();
        let ask = format!("<iq type='get' id='1'><registrations xmlns='{REGISTRATIONS}'/></iq>");
        let told = juliet.sends("phone", &ask).delivered("phone");
        assert!(told[0].contains("<registration jid='push.client.example' node='n1' errors='0'/>"), "{told:?}");
    }
}
