//! RFC 6121 §8.5.2 and §8.5.3 for presence and iq, row by row. (Those of messages stand in `messages`.)

use crate::testing::{Fx, Scene, account_with, contact};
use store::AccountRecord;

const JULIET: &str = "juliet@capulet.example";
/// Shares presence with her.
const ROMEO: &str = "romeo@montague.example/orchard";
/// Does not.
const STRANGER: &str = "tybalt@elsewhere.example/street";

/// Juliet with resources `name=priority`, or `name` for one that is only connected.
fn juliet(resources: &str) -> Scene {
    let stored = AccountRecord { roster: vec![contact("romeo@montague.example", "both")], ..AccountRecord::default() };
    resources.split_whitespace().fold(account_with(JULIET, stored), |scene, item| match item.split_once('=') {
        Some((name, priority)) => scene.with(name, priority.parse().expect("a priority")),
        None => scene.connected(item),
    })
}

/// The resources that were given it, `error` for `service-unavailable` to its sender, or `nothing`.
fn outcome(fx: &Fx, sender: &str) -> String {
    match (fx.written_to(), fx.told().first()) {
        (given, None) if given.is_empty() => "nothing".into(),
        (given, None) => given.join("+"),
        (given, Some((to, xml))) => {
            assert!(given.is_empty() && to == sender && xml.contains("<service-unavailable "), "{xml}");
            "error".into()
        }
    }
}

/// Each row: resources | resource in 'to' | an outcome for each of `kinds`.
fn check(rows: &str, sender: &str, kinds: &[&str]) {
    for row in rows.lines().map(str::trim).filter(|row| !row.starts_with('#')) {
        let [resources, resource, outcomes] =
            row.split('|').map(str::trim).collect::<Vec<_>>().try_into().expect("three columns");
        let to = if resource.is_empty() { JULIET.to_owned() } else { format!("{JULIET}/{resource}") };
        let outcomes: Vec<&str> = outcomes.split_whitespace().collect();
        assert_eq!(outcomes.len(), kinds.len(), "{row}");
        for (kind, expected) in kinds.iter().zip(outcomes) {
            let stanza = kind.replacen(" ", &format!(" from='{sender}' to='{to}' "), 1);
            let fx = juliet(resources).receive(&stanza);
            assert_eq!(outcome(&fx, sender), expected, "{stanza} with {resources:?}");
        }
    }
}

// RFC 6121 §8.5.2.1.2, §8.5.2.2.2, §8.5.3.1, §8.5.3.2.2.
#[test]
fn every_row_of_presence_is_kept() {
    let kinds = ["<presence />", "<presence type='unavailable'/>", "<presence type='error'/>"];
    let rows = "\
        # no available resource
        |      | nothing nothing nothing
        | gone | nothing nothing nothing
        cellar |        | nothing nothing nothing
        cellar | cellar | cellar  cellar  cellar
        cellar | gone   | nothing nothing nothing
        # one, of any priority
        home=0 |      | home    home    home
        home=0 | home | home    home    home
        home=0 | gone | nothing nothing nothing
        home=-1 |      | home    home    home
        home=-1 | home | home    home    home
        # several: all that are available
        home=5 phone=5 tablet=-1 cellar |        | home+phone+tablet home+phone+tablet home+phone+tablet
        home=5 phone=5 tablet=-1 cellar | tablet | tablet  tablet  tablet
        home=5 phone=5 tablet=-1 cellar | cellar | cellar  cellar  cellar
        home=5 phone=5 tablet=-1 cellar | gone   | nothing nothing nothing";
    check(rows, ROMEO, &kinds);
    check(rows, STRANGER, &kinds);
}

// RFC 6121 §3.1.3: a request is for the account, whatever the resource; §8.5.3.2.2: other words about subscriptions to a
// resource that is not there are ignored, and so is what changes nothing.
#[test]
fn every_row_of_subscriptions_is_kept() {
    let kinds = [
        "<presence type='subscribe'/>",
        "<presence type='subscribed'/>",
        "<presence type='unsubscribe'/>",
        "<presence type='unsubscribed'/>",
    ];
    let rows = "\
        |      | nothing nothing nothing nothing
        | gone | nothing nothing nothing nothing
        cellar |        | nothing nothing nothing nothing
        home=0 |      | home nothing nothing nothing
        home=0 | home | home nothing nothing nothing
        home=0 | gone | home nothing nothing nothing
        home=3 phone=3 tablet=-1 cellar |       | home+phone+tablet nothing nothing nothing
        home=3 phone=3 tablet=-1 cellar | phone | home+phone+tablet nothing nothing nothing
        home=3 phone=3 tablet=-1 cellar | gone  | home+phone+tablet nothing nothing nothing";
    check(rows, STRANGER, &kinds);
}

const IQS: [&str; 4] = [
    "<iq type='get' id='1'><query xmlns='nobody:knows'/></iq>",
    "<iq type='set' id='1'><query xmlns='nobody:knows'/></iq>",
    "<iq type='result' id='1'/>",
    "<iq type='error' id='1'/>",
];

// RFC 6121 §8.5.2.1.3, §8.5.2.2.3, §8.5.3.1, §8.5.3.2.3.
#[test]
fn every_row_of_iqs_is_kept() {
    let rows = "\
        # to the account: what the server does not know is service-unavailable
        |                               | error error nothing nothing
        home=0                          | | error error nothing nothing
        home=5 phone=5 tablet=-1 cellar | | error error nothing nothing
        # no such resource
        | gone | error error nothing nothing
        home=0 | gone | error error nothing nothing
        home=5 phone=5 tablet=-1 cellar | gone | error error nothing nothing
        # to a resource, available or only connected
        home=0  | home   | home   home   home   home
        home=-1 | home   | home   home   home   home
        cellar  | cellar | cellar cellar cellar cellar
        home=5 phone=5 tablet=-1 cellar | tablet | tablet tablet tablet tablet
        home=5 phone=5 tablet=-1 cellar | cellar | cellar cellar cellar cellar";
    check(rows, ROMEO, &IQS);
}

// RFC 6121 §8.5.3.1: a request of one who does not share presence is not delivered; an answer is.
#[test]
fn every_row_of_iqs_of_a_stranger_is_kept() {
    let rows = "\
        | | error error nothing nothing
        home=0 | | error error nothing nothing
        home=0 | gone | error error nothing nothing
        home=0 | home | error error home home
        cellar | cellar | error error cellar cellar
        home=5 phone=5 tablet=-1 | phone | error error phone phone";
    check(rows, STRANGER, &IQS);
}
