//! Start, reload and end, as streams and operators see them.

use crate::client::{Client, attribute};
use crate::server::{Server, eventually, run};
use std::sync::atomic::{AtomicU32, Ordering};

#[test]
fn a_terminated_server_tells_every_stream_and_ends_well() {
    let server = Server::start("[limits]\nrates = false\n");
    let mut bound = Client::available(&server, "bound", "r");
    let mut managed = Client::available(&server, "managed", "r");
    managed.manage();
    let mut direct = Client::direct(&server);
    direct.open("localhost");
    let (mut negotiating, _) = Client::authenticated(&server, "bound", "localhost");
    let mut silent = Client::connect(server.plain);
    bound.send("<message to='managed@localhost' id='last'><body>last words</body></message>");
    managed.expect("<body>last words</body>");
    server.signal("TERM");
    for client in [&mut bound, &mut managed, &mut direct, &mut negotiating] {
        client.expect_error("system-shutdown");
    }
    silent.expect_end();
    let status = server.ended();
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(Client::try_connect(crate::client::own_address(), server.plain).is_err(), "nobody listens");
}

#[test]
fn what_was_acknowledged_before_the_end_is_there_after_a_new_start() {
    let config = "[limits]\nrates = false\n";
    let mut server = Server::start(config);
    server.ensure("away@localhost");
    let mut client = Client::available(&server, "writer", "r");
    client.manage();
    client
        .send("<message to='away@localhost' id='1'><body>kept over the end</body></message><r xmlns='urn:xmpp:sm:3'/>");
    client.expect("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    server.signal("KILL");
    server.ended();
    server.restart();
    let mut away = Client::session(&server, "away", "r");
    away.send("<presence/>");
    away.expect("<body>kept over the end</body>");
}

/// Writes numbered messages and asks for acknowledgement after each ten, until the server says that it ends. Gives how
/// many were acknowledged; `counts` meanwhile.
fn writes_until_the_end(client: &mut Client, to: &str, counts: &AtomicU32) -> u32 {
    let (mut sent, mut acked) = (0, 0);
    loop {
        let mut batch = String::new();
        for _ in 0..10 {
            sent += 1;
            batch += &format!("<message to='{to}' type='chat'><body>number {sent}</body></message>");
        }
        // (The end may come in the middle of it.)
        let _ = client.try_send((batch + "<r xmlns='urn:xmpp:sm:3'/>").as_bytes());
        let heard = client.expect(&format!("<a xmlns='urn:xmpp:sm:3' h='{sent}'/>|</stream:stream>"));
        for said in heard.split("<a xmlns='urn:xmpp:sm:3' h='").skip(1) {
            acked = said.split('\'').next().unwrap().parse().unwrap();
        }
        counts.store(acked, Ordering::Relaxed);
        if heard.ends_with("</stream:stream>") {
            assert!(heard.contains("<system-shutdown "), "{heard}");
            return acked;
        }
    }
}

#[test]
fn a_server_that_ends_under_load_keeps_all_that_it_acknowledged_once_and_in_order() {
    let config = "[limits]\nrates = false\noffline_messages_max = 100000\n";
    let mut server = Server::start(config);
    let names = ["w1", "w2", "w3", "w4"];
    let mut writers: Vec<Client> = names
        .iter()
        .map(|name| {
            server.ensure(&format!("for-{name}@localhost"));
            let mut client = Client::available(&server, name, "r");
            client.manage();
            client
        })
        .collect();
    let counts: [AtomicU32; 4] = Default::default();
    let acked: Vec<u32> = std::thread::scope(|scope| {
        let busy: Vec<_> = writers
            .iter_mut()
            .zip(names)
            .zip(&counts)
            .map(|((client, name), count)| {
                scope.spawn(move || writes_until_the_end(client, &format!("for-{name}@localhost"), count))
            })
            .collect();
        eventually("all write", || counts.iter().all(|count| count.load(Ordering::Relaxed) >= 50));
        server.signal("TERM");
        busy.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert!(server.ended().success(), "{}", server.log());
    server.restart();
    for (name, acked) in names.iter().zip(acked) {
        let mut reader = Client::session(&server, &format!("for-{name}"), "r");
        reader.send("<presence/>");
        let heard = reader.expect(&format!("<body>number {acked}</body>"));
        let numbers: Vec<u32> =
            heard.split("<body>number ").skip(1).map(|rest| rest.split('<').next().unwrap().parse().unwrap()).collect();
        assert_eq!(numbers, (1..=acked).collect::<Vec<_>>(), "{name}");
    }
}

// XEP-0198 §4: what the client says that it has is not given to it again.
#[test]
fn a_terminated_server_waits_for_the_last_acknowledgement() {
    let config = "[limits]\nrates = false\n";
    let mut server = Server::start(config);
    let mut reader = Client::available(&server, "reader", "r");
    reader.manage();
    let mut writer = Client::available(&server, "writer", "r");
    writer.send("<message to='reader@localhost' type='chat'><body>one</body></message>");
    writer.sync();
    reader.expect("<body>one</body>");
    server.signal("TERM");
    writer.expect_error("system-shutdown");
    reader.send("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    let last = reader.expect_error("system-shutdown");
    // Our own last word on what was handled.
    assert!(last.contains("<a xmlns='urn:xmpp:sm:3' h='0'/>"), "{last}");
    assert!(server.ended().success());
    server.restart();
    let mut reader = Client::available(&server, "reader", "r");
    let heard = reader.sync() + &reader.hear(std::time::Duration::from_millis(500));
    assert!(!heard.contains("<body>"), "{heard}");
}

#[test]
fn who_does_not_acknowledge_does_not_hold_up_the_end_and_is_given_it_again() {
    let config = "[limits]\nrates = false\n";
    let mut server = Server::start(config);
    let mut reader = Client::available(&server, "reader", "r");
    reader.manage();
    let mut writer = Client::available(&server, "writer", "r");
    writer.send("<message to='reader@localhost' type='chat'><body>one</body></message>");
    writer.sync();
    reader.expect("<body>one</body>");
    server.signal("TERM");
    reader.expect_error("system-shutdown");
    assert!(server.ended().success());
    server.restart();
    let mut reader = Client::session(&server, "reader", "r");
    reader.send("<presence/>");
    reader.expect("<body>one</body>");
}

#[test]
fn a_hangup_changes_limits_and_hosts_for_new_streams_and_says_what_waits() {
    let server = Server::start("[limits]\nrates = false\nbefore_auth_bytes_max = 11000\n");
    let mut old = Client::connect(server.plain);
    assert!(old.open("localhost").contains("<max-bytes>11000</max-bytes>"));
    let file = server.folder.join("waft.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text
        .replace("11000", "12000")
        .replace("[host.\"localhost\"]", "[host.\"localhost\"]\n[host.\"added.localhost\"]");
    let other = crate::server::free_address();
    let text = text.replacen(&server.direct.to_string(), &other.to_string(), 1);
    std::fs::write(&file, text).unwrap();
    server.signal("HUP");
    eventually("the reload is told", || server.log().contains("the configuration was read again"));
    let mut new = Client::connect(server.plain);
    assert!(new.open("added.localhost").contains("<max-bytes>12000</max-bytes>"));
    assert!(server.log().contains("listen"), "the listener waits for a restart:\n{}", server.log());
    Client::direct(&server);
    // An error changes nothing.
    std::fs::write(&file, "[limits]\nnonsense = 1\n").unwrap();
    server.signal("HUP");
    eventually("the error is told", || server.log().contains("nonsense"));
    let mut new = Client::connect(server.plain);
    assert_eq!(attribute(&new.open("added.localhost"), "from"), "added.localhost");
}

#[test]
fn no_password_key_or_body_is_logged() {
    let server = Server::start("[log]\nlevel = \"trace\"\n[limits]\nrates = false\n");
    server.ask(&serde_json::json!({"do": "user-add", "jid": "quiet@localhost", "password": "open sesame 1"}));
    let mut client = Client::direct(&server);
    client.open("localhost");
    client.send(format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{}</auth>",
        crate::client::plain("", "quiet", "open sesame 1")
    ));
    client.expect("<success ");
    client.open("localhost");
    client.bind("r");
    client.send("<presence/><message to='quiet@localhost' type='chat'><body>between us alone</body></message>");
    client.expect("between us alone");
    client.send("<iq type='set' id='p'><query xmlns='jabber:iq:register'><username>quiet</username><password>open sesame 2</password></query></iq>");
    client.expect("id='p'");
    let mut other = Client::connect(server.plain);
    other.open("localhost");
    other.scram("SCRAM-SHA-256", "quiet", "open sesame 2", ("n,,", b"")).unwrap();
    server.signal("TERM");
    server.ended();
    let log = server.log();
    assert!(log.contains("authenticated"), "{log}");
    let plain = crate::client::plain("", "quiet", "open sesame 1");
    for secret in ["open sesame", "between us", &plain] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

// RFC 6120 §4.9.3.5.
#[test]
fn a_host_that_goes_with_a_hangup_ends_the_streams_of_its_users_and_no_others() {
    let server = Server::start("[limits]\nrates = false\n[host.\"localhost\"]\n[host.\"goes.localhost\"]\n");
    let (mut goes, _) = Client::authenticated(&server, "anna", "goes.localhost");
    goes.bind("r");
    let mut stays = Client::available(&server, "bert", "r");
    let file = server.folder.join("waft.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("[host.\"goes.localhost\"]", "")).unwrap();
    server.signal("HUP");
    goes.expect_error("host-gone");
    stays.sync();
    let mut late = Client::connect(server.plain);
    late.send(crate::client::header("goes.localhost"));
    late.expect_error("host-unknown");
}

#[test]
fn a_second_server_on_the_folder_or_the_port_says_why_it_cannot() {
    let server = Server::start("");
    let (status, out, error) = run(&server.folder, &server.folder.join("waft.toml"));
    assert!(!status.success() && !out.contains("ready"), "{out}");
    assert!(error.contains(server.folder.to_str().unwrap()), "{error}");
    let other = Server::start("");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("waft.toml");
    std::fs::write(&file, format!("[[listen]]\naddress = \"{}\"\n", other.plain)).unwrap();
    let data = folder.path().join("data");
    let (status, _, error) = run(&data, &file);
    assert!(!status.success());
    assert!(error.contains(&other.plain.to_string()) && error.contains("another process listens there"), "{error}");
}

#[test]
fn a_renewed_certificate_is_shown_to_new_connections_and_old_streams_stay() {
    let server = Server::start("[limits]\nrates = false\n");
    server.ensure("renewed@localhost");
    let mut old = Client::direct(&server);
    old.open("localhost");
    old.scram("SCRAM-SHA-1", "renewed", "renewed", ("n,,", b"")).unwrap();
    old.open("localhost");
    old.bind("r");
    let shown = |client: &Client| client.tls.as_ref().unwrap().peer_certificates().unwrap()[0].to_vec();
    let before = shown(&old);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
    let folder = server.folder.join("certificates");
    // Without its key it changes nothing.
    std::fs::write(folder.join("localhost.pem"), certificate.pem()).unwrap();
    eventually("that is said", || server.log().contains("do not belong together"));
    assert_eq!(shown(&Client::direct(&server)), before);
    std::fs::write(folder.join("localhost.key"), key.serialize_pem()).unwrap();
    eventually("the new one is shown", || shown(&Client::direct(&server)) == certificate.der().to_vec());
    old.sync();
}
