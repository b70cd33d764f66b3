//! Polite blocking, put to the test: somebody who is politely blocked asks at every exit, and cannot tell the account
//! from one that was away throughout.

use crate::effects::{Effect, QueryAnswer};
use crate::item::Item;
use crate::testing::{Fx, START, Scene, account_with, contact, jid, stanza};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeMap;
use store::{AccountRecord, RosterItem};
use xmpp::Stamp;

const JULIET: &str = "juliet@capulet.example";
const ROMEO: &str = "romeo@montague.example/garden";
/// In all runs together.
const OBSERVATIONS: usize = 1_000;
const OBSERVATIONS_A_RUN: usize = 25;

/// What Romeo can do to find out.
const PROBES: [&str; 35] = [
    "<presence type='probe' id='p1' to='{bare}'/>",
    "<presence type='probe' id='p2' to='{full}'/>",
    "<presence type='probe' id='p3' from='romeo@montague.example' to='{bare}'/>",
    "<presence type='subscribe' id='s1' to='{bare}'/>",
    "<presence type='unsubscribe' id='s2' to='{bare}'/>",
    "<presence to='{bare}'/>",
    "<presence to='{full}'><show>chat</show></presence>",
    "<presence type='unavailable' to='{bare}'/>",
    "<iq type='get' id='q1' to='{bare}'><query xmlns='jabber:iq:last'/></iq>",
    "<iq type='get' id='q2' to='{full}'><query xmlns='jabber:iq:last'/></iq>",
    "<iq type='get' id='q3' to='{bare}'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
    "<iq type='get' id='q4' to='{full}'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
    "<iq type='get' id='q5' to='{bare}'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>",
    "<iq type='get' id='q6' to='{bare}'><vCard xmlns='vcard-temp'/></iq>",
    "<iq type='get' id='q7' to='{full}'><query xmlns='jabber:iq:version'/></iq>",
    "<iq type='get' id='q8' to='{full}'><time xmlns='urn:xmpp:time'/></iq>",
    "<iq type='get' id='q9' to='{bare}'><ping xmlns='urn:xmpp:ping'/></iq>",
    "<iq type='get' id='q10' to='{full}'><ping xmlns='urn:xmpp:ping'/></iq>",
    "<iq type='get' id='q12' to='{bare}'><fetch xmlns='urn:waft:fetch:0'/></iq>",
    "<iq type='get' id='q13' to='{bare}'><status xmlns='urn:waft:leases:0'/></iq>",
    "<iq type='get' id='q14' to='{bare}'><query xmlns='urn:waft:watchers:0'/></iq>",
    "<iq type='get' id='q15' to='{bare}'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='http://jabber.org/protocol/tune'/></pubsub></iq>",
    "<iq type='get' id='q16' to='{bare}'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:avatar:metadata'/></pubsub></iq>",
    "<iq type='get' id='q17' to='{bare}'><query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/tune'/></iq>",
    "<iq type='set' id='q18' to='{bare}'><query xmlns='urn:xmpp:mam:2'/></iq>",
    "<iq type='set' id='q19' to='{bare}'><publish xmlns='urn:waft:tuples:0'/></iq>",
    "<iq type='set' id='q11' to='{bare}'><query xmlns='jabber:iq:roster'/></iq>",
    "<message type='chat' id='m1' to='{bare}'><body>there?</body><request xmlns='urn:xmpp:receipts'/></message>",
    "<message type='chat' id='m2' to='{full}'><body>there?</body><markable xmlns='urn:xmpp:chat-markers:0'/></message>",
    "<message type='normal' id='m3' to='{full}'><body>there?</body></message>",
    "<message type='headline' id='m4' to='{full}'><body>there?</body></message>",
    "<message type='headline' id='m5' to='{bare}'><body>there?</body></message>",
    "<message type='groupchat' id='m6' to='{full}'><body>there?</body></message>",
    "<message type='chat' id='m7' to='{bare}'><body>there?</body><no-store xmlns='urn:xmpp:hints'/></message>",
    "<message type='chat' id='m8' to='{full}'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>",
];

/// What Juliet does meanwhile, who is at home; none of it is meant for Romeo.
const LIFE: [&str; 11] = [
    "<presence><show>dnd</show><status>reading</status></presence>",
    "<presence><priority>7</priority></presence>",
    "<message type='chat' to='{romeo}'><received xmlns='urn:xmpp:receipts' id='m1'/></message>",
    "<message type='chat' to='{romeo}'><displayed xmlns='urn:xmpp:chat-markers:0' id='m2'/></message>",
    "<message type='chat' to='{romeo}'><active xmlns='http://jabber.org/protocol/chatstates'/></message>",
    "<presence type='unavailable'><status>to bed</status></presence>",
    "<iq type='set' id='l1'><query xmlns='jabber:iq:roster'><item jid='nurse@capulet.example' name='N'/></query></iq>",
    "<iq type='get' id='l2' to='{romeo}'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
    "<iq type='get' id='l3' to='romeo@montague.example'><pubsub xmlns='http://jabber.org/protocol/pubsub'/></iq>",
    "<presence type='probe' to='romeo@montague.example'/>",
    "<presence/>",
];

/// How the two worlds begin.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Beginning {
    /// She was away when the rule came.
    Away,
    /// He saw her; in one world she left, in the other the rule came.
    Present,
    /// He is nobody to her.
    Stranger,
}

fn record(beginning: Beginning) -> AccountRecord {
    let known: Vec<RosterItem> = match beginning {
        Beginning::Stranger => Vec::new(),
        _ => vec![contact("romeo@montague.example", "both")],
    };
    let left = Some((Stamp(START.0 - 3_600_000_000), Box::from("gone riding")));
    AccountRecord { roster: known, last_activity: left, ..AccountRecord::default() }
}

fn rule(handling: &str) -> String {
    format!(
        "<iq type='set' id='r1'><rules xmlns='urn:waft:rules:0' etag='*'>\
         <rule xmlns='urn:ietf:params:xml:ns:common-policy' id='romeo'>\
         <conditions><identity><one id='xmpp:romeo@montague.example'/></identity></conditions>\
         <actions><sub-handling xmlns='urn:ietf:params:xml:ns:pres-rules'>{handling}</sub-handling></actions>\
         </rule></rules></iq>"
    )
}

/// What Romeo hears of a step, each with how long the house has to wait before it says it: for nothing, for the disk,
/// for a read.
fn heard(scene: &mut Scene, fx: Fx) -> Vec<String> {
    let mut heard = Vec::new();
    let mut behind = "at once";
    let mut answers = Vec::new();
    for effect in fx.list {
        match effect {
            Effect::Commit { .. } => behind = "behind a commit",
            Effect::Query { iq, session: None, then, .. } => {
                let answer = QueryAnswer::Blob(Some(b"<vCard xmlns='vcard-temp'><FN>Juliet</FN></vCard>".to_vec()));
                answers.push(Item::Answered { iq, session: None, answer, then });
            }
            Effect::Tell { to, stanza, .. } if to.same_bare(&jid(ROMEO)) => heard.push(said(&stanza, behind)),
            Effect::Fan { stanza, targets } if targets.iter().any(|to| to.same_bare(&jid(ROMEO))) => {
                heard.push(said(&stanza, behind));
            }
            _ => {}
        }
    }
    for answer in answers {
        let fx = scene.item(answer);
        heard.extend(fx.told().into_iter().map(|(_, xml)| format!("behind a read: {xml}")));
    }
    heard
}

fn said(stanza: &xmpp::Stanza, behind: &str) -> String {
    format!("{behind}: {}", String::from_utf8_lossy(&xmpp::write::to_stored(stanza)))
}

fn asks(scene: &mut Scene, probe: usize) -> Vec<String> {
    let xml = PROBES[probe].replace("{bare}", JULIET).replace("{full}", &format!("{JULIET}/home"));
    let mut stanza = stanza(&xml);
    stanza.from.get_or_insert_with(|| jid(ROMEO));
    let xml = String::from_utf8(xmpp::write::to_stored(&stanza)).expect("UTF-8");
    let fx = scene.receive(&xml);
    heard(scene, fx)
}

/// She was away throughout, and he may see her.
fn away(beginning: Beginning) -> Scene {
    let mut juliet = account_with(JULIET, record(beginning)).with("home", 0);
    juliet.sends("home", &rule("allow"));
    if beginning != Beginning::Present {
        juliet.sessions.clear();
        return juliet;
    }
    juliet.sends("home", "<presence type='unavailable'/>");
    juliet.sessions.clear();
    juliet
}

/// The rule came; she is at home.
fn politely_blocked(beginning: Beginning) -> Scene {
    let mut juliet = account_with(JULIET, record(beginning));
    if beginning != Beginning::Present {
        // It came while she was away, by another way than her client.
        juliet = juliet.connected("home");
        juliet.sends("home", &rule("polite-block"));
    } else {
        juliet = juliet.with("home", 0);
        juliet.sends("home", &rule("polite-block"));
    }
    juliet
}

/// One run: probes and life in any order; both worlds' answers.
fn run(beginning: Beginning, steps: &[(usize, usize, u64)]) -> Vec<(usize, Vec<String>, Vec<String>)> {
    let (mut away, mut blocked) = (away(beginning), politely_blocked(beginning));
    let mut observations = Vec::new();
    for &(probe, life, ms) in steps {
        let lives = LIFE[life].replace("{romeo}", ROMEO);
        let fx = blocked.sends("home", &lives);
        let leaked = heard(&mut blocked, fx);
        let mut tick = [Vec::new(), Vec::new()];
        for (scene, tick) in [&mut away, &mut blocked].into_iter().zip(&mut tick) {
            let fx = scene.after_ms(ms);
            tick.extend(heard(scene, fx));
        }
        let [of_away, mut of_blocked] = tick;
        of_blocked.extend(leaked);
        let with = |mut before: Vec<String>, scene: &mut Scene| {
            before.extend(asks(scene, probe));
            before
        };
        observations.push((probe, with(of_away, &mut away), with(of_blocked, &mut blocked)));
    }
    observations
}

/// Guesses in which world it is: by what each kind of answer came from more often.
fn advantage(observations: &[(usize, Vec<String>, Vec<String>)]) -> f64 {
    let mut seen: BTreeMap<(usize, &[String]), (usize, usize)> = BTreeMap::new();
    for (probe, of_away, of_blocked) in observations {
        seen.entry((*probe, of_away)).or_default().0 += 1;
        seen.entry((*probe, of_blocked)).or_default().1 += 1;
    }
    let right: usize = seen.values().map(|(away, blocked)| away.max(blocked)).sum();
    right as f64 / (2 * observations.len()) as f64 - 0.5
}

// RFC 2779 §5.1.15.
#[test]
fn whoever_is_politely_blocked_cannot_tell_it_from_absence_by_a_thousand_observations_at_all_exits() {
    let config = Config::with_cases(1);
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let steps = proptest::collection::vec((0..PROBES.len(), 0..LIFE.len(), 0_u64..600_000), OBSERVATIONS_A_RUN);
    let mut observations = Vec::new();
    let beginnings = [Beginning::Away, Beginning::Present, Beginning::Stranger];
    for n in 0.. {
        if observations.len() >= OBSERVATIONS {
            break;
        }
        let steps = steps.new_tree(&mut runner).expect("steps can be made").current();
        observations.extend(run(beginnings[n % 3], &steps));
    }
    for (probe, of_away, of_blocked) in &observations {
        assert_eq!(of_away, of_blocked, "{}", PROBES[*probe]);
    }
    assert!(observations.iter().filter(|(_, heard, _)| !heard.is_empty()).count() > OBSERVATIONS / 2);
    assert_eq!(advantage(&observations), 0.0);
}

#[test]
fn the_distinguisher_tells_a_plain_block_from_absence() {
    let steps: Vec<(usize, usize, u64)> = (0..PROBES.len()).map(|probe| (probe, 7, 1_000)).collect();
    let mut observations = Vec::new();
    let (mut away, mut blocked) =
        (away(Beginning::Away), account_with(JULIET, record(Beginning::Away)).connected("home"));
    blocked.sends("home", &rule("block"));
    for (probe, ..) in steps {
        observations.push((probe, asks(&mut away, probe), asks(&mut blocked, probe)));
    }
    assert!(advantage(&observations) > 0.1, "{}", advantage(&observations));
}

#[test]
fn what_she_writes_herself_reaches_him() {
    let mut juliet = politely_blocked(Beginning::Present);
    let fx = juliet.sends("home", &format!("<message type='chat' to='{ROMEO}'><body>Good night!</body></message>"));
    assert_eq!(fx.told_to(), [ROMEO]);
}

#[test]
fn his_messages_wait_for_her_and_are_delivered_when_she_comes_next() {
    let mut juliet = politely_blocked(Beginning::Present);
    let fx = juliet.receive(&format!("<message type='chat' from='{ROMEO}'><body>there?</body></message>"));
    assert!(fx.written_to().is_empty() && fx.appended()[0].pending, "{fx:?}");
    assert_eq!(juliet.inbox.waiting(), 1);
}
