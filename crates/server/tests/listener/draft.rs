//! What the architecture says of servers of two domains, draft-hudson-impp-arch-01 §3 to §5, each item through the real
//! listeners of whole servers. `docs/impp.md` names these tests row by row.

use crate::client::Client;
use crate::federation::{Two, chat, server, user, with_peer};
use crate::peer::{Peer, Verifies, Way, Wire, stays};
use crate::rules::{asks, bare, subscribe};
use crate::server::{eventually, free_address};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Draft §4: "CLIENT 1 → DOMAIN X's SERVER → DOMAIN Y's SERVER → CLIENT 2".
#[test]
fn draft_4_a_message_takes_the_four_hops_and_its_sender_is_stamped() {
    let two = Two::start("");
    let (mut juliet, mut romeo) = (two.juliet(), two.romeo());
    juliet.send(chat("romeo@y.example", "hi"));
    let heard = romeo.expect("</message>");
    assert!(heard.contains("from='juliet@x.example/here'") && heard.contains("<body>hi</body>"), "{heard}");
    assert_eq!(two.wire.connections(), 1, "by way of both servers");
    romeo.send(chat("juliet@x.example/here", "ho"));
    assert!(juliet.expect("</message>").contains("from='romeo@y.example/here'"));
}

/// An authority, and a certificate with its key of each domain, in a folder.
fn certificates(folder: &Path, domains: &[&str]) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    std::fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    for domain in domains {
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new([(*domain).to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        std::fs::write(folder.join(format!("{domain}.pem")), own.pem()).unwrap();
        let secret = folder.join(format!("{domain}.key"));
        std::fs::write(&secret, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    }
}

/// Messages, subscriptions with their notifications, fetches, from each of two to the other.
fn requests_go_and_come(juliet: &mut Client, romeo: &mut Client) {
    let goes = |one: &mut Client, other: &mut Client| {
        one.send(chat(&bare(other), "hi"));
        assert!(other.expect("</message>").contains(&format!("from='{}'", one.jid)));
        let fetched = asks(one, "get", &bare(other), "<fetch xmlns='urn:waft:fetch:0'/>");
        assert!(fetched.contains("<service-unavailable "), "not before she may: {fetched}");
        // Who has asked for the roster hears how it goes. RFC 6121 §3.1.6.
        asks(one, "get", "", "<query xmlns='jabber:iq:roster'/>");
        subscribe(one, other);
        let fetched = asks(one, "get", &bare(other), "<fetch xmlns='urn:waft:fetch:0'/>");
        assert!(fetched.contains("<basic>open</basic>"), "{fetched}");
        other.send("<presence><status>reading</status></presence>");
        one.expect("<status>reading</status>");
    };
    goes(juliet, romeo);
    goes(romeo, juliet);
}

/// Draft §4: a SERVER "will forward requests to and from the SERVERS of other DOMAINS", which prove themselves by a call
/// back (XEP-0220).
#[test]
fn draft_4_requests_of_each_kind_go_to_another_domain_and_come_from_it() {
    let two = Two::start("");
    let (mut juliet, mut romeo) = (two.juliet(), two.romeo());
    requests_go_and_come(&mut juliet, &mut romeo);
    assert_eq!(two.wire.connections(), 1);
}

/// Draft §4: … or by certificates alone, SASL EXTERNAL (RFC 6120 §6, §13.7).
#[test]
fn draft_4_requests_go_and_come_between_domains_that_prove_themselves_by_certificates() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path(), &["x.example", "y.example"]);
    let config = |domain: &str| {
        let file = |name: &str| folder.path().join(name).display().to_string();
        format!(
            "certificate = \"{}\"\nkey = \"{}\"\n[s2s]\nca = \"{}\"\nsystem_ca = false\ntrust = \"certificate\"\n",
            file(&format!("{domain}.pem")),
            file(&format!("{domain}.key")),
            file("ca.pem")
        )
    };
    let (here, there) = (free_address(), free_address());
    let x = server("x.example", here, &config("x.example"), &[("y.example", there)]);
    let y = server("y.example", there, &config("y.example"), &[("x.example", here)]);
    let (mut juliet, mut romeo) = (user(&x, "juliet", "x.example"), user(&y, "romeo", "y.example"));
    requests_go_and_come(&mut juliet, &mut romeo);
    let list = asks(&mut juliet, "get", "", "<query xmlns='urn:waft:watchers:0'/>");
    assert!(list.contains("auth='certificate'"), "{list}");
    // Who has none is nobody.
    let mut paris = Peer::start("y.example", Verifies::Valid).opens(here, "x.example");
    paris.send("<db:result from='y.example' to='x.example'>key</db:result>");
    assert!(paris.expect("</db:result>").contains("type='error'"));
}

/// Draft §4, the second flow: within one domain no other server is asked.
#[test]
fn draft_4_a_message_within_the_domain_leaves_its_server_alone() {
    let (x, peer, _) = with_peer(Verifies::Valid, "");
    let (mut juliet, mut nurse) = (user(&x, "juliet", "x.example"), user(&x, "nurse", "x.example"));
    juliet.send(chat("nurse@x.example", "hi"));
    nurse.expect("<body>hi</body>");
    juliet.send(chat("alice@localhost", "hi"));
    juliet.sync();
    stays("nobody is dialled", || peer.connections() == 0);
}

/// Draft §4, NOTE: a client has no contact with foreign servers or clients; they do not learn where it is.
#[test]
fn draft_4_note_a_client_s_address_is_told_to_nobody_elsewhere() {
    let (x, peer, _) = with_peer(Verifies::Valid, "");
    let mut juliet = user(&x, "juliet", "x.example");
    let address = juliet.tcp.local_addr().expect("it is connected").ip().to_string();
    juliet.send(chat("romeo@y.example", "hi"));
    juliet.send("<presence to='romeo@y.example/garden'/>");
    juliet.send("<iq type='get' id='1' to='romeo@y.example/garden'><query xmlns='jabber:iq:version'/></iq>");
    peer.hears("jabber:iq:version");
    assert!(!peer.heard().contains(&address), "{}", peer.heard());
}

/// Draft §4, advantage 1: foreign ENTITIES are never authenticated, their DOMAIN is; a SERVER speaks for its own alone.
#[test]
fn draft_4_advantage_1_a_server_speaks_for_its_own_domain_alone() {
    let (x, peer, address) = with_peer(Verifies::Valid, "");
    let mut juliet = user(&x, "juliet", "x.example");
    let mut stream = peer.proves(address, "x.example");
    stream.send("<message type='chat' from='romeo@y.example' to='juliet@x.example'><body>mine</body></message>");
    juliet.expect("<body>mine</body>");
    stream.send("<message type='chat' from='paris@z.example' to='juliet@x.example'><body>forged</body></message>");
    stream.expect_error("invalid-from");
    assert!(!juliet.sync().contains("forged"));
}

/// Draft §4, advantage 2: one security context for each pair of DOMAINS, whoever of theirs speaks. More users:
/// `WAFT_TEST_USERS=1000`, with files enough (`ulimit -n 8192`).
#[test]
fn draft_4_advantage_2_all_users_of_two_domains_share_one_connection() {
    let two = Two::start("");
    let count = std::env::var("WAFT_TEST_USERS").ok().and_then(|count| count.parse().ok()).unwrap_or(24);
    let mut here: Vec<_> = (0..count).map(|n| user(&two.x, &format!("a{n}"), "x.example")).collect();
    let mut there: Vec<_> = (0..count).map(|n| user(&two.y, &format!("b{n}"), "y.example")).collect();
    for (n, client) in here.iter_mut().enumerate() {
        client.send(chat(&format!("b{n}@y.example"), &format!("to {n}")));
    }
    for (n, client) in there.iter_mut().enumerate() {
        client.expect(&format!("<body>to {n}</body>"));
        client.send(chat(&format!("a{n}@x.example"), &format!("back {n}")));
    }
    for (n, client) in here.iter_mut().enumerate() {
        client.expect(&format!("<body>back {n}</body>"));
    }
    assert_eq!(two.wire.connections(), 1);
    let back = two.x.status()["counters"]["s2s_connections"].as_u64();
    assert!(back.unwrap_or(0) <= 1, "only to verify the key: {back:?}");
}

/// Draft §4, advantage 2: further DOMAINS of a server join the stream that is there.
#[test]
fn draft_4_advantage_2_another_domain_of_the_server_joins_the_stream() {
    let (x, y) = (free_address(), free_address());
    let wire = Wire::to(y);
    let x_server = server("x.example", x, "[host.\"w.example\"]\n", &[("y.example", wire.address)]);
    let y_server = server("y.example", y, "", &[("x.example", x), ("w.example", x)]);
    let mut romeo = user(&y_server, "romeo", "y.example");
    for domain in ["x.example", "w.example"] {
        let mut sender = user(&x_server, "juliet", domain);
        sender.send(chat("romeo@y.example", domain));
        romeo.expect(&format!("<body>{domain}</body>"));
        romeo.send(chat(&format!("juliet@{domain}"), "back"));
        sender.expect("<body>back</body>");
    }
    assert_eq!(wire.connections(), 1);
}

/// Draft §3, DOMAIN: one server has many, and each is found by its own name.
#[test]
fn draft_3_domain_a_name_in_unicode_is_a_domain_like_others() {
    let (x, y) = (free_address(), free_address());
    let x_server = server("x.example", x, "", &[("bücher.example", y)]);
    let y_server = server("bücher.example", y, "", &[("x.example", x)]);
    let (mut juliet, mut romeo) = (user(&x_server, "juliet", "x.example"), user(&y_server, "romeo", "bücher.example"));
    juliet.send(chat("romeo@BÜCHER.example", "hi"));
    assert!(romeo.expect("</message>").contains("to='romeo@bücher.example"));
    romeo.send(chat("juliet@x.example", "ho"));
    assert!(juliet.expect("</message>").contains("from='romeo@bücher.example/here'"));
}

/// Draft §4, advantage 3: whoever speaks for a DOMAIN as a server does is one, whatever is behind it.
#[test]
fn draft_4_advantage_3_a_gateway_is_a_server_like_others() {
    let (x, gateway, address) = with_peer(Verifies::Valid, "");
    let mut juliet = user(&x, "juliet", "x.example");
    let mut stream = gateway.proves(address, "x.example");
    stream.send("<presence from='romeo@y.example' to='juliet@x.example' type='subscribe'/>");
    juliet.expect("type='subscribe'");
    juliet.send("<presence to='romeo@y.example' type='subscribed'/>");
    gateway.hears("type='subscribed'");
    gateway.hears("from='juliet@x.example/here'");
    stream.send("<iq from='romeo@y.example/sip' to='x.example' type='get' id='d'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>");
    gateway.hears("category='server'");
}

/// Positions at which a wire is cut; further ones: `WAFT_TEST_CUTS=2000` cuts at each byte up to there.
fn positions(usual: &[usize]) -> Vec<usize> {
    let last = std::env::var("WAFT_TEST_CUTS").ok().and_then(|last| last.parse().ok());
    last.map_or_else(|| usual.to_vec(), |last: usize| (1..=last).collect())
}

/// Three messages at each position: one copy of each comes, and no error besides. `anew`: the connection is gone when
/// they are sent, so that it is cut as it is made again.
fn once_wherever_it_is_cut(way: Way, anew: bool, usual: &[usize]) {
    let two = Two::start("");
    let (mut juliet, mut romeo) = (two.juliet(), two.romeo());
    juliet.send(chat("romeo@y.example", "first"));
    romeo.expect("<body>first</body>");
    let positions = positions(usual);
    for &bytes in &positions {
        if anew {
            two.wire.cut(false);
        }
        two.wire.break_after(way, bytes);
        for part in 0..3 {
            juliet.send(chat("romeo@y.example", &format!("m{bytes}.{part}")));
        }
        let mut heard = String::new();
        for part in 0..3 {
            heard += &romeo.expect(&format!("<body>m{bytes}.{part}</body>"));
        }
        heard += &romeo.sync();
        for part in 0..3 {
            let copies = heard.matches(&format!("<body>m{bytes}.{part}</body>")).count();
            assert_eq!(copies, 1, "cut after {bytes} bytes {way:?}: {heard}");
        }
    }
    let made = if anew { 2 * positions.len() } else { positions.len() / 2 };
    assert!(two.wire.connections() > made, "it was cut: {} of {made}", two.wire.connections());
    // Nor later: what was resent stands before this.
    juliet.send(chat("romeo@y.example", "last"));
    assert!(!romeo.expect("<body>last</body>").contains("<body>m"));
    // The copy is the one outcome: no error besides.
    juliet.sync();
    assert!(!juliet.transcript().contains("type='error'"), "{}", juliet.transcript());
    if anew {
        return;
    }
    let resumed = two.y.status()["counters"]["s2s_resumed"].as_u64();
    assert!(resumed > Some(0), "streams go on where they were cut: {resumed:?}");
}

/// Draft §5.4: an INSTANT MESSAGE for another DOMAIN's INBOX, with the connection cut anywhere in it: one copy, no error.
#[test]
fn draft_5_4_a_message_arrives_once_wherever_the_connection_is_cut() {
    once_wherever_it_is_cut(Way::There, false, &[1, 30, 90, 150, 210, 290, 400, 700, 1_500]);
}

/// Draft §5.4: … anywhere in what says that it came.
#[test]
fn draft_5_4_a_message_arrives_once_wherever_its_acknowledgement_is_cut() {
    once_wherever_it_is_cut(Way::Back, false, &[1, 5, 15, 25, 40, 60, 80, 160]);
}

/// Draft §5.4: … anywhere as the two servers find each other again.
#[test]
fn draft_5_4_a_message_arrives_once_wherever_a_new_connection_is_cut() {
    once_wherever_it_is_cut(Way::There, true, &[1, 400, 1_600]);
    once_wherever_it_is_cut(Way::Back, true, &[200, 1_400]);
}

/// Draft §5.2: what publishes, or reads an account's own data, stays inside.
#[test]
fn draft_5_2_own_data_is_out_of_reach_from_outside() {
    let (x, peer, address) = with_peer(Verifies::Valid, "");
    let mut juliet = user(&x, "juliet", "x.example");
    let mut stream = peer.proves(address, "x.example");
    let asks = [
        "type='get' id='{}'><query xmlns='jabber:iq:roster'/>",
        "type='set' id='{}'><query xmlns='jabber:iq:roster'><item jid='paris@y.example'/></query>",
        "type='get' id='{}'><query xmlns='jabber:iq:private'><a xmlns='b'/></query>",
        "type='set' id='{}'><query xmlns='jabber:iq:private'><a xmlns='b'>c</a></query>",
        "type='set' id='{}'><vCard xmlns='vcard-temp'><FN>Paris</FN></vCard>",
        "type='set' id='{}'><query xmlns='urn:xmpp:mam:2'/>",
        "type='get' id='{}'><blocklist xmlns='urn:xmpp:blocking'/>",
        "type='set' id='{}'><block xmlns='urn:xmpp:blocking'><item jid='nurse@x.example'/></block>",
        "type='set' id='{}'><enable xmlns='urn:xmpp:push:0' jid='y.example' node='n'/>",
        "type='set' id='{}'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='n'><item/></publish></pubsub>",
        "type='set' id='{}'><query xmlns='jabber:iq:register'><password>p</password></query>",
        "type='set' id='{}'><enable xmlns='urn:xmpp:carbons:2'/>",
    ];
    for (n, ask) in asks.iter().enumerate() {
        for to in ["juliet@x.example", "x.example"] {
            let ask = ask.replace("{}", &format!("ask{n}"));
            stream.send(format!("<iq from='romeo@y.example/garden' to='{to}' {ask}</iq>"));
        }
        let both = || peer.heard().matches(&format!("id='ask{n}' type='error'")).count() == 2;
        eventually(&format!("{ask} is refused twice: {}", peer.heard()), both);
    }
    juliet.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    assert!(!juliet.expect("id='r'").contains("paris") && !juliet.sync().contains("paris@"));
}
