//! What is told to whom, and when.

use super::own::STATUS_BYTES_MAX;
use super::*;
use crate::session::Session;
use crate::testing::{Fx, START, Scene, account, account_with, bare, contact, jid};
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};
use store::{AccountRecord, Change, SessionRow};

fn record() -> AccountRecord {
    let roster = vec![
        contact("romeo@example.net", "both"),
        contact("mercutio@example.com", "from"),
        contact("nurse@example.com", "to"),
        contact("paris@example.com", "none"),
    ];
    AccountRecord { created: START, roster_version: 1, roster, ..AccountRecord::default() }
}

fn juliet() -> Scene {
    account_with("juliet@example.com", record())
}

/// (address, type) of what was told.
fn kinds(fx: &Fx) -> Vec<(String, String)> {
    let kind = |xml: &str| {
        xml.split("type='").nth(1).and_then(|rest| rest.split('\'').next()).unwrap_or("available").to_owned()
    };
    fx.told().into_iter().map(|(to, xml)| (to, kind(&xml))).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(to, kind)| ((*to).to_owned(), (*kind).to_owned())).collect()
}

#[test]
fn initial_presence_goes_to_watchers_and_own_resources_and_contacts_are_probed() {
    let mut juliet = juliet().connected("balcony").with("chamber", 3).connected("cellar");
    let fx = juliet.sends("balcony", "<presence id='p1'><show>away</show></presence>");
    assert_eq!(
        kinds(&fx),
        pairs(&[
            ("mercutio@example.com", "available"),
            ("romeo@example.net", "available"),
            ("nurse@example.com", "probe"),
            ("romeo@example.net", "probe"),
        ])
    );
    assert!(fx.told()[2].1.contains("from='juliet@example.com'"), "probes come from the bare JID");
    assert_eq!(fx.delivered("chamber").len(), 1);
    let own = fx.delivered("balcony");
    assert!(own[0].contains("from='juliet@example.com/balcony'") && own[0].contains("to='juliet@example.com'"));
    assert!(own[1].contains("from='juliet@example.com/chamber'") && own.len() == 2);
    assert!(fx.delivered("cellar").is_empty());
}

// CLUSTER rule 11.
#[test]
fn each_change_of_presence_has_the_next_number() {
    let mut juliet = juliet().connected("balcony").with("chamber", 0);
    let mut numbers = vec![juliet.presence_counter];
    for xml in ["<presence/>", "<presence><show>away</show></presence>", "<presence type='unavailable'/>"] {
        juliet.sends("balcony", xml);
        numbers.push(juliet.presence_counter);
    }
    juliet.sends("balcony", "<presence to='romeo@example.net/orchard'/>");
    juliet.closes("chamber");
    numbers.push(juliet.presence_counter);
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
}

#[test]
fn a_broadcast_is_one_fan_of_one_stanza() {
    let mut juliet = juliet().with("balcony", 0);
    let fx = juliet.sends("balcony", "<presence><show>dnd</show></presence>");
    let fans: Vec<_> =
        fx.list.iter().filter(|e| matches!(e, Effect::Fan { targets, .. } if targets.len() == 2)).collect();
    assert_eq!(fans.len(), 1);
    assert_eq!(fx.told().len(), 2, "nobody is probed again");
}

#[test]
fn the_first_broadcast_waits_for_the_row_of_the_ledger() {
    let mut juliet = juliet().connected("balcony");
    let fx = juliet.sends("balcony", "<presence/>");
    let Effect::Commit { changes, .. } = &fx.list[0] else { panic!("no commit before the rest: {:?}", fx.list) };
    assert!(
        matches!(&changes[..], [Change::SessionPut { row, .. }] if &*row.resource == "balcony" && row.epoch == 7 && !row.presence.is_empty())
    );
    let fx = juliet.sends("balcony", "<presence><show>away</show></presence>");
    assert!(!matches!(fx.list[0], Effect::Commit { .. }), "later ones do not");
    assert!(juliet.sessions[0].ledger_touched);
}

#[test]
fn unavailable_is_told_with_its_status_to_watchers_and_all_own_resources() {
    let mut juliet = juliet().with("balcony", 0).with("chamber", 0);
    let fx = juliet.sends("balcony", "<presence type='unavailable'><status>going on vacation</status></presence>");
    assert_eq!(kinds(&fx), pairs(&[("mercutio@example.com", "unavailable"), ("romeo@example.net", "unavailable")]));
    assert!(fx.told()[0].1.contains("going on vacation"));
    assert_eq!(fx.written_to(), ["balcony", "chamber"]);
    assert!(matches!(&fx.commits()[..], [Change::SessionDelete { .. }]), "another resource is still there");
    let fx = juliet.sends("chamber", "<presence type='unavailable'><status>me too</status></presence>");
    assert!(
        fx.commits()
            .iter()
            .any(|c| matches!(c, Change::LastActivity { left: START, status, .. } if &**status == "me too"))
    );
}

#[test]
fn presence_after_unavailable_is_initial_presence_again() {
    let mut juliet = juliet().with("balcony", 0);
    juliet.sends("balcony", "<presence type='unavailable'/>");
    let fx = juliet.sends("balcony", "<presence/>");
    assert!(kinds(&fx).contains(&("romeo@example.net".into(), "probe".into())));
}

#[test]
fn unavailable_from_a_resource_that_was_not_available_tells_nobody() {
    let mut juliet = juliet().connected("balcony").with("chamber", 0);
    let fx = juliet.sends("balcony", "<presence type='unavailable'/>");
    assert!(fx.is_empty(), "{fx:?}");
}

#[test]
fn a_stream_that_closes_tells_watchers_and_addressees() {
    let mut juliet = juliet().with("balcony", 0).with("chamber", 0);
    juliet.sends("balcony", "<presence to='room@chat.example.com/juliet'/>");
    juliet.sends("balcony", "<presence to='romeo@example.net/orchard'/>");
    let fx = juliet.closes("balcony");
    assert_eq!(
        kinds(&fx),
        pairs(&[
            ("mercutio@example.com", "unavailable"),
            ("romeo@example.net", "unavailable"),
            ("room@chat.example.com/juliet", "unavailable"),
        ])
    );
    assert!(fx.told()[0].1.contains("from='juliet@example.com/balcony'"));
    assert_eq!(fx.written_to(), ["chamber"]);
    assert!(fx.in_order(|e| matches!(e, Effect::Fan { .. }), |e| matches!(e, Effect::Commit { .. })));
}

#[test]
fn when_the_last_resource_leaves_the_time_is_noted() {
    let mut juliet = juliet().with("balcony", 0).connected("chamber");
    let fx = juliet.closes("balcony");
    assert!(fx.commits().iter().any(|c| matches!(c, Change::LastActivity { left: START, .. })));
    assert_eq!(juliet.last_activity, Some((START, "".into())));
}

#[test]
fn directed_presence_is_told_once_and_ends_with_directed_unavailable() {
    let mut juliet = juliet().connected("balcony");
    let fx = juliet.sends(
        "balcony",
        "<presence to='room@chat.example.com/juliet'><x xmlns='http://jabber.org/protocol/muc'/></presence>",
    );
    assert_eq!(fx.told_to(), ["room@chat.example.com/juliet"]);
    assert!(fx.told()[0].1.contains("from='juliet@example.com/balcony'") && fx.told()[0].1.contains("protocol/muc"));
    assert!(
        matches!(&fx.commits()[..], [Change::SessionPut { row, .. }] if row.directed == [jid("room@chat.example.com/juliet")])
    );
    juliet.sends("balcony", "<presence to='room@chat.example.com/juliet' type='unavailable'/>");
    assert!(juliet.closes("balcony").told().is_empty());
}

#[test]
fn directed_presence_does_not_make_a_watcher() {
    let mut juliet = juliet().with("balcony", 0);
    juliet.sends("balcony", "<presence to='paris@example.com'/>");
    let fx = juliet.sends("balcony", "<presence><show>away</show></presence>");
    assert!(!fx.told_to().contains(&"paris@example.com".to_owned()));
    let fx = juliet.sends("balcony", "<presence type='unavailable'/>");
    assert!(fx.told_to().contains(&"paris@example.com".to_owned()));
}

#[test]
fn who_went_away_itself_need_not_be_told() {
    let mut juliet = juliet().with("balcony", 0);
    juliet.sends("balcony", "<presence to='room@chat.example.com/juliet'/>");
    juliet
        .receive("<presence from='room@chat.example.com/juliet' to='juliet@example.com/balcony' type='unavailable'/>");
    assert!(juliet.sessions[0].directed.is_empty());
}

#[test]
fn directed_presence_to_more_than_the_limit_is_refused() {
    let mut juliet = juliet().policy(|p| p.limits.directed_max = 1).with("balcony", 0);
    juliet.sends("balcony", "<presence to='a@chat.example.com/juliet'/>");
    let fx = juliet.sends("balcony", "<presence to='b@chat.example.com/juliet'/>");
    assert!(fx.told().is_empty());
    assert!(fx.delivered("balcony")[0].contains("<resource-constraint"));
    assert_eq!(juliet.sends("balcony", "<presence to='a@chat.example.com/juliet'/>").told().len(), 1);
}

#[test]
fn presence_from_others_is_delivered_to_all_available_resources_unchanged() {
    let mut juliet = juliet().with("balcony", -1).with("chamber", 0).connected("cellar");
    for kind in ["", " type='unavailable'", " type='error'"] {
        let fx = juliet.receive(&format!("<presence from='stranger@example.org/x'{kind}><show>away</show></presence>"));
        assert_eq!(fx.written_to(), ["balcony", "chamber"], "{kind}");
        assert!(fx.delivered("balcony")[0].contains("to='juliet@example.com'"));
    }
}

#[test]
fn a_broadcast_that_arrives_without_to_gets_the_bare_jid() {
    let mut juliet = juliet().with("balcony", 0);
    let stanza = Arc::new(crate::testing::stanza("<presence from='romeo@example.net/orchard'/>"));
    let to = juliet.jid.clone().into();
    let fx = juliet.item(crate::Item::Inbound { stanza, to, ingress: OWN, ticket: Ticket::default() });
    assert!(fx.delivered("balcony")[0].contains("to='juliet@example.com'"));
}

#[test]
fn presence_for_a_full_jid_reaches_that_resource_even_if_it_is_only_connected() {
    let mut juliet = juliet().with("balcony", 0).connected("cellar");
    let fx = juliet.receive("<presence from='romeo@example.net/orchard' to='juliet@example.com/cellar'/>");
    assert_eq!(fx.written_to(), ["cellar"]);
    assert!(juliet.receive("<presence from='romeo@example.net/orchard' to='juliet@example.com/gone'/>").is_empty());
}

fn probe(scene: &mut Scene, from: &str, to: &str) -> Vec<(String, String)> {
    scene.receive(&format!("<presence from='{from}' to='{to}' type='probe' id='probe1'/>")).told()
}

#[test]
fn a_probe_of_a_watcher_is_answered_with_the_presence_of_each_available_resource() {
    let mut juliet = juliet().connected("balcony").connected("chamber").connected("cellar");
    juliet.sends("balcony", "<presence id='hzf1v27k'/>");
    juliet.sends("chamber", "<presence id='ps6t1fu3'><show>away</show></presence>");
    let told = probe(&mut juliet, "romeo@example.net", "juliet@example.com");
    assert_eq!(told.len(), 2);
    assert!(told[0].1.contains("from='juliet@example.com/balcony'") && told[0].1.contains("id='hzf1v27k'"));
    assert!(told[1].1.contains("from='juliet@example.com/chamber'") && told[1].1.contains("<show>away</show>"));
    assert!(told.iter().all(|(to, xml)| to == "romeo@example.net" && xml.contains("to='romeo@example.net'")));
}

#[test]
fn a_probe_of_a_watcher_when_nobody_is_there_is_answered_unavailable_since_when() {
    let mut juliet =
        account_with("juliet@example.com", AccountRecord { last_activity: Some((START, "secret".into())), ..record() });
    let told = probe(&mut juliet, "romeo@example.net", "juliet@example.com");
    assert_eq!(told.len(), 1);
    let xml = &told[0].1;
    assert!(
        xml.contains("type='unavailable'") && xml.contains("from='juliet@example.com'") && xml.contains("id='probe1'"),
        "{xml}"
    );
    assert!(xml.contains("stamp='2026-01-01T00:00:00Z'") && !xml.contains("secret"), "{xml}");
}

#[test]
fn a_probe_of_one_resource_tells_only_that_it_is_there() {
    let mut juliet = juliet().connected("balcony").with("chamber", 0);
    juliet.sends("balcony", "<presence id='p'><show>away</show></presence>");
    let told = probe(&mut juliet, "romeo@example.net", "juliet@example.com/balcony");
    assert_eq!(told.len(), 1);
    assert!(told[0].1.contains("from='juliet@example.com/balcony'") && !told[0].1.contains("show"));
    let told = probe(&mut juliet, "romeo@example.net", "juliet@example.com/gone");
    assert!(told[0].1.contains("type='unavailable'"));
}

#[test]
fn a_probe_of_a_stranger_is_answered_unsubscribed_from_the_bare_jid() {
    let mut juliet = juliet().with("balcony", 0);
    for stranger in ["nurse@example.com", "paris@example.com", "stranger@example.org"] {
        for to in ["juliet@example.com", "juliet@example.com/balcony"] {
            let told = probe(&mut juliet, stranger, to);
            assert_eq!(told.len(), 1);
            let xml = &told[0].1;
            assert!(
                xml.contains("type='unsubscribed'")
                    && xml.contains("from='juliet@example.com'")
                    && xml.contains("id='probe1'")
            );
        }
    }
}

#[test]
fn a_probe_of_one_who_waits_for_an_answer_is_not_answered() {
    let mut juliet = juliet().with("balcony", 0);
    juliet.receive("<presence from='benvolio@example.net' type='subscribe'/>");
    assert!(probe(&mut juliet, "benvolio@example.net", "juliet@example.com").is_empty());
}

#[test]
fn a_probe_of_an_addressee_is_answered_with_mere_availability_of_the_resource_that_addressed_it() {
    let mut juliet = juliet().with("balcony", 0).with("chamber", 0);
    juliet.sends("balcony", "<presence to='room@chat.example.com/juliet'><show>away</show></presence>");
    let told = probe(&mut juliet, "room@chat.example.com/juliet", "juliet@example.com/balcony");
    assert_eq!(told.len(), 1);
    assert!(told[0].1.contains("from='juliet@example.com/balcony'") && !told[0].1.contains("show"));
    let told = probe(&mut juliet, "room@chat.example.com/juliet", "juliet@example.com/chamber");
    assert!(told[0].1.contains("type='unsubscribed'"));
}

#[test]
fn a_client_may_probe_and_fetches_thereby_what_it_does_not_probe_itself() {
    let mut juliet = juliet().with("balcony", 0);
    let fx = juliet.sends("balcony", "<presence to='romeo@example.net' type='probe'/>");
    assert_eq!(kinds(&fx), pairs(&[("romeo@example.net", "get")]));
    let fx = juliet.sends("balcony", "<presence to='romeo@example.net/orchard' type='probe'/>");
    assert_eq!(kinds(&fx), pairs(&[("romeo@example.net/orchard", "probe")]));
    assert!(juliet.sends("balcony", "<presence type='probe'/>").is_empty());
}

#[test]
fn a_host_without_presence_service_answers_service_unavailable_and_still_delivers_messages() {
    let mut juliet = juliet().policy(|p| p.presence = false).connected("balcony");
    let fx = juliet.sends("balcony", "<presence><priority>5</priority></presence>");
    assert!(fx.told().is_empty() && fx.commits().is_empty());
    assert!(fx.delivered("balcony")[0].contains("<service-unavailable"));
    assert!(juliet.sessions[0].takes_messages());
    for stanza in ["<presence to='romeo@example.net'/>", "<presence type='unavailable'/>"] {
        let fx = juliet.sends("balcony", stanza);
        assert!(fx.told().is_empty() && fx.delivered("balcony")[0].contains("<service-unavailable"));
    }
    assert!(juliet.receive("<presence from='romeo@example.net/orchard'/>").is_empty());
    assert!(juliet.receive("<presence from='romeo@example.net' type='probe'/>").is_empty());
}

fn row(resource: &str, presence: &str, directed: &[&str]) -> SessionRow {
    SessionRow {
        resource: resource.into(),
        epoch: 6,
        resume_id_hash: Vec::new(),
        presence: presence.into(),
        directed: directed.iter().map(|to| jid(to)).collect(),
        since: START,
        received: None,
    }
}

#[test]
fn sessions_that_a_crash_left_are_told_of_as_gone_when_their_window_is_over() {
    let sessions = vec![row("balcony", "<presence/>", &["room@chat.example.com/juliet"]), row("cellar", "", &[])];
    let mut juliet = account_with("juliet@example.com", AccountRecord { sessions, ..record() }).with("chamber", 0);
    let fx = juliet.item(crate::Item::LedgerExpired);
    assert_eq!(
        kinds(&fx),
        pairs(&[
            ("mercutio@example.com", "unavailable"),
            ("romeo@example.net", "unavailable"),
            ("room@chat.example.com/juliet", "unavailable"),
        ])
    );
    assert!(fx.told()[0].1.contains("from='juliet@example.com/balcony'"));
    assert_eq!(fx.written_to(), ["chamber"]);
    assert_eq!(fx.commits().iter().filter(|c| matches!(c, Change::SessionDelete { .. })).count(), 2);
    assert!(juliet.ledger.is_empty());
}

#[test]
fn a_resource_that_is_back_after_a_crash_is_gone_only_for_whom_it_has_not_addressed_again() {
    let directed = ["a@chat.example.com/juliet", "b@chat.example.com/juliet"];
    let sessions = vec![row("balcony", "<presence/>", &directed)];
    let mut juliet = account_with("juliet@example.com", AccountRecord { sessions, ..record() }).with("balcony", 0);
    juliet.sends("balcony", "<presence to='a@chat.example.com/juliet'/>");
    let fx = juliet.item(crate::Item::LedgerExpired);
    assert_eq!(kinds(&fx), pairs(&[("b@chat.example.com/juliet", "unavailable")]));
    assert!(fx.commits().is_empty(), "the row is the new session's");
}

#[test]
fn a_removed_account_parts_from_all_contacts() {
    let mut juliet = juliet().with("balcony", 0);
    juliet.receive("<presence from='benvolio@example.net' type='subscribe'/>");
    let mut fx = Effects::default();
    leave_all_rosters(&mut juliet, &mut fx);
    let told: Vec<(String, PresenceType)> = fx
        .list
        .iter()
        .flat_map(|effect| match effect {
            Effect::Tell { to, stanza, .. } => vec![(to.to_string(), stanza.kind)],
            Effect::Fan { stanza, targets } => targets.iter().map(|to| (to.to_string(), stanza.kind)).collect(),
            _ => Vec::new(),
        })
        .filter_map(|(to, kind)| match kind {
            StanzaType::Presence(kind) => Some((to, kind)),
            _ => None,
        })
        .collect();
    let expected = [
        ("mercutio@example.com", PresenceType::Unavailable),
        ("romeo@example.net", PresenceType::Unavailable),
        ("benvolio@example.net", PresenceType::Unsubscribed),
        ("mercutio@example.com", PresenceType::Unsubscribed),
        ("nurse@example.com", PresenceType::Unsubscribe),
        ("romeo@example.net", PresenceType::Unsubscribe),
        ("romeo@example.net", PresenceType::Unsubscribed),
    ];
    assert_eq!(told, expected.map(|(to, kind)| (to.to_owned(), kind)));
    assert!(juliet.roster.is_empty());
}

#[test]
fn nobody_who_is_blocked_is_told_or_probed() {
    let mut juliet =
        account_with("juliet@example.com", AccountRecord { blocks: vec![jid("romeo@example.net")], ..record() })
            .connected("balcony");
    let fx = juliet.sends("balcony", "<presence/>");
    assert!(!fx.told_to().contains(&"romeo@example.net".to_owned()));
}

#[test]
fn a_status_is_kept_up_to_its_limit() {
    let mut juliet = account("juliet@example.com").with("balcony", 0);
    let long = "é".repeat(STATUS_BYTES_MAX);
    juliet.sends("balcony", &format!("<presence type='unavailable'><status>{long}</status></presence>"));
    let kept = juliet.last_activity.as_ref().map(|(_, status)| status.len());
    assert_eq!(kept, Some(STATUS_BYTES_MAX - 1));
    assert_eq!(juliet.jid, bare("juliet@example.com"));
}

// ---- what two accounts' clients know of each other ----

/// What one side does.
#[derive(Debug, Clone)]
enum Does {
    /// A stanza of one resource; `%` is the contact.
    Sends(usize, &'static str),
    Closes(usize),
}

const RESOURCES: [&str; 2] = ["a", "b"];
const NAMES: [&str; 2] = ["romeo@example.net", "juliet@example.com"];

fn does() -> impl Strategy<Value = Does> {
    let sends = prop::sample::select(vec![
        "<presence/>",
        "<presence/>",
        "<presence><show>away</show></presence>",
        "<presence type='unavailable'/>",
        "<presence to='%'/>",
        "<presence to='%' type='subscribe'/>",
        "<presence to='%' type='subscribed'/>",
        "<presence to='%' type='subscribed'/>",
        "<presence to='%' type='unsubscribe'/>",
        "<presence to='%' type='unsubscribed'/>",
        "<presence to='%' type='probe'/>",
        "<iq type='set' id='1'><query xmlns='jabber:iq:roster'><item jid='%' subscription='remove'/></query></iq>",
        "<iq type='set' id='1'><block xmlns='urn:xmpp:blocking'><item jid='%'/></block></iq>",
        "<iq type='set' id='1'><unblock xmlns='urn:xmpp:blocking'><item jid='%'/></unblock></iq>",
        "<iq type='set' id='1'><unblock xmlns='urn:xmpp:blocking'/></iq>",
    ]);
    prop_oneof![
        8 => (0..2usize, sends).prop_map(|(resource, xml)| Does::Sends(resource, xml)),
        1 => (0..2usize).prop_map(Does::Closes),
    ]
}

/// Two accounts, and for each resource of each which resources of the other its client takes to be there.
struct Pair {
    scenes: [Scene; 2],
    known: [[BTreeSet<String>; 2]; 2],
}

impl Pair {
    fn new() -> Pair {
        Pair { scenes: NAMES.map(|name| account(name).connected("a").connected("b")), known: Default::default() }
    }

    fn act(&mut self, side: usize, act: &Does) {
        let fx = match act {
            Does::Sends(resource, xml) => {
                let contact = NAMES[1 - side];
                self.scenes[side].sends(RESOURCES[*resource], &xml.replace('%', contact))
            }
            Does::Closes(resource) => self.scenes[side].closes(RESOURCES[*resource]),
        };
        let mut under_way = VecDeque::new();
        self.happened(side, fx, &mut under_way);
        while let Some((to, xml)) = under_way.pop_front() {
            let fx = self.scenes[to].receive(&xml);
            self.happened(to, fx, &mut under_way);
        }
        if let Does::Closes(resource) = act {
            let scene = std::mem::replace(&mut self.scenes[side], account(NAMES[side]));
            self.scenes[side] = scene.connected(RESOURCES[*resource]);
        }
    }

    fn happened(&mut self, side: usize, fx: Fx, under_way: &mut VecDeque<(usize, String)>) {
        // RFC 6121 §3.3.3: who asks no more knows that it sees nothing any more.
        let is_blind = !self.scenes[side].roster.subscription(&jid(NAMES[1 - side])).to && self.blocks(side);
        for (at, resource) in RESOURCES.iter().enumerate() {
            let known = &mut self.known[side][at];
            for xml in fx.delivered(resource) {
                let stanza = crate::testing::stanza(&xml);
                let from = stanza.from.clone().filter(|from| from.bare_str() == NAMES[1 - side]);
                match (stanza.kind, from) {
                    (StanzaType::Presence(PresenceType::Available), Some(from)) => {
                        known.insert(from.to_string());
                    }
                    (StanzaType::Presence(PresenceType::Unavailable), Some(from)) if from.is_bare() => known.clear(),
                    (StanzaType::Presence(PresenceType::Unavailable), Some(from)) => {
                        known.remove(from.as_str());
                    }
                    _ => {}
                }
            }
            let session = self.scenes[side].sessions.iter().find(|s| s.jid.resource_str() == *resource);
            if is_blind || !session.is_some_and(Session::is_available) {
                known.clear();
            }
        }
        under_way.extend(fx.told().into_iter().map(|(to, xml)| (usize::from(to.starts_with(NAMES[1])), xml)));
    }

    fn blocks(&self, side: usize) -> bool {
        self.scenes[side].blocks.blocks(&jid(NAMES[1 - side]))
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for side in 0..2 {
            if self.blocks(side) {
                continue;
            }
            let (watcher, other) = (&self.scenes[side], &self.scenes[1 - side]);
            let contact = jid(NAMES[1 - side]);
            let hidden = self.blocks(1 - side);
            let is_there = |s: &&Session| s.is_available();
            let directed = |s: &&Session| s.directed.iter().any(|to| to.bare_str() == NAMES[side]);
            let sees = watcher.roster.subscription(&contact).to && !hidden;
            let must: BTreeSet<String> =
                other.sessions.iter().filter(|s| sees && is_there(s)).map(|s| s.jid.to_string()).collect();
            let may: BTreeSet<String> = other
                .sessions
                .iter()
                .filter(|s| !hidden && (sees && is_there(s) || directed(s)))
                .map(|s| s.jid.to_string())
                .collect();
            for (known, resource) in self.known[side].iter().zip(RESOURCES) {
                let session = watcher.sessions.iter().find(|s| s.jid.resource_str() == resource);
                if session.is_some_and(Session::is_available) {
                    prop_assert!(must.is_subset(known), "{resource} of {side} misses some: {known:?}, {must:?}");
                    prop_assert!(known.is_subset(&may), "{resource} of {side} sees ghosts: {known:?}, {may:?}");
                }
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// When nothing is under way, each available resource knows of all resources of the contact that it may see,
    /// and of no ghosts.
    #[test]
    fn clients_know_who_is_there_after_whatever_either_side_does(
        acts in prop::collection::vec((0..2usize, does()), 1..40),
    ) {
        let mut pair = Pair::new();
        for (side, act) in acts {
            pair.act(side, &act);
            pair.check().map_err(|error| TestCaseError::fail(format!("after {act:?} of {side}: {error}")))?;
        }
    }
}
