//! The state of one account, and the only way to change it.

use crate::archive_ids::{self, ArchiveIds};
use crate::block::Blocks;
use crate::effects::Effects;
use crate::inbox::Inbox;
use crate::item::{Item, Now, SessionId};
use crate::leases::{self, Leases};
use crate::modules::archive_preferences::{self, Preferences};
use crate::modules::carbons::SentLately;
use crate::modules::fetch;
use crate::modules::interest::Clients;
use crate::modules::{outcome, push, solicited, subscription_status};
use crate::nodes::Nodes;
use crate::policy::HostPolicy;
use crate::presence;
use crate::pseudonyms::{self, Pseudonyms};
use crate::readers::{self, Readers};
use crate::retention::Retention;
use crate::roles::{self, Roles};
use crate::roster::{self, Roster};
use crate::rules::{self, Rules};
use crate::session::Session;
use crate::strangers::Senders;
use crate::tuples::{self, Publications};
use crate::watchers::{self, Watchers};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use store::AccountRecord;
use xmpp::{BareJid, Stamp, Stanza};

#[derive(Debug)]
pub struct Account {
    pub jid: BareJid,
    pub policy: Arc<HostPolicy>,
    /// Of this process; CLUSTER rule 10.
    pub epoch: u64,
    pub now: Now,
    pub created: Stamp,
    pub disabled: bool,
    pub roster: Roster,
    pub blocks: Blocks,
    /// ACCESS RULES.
    pub rules: Rules,
    /// Where the user is, as presence says it; looked at only while a rule asks.
    pub sphere: Vec<Box<str>>,
    /// What is remembered of the contacts' presence.
    pub contacts: presence::Contacts,
    /// Who has read the inbox.
    pub readers: Readers,
    /// Is presence delivered only from whom it was asked of? `None`: as the host has it. RFC 2779 §5.3.2.
    pub solicited: Option<bool>,
    pub inbox: Inbox,
    /// Services that wake the account's clients. XEP-0357.
    pub push: Vec<push::Registration>,
    /// Of push services that are registered no more: what the worst of them has not answered, and since when (monotonic
    /// milliseconds).
    pub(crate) push_gone: (u32, u64),
    /// What positions of the log are called outside. The house gives an account without a key one: `offer_key`.
    pub archive_ids: ArchiveIds,
    /// XEP-0441.
    pub archive_preferences: Preferences,
    /// Senders that asked what became of a message that is pending, by position.
    pub outcomes: BTreeMap<i64, outcome::Asked>,
    /// What it publishes. XEP-0163.
    pub nodes: Nodes,
    /// Clients of contacts that may want to be told of it.
    pub clients: Clients,
    pub retention: Retention,
    pub sessions: Vec<Session>,
    /// What it may be; sessions have no other.
    pub roles: Roles,
    /// Presence information that lasts.
    pub publications: Publications,
    /// Who watched.
    pub watchers: Watchers,
    /// Subscriptions with a duration, of both directions.
    pub leases: Leases,
    /// Whom it watches under another name.
    pub pseudonyms: Pseudonyms,
    /// When the next lease or publication is over; until then nothing must be looked at.
    pub terms_due: Stamp,
    /// Fetches of own clients that wait for an answer.
    pub fetches: Vec<fetch::Waiting>,
    /// How many iqs the account itself has sent for them; makes their ids.
    pub fetches_made: u64,
    /// Questions of own clients about a subscription, that wait for the other side.
    pub status_asked: Vec<subscription_status::Waiting>,
    /// How often others have fetched lately.
    pub pollers: fetch::Pollers,
    pub next_session: u32,
    /// (epoch, counter) stamp of the account's presence. CLUSTER rule 11.
    pub presence_counter: u64,
    /// When the last resource left and with what status.
    pub last_activity: Option<(Stamp, Box<str>)>,
    /// XEP-0153: hex SHA-1 of the vCard's photo.
    pub photo_hash: Option<Box<str>>,
    /// Contacts whose servers have lost the account's subscriptions.
    pub lost: crate::lost::Lost,
    /// Contacts to be asked how it stands.
    pub doubts: crate::doubts::Doubts,
    /// Ledger rows that an earlier process left.
    pub ledger: Vec<store::SessionRow>,
    /// Sets of private XML that wait for each other; the first is under way. XEP-0049.
    pub private_writes: VecDeque<crate::modules::private::Write>,
    /// The iq by which a client asked for the account's removal: answered before its stream is closed. XEP-0077 §3.2.
    pub leaving: Option<(SessionId, Arc<Stanza>)>,
    /// Set by `Remove`: nothing is accepted any more.
    pub removed: bool,
    /// What strangers sent lately.
    pub(crate) senders: Senders,
    /// Messages that own clients sent lately. XEP-0280 §6.1.
    pub(crate) sent_lately: SentLately,
    /// A session passed a bound in this step.
    pub(crate) overrun: bool,
    /// Resumption ids of sessions that ended lately, with what they had received. XEP-0198 §5.
    pub(crate) ended: VecDeque<(Box<str>, u32)>,
}

impl Account {
    pub fn new(jid: BareJid, policy: Arc<HostPolicy>, epoch: u64, stored: AccountRecord) -> Account {
        let mut account = Account {
            jid,
            policy,
            epoch,
            now: Now { utc: Stamp(0), mono_ms: 0 },
            created: stored.created,
            disabled: stored.disabled,
            roster: Roster::default(),
            blocks: Blocks::default(),
            rules: Rules::default(),
            sphere: Vec::new(),
            contacts: presence::Contacts::default(),
            readers: Readers::default(),
            solicited: None,
            inbox: Inbox::default(),
            push: Vec::new(),
            push_gone: (0, 0),
            archive_ids: ArchiveIds::fresh([0; 32]),
            archive_preferences: Preferences::default(),
            outcomes: BTreeMap::new(),
            nodes: Nodes::default(),
            clients: Clients::default(),
            retention: Retention::default(),
            sessions: Vec::new(),
            roles: Roles::ALL,
            publications: Publications::default(),
            watchers: Watchers::default(),
            leases: Leases::default(),
            pseudonyms: Pseudonyms::default(),
            terms_due: Stamp::default(),
            fetches: Vec::new(),
            fetches_made: 0,
            status_asked: Vec::new(),
            pollers: fetch::Pollers::default(),
            next_session: 0,
            presence_counter: 0,
            last_activity: None,
            photo_hash: None,
            lost: crate::lost::Lost::default(),
            doubts: crate::doubts::Doubts::default(),
            ledger: Vec::new(),
            private_writes: VecDeque::new(),
            leaving: None,
            removed: false,
            senders: Senders::default(),
            sent_lately: SentLately::default(),
            overrun: false,
            ended: VecDeque::new(),
        };
        account.restore(stored);
        account
    }

    /// Replaces the stored part of the state (at load, and after a commit that failed). Sessions stay.
    pub fn restore(&mut self, stored: AccountRecord) {
        self.created = stored.created;
        self.disabled = stored.disabled;
        self.roster = Roster::from_stored(stored.roster_version, stored.roster, stored.requests);
        self.blocks = Blocks::from_stored(stored.blocks);
        self.inbox.restore(stored.last_position, stored.pending, stored.pending_bytes);
        self.last_activity = stored.last_activity;
        self.photo_hash = stored.photo_hash;
        let setting = |key: &str| stored.settings.iter().find(|(k, _)| **k == *key).map(|(_, value)| value.as_slice());
        self.push = push::restored(setting(push::KEY), &self.push);
        self.rules = Rules::from_stored(setting(rules::KEY));
        self.roles = Roles::from_stored(setting(roles::KEY));
        self.publications = Publications::from_stored(setting(tuples::KEY));
        self.leases = Leases::from_stored(setting(leases::KEY));
        self.pseudonyms = Pseudonyms::from_stored(setting(pseudonyms::KEY));
        self.terms_due = Stamp::default();
        // What is known here is newer than what is written behind it.
        if self.watchers.is_new() {
            self.watchers = Watchers::from_stored(setting(watchers::KEY));
        }
        self.readers = Readers::from_stored(setting(readers::KEY));
        self.solicited = solicited::from_stored(setting(solicited::KEY));
        self.archive_ids = ArchiveIds::from_stored(setting(archive_ids::KEY)).unwrap_or(self.archive_ids.unstored());
        self.archive_preferences = Preferences::from_stored(setting(archive_preferences::KEY));
        self.lost = crate::lost::Lost::from_stored(setting(crate::lost::KEY));
        self.outcomes = outcome::restored(&stored.settings, &self.outcomes, stored.last_position);
        self.nodes = Nodes::from_stored(&stored.settings);
        self.ledger = stored.sessions.into_iter().filter(|row| row.epoch != self.epoch).collect();
        self.ledger.shrink_to_fit();
        self.sphere = rules::sphere::heard(self, None);
    }

    /// A commit failed, the one of this stanza: is the stored part of the state to be read again?
    pub fn reads_again(&self, bounce: Option<&Stanza>) -> bool {
        self.removed || crate::inbox::changes_the_record(bounce)
    }

    /// As [`Account::restore`], where sessions know of what was: of the roster they are told what differs.
    pub(crate) fn restore_for_sessions(&mut self, stored: AccountRecord, fx: &mut Effects) {
        let before = std::mem::take(&mut self.roster);
        self.restore(stored);
        roster::correct(self, &before, fx);
    }

    /// The key of an account that has none yet; random.
    pub fn offer_key(&mut self, key: archive_ids::Key) {
        if !self.archive_ids.is_stored() {
            self.archive_ids = ArchiveIds::fresh(key);
        }
    }

    /// One item, one step: changes the account and pushes effects. Never waits, sends or saves itself.
    pub fn step(&mut self, item: Item, now: Now, fx: &mut Effects) {
        self.now = now;
        crate::ways::step(self, item, fx);
    }

    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.iter().find(|s| s.id == id)
    }

    pub fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|s| s.id == id)
    }

    /// May the entity be dropped from memory now?
    pub fn is_idle(&self) -> bool {
        self.sessions.is_empty() && self.ledger.is_empty() && !self.inbox.is_busy() && !self.watchers.is_behind()
    }
}
