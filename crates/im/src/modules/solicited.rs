//! Only solicited NOTIFICATIONS, RFC 2779 §5.3.2: presence is delivered from whom the user is subscribed to, and from
//! whom one of the sessions has addressed, as rooms and callers are; nothing else. RFC 6121 §4.6.4 would have it all
//! delivered, so it is a switch, of the host and of each account.

use crate::account::Account;
use crate::effects::{Effect, Effects};
use crate::module::{Answer, Handled, Iq, Module, Who};
use crate::rules::xml::{NS, bad};
use crate::ways::{Flow, Passage};
use store::{Change, SETTINGS};
use xmpp::{Element, IqType, Jid, PresenceType, StanzaError, StanzaType};

/// Where the account's choice is kept, in the space of settings.
pub const KEY: &str = "solicited presence";
/// Entities that a session has taken its directed presence back from and that may still answer that.
pub const PARTED_MAX: usize = 32;

pub static MODULE: Module = Module {
    name: "solicited presence",
    account_iq: &[
        (IqType::Get, NS, "notifications", Who::Owner, show),
        (IqType::Set, NS, "notifications", Who::Owner, set),
    ],
    own_at_host: true,
    ..Module::EMPTY
};

pub fn from_stored(value: Option<&[u8]>) -> Option<bool> {
    match value {
        Some(b"true") => Some(true),
        Some(b"false") => Some(false),
        _ => None,
    }
}

fn element(account: &Account) -> Element {
    let only = if is_on(account) { "solicited" } else { "all" };
    let by = if account.solicited.is_some() { "account" } else { "host" };
    Element::new("notifications", NS).attr("take", only).attr("chosen-by", by)
}

fn is_on(account: &Account) -> bool {
    account.solicited.unwrap_or(account.policy.solicited_presence)
}

fn show(account: &mut Account, _: &Iq<'_>, _: &mut Effects) -> Handled {
    Ok(Answer::Result(Some(element(account))))
}

/// `take='solicited'`, `take='all'`, or none: as the host has it.
fn set(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let chosen = match iq.child.attribute("take") {
        Some("solicited") => Some(true),
        Some("all") => Some(false),
        None => None,
        Some(_) => return Err(bad("'take' is solicited or all")),
    };
    let (owner, space, key) = (account.jid.clone(), SETTINGS.into(), KEY.into());
    let change = match chosen {
        Some(chosen) => Change::BlobPut { account: owner, space, key, value: chosen.to_string().into_bytes() },
        None => Change::BlobDelete { account: owner, space, key },
    };
    fx.commit(vec![change], Some(iq.stanza), iq.ticket);
    account.solicited = chosen;
    Ok(Answer::Result(Some(element(account))))
}

/// Presence that nobody asked for ends here. Answers to directed presence, a room's above all, and errors pass.
///
/// # Errors
/// None.
pub fn inbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let StanzaType::Presence(PresenceType::Available | PresenceType::Unavailable) = passage.stanza.kind else {
        return Ok(Flow::Next);
    };
    let Some(from) = &passage.stanza.from else { return Ok(Flow::Next) };
    if !is_on(account) || from.same_bare(&account.jid) || is_solicited(account, from) {
        return Ok(Flow::Next);
    }
    fx.push(Effect::Count("presence_unsolicited"));
    Ok(Flow::Done)
}

fn is_solicited(account: &Account, from: &Jid) -> bool {
    let state = account.roster.subscription(from);
    let met = |to: &Jid| to.same_bare(from);
    state.to || account.sessions.iter().any(|s| s.directed.iter().any(met) || s.parted.iter().any(met))
}

#[cfg(test)]
mod tests {
    use crate::testing::{Scene, account_with, contact};
    use store::AccountRecord;

    fn juliet() -> Scene {
        let roster = vec![contact("romeo@montague.example", "to"), contact("paris@verona.example", "from")];
        account_with("juliet@capulet.example", AccountRecord { roster, ..AccountRecord::default() }).with("home", 0)
    }

    fn takes(scene: &mut Scene, what: &str) {
        let iq = format!("<iq type='set' id='n'><notifications xmlns='urn:waft:rules:0' {what}/></iq>");
        assert!(scene.sends("home", &iq).delivered("home")[0].contains("type='result'"));
    }

    fn is_delivered(scene: &mut Scene, from: &str, kind: &str) -> bool {
        !scene.receive(&format!("<presence from='{from}' {kind}/>")).written_to().is_empty()
    }

    #[test]
    fn presence_that_was_not_asked_for_is_not_delivered_where_the_user_says_so() {
        let mut juliet = juliet();
        assert!(is_delivered(&mut juliet, "paris@verona.example/x", ""), "by default it is: RFC 6121 §4.6.4");
        takes(&mut juliet, "take='solicited'");
        assert!(is_delivered(&mut juliet, "romeo@montague.example/x", ""));
        for kind in ["", "type='unavailable'"] {
            assert!(!is_delivered(&mut juliet, "paris@verona.example/x", kind));
            assert!(!is_delivered(&mut juliet, "iago@venice.example/x", kind));
        }
        takes(&mut juliet, "take='all'");
        assert!(is_delivered(&mut juliet, "iago@venice.example/x", ""));
    }

    #[test]
    fn a_host_may_have_it_so_for_all_who_do_not_choose() {
        let mut juliet = juliet().policy(|policy| policy.solicited_presence = true);
        assert!(!is_delivered(&mut juliet, "iago@venice.example/x", ""));
        takes(&mut juliet, "take='all'");
        assert!(is_delivered(&mut juliet, "iago@venice.example/x", ""));
        takes(&mut juliet, "");
        assert!(!is_delivered(&mut juliet, "iago@venice.example/x", ""));
    }

    #[test]
    fn rooms_events_and_answers_to_directed_presence_go_on() {
        let mut juliet = juliet();
        takes(&mut juliet, "take='solicited'");
        juliet.sends("home", "<presence to='hall@rooms.example/juliet'/>");
        assert!(is_delivered(&mut juliet, "hall@rooms.example/romeo", "to='juliet@capulet.example/home'"));
        juliet.sends("home", "<presence type='unavailable' to='hall@rooms.example/juliet'/>");
        let last = "type='unavailable' to='juliet@capulet.example/home'";
        assert!(is_delivered(&mut juliet, "hall@rooms.example/juliet", last), "the room's last word");
        assert!(is_delivered(&mut juliet, "other@rooms.example/x", "type='error' to='juliet@capulet.example/home'"));
        juliet.sends("home", "<presence to='iago@venice.example/x'/>");
        assert!(is_delivered(&mut juliet, "iago@venice.example/x", "to='juliet@capulet.example/home'"));
        let event = "<message type='headline' from='paris@verona.example'><event xmlns='http://jabber.org/protocol/pubsub#event'/></message>";
        assert_eq!(juliet.receive(event).written_to(), ["home"]);
    }

    #[test]
    fn a_request_for_subscription_is_no_notification() {
        let mut juliet = juliet();
        takes(&mut juliet, "take='solicited'");
        assert!(is_delivered(&mut juliet, "iago@venice.example", "type='subscribe'"));
    }
}
