//! Privacy Lists, XEP-0016, for old clients: one list, `rules`, as a view of the block list and the access rules.
//!
//! What maps: `deny` of everything from an address (the block list), of messages from, and of presence to an address, a
//! domain or a group of the roster (two access rules), and `allow` for the rest. What does not map is refused with a
//! text that says so: nothing is taken that would not be kept.

use crate::account::Account;
use crate::effects::Effects;
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::rules::document::{Actions, Conditions, Domain, Identity, Many, Rule};
use crate::rules::edit::{self, Edit};
use crate::rules::{Delivery, Handling};
use xmpp::{Element, IqType, Jid, StanzaCondition, StanzaError};

const NS: &str = "jabber:iq:privacy";
const LIST: &str = "rules";
/// The access rules that items become.
const PRESENCE: &str = "privacy-presence-out";
const MESSAGES: &str = "privacy-message";

pub static MODULE: Module = Module {
    name: "privacy lists",
    specs: &[xep(16, "1.7").without("lists beside the one, exceptions, presence-in, iq, by subscription")],
    host_features: &[NS],
    account_iq: &[(IqType::Get, NS, "query", Who::Owner, get), (IqType::Set, NS, "query", Who::Owner, set)],
    own_at_host: true,
    ..Module::EMPTY
};

fn unmapped(why: &str) -> StanzaError {
    StanzaError::from(StanzaCondition::FeatureNotImplemented).with_text(why)
}

fn bad() -> StanzaError {
    StanzaCondition::BadRequest.into()
}

/// The names, or the list. §2.3.
fn get(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    let named = |name: &str| Element::new(name, NS).attr("name", LIST);
    let query = Element::new("query", NS);
    let mut asked = iq.child.elements();
    let content = match (asked.next(), asked.next()) {
        (None, _) => query.child(named("default")).child(named("list")),
        (Some(list), None) if list.attribute("name") == Some(LIST) => query.child(shown(account)),
        (Some(_), None) => return Err(StanzaCondition::ItemNotFound.into()),
        (Some(_), Some(_)) => return Err(bad()),
    };
    Ok(Answer::Result(Some(content)))
}

/// §2.4–§2.8.
fn set(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let mut commands = iq.child.elements();
    let (Some(command), None) = (commands.next(), commands.next()) else { return Err(bad()) };
    let name = command.attribute("name");
    match (&*command.name, name) {
        ("active" | "default", Some(LIST)) => return Ok(Answer::Result(None)),
        ("active" | "default", None) => return Err(unmapped("The list \"rules\" is always in force.")),
        ("active" | "default", Some(_)) => return Err(StanzaCondition::ItemNotFound.into()),
        ("list", Some(LIST)) => {}
        ("list", Some(_)) => return Err(unmapped("There is one list here: \"rules\".")),
        _ => return Err(bad()),
    }
    let wanted = Wanted::of(command)?;
    let mut rules: Vec<Rule> = account.rules.rules().to_vec();
    rules.retain(|rule| ![PRESENCE, MESSAGES].contains(&&*rule.id));
    let presence = Actions { subscribe: Some(Handling::PoliteBlock), ..Actions::default() };
    let messages = Actions { message: Some(Delivery::Refuse), ..Actions::default() };
    for (id, identities, actions) in [(PRESENCE, wanted.presence, presence), (MESSAGES, wanted.messages, messages)] {
        if !identities.is_empty() {
            let conditions = Conditions { identity: Some(identities), ..Conditions::default() };
            rules.push(Rule { id: id.into(), conditions, actions, shape: None });
        }
    }
    crate::rules::xml::check(&rules)?;
    let edit = Edit { rules: Some(rules), blocked: Some(wanted.blocked), subscribers: None };
    edit::make(account, edit, Some(iq.stanza), iq.ticket, fx)?;
    Ok(Answer::Result(None))
}

/// A list, read.
#[derive(Default)]
struct Wanted {
    blocked: Vec<Jid>,
    presence: Vec<Identity>,
    messages: Vec<Identity>,
}

impl Wanted {
    fn of(list: &Element) -> Result<Wanted, StanzaError> {
        let mut items = Vec::new();
        for item in list.elements().filter(|child| child.is("item", NS)) {
            let order: u32 = item.attribute("order").and_then(|order| order.parse().ok()).ok_or_else(bad)?;
            items.push((order, item));
        }
        items.sort_by_key(|(order, _)| *order);
        if items.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(bad());
        }
        let mut wanted = Wanted::default();
        let last = items.len().saturating_sub(1);
        for (at, (_, item)) in items.iter().enumerate() {
            match item.attribute("action") {
                // The fall-through, which is there anyway.
                Some("allow") if at == last && item.attribute("type").is_none() => {}
                Some("allow") => return Err(unmapped("Exceptions have no place here: use access rules.")),
                Some("deny") => wanted.deny(item)?,
                _ => return Err(bad()),
            }
        }
        Ok(wanted)
    }

    fn deny(&mut self, item: &Element) -> Result<(), StanzaError> {
        let value = item.attribute("value").ok_or_else(|| unmapped("What denies everybody has no place here."))?;
        let (mut presence, mut messages, mut all) = (false, false, true);
        for what in item.elements() {
            all = false;
            match &*what.name {
                "message" => messages = true,
                "presence-out" => presence = true,
                _ => return Err(unmapped("Only messages, and presence to somebody, can be denied by themselves.")),
            }
        }
        let identity = match item.attribute("type") {
            Some("jid") => {
                let jid = Jid::parse(value).map_err(|fault| xmpp::error::jid_malformed(&fault))?;
                if all {
                    self.blocked.push(jid);
                    return Ok(());
                }
                if !jid.is_bare() {
                    return Err(unmapped("A resource can be denied everything, or nothing."));
                }
                of_jid(&jid)
            }
            Some("group") => Identity::Group(Some(value.into())),
            _ => return Err(unmapped("Only addresses and groups can be denied.")),
        };
        if presence || all {
            self.presence.push(identity.clone());
        }
        if messages || all {
            self.messages.push(identity);
        }
        Ok(())
    }
}

fn of_jid(jid: &Jid) -> Identity {
    match jid.is_domain() {
        true => {
            let domain = Domain { name: jid.domain().into(), below: false };
            Identity::Many(Many { domain: Some(domain), except: Vec::new() })
        }
        false => Identity::One(jid.to_bare()),
    }
}

fn shown(account: &Account) -> Element {
    let mut items: Vec<Element> = account.blocks.iter().map(|jid| deny("jid", jid.as_str(), &[])).collect();
    let of = |id: &str| {
        let rule = account.rules.rules().iter().find(|rule| *rule.id == *id);
        rule.and_then(|rule| rule.conditions.identity.as_deref()).unwrap_or_default()
    };
    let (presence, messages) = (of(PRESENCE), of(MESSAGES));
    let both = presence.iter().chain(messages.iter().filter(|identity| !presence.contains(identity)));
    for identity in both {
        let denied: Vec<&str> = match (presence.contains(identity), messages.contains(identity)) {
            (true, true) => vec!["message", "presence-out"],
            (true, false) => vec!["presence-out"],
            _ => vec!["message"],
        };
        match identity {
            Identity::One(who) => items.push(deny("jid", who.as_str(), &denied)),
            Identity::Many(Many { domain: Some(domain), .. }) => items.push(deny("jid", &domain.name, &denied)),
            Identity::Group(Some(group)) if denied.len() == 2 => items.push(deny("group", group, &[])),
            Identity::Group(Some(group)) => items.push(deny("group", group, &denied)),
            // Edited otherwise meanwhile: such a list cannot show it.
            _ => {}
        }
    }
    items.push(Element::new("item", NS).attr("action", "allow"));
    let numbered = (1..).zip(items).map(|(order, item): (u32, Element)| item.attr("order", order.to_string()));
    Element::new("list", NS).attr("name", LIST).children_from(numbered)
}

fn deny(kind: &str, value: &str, what: &[&str]) -> Element {
    let item = Element::new("item", NS).attr("type", kind).attr("value", value).attr("action", "deny");
    item.children_from(what.iter().map(|name| Element::new(name, NS)))
}

#[cfg(test)]
mod tests {
    use crate::testing::{Fx, Scene, account_with, contact, jid};
    use store::AccountRecord;

    fn juliet() -> Scene {
        let mut nurse = contact("nurse@capulet.example", "both");
        nurse.groups = vec!["kin".into()];
        let roster = vec![contact("romeo@montague.example", "both"), nurse];
        account_with("juliet@capulet.example", AccountRecord { roster, ..AccountRecord::default() }).with("home", 0)
    }

    fn says(scene: &mut Scene, kind: &str, content: &str) -> (Fx, String) {
        let fx = scene.sends(
            "home",
            &format!("<iq type='{kind}' id='p'><query xmlns='jabber:iq:privacy'>{content}</query></iq>"),
        );
        let answer = fx.delivered("home").pop().expect("an answer");
        (fx, answer)
    }

    const LIST: &str = "<list name='rules'>\
        <item type='jid' value='tybalt@capulet.example' action='deny' order='3'/>\
        <item type='jid' value='romeo@montague.example' action='deny' order='5'><presence-out/></item>\
        <item type='group' value='kin' action='deny' order='7'><message/></item>\
        <item action='allow' order='9'/></list>";

    #[test]
    fn the_list_is_a_view_of_block_list_and_rules() {
        let mut juliet = juliet();
        let (fx, answer) = says(&mut juliet, "set", LIST);
        assert!(answer.contains("type='result'"), "{answer}");
        assert_eq!(fx.told_to(), ["romeo@montague.example"]);
        assert!(juliet.blocks.contains(&jid("tybalt@capulet.example")));
        let fx = juliet.receive("<message type='chat' id='m' from='nurse@capulet.example/x'><body>hi</body></message>");
        assert!(fx.told()[0].1.contains("service-unavailable"));
        let (_, shown) = says(&mut juliet, "get", "<list name='rules'/>");
        for item in [
            "<item type='jid' value='tybalt@capulet.example' action='deny' order='1'/>",
            "<item type='jid' value='romeo@montague.example' action='deny' order='2'><presence-out/></item>",
            "<item type='group' value='kin' action='deny' order='3'><message/></item>",
            "<item action='allow' order='4'/>",
        ] {
            assert!(shown.contains(item), "{item} in {shown}");
        }
        // What is blocked by the other command shows here.
        juliet.sends(
            "home",
            "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='evil.example'/></block></iq>",
        );
        assert!(says(&mut juliet, "get", "<list name='rules'/>").1.contains("value='evil.example'"));
        let (fx, _) = says(&mut juliet, "set", "<list name='rules'/>");
        assert!(juliet.blocks.is_empty() && juliet.rules.rules().is_empty());
        assert_eq!(fx.told_to(), ["romeo@montague.example"], "he sees her again");
    }

    #[test]
    fn what_does_not_map_is_refused_and_nothing_is_changed() {
        let item = |item: &str| format!("<list name='rules'><item {item}</list>");
        for (content, condition) in [
            (item("action='deny' order='1'/>"), "feature-not-implemented"),
            (item("type='jid' value='a@b.example' action='allow' order='1'/>"), "feature-not-implemented"),
            (item("type='subscription' value='none' action='deny' order='1'/>"), "feature-not-implemented"),
            (item("type='jid' value='a@b.example' action='deny' order='1'><iq/></item>"), "feature-not-implemented"),
            (item("type='jid' value='@' action='deny' order='1'/>"), "jid-malformed"),
            (item("type='jid' value='a@b.example' action='deny'/>"), "bad-request"),
            ("<list name='mine'/>".into(), "feature-not-implemented"),
            ("<active/>".into(), "feature-not-implemented"),
            ("<default name='mine'/>".into(), "item-not-found"),
        ] {
            let (fx, answer) = says(&mut juliet(), "set", &content);
            assert!(answer.contains(condition) && fx.commits().is_empty(), "{content}: {answer}");
        }
    }
}
