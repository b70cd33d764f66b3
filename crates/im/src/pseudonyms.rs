//! Watching under another name. RFC 2779 §8.1.1 A3, RFC 2778 §2.3 (VISIBILITY RULES).
//!
//! The presentity, and its server, know the watcher by an address that this server made up for the two: always the same,
//! so that it can be let in, shown less, or blocked like any other; and nobody but this server can say whose it is
//! ([`crate::policy::Aliases`]). What goes out to the presentity because the account watches it leaves under that name
//! ([`disguise`], the one place); what comes back to it is taken as if it were for the account ([`meant`]). That somebody
//! watches is never hidden.

use crate::account::Account;
use crate::effects::{Effect, Effects};
use crate::leases::NS;
use crate::subscription::Act;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{Change, SETTINGS, Subscription};
use xmpp::{BareJid, Element, Jid, MessageType, PresenceType, Stanza, StanzaCondition, StanzaError, StanzaType};

/// Where the presentities that are watched so are kept, in the space of settings.
pub const KEY: &str = "pseudonyms";
/// Presentities that one account watches so.
const PSEUDONYMS_MAX: usize = 500;

/// Whom the account watches, or asked to, under another name. (Every step looks at what it was before: a copy is cheap, and
/// who has none pays nothing.)
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pseudonyms(Option<Arc<BTreeSet<BareJid>>>);

impl Pseudonyms {
    /// As they were stored, a line each; what cannot be read is left out.
    pub fn from_stored(value: Option<&[u8]>) -> Pseudonyms {
        let text = value.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default();
        Pseudonyms::of(text.lines().filter_map(|line| BareJid::parse(line).ok()).take(PSEUDONYMS_MAX).collect())
    }

    fn of(all: BTreeSet<BareJid>) -> Pseudonyms {
        Pseudonyms(if all.is_empty() { None } else { Some(Arc::new(all)) })
    }

    fn all(&self) -> impl Iterator<Item = &BareJid> {
        self.0.iter().flat_map(|all| all.iter())
    }

    fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |all| all.len())
    }

    fn add(&mut self, whom: BareJid) {
        Arc::make_mut(self.0.get_or_insert_default()).insert(whom);
    }

    fn kept(&self, account: &BareJid) -> Change {
        let (account, space, key) = (account.clone(), SETTINGS.into(), KEY.into());
        if self.is_empty() {
            return Change::BlobDelete { account, space, key };
        }
        let value = self.all().map(|jid| format!("{jid}\n")).collect::<String>().into_bytes();
        Change::BlobPut { account, space, key, value }
    }

    pub fn has(&self, whom: &BareJid) -> bool {
        self.0.as_ref().is_some_and(|all| all.contains(whom))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// The name under which the account watches `whom`, if it does so under one.
pub fn of(account: &Account, whom: &BareJid) -> Option<BareJid> {
    account.pseudonyms.has(whom).then(|| account.policy.aliases.of(&account.jid, whom)).flatten()
}

/// Does a request for a subscription want another name?
///
/// # Errors
/// `feature-not-implemented` where the host gives none, `conflict` if the contact knows the account already,
/// `resource-constraint` for too many.
pub fn wanted(
    account: &Account,
    contact: &BareJid,
    before: Subscription,
    stanza: &Stanza,
) -> Result<bool, StanzaError> {
    let asks = Act::of(stanza.kind) == Some(Act::Subscribe) && stanza.payload.has("pseudonym", NS);
    if !asks || account.pseudonyms.has(contact) {
        return Ok(false);
    }
    if account.policy.aliases.of(&account.jid, contact).is_none() {
        return Err(StanzaCondition::FeatureNotImplemented.into());
    }
    if before.to || before.pending_out {
        let why = "The contact knows your name: unsubscribe first.";
        return Err(StanzaError::from(StanzaCondition::Conflict).with_text(why));
    }
    if account.pseudonyms.len() >= PSEUDONYMS_MAX {
        return Err(StanzaError::from(StanzaCondition::ResourceConstraint).with_text("Too many pseudonyms."));
    }
    Ok(true)
}

/// The account watches the contact under another name from now on.
pub fn begin(account: &mut Account, contact: &BareJid) -> Change {
    account.pseudonyms.add(contact.clone());
    account.pseudonyms.kept(&account.jid)
}

/// What the step has to say to those who know another name is said under that. `before`: the names as the step began, as
/// a subscription that ends is ended under its name. Names that nothing goes by any more are forgotten.
pub fn disguise(account: &mut Account, before: &Pseudonyms, fx: &mut Effects) {
    if before.is_empty() && account.pseudonyms.is_empty() {
        return;
    }
    let own = account.jid.clone();
    for effect in &mut fx.list {
        let Effect::Tell { to, stanza, .. } = effect else { continue };
        let is_of_a_watcher = matches!(
            stanza.kind,
            StanzaType::Presence(PresenceType::Subscribe | PresenceType::Unsubscribe | PresenceType::Probe)
        );
        let whom = to.to_bare();
        let is_hidden = before.has(&whom) || account.pseudonyms.has(&whom);
        if !is_of_a_watcher || !is_hidden || !stanza.from.as_ref().is_some_and(|from| from.same_bare(&own)) {
            continue;
        }
        let Some(alias) = account.policy.aliases.of(&own, &whom) else { continue };
        let mut said = stanza.as_ref().clone().with_from(alias);
        if said.kind == StanzaType::Presence(PresenceType::Subscribe) {
            let payload = said.payload.without(|child| child.is("pseudonym", NS));
            said.payload = payload.with([Element::new("pseudonym", NS)]);
        }
        *stanza = Arc::new(said);
    }
    let roster = &account.roster;
    let is_used = |whom: &BareJid| {
        let state = roster.subscription(whom);
        state.to || state.pending_out
    };
    let used: BTreeSet<BareJid> = account.pseudonyms.all().filter(|whom| is_used(whom)).cloned().collect();
    if used.len() < account.pseudonyms.len() && !account.removed {
        account.pseudonyms = Pseudonyms::of(used);
        fx.commit(vec![account.pseudonyms.kept(&account.jid)], None, &Default::default());
    }
}

/// What came to an address that is not the account's own: presence, and news of it, of somebody whom the account watches
/// under that name are for the account; the stanza as if they had been sent to it. `None`: it is for nobody.
pub fn meant(account: &Account, stanza: &Arc<Stanza>, to: &Jid) -> Option<Arc<Stanza>> {
    let whom = stanza.from.as_ref()?.to_bare();
    let is_news = matches!(stanza.kind, StanzaType::Presence(_) | StanzaType::Message(MessageType::Headline));
    let alias = of(account, &whom).filter(|alias| is_news && alias.same_bare(to))?;
    debug_assert!(to.same_bare(&alias));
    Some(Arc::new(stanza.as_ref().clone().with_to(account.jid.clone())))
}

#[cfg(test)]
mod tests {
    use crate::testing::{Fx, Scene, account_with, contact};
    use store::{AccountRecord, Change};

    const JULIET: &str = "juliet@capulet.example";
    const SUBSCRIBE: &str =
        "<presence type='subscribe' to='juliet@capulet.example'><pseudonym xmlns='urn:waft:leases:0'/></presence>";

    fn romeo(record: AccountRecord) -> Scene {
        account_with("romeo@montague.example", record).with("garden", 0).having("garden", |s| s.interested = true)
    }

    fn asking() -> (Scene, String) {
        let mut romeo = romeo(AccountRecord::default());
        let told = romeo.sends("garden", SUBSCRIBE).told();
        let alias = told[0].1.split("from='").nth(1).and_then(|rest| rest.split('\'').next()).expect("from").to_owned();
        (romeo, alias)
    }

    fn says_his_name(fx: &Fx) -> bool {
        fx.told().iter().any(|(to, xml)| to.starts_with(JULIET) && xml.contains("from='romeo@"))
    }

    #[test]
    fn a_request_goes_out_under_another_name_and_the_answer_to_it_is_his() {
        let (mut romeo, alias) = asking();
        assert!(alias.starts_with('~') && alias.ends_with("@montague.example"), "{alias}");
        let fx = romeo.receive(&format!("<presence type='subscribed' from='{JULIET}' to='{alias}'/>"));
        let heard = fx.delivered("garden");
        assert!(
            heard[0].contains("type='subscribed'") && heard[0].contains("to='romeo@montague.example'"),
            "{heard:?}"
        );
        assert!(heard[1].contains("subscription='to'"), "{heard:?}");
        let fx = romeo.receive(&format!("<presence from='{JULIET}/balcony' to='{alias}'><show>dnd</show></presence>"));
        assert!(fx.delivered("garden")[0].contains("to='romeo@montague.example'"), "{fx:?}");
        // It is ended as it was begun, and then forgotten.
        let fx = romeo.sends("garden", &format!("<presence type='unsubscribe' to='{JULIET}'/>"));
        assert!(fx.told()[0].1.contains(&format!("from='{alias}'")), "{:?}", fx.told());
        assert!(romeo.pseudonyms.is_empty());
        assert!(fx.commits().iter().any(|c| matches!(c, Change::BlobDelete { key, .. } if **key == *super::KEY)));
    }

    #[test]
    fn nothing_that_he_or_his_server_does_as_a_watcher_tells_his_name() {
        let (mut romeo, alias) = asking();
        let settings = vec![(super::KEY.into(), format!("{JULIET}\n").into_bytes())];
        romeo.receive(&format!("<presence type='subscribed' from='{JULIET}' to='{alias}'/>"));
        for xml in [
            format!("<presence type='probe' to='{JULIET}'/>"),
            format!("<presence type='probe' to='{JULIET}/balcony'/>"),
            format!("<presence type='subscribe' to='{JULIET}'/>"),
            format!("<iq type='get' id='f' to='{JULIET}'><fetch xmlns='urn:waft:fetch:0'/></iq>"),
            format!("<iq type='set' id='s'><status xmlns='urn:waft:leases:0' jid='{JULIET}'/></iq>"),
            "<presence><show>away</show></presence>".into(),
        ] {
            let fx = romeo.sends("garden", &xml);
            assert!(!says_his_name(&fx), "{xml}: {:?}", fx.told());
        }
        // After a restart, too.
        let roster = vec![contact(JULIET, "to")];
        let record = AccountRecord { roster, settings, ..AccountRecord::default() };
        let mut again = account_with("romeo@montague.example", record).connected("garden");
        let fx = again.sends("garden", "<presence/>");
        assert!(
            fx.told().iter().any(|(_, xml)| xml.contains("type='probe'") && xml.contains(&alias)),
            "{:?}",
            fx.told()
        );
        assert!(!says_his_name(&fx));
        let fx = again.sends("garden", &format!(
            "<iq type='set' id='r'><query xmlns='jabber:iq:roster'><item jid='{JULIET}' subscription='remove'/></query></iq>"
        ));
        assert!(!says_his_name(&fx) && fx.told().iter().any(|(_, xml)| xml.contains("unsubscribe")), "{:?}", fx.told());
    }

    #[test]
    fn nobody_else_reaches_him_by_that_name_and_nothing_but_news_does() {
        let (mut romeo, alias) = asking();
        let fx = romeo.receive(&format!("<presence from='paris@capulet.example/x' to='{alias}'/>"));
        assert!(fx.written_to().is_empty(), "{fx:?}");
        for xml in [
            format!("<message type='chat' id='m' from='{JULIET}/x' to='{alias}'><body>who are you?</body></message>"),
            format!("<iq type='get' id='q' from='{JULIET}/x' to='{alias}'><query xmlns='jabber:iq:version'/></iq>"),
        ] {
            let fx = romeo.receive(&xml);
            assert!(fx.written_to().is_empty() && fx.appended().is_empty(), "{fx:?}");
            let told = fx.told();
            assert!(told[0].1.contains("<service-unavailable") && !told[0].1.contains("romeo"), "{told:?}");
        }
    }

    #[test]
    fn who_is_known_already_is_told_so() {
        let record = AccountRecord { roster: vec![contact(JULIET, "to")], ..AccountRecord::default() };
        let fx = romeo(record).sends("garden", SUBSCRIBE);
        assert!(fx.told().is_empty() && fx.delivered("garden")[0].contains("<conflict"), "{fx:?}");
    }
}
