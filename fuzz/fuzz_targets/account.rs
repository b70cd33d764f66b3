//! An account with a roster and two sessions, whose queries are answered with nothing.

use im::{Account, Attach, EdgeRef, Effect, Effects, HostPolicy, Ingress, Item, Now, QueryAnswer, SessionId, Ticket};
use std::sync::Arc;
use store::{AccountRecord, Page, RosterItem, Subscription};
use xmpp::{BareJid, Stamp, Stanza};

#[allow(dead_code, reason = "not every target hears others")]
pub const OTHERS: [&str; 5] = [
    "romeo@montague.example/garden",
    "nurse@capulet.example/x",
    "tybalt@capulet.example",
    "stranger@elsewhere.example/y",
    "capulet.example",
];

pub struct Fuzzed {
    pub account: Account,
    now: Now,
    ordinal: u32,
}

fn jid(text: &str) -> BareJid {
    BareJid::parse(text).expect("a JID")
}

impl Fuzzed {
    pub fn new() -> Fuzzed {
        let item = |name: &str, to, from| RosterItem {
            jid: jid(name),
            name: None,
            groups: vec!["friends".into()],
            subscription: Subscription { to, from, ..Subscription::default() },
            listed: true,
            version: 1,
        };
        let roster = vec![
            item("romeo@montague.example", true, true),
            item("nurse@capulet.example", false, true),
            item("tybalt@capulet.example", true, false),
            item("paris@verona.example", false, false),
        ];
        let policy = Arc::new(HostPolicy::of(jid("capulet.example")));
        let record = AccountRecord { roster, ..AccountRecord::default() };
        let account = Account::new(jid("juliet@capulet.example"), policy, 1, record);
        let now = Now { utc: Stamp(1_767_225_600_000_000), mono_ms: 1_000 };
        let mut fuzzed = Fuzzed { account, now, ordinal: 0 };
        for (edge, resource) in [(1, "home"), (2, "phone")] {
            fuzzed.step(Item::Attach(Attach {
                edge: EdgeRef(edge),
                resource: Some(resource.into()),
                seed: edge,
                client: None,
                bind2: false,
                carbons: edge == 2,
                inactive: false,
                management: None,
                stream: edge,
                roles: im::roles::Roles::ALL,
                secure: true,
            }));
        }
        fuzzed
    }

    /// Its first session sends a stanza.
    pub fn says(&mut self, mut stanza: Stanza) -> Vec<Effect> {
        let Some(session) = self.account.session(SessionId(0)) else { return Vec::new() };
        stanza.from = Some(session.jid.clone().into());
        self.ordinal += 1;
        let ingress = Ingress { stream: 1, ordinal: self.ordinal };
        let stanza = Arc::new(stanza);
        self.step(Item::FromClient { session: SessionId(0), stanza, ingress, ticket: Ticket::default() })
    }

    /// Somebody else does.
    #[allow(dead_code, reason = "not every target hears others")]
    pub fn hears(&mut self, stanza: Stanza) -> Vec<Effect> {
        self.ordinal += 1;
        let ingress = Ingress { stream: 9, ordinal: self.ordinal };
        let to = stanza.to.clone().filter(|to| to.same_bare(&self.account.jid));
        let to = to.unwrap_or_else(|| self.account.jid.clone().into());
        self.step(Item::Inbound { stanza: Arc::new(stanza), to, ingress, ticket: Ticket::default() })
    }

    /// One step, and those that its queries lead to; all that was told.
    fn step(&mut self, item: Item) -> Vec<Effect> {
        let mut all = Vec::new();
        let mut items = vec![item];
        for _ in 0..16 {
            let Some(item) = items.pop() else { break };
            self.now.mono_ms += 7;
            self.now.utc = Stamp(self.now.utc.0 + 7_000);
            let mut fx = Effects::default();
            self.account.step(item, self.now, &mut fx);
            for effect in fx.list {
                match effect {
                    Effect::Query { query, iq, session, then } => {
                        let answer = match query {
                            im::Query::Blob { .. } => QueryAnswer::Blob(None),
                            im::Query::Blobs { .. } => QueryAnswer::Blobs(Vec::new()),
                            im::Query::Page { .. } => QueryAnswer::Page(Page::default()),
                            im::Query::Uptime => QueryAnswer::Seconds(1),
                            _ => QueryAnswer::Done,
                        };
                        items.push(Item::Answered { iq, session, answer, then });
                    }
                    Effect::ReadPending { after, .. } => items.push(Item::Pending { after, records: Some(Vec::new()) }),
                    effect => all.push(effect),
                }
            }
        }
        all
    }
}
