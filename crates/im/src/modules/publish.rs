//! Presence information that lasts: tuples published with an expiry, by RFC 3903's four operations over iq.
//!
//! The owner publishes, and whoever of the same domain has a grant. What is published stays when its publisher goes, and
//! is there again after a restart.

use crate::account::Account;
use crate::effects::{Effect, Effects};
use crate::module::{Answer, Handled, Iq, Module, Who};
use crate::modules::unknown;
use crate::pidf;
use crate::presence;
use crate::rules::change;
use crate::tuples::{self, ELEMENTS_MAX, EXPIRES_DEFAULT, NS, Refused};
use crate::view;
use std::sync::Arc;
use xmpp::{BareJid, Element, IqType, Jid, MessageType, Stanza, StanzaCondition, StanzaError, ns};

pub static MODULE: Module = Module {
    name: "tuples",
    host_features: &[NS],
    account_features: &[NS],
    account_iq: &[
        // Who may is asked of the rules' grants.
        (IqType::Set, NS, "publish", Who::Anyone, publish),
        (IqType::Get, NS, "publications", Who::Owner, list),
    ],
    offered: |policy| policy.presence,
    ..Module::EMPTY
};

/// RFC 3903 §6.
///
/// # Errors
/// [`Refused`]; `bad-request` for what is no content; whoever may not hears what an account that does not exist would say.
fn publish(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let publisher = publisher(account, iq)?;
    let now = account.now.utc;
    let seconds = match iq.child.attribute("expires").map(str::parse::<u32>) {
        None => EXPIRES_DEFAULT,
        Some(Ok(seconds)) => seconds,
        Some(Err(_)) => return Err(StanzaCondition::BadRequest.into()),
    };
    if iq.child.elements().count() > ELEMENTS_MAX {
        return Err(Refused::TooMuch.error());
    }
    let elements = iq.child.elements().map(|element| pidf::accepted(element, now)).collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<_> = elements.iter().filter_map(|element| element.attribute("id")).collect();
    if (1..ids.len()).any(|at| ids[..at].contains(&ids[at])) {
        return Err(StanzaError::from(StanzaCondition::BadRequest).with_text("each id stands once"));
    }
    account.publications.end_overdue(now);
    let etag = account
        .publications
        .publish(publisher.as_ref(), iq.child.attribute("etag"), seconds, elements, now)
        .map_err(Refused::error)?;
    fx.commit(vec![account.publications.kept(&account.jid)], Some(iq.stanza), iq.ticket);
    account.terms_due = Default::default();
    change::look_at_sphere(account, fx);
    changed(account, fx);
    let expires = account.publications.all().iter().find(|one| Some(&one.etag) == etag.as_ref());
    let expires = expires.map_or(0, |one| one.expires.seconds_since(now));
    let answer = Element::new("published", NS).attr_opt("etag", etag.as_deref()).attr("expires", expires.to_string());
    Ok(Answer::Result(Some(answer)))
}

/// `None`: the presentity itself. Another domain's principals publish nothing here, grant or not: what passes between
/// domains is fetches, subscriptions and notifications alone.
fn publisher(account: &Account, iq: &Iq<'_>) -> Result<Option<BareJid>, StanzaError> {
    if iq.session.is_some() {
        return Ok(None);
    }
    let is_here = iq.from.domain() == account.jid.domain();
    if is_here && view::grants(account, iq.from, view::Grant::Publish) {
        return Ok(Some(iq.from.to_bare()));
    }
    Err(unknown())
}

/// The account's publications, with their tags: for a client that lost them.
fn list(account: &mut Account, _: &Iq<'_>, _: &mut Effects) -> Handled {
    let now = account.now.utc;
    let current = account.publications.all().iter().filter(|one| one.expires > now);
    let all = current.map(|one| {
        Element::new("publication", NS)
            .attr("etag", &one.etag)
            .attr("expires", one.expires.seconds_since(now).to_string())
            .attr_opt("publisher", one.publisher.as_ref().map(|jid| jid.as_str()))
            .children_from(one.elements.iter().cloned())
    });
    Ok(Answer::Result(Some(Element::new("publications", NS).children_from(all))))
}

/// Publications that are over go.
pub(crate) fn end_overdue(account: &mut Account, fx: &mut Effects) {
    if account.publications.end_overdue(account.now.utc) {
        fx.commit(vec![account.publications.kept(&account.jid)], None, &Default::default());
        change::look_at_sphere(account, fx);
        changed(account, fx);
    }
}

/// What is published has changed: subscribers that know documents get theirs. Those are who have fetched one; to others a
/// tuple means nothing.
fn changed(account: &mut Account, fx: &mut Effects) {
    if !account.policy.presence {
        return;
    }
    let fetched = |who: &BareJid| account.watchers.row(who).is_some_and(|row| row.fetches > 0);
    let watchers: Vec<Jid> =
        account.roster.watchers().filter(|who| fetched(who)).map(|who| Jid::from(who.clone())).collect();
    for watcher in watchers {
        let Some(document) = tuples::compose(account, &watcher) else { continue };
        let stanza = Stanza::message(MessageType::Headline)
            .with_from(account.jid.clone())
            .with_to(watcher.clone())
            .with_children([Element::new("event", NS).child(document), Element::new("no-store", ns::HINTS)]);
        let (stanza, ingress) = (Arc::new(stanza), presence::OWN);
        fx.push(Effect::Tell { to: watcher, stanza, ingress, ticket: Default::default() });
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{START, Scene, account_with, contact};
    use store::{AccountRecord, Change};

    fn juliet() -> Scene {
        let roster = vec![contact("romeo@montague.example", "from"), contact("mercutio@montague.example", "from")];
        let record = AccountRecord { created: START, roster, ..AccountRecord::default() };
        account_with("juliet@capulet.example", record).with("home", 0)
    }

    fn publishes(scene: &mut Scene, attributes: &str, content: &str) -> String {
        let xml =
            format!("<iq type='set' id='p1'><publish xmlns='urn:waft:tuples:0' {attributes}>{content}</publish></iq>");
        scene.sends("home", &xml).delivered("home").remove(0)
    }

    fn tuple(id: &str) -> String {
        format!("<tuple xmlns='urn:ietf:params:xml:ns:pidf' id='{id}'><status><basic>open</basic></status></tuple>")
    }

    fn fetched_by(scene: &mut Scene, who: &str) -> String {
        let xml = format!("<iq type='get' id='f1' from='{who}'><fetch xmlns='urn:waft:fetch:0'/></iq>");
        scene.receive(&xml).told().remove(0).1
    }

    fn etag(answer: &str) -> String {
        answer.split("etag='").nth(1).and_then(|rest| rest.split('\'').next()).expect("a tag").to_owned()
    }

    #[test]
    fn what_is_published_is_on_disk_before_it_is_answered_and_outlives_a_restart() {
        let mut juliet = juliet();
        let xml = format!(
            "<iq type='set' id='p1'><publish xmlns='urn:waft:tuples:0' expires='600'>{}</publish></iq>",
            tuple("desk")
        );
        let fx = juliet.sends("home", &xml);
        let answer = fx.delivered("home").remove(0);
        assert!(answer.contains("type='result'") && answer.contains("expires='600'"), "{answer}");
        let value = match &fx.commits()[..] {
            [Change::BlobPut { space, key, value, .. }] if (&**space, &**key) == ("settings", "tuples") => {
                value.clone()
            }
            other => panic!("{other:?}"),
        };
        let settings = vec![("tuples".into(), value)];
        let roster = vec![contact("romeo@montague.example", "from")];
        let record = AccountRecord { created: START, roster, settings, ..AccountRecord::default() };
        let mut again = account_with("juliet@capulet.example", record);
        let document = fetched_by(&mut again, "romeo@montague.example/x");
        assert!(document.contains("id='desk'") && document.contains("<timestamp>2026-01-01T00:00:00Z"), "{document}");
    }

    #[test]
    fn the_tag_of_the_answer_refreshes_modifies_and_removes() {
        let mut juliet = juliet();
        let first = etag(&publishes(&mut juliet, "expires='60'", &tuple("desk")));
        let second = etag(&publishes(&mut juliet, &format!("expires='90' etag='{first}'"), ""));
        let stale = publishes(&mut juliet, &format!("etag='{first}'"), "");
        assert!(stale.contains("<item-not-found") && stale.contains("<precondition-failed"), "{stale}");
        let third = etag(&publishes(&mut juliet, &format!("etag='{second}'"), &tuple("bed")));
        let listed = juliet.sends("home", "<iq type='get' id='l'><publications xmlns='urn:waft:tuples:0'/></iq>");
        let listed = listed.delivered("home").remove(0);
        assert!(listed.contains("id='bed'") && listed.contains(&third) && !listed.contains("desk"), "{listed}");
        let gone = publishes(&mut juliet, &format!("expires='0' etag='{third}'"), "");
        assert!(gone.contains("type='result'") && !gone.contains("etag"), "{gone}");
        assert!(!fetched_by(&mut juliet, "romeo@montague.example/x").contains("bed"));
    }

    #[test]
    fn what_is_over_goes_from_the_disk_and_out_of_the_document() {
        let mut juliet = juliet();
        publishes(&mut juliet, "expires='60'", &tuple("desk"));
        assert!(fetched_by(&mut juliet, "romeo@montague.example/x").contains("desk"));
        let fx = juliet.after_ms(60_001);
        assert!(
            fx.commits().iter().any(|c| matches!(c, Change::BlobDelete { key, .. } if &**key == "tuples")),
            "{fx:?}"
        );
        let told = fx.told();
        assert!(told.iter().any(|(to, xml)| to == "romeo@montague.example" && !xml.contains("desk")), "{told:?}");
    }

    #[test]
    fn subscribers_that_know_documents_are_told_of_what_changes_and_others_are_not() {
        let mut juliet = juliet();
        fetched_by(&mut juliet, "romeo@montague.example/x");
        let xml = format!("<iq type='set' id='p1'><publish xmlns='urn:waft:tuples:0'>{}</publish></iq>", tuple("desk"));
        let told = juliet.sends("home", &xml).told();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].0, "romeo@montague.example");
        assert!(told[0].1.contains("type='headline'") && told[0].1.contains("id='desk'"), "{told:?}");
    }

    #[test]
    fn nobody_else_publishes_without_a_grant_and_nobody_of_another_domain_at_all() {
        for who in ["nurse@capulet.example/x", "romeo@montague.example/x", "tybalt@elsewhere.example/x"] {
            let mut juliet = juliet();
            let xml = format!(
                "<iq type='set' id='p1' from='{who}'><publish xmlns='urn:waft:tuples:0'>{}</publish></iq>",
                tuple("desk")
            );
            let fx = juliet.receive(&xml);
            assert!(fx.told()[0].1.contains("<service-unavailable") && fx.commits().is_empty(), "{who}");
        }
    }

    #[test]
    fn content_that_is_none_is_refused_and_changes_nothing() {
        for (attributes, content, condition) in [
            ("expires='soon'", tuple("desk"), "bad-request"),
            ("", String::new(), "bad-request"),
            ("", "<x xmlns='u:x' id='a'/>".into(), "bad-request"),
            ("", format!("{}{}", tuple("desk"), tuple("desk")), "bad-request"),
            ("expires='5'", tuple("desk"), "interval-too-brief"),
            ("", (0..17).map(|n| tuple(&format!("t{n}"))).collect(), "too-much"),
        ] {
            let mut juliet = juliet();
            let answer = publishes(&mut juliet, attributes, &content);
            assert!(answer.contains(condition), "{answer}");
            assert!(juliet.publications.all().is_empty());
        }
    }
}
