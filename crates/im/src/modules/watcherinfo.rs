//! WATCHER INFORMATION by iq, and live: documents of RFC 3858 with a row for each watcher.

use crate::account::Account;
use crate::effects::Effects;
use crate::module::{Answer, Handled, Iq, Module, Who};
use crate::modules::unknown;
use crate::view::{Exit, view};
use crate::watchers::{self, NS, Shown};
use xmpp::{BareJid, Element, IqType, StanzaCondition};

pub static MODULE: Module = Module {
    name: "watcher information",
    host_features: &[NS],
    account_features: &[NS],
    account_iq: &[
        (IqType::Get, NS, "query", Who::Anyone, show),
        (IqType::Set, NS, "watch", Who::Owner, watch),
        (IqType::Set, NS, "unwatch", Who::Owner, unwatch),
    ],
    offered: |policy| policy.presence,
    ..Module::EMPTY
};

/// The owner is shown all, and whoever of the same domain has a grant; another watcher of the domain its own row. To other
/// domains none of it goes: what passes between domains is fetches, subscriptions and notifications.
///
/// # Errors
/// What an account that does not exist would say, for whoever may see nothing.
fn show(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    let is_here = iq.from.domain() == account.jid.domain();
    let sees_all = iq.session.is_some() || (is_here && view(account, iq.from, Exit::Watchers).shows());
    let sees_own = is_here && watchers::own_row(account, iq.from);
    if !sees_all && !sees_own {
        return Err(unknown());
    }
    let one = match iq.child.attribute("watcher").map(BareJid::parse) {
        None => None,
        Some(Ok(who)) => Some(who),
        Some(Err(fault)) => return Err(xmpp::error::jid_malformed(&fault)),
    };
    let shown = match (&one, sees_all) {
        (None, true) => Shown::All,
        (Some(one), true) => Shown::One(one),
        (_, false) => Shown::One(iq.from),
    };
    let document = watchers::document(account, shown, "full");
    Ok(Answer::Result(Some(Element::new("query", NS).child(document))))
}

fn watch(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    set(account, iq, true)
}

fn unwatch(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    set(account, iq, false)
}

/// The session hears of each change from now on, or no longer.
fn set(account: &mut Account, iq: &Iq<'_>, yes: bool) -> Handled {
    let session = iq.session.and_then(|id| account.session_mut(id)).ok_or(StanzaCondition::BadRequest)?;
    session.watches_watchers = yes;
    if !yes {
        return Ok(Answer::Result(None));
    }
    let document = watchers::document(account, Shown::All, "full");
    Ok(Answer::Result(Some(Element::new("query", NS).child(document))))
}

#[cfg(test)]
mod tests {
    use crate::testing::{Fx, START, Scene, account_with, contact, jid};
    use store::{AccountRecord, Change};

    fn juliet() -> Scene {
        let roster = vec![contact("romeo@montague.example", "from"), contact("nurse@capulet.example", "from")];
        let blocks = vec![jid("tybalt@capulet.example")];
        let record = AccountRecord { created: START, roster, blocks, ..AccountRecord::default() };
        account_with("juliet@capulet.example", record).with("home", 0)
    }

    const QUERY: &str = "<query xmlns='urn:waft:watchers:0'/>";

    fn listed(scene: &mut Scene) -> String {
        scene.sends("home", &format!("<iq type='get' id='w1'>{QUERY}</iq>")).delivered("home").remove(0)
    }

    fn fetches(scene: &mut Scene, who: &str) -> Fx {
        scene.receive(&format!("<iq type='get' id='f1' from='{who}'><fetch xmlns='urn:waft:fetch:0'/></iq>"))
    }

    /// The row and the line of one watcher.
    fn row(document: &str, who: &str) -> (String, String) {
        let row = document.split("<row ").find(|row| row.contains(&format!("jid='{who}'")));
        let row = row.unwrap_or_else(|| panic!("{who} in {document}")).to_owned();
        let id = row.split("id='").nth(1).and_then(|rest| rest.split('\'').next()).expect("an id");
        let line = document.split("<watcher ").find(|line| line.contains(id)).expect("a line").to_owned();
        (row, line)
    }

    #[test]
    fn subscribers_fetchers_pollers_flashes_and_refused_are_all_listed() {
        let mut juliet = juliet();
        fetches(&mut juliet, "nurse@capulet.example/x");
        for _ in 0..3 {
            fetches(&mut juliet, "romeo@montague.example/x");
            juliet.after_ms(1_000);
        }
        fetches(&mut juliet, "paris@elsewhere.example/x");
        fetches(&mut juliet, "tybalt@capulet.example/x");
        juliet.receive("<presence type='subscribe' from='flash@elsewhere.example'/>");
        juliet.after_ms(500);
        juliet.receive("<presence type='unsubscribe' from='flash@elsewhere.example'/>");
        juliet.sends("home", "<presence><show>away</show></presence>");
        let document = listed(&mut juliet);
        let (romeo, line) = row(&document, "romeo@montague.example");
        assert!(line.contains("status='active'") && line.contains("event='approved'"), "{line}");
        assert!(line.contains(">xmpp:romeo@montague.example<"), "{line}");
        assert!(romeo.contains("fetches='3'") && romeo.contains("auth='domain'"), "{romeo}");
        assert!(romeo.contains("notifications='0'") || romeo.contains("notifications='1'"), "{romeo}");
        assert!(row(&document, "nurse@capulet.example").0.contains("auth='server'"));
        let (paris, line) = row(&document, "paris@elsewhere.example");
        assert!(paris.contains("kind='refused'") && paris.contains("refused='1'") && line.contains("event='rejected'"));
        assert!(row(&document, "tybalt@capulet.example").0.contains("kind='refused'"));
        let (flash, line) = row(&document, "flash@elsewhere.example");
        assert!(
            flash.contains("kind='subscriber'")
                && line.contains("status='terminated'")
                && line.contains("event='timeout'")
        );
    }

    #[test]
    fn three_fetches_make_a_poller_of_whoever_is_no_subscriber() {
        let roster = vec![contact("romeo@montague.example", "from")];
        let record = AccountRecord { created: START, roster, ..AccountRecord::default() };
        let mut juliet = account_with("juliet@capulet.example", record).with("home", 0);
        fetches(&mut juliet, "romeo@montague.example/x");
        juliet.sends("home", "<presence type='unsubscribed' to='romeo@montague.example'/>");
        assert!(row(&listed(&mut juliet), "romeo@montague.example").0.contains("kind='fetcher'"));
        juliet.sends("home", "<presence type='subscribed' to='romeo@montague.example'/>");
        juliet.receive("<presence type='subscribe' from='romeo@montague.example'/>");
        fetches(&mut juliet, "romeo@montague.example/x");
        fetches(&mut juliet, "romeo@montague.example/x");
        juliet.sends("home", "<presence type='unsubscribed' to='romeo@montague.example'/>");
        let (romeo, line) = row(&listed(&mut juliet), "romeo@montague.example");
        assert!(romeo.contains("kind='poller'") && romeo.contains("fetches='3'"), "{romeo}");
        assert!(line.contains("event='rejected'"), "{line}");
    }

    #[test]
    fn a_subscribers_notifications_are_counted_and_a_broadcast_writes_nothing() {
        let mut juliet = juliet();
        juliet.sends("home", "<presence type='subscribed' to='friar@elsewhere.example'/>");
        juliet.receive("<presence type='subscribe' from='friar@elsewhere.example'/>");
        juliet.after_ms(6_000);
        for show in ["away", "dnd", "chat"] {
            let fx = juliet.sends("home", &format!("<presence><show>{show}</show></presence>"));
            assert!(fx.commits().is_empty(), "{fx:?}");
        }
        let fx = juliet.after_ms(60_000);
        assert!(fx.commits().iter().all(|change| !matches!(change, Change::BlobPut { .. })), "{fx:?}");
        let (friar, line) = row(&listed(&mut juliet), "friar@elsewhere.example");
        assert!(friar.contains("notifications='3'"), "{friar}");
        assert!(line.contains("duration-subscribed='66'"), "{line}");
    }

    #[test]
    fn what_was_noted_is_written_once_some_seconds_later_and_outlives_a_restart() {
        let mut juliet = juliet();
        for n in 0..10 {
            assert!(fetches(&mut juliet, &format!("p{n}@elsewhere.example/x")).commits().is_empty());
        }
        assert!(juliet.watchers.is_behind() && !juliet.is_idle());
        assert!(juliet.after_ms(4_999).commits().is_empty());
        let commits = juliet.after_ms(1).commits();
        let [Change::BlobPut { key, value, .. }] = &commits[..] else { panic!("{commits:?}") };
        let settings = vec![(key.clone(), value.clone())];
        let record = AccountRecord { created: START, settings, ..AccountRecord::default() };
        let mut again = account_with("juliet@capulet.example", record).with("home", 0);
        assert!(row(&listed(&mut again), "p7@elsewhere.example").0.contains("refused='1'"));
        assert!(juliet.after_ms(60_000).commits().is_empty());
    }

    // LIMITS.md: bounded under attack.
    #[test]
    fn a_flood_of_refused_strangers_pushes_out_nobody_who_has_seen_something() {
        let mut juliet = juliet().policy(|policy| policy.limits.watchers_max = 20);
        fetches(&mut juliet, "romeo@montague.example/x");
        for n in 0..1_000 {
            juliet.after_ms(1);
            fetches(&mut juliet, &format!("p{n}@elsewhere.example/x"));
        }
        let document = listed(&mut juliet);
        assert!(row(&document, "romeo@montague.example").0.contains("fetches='1'"));
        assert!(document.matches("kind='refused'").count() <= 5, "{document}");
        assert!(document.contains("<unlisted xmlns='urn:waft:watchers:0' refused='995'/>"), "{document}");
        assert!(document.contains("p999@elsewhere.example"), "the latest are there");
    }

    #[test]
    fn who_has_not_been_heard_of_for_longer_than_the_window_is_forgotten() {
        let mut juliet = juliet();
        fetches(&mut juliet, "paris@elsewhere.example/x");
        juliet.after_ms(29 * 86_400_000);
        assert!(listed(&mut juliet).contains("paris@elsewhere.example"));
        juliet.after_ms(2 * 86_400_000);
        let document = listed(&mut juliet);
        assert!(!document.contains("paris@elsewhere.example"), "{document}");
        assert!(document.contains("romeo@montague.example"), "a subscriber stays");
    }

    #[test]
    fn a_session_that_asked_hears_of_each_watcher_at_once() {
        let mut juliet = juliet().with("phone", 0);
        let answer = juliet.sends("home", "<iq type='set' id='w1'><watch xmlns='urn:waft:watchers:0'/></iq>");
        assert!(answer.delivered("home")[0].contains("state='full'"));
        let fx = fetches(&mut juliet, "romeo@montague.example/x");
        assert_eq!(fx.written_to(), ["home"]);
        let event = fx.delivered("home").remove(0);
        assert!(event.contains("state='partial'") && event.contains("version='1'"), "{event}");
        assert!(event.contains("romeo@montague.example") && !event.contains("nurse@"), "{event}");
        juliet.sends("home", "<iq type='set' id='w2'><unwatch xmlns='urn:waft:watchers:0'/></iq>");
        assert!(fetches(&mut juliet, "romeo@montague.example/x").written_to().is_empty());
    }

    #[test]
    fn another_watcher_of_the_domain_sees_its_own_row_and_others_nothing() {
        let mut juliet = juliet();
        fetches(&mut juliet, "friar@capulet.example/x");
        let mut asks =
            |who: &str| juliet.receive(&format!("<iq type='get' id='w1' from='{who}'>{QUERY}</iq>")).told().remove(0).1;
        let answer = asks("nurse@capulet.example/x");
        assert!(answer.contains("jid='nurse@capulet.example'") && !answer.contains("romeo@"), "{answer}");
        // Refused, blocked, or of another domain.
        for who in ["friar@capulet.example/x", "tybalt@capulet.example/x", "romeo@montague.example/x"] {
            let answer = asks(who);
            assert!(answer.contains("<service-unavailable") && !answer.contains("watcherinfo"), "{who}: {answer}");
        }
    }
}
