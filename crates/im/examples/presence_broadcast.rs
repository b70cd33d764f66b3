//! What access rules cost a broadcast: `presence_broadcast RULES BROADCASTS` changes the presence of an account with 10,000
//! watchers that often. Run it under callgrind with two numbers of broadcasts; the difference, by 10,000 and by the
//! difference of the numbers, is the cost of a notification. See docs/performance.md.

use im::rules::document::{Conditions, Document, Domain, Identity, Many, Rule};
use im::rules::shape::{Allowed, Shape};
use im::rules::{Away, Handling, Rules, document::Actions};
use im::{Account, Attach, EdgeRef, Effect, Effects, HostPolicy, Ingress, Item, Now, SessionId, Ticket};
use std::sync::Arc;
use store::{AccountRecord, RosterItem, Subscription};
use xmpp::{BareJid, Stamp, Stanza};

const WATCHERS: usize = 10_000;

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let (rules, broadcasts) = (arguments.next().unwrap_or(0), arguments.next().unwrap_or(10));
    let mut account = account(rules);
    let now = account.now;
    let mut told = 0;
    for n in 0..broadcasts {
        let xml = format!("<presence><show>dnd</show><status>change {n}</status><priority>5</priority></presence>");
        let stanza = Stanza::parse(xml.as_bytes()).expect("a stanza");
        let ingress = Ingress { stream: 1, ordinal: n as u32 + 1 };
        let mut fx = Effects::default();
        account.step(
            Item::FromClient { session: SessionId(0), stanza: Arc::new(stanza), ingress, ticket: Ticket::default() },
            now,
            &mut fx,
        );
        told += fx
            .list
            .iter()
            .map(|it| if let Effect::Fan { targets, .. } = it { targets.len() } else { 0 })
            .sum::<usize>();
    }
    println!("{rules} rules, {broadcasts} broadcasts: {told} notifications");
}

fn jid(text: &str) -> BareJid {
    BareJid::parse(text).expect("a JID")
}

/// Watchers of a hundred domains; rules in turn of one user, a domain, a wildcard and a group.
fn account(rules: usize) -> Account {
    let item = |n: usize| RosterItem {
        jid: jid(&format!("watcher{n}@d{}.example", n % 100)),
        name: None,
        groups: vec![format!("group {}", n % 20).into()],
        subscription: Subscription { from: true, ..Subscription::default() },
        listed: true,
        version: 1,
    };
    let record = AccountRecord { roster: (0..WATCHERS).map(item).collect(), ..AccountRecord::default() };
    let policy = Arc::new(HostPolicy::of(jid("capulet.example")));
    let mut account = Account::new(jid("juliet@capulet.example"), policy, 1, record);
    let now = Now { utc: Stamp(1_767_225_600_000_000), mono_ms: 1_000 };
    let attach = Attach {
        edge: EdgeRef(1),
        resource: Some("home".into()),
        seed: 1,
        client: None,
        bind2: false,
        carbons: false,
        inactive: false,
        management: None,
        stream: 1,
        secure: true,
        roles: im::roles::Roles::ALL,
    };
    account.step(Item::Attach(attach), now, &mut Effects::default());
    let document = Document { version: 1, rules: (0..rules).map(rule).collect() };
    account.rules = Rules::of(document, Vec::new(), Away::default());
    account
}

fn rule(n: usize) -> Rule {
    let domain = |name: String, below| {
        Identity::Many(Many { domain: Some(Domain { name: name.into(), below }), except: Vec::new() })
    };
    let identity = match n % 4 {
        0 => Identity::One(jid(&format!("watcher{}@d{}.example", n * 7, n * 7 % 100))),
        1 => domain(format!("d{}.example", n % 100), false),
        2 => domain(format!("x{n}.example"), true),
        _ => Identity::Group(Some(format!("group {}", n % 20).into())),
    };
    let shape = Shape { services: Allowed::All, show: n.is_multiple_of(3), ..Shape::default() };
    Rule {
        id: format!("rule {n}").into(),
        conditions: Conditions { identity: Some(vec![identity]), ..Conditions::default() },
        actions: Actions { subscribe: Some(Handling::Allow), ..Actions::default() },
        shape: n.is_multiple_of(2).then_some(shape),
    }
}
