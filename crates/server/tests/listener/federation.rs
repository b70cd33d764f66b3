//! Servers of two domains, each through its real listeners: that nothing is lost, and who is believed what.
//! [`crate::peer`] stands for a server that does what it likes.

use crate::bounds_counted::{counts, hit};
use crate::client::{Client, attribute, between};
use crate::peer::{Peer, Verifies, Wire, stays};
use crate::server::{PATIENCE, Server, eventually, free_address};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// A server of `domain`, with a listener for others' servers, that knows where they are.
pub fn server(domain: &str, address: SocketAddr, config: &str, pins: &[(&str, SocketAddr)]) -> Server {
    let pins: String =
        pins.iter().map(|(domain, address)| format!("[s2s.domain.\"{domain}\"]\naddress = \"{address}\"\n")).collect();
    let s2s = if config.contains("[s2s]") { "" } else { "[s2s]\n" };
    Server::start(&format!(
        "[host.\"{domain}\"]\n{s2s}{config}\n{pins}[limits]\nrates = false\n[[listen]]\nkind = \"s2s\"\naddress = \"{address}\"\n"
    ))
}

/// An available session of an account of that domain.
pub fn user(server: &Server, name: &str, domain: &str) -> Client {
    let (mut client, _) = Client::authenticated(server, name, domain);
    client.bind("here");
    client.send("<presence/>");
    client.sync();
    client
}

pub fn chat(to: &str, text: &str) -> String {
    format!("<message type='chat' to='{to}' id='{text}'><body>{text}</body></message>")
}

/// x.example with juliet, y.example with romeo, and the wire from x to y.
pub struct Two {
    pub x: Server,
    pub y: Server,
    pub wire: Wire,
}

impl Two {
    pub fn start(config: &str) -> Two {
        let (x, y) = (free_address(), free_address());
        let wire = Wire::to(y);
        Two {
            x: server("x.example", x, config, &[("y.example", wire.address)]),
            y: server("y.example", y, config, &[("x.example", x)]),
            wire,
        }
    }

    pub fn juliet(&self) -> Client {
        user(&self.x, "juliet", "x.example")
    }

    pub fn romeo(&self) -> Client {
        user(&self.y, "romeo", "y.example")
    }
}

/// A server of x.example and somebody who says that they are y.example.
pub fn with_peer(verifies: Verifies, config: &str) -> (Server, Peer, SocketAddr) {
    let peer = Peer::start("y.example", verifies);
    let address = free_address();
    (server("x.example", address, config, &[("y.example", peer.address)]), peer, address)
}

// ---- nothing acknowledged is lost ----

/// LIMITS.md §1, durable outbox: what was acknowledged survives `kill -9` of the sender's server.
#[test]
fn an_acknowledged_message_waits_for_the_other_server_over_a_kill() {
    let mut two = Two::start("");
    two.wire.cut(true);
    let mut juliet = two.juliet();
    juliet.manage();
    for n in 0..5 {
        juliet.send(chat("romeo@y.example", &format!("kept {n}")));
    }
    juliet.send("<r xmlns='urn:xmpp:sm:3'/>");
    juliet.expect("h='5'");
    two.x.signal("KILL");
    two.x.ended();
    two.x.restart();
    let mut romeo = two.romeo();
    two.wire.cut(false);
    for n in 0..5 {
        romeo.expect(&format!("<body>kept {n}</body>"));
    }
    assert!(!romeo.sync().contains("kept"), "once");
    // Rows that are done are gone: nothing comes again.
    two.x.signal("KILL");
    two.x.ended();
    two.x.restart();
    let mut juliet = two.juliet();
    juliet.send(chat("romeo@y.example", "last"));
    assert!(!romeo.expect("<body>last</body>").contains("kept"));
}

/// LIMITS.md §1: the other server may be killed, too.
#[test]
fn a_message_survives_a_kill_of_the_other_server() {
    let mut two = Two::start("");
    let mut juliet = two.juliet();
    two.y.ensure("romeo@y.example");
    juliet.send(chat("romeo@y.example", "before"));
    juliet.sync();
    two.y.signal("KILL");
    two.y.ended();
    juliet.send(chat("romeo@y.example", "meanwhile"));
    two.y.restart();
    let mut romeo = two.romeo();
    let heard = romeo.expect("<body>meanwhile</body>");
    assert_eq!(heard.matches("<body>before</body>").count(), 1, "{heard}");
    assert!(!romeo.sync().contains("<body>"));
}

#[test]
fn a_domain_that_does_not_answer_is_told_with_the_step_that_failed_once_also_over_a_restart() {
    let nobody = free_address();
    let mut x = server("x.example", free_address(), "[s2s]\npatience_seconds = 4\n", &[("y.example", nobody)]);
    let mut juliet = user(&x, "juliet", "x.example");
    juliet.manage();
    juliet.send(chat("romeo@y.example", "hi"));
    juliet.send("<r xmlns='urn:xmpp:sm:3'/>");
    juliet.expect("h='1'");
    x.signal("KILL");
    x.ended();
    x.restart();
    let mut juliet = user(&x, "juliet", "x.example");
    // To the bare JID that wrote it, as the resource is the same.
    let heard = juliet.expect("</message>");
    assert!(heard.contains("type='error'") && heard.contains("<remote-server-timeout"), "{heard}");
    assert!(heard.contains("Connection refused") && heard.contains("id='hi'"), "{heard}");
    assert!(!juliet.sync().contains("<message"));
}

/// RFC 6121 §8.5.2.2.1: nobody hears an error who is away. Who asked what became of it finds that in the inbox.
#[test]
fn who_is_away_when_a_message_comes_back_finds_its_outcome_if_that_was_asked_for() {
    let nobody = free_address();
    let x = server("x.example", free_address(), "[s2s]\npatience_seconds = 3\n", &[("y.example", nobody)]);
    let mut juliet = user(&x, "juliet", "x.example");
    juliet.manage();
    let asks = |id: &str, more: &str| {
        format!("<message type='chat' to='romeo@y.example' id='{id}'><body>hi</body>{more}</message>")
    };
    juliet.send(asks("asked", "<request xmlns='urn:waft:outcome:0'/>") + &asks("silent", ""));
    juliet.send("<r xmlns='urn:xmpp:sm:3'/>");
    juliet.expect("h='2'");
    juliet.send("</stream:stream>");
    juliet.expect_end();
    eventually("both come back", || x.status()["counters"]["s2s_bounced"].as_u64() == Some(2));
    let mut juliet = user(&x, "juliet", "x.example");
    let heard = juliet.expect("</message>") + &juliet.sync();
    assert!(heard.contains("id='asked' state='expired'") && heard.contains("from='romeo@y.example'"), "{heard}");
    assert_eq!(heard.matches("<message").count(), 1, "{heard}");
}

/// XEP-0023, XEP-0079 §3.4: what waits for another domain is dropped when its time is over, also over a restart.
#[test]
fn what_is_over_before_the_other_server_is_there_is_dropped_and_its_sender_told_as_it_asked() {
    let mut two = Two::start("");
    two.wire.cut(true);
    let mut juliet = two.juliet();
    juliet.manage();
    let soon = SystemTime::now() + Duration::from_secs(2);
    let soon = soon.duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970");
    let soon = xmpp::Stamp(i64::try_from(soon.as_micros()).expect("and not by so much")).to_xmpp();
    let says = |text: &str, more: &str| {
        format!("<message type='chat' to='romeo@y.example' id='{text}'><body>{text}</body>{more}</message>")
    };
    let rule = format!("<rule condition='expire-at' action='alert' value='{soon}'/>");
    juliet.send(says("asked", "<x xmlns='jabber:x:expire' seconds='2'/><request xmlns='urn:waft:outcome:0'/>"));
    juliet.send(says("alerted", &format!("<amp xmlns='http://jabber.org/protocol/amp'>{rule}</amp>")));
    juliet.send(says("kept", ""));
    juliet.send("<r xmlns='urn:xmpp:sm:3'/>");
    juliet.expect("h='3'");
    two.x.signal("KILL");
    two.x.ended();
    two.x.restart();
    let mut juliet = two.juliet();
    let heard = juliet.expect("</message>") + &juliet.expect("</message>");
    assert!(heard.contains("id='asked' state='expired'"), "{heard}");
    assert!(heard.contains("status='alert'") && heard.contains("id='alerted'"), "{heard}");
    two.wire.cut(false);
    let mut romeo = two.romeo();
    let heard = romeo.expect("<body>kept</body>") + &romeo.sync();
    assert_eq!(heard.matches("<body>").count(), 1, "{heard}");
    assert!(!juliet.sync().contains("type='error'"));
}

#[test]
fn a_domain_that_does_not_exist_is_told_within_its_own_time() {
    let x = server("x.example", free_address(), "[s2s]\nabsent_seconds = 1\n", &[]);
    let mut juliet = user(&x, "juliet", "x.example");
    // RFC 6761 §6.4: it never does. Without any name server there is no answer at all.
    juliet.send(chat("romeo@nowhere.localhost", "hi"));
    let heard = juliet.expect("</message>");
    assert!(heard.contains("type='error'") && heard.contains("<remote-server-not-found"), "{heard}");
}

/// LIMITS.md §1, durable outbox per domain.
#[test]
fn a_full_outbox_refuses_and_the_rest_is_kept() {
    let config = "[s2s]\n";
    let peer = free_address();
    let pins = format!("[s2s.domain.\"y.example\"]\naddress = \"{peer}\"\n");
    let x = Server::start(&format!(
        "[host.\"x.example\"]\n{config}{pins}[limits]\nrates = false\ns2s_queue_stanzas_max = 16\n[[listen]]\nkind = \"s2s\"\naddress = \"{}\"\n",
        free_address()
    ));
    let mut juliet = user(&x, "juliet", "x.example");
    counts(&x, "s2s_queue_stanzas_max", || {
        for n in 0..17 {
            juliet.send(chat("romeo@y.example", &format!("m{n}")));
        }
        let heard = juliet.expect("</message>");
        assert!(heard.contains("<resource-constraint") && heard.contains("id='m16'"), "{heard}");
    });
}

#[test]
fn an_outbox_full_of_bytes_refuses_too() {
    let peer = free_address();
    let x = Server::start(&format!(
        "[host.\"x.example\"]\n[s2s]\n[s2s.domain.\"y.example\"]\naddress = \"{peer}\"\n[limits]\nrates = false\ns2s_queue_bytes_max = 65536\n[[listen]]\nkind = \"s2s\"\naddress = \"{}\"\n",
        free_address()
    ));
    let mut juliet = user(&x, "juliet", "x.example");
    let body = "m".repeat(20_000);
    counts(&x, "s2s_queue_stanzas_max", || {
        for n in 0..4 {
            let to = "romeo@y.example";
            juliet.send(format!("<message type='chat' to='{to}' id='m{n}'><body>{body}</body></message>"));
        }
        let heard = juliet.expect("</message>");
        assert!(heard.contains("<resource-constraint") && heard.contains("id='m3'"), "{heard:.300}");
    });
}

/// What a server has taken and not yet acknowledged is sent again when this one is killed: 64 messages at most, to one
/// that does not know copies.
#[test]
fn what_is_in_the_air_to_a_server_that_does_not_know_copies_is_bounded() {
    let (x, peer, address) = with_peer(Verifies::Valid, "");
    let mut juliet = user(&x, "juliet", "x.example");
    for n in 0..80 {
        juliet.send(chat("romeo@y.example", &format!("m{n:02}")));
    }
    juliet.sync();
    peer.hears("<body>m63</body>");
    stays("no more goes before a word of it", || !peer.heard().contains("<body>m64</body>"));
    let heard = peer.heard();
    let ping = heard.split("<iq ").find(|it| it.contains("id='had-")).expect("it is asked what it has").to_owned();
    let mut stream = peer.proves(address, "x.example");
    let id = crate::client::attribute(&ping, "id");
    stream.send(format!("<iq type='result' from='y.example' to='x.example' id='{id}'/>"));
    peer.hears("<body>m64</body>");
}

/// Without an archive and without stream management a message goes out before it is written. When no word of it comes, it
/// is in the outbox all the same.
#[test]
fn a_message_that_went_ahead_of_its_row_goes_again_after_a_kill() {
    let peer = Peer::start("y.example", Verifies::Valid);
    let mut x = Server::start(&format!(
        "[host.\"x.example\"]\narchive = false\n[s2s]\n[s2s.domain.\"y.example\"]\naddress = \"{}\"\n[limits]\nrates = false\n[[listen]]\nkind = \"s2s\"\naddress = \"{}\"\n",
        peer.address,
        free_address()
    ));
    let mut juliet = user(&x, "juliet", "x.example");
    for text in ["first", "second"] {
        juliet.send(chat("romeo@y.example", text));
        peer.hears(&format!("<body>{text}</body>"));
    }
    let came = || peer.heard().matches("<body>second</body>").count();
    stays("nothing goes twice while the stream is there", || came() == 1);
    x.signal("KILL");
    x.ended();
    x.restart();
    eventually("it comes again", || came() == 2);
}

// ---- what a stranger tries ----

/// LIMITS.md §2 row 20.
#[test]
fn row_20_an_answer_that_nobody_asked_for_ends_the_stream() {
    let (_x, peer, address) = with_peer(Verifies::Valid, "");
    for answer in [
        "<db:result from='y.example' to='x.example' type='valid'/>",
        "<db:verify from='y.example' to='x.example' id='1' type='valid'/>",
        "<db:result from='z.example' to='x.example' type='invalid'/>",
    ] {
        let mut stream = peer.opens(address, "x.example");
        stream.send(answer);
        stream.expect_error("policy-violation");
    }
}

/// LIMITS.md §2 row 20, on a stream that we opened.
#[test]
fn row_20_an_answer_for_another_pair_proves_nothing() {
    let (x, peer, _) = with_peer(Verifies::Valid, "");
    peer.answers_with("<db:result from='z.example' to='x.example' type='valid'/>");
    let mut juliet = user(&x, "juliet", "x.example");
    juliet.send(chat("romeo@y.example", "secret"));
    peer.hears("</stream:stream>");
    assert!(!peer.heard().contains("secret"));
}

/// LIMITS.md §2 rows 7 and 20.
#[test]
fn row_7_a_key_that_the_domain_does_not_know_proves_nothing() {
    let (x, peer, address) = with_peer(Verifies::Invalid, "");
    let mut juliet = user(&x, "juliet", "x.example");
    let mut stream = peer.opens(address, "x.example");
    stream.send("<db:result from='y.example' to='x.example'>key</db:result>");
    stream.expect("type='invalid'/>");
    stream.send("<message type='chat' from='romeo@y.example' to='juliet@x.example'><body>forged</body></message>");
    stream.expect_error("not-authorized");
    assert!(!juliet.sync().contains("forged"));
}

/// LIMITS.md §2 row 21: a key is for one stream and one pair.
#[test]
fn row_21_a_key_of_ours_is_known_again_and_no_other() {
    let (x, peer, address) = with_peer(Verifies::Valid, "");
    let mut juliet = user(&x, "juliet", "x.example");
    juliet.send(chat("romeo@y.example", "hi"));
    peer.hears("</db:result>");
    let heard = peer.heard();
    let key = crate::client::between(&heard, "to='y.example'>", "</db:result>").to_owned();
    let mut stream = peer.opens(address, "x.example");
    for (id, key, verdict) in
        [("encrypted", &*key, "valid"), ("other", &*key, "invalid"), ("encrypted", "0123456789abcdef", "invalid")]
    {
        stream.send(format!("<db:verify from='y.example' to='x.example' id='{id}'>{key}</db:verify>"));
        stream.expect(&format!("type='{verdict}'/>"));
    }
}

/// LIMITS.md §1: verifications of one stream.
#[test]
fn more_than_eight_keys_at_once_are_not_verified() {
    let peer = Peer::start("y.example", Verifies::Never);
    let address = free_address();
    let domains: Vec<String> = (0..9).map(|n| format!("d{n}.y.example")).collect();
    let pins: Vec<_> = domains.iter().map(|domain| (&**domain, peer.address)).collect();
    let _x = server("x.example", address, "", &pins);
    let mut stream = peer.opens(address, "x.example");
    for n in 0..9 {
        stream.send(format!("<db:result from='d{n}.y.example' to='x.example'>key</db:result>"));
    }
    let refused = stream.expect("</db:result>");
    assert!(refused.contains("to='d8.y.example'") && refused.contains("<resource-constraint"), "{refused}");
}

/// LIMITS.md §1: each key makes us ask somebody, so an address has only so many verified at once, on all its streams.
#[test]
fn more_than_sixty_four_keys_at_once_from_one_address_are_not_verified() {
    let peer = Peer::start("y.example", Verifies::Never);
    let address = free_address();
    let domains: Vec<String> = (0..8).map(|n| format!("d{n}.y.example")).collect();
    let pins: Vec<_> = domains.iter().map(|domain| (&**domain, peer.address)).collect();
    let x = server("x.example", address, "", &pins);
    let from = crate::client::own_address();
    let mut streams: Vec<Client> = (0..9).map(|_| peer.opens_from(from, address, "x.example")).collect();
    counts(&x, "verifications_per_address", || {
        // Eight of each stream, and eight of them all are too many, whichever these are.
        for stream in &mut streams {
            for domain in &domains {
                stream.send(format!("<db:result from='{domain}' to='x.example'>key</db:result>"));
            }
        }
    });
    let refused = || streams.iter_mut().any(|it| it.hear(Duration::from_millis(20)).contains("<resource-constraint"));
    eventually("one is refused", refused);
}

/// LIMITS.md §1, before authentication.
#[test]
fn before_authentication_a_server_may_say_little() {
    let (_x, peer, address) = with_peer(Verifies::Valid, "");
    let mut stream = peer.opens(address, "x.example");
    stream.send(format!("<db:result from='y.example' to='x.example'>{}", "k".repeat(20_000)));
    stream.expect_error("policy-violation");
    let mut stream = peer.opens(address, "x.example");
    let _ = stream.try_send("<a>".repeat(100).as_bytes());
    stream.expect_error("policy-violation");
    let mut stream = peer.opens(address, "x.example");
    stream.send("<message from='romeo@y.example' to='juliet@x.example'><body>hi</body></message>");
    stream.expect_error("not-authorized");
}

/// LIMITS.md §1, stanza bytes after authentication.
#[test]
fn a_stanza_of_a_server_may_be_larger_and_not_endless() {
    let (x, peer, address) = with_peer(Verifies::Valid, "");
    let mut juliet = user(&x, "juliet", "x.example");
    let mut stream = peer.proves(address, "x.example");
    let message = |size: usize| {
        format!(
            "<message type='chat' from='romeo@y.example' to='juliet@x.example'><body>{}</body><end/></message>",
            "m".repeat(size)
        )
    };
    stream.send(message(300_000));
    juliet.expect("<end/>");
    let _ = stream.try_send(message(600_000).as_bytes());
    stream.expect_error("policy-violation");
}

#[test]
fn a_server_that_sends_too_many_bytes_is_read_slowly_and_nothing_is_lost() {
    let (peer, address) = (Peer::start("y.example", Verifies::Valid), free_address());
    let x = Server::start(&format!(
        "[host.\"x.example\"]\n[s2s]\n[s2s.domain.\"y.example\"]\naddress = \"{}\"\n[[listen]]\nkind = \"s2s\"\naddress = \"{address}\"\n\
         [limits]\ns2s_bytes_per_second = 20000\ns2s_bytes_burst = 20000\n",
        peer.address
    ));
    let mut juliet = user(&x, "juliet", "x.example");
    let mut stream = peer.proves(address, "x.example");
    for n in 0..6 {
        let body = "m".repeat(10_000);
        stream.send(format!(
            "<message type='chat' from='romeo@y.example' to='juliet@x.example'><body>{body}</body><end n='{n}'/></message>"
        ));
    }
    for n in 0..6 {
        juliet.expect(&format!("<end n='{n}'/>"));
    }
    let counted = || x.status()["counters"]["limit s2s_bytes_per_second"].as_u64().unwrap_or(0) > 0;
    eventually("the bound is counted", counted);
}

/// LIMITS.md §2 row 26.
#[test]
fn row_26_an_address_is_no_way_into_the_house() {
    let x = server("x.example", free_address(), "[s2s]\nabsent_seconds = 0\n", &[]);
    let mut juliet = user(&x, "juliet", "x.example");
    for domain in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1", "[fe80::1]"] {
        juliet.send(chat(&format!("root@{domain}"), "hi"));
        let heard = juliet.expect("</message>");
        assert!(heard.contains("<remote-server-not-found"), "{domain}: {heard}");
    }
}

/// RFC 6120 §8.1.5, both ways: what a client or a server said of its stream is true of each stanza that does not say.
#[test]
fn a_stanza_between_domains_is_in_the_language_of_the_stream_that_it_came_by() {
    let (x, peer, address) = with_peer(Verifies::Valid, "");
    let mut juliet = user(&x, "juliet", "x.example");
    juliet.send(chat("romeo@y.example", "hi"));
    peer.hears("<body>hi</body>");
    assert!(attribute(between(&peer.heard(), "<message", "<body>hi"), "xml:lang") == "en", "{}", peer.heard());
    let mut stream = peer.opens_saying(crate::client::own_address(), address, "x.example", " xml:lang='de'");
    peer.proves_on(&mut stream, "x.example");
    for (own, heard) in [("", "de"), (" xml:lang='fr'", "fr")] {
        stream.send(format!("<message from='romeo@y.example' to='{}'{own}><body>{heard}</body></message>", juliet.jid));
        let message = juliet.expect("</message>");
        assert_eq!(attribute(&message, "xml:lang"), heard, "{message}");
    }
}

/// LIMITS.md §2 row 44: what a stranger sends is answered with no more than it sent, and an error with nothing.
#[test]
fn row_44_an_error_is_answered_by_nobody_and_strangers_are_not_answered_more_than_they_say() {
    let (x, peer, address) = with_peer(Verifies::Valid, "");
    let _juliet = user(&x, "juliet", "x.example");
    let mut stream = peer.proves(address, "x.example");
    let mut said = 0;
    for n in 0..20 {
        for stanza in [
            format!("<message type='error' from='romeo@y.example/{n}' to='nobody@x.example'><body>no</body></message>"),
            format!("<iq type='error' id='{n}' from='romeo@y.example/{n}' to='juliet@x.example'/>"),
            format!("<iq type='result' id='{n}' from='romeo@y.example/{n}' to='x.example'/>"),
            format!("<presence type='probe' from='romeo@y.example/{n}' to='juliet@x.example'/>"),
            format!("<presence from='romeo@y.example/{n}' to='juliet@x.example'/>"),
        ] {
            said += stanza.len();
            stream.send(stanza);
        }
    }
    stream
        .send("<iq type='get' id='last' from='romeo@y.example/end' to='x.example'><ping xmlns='urn:xmpp:ping'/></iq>");
    peer.hears("id='last'");
    let heard = peer.heard();
    assert!(!heard.contains("<message"), "{heard}");
    assert!(heard.len() * 10 <= said * 12 + 20_000, "{} bytes to {said}: {heard}", heard.len());
}

/// LIMITS.md §1: a flood of unknown domains, while somebody chats.
#[test]
fn a_flood_of_unknown_domains_disturbs_nobody_else() {
    let (x, peer, address) = with_peer(Verifies::Valid, "[s2s]\nabsent_seconds = 2\n");
    let mut mallory = user(&x, "mallory", "x.example");
    let mut juliet = user(&x, "juliet", "x.example");
    for n in 0..300 {
        mallory.send(chat(&format!("a@unknown{n}.localhost"), "flood"));
    }
    let mut stream = peer.proves(address, "x.example");
    for n in 0..10 {
        juliet.send(chat("romeo@y.example", &format!("to {n}")));
        peer.hears(&format!("<body>to {n}</body>"));
        stream.send(format!(
            "<message type='chat' from='romeo@y.example' to='juliet@x.example'><body>back {n}</body></message>"
        ));
        juliet.expect(&format!("<body>back {n}</body>"));
    }
    let heard = mallory.expect("<resource-constraint");
    assert!(heard.len() < 10_000_000);
    assert!(hit(&x, "s2s_dials_max") > 0);
}

// ---- presence ----

/// MISSION 3.2.3: who changed while the link was down is seen as they are.
#[test]
fn a_contact_that_changed_while_the_link_was_down_shows_its_true_state() {
    let two = Two::start("");
    let (mut juliet, mut romeo) = (two.juliet(), two.romeo());
    juliet.send("<presence type='subscribe' to='romeo@y.example'/>");
    romeo.expect("type='subscribe'");
    romeo.send("<presence type='subscribed' to='juliet@x.example'/><presence type='subscribe' to='juliet@x.example'/>");
    juliet.expect("from='romeo@y.example/here'");
    juliet.expect("type='subscribe'");
    juliet.send("<presence type='subscribed' to='romeo@y.example'/>");
    romeo.expect("from='juliet@x.example/here'");
    two.wire.cut(true);
    juliet.send("<presence><status>one</status></presence>");
    juliet.send("<presence><status>two</status></presence>");
    juliet.sync();
    two.wire.cut(false);
    let heard = romeo.expect("<status>two</status>");
    assert!(!heard.contains("<status>one</status>") || heard.find("one") < heard.find("two"), "{heard}");
    romeo.send("<presence><status>three</status></presence>");
    juliet.expect("<status>three</status>");
}

/// MISSION 5.1.8: a server that lost its roster says `unsubscribed` where no user of its has.
#[test]
fn a_server_that_lost_a_subscription_is_obeyed_and_asked_again_once() {
    let (x, peer, address) = with_peer(Verifies::Valid, "");
    let mut juliet = user(&x, "juliet", "x.example");
    let mut stream = peer.proves(address, "x.example");
    // Only who has asked for the roster hears of it.
    juliet.send("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>");
    juliet.expect("id='roster'");
    juliet.send("<presence type='subscribe' to='romeo@y.example'/>");
    peer.hears("type='subscribe'");
    stream.send("<presence type='subscribed' from='romeo@y.example' to='juliet@x.example'/>");
    juliet.expect("type='subscribed'");
    drop(juliet);
    let mut juliet = user(&x, "juliet", "x.example");
    peer.hears("type='probe'");
    stream.send("<presence type='unsubscribed' from='romeo@y.example' to='juliet@x.example'/>");
    eventually("the subscription is gone", || {
        juliet.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
        juliet.expect("id='r'");
        juliet.expect("</iq>").contains("subscription='none'")
    });
    peer.hears("id='again' type='subscribe'");
    assert_eq!(x.status()["counters"]["subscriptions_lost"].as_u64(), Some(1));
    // As `waft s2s lost` asks: page after page.
    x.ensure("nurse@x.example");
    let (mut after, mut lost) = (String::new(), Vec::new());
    loop {
        let page = x.ask(&serde_json::json!({ "do": "lost-subscriptions", "after": after }));
        lost.extend(page["lost"].as_array().cloned().unwrap_or_default());
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    let [lost] = &lost[..] else { panic!("one was lost: {lost:?}") };
    assert_eq!((&lost["account"], &lost["contact"]), (&"juliet@x.example".into(), &"romeo@y.example".into()));
    assert_eq!((&lost["subscription"], &lost["asked"]), (&"none".into(), &true.into()), "{lost}");
}

/// The default: `waft serve --domain D` federates, so other servers find it on 5269. The ports are shared by all tests of
/// the machine, so this is asked of the configuration; here: of a listener that is named.
#[test]
fn a_server_listens_for_others_with_tls_from_the_first_byte_when_told_to() {
    let address = free_address();
    let x = Server::start(&format!(
        "[host.\"x.example\"]\n[[listen]]\nkind = \"s2s\"\naddress = \"{address}\"\ntls = \"direct\"\n"
    ));
    let mut client = Client::connect(address);
    let mut config = crate::client::tls_config(None);
    config.alpn_protocols = vec![b"xmpp-server".to_vec()];
    client.handshake_with(config, "x.example");
    client.send(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
         xmlns:stream='http://etherx.jabber.org/streams' from='y.example' to='x.example' version='1.0'>",
    );
    assert!(client.expect("</stream:features>").contains("urn:xmpp:features:dialback"));
    drop(x);
    assert!(PATIENCE > Duration::ZERO);
}
