//! Last Activity, XEP-0012: since when an account is away, and since when the server is up.
//!
//! A query to a full JID goes to that resource like any iq.

use crate::account::Account;
use crate::effects::Effects;
use crate::host::Host;
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::modules::unknown;
use crate::view::{self, Exit, view};
use xmpp::{Element, IqType, StanzaError};

pub const NS: &str = "jabber:iq:last";

pub static MODULE: Module = Module {
    name: "last activity",
    specs: &[xep(12, "2.0")],
    host_features: &[NS],
    account_features: &[NS],
    // XEP-0012 §3 has `forbidden` for a stranger; that would tell that the account exists (RFC 6121 §8.5.1).
    account_iq: &[(IqType::Get, NS, "query", Who::Viewer(Exit::LastActivity), last)],
    host_iq: &[(IqType::Get, NS, "query", uptime)],
    ..Module::EMPTY
};

/// 0 while a resource is connected, else how long ago the last one left, and with what status. XEP-0012 §3.
fn last(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    let view = view(account, iq.from, Exit::LastActivity);
    // Whom the rules show a part is told of a session in that part alone.
    let is_there = match &view.shape {
        None => view.shows() && !account.sessions.is_empty(),
        Some(_) => view::sessions(account, &view).next().is_some(),
    };
    let query = if is_there {
        seconds(0)
    } else if let Some((left, status)) = view::last_seen(account, &view, iq.from) {
        let query = seconds(account.now.utc.seconds_since(left).max(0));
        if status.is_empty() || view.shape.is_some_and(|shape| !shape.status) { query } else { query.text(status) }
    } else {
        // It never had a resource.
        return Err(unknown());
    };
    Ok(Answer::Result(Some(query)))
}

/// XEP-0012 §5.
fn uptime(host: &mut Host, _: &Iq<'_>, _: &mut Effects) -> Result<Option<Element>, StanzaError> {
    let up = host.now.mono_ms.saturating_sub(host.started.mono_ms) / 1000;
    Ok(Some(seconds(up as i64)))
}

fn seconds(seconds: i64) -> Element {
    Element::new("query", NS).attr("seconds", seconds.to_string())
}

#[cfg(test)]
mod tests {
    use crate::testing::{START, Scene, account_with, contact};
    use store::AccountRecord;

    const ASKED: &str = "<iq type='get' id='l1' from='romeo@montague.example/x'><query xmlns='jabber:iq:last'/></iq>";

    fn juliet() -> Scene {
        account_with(
            "juliet@capulet.example",
            AccountRecord {
                roster: vec![contact("romeo@montague.example", "from")],
                last_activity: Some((START.plus_seconds(-903), "Heading Home".into())),
                ..AccountRecord::default()
            },
        )
    }

    #[test]
    fn a_contact_hears_how_long_ago_the_last_resource_left_and_with_what_status() {
        let told = juliet().receive(ASKED).told();
        assert!(told[0].1.contains("<query xmlns='jabber:iq:last' seconds='903'>Heading Home</query>"), "{told:?}");
    }

    #[test]
    fn while_a_resource_is_connected_it_is_zero_seconds() {
        let told = juliet().connected("home").receive(ASKED).told();
        assert!(told[0].1.contains("<query xmlns='jabber:iq:last' seconds='0'/>"), "{told:?}");
    }

    // LIMITS.md §2 row 41.
    #[test]
    fn an_account_that_was_never_used_answers_like_none() {
        let stored =
            AccountRecord { roster: vec![contact("romeo@montague.example", "from")], ..AccountRecord::default() };
        let told = account_with("juliet@capulet.example", stored).receive(ASKED).told();
        assert!(told[0].1.contains("service-unavailable"));
    }
}
