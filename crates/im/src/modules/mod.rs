//! The extensions, one file each, with a card on top; and how an iq finds its handler.
//!
//! RFC 6120 §8.2.3 says what an iq is, RFC 6121 §8.5 who answers it: an account's bare JID is answered here on the
//! account's behalf, a full JID by its resource. There is one permission function, [`may_ask`], and one refusal,
//! [`unknown`]: an asker who may not know something hears what an account that does not exist would say.

pub mod access_rules;
pub mod access_rules_forms;
pub mod amp;
pub mod archive;
pub mod archive_preferences;
pub mod avatar;
pub mod blocking;
pub mod caps;
pub mod carbons;
pub mod client_state;
pub mod commands;
pub mod contact_addresses;
pub mod data_form;
pub mod delivery;
pub mod disco;
pub mod displayed;
pub mod expiry;
pub mod external_services;
pub mod fetch;
pub mod hints;
pub mod inbox_readers;
pub mod interest;
pub mod invitations;
pub mod last_activity;
pub mod legacy_session;
pub mod outcome;
pub mod overview;
pub mod ping;
pub mod privacy_lists;
pub mod private;
pub mod publish;
pub mod pubsub;
pub mod push;
pub mod register;
pub mod reports;
pub mod retraction;
pub mod roster;
pub mod rsm;
pub mod session_roles;
pub mod solicited;
pub mod subscription_status;
pub mod time;
pub mod vcard;
pub mod version;
pub mod watcherinfo;

use crate::account::Account;
use crate::effects::{Delivery, Effect, Effects, QueryAnswer};
use crate::item::{Ingress, SessionId, Ticket};
use crate::module::{AccountHandler, Answer, HostHandler, Iq, Module, Who};
use crate::policy::HostPolicy;
use crate::rules::Handling;
use crate::session;
use crate::view::{Exit, grants, view};
use crate::watchers;
use crate::ways::{Flow, Passage};
use std::sync::Arc;
use store::StoreError;
use xmpp::{Element, IqType, Jid, Stanza, StanzaCondition, StanzaError, StanzaType};

/// All cards, in the order of `docs/xeps.md`.
pub static MODULES: &[&Module] = &[
    &roster::MODULE,
    &data_form::MODULE,
    &privacy_lists::MODULE,
    &last_activity::MODULE,
    &amp::MODULE,
    &expiry::MODULE,
    &disco::MODULE,
    &private::MODULE,
    &vcard::MODULE,
    &avatar::MODULE,
    &rsm::MODULE,
    &pubsub::MODULE,
    &register::MODULE,
    &version::MODULE,
    &commands::MODULE,
    &caps::MODULE,
    &contact_addresses::MODULE,
    &delivery::OFFLINE,
    &blocking::MODULE,
    &delivery::STREAM_MANAGEMENT,
    &ping::MODULE,
    &time::MODULE,
    &delivery::DELAYED,
    &external_services::MODULE,
    &carbons::MODULE,
    &archive::MODULE,
    &archive::FULLTEXT,
    &hints::MODULE,
    &client_state::MODULE,
    &push::MODULE,
    &delivery::STABLE_IDS,
    &reports::MODULE,
    &legacy_session::MODULE,
    &retraction::MODULE,
    &overview::MODULE,
    &archive_preferences::MODULE,
    &fetch::MODULE,
    &publish::MODULE,
    &watcherinfo::MODULE,
    &subscription_status::MODULE,
    &session_roles::MODULE,
    &access_rules::MODULE,
    &access_rules_forms::MODULE,
    &inbox_readers::MODULE,
    &solicited::MODULE,
    &displayed::MODULE,
    &outcome::MODULE,
    &invitations::MODULE,
    &invitations::TOKENS,
    &invitations::CONTACTS,
];

/// Those that a host offers.
fn offered(policy: &HostPolicy) -> impl Iterator<Item = &'static Module> {
    MODULES.iter().copied().filter(move |module| (module.offered)(policy))
}

/// The answer of an account that does not exist, and therefore of every account to whoever may not ask, and for what
/// nothing handles. RFC 6121 §8.5.1, §8.5.2.1.3.
pub fn unknown() -> StanzaError {
    StanzaCondition::ServiceUnavailable.into()
}

/// What an account that does not exist answers a request to its bare JID: the content of the result.
///
/// # Errors
/// `forbidden` for a roster set (RFC 6121 §2.3.3): it is somebody else's roster, whether there is one or not. Else
/// [`unknown`], but for disco#items, where strangers find an empty list (XEP-0030 §8 rule 2).
pub fn nobody(iq: &Stanza) -> Result<Option<Element>, StanzaError> {
    let child = iq.payload.first();
    let is = |ns, name| child.as_ref().is_some_and(|child| child.ns == ns && child.name == name);
    match iq.kind {
        StanzaType::Iq(IqType::Get) if is(disco::ITEMS.0, disco::ITEMS.1) => {
            Ok(child.map(|child| disco::no_items(&child.to_element())))
        }
        StanzaType::Iq(IqType::Set) if is(xmpp::ns::ROSTER, "query") => Err(StanzaCondition::Forbidden.into()),
        _ => Err(unknown()),
    }
}

/// Answers an iq get or set from somebody else as [`nobody`] does.
///
/// # Errors
/// What the answer is, if it is an error.
pub(crate) fn as_nobody(account: &mut Account, passage: &Passage, fx: &mut Effects) -> Result<(), StanzaError> {
    if !passage.to.is_bare() {
        return Err(unknown());
    }
    let content = nobody(&passage.stanza)?;
    send(account, &passage.stanza, passage.session, passage.stanza.result(content), &passage.ticket, fx);
    Ok(())
}

/// An iq from the own client to its own bare JID (or without `to`): handled here; anything else: told onwards.
///
/// # Errors
/// What the handler refuses, [`unknown`] if there is none; the answer for the client.
pub fn outbound_iq(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let StanzaType::Iq(kind) = passage.stanza.kind else {
        return Ok(Flow::Next);
    };
    let to_account = passage.to == *account.jid;
    let is_request = matches!(kind, IqType::Get | IqType::Set);
    if is_request && (to_account || is_own_at_host(account, passage)) {
        handle(account, passage, kind, fx)?;
    } else if !to_account {
        if fetch::sent(account, passage, fx)? {
            return Ok(Flow::Done);
        }
        fx.push(Effect::Tell {
            to: passage.to.clone(),
            stanza: passage.stanza.clone(),
            ingress: passage.ingress,
            ticket: passage.ticket.clone(),
        });
    }
    // A result or error for the account itself answers a push; nothing waits for it.
    Ok(Flow::Done)
}

/// Clients ask by themselves what others are: whoever is politely blocked is not asked, as nobody is here for him.
///
/// # Errors
/// `not-acceptable`.
pub fn unseen(account: &mut Account, passage: &mut Passage, _: &mut Effects) -> Result<Flow, StanzaError> {
    if !crate::view::is_away_for(account, &passage.to) {
        return Ok(Flow::Next);
    }
    if !passage.stanza.may_be_answered_with_error() {
        return Ok(Flow::Done);
    }
    let why = "Your access rules hide you from this address.";
    Err(StanzaError::from(StanzaCondition::NotAcceptable).with_text(why))
}

/// An iq from somebody else: to the bare JID it is handled here, to a full JID delivered. RFC 6121 §8.5.
///
/// # Errors
/// What the handler refuses; [`unknown`] if there is none, if the asker may not ask, if there is no such resource or
/// the asker may not know of it.
pub fn inbound_iq(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let StanzaType::Iq(kind) = passage.stanza.kind else {
        return Ok(Flow::Next);
    };
    let is_request = matches!(kind, IqType::Get | IqType::Set);
    if passage.to.is_bare() {
        if is_request {
            handle(account, passage, kind, fx)?;
        }
        return Ok(Flow::Done);
    }
    if !is_request && (fetch::answered(account, passage, fx) || subscription_status::answered(account, passage, fx)) {
        return Ok(Flow::Done);
    }
    let resource = account.sessions.iter().find(|session| *session.jid == passage.to);
    let Some(resource) = resource else {
        return if is_request { Err(unknown()) } else { Ok(Flow::Done) };
    };
    if is_request && !may_reach(account, resource, passage.stanza.from.as_ref()) {
        return Err(unknown());
    }
    let id = resource.id;
    session::deliver(account, id, Delivery::plain(passage.stanza.clone()), fx);
    passage.taken_by.push(id);
    Ok(Flow::Done)
}

/// May `from` send this resource an iq? Only if it shares presence with it, by subscription or directed presence;
/// else the answer would tell that it is there (RFC 6121 §8.5.3.1). Whoever knows a name that nobody can guess was shown
/// it, and may ask where neither block list nor rule speaks: so strangers send each other files and call each other.
fn may_reach(account: &Account, resource: &session::Session, from: Option<&Jid>) -> bool {
    let Some(from) = from else { return false };
    if resource.is_secret && crate::view::is_unjudged(account, from) {
        return true;
    }
    if !view(account, from, Exit::IqToResource).shows() {
        return false;
    }
    // Who sees the resources may ask those that are shown, and those that are there without presence; directed presence
    // shows the one that sent it.
    let resources = view(account, from, Exit::Resources);
    let is_shown = resource.presence.as_ref().is_none_or(|presence| resources.shows_session(presence));
    (resources.shows() && is_shown) || resource.directed.iter().any(|directed| directed.same_bare(from))
}

/// Is it an iq that clients send to their own domain though it is about their account?
fn is_own_at_host(account: &Account, passage: &Passage) -> bool {
    let to_host = passage.to.is_bare() && passage.to.local().is_none() && passage.to.domain() == account.jid.domain();
    to_host
        && passage.stanza.payload.first().is_some_and(|child| {
            if child.ns == commands::NS {
                let command = child.to_element();
                let node = command.attribute("node").unwrap_or_default();
                return commands::is_at_host(&account.policy, node);
            }
            offered(&account.policy).any(|m| {
                m.own_at_host && m.account_iq.iter().any(|&(_, ns, name, ..)| ns == child.ns && name == child.name)
            })
        })
}

/// Finds the handler of an iq get or set, asks whether the asker may, and sends the answer.
fn handle(account: &mut Account, passage: &Passage, kind: IqType, fx: &mut Effects) -> Result<(), StanzaError> {
    let stanza = &passage.stanza;
    let (Some(child), Some(from)) = (stanza.payload.first(), stanza.from.as_ref()) else {
        return Err(StanzaCondition::BadRequest.into());
    };
    let (who, handler) = find(&account.policy, kind, child.ns, child.name).ok_or_else(unknown)?;
    if !may_ask(account, who, from, passage.session) {
        if who == Who::Viewer(Exit::Fetch) {
            watchers::refused(account, from, fx);
        }
        return as_nobody(account, passage, fx);
    }
    let child = child.to_element();
    let iq = Iq { stanza, from, child: &child, session: passage.session, ticket: &passage.ticket };
    match handler(account, &iq, fx)? {
        Answer::Result(content) => send(account, stanza, passage.session, stanza.result(content), &passage.ticket, fx),
        Answer::Query(query, then) => {
            fx.push(Effect::Query { query, iq: stanza.clone(), session: passage.session, then })
        }
        Answer::Sent => {}
    }
    Ok(())
}

/// The operator asks in the owner's name.
pub(crate) fn ask(account: &mut Account, iq: &Arc<Stanza>, fx: &mut Effects) {
    let mut passage = Passage::of(account, iq.clone());
    passage.session = Some(SessionId::OPERATOR);
    let refused = match iq.kind {
        _ if account.removed => Err(unknown()),
        StanzaType::Iq(kind @ (IqType::Get | IqType::Set)) => handle(account, &passage, kind, fx),
        _ => Err(StanzaCondition::BadRequest.into()),
    };
    if let Some(error) = refused.err().inspect(|error| fx.refused(error)).and_then(|error| iq.error(&error)) {
        fx.push(Effect::Reply(Arc::new(error)));
    }
}

fn find(policy: &HostPolicy, kind: IqType, ns: &str, name: &str) -> Option<(Who, AccountHandler)> {
    offered(policy)
        .flat_map(|module| module.account_iq)
        .find(|(its_kind, its_ns, its_name, ..)| *its_kind == kind && *its_ns == ns && *its_name == name)
        .map(|&(.., who, handler)| (who, handler))
}

/// The host's handler of an iq.
pub(crate) fn find_of_host(policy: &HostPolicy, kind: IqType, ns: &str, name: &str) -> Option<HostHandler> {
    offered(policy)
        .flat_map(|module| module.host_iq)
        .find(|(its_kind, its_ns, its_name, _)| *its_kind == kind && *its_ns == ns && *its_name == name)
        .map(|&(.., handler)| handler)
}

/// The one permission decision for what an account is asked. LIMITS.md §2 row 4.
fn may_ask(account: &Account, who: Who, from: &Jid, session: Option<SessionId>) -> bool {
    let is_owner = session.is_some();
    match who {
        Who::Owner => is_owner,
        Who::Viewer(exit) => is_owner || view(account, from, exit).handling >= Handling::PoliteBlock,
        Who::Granted(grant) => is_owner || grants(account, from, grant),
        Who::Anyone => true,
    }
}

/// Sends the answer to an iq that waited for the store: to the session that asked, or to whoever else did.
pub fn answer(
    account: &mut Account,
    iq: &Arc<Stanza>,
    session: Option<SessionId>,
    answer: Result<Option<Element>, StanzaError>,
    fx: &mut Effects,
) {
    let stanza = match answer {
        Ok(content) => Some(iq.result(content)),
        Err(error) => {
            fx.refused(&error);
            iq.error(&error)
        }
    };
    if let Some(stanza) = stanza {
        send(account, iq, session, stanza, &Ticket::default(), fx);
    }
}

/// An answer by its way: a session of the account hears it on its stream, everybody else by address.
fn send(
    account: &mut Account,
    iq: &Arc<Stanza>,
    session: Option<SessionId>,
    answer: Stanza,
    ticket: &Ticket,
    fx: &mut Effects,
) {
    let stanza = Arc::new(answer);
    match (session, &iq.from) {
        (Some(id), _) if account.session(id).is_some() => session::deliver(account, id, Delivery::plain(stanza), fx),
        (Some(SessionId::OPERATOR), _) => fx.push(Effect::Reply(stanza)),
        (None, Some(from)) => {
            fx.push(Effect::Tell { to: from.clone(), stanza, ingress: UNCOUNTED, ticket: ticket.clone() });
        }
        // The session has ended meanwhile.
        _ => {}
    }
}

/// Answers of the server enter by no stream.
const UNCOUNTED: Ingress = Ingress { stream: 0, ordinal: 0 };

/// What the asker hears when the store could not answer; the cause is logged by the house.
pub fn refusal(error: &StoreError) -> StanzaError {
    match error {
        StoreError::Busy | StoreError::Full => StanzaCondition::ResourceConstraint.into(),
        StoreError::Fenced | StoreError::Fatal(_) | StoreError::Damaged(_) => {
            StanzaCondition::InternalServerError.into()
        }
    }
}

/// An answer that is none of those a query can have, or a failure.
fn unexpected(answer: QueryAnswer) -> StanzaError {
    match answer {
        QueryAnswer::Refused(error) => error,
        QueryAnswer::Failed(error) => refusal(&error),
        _ => StanzaCondition::InternalServerError.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fx, Scene, account_with, contact, jid, stanza};
    use store::AccountRecord;
    use xmpp::write::{Wire, write_stanza};

    /// Juliet at home and on the phone; romeo has a subscription to her presence.
    fn juliet() -> Scene {
        let stored =
            AccountRecord { roster: vec![contact("romeo@montague.example", "both")], ..AccountRecord::default() };
        account_with("juliet@capulet.example", stored).with("home", 5).with("phone", 0)
    }

    fn wire(stanza: &Stanza) -> String {
        let mut out = Vec::new();
        write_stanza(&mut out, stanza, None, &Default::default(), Wire::Client);
        String::from_utf8(out).expect("stanzas are UTF-8")
    }

    /// What the house answers for an account that does not exist, and every account to whoever may not know.
    fn as_if_missing(xml: &str) -> String {
        let iq = stanza(xml);
        wire(&match nobody(&iq) {
            Ok(content) => iq.result(content),
            Err(error) => iq.error(&error).expect("an iq get or set may be answered"),
        })
    }

    fn name_of(kind: IqType) -> &'static str {
        if kind == IqType::Get { "get" } else { "set" }
    }

    fn asks(from: &str, to: &str, kind: IqType, child: &str) -> String {
        format!("<iq type='{}' id='q1' from='{from}' to='{to}'>{child}</iq>", name_of(kind))
    }

    fn only_told(fx: &Fx) -> String {
        let others = fx.list.iter().filter(|effect| !matches!(effect, Effect::WakeAt { .. }));
        assert_eq!(others.count(), 1, "{:?}", fx.list);
        fx.told().remove(0).1
    }

    // LIMITS.md §2 rows 4, 17, 41.
    #[test]
    fn row_4_a_stranger_hears_of_every_handler_what_an_account_that_does_not_exist_would_say() {
        let mut tried = 0;
        for module in MODULES {
            for &(kind, ns, name, who, _) in module.account_iq {
                if who == Who::Anyone {
                    continue;
                }
                let xml = asks(
                    "tybalt@elsewhere.example/x",
                    "juliet@capulet.example",
                    kind,
                    &format!("<{name} xmlns='{ns}'/>"),
                );
                let fx = juliet().receive(&xml);
                assert_eq!(only_told(&fx), as_if_missing(&xml), "{} {name} {ns}", module.name);
                tried += 1;
            }
        }
        assert!(tried > 10);
    }

    // XEP-0030 §8.
    #[test]
    fn of_an_account_that_does_not_exist_strangers_hear_an_empty_list_of_items_and_no_info() {
        for node in ["", " node='tune'"] {
            let query = |what: &str| format!("<query xmlns='http://jabber.org/protocol/disco#{what}'{node}/>");
            let ask = |what| asks("tybalt@elsewhere.example/x", "juliet@capulet.example", IqType::Get, &query(what));
            let items = as_if_missing(&ask("items"));
            assert!(items.contains("type='result'") && items.contains(&query("items")), "{items}");
            assert!(as_if_missing(&ask("info")).contains("<service-unavailable "));
        }
    }

    // RFC 6121 §2.1.5, §2.3.3.
    #[test]
    fn a_roster_set_to_another_account_is_forbidden_whether_it_exists_or_not() {
        let item = "<query xmlns='jabber:iq:roster'><item jid='nurse@capulet.example'/></query>";
        let xml = asks("romeo@montague.example/x", "juliet@capulet.example", IqType::Set, item);
        let fx = juliet().receive(&xml);
        assert!(only_told(&fx).contains("<error type='auth'><forbidden "), "{:?}", fx.list);
        assert_eq!(only_told(&fx), as_if_missing(&xml));
    }

    // LIMITS.md §2 rows 4, 17.
    #[test]
    fn what_is_the_owners_is_refused_to_a_contact_with_a_full_subscription_too() {
        for module in MODULES {
            for &(kind, ns, name, who, _) in module.account_iq.iter().filter(|(.., who, _)| *who == Who::Owner) {
                let xml = asks(
                    "romeo@montague.example/x",
                    "juliet@capulet.example",
                    kind,
                    &format!("<{name} xmlns='{ns}'/>"),
                );
                let fx = juliet().receive(&xml);
                assert_eq!(only_told(&fx), as_if_missing(&xml), "{} {name} {ns} {who:?}", module.name);
            }
        }
    }

    #[test]
    fn no_two_handlers_claim_the_same_iq() {
        let mut account: Vec<_> = MODULES
            .iter()
            .flat_map(|m| m.account_iq)
            .map(|(kind, ns, name, ..)| (name_of(*kind), *ns, *name))
            .collect();
        let mut host: Vec<_> =
            MODULES.iter().flat_map(|m| m.host_iq).map(|(kind, ns, name, _)| (name_of(*kind), *ns, *name)).collect();
        for claimed in [&mut account, &mut host] {
            let before = claimed.len();
            claimed.sort_unstable();
            claimed.dedup();
            assert_eq!(claimed.len(), before);
        }
    }

    // RFC 6121 §8.5.2.1.3.
    #[test]
    fn an_iq_that_nothing_handles_is_answered_with_service_unavailable() {
        let xml = asks(
            "romeo@montague.example/x",
            "juliet@capulet.example",
            IqType::Get,
            "<query xmlns='jabber:iq:search'/>",
        );
        assert_eq!(only_told(&juliet().receive(&xml)), as_if_missing(&xml));
        let fx = juliet().sends("home", "<iq type='get' id='q1'><query xmlns='jabber:iq:search'/></iq>");
        assert_eq!(fx.written_to(), ["home"]);
        assert!(fx.delivered("home")[0].contains("service-unavailable"));
    }

    // RFC 6120 §8.2.3.
    #[test]
    fn a_result_or_error_to_the_bare_jid_is_dropped() {
        assert!(juliet().receive("<iq type='result' id='q1' from='romeo@montague.example/x'/>").is_empty());
        assert!(juliet().receive("<iq type='error' id='q1' from='romeo@montague.example/x'/>").is_empty());
        assert!(juliet().sends("home", "<iq type='result' id='q1'/>").is_empty());
        assert!(juliet().sends("home", "<iq type='result' id='q1' to='juliet@capulet.example'/>").is_empty());
    }

    // RFC 6121 §8.5.3.1.
    #[test]
    fn an_iq_to_a_full_jid_is_delivered_if_its_sender_sees_presence() {
        let xml = asks(
            "romeo@montague.example/x",
            "juliet@capulet.example/phone",
            IqType::Get,
            "<ping xmlns='urn:xmpp:ping'/>",
        );
        assert_eq!(juliet().receive(&xml).written_to(), ["phone"]);
    }

    #[test]
    fn an_iq_to_a_full_jid_is_delivered_if_directed_presence_went_to_its_sender() {
        let mut juliet = juliet().having("phone", |session| session.directed.push(jid("room@muc.example/juliet")));
        let from_room = |resource: &str| {
            let to = format!("juliet@capulet.example/{resource}");
            asks("room@muc.example/nurse", &to, IqType::Get, "<ping xmlns='urn:xmpp:ping'/>")
        };
        assert_eq!(juliet.receive(&from_room("phone")).written_to(), ["phone"]);
        let refused = only_told(&juliet.receive(&from_room("home")));
        assert_eq!(refused, as_if_missing(&from_room("home")));
    }

    // LIMITS.md §2 row 41.
    #[test]
    fn to_a_stranger_a_resource_that_is_there_answers_like_one_that_is_not() {
        for resource in ["home", "attic"] {
            let to = format!("juliet@capulet.example/{resource}");
            let xml = asks("tybalt@elsewhere.example/x", &to, IqType::Get, "<ping xmlns='urn:xmpp:ping'/>");
            let fx = juliet().receive(&xml);
            assert!(fx.written_to().is_empty());
            assert_eq!(only_told(&fx), as_if_missing(&xml));
        }
    }

    // RFC 6121 §8.5.3.1.
    #[test]
    fn a_result_to_a_full_jid_is_delivered_from_anybody_and_lost_without_the_resource() {
        let fx = juliet()
            .receive("<iq type='result' id='q1' from='tybalt@elsewhere.example/x' to='juliet@capulet.example/home'/>");
        assert_eq!(fx.written_to(), ["home"]);
        let fx = juliet()
            .receive("<iq type='error' id='q1' from='tybalt@elsewhere.example/x' to='juliet@capulet.example/attic'/>");
        assert!(fx.is_empty());
    }

    #[test]
    fn an_iq_for_somebody_else_is_told_with_the_full_jid_as_from() {
        let fx = juliet()
            .sends("home", "<iq type='get' id='q1' to='romeo@montague.example'><vCard xmlns='vcard-temp'/></iq>");
        assert_eq!(fx.told_to(), ["romeo@montague.example"]);
        assert!(fx.told()[0].1.contains("from='juliet@capulet.example/home'"));
    }

    #[test]
    fn an_iq_for_the_own_domain_is_told_unless_it_is_about_the_own_account() {
        let ping = "<iq type='get' id='q1' to='capulet.example'><ping xmlns='urn:xmpp:ping'/></iq>";
        assert_eq!(juliet().sends("home", ping).told_to(), ["capulet.example"]);
        let on_file = "<iq type='get' id='q1' to='capulet.example'><query xmlns='jabber:iq:register'/></iq>";
        assert_eq!(juliet().sends("home", on_file).written_to(), ["home"]);
    }

    #[test]
    fn the_answer_to_a_session_that_has_ended_goes_nowhere() {
        let mut juliet = juliet();
        let iq = Arc::new(stanza(
            "<iq type='get' id='q1' from='juliet@capulet.example/home'><ping xmlns='urn:xmpp:ping'/></iq>",
        ));
        let mut fx = Effects::default();
        answer(&mut juliet.account, &iq, Some(SessionId(99)), Ok(None), &mut fx);
        assert!(fx.list.is_empty());
    }

    // LIMITS.md §2 row 44.
    #[test]
    fn a_refusal_is_not_longer_than_the_stanza_it_refuses_by_much() {
        let card = format!("<vCard xmlns='vcard-temp'><DESC>{}</DESC></vCard>", "x".repeat(10_000));
        let xml = asks("tybalt@elsewhere.example/x", "juliet@capulet.example", IqType::Set, &card);
        assert!(only_told(&juliet().receive(&xml)).len() < 400);
    }
}
