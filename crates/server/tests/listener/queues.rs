//! Queues: what waits for a slow reader, what is not acknowledged, what waits for one who is away.

use crate::client::Client;
use crate::server::{Server, eventually};
use std::io::{Read, Write};
use std::sync::LazyLock;
use std::time::Duration;

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    Server::start(
        "[limits]
rates = false
send_queue_stanzas_max = 100
send_queue_bytes_max = 262144
unacked_stanzas_max = 16
unacked_bytes_max = 262144
hibernated_per_account_max = 2
offline_messages_max = 10
offline_bytes_max = 100000
roster_items_max = 5
groups_per_item_max = 3
block_items_max = 4
vcard_bytes_max = 2000
private_bytes_max = 2000
pep_nodes_max = 2
pep_items_max = 3
pep_item_bytes_max = 30000
pep_bytes_max = 65536
requests_max = 3
archive_page_default = 2
archive_page_max = 4
resume_seconds_default = 60
resume_seconds_max = 60
",
    )
});

fn message(to: &str, n: usize, bytes: usize) -> String {
    format!("<message to='{to}' type='chat' id='m{n}'><body>{n}:{}</body></message>", "x".repeat(bytes))
}

fn suspended(bare: &str) -> usize {
    SERVER.sessions(bare).iter().filter(|(_, state)| state == "suspended").count()
}

#[test]
fn a_reader_that_takes_nothing_is_closed_and_its_memory_is_bounded() {
    let mut reader = Client::available(&SERVER, "slow", "r");
    let mut writer = Client::available(&SERVER, "writer", "r");
    let before = SERVER.resident_bytes();
    // Headlines are not kept: all of them would have to wait in memory.
    let mut written = 0;
    while !SERVER.sessions("slow@localhost").is_empty() {
        // Not so many at once that a reader of good will had no time.
        for _ in 0..10 {
            writer.send(message("slow@localhost/r", written, 8_000).replace("'chat'", "'headline'"));
            written += 1;
        }
        writer.sync();
        assert!(written < 20_000, "the reader is never found slow");
    }
    let grown = SERVER.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "grew by {grown} bytes");
    // What was sent is there; nothing behind it is.
    let heard = reader.expect_end();
    assert!(heard.len() > 8_000, "after {written}: {heard}");
    writer.sync();
}

#[test]
fn a_reader_of_good_will_is_given_more_at_once_than_may_wait_for_a_slow_one() {
    let server = Server::start("[limits]\nrates = false\nsend_queue_stanzas_max = 16\n");
    let mut client = Client::available(&server, "willing", "r");
    for n in 0..60 {
        client.send(message("willing@localhost/r", n, 10));
        client.expect(&format!("<body>{n}:"));
    }
    client.send("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>60</max></set></query></iq>");
    assert_eq!(client.expect("</fin>").matches("<forwarded ").count(), 60);
}

#[test]
fn a_client_that_asks_much_before_it_reads_is_read_no_more_meanwhile_and_hears_all_answers() {
    let server = Server::start("[limits]\nrates = false\n");
    let mut client = Client::available(&server, "curious", "r");
    let question = "<iq type='get' id='q'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>";
    client.send(question);
    let answer = client.expect("</iq>").len();
    // The answers to them are more than the kernel's buffers hold, and the queue.
    let questions = (32 << 20) / answer;
    let mut saying = client.socket();
    let says = std::thread::spawn(move || saying.write_all(question.repeat(questions).as_bytes()));
    let heard = || server.status()["counters"]["operations_client_iq"].as_u64().unwrap_or(0);
    let mut before = 0;
    while heard() > before {
        before = heard();
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(before < questions as u64, "all {questions} are read");
    let mut answers = vec![0; answer * questions];
    client.socket().read_exact(&mut answers).expect("all are answered");
    assert!(answers.ends_with(b"</iq>") && says.join().is_ok_and(|said| said.is_ok()));
    assert_eq!(client.sync(), "");
}

#[test]
fn a_slow_reader_with_management_is_suspended_and_its_messages_come_later() {
    let mut reader = Client::available(&SERVER, "slowly", "r");
    let id = reader.manage();
    let mut writer = Client::available(&SERVER, "writes", "r");
    let mut written = 0;
    // As many as may be unacknowledged; each large, so that the kernel's buffers fill.
    while SERVER.sessions("slowly@localhost").iter().any(|(_, state)| state == "available") && written < 16 {
        writer.send(message("slowly@localhost", written, 14_000));
        writer.sync();
        written += 1;
    }
    drop(reader);
    eventually("it is suspended", || suspended("slowly@localhost") == 1);
    let (mut reader, _) = Client::authenticated(&SERVER, "slowly", "localhost");
    reader.send(format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>"));
    reader.expect("<resumed ");
    for n in 0..written {
        reader.expect(&format!("<body>{n}:"));
    }
}

#[test]
fn who_acknowledges_nothing_is_sent_so_many_and_the_rest_when_it_does() {
    let mut reader = Client::available(&SERVER, "noack", "r");
    reader.manage();
    let mut writer = Client::available(&SERVER, "writeson", "r");
    for n in 0..24 {
        writer.send(message("noack@localhost", n, 10));
    }
    writer.sync();
    let heard = reader.hear(Duration::from_millis(700));
    assert_eq!(heard.matches("<body>").count(), 16, "{heard}");
    // As `waft queues` prints it: what it has not acknowledged, and nobody who has taken all.
    let waits = |jid: &str| {
        let queues = SERVER.ask(&serde_json::json!({ "do": "act", "act": { "do": "queues" } }));
        let clients = &queues["value"]["clients"];
        clients.as_array().unwrap().iter().find(|it| it["jid"] == *jid).cloned()
    };
    let ours = waits(&reader.jid).expect("it has some that wait");
    assert_eq!(ours["stanzas"], 16, "{ours}");
    assert!(ours["bytes"].as_u64() > Some(16 * 100), "{ours}");
    reader.send("<a xmlns='urn:xmpp:sm:3' h='16'/>");
    for n in 16..24 {
        reader.expect(&format!("<body>{n}:"));
    }
    reader.send("<a xmlns='urn:xmpp:sm:3' h='24'/>");
    eventually("nothing of it waits", || waits(&reader.jid).is_none());
    assert!(!reader.sync().contains("<body>"));
}

#[test]
fn unacknowledged_bytes_have_a_bound_too() {
    let mut reader = Client::available(&SERVER, "nobytes", "r");
    reader.manage();
    let mut writer = Client::available(&SERVER, "writebytes", "r");
    for n in 0..6 {
        writer.send(message("nobytes@localhost", n, 60_000));
    }
    assert_eq!(writer.sync(), "");
    // Four of them are in 256 KiB, five are not.
    let heard = reader.hear(Duration::from_millis(700));
    assert_eq!(heard.matches("<body>").count(), 4);
    for n in 4..6 {
        reader.send(format!("<a xmlns='urn:xmpp:sm:3' h='{n}'/>"));
        reader.expect(&format!("<body>{n}:"));
    }
}

#[test]
fn what_is_in_no_log_ends_the_session_of_who_acknowledges_nothing() {
    let mut reader = Client::available(&SERVER, "typing", "r");
    reader.manage();
    let mut writer = Client::available(&SERVER, "types", "r");
    writer.send("<message to='typing@localhost/r' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>".repeat(17));
    let heard = reader.expect_error("resource-constraint");
    assert_eq!(heard.matches("<composing ").count(), 16);
}

#[test]
fn an_account_has_so_many_sleeping_sessions_and_the_oldest_goes() {
    for resource in ["a", "b", "c"] {
        let mut client = Client::available(&SERVER, "sleeps", resource);
        client.manage();
        drop(client);
        let jid = format!("sleeps@localhost/{resource}");
        eventually("it sleeps", || {
            SERVER.sessions("sleeps@localhost").iter().any(|(it, state)| *it == jid && state == "suspended")
        });
    }
    let sessions = SERVER.sessions("sleeps@localhost");
    assert_eq!(sessions.len(), 2, "{sessions:?}");
    assert!(!sessions.iter().any(|(jid, _)| jid.ends_with("/a")), "{sessions:?}");
}

#[test]
fn beyond_the_messages_that_wait_the_sender_hears_service_unavailable() {
    SERVER.ensure("away@localhost");
    let mut writer = Client::available(&SERVER, "leaves", "r");
    for n in 0..12 {
        writer.send(message("away@localhost", n, 10));
    }
    let heard = writer.expect("id='m10' type='error'") + &writer.expect("id='m11' type='error'");
    assert!(heard.contains("<service-unavailable ") && heard.matches("type='error'").count() == 2, "{heard}");
    let mut away = Client::session(&SERVER, "away", "r");
    away.send("<presence/>");
    for n in 0..10 {
        away.expect(&format!("<body>{n}:"));
    }
}

#[test]
fn beyond_the_bytes_that_wait_the_sender_hears_service_unavailable() {
    SERVER.ensure("far@localhost");
    let mut writer = Client::available(&SERVER, "heavy", "r");
    for n in 0..4 {
        writer.send(message("far@localhost", n, 40_000));
    }
    let heard = writer.expect("id='m2' type='error'") + &writer.expect("id='m3' type='error'");
    assert!(heard.contains("<service-unavailable ") && heard.matches("type='error'").count() == 2, "{heard}");
}

#[test]
fn a_roster_has_so_many_items_and_an_item_so_many_groups() {
    let mut client = Client::available(&SERVER, "social", "r");
    let item = |name: &str, groups: usize| {
        let groups: String = (0..groups).map(|n| format!("<group>g{n}</group>")).collect();
        format!(
            "<iq type='set' id='{name}'><query xmlns='jabber:iq:roster'><item jid='{name}@localhost'>{groups}</item></query></iq>"
        )
    };
    for n in 0..5 {
        client.send(item(&format!("c{n}"), 3));
        let heard = client.sync();
        assert!(!heard.contains("type='error'"), "{heard}");
    }
    client.send(item("c5", 0));
    let heard = client.sync();
    assert!(heard.contains("type='error'") && heard.contains("id='c5'"), "{heard}");
    client.send(item("c4", 4));
    let heard = client.sync();
    assert!(heard.contains("type='error'") && heard.contains("id='c4'"), "{heard}");
    // What is there can be changed all the same.
    client.send(item("c4", 1));
    assert!(!client.sync().contains("type='error'"));
    // And subscribing makes no sixth.
    client.send("<presence to='c6@localhost' type='subscribe' id='c6'/>");
    let heard = client.sync();
    assert!(heard.contains("type='error'") && !heard.contains("ask='subscribe'"), "{heard}");
}

#[test]
fn a_block_list_has_so_many_items() {
    let mut client = Client::available(&SERVER, "blocks", "r");
    let block = |from: usize, to: usize| {
        let items: String = (from..to).map(|n| format!("<item jid='b{n}@localhost'/>")).collect();
        format!("<iq type='set' id='k{from}-{to}'><block xmlns='urn:xmpp:blocking'>{items}</block></iq>")
    };
    client.send(block(0, 4));
    assert!(!client.sync().contains("type='error'"));
    client.send(block(4, 5));
    let heard = client.sync();
    assert!(heard.contains("type='error'") && heard.contains("id='k4-5'"), "{heard}");
    client.send("<iq type='get' id='list'><blocklist xmlns='urn:xmpp:blocking'/></iq>");
    assert_eq!(client.sync().matches("<item ").count(), 4);
}

#[test]
fn a_vcard_and_private_data_have_so_many_bytes() {
    let mut client = Client::available(&SERVER, "stores", "r");
    let vcard = |bytes: usize| {
        format!(
            "<iq type='set' id='v{bytes}'><vCard xmlns='vcard-temp'><NOTE>{}</NOTE></vCard></iq>",
            "x".repeat(bytes)
        )
    };
    let private = |bytes: usize| {
        format!(
            "<iq type='set' id='p{bytes}'><query xmlns='jabber:iq:private'><n xmlns='urn:n'>{}</n></query></iq>",
            "x".repeat(bytes)
        )
    };
    client.send(vcard(1_500) + &private(1_500));
    assert!(!client.sync().contains("type='error'"));
    client.send(vcard(2_500) + &private(2_500));
    let heard = client.sync();
    assert_eq!(heard.matches("type='error'").count(), 2, "{heard}");
    client.send("<iq type='get' id='g'><vCard xmlns='vcard-temp'/></iq>");
    assert!(client.sync().contains(&"x".repeat(1_500)), "the old one is left");
}

#[test]
fn nodes_items_and_their_bytes_are_bounded() {
    let mut client = Client::available(&SERVER, "publishes", "r");
    let mut n = 0;
    let mut publishes = |client: &mut Client, node: &str, bytes: usize| {
        n += 1;
        let form = "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
            <value>http://jabber.org/protocol/pubsub#publish-options</value></field>\
            <field var='pubsub#max_items'><value>max</value></field></x>";
        client.send(format!(
            "<iq type='set' id='p{n}'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{node}'>\
             <item id='i{n}'><n xmlns='urn:n'>{}</n></item></publish><publish-options>{form}</publish-options></pubsub></iq>",
            "x".repeat(bytes)
        ));
        client.sync()
    };
    let items = |client: &mut Client, node: &str| {
        client.send(format!(
            "<iq type='get' id='g'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='{node}'/></pubsub></iq>"
        ));
        client.sync().matches("<item ").count()
    };
    assert!(publishes(&mut client, "a", 31_000).contains("<payload-too-big"), "one item");
    for _ in 0..5 {
        assert!(!publishes(&mut client, "a", 100).contains("type='error'"));
    }
    assert_eq!(items(&mut client, "a"), 3, "the oldest go");
    assert!(!publishes(&mut client, "b", 29_000).contains("type='error'"));
    assert!(publishes(&mut client, "c", 100).contains("<max-nodes-exceeded"), "nodes");
    assert!(!publishes(&mut client, "b", 29_000).contains("type='error'"));
    assert!(publishes(&mut client, "b", 29_000).contains("<resource-constraint"), "bytes in all");
    assert_eq!(items(&mut client, "b"), 2, "what was there is left");
}

#[test]
fn so_many_requests_of_strangers_wait_for_an_account() {
    SERVER.ensure("popular@localhost");
    for n in 0..5 {
        let mut client = Client::available(&SERVER, &format!("fan{n}"), "r");
        client.send("<presence to='popular@localhost' type='subscribe'/>");
        client.sync();
    }
    let mut popular = Client::session(&SERVER, "popular", "r");
    popular.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq><presence/>");
    popular.sync();
    let heard = popular.hear(Duration::from_millis(500));
    // What came before the answer to the ping counts as well.
    let mut again = Client::session(&SERVER, "popular", "again");
    again.send("<presence/>");
    let first = again.sync();
    let all = first + &again.hear(Duration::from_millis(500)) + &heard;
    let fans: std::collections::HashSet<_> =
        (0..5).filter(|n| all.contains(&format!("from='fan{n}@localhost'"))).collect();
    assert_eq!(fans.len(), 3, "{all}");
}

#[test]
fn a_page_of_the_archive_has_so_many_messages() {
    let mut client = Client::available(&SERVER, "pages", "r");
    for n in 0..6 {
        client.send(message("pages@localhost/r", n, 10));
        client.expect(&format!("<body>{n}:"));
    }
    client.sync();
    for (rsm, least) in [("", 2), ("<set xmlns='http://jabber.org/protocol/rsm'><max>100</max></set>", 4)] {
        client.send(format!("<iq type='set' id='q{least}'><query xmlns='urn:xmpp:mam:2'>{rsm}</query></iq>"));
        let heard = client.expect("</fin>");
        assert_eq!(heard.matches("<forwarded ").count(), least, "{heard}");
        client.sync();
    }
}
