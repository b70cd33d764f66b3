//! Streams on a virtual clock, a client's and those between servers: how long what takes, and what stays when both
//! begin at once.

use server::s2s::dane::Tlsa;
use sim::network::Crash;
use sim::node::{self, Node};
use sim::pair::{Client, Pair, jid, presence, text};
use sim::scene;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use store::Store;
use tokio::time::{Instant, sleep};

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

async fn two() -> (Pair, Client, Client) {
    let mut pair = Pair::start(1, |_, _, _| {}).await;
    let juliet = pair.client(0).await;
    let romeo = pair.client(1).await;
    let (mut juliet, mut romeo) = (juliet, romeo);
    juliet.hears(presence(1, None)).await;
    romeo.hears(presence(0, None)).await;
    (pair, juliet, romeo)
}

/// Streams to the other server as the operator sees them: direction and since when.
fn streams(pair: &Pair, n: usize) -> Vec<(String, Option<String>)> {
    let links = pair.federation(n).shown();
    links.into_iter().filter(|it| it.direction != "none").map(|it| (it.direction, it.since)).collect()
}

// XEP-0198 §4. The first is on its way to the disk when the others come: it is done before them, and alone.
#[tokio::test(start_paused = true)]
async fn an_ack_request_behind_many_stanzas_is_answered_when_the_last_is_done() {
    let nurse = format!("u1@{}", node::domain(0));
    let mut pair = Pair::start(1, |_, nodes, _| scene::prepare(&mut nodes[0], &[(0, nurse.clone())])).await;
    let mut juliet = pair.client(0).await;
    juliet.send("<enable xmlns='urn:xmpp:sm:3'/>").await;
    juliet.hears(|it| &*it.name == "enabled").await;
    let message = format!("<message type='chat' to='{nurse}'><body>call me</body></message>");
    for round in 1..=10 {
        juliet.send(&message).await;
        sleep(Duration::from_millis(1)).await;
        juliet.send(&(message.repeat(29) + "<r xmlns='urn:xmpp:sm:3'/>")).await;
        let h = (round * 30).to_string();
        let (_, took) = juliet.hears(|it| &*it.name == "a" && it.attribute("h") == Some(&h)).await;
        assert!(took <= Duration::from_millis(200), "round {round}: {took:?}");
    }
}

// LIMITS.md §1: whoever spends the burst waits, and costs nothing meanwhile or afterwards. (A stream that looked at its
// rate again and again would keep the clock from going on.)
#[tokio::test(start_paused = true)]
async fn a_client_that_spent_its_burst_and_falls_silent_is_left_in_peace() {
    let (_pair, mut juliet, mut romeo) = two().await;
    juliet
        .send(&format!("<message to='{}' type='headline'><body>spam</body></message>", node::domain(0)).repeat(700))
        .await;
    sleep(seconds(60)).await;
    juliet.writes(&jid(1), "sorry").await;
    let (_, took) = romeo.hears(text("sorry")).await;
    assert!(took <= seconds(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_link_stays_while_somebody_is_seen_over_it() {
    let (pair, mut juliet, _romeo) = two().await;
    sleep(seconds(30)).await;
    let before = streams(&pair, 0);
    assert!(!before.is_empty());
    sleep(seconds(900)).await;
    assert_eq!(streams(&pair, 0), before);
    let heard = juliet.rest(seconds(1)).await;
    assert!(!heard.iter().any(presence(1, Some("unavailable"))), "{heard:?}");
}

// MISSION.md 3.2.3: the default for a connection that was reset.
#[tokio::test(start_paused = true)]
async fn a_reset_connection_ends_presence_within_5_seconds() {
    let (mut pair, mut juliet, _romeo) = two().await;
    sleep(seconds(30)).await;
    juliet.rest(seconds(1)).await;
    pair.nodes[1].crash(Crash::Process);
    let (_, took) = juliet.hears(presence(1, Some("unavailable"))).await;
    assert!(took >= seconds(4) && took <= Duration::from_millis(5_200), "{took:?}");
}

// The same for a link that falls silent: 90 seconds.
#[tokio::test(start_paused = true)]
async fn a_silent_link_ends_presence_within_90_seconds() {
    for quiet in [0, 20, 40, 100] {
        let (pair, mut juliet, _romeo) = two().await;
        sleep(seconds(30 + quiet)).await;
        juliet.rest(seconds(1)).await;
        pair.wall();
        let (_, took) = juliet.hears(presence(1, Some("unavailable"))).await;
        assert!(took > seconds(10) && took <= seconds(90), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn presence_is_true_within_10_seconds_of_the_reconnect() {
    for length in [20, 100, 200] {
        let (pair, mut juliet, mut romeo) = two().await;
        sleep(seconds(30)).await;
        pair.wall();
        sleep(seconds(5)).await;
        romeo.send("<presence><status>changed</status></presence>").await;
        sleep(seconds(length)).await;
        juliet.rest(seconds(0)).await;
        pair.open();
        let changed = |it: &xmpp::Element| {
            presence(1, None)(it) && it.find("status", "jabber:client").is_some_and(|it| it.text_content() == "changed")
        };
        // Of the moment at which a stream is there again.
        let until = Instant::now() + seconds(400);
        let up = async {
            while streams(&pair, 0).is_empty() && Instant::now() < until {
                sleep(Duration::from_millis(50)).await;
            }
            Instant::now()
        };
        let heard = async {
            juliet.hears(changed).await;
            Instant::now()
        };
        let (up, heard) = tokio::join!(up, heard);
        assert!(heard <= up + seconds(10), "{:?} later, after {length} s without a link", heard - up);
    }
}

#[tokio::test(start_paused = true)]
async fn when_both_dial_at_once_nothing_is_lost_or_doubled_and_one_link_stays() {
    let mut pair = Pair::start(2, |_, _, _| {}).await;
    let (mut juliet, mut romeo) = (pair.client(0).await, pair.client(1).await);
    let (j, r) = (jid(0), jid(1));
    for n in 0..40 {
        let (there, back) = (format!("there {n}"), format!("back {n}"));
        tokio::join!(juliet.writes(&r, &there), romeo.writes(&j, &back));
    }
    for n in 0..40 {
        romeo.hears(text(&format!("there {n}"))).await;
        juliet.hears(text(&format!("back {n}"))).await;
    }
    sleep(seconds(120)).await;
    for client in [&mut juliet, &mut romeo] {
        let again = client.rest(seconds(1)).await;
        assert!(!again.iter().any(|it| *it.name == *"message"), "{again:?}");
    }
    let opened = streams(&pair, 0);
    assert!(matches!(&opened[..], [(direction, _)] if direction == "both"), "{opened:?}");
    assert!(matches!(&streams(&pair, 1)[..], [(direction, _)] if direction == "both"), "{:?}", streams(&pair, 1));
    // It serves both ways, and nobody dials again.
    juliet.writes(&jid(1), "later").await;
    romeo.hears(text("later")).await;
    romeo.writes(&jid(0), "later").await;
    juliet.hears(text("later")).await;
    assert_eq!(streams(&pair, 0), opened);
    // When it breaks, they begin anew.
    pair.net.cut(node::address(0), node::address(1));
    tokio::join!(juliet.writes(&r, "anew"), romeo.writes(&j, "anew"));
    romeo.hears(text("anew")).await;
    juliet.hears(text("anew")).await;
}

// DESIGN.md D8: DNS on its own.
#[tokio::test(start_paused = true)]
async fn a_domain_whose_dns_never_answers_holds_nobody_else_up() {
    let mut pair = Pair::start(3, |names, nodes, _| {
        names.hangs.push("silent.example.".into());
        scene::prepare(&mut nodes[0], &[(0, format!("u1@{}", node::domain(0)))]);
    })
    .await;
    let mut mallory = pair.client_of(0, "u1").await;
    for n in 0..30 {
        mallory.writes(&format!("a@d{n}.silent.example"), "?").await;
    }
    sleep(seconds(2)).await;
    let mut juliet = pair.client(0).await;
    juliet.writes(&jid(1), "first contact").await;
    let began = Instant::now();
    while streams(&pair, 1).is_empty() {
        sleep(Duration::from_millis(50)).await;
        assert!(began.elapsed() < seconds(3), "the other server hears nothing");
    }
    let mut romeo = pair.client(1).await;
    romeo.hears(text("first contact")).await;
}

// RFC 8305.
#[tokio::test(start_paused = true)]
async fn an_address_that_says_nothing_does_not_hold_up_the_next() {
    let nobody = IpAddr::V4(Ipv4Addr::new(9, 9, 9, 200));
    let mut pair = Pair::start(4, |names, _, net| {
        names.addresses.insert(format!("xmpp.{}.", node::domain(1)), vec![nobody, node::address(1)]);
        net.wall(node::address(0), nobody);
    })
    .await;
    let (mut juliet, mut romeo) = (pair.client(0).await, pair.client(1).await);
    juliet.writes(&jid(1), "hi").await;
    let (_, took) = romeo.hears(text("hi")).await;
    assert!(took < seconds(3), "{took:?}");
}

// LIMITS.md §1: 2^n seconds, here up to 8.
#[tokio::test(start_paused = true)]
async fn attempts_follow_each_other_at_growing_intervals() {
    let mut pair = Pair::start(5, |_, _, _| {}).await;
    let mut juliet = pair.client(0).await;
    pair.nodes[1].crash(Crash::Process);
    let failures = |pair: &Pair| pair.nodes[0].running.as_ref().expect("it runs").house.counted("s2s_failures");
    let mut at = Vec::new();
    juliet.writes(&jid(1), "?").await;
    let began = Instant::now();
    while began.elapsed() < seconds(18) {
        if failures(&pair) > at.len() as u64 {
            at.push(began.elapsed().as_millis());
        }
        sleep(Duration::from_millis(10)).await;
    }
    let pauses: Vec<u128> = at.windows(2).map(|two| two[1] - two[0]).collect();
    assert_eq!(pauses.len(), 3, "{at:?}");
    for (pause, expected) in pauses.iter().zip([2_000, 4_000, 8_000]) {
        assert!((expected..expected * 6 / 5 + 100).contains(pause), "{pauses:?}");
    }
}

// Nothing comes back untried: a quarter of the 20 seconds that a message waits here.
#[tokio::test(start_paused = true)]
async fn whoever_writes_between_two_late_attempts_makes_one_sooner() {
    let mut pair = Pair::start(8, |_, _, _| {}).await;
    let mut juliet = pair.client(0).await;
    pair.nodes[1].crash(Crash::Process);
    let failures = |pair: &Pair| pair.nodes[0].running.as_ref().expect("it runs").house.counted("s2s_failures");
    juliet.writes(&jid(1), "?").await;
    let next = async |pair: &Pair| {
        let (before, began) = (failures(pair), Instant::now());
        while failures(pair) == before {
            sleep(Duration::from_millis(10)).await;
            assert!(began.elapsed() < seconds(20), "nobody tries");
        }
        began.elapsed()
    };
    for _ in 0..3 {
        next(&pair).await;
    }
    // The pause is eight seconds now.
    sleep(seconds(1)).await;
    juliet.writes(&jid(1), "!").await;
    let took = next(&pair).await;
    assert!(took >= seconds(3) && took < Duration::from_millis(4_500), "{took:?}");
}

// What is acknowledged late stays in the outbox, and goes again when the server is killed.
#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_is_asked_for_behind_many_stanzas_comes_with_the_last_of_them() {
    let (pair, mut juliet, mut romeo) = two().await;
    sleep(seconds(30)).await;
    for n in 0..60 {
        juliet.writes(&jid(1), &format!("there {n}")).await;
    }
    let (_, took) = romeo.hears(text("there 59")).await;
    assert!(took < seconds(2), "{took:?}");
    let began = Instant::now();
    loop {
        let rows = pair.nodes[0].disk.outbox(i64::MIN, 100).await.expect("it can be read");
        if rows.is_empty() {
            break;
        }
        assert!(began.elapsed() < Duration::from_millis(500), "{} are not acknowledged", rows.len());
        sleep(Duration::from_millis(5)).await;
    }
}

/// Only a certificate proves a domain here, and no authority has signed any: signed records must.
fn only_dane(names: &mut sim::node::Names, nodes: &mut [Node], right: [bool; 2]) {
    names.signed = true;
    for (n, node) in nodes.iter_mut().enumerate() {
        node.more = "trust = \"certificate\"\n".into();
        let (_, certificates) = node::setting(n, &node.more);
        let own = certificates.own(&node::domain(n)).expect("it has one");
        let mut data = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &own.cert[0]).as_ref().to_vec();
        if !right[n] {
            data[0] ^= 1;
        }
        let record = Tlsa { usage: 3, selector: 0, matching: 1, data };
        names.tlsa.lock().insert(format!("_5269._tcp.xmpp.{}.", node::domain(n)), vec![record]);
    }
}

// RFC 7712 §5.1, in both directions: who is dialled shows its certificate, and so does who dials.
#[tokio::test(start_paused = true)]
async fn signed_records_prove_both_servers_where_only_certificates_count() {
    let mut pair = Pair::start(6, |names, nodes, _| only_dane(names, nodes, [true, true])).await;
    let (mut juliet, mut romeo) = (pair.client(0).await, pair.client(1).await);
    juliet.writes(&jid(1), "hi").await;
    romeo.hears(text("hi")).await;
    romeo.writes(&jid(0), "ho").await;
    juliet.hears(text("ho")).await;
    for n in 0..2 {
        let trust: Vec<String> = pair.federation(n).shown().into_iter().map(|it| it.trust).collect();
        assert!(!trust.is_empty() && trust.iter().all(|it| it == "dane"), "{trust:?}");
    }
    let check = server::s2s::check::check(&pair.federation(0), &node::domain(0), &node::domain(1), false).await;
    let detail = |name: &str| check.steps.iter().find(|it| it.step == name).map(|it| it.detail.clone());
    assert!(check.ok, "{check:?}");
    assert!(detail("dane").is_some_and(|it| it.contains("1 TLSA records")), "{check:?}");
    assert!(detail("certificate").is_some_and(|it| it.contains("TLSA")), "{check:?}");
}

// RFC 7673 §3.4.
#[tokio::test(start_paused = true)]
async fn a_server_whose_signed_records_name_another_certificate_is_not_spoken_with() {
    let mut pair = Pair::start(7, |names, nodes, _| {
        only_dane(names, nodes, [true, false]);
        // Whatever else would be believed.
        nodes[0].more = "trust = \"dialback\"\n".into();
    })
    .await;
    let (mut juliet, mut romeo) = (pair.client(0).await, pair.client(1).await);
    juliet.writes(&jid(1), "secret").await;
    let refused = |it: &xmpp::Element| it.attribute("type") == Some("error") && it.attribute("id") == Some("secret");
    let (error, _) = juliet.hears(refused).await;
    let said = String::from_utf8_lossy(&error.to_bytes("jabber:client")).into_owned();
    assert!(said.contains("remote-server-not-found") && said.contains("TLSA"), "{said}");
    let heard = romeo.rest(seconds(30)).await;
    assert!(!heard.iter().any(|it| *it.name == *"message"), "{heard:?}");
}
