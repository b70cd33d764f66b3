//! Blocking command, XEP-0191: who may not reach the account, and is not reached.

use crate::account::Account;
use crate::block;
use crate::effects::Effects;
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::modules::reports::{self, Report};
use xmpp::{Element, IqType, Jid, StanzaCondition, StanzaError};

pub const NS: &str = block::NS;

pub static MODULE: Module = Module {
    name: "blocking",
    specs: &[xep(191, "1.3")],
    host_features: &[NS],
    account_features: &[NS],
    account_iq: &[
        (IqType::Get, NS, "blocklist", Who::Owner, list),
        (IqType::Set, NS, "block", Who::Owner, block_them),
        (IqType::Set, NS, "unblock", Who::Owner, unblock),
    ],
    own_at_host: true,
    ..Module::EMPTY
};

/// The block list; who asks for it hears of its changes. XEP-0191 §3.2.
fn list(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    if let Some(session) = iq.session.and_then(|id| account.session_mut(id)) {
        session.knows_blocks = true;
    }
    Ok(Answer::Result(Some(Element::new("blocklist", NS).children_from(account.blocks.iter().map(block::item)))))
}

/// XEP-0191 §3.3. Subscriptions stay ("polite blocking", §4).
fn block_them(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let jids = jids_of(iq.child)?;
    if jids.is_empty() {
        return Err(StanzaError::from(StanzaCondition::BadRequest).with_text("Whom?"));
    }
    let reports = reports_of(iq.child)?;
    let mut parts = Effects::default();
    block::add(account, jids, &[], &mut parts)?;
    reports.into_iter().for_each(|report| reports::tell(report, fx));
    block::carry(parts, iq, fx);
    Ok(Answer::Result(None))
}

/// Some, or without items all. XEP-0191 §3.4, §3.5.
fn unblock(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let named = jids_of(iq.child)?;
    let all = named.is_empty();
    let gone: Vec<Jid> = if all {
        account.blocks.iter().cloned().collect()
    } else {
        named.into_iter().filter(|jid| account.blocks.contains(jid)).collect()
    };
    let mut parts = Effects::default();
    block::remove(account, gone, all, &mut parts);
    block::carry(parts, iq, fx);
    Ok(Answer::Result(None))
}

/// The JIDs of the items, each once.
///
/// # Errors
/// `bad-request` for an item without `jid`, `jid-malformed` for a bad one.
fn jids_of(command: &Element) -> Result<Vec<Jid>, StanzaError> {
    let mut jids = Vec::new();
    for item in command.elements().filter(|child| child.is("item", NS)) {
        let text = item.attribute("jid").ok_or(StanzaCondition::BadRequest)?;
        jids.push(Jid::parse(text).map_err(|fault| xmpp::error::jid_malformed(&fault))?);
    }
    jids.sort();
    jids.dedup();
    Ok(jids)
}

/// What is said of the addresses. XEP-0377.
fn reports_of(command: &Element) -> Result<Vec<Report>, StanzaError> {
    let items = command.elements().filter(|child| child.is("item", NS));
    let known = items.filter_map(|item| Some((item, Jid::parse(item.attribute("jid")?).ok()?)));
    let reports = known.map(|(item, about)| reports::of(item, &about));
    reports.filter_map(Result::transpose).collect()
}

#[cfg(test)]
mod tests {
    use crate::testing::{Fx, Scene, account_with, contact, jid};
    use store::{AccountRecord, Change};

    fn juliet() -> Scene {
        let roster = vec![
            contact("romeo@example.net", "both"),
            contact("tybalt@example.com", "from"),
            contact("nurse@example.com", "to"),
        ];
        account_with("juliet@example.com", AccountRecord { roster_version: 1, roster, ..AccountRecord::default() })
            .with("balcony", 0)
    }

    fn command(scene: &mut Scene, xml: &str) -> Fx {
        scene.sends("balcony", &format!("<iq type='set' id='b1'>{xml}</iq>"))
    }

    fn block(scene: &mut Scene, jids: &[&str]) -> Fx {
        let items: String = jids.iter().map(|jid| format!("<item jid='{jid}'/>")).collect();
        command(scene, &format!("<block xmlns='urn:xmpp:blocking'>{items}</block>"))
    }

    fn unblock(scene: &mut Scene, jids: &[&str]) -> Fx {
        let items: String = jids.iter().map(|jid| format!("<item jid='{jid}'/>")).collect();
        command(scene, &format!("<unblock xmlns='urn:xmpp:blocking'>{items}</unblock>"))
    }

    #[test]
    fn the_list_is_given_and_its_changes_are_pushed_to_who_asked_for_it() {
        let mut juliet = juliet().connected("chamber");
        let fx = juliet.sends("chamber", "<iq type='get' id='l1'><blocklist xmlns='urn:xmpp:blocking'/></iq>");
        assert!(fx.delivered("chamber")[0].contains("<blocklist xmlns='urn:xmpp:blocking'/>"));
        let fx = block(&mut juliet, &["romeo@example.net", "iago@example.org"]);
        assert!(matches!(fx.list[0], crate::Effect::Commit { .. }));
        assert_eq!(fx.commits().len(), 2);
        let push = &fx.delivered("chamber")[0];
        assert!(push.contains("type='set'") && push.contains("to='juliet@example.com/chamber'"), "{push}");
        assert!(push.contains("<item jid='romeo@example.net'/>") && push.contains("<item jid='iago@example.org'/>"));
        let own = fx.delivered("balcony");
        assert!(own.len() == 1 && own[0].contains("type='result'"), "balcony has not asked for the list");
        let fx = juliet.sends("chamber", "<iq type='get' id='l2'><blocklist xmlns='urn:xmpp:blocking'/></iq>");
        assert_eq!(fx.delivered("chamber")[0].matches("<item").count(), 2);
    }

    #[test]
    fn a_blocked_watcher_sees_all_resources_leave_and_others_see_nothing() {
        let mut juliet = juliet().with("chamber", 0);
        let fx = block(&mut juliet, &["romeo@example.net", "nurse@example.com", "stranger@example.org"]);
        assert_eq!(fx.told_to(), ["romeo@example.net", "romeo@example.net"]);
        assert!(fx.told().iter().all(|(_, xml)| xml.contains("type='unavailable'")));
        // Blocked now: the next change is not for him.
        let fx = juliet.sends("balcony", "<presence><show>away</show></presence>");
        assert_eq!(fx.told_to(), ["tybalt@example.com"]);
    }

    #[test]
    fn a_blocked_domain_stands_for_all_its_users() {
        let mut juliet = juliet();
        let fx = block(&mut juliet, &["example.com"]);
        assert_eq!(fx.told_to(), ["tybalt@example.com"]);
    }

    #[test]
    fn one_blocked_resource_of_a_watcher_alone_sees_us_leave() {
        let mut juliet = juliet();
        let fx = block(&mut juliet, &["romeo@example.net/orchard"]);
        assert_eq!(fx.told_to(), ["romeo@example.net/orchard"]);
    }

    #[test]
    fn whom_directed_presence_was_sent_sees_us_leave() {
        let mut juliet = juliet().having("balcony", |s| s.directed.push(jid("paris@example.org/hall")));
        let fx = block(&mut juliet, &["paris@example.org"]);
        assert_eq!(fx.told_to(), ["paris@example.org/hall"]);
        assert!(juliet.sessions[0].directed.is_empty());
    }

    #[test]
    fn a_watcher_who_had_directed_presence_alone_sees_us_leave() {
        let mut juliet = juliet().connected("cellar").having("cellar", |s| s.directed.push(jid("tybalt@example.com")));
        let fx = block(&mut juliet, &["tybalt@example.com"]);
        let told = fx.told();
        assert_eq!(fx.told_to(), ["tybalt@example.com", "tybalt@example.com"]);
        assert!(told[0].1.contains("/balcony'") && told[1].1.contains("/cellar'"));
    }

    #[test]
    fn what_a_blocked_contact_says_of_its_subscription_is_noted_in_silence() {
        let mut juliet = juliet().having("balcony", |s| s.interested = true);
        block(&mut juliet, &["romeo@example.net"]);
        let fx = juliet.receive("<presence from='romeo@example.net' type='unsubscribe'/>");
        assert!(fx.told().is_empty());
        assert_eq!(fx.delivered("balcony").len(), 1, "the push alone");
        let fx = juliet.receive("<presence from='romeo@example.net' type='unsubscribed'/>");
        assert!(fx.told().is_empty() && fx.delivered("balcony")[0].contains("subscription='none'"));
    }

    #[test]
    fn an_unblocked_watcher_sees_the_presence_again_and_is_asked_for_his() {
        let mut juliet = juliet();
        block(&mut juliet, &["romeo@example.net", "example.net"]);
        assert!(unblock(&mut juliet, &["example.net"]).told().is_empty(), "he is still blocked by name");
        let fx = unblock(&mut juliet, &["romeo@example.net"]);
        let told = fx.told();
        assert_eq!(fx.told_to(), ["romeo@example.net", "romeo@example.net"]);
        assert!(told[0].1.contains("from='juliet@example.com/balcony'") && !told[0].1.contains("type="));
        assert!(told[1].1.contains("type='probe'"));
        // What was known of him before is void.
        assert!(fx.delivered("balcony")[0].contains("from='romeo@example.net'"));
        assert!(fx.delivered("balcony")[0].contains("type='unavailable'"));
        assert!(fx.commits().iter().all(|change| matches!(change, Change::BlockDelete { .. })));
    }

    #[test]
    fn unblock_without_items_unblocks_all_and_is_pushed_so() {
        let mut juliet = juliet().having("balcony", |s| s.knows_blocks = true);
        block(&mut juliet, &["romeo@example.net", "example.net", "tybalt@example.com"]);
        let fx = unblock(&mut juliet, &[]);
        assert!(juliet.blocks.is_empty());
        assert_eq!(fx.commits().len(), 3);
        assert!(fx.delivered("balcony")[0].contains("<unblock xmlns='urn:xmpp:blocking'/>"));
        let mut told = fx.told_to();
        told.sort();
        assert_eq!(told, ["romeo@example.net", "romeo@example.net", "tybalt@example.com"]);
    }

    #[test]
    fn the_same_again_changes_nothing() {
        let mut juliet = juliet().having("balcony", |s| s.knows_blocks = true);
        block(&mut juliet, &["romeo@example.net"]);
        for fx in [block(&mut juliet, &["romeo@example.net"]), unblock(&mut juliet, &["iago@example.org"])] {
            assert!(fx.commits().is_empty() && fx.told().is_empty());
            assert!(fx.delivered("balcony").len() == 1 && fx.delivered("balcony")[0].contains("type='result'"));
        }
    }

    #[test]
    fn bad_commands_are_refused_whole() {
        for (xml, condition) in [
            ("<block xmlns='urn:xmpp:blocking'/>", "bad-request"),
            ("<block xmlns='urn:xmpp:blocking'><item/></block>", "bad-request"),
            (
                "<block xmlns='urn:xmpp:blocking'><item jid='romeo@example.net'/><item jid='@'/></block>",
                "jid-malformed",
            ),
            ("<unblock xmlns='urn:xmpp:blocking'><item jid='@'/></unblock>", "jid-malformed"),
            ("<block xmlns='urn:xmpp:blocking'><item jid='juliet@example.com/chamber'/></block>", "not-allowed"),
        ] {
            let mut juliet = juliet();
            let fx = command(&mut juliet, xml);
            assert!(fx.commits().is_empty() && juliet.blocks.is_empty());
            assert!(fx.delivered("balcony")[0].contains(&format!("<{condition}")), "{xml}");
        }
    }

    #[test]
    fn more_entries_than_the_limit_are_refused() {
        let mut juliet = juliet().policy(|p| p.limits.block_items_max = 2);
        block(&mut juliet, &["a@x", "b@x"]);
        let fx = block(&mut juliet, &["b@x", "c@x"]);
        assert!(fx.delivered("balcony")[0].contains("<resource-constraint") && juliet.blocks.len() == 2);
    }

    #[test]
    fn the_block_list_of_somebody_else_is_out_of_reach() {
        let fx = juliet()
            .receive("<iq from='romeo@example.net/x' type='get' id='1'><blocklist xmlns='urn:xmpp:blocking'/></iq>");
        assert!(fx.told()[0].1.contains("<service-unavailable"));
    }
}
