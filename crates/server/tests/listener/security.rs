//! What broke other servers must not break this one: a test for each row, named after it. docs/security.md lists them.

use crate::client::{Client, attribute, between, header, plain, tls_config};
use crate::server::{Server, eventually};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

static SERVER: LazyLock<Server> =
    LazyLock::new(|| Server::start("[limits]\nrates = false\nunauthenticated_percent = 90\n"));

/// Memory of its own is measured: nobody else uses this one.
fn measured() -> Server {
    Server::start("[limits]\nrates = false\nunauthenticated_percent = 90\n")
}

const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";

/// The server still serves.
#[track_caller]
fn alive(server: &Server) {
    let mut client = Client::available(server, "canary", &format!("{:p}", &0));
    let since = Instant::now();
    client.sync();
    assert!(since.elapsed() < Duration::from_secs(2), "the canary took {:?}", since.elapsed());
}

/// Seconds of processor time of the server so far.
fn processor_seconds(server: &Server) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap()..].split(' ').collect();
    // utime and stime, in ticks of 10 ms.
    (fields[12].parse::<f64>().unwrap() + fields[13].parse::<f64>().unwrap()) / 100.0
}

#[test]
fn row_2_small_elements_without_end_before_authentication_cost_little_memory() {
    let server = measured();
    alive(&server);
    let before = server.resident_bytes();
    let held: Vec<Client> = (0..100)
        .map(|_| {
            let mut client = Client::connect(server.plain);
            client.send(header("localhost"));
            // Twice the elements that are allowed, and then as many again without an end.
            let _ = client.try_send("<a>".as_bytes());
            let _ = client.try_send("<b/>".repeat(30).as_bytes());
            client
        })
        .collect();
    for mut client in held {
        for _ in 0..100 {
            if client.try_send("<b/>".repeat(1_000).as_bytes()).is_err() {
                break;
            }
        }
        let heard = client.expect_error("policy-violation");
        assert!(heard.contains("elements"), "{heard}");
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown <= 32 << 20, "grew by {grown} bytes");
    alive(&server);
}

#[test]
fn row_3_thousands_of_connections_leave_nothing_behind() {
    let server = measured();
    let connect = |many: usize| {
        for n in 0..many {
            let mut client = Client::connect(server.plain);
            if n % 2 == 0 {
                client.send(header("localhost"));
            }
        }
        eventually("all are gone", || server.status()["streams"] == 0);
    };
    connect(2_000);
    let (memory, files) = (server.resident_bytes(), server.open_files());
    // Not all at once: the room that is kept depends on how many were there together.
    (0..5).for_each(|_| connect(2_000));
    let grown = server.resident_bytes().saturating_sub(memory);
    assert!(grown <= 10_000 * 2_048, "grew by {grown} bytes");
    eventually("files are closed", || server.open_files() <= files + 4);
}

#[test]
fn row_6_many_half_open_connections_with_data_in_each_cost_bounded_memory() {
    let server = measured();
    alive(&server);
    let before = server.resident_bytes();
    const MANY: usize = 1_500;
    let half = format!("{}<a>{}", header("localhost"), "x".repeat(9_900));
    let held: Vec<Client> = (0..MANY)
        .map(|_| {
            let mut client = Client::connect(server.plain);
            client.send(&half);
            client
        })
        .collect();
    eventually("all are there", || server.status()["streams"].as_u64() >= Some(MANY as u64));
    alive(&server);
    let grown = server.resident_bytes().saturating_sub(before) as usize;
    // The half element, once and a half, and what a connection costs.
    assert!(grown <= MANY * 32 * 1_024, "grew by {} bytes a connection", grown / MANY);
    drop(held);
    eventually("all are gone", || server.status()["streams"].as_u64() <= Some(1));
}

#[test]
fn row_8_there_is_no_other_tls_that_could_renegotiate() {
    let lock = std::fs::read_to_string(workspace().join("Cargo.lock")).unwrap();
    for name in ["openssl", "openssl-sys", "native-tls", "boring", "s2n-tls"] {
        assert!(!lock.contains(&format!("name = \"{name}\"")), "{name}");
    }
    assert!(lock.contains("name = \"rustls\""));
    // TLS 1.2 is spoken, with the extended master secret alone: rustls's client offers it.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = tls_config(None);
    config.alpn_protocols.clear();
    let _ = provider;
    let mut client = Client::connect(SERVER.direct);
    client.handshake_with(config, "localhost");
    client.open("localhost");
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every source file of the crates, with its lines.
fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, into: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).unwrap().map_while(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|it| it == "rs") {
                into.push((path.clone(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut all = Vec::new();
    for entry in std::fs::read_dir(workspace().join("crates")).unwrap().map_while(Result::ok) {
        walk(&entry.path().join("src"), &mut all);
    }
    assert!(all.len() > 50);
    all
}

#[test]
fn row_9_no_secret_is_compared_with_an_early_exit() {
    // Fields and variables that hold what must not be guessed byte by byte.
    let secrets =
        ["stored_key", "server_key", "client_key", "salted", "proof", "secret", "hashed", "password", "signature"];
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        // What the operator types twice is no peer's guess, nor are keys that the server itself has read a moment before.
        if path.ends_with("commands/password.rs") || path.ends_with("store/src/memory.rs") {
            continue;
        }
        let code = text.split("mod tests {").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            for operator in ["==", "!="] {
                let Some((left, right)) = line.split_once(operator) else { continue };
                let left = left
                    .trim_end()
                    .trim_end_matches(|c: char| !is_word(c))
                    .rsplit(|c| !is_word(c))
                    .next()
                    .unwrap_or_default();
                let right = right.trim_start().trim_start_matches(['&', '*', '(']);
                let right = right
                    .split(|c: char| !is_word(c) && c != '.')
                    .next()
                    .unwrap_or_default()
                    .rsplit('.')
                    .next()
                    .unwrap_or_default();
                if secrets.contains(&left) || secrets.contains(&right) {
                    wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "compare secrets with eq_constant_time:\n{}", wrong.join("\n"));
}

#[test]
fn row_10_there_is_one_xml_parser_for_all_that_a_peer_says() {
    let mut manifests = Vec::new();
    for entry in std::fs::read_dir(workspace().join("crates")).unwrap().map_while(Result::ok) {
        let text = std::fs::read_to_string(entry.path().join("Cargo.toml")).unwrap();
        // The oracle of the tests is another one on purpose.
        manifests.push(text.split("[dev-dependencies]").next().unwrap_or_default().to_owned());
    }
    assert!(manifests.len() > 5);
    for parser in ["quick-xml", "xml-rs", "roxmltree", "xmltree", "rxml", "minidom", "expat", "libxml"] {
        assert!(!manifests.iter().any(|text| text.contains(parser)), "{parser}");
    }
}

#[test]
fn row_11_billion_laughs_is_refused_at_the_dtd() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let trap = listener.local_addr().unwrap();
    let laughs: String =
        (1..10).map(|n| format!("<!ENTITY l{n} \"{}\">", format!("&l{};", n - 1).repeat(10))).collect();
    let attacks = [
        format!("<!DOCTYPE a [<!ENTITY l0 \"ha\">{laughs}]>"),
        format!("<!DOCTYPE a [<!ENTITY q \"{}\">]>", "x".repeat(5_000)),
        format!("<!DOCTYPE a [<!ENTITY % p SYSTEM \"http://{trap}/p\"> %p;]>"),
        format!("<!DOCTYPE a SYSTEM \"http://{trap}/dtd\">"),
        format!("<!DOCTYPE a [<!ENTITY x SYSTEM \"http://{trap}/x\">]>"),
        "<!ENTITY x \"y\">".to_owned(),
    ];
    for attack in &attacks {
        // Before the header, behind it, and from somebody who is authenticated.
        let mut client = Client::connect(SERVER.plain);
        client.send(format!(
            "<?xml version='1.0'?>{attack}{}<a>&l9;&x;</a>",
            header("localhost").split("?>").nth(1).unwrap()
        ));
        client.expect_error("restricted-xml");
        let mut client = Client::connect(SERVER.plain);
        client.open("localhost");
        client.send(format!("{attack}<a>&l9;&x;</a>"));
        client.expect_error("restricted-xml");
        let mut client = Client::session(&SERVER, "laughs", "r");
        client.send(format!("<message>{attack}<body>&l9;&x;</body></message>"));
        client.expect_error("restricted-xml");
    }
    assert!(listener.accept().is_err(), "an external entity was fetched");
    alive(&SERVER);
}

#[test]
fn row_12_compression_is_not_offered_and_not_begun() {
    let compress = "<compress xmlns='http://jabber.org/protocol/compress'><method>zlib</method></compress>";
    let mut client = Client::connect(SERVER.plain);
    assert!(!client.open("localhost").contains("compress"));
    client.send(compress);
    client.expect_error("not-authorized");
    let (mut client, features) = Client::authenticated(&SERVER, "squeezes", "localhost");
    assert!(!features.contains("compress"));
    client.send(compress);
    let heard = client.expect_end();
    assert!(heard.contains("<stream:error>") && !heard.contains("<compressed"), "{heard}");
}

#[test]
fn row_13_malformed_utf_8_and_separators_in_names_and_namespaces_are_refused() {
    let bad: [&[u8]; 12] = [
        b"\xc3",             // cut off by what follows
        b"\xc0\xaf",         // overlong
        b"\xe0\x80\xaf",     // overlong
        b"\xed\xa0\x80",     // a surrogate
        b"\xf4\x90\x80\x80", // beyond the last character
        b"\xf8\x88\x80\x80\x80",
        b"\xff",
        b"\x00",
        b"\x01",
        b"\x0c",
        b"\xef\xbf\xbe", // no character
        b"&#0;",
    ];
    for bytes in bad {
        for (before, after) in [
            (&b"<message to='smuggle@localhost/r'><body>"[..], &b"</body></message>"[..]),
            (b"<message to='smuggle@localhost/r' id='", b"'/>"),
            (b"<message to='smuggle@localhost/r'><a xmlns='urn:", b"'/></message>"),
            (b"<message to='smuggle@localhost/r'><a", b" xmlns='urn:a'/></message>"),
        ] {
            let mut client = Client::connect(SERVER.plain);
            client.open("localhost");
            SERVER.ensure("smuggle@localhost");
            client.scram("SCRAM-SHA-1", "smuggle", "smuggle", ("n,,", b"")).unwrap();
            client.open("localhost");
            client.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
            client.expect("</iq>");
            client.send([before, bytes, after].concat());
            let heard = client.expect_end();
            let refused = ["not-well-formed", "unsupported-encoding"]
                .iter()
                .any(|it| heard.contains(&format!("<stream:error><{it} ")));
            assert!(
                refused && !heard.contains("<message"),
                "{bytes:?} within {:?}: {heard}",
                String::from_utf8_lossy(before)
            );
        }
    }
    // Before authentication as well.
    for bytes in bad {
        let mut client = Client::connect(SERVER.plain);
        client.open("localhost");
        client.send([b"<a>", bytes, b"</a>"].concat());
        let heard = client.expect_end();
        assert!(
            heard.contains("<stream:error><not-well-formed ") || heard.contains("<stream:error><unsupported-encoding "),
            "{bytes:?}: {heard}"
        );
    }
    // What libexpat took for the end of a namespace cannot stand in one.
    for separator in ["&#10;", "&#12;", "}", "{", "|", " ", "\n"] {
        let mut client = Client::available(&SERVER, "smuggled", "r");
        client
            .send(format!("<message to='smuggled@localhost/r'><a xmlns='jabber:client{separator}message'/></message>"));
        let heard = client.expect_end();
        assert!(
            heard.contains("<stream:error><not-well-formed ") && !heard.contains("<message"),
            "{separator:?}: {heard}"
        );
    }
}

#[test]
fn row_15_forged_stanza_ids_survive_nowhere() {
    let forged = "<stanza-id xmlns='urn:xmpp:sid:0' id='forged' by='victim15@localhost'/>";
    let forged = format!(
        "{forged}{forged}<stanza-id xmlns='urn:xmpp:sid:0' id='forged' by='Victim15@LOCALHOST'/><s:stanza-id xmlns:s='urn:xmpp:sid:0' id='forged' by='victim15@localhost'/>"
    );
    let message = |n: &str| {
        format!(
            "<message to='victim15@localhost' type='chat' id='{n}'><body>{n}</body>{forged}<stanza-id xmlns='urn:xmpp:sid:0' id='foreign' by='room@elsewhere.example'/></message>"
        )
    };
    let mut forger = Client::available(&SERVER, "forger", "r");
    let check = |heard: &str, how: &str| {
        assert!(!heard.contains("forged"), "{how}: {heard}");
        assert!(heard.contains("id='foreign'"), "{how}: another's is left: {heard}");
    };
    // Offline, then live, then by carbon, then from the archive.
    SERVER.ensure("victim15@localhost");
    forger.send(message("offline"));
    forger.sync();
    let mut victim = Client::session(&SERVER, "victim15", "one");
    victim.send("<presence/>");
    victim.expect("<message");
    check(&victim.expect("</message>"), "offline");
    let mut second = Client::session(&SERVER, "victim15", "two");
    second.send(
        "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq><presence><priority>-1</priority></presence>",
    );
    second.sync();
    forger.send(message("live"));
    victim.expect("<message");
    check(&victim.expect("</message>"), "live");
    second.expect("<received ");
    check(&second.expect("</received>"), "carbon");
    victim.send("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>");
    for _ in 0..2 {
        victim.expect("<forwarded ");
        check(&victim.expect("</forwarded>"), "archive");
    }
}

#[test]
fn row_16_the_sender_is_always_stamped_and_wrappers_of_the_server_do_not_pass() {
    let mut victim = Client::available(&SERVER, "victim16", "r");
    let mut forger = Client::available(&SERVER, "forger16", "r");
    let inner = "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='boss@localhost' to='victim16@localhost' type='chat'><body>wire the money</body></message></forwarded>";
    for wrapper in [
        format!("<received xmlns='urn:xmpp:carbons:2'>{inner}</received>"),
        format!("<sent xmlns='urn:xmpp:carbons:2'>{inner}</sent>"),
        format!("<result xmlns='urn:xmpp:mam:2' queryid='q' id='1'>{inner}</result>"),
    ] {
        forger.send(format!("<message to='{}'>{wrapper}</message>", victim.jid));
        forger.send(format!("<message to='{}' id='end'><body>marker</body></message>", victim.jid));
        let heard = victim.expect("<body>marker</body>");
        assert!(!heard.contains("wire the money"), "{heard}");
        assert_eq!(attribute(&heard, "from"), "forger16@localhost/r");
        victim.expect("</message>");
    }
    // A roster push comes from the account itself or is no push; whose it is says the stamp.
    forger.send(format!("<iq type='set' id='push' to='{}'><query xmlns='jabber:iq:roster'><item jid='evil@localhost' subscription='both'/></query></iq>", victim.jid));
    let heard = forger.sync() + &victim.sync();
    assert!(!heard.contains("evil@localhost") || heard.contains("from='forger16@localhost/r'"), "{heard}");
}

#[test]
fn row_17_what_is_another_accounts_is_neither_read_nor_written() {
    let mut owner = Client::available(&SERVER, "owner17", "r");
    owner.send("<iq type='set' id='v'><vCard xmlns='vcard-temp'><FN>precious</FN></vCard></iq>");
    owner.send(
        "<iq type='set' id='p'><query xmlns='jabber:iq:private'><notes xmlns='urn:notes'>precious</notes></query></iq>",
    );
    owner.send("<iq type='set' id='k'><block xmlns='urn:xmpp:blocking'><item jid='precious@localhost'/></block></iq>");
    owner.send("<iq type='set' id='r'><query xmlns='jabber:iq:roster'><item jid='precious@localhost'/></query></iq>");
    owner.send("<message to='owner17@localhost' type='chat'><body>precious</body></message>");
    owner.send(
        "<iq type='set' id='n'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:n'>\
         <item><a xmlns='urn:precious'/></item></publish></pubsub></iq>",
    );
    owner.sync();
    let mut thief = Client::available(&SERVER, "thief17", "r");
    let requests = [
        ("get", "<query xmlns='jabber:iq:roster'/>"),
        ("set", "<query xmlns='jabber:iq:roster'><item jid='evil@localhost'/></query>"),
        ("get", "<query xmlns='jabber:iq:private'><notes xmlns='urn:notes'/></query>"),
        ("set", "<query xmlns='jabber:iq:private'><notes xmlns='urn:notes'>evil</notes></query>"),
        ("get", "<vCard xmlns='vcard-temp'/>"),
        ("set", "<vCard xmlns='vcard-temp'><FN>evil</FN></vCard>"),
        ("get", "<blocklist xmlns='urn:xmpp:blocking'/>"),
        ("set", "<block xmlns='urn:xmpp:blocking'><item jid='evil@localhost'/></block>"),
        ("set", "<unblock xmlns='urn:xmpp:blocking'/>"),
        ("set", "<query xmlns='urn:xmpp:mam:2'/>"),
        ("get", "<query xmlns='urn:xmpp:mam:2'/>"),
        ("get", "<metadata xmlns='urn:xmpp:mam:2'/>"),
        ("get", "<prefs xmlns='urn:xmpp:mam:2'/>"),
        ("set", "<prefs xmlns='urn:xmpp:mam:2' default='never'/>"),
        ("get", "<query xmlns='jabber:iq:last'/>"),
        ("get", "<query xmlns='jabber:iq:register'/>"),
        ("set", "<query xmlns='jabber:iq:register'><remove/></query>"),
        ("set", "<query xmlns='jabber:iq:register'><username>owner17</username><password>evil</password></query>"),
        ("set", "<enable xmlns='urn:xmpp:carbons:2'/>"),
        ("set", "<disable xmlns='urn:xmpp:carbons:2'/>"),
        (
            "set",
            "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:n'><item><a xmlns='urn:evil'/></item></publish></pubsub>",
        ),
        ("get", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:n'/></pubsub>"),
        ("get", "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><configure node='urn:n'/></pubsub>"),
        ("set", "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><delete node='urn:n'/></pubsub>"),
        ("get", "<inbox xmlns='urn:xmpp:inbox:1'/>"),
        ("set", "<enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='n'/>"),
        ("set", "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>evil</resource></bind>"),
    ];
    for (n, (kind, request)) in requests.iter().enumerate() {
        thief.send(format!("<iq type='{kind}' id='t{n}' to='owner17@localhost'>{request}</iq>"));
        let heard = thief.expect("</iq>|/>");
        assert!(heard.contains("type='error'"), "{request}: {heard}");
        assert!(!heard.contains("precious"), "{request}: {heard}");
        thief.sync();
    }
    // XEP-0030 §8 rule 2.
    let items = "<query xmlns='http://jabber.org/protocol/disco#items'/>";
    thief.send(format!("<iq type='get' id='d' to='owner17@localhost'>{items}</iq>"));
    thief.expect(&format!("type='result'>{items}</iq>"));
    let heard = owner.sync();
    assert!(!heard.contains("evil"), "{heard}");
    owner.send("<iq type='get' id='r2'><query xmlns='jabber:iq:roster'/></iq><iq type='get' id='k2'><blocklist xmlns='urn:xmpp:blocking'/></iq><iq type='get' id='v2'><vCard xmlns='vcard-temp'/></iq>");
    let heard = owner.sync();
    assert!(heard.matches("precious").count() >= 3 && !heard.contains("evil"), "{heard}");
}

#[test]
fn row_18_a_reply_is_stamped_and_nothing_is_sent_behind_proceed() {
    let mut asker = Client::available(&SERVER, "asker18", "r");
    let mut forger = Client::available(&SERVER, "forger18", "r");
    asker.send("<iq type='get' id='q1' to='asked18@localhost/r'><query xmlns='jabber:iq:version'/></iq>");
    forger.send("<iq type='result' id='q1' to='asker18@localhost/r'><query xmlns='jabber:iq:version'><name>forged</name></query></iq>");
    forger.send("<message to='asker18@localhost/r'><body>marker</body></message>");
    let heard = asker.expect("<body>marker</body>");
    if let Some(at) = heard.find("forged") {
        let iq = &heard[heard[..at].rfind("<iq").unwrap()..];
        assert_eq!(attribute(iq, "from"), "forger18@localhost/r", "{heard}");
    }
    let mut client = Client::connect(SERVER.starttls);
    client.open("localhost");
    client.send(STARTTLS);
    client.expect("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    assert_eq!(client.hear(Duration::from_millis(300)), "");
}

#[test]
fn row_19_nothing_that_came_in_clear_is_taken_as_if_it_were_encrypted() {
    SERVER.ensure("clear@localhost");
    let auth = format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{}</auth>",
        plain("", "clear", "clear")
    );
    for injected in [
        &auth,
        &header("localhost"),
        "<message to='a@localhost'><body>x</body></message>",
        "\n<presence/>",
        "<mess",
        STARTTLS,
    ] {
        for listener in [SERVER.starttls, SERVER.plain] {
            // In one segment: the stream ends, without <proceed/> or without TLS behind it.
            let mut client = Client::connect(listener);
            client.open("localhost");
            client.send(format!("{STARTTLS}{injected}"));
            let heard = client.expect_end();
            assert!(!heard.contains("success"), "{injected:?}: {heard}");
            let told = heard.contains("<not-authorized ") && heard.ends_with("</stream:stream>");
            assert!(told || heard == "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "{injected:?}: {heard}");
        }
        // Behind <proceed/>: it is no ClientHello.
        let mut client = Client::connect(SERVER.starttls);
        client.open("localhost");
        client.send(STARTTLS);
        client.expect("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        client.send(injected);
        client.tcp.shutdown(std::net::Shutdown::Write).unwrap();
        let end = client.tcp_end();
        assert!(!String::from_utf8_lossy(&end).contains('<'), "{injected:?}: {end:?}");
    }
    // A stream after TLS knows nothing of the one before.
    let mut client = Client::connect(SERVER.plain);
    client.open("localhost");
    client.send(format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>{}</auth>",
        crate::client::b64("n,,n=clear,r=abc")
    ));
    client.expect_sasl().unwrap();
    client.send(STARTTLS);
    // XEP-0388 §2.4: nothing else while an exchange is under way.
    client.expect_error("not-authorized");
}

#[test]
fn row_27_no_stanza_is_taken_before_authentication_or_before_binding() {
    let stanzas = [
        "<message to='canary@localhost'><body>early</body></message>",
        "<presence/>",
        "<presence to='canary@localhost' type='subscribe'/>",
        "<iq type='get' id='e' to='canary@localhost/row27'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq type='result' id='e'/>",
        "<message xmlns='jabber:client' type='error'/>",
    ];
    let mut canary = Client::available(&SERVER, "canary", "row27");
    for stanza in stanzas {
        for listener in [SERVER.plain, SERVER.starttls] {
            let mut client = Client::connect(listener);
            client.open("localhost");
            client.send(stanza);
            client.expect_error("not-authorized");
        }
        for mut client in [Client::direct(&SERVER), Client::starttls(&SERVER, "localhost").0] {
            if client.tls.is_some() && client.transcript().is_empty() {
                client.open("localhost");
            }
            client.send(stanza);
            client.expect_error("not-authorized");
        }
        let (mut client, _) = Client::authenticated(&SERVER, "early27", "localhost");
        client.send(stanza);
        client.expect_error("not-authorized");
    }
    // What the server is asked is refused alone, and is not done: the client goes on as if it had not asked.
    let mut client = Client::connect(SERVER.starttls);
    client.open("localhost");
    client.send("<iq type='get' id='e'><ping xmlns='urn:xmpp:ping'/></iq>");
    client.expect_error("not-authorized");
    let mut client = Client::direct(&SERVER);
    client.open("localhost");
    for early in ["<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>", "<query xmlns='jabber:iq:roster'/>"] {
        client.send(format!("<iq type='set' id='e'>{early}</iq>"));
        let refused = client.expect("</iq>");
        assert!(refused.contains("type='error' id='e'") && refused.contains("<not-authorized "), "{refused}");
    }
    client.scram("SCRAM-SHA-1", "early27", "early27", ("n,,", b"")).expect("the password is right");
    assert_eq!(canary.sync(), "");
    // Children without end.
    let mut client = Client::session(&SERVER, "early27", "r");
    client.send("<message to='canary@localhost'>");
    let _ = client.try_send("<a/>".repeat(20_000).as_bytes());
    let heard = client.expect_error("policy-violation");
    assert!(heard.contains("elements"), "{heard}");
}

#[test]
fn row_28_a_stanza_is_refused_at_its_bound_not_at_its_end() {
    let mut client = Client::session(&SERVER, "endless", "r");
    client.send("<message to='canary@localhost'><body>");
    // Slightly more than 262,144 bytes, and never an end tag.
    for _ in 0..17 {
        let _ = client.try_send("x".repeat(16_000).as_bytes());
    }
    let heard = client.expect_error("policy-violation");
    assert!(heard.contains("at most 262144 allowed"), "{heard}");
}

#[test]
fn row_29_deep_nesting_is_refused_at_its_depth_and_ends_one_stream_alone() {
    for depth in [1_000, 5_000, 30_000] {
        let mut client = Client::session(&SERVER, "deep", "r");
        let _ = client.try_send(format!("<message to='canary@localhost'>{}", "<a>".repeat(depth)).as_bytes());
        let heard = client.expect_error("policy-violation");
        assert!(heard.contains("at most 64 allowed: depth"), "{heard}");
    }
    // The deepest that is allowed goes through everything: delivery, log, archive, carbons, an error.
    let nested = format!("<a xmlns='urn:a'>{}{}</a>", "<b>".repeat(62), "</b>".repeat(62));
    let mut client = Client::available(&SERVER, "deep", "ok");
    client.send("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    client.send(format!("<message to='deep@localhost' type='chat'><body>x</body>{nested}</message>"));
    client.expect(&"</b>".repeat(61));
    client
        .send(format!("<message to='nobody-at-all@localhost' type='chat' id='back'><body>x</body>{nested}</message>"));
    client.expect("type='error'");
    client.send("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>");
    client.expect("<forwarded ");
    client.expect(&"</b>".repeat(61));
    alive(&SERVER);
}

#[test]
fn row_36_big_tokens_byte_by_byte_cost_linear_time() {
    let server = measured();
    alive(&server);
    let attack = |text: &str| {
        let mut client = Client::connect(server.plain);
        client.open("localhost");
        let before = processor_seconds(&server);
        for byte in text.bytes() {
            if client.try_send(&[byte]).is_err() {
                break;
            }
        }
        client.expect_end();
        processor_seconds(&server) - before
    };
    // Twice the bytes, about twice the time; 9,000 reads of one byte are most of it.
    for (small, large) in [
        (format!("<a b='{}'/>", "x".repeat(4_000)), format!("<a b='{}'/>", "x".repeat(8_000))),
        (format!("<a>{}</a>", "x".repeat(4_000)), format!("<a>{}</a>", "x".repeat(8_000))),
    ] {
        let (short, long) = (attack(&small), attack(&large));
        assert!(long <= short * 4.0 + 0.3, "{short} s, then {long} s");
    }
    // More attributes and declarations than anybody needs end at the bound, not after them all.
    for tag in [
        format!("<a{}/>", (0..100_000).map(|n| format!(" a{n}='1'")).collect::<String>()),
        format!("<a{}/>", (0..100_000).map(|n| format!(" xmlns:p{n}='u'")).collect::<String>()),
        format!("<{}/>", "n".repeat(1_000_000)),
    ] {
        for authenticated in [false, true] {
            let mut client =
                if authenticated { Client::session(&server, "tokens", "r") } else { Client::connect(server.plain) };
            if !authenticated {
                client.open("localhost");
            }
            let before = processor_seconds(&server);
            let _ = client.try_send(tag.as_bytes());
            client.expect_error("policy-violation");
            let spent = processor_seconds(&server) - before;
            assert!(spent < 0.5, "{spent} s");
        }
    }
    alive(&server);
}

/// 2^17 names that a hash without a key, such as that of many languages' strings, cannot tell apart.
fn colliding() -> impl Iterator<Item = xmpp::BareJid> {
    (0..1_u32 << 17).map(|n| {
        let local: String = (0..17).map(|bit| if n >> bit & 1 == 0 { "a~" } else { "b_" }).collect();
        xmpp::BareJid::parse(&format!("{local}@localhost")).unwrap()
    })
}

#[test]
fn row_37_names_that_collide_elsewhere_are_spread_here() {
    use std::cell::Cell;
    use std::collections::{HashMap, HashSet};
    thread_local! {
        static COMPARED: Cell<usize> = const { Cell::new(0) };
    }
    #[derive(Eq)]
    struct Counted(xmpp::BareJid);
    impl std::hash::Hash for Counted {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }
    impl PartialEq for Counted {
        fn eq(&self, other: &Counted) -> bool {
            COMPARED.set(COMPARED.get() + 1);
            self.0 == other.0
        }
    }
    let polynomial =
        |text: &str| text.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    let hashes: HashSet<u32> = colliding().map(|name| polynomial(name.as_str())).collect();
    assert_eq!(hashes.len(), 1, "they do collide");
    let mut map: HashMap<Counted, ()> = HashMap::new();
    let mut count = 0;
    for name in colliding() {
        map.insert(Counted(name), ());
        count += 1;
    }
    assert_eq!(map.len(), count);
    // Where all lie in one place it would be half of the square of that.
    assert!(COMPARED.get() < count, "{} comparisons", COMPARED.get());
}

#[test]
fn row_37_no_map_here_has_a_hash_that_can_be_foreseen() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        for (line, text) in text.lines().enumerate() {
            let foreseen = ["FxHash", "FnvHash", "BuildHasherDefault", "with_hasher(", "nohash"];
            // Of what a hash with a random key gave already; of numbers that the server gives.
            let own = ["<Hashed>", "<NumberHasher>", "use std::hash"].iter().any(|name| text.contains(name));
            if !own && foreseen.iter().any(|name| text.contains(name)) {
                wrong.push(format!("{}:{}: {}", path.display(), line + 1, text.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn row_37_a_server_is_not_slowed_down_by_them() {
    let server = measured();
    let mut client = Client::available(&server, "collides", "r");
    let mut cost = |names: Vec<String>| {
        let before = processor_seconds(&server);
        for names in names.chunks(200) {
            let stanzas: String =
                names.iter().map(|name| format!("<message to='{name}@localhost'><body>x</body></message>")).collect();
            client.send(stanzas);
            client.sync();
        }
        processor_seconds(&server) - before
    };
    let many = 4_000;
    let ordinary = cost((0..many).map(|n| format!("ordinary-name-with-as-many-lett{n:04}")).collect());
    let awkward = cost(colliding().take(many).map(|name| name.local().unwrap().to_owned()).collect());
    assert!(awkward <= 3.0 * ordinary + 0.2, "{awkward} s instead of {ordinary}");
}

#[test]
fn row_38_memory_stays_in_proportion_to_what_was_sent() {
    let server = measured();
    alive(&server);
    // The most elements in the fewest bytes, none of the stanzas ended.
    let half = format!("<message to='canary@localhost'>{}", "<a/>".repeat(9_990));
    let mut held: Vec<Client> = (0..20).map(|n| Client::session(&server, &format!("m{n}"), "r")).collect();
    let before = server.resident_bytes();
    for client in &mut held {
        client.send(&half);
    }
    std::thread::sleep(Duration::from_millis(500));
    let grown = server.resident_bytes().saturating_sub(before) as usize;
    let sent = half.len() * held.len();
    assert!(grown <= sent * 8 + (8 << 20), "grew by {grown} bytes for {sent} sent");
    for client in &mut held {
        client.send("</message>");
        client.sync();
    }
}

#[test]
fn row_39_a_client_hello_in_single_bytes_is_a_client_hello() {
    for listener in [SERVER.direct, SERVER.starttls] {
        let mut client = Client::connect(listener);
        if listener == SERVER.starttls {
            client.open("localhost");
            client.send(STARTTLS);
            client.expect("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        }
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = ClientConnection::new(Arc::new(tls_config(None)), name).unwrap();
        let mut hello = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut hello).unwrap();
        }
        for byte in hello {
            client.tcp.write_all(&[byte]).unwrap();
        }
        client.tcp.set_read_timeout(Some(crate::server::PATIENCE)).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut client.tcp).unwrap();
        }
        client.tls = Some(Box::new(tls));
        client.open("localhost");
    }
    // Records of one byte each: a handshake message in many fragments.
    let mut client = Client::connect(SERVER.direct);
    let mut tls =
        ClientConnection::new(Arc::new(tls_config(None)), ServerName::try_from("localhost").unwrap()).unwrap();
    let mut hello = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut hello).unwrap();
    }
    for byte in &hello[5..] {
        client.tcp.write_all(&[22, 3, 1, 0, 1, *byte]).unwrap();
    }
    client.tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // Taken or refused; the server goes on.
    while tls.is_handshaking() && tls.complete_io(&mut client.tcp).is_ok() {}
    alive(&SERVER);
}

#[test]
fn row_41_strangers_cannot_tell_who_is_there() {
    // Away, here, and nobody: all the same to a stranger.
    SERVER.ensure("away41@localhost");
    let _here = Client::available(&SERVER, "here41", "r");
    let mut stranger = Client::available(&SERVER, "stranger41", "r");
    let requests = [
        "<ping xmlns='urn:xmpp:ping'/>",
        "<query xmlns='jabber:iq:last'/>",
        "<query xmlns='jabber:iq:version'/>",
        "<query xmlns='http://jabber.org/protocol/disco#info'/>",
        "<query xmlns='http://jabber.org/protocol/disco#items'/>",
        "<vCard xmlns='vcard-temp'/>",
        "<time xmlns='urn:xmpp:time'/>",
        "<query xmlns='jabber:iq:roster'/>",
        "<query xmlns='urn:xmpp:mam:2'/>",
        "<unknown xmlns='urn:unknown'/>",
    ];
    for request in requests {
        for resource in ["", "/guess"] {
            let mut answers = Vec::new();
            for name in ["away41", "here41", "nobody41"] {
                stranger.send(format!("<iq type='get' id='x' to='{name}@localhost{resource}'>{request}</iq>"));
                let heard = stranger.expect("</iq>|/>");
                let heard =
                    if heard.ends_with("/>") && !heard.starts_with("<iq") { heard } else { heard + &stranger.sync() };
                answers.push(heard.replace(name, "NAME"));
            }
            answers.dedup();
            assert_eq!(answers.len(), 1, "{request}: {answers:#?}");
        }
    }
    // Presence is told to nobody who has no subscription: a probe has the same answer for all.
    stranger.sync();
    let mut answers = Vec::new();
    for name in ["away41", "here41", "nobody41"] {
        stranger.send(format!("<presence type='probe' id='p' to='{name}@localhost'/>"));
        let heard = stranger.expect("/>");
        assert!(heard.contains("type='unsubscribed'"), "{heard}");
        answers.push(heard.replace(name, "NAME"));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:#?}");
    assert_eq!(stranger.sync(), "");
}

#[test]
fn row_44_errors_are_not_answered_and_nothing_grows_towards_strangers() {
    let mut sender = Client::available(&SERVER, "loop44", "r");
    for stanza in [
        "<message type='error' to='nobody44@localhost' id='e1'><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>",
        "<iq type='error' to='nobody44@localhost' id='e2'><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>",
        "<iq type='result' to='nobody44@localhost/x' id='e3'/>",
        "<presence type='error' to='nobody44@localhost' id='e4'/>",
        "<presence type='unsubscribed' to='nobody44@localhost' id='e6'/>",
        "<message type='error' to='elsewhere.example' id='e7'/>",
        "<iq type='result' to='elsewhere.example' id='e8'/>",
        "<presence to='somebody@elsewhere.example' type='unavailable' id='e9'/>",
    ] {
        sender.send(stanza);
        let id = between(stanza, "id='", "'");
        sender.sync();
        let heard = sender.sync();
        assert!(!heard.contains(&format!("id='{id}'")), "{stanza}: {heard}");
    }
    // What arrives at a stranger is what was sent and a stamp.
    let mut stranger = Client::available(&SERVER, "stranger44", "r");
    let message =
        format!("<message to='stranger44@localhost' type='chat'><body>{}</body></message>", "x".repeat(2_000));
    for _ in 0..5 {
        sender.send(&message);
    }
    let mut heard = 0;
    for _ in 0..5 {
        heard += stranger.expect("</message>").len();
    }
    assert!(heard as f64 <= 1.2 * (5 * message.len()) as f64, "{heard} bytes for {}", 5 * message.len());
    // What comes back to a sender is no more than he sent, and an error.
    sender.send(message.replace("stranger44", "nobody44"));
    let heard = sender.expect("</message>").len();
    assert!(heard as f64 <= 1.2 * message.len() as f64, "{heard} bytes for {}", message.len());
}
