//! Roles of a session by iq, for clients that bind without Bind 2. See [`crate::roles`].

use crate::account::Account;
use crate::effects::Effects;
use crate::module::{Answer, Handled, Iq, Module, Who};
use crate::roles::{self, NS, Roles};
use xmpp::{IqType, StanzaCondition};

pub static MODULE: Module = Module {
    name: "roles",
    host_features: &[NS],
    account_features: &[NS],
    account_iq: &[(IqType::Get, NS, "roles", Who::Owner, show), (IqType::Set, NS, "roles", Who::Owner, set)],
    ..Module::EMPTY
};

fn show(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    let session = iq.session.and_then(|id| account.session(id)).ok_or(StanzaCondition::NotAllowed)?;
    Ok(Answer::Result(Some(session.roles.to_element())))
}

/// Fewer roles, before the session has sent presence. None comes back: neither what its listener nor what its account
/// took away, nor what it gave up itself.
///
/// # Errors
/// `bad-request` for none or an unknown one; `unexpected-request` when presence was sent; `not-allowed` for one that the
/// session does not have.
fn set(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    let wanted = Roles::parse(iq.child).ok_or(StanzaCondition::BadRequest)?;
    let session = iq.session.and_then(|id| account.session_mut(id)).ok_or(StanzaCondition::NotAllowed)?;
    if session.is_available() || session.unseen {
        return Err(StanzaCondition::UnexpectedRequest.into());
    }
    if session.roles.and(wanted) != wanted {
        return Err(roles::missing());
    }
    session.roles = wanted;
    session.carbons &= wanted.inbox;
    Ok(Answer::Result(Some(wanted.to_element())))
}

#[cfg(test)]
mod tests {
    use crate::item::{Item, Ticket};
    use crate::roles::Roles;
    use crate::testing::{START, Scene, account_with, contact};
    use store::{AccountRecord, Change};

    fn juliet() -> Scene {
        let roster = vec![contact("romeo@montague.example", "both")];
        account_with("juliet@capulet.example", AccountRecord { created: START, roster, ..AccountRecord::default() })
    }

    fn with_roles(roles: &[&str]) -> Scene {
        let roles = roles.iter().fold(Roles::NONE, |roles, name| roles.with(name).expect("a role"));
        juliet().connected("home").having("home", |session| session.roles = roles)
    }

    const PRESENCE: &str = "<presence/>";
    const FROM_ROMEO: &str = "<presence from='romeo@montague.example/x'/>";
    const MESSAGE: &str = "<message type='chat' from='romeo@montague.example/x'><body>hi</body></message>";
    const TO_ROMEO: &str = "<message type='chat' to='romeo@montague.example'><body>hi</body></message>";

    #[test]
    fn a_watcher_alone_is_seen_by_nobody_and_sees_all() {
        let mut juliet = with_roles(&["watcher"]);
        let fx = juliet.sends("home", PRESENCE);
        let told = fx.told();
        assert!(told.len() == 1 && told[0].1.contains("type='probe'"), "{told:?}");
        assert_eq!(juliet.receive(FROM_ROMEO).written_to(), ["home"]);
        assert!(juliet.receive(MESSAGE).written_to().is_empty(), "it is no inbox");
        assert!(juliet.sends("home", TO_ROMEO).delivered("home")[0].contains("<role-missing"));
        let fetch = "<iq type='get' id='f' from='romeo@montague.example/x'><fetch xmlns='urn:waft:fetch:0'/></iq>";
        assert!(!juliet.receive(fetch).told()[0].1.contains("<tuple"));
        assert!(juliet.closes("home").told().is_empty(), "who was not seen does not leave");
    }

    #[test]
    fn a_presentity_alone_is_seen_and_sees_nothing() {
        let mut juliet = with_roles(&["presentity"]);
        let told = juliet.sends("home", PRESENCE).told();
        assert!(told.len() == 1 && !told[0].1.contains("type="), "{told:?}");
        assert!(juliet.receive(FROM_ROMEO).written_to().is_empty());
        assert!(juliet.receive(MESSAGE).written_to().is_empty());
        assert!(juliet.sends("home", TO_ROMEO).delivered("home")[0].contains("<role-missing"));
        let probe = "<presence type='probe' to='romeo@montague.example'/>";
        assert!(juliet.sends("home", probe).delivered("home")[0].contains("<role-missing"));
    }

    #[test]
    fn a_sender_alone_sends_and_an_inbox_alone_is_given_messages() {
        let mut juliet = with_roles(&["sender"]);
        assert_eq!(juliet.sends("home", TO_ROMEO).told_to(), ["romeo@montague.example"]);
        assert!(juliet.receive(MESSAGE).written_to().is_empty());
        let mut juliet = with_roles(&["inbox"]);
        juliet.sends("home", PRESENCE);
        assert!(juliet.receive(FROM_ROMEO).written_to().is_empty());
        assert_eq!(juliet.receive(MESSAGE).written_to(), ["home"]);
        assert!(juliet.sends("home", TO_ROMEO).delivered("home")[0].contains("<role-missing"));
    }

    #[test]
    fn a_session_gives_up_roles_and_does_not_get_them_back() {
        let mut juliet = juliet().connected("home");
        let set = |roles: &str| format!("<iq type='set' id='r'><roles xmlns='urn:waft:roles:0'>{roles}</roles></iq>");
        let answer = juliet.sends("home", &set("<watcher/><inbox/>")).delivered("home").remove(0);
        assert!(answer.contains("<roles xmlns='urn:waft:roles:0'><watcher/><inbox/></roles>"), "{answer}");
        assert!(juliet.sends("home", &set("<watcher/><sender/>")).delivered("home")[0].contains("<role-missing"));
        for none in ["", "<king/>", "<watcher xmlns='u:x'/>"] {
            assert!(juliet.sends("home", &set(none)).delivered("home")[0].contains("<bad-request"), "{none}");
        }
        juliet.sends("home", PRESENCE);
        assert!(juliet.sends("home", &set("<watcher/>")).delivered("home")[0].contains("<unexpected-request"));
    }

    #[test]
    fn an_account_has_the_roles_that_the_operator_leaves_it() {
        let cases = [
            ("presentity", FROM_ROMEO, false),
            ("watcher", FROM_ROMEO, true),
            ("inbox", MESSAGE, true),
            ("sender", MESSAGE, false),
        ];
        for (role, stanza, taken) in cases {
            let mut juliet = juliet().with("home", 0);
            let roles = Roles::NONE.with(role).expect("a role");
            let fx = juliet.item(Item::SetRoles { roles, ticket: Ticket::default() });
            assert!(juliet.sessions.is_empty(), "sessions with more than that end");
            let Some(Change::BlobPut { key, value, .. }) =
                fx.commits().into_iter().find(|c| matches!(c, Change::BlobPut { key, .. } if &**key == "roles"))
            else {
                panic!("{fx:?}")
            };
            let roster = vec![contact("romeo@montague.example", "both")];
            let record =
                AccountRecord { created: START, roster, settings: vec![(key, value)], ..AccountRecord::default() };
            let mut again = account_with("juliet@capulet.example", record).connected("home");
            assert_eq!(again.roles, roles);
            again = again.having("home", |session| session.roles = roles);
            again.sends("home", PRESENCE);
            let fx = again.receive(stanza);
            assert_eq!(!fx.written_to().is_empty(), taken, "{role}: {fx:?}");
            let subscribe = again.receive("<presence type='subscribe' from='paris@montague.example'/>");
            let refused = subscribe.told().iter().any(|(_, xml)| xml.contains("<service-unavailable"));
            assert_eq!(refused, role != "presentity", "{role}");
        }
    }
}
