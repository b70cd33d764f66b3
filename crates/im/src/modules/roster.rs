//! The roster as clients ask for it and change it, RFC 6121 §2.

use crate::account::Account;
use crate::effects::{Delivery, Effect, Effects};
use crate::item::SessionId;
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::roster::{self, Catchup, NAME_BYTES_MAX};
use crate::{leases, presence, session, subscription};
use std::sync::Arc;
use xmpp::error::ErrorType;
use xmpp::{BareJid, Element, IqType, Jid, Payload, Stanza, StanzaCondition, StanzaError, ns};

pub static MODULE: Module = Module {
    name: "roster",
    // Now RFC 6121 §2.6; the stream says so (`urn:xmpp:features:rosterver`).
    specs: &[xep(237, "1.3")],
    host_features: &[ns::ROSTER],
    account_iq: &[
        (IqType::Get, ns::ROSTER, "query", Who::Owner, get),
        (IqType::Set, ns::ROSTER, "query", Who::Owner, set),
    ],
    ..Module::EMPTY
};

/// The roster; or nothing and pushes of what is new, to a client that says which version it has.
/// RFC 6121 §2.1.3, §2.1.4, §2.6.3.
fn get(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    if iq.child.elements().next().is_some() {
        return Err(StanzaCondition::BadRequest.into());
    }
    let Some(id) = iq.session else { return Err(StanzaCondition::Forbidden.into()) };
    if let Some(session) = account.session_mut(id) {
        session.interested = true;
    }
    let known = iq.child.attribute("ver").and_then(|ver| version_of(account, ver));
    let missed: Vec<(u64, BareJid)> = match known.map(|version| account.roster.since(version)) {
        Some(Catchup::Pushes(missed)) => {
            missed.into_iter().map(|(version, contact)| (version, contact.clone())).collect()
        }
        Some(Catchup::Full) | None => {
            // (An account of many contacts has a large one, and all who share its thread wait while it is written.)
            answer(account, id, iq, roster::payload(account), fx);
            return Ok(Answer::Sent);
        }
    };
    // The pushes follow the result.
    answer(account, id, iq, Payload::default(), fx);
    for (version, contact) in missed {
        roster::push_missed(account, id, &contact, version, fx);
    }
    Ok(Answer::Sent)
}

fn answer(account: &mut Account, id: SessionId, iq: &Iq<'_>, payload: Payload, fx: &mut Effects) {
    let stanza = Arc::new(Stanza { payload, ..iq.stanza.result(None) });
    session::deliver(account, id, Delivery::plain(stanza), fx);
}

/// The number in a `ver` that this roster gave.
fn version_of(account: &Account, ver: &str) -> Option<u64> {
    let (_, version) = ver.split_once('.')?;
    let version = version.parse().ok()?;
    (roster::ver(account, version) == ver).then_some(version)
}

/// Adds, changes or removes one item. RFC 6121 §2.1.5, §2.3, §2.4, §2.5.
fn set(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let mut items = iq.child.elements().filter(|child| child.is("item", ns::ROSTER));
    let (Some(item), None) = (items.next(), items.next()) else {
        return Err(bad_request("One item, and one only."));
    };
    let contact = contact_of(item)?;
    if contact == account.jid {
        // RFC 6121 §2.3.3, interoperability note.
        return Err(StanzaCondition::NotAllowed.into());
    }
    if item.attribute("subscription") == Some("remove") {
        return remove(account, &contact, iq, fx);
    }
    let name = name_of(item)?;
    let groups = groups_of(item, account.policy.limits.groups_per_item_max)?;
    let is_new = account.roster.get(&contact).is_none_or(|item| !item.listed);
    if is_new && account.roster.len() >= account.policy.limits.roster_items_max {
        return Err(full("roster_items_max"));
    }
    if account.roster.exceeds(&contact, name, &groups, account.policy.limits.roster_bytes_max) {
        return Err(full("roster_bytes_max"));
    }
    let changes = account.roster.set(&account.jid, &contact, name, &groups);
    fx.commit(changes, Some(iq.stanza), iq.ticket);
    roster::push(account, &contact, fx);
    Ok(Answer::Result(None))
}

/// There is no room for it.
pub(crate) fn full(limit: &'static str) -> StanzaError {
    StanzaError::from(StanzaCondition::ResourceConstraint).with_text("The roster is full.").over(limit)
}

/// Takes an item out, and the subscriptions with it. RFC 6121 §2.5.2, §2.5.3.
fn remove(account: &mut Account, contact: &BareJid, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let Some(item) = account.roster.get(contact).filter(|item| item.listed) else {
        return Err(StanzaError::from(StanzaCondition::ItemNotFound).with_type(ErrorType::Modify));
    };
    let before = item.subscription;
    let mut changes = account.roster.remove(&account.jid, contact);
    changes.extend(leases::part(account, contact));
    account.contacts.forget(contact);
    fx.commit(changes, Some(iq.stanza), iq.ticket);
    if before.from && account.policy.presence {
        presence::hide_from(account, contact, presence::OWN, iq.ticket, fx);
    }
    for act in subscription::to_part(before) {
        fx.push(Effect::Tell {
            to: contact.clone().into(),
            stanza: Arc::new(subscription::managing(&account.jid, contact, act, None)),
            ingress: presence::OWN,
            ticket: iq.ticket.clone(),
        });
    }
    roster::push(account, contact, fx);
    Ok(Answer::Result(None))
}

/// RFC 6121 §2.1.2.3. A contact is a bare JID; one resource of it is none.
fn contact_of(item: &Element) -> Result<BareJid, StanzaError> {
    let text = item.attribute("jid").ok_or_else(|| bad_request("An item has a jid."))?;
    let jid = Jid::parse(text).map_err(|fault| xmpp::error::jid_malformed(&fault))?;
    if jid.is_bare() { Ok(jid.to_bare()) } else { Err(bad_request("A contact has no resourcepart.")) }
}

/// No name and an empty one are the same. RFC 6121 §2.4.1.
fn name_of(item: &Element) -> Result<Option<&str>, StanzaError> {
    match item.attribute("name") {
        Some(name) if name.len() > NAME_BYTES_MAX => Err(not_acceptable("The name is too long.")),
        name => Ok(name.filter(|name| !name.is_empty())),
    }
}

/// RFC 6121 §2.3.3.
fn groups_of(item: &Element, groups_max: usize) -> Result<Vec<String>, StanzaError> {
    let mut groups = Vec::new();
    for group in item.elements().filter(|child| child.is("group", ns::ROSTER)) {
        let name = group.text_content();
        if name.is_empty() {
            return Err(not_acceptable("A group has a name."));
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(not_acceptable("The name of a group is too long."));
        }
        if groups.contains(&name) {
            return Err(bad_request("The same group twice."));
        }
        if groups.len() >= groups_max {
            return Err(not_acceptable("Too many groups.").over("groups_per_item_max"));
        }
        groups.push(name);
    }
    Ok(groups)
}

fn bad_request(text: &str) -> StanzaError {
    StanzaError::from(StanzaCondition::BadRequest).with_text(text)
}

fn not_acceptable(text: &str) -> StanzaError {
    StanzaError::from(StanzaCondition::NotAcceptable).with_type(ErrorType::Modify).with_text(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Scene, account, account_with, bare, contact};
    use store::{AccountRecord, Change, RosterItem};

    /// The children of `<query/>` in a set.
    fn set(scene: &mut Scene, items: &str) -> crate::testing::Fx {
        scene.sends("balcony", &format!("<iq type='set' id='rs1'><query xmlns='jabber:iq:roster'>{items}</query></iq>"))
    }

    fn juliet() -> Scene {
        account("juliet@example.com").connected("balcony").having("balcony", |s| s.interested = true)
    }

    #[track_caller]
    fn refused(fx: &crate::testing::Fx, condition: &str, kind: &str) {
        let delivered = fx.delivered("balcony");
        assert_eq!(delivered.len(), 1);
        assert!(
            delivered[0].contains(&format!("<{condition}")) && delivered[0].contains(&format!("type='{kind}'")),
            "{delivered:?}"
        );
        assert!(fx.commits().is_empty());
    }

    #[test]
    fn an_empty_roster_is_a_query_without_items() {
        let mut juliet = account("juliet@example.com").connected("balcony");
        let fx = juliet.sends("balcony", "<iq type='get' id='bv1bs71f'><query xmlns='jabber:iq:roster'/></iq>");
        let result = &fx.delivered("balcony")[0];
        assert!(
            result.contains("type='result'") && result.contains("id='bv1bs71f'") && result.contains("<query"),
            "{result}"
        );
        assert!(!result.contains("<item"));
        assert!(juliet.sessions[0].interested);
    }

    #[test]
    fn a_get_with_items_is_a_bad_request() {
        let mut juliet = juliet();
        let fx = juliet
            .sends("balcony", "<iq type='get' id='1'><query xmlns='jabber:iq:roster'><item jid='a@x'/></query></iq>");
        refused(&fx, "bad-request", "modify");
    }

    #[test]
    fn a_new_item_is_committed_then_pushed_to_interested_resources_alone() {
        let mut juliet = juliet().connected("chamber").having("chamber", |s| s.interested = true).with("garden", 0);
        let fx = set(
            &mut juliet,
            "<item jid='nurse@example.com' name='Nurse' ask='subscribe' subscription='both'><group>Servants</group></item>",
        );
        assert!(
            matches!(&fx.commits()[..], [Change::RosterPut { item, version: 1, .. }] if item.jid == bare("nurse@example.com"))
        );
        assert!(matches!(fx.list[0], Effect::Commit { .. }));
        assert!(fx.delivered("garden").is_empty());
        let push = &fx.delivered("chamber")[0];
        assert!(
            push.contains("type='set'") && push.contains("to='juliet@example.com/chamber'") && !push.contains("from="),
            "{push}"
        );
        assert!(
            push.contains("subscription='none'") && push.contains("<group>Servants</group>") && !push.contains("ask="),
            "{push}"
        );
        let own = fx.delivered("balcony");
        assert_eq!(own.len(), 2);
        assert!(own[1].contains("type='result'") && own[1].contains("id='rs1'"));
    }

    #[test]
    fn an_update_replaces_name_and_groups_and_keeps_the_subscription() {
        let record = AccountRecord {
            roster_version: 1,
            roster: vec![contact("romeo@example.net", "both")],
            ..AccountRecord::default()
        };
        let mut juliet =
            account_with("juliet@example.com", record).connected("balcony").having("balcony", |s| s.interested = true);
        set(
            &mut juliet,
            "<item jid='romeo@example.net' name='Romeo'><group>Friends</group><group>Lovers</group></item>",
        );
        set(&mut juliet, "<item jid='romeo@example.net' name=''><group>Lovers</group></item>");
        let item = juliet.roster.get(&bare("romeo@example.net")).expect("it was there");
        assert_eq!((item.name.as_deref(), item.groups.len(), item.version), (None, 1, 3));
        assert!(item.subscription.to && item.subscription.from);
    }

    #[test]
    fn what_section_2_3_3_forbids_is_refused() {
        for (items, condition, kind) in [
            ("", "bad-request", "modify"),
            ("<item jid='a@x'/><item jid='b@x'/>", "bad-request", "modify"),
            ("<item/>", "bad-request", "modify"),
            ("<item jid='a@x/y'/>", "bad-request", "modify"),
            ("<item jid='@x'/>", "jid-malformed", "modify"),
            ("<item jid='a@x'><group>G</group><group>G</group></item>", "bad-request", "modify"),
            ("<item jid='a@x'><group/></item>", "not-acceptable", "modify"),
            ("<item jid='juliet@example.com'/>", "not-allowed", "cancel"),
            ("<item jid='a@x' subscription='remove'/>", "item-not-found", "modify"),
        ] {
            refused(&set(&mut juliet(), items), condition, kind);
        }
    }

    #[test]
    fn a_name_or_group_longer_than_the_limit_is_not_acceptable() {
        let fits = "n".repeat(NAME_BYTES_MAX);
        let fx = set(&mut juliet(), &format!("<item jid='a@x' name='{fits}'><group>{fits}</group></item>"));
        assert_eq!(fx.commits().len(), 1);
        refused(&set(&mut juliet(), &format!("<item jid='a@x' name='{fits}n'/>")), "not-acceptable", "modify");
        refused(
            &set(&mut juliet(), &format!("<item jid='a@x'><group>{fits}n</group></item>")),
            "not-acceptable",
            "modify",
        );
    }

    #[test]
    fn more_groups_than_the_limit_are_not_acceptable() {
        let groups = |n: usize| (0..n).map(|g| format!("<group>g{g}</group>")).collect::<String>();
        let fx = set(&mut juliet(), &format!("<item jid='a@x'>{}</item>", groups(32)));
        assert_eq!(fx.commits().len(), 1);
        refused(&set(&mut juliet(), &format!("<item jid='a@x'>{}</item>", groups(33))), "not-acceptable", "modify");
    }

    #[test]
    fn more_items_than_the_limit_are_refused_but_changes_are_not() {
        let mut juliet = juliet().policy(|p| p.limits.roster_items_max = 2);
        set(&mut juliet, "<item jid='a@x'/>");
        set(&mut juliet, "<item jid='b@x'/>");
        refused(&set(&mut juliet, "<item jid='c@x'/>"), "resource-constraint", "wait");
        assert_eq!(set(&mut juliet, "<item jid='b@x' name='B'/>").commits().len(), 1);
    }

    #[test]
    fn removing_a_contact_ends_the_subscriptions_both_ways() {
        let record = AccountRecord {
            roster_version: 1,
            roster: vec![contact("nurse@example.com", "both")],
            ..AccountRecord::default()
        };
        let mut juliet =
            account_with("juliet@example.com", record).with("balcony", 0).having("balcony", |s| s.interested = true);
        let fx = set(&mut juliet, "<item jid='nurse@example.com' subscription='remove'/>");
        assert!(matches!(&fx.commits()[..], [Change::RosterDelete { version: 2, .. }]));
        let told: Vec<String> = fx.told().into_iter().map(|(_, xml)| xml).collect();
        assert!(told[0].contains("type='unavailable'") && told[0].contains("/balcony'"));
        assert!(told[1].contains("type='unsubscribe'") && told[1].contains("from='juliet@example.com'"));
        assert!(told[2].contains("type='unsubscribed'"));
        assert!(fx.delivered("balcony")[0].contains("subscription='remove'"));
        assert!(juliet.roster.is_empty());
    }

    #[test]
    fn removing_a_contact_without_subscription_tells_nobody() {
        let mut juliet = juliet();
        set(&mut juliet, "<item jid='nurse@example.com'/>");
        let fx = set(&mut juliet, "<item jid='nurse@example.com' subscription='remove'/>");
        assert!(fx.told().is_empty());
    }

    #[test]
    fn the_roster_of_somebody_else_is_out_of_reach() {
        let mut juliet = juliet();
        // RFC 6121 §2.3.3 for the set.
        for (kind, condition) in [("get", "<service-unavailable"), ("set", "<forbidden")] {
            let fx = juliet.receive(&format!(
                "<iq from='romeo@example.net/x' type='{kind}' id='1'><query xmlns='jabber:iq:roster'><item jid='a@x'/></query></iq>"
            ));
            assert!(fx.told()[0].1.contains(condition) && fx.commits().is_empty(), "{:?}", fx.told());
        }
    }

    fn with_ver(scene: &mut Scene, ver: &str) -> Vec<String> {
        let iq = format!("<iq type='get' id='r1'><query xmlns='jabber:iq:roster' ver='{ver}'/></iq>");
        scene.sends("balcony", &iq).delivered("balcony")
    }

    fn many() -> Scene {
        let roster = (1..=9).map(|n| RosterItem { version: n, ..contact(&format!("c{n}@x"), "none") }).collect();
        let record =
            AccountRecord { created: crate::testing::START, roster_version: 9, roster, ..AccountRecord::default() };
        account_with("juliet@example.com", record).connected("balcony")
    }

    #[test]
    fn a_client_without_a_version_or_with_an_unknown_one_gets_the_roster_with_its_version() {
        for ver in ["", "ver14", "1.9", "9"] {
            let delivered = with_ver(&mut many(), ver);
            assert_eq!(delivered.len(), 1);
            assert_eq!(delivered[0].matches("<item").count(), 9);
            assert!(delivered[0].contains(" ver='"));
        }
    }

    #[test]
    fn a_client_with_the_current_version_gets_an_empty_result() {
        let mut juliet = many();
        let ver = roster::ver(&juliet, 9);
        let delivered = with_ver(&mut juliet, &ver);
        assert_eq!(delivered.len(), 1);
        assert!(delivered[0].contains("type='result'") && !delivered[0].contains("<query"));
    }

    #[test]
    fn a_client_with_an_old_version_gets_what_it_missed_as_pushes_after_an_empty_result() {
        let mut juliet = many().connected("chamber");
        let ver = roster::ver(&juliet, 8);
        juliet.sends("chamber", "<iq type='set' id='1'><query xmlns='jabber:iq:roster'><item jid='c1@x' subscription='remove'/></query></iq>");
        let delivered = with_ver(&mut juliet, &ver);
        assert!(!delivered[0].contains("<query"));
        assert!(
            delivered[1].contains("jid='c9@x'") && delivered[1].contains(&format!("ver='{}'", roster::ver(&juliet, 9)))
        );
        assert!(
            delivered[2].contains("subscription='remove'")
                && delivered[2].contains(&format!("ver='{}'", roster::ver(&juliet, 10)))
        );
        assert_eq!(delivered.len(), 3);
    }
}
