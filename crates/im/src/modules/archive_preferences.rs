//! Message Archive Management Preferences, XEP-0441: whose messages the archive keeps.
//!
//! What it does not keep is still kept until it is delivered.

use super::archive::NS;
use crate::account::Account;
use crate::effects::Effects;
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::roster::Roster;
use store::{Change, SETTINGS};
use xmpp::{Element, IqType, Jid, StanzaCondition, StanzaError};

pub static MODULE: Module = Module {
    name: "archive preferences",
    specs: &[xep(441, "0.2.0").without("ad-hoc configuration (§2.2)")],
    account_iq: &[(IqType::Get, NS, "prefs", Who::Owner, show), (IqType::Set, NS, "prefs", Who::Owner, set)],
    offered: |policy| policy.archive,
    ..Module::EMPTY
};

/// Addresses in both lists together.
const JIDS_MAX: usize = 1_000;
/// Where they are kept, in the space of settings.
pub const KEY: &str = "archive preferences";

/// For whom neither list speaks. §2.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Otherwise {
    #[default]
    Always,
    Never,
    /// Only with bare JIDs of the roster.
    Roster,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preferences {
    otherwise: Otherwise,
    /// In order, each once.
    always: Vec<Jid>,
    never: Vec<Jid>,
}

impl Preferences {
    /// As they were stored; the default if they cannot be read.
    pub fn from_stored(value: Option<&[u8]>) -> Preferences {
        let prefs = value.and_then(|bytes| Element::parse(bytes, NS).ok());
        prefs.and_then(|prefs| Preferences::of(&prefs).ok()).unwrap_or_default()
    }

    /// # Errors
    /// `bad-request` without a known default, `jid-malformed` for what is no JID, `resource-constraint` for too many.
    fn of(prefs: &Element) -> Result<Preferences, StanzaError> {
        let otherwise = match prefs.attribute("default") {
            Some("always") => Otherwise::Always,
            Some("never") => Otherwise::Never,
            Some("roster") => Otherwise::Roster,
            _ => return Err(StanzaCondition::BadRequest.into()),
        };
        let (always, never) = (list(prefs, "always")?, list(prefs, "never")?);
        if always.len() + never.len() > JIDS_MAX {
            return Err(StanzaCondition::ResourceConstraint.into());
        }
        Ok(Preferences { otherwise, always, never })
    }

    fn to_element(&self) -> Element {
        let default = match self.otherwise {
            Otherwise::Always => "always",
            Otherwise::Never => "never",
            Otherwise::Roster => "roster",
        };
        let list = |name: &str, jids: &[Jid]| {
            Element::new(name, NS).children_from(jids.iter().map(|jid| Element::new("jid", NS).text(jid.as_str())))
        };
        let lists = [list("always", &self.always), list("never", &self.never)];
        Element::new("prefs", NS).attr("default", default).children_from(lists)
    }

    /// Is what is exchanged with this address archived? A full JID on a list counts before a bare one, and "never"
    /// before "always". §2.3.
    pub fn archive(&self, peer: &Jid, roster: &Roster) -> bool {
        let has = |list: &[Jid], text: &str| list.binary_search_by(|jid| jid.as_str().cmp(text)).is_ok();
        for text in [peer.as_str(), peer.bare_str()] {
            if has(&self.never, text) {
                return false;
            }
            if has(&self.always, text) {
                return true;
            }
        }
        match self.otherwise {
            Otherwise::Always => true,
            Otherwise::Never => false,
            Otherwise::Roster => roster.get(peer).is_some_and(|item| item.listed),
        }
    }
}

/// §2.1.2, §2.1.3: a list that is missing is empty.
fn list(prefs: &Element, name: &str) -> Result<Vec<Jid>, StanzaError> {
    let Some(list) = prefs.find(name, NS) else { return Ok(Vec::new()) };
    let items = list.elements().filter(|child| child.is("jid", NS));
    let jids =
        items.map(|jid| Jid::parse(jid.text_content().trim()).map_err(|fault| xmpp::error::jid_malformed(&fault)));
    let mut jids = jids.collect::<Result<Vec<Jid>, StanzaError>>()?;
    jids.sort();
    jids.dedup();
    Ok(jids)
}

fn show(account: &mut Account, _: &Iq<'_>, _: &mut Effects) -> Handled {
    Ok(Answer::Result(Some(account.archive_preferences.to_element())))
}

fn set(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let preferences = Preferences::of(iq.child)?;
    let applied = preferences.to_element();
    let value = applied.to_bytes("");
    let change = Change::BlobPut { account: account.jid.clone(), space: SETTINGS.into(), key: KEY.into(), value };
    fx.commit(vec![change], Some(iq.stanza), iq.ticket);
    account.archive_preferences = preferences;
    Ok(Answer::Result(Some(applied)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Scene, account_with, contact};
    use store::AccountRecord;

    const ROMEO: &str = "romeo@montague.example/x";

    fn juliet() -> Scene {
        let stored =
            AccountRecord { roster: vec![contact("nurse@capulet.example", "both")], ..AccountRecord::default() };
        account_with("juliet@capulet.example", stored).with("home", 0)
    }

    fn prefers(scene: &mut Scene, content: &str) -> String {
        let iq = format!("<iq type='set' id='1'><prefs xmlns='urn:xmpp:mam:2' {content}</prefs></iq>");
        scene.sends("home", &iq).delivered("home").remove(0)
    }

    /// Is a message from this address archived, and one to it?
    fn archived(scene: &mut Scene, peer: &str) -> (bool, bool) {
        let text = "type='chat'><body>hi</body></message>";
        let came = scene.receive(&format!("<message from='{peer}' {text}"));
        assert_eq!(came.written_to(), ["home"]);
        let sent = scene.sends("home", &format!("<message to='{peer}' {text}"));
        assert_eq!(sent.told_to(), [peer]);
        let archived = |fx: crate::testing::Fx| fx.appended().iter().any(|record| record.archived);
        (archived(came), archived(sent))
    }

    #[test]
    fn everything_is_archived_unless_the_user_prefers_otherwise() {
        let mut juliet = juliet();
        let fx = juliet.sends("home", "<iq type='get' id='1'><prefs xmlns='urn:xmpp:mam:2'/></iq>");
        let prefs = "<prefs xmlns='urn:xmpp:mam:2' default='always'><always/><never/></prefs>";
        assert!(fx.delivered("home")[0].contains(prefs), "{:?}", fx.delivered("home"));
        assert_eq!(archived(&mut juliet, ROMEO), (true, true));
    }

    #[test]
    fn the_lists_count_before_the_default() {
        let mut juliet = juliet();
        let lists = "<always><jid>romeo@montague.example</jid></always><never><jid>romeo@montague.example/x</jid>\
            <jid>tybalt@capulet.example</jid></never>";
        let answer = prefers(&mut juliet, &format!("default='never'>{lists}"));
        assert!(answer.contains("type='result'") && answer.contains(lists), "{answer}");
        assert_eq!(archived(&mut juliet, ROMEO), (false, false));
        assert_eq!(archived(&mut juliet, "romeo@montague.example/y"), (true, true));
        assert_eq!(archived(&mut juliet, "nurse@capulet.example/x"), (false, false));
        prefers(&mut juliet, "default='always'><never><jid>tybalt@capulet.example</jid></never>");
        assert_eq!(archived(&mut juliet, "tybalt@capulet.example/x"), (false, false));
        assert_eq!(archived(&mut juliet, ROMEO), (true, true));
    }

    #[test]
    fn with_the_roster_as_default_contacts_alone_are_archived() {
        let mut juliet = juliet();
        prefers(&mut juliet, "default='roster'>");
        assert_eq!(archived(&mut juliet, ROMEO), (false, false));
        assert_eq!(archived(&mut juliet, "nurse@capulet.example/x"), (true, true));
    }

    #[test]
    fn what_is_not_archived_waits_for_the_user_nevertheless() {
        let mut juliet = juliet();
        prefers(&mut juliet, "default='never'>");
        juliet.closes("home");
        let fx = juliet.receive(&format!("<message from='{ROMEO}' type='chat'><body>hi</body></message>"));
        let record = &fx.appended()[0];
        assert!(record.pending && !record.archived);
    }

    #[test]
    fn preferences_are_stored_before_they_are_confirmed_and_read_again() {
        let mut juliet = juliet();
        let iq = "<iq type='set' id='1'><prefs xmlns='urn:xmpp:mam:2' default='roster'><always><jid>a.example</jid>\
            </always></prefs></iq>";
        let fx = juliet.sends("home", iq);
        let stored = match &fx.commits()[..] {
            [Change::BlobPut { space, key, value, .. }] if **space == *SETTINGS && **key == *KEY => value.clone(),
            other => panic!("{other:?}"),
        };
        let read = Preferences::from_stored(Some(&stored));
        assert_eq!(read, juliet.archive_preferences);
        assert_eq!(read.otherwise, Otherwise::Roster);
        assert!(
            fx.in_order(|e| matches!(e, crate::Effect::Commit { .. }), |e| matches!(e, crate::Effect::Edge { .. }))
        );
    }

    #[test]
    fn what_cannot_be_applied_is_refused() {
        let many = (0..=JIDS_MAX).map(|n| format!("<jid>{n}.example</jid>")).collect::<String>();
        let rows = [
            (">".to_owned(), "<bad-request"),
            ("default='sometimes'>".into(), "<bad-request"),
            ("default='never'><always><jid>@</jid></always>".into(), "<jid-malformed"),
            (format!("default='never'><never>{many}</never>"), "<resource-constraint"),
        ];
        for (content, condition) in rows {
            let mut juliet = juliet();
            let answer = prefers(&mut juliet, &content);
            assert!(answer.contains(condition), "{answer}");
            assert_eq!(juliet.archive_preferences, Preferences::default());
        }
    }
}
