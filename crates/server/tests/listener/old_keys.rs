//! Accounts that came from another server with keys of SCRAM-SHA-1 alone, and what their domain offers.

use crate::client::{Client, plain};
use crate::sasl::mechanisms;
use crate::server::{PATIENCE, Server};
use std::time::{Duration, Instant};

/// The keys of "pencil" in the example of RFC 5802 §5.
const KEYS: &str = "<scram-credentials xmlns='urn:xmpp:pie:0#scram' mechanism='SCRAM-SHA-1'><iter-count>4096</iter-count>\
                    <salt>QSXCR+Q6sek8bf92</salt><server-key>D+CSWLOshSulAsxiupA+qs2/fTE=</server-key>\
                    <stored-key>6dlGYMOdZcOPutkcNY8U2g7vK9Y=</stored-key></scram-credentials>";

fn move_in(server: &Server, name: &str, domain: &str) {
    let folder = server.folder.join("import");
    std::fs::create_dir_all(&folder).unwrap();
    let file = format!("{name}.xml");
    let text = format!(
        "<server-data xmlns='urn:xmpp:pie:0'><host jid='{domain}'><user name='{name}'>{KEYS}</user></host></server-data>"
    );
    std::fs::write(folder.join(&file), text).unwrap();
    let moved = serde_json::json!({"do": "act", "act": {"do": "move-in", "jid": format!("{name}@{domain}"), "file": file, "dry": false}});
    let answer = server.ask(&moved);
    assert_eq!(answer["value"]["state"], "made", "{answer}");
}

/// A connection on which SCRAM-SHA-256 is offered, or is not, as wanted: which it is soon after accounts came or went.
fn offered(server: &Server, host: &str, sha256: bool) -> Client {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (client, features) = Client::starttls(server, host);
        let offered = mechanisms(&features);
        assert!(offered.iter().any(|it| it == "SCRAM-SHA-1"), "{features}");
        let [plus, plain] = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"].map(|name| offered.iter().any(|it| it == name));
        if plus == sha256 && plain == sha256 {
            return client;
        }
        assert!(Instant::now() < deadline, "{features}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_domain_whose_accounts_came_with_sha_1_alone_offers_it_until_each_has_more() {
    let mut server = Server::start("[host.\"old.localhost\"]\n");
    offered(&server, "old.localhost", true);
    for name in ["juliet", "romeo"] {
        move_in(&server, name, "old.localhost");
    }
    let mut client = offered(&server, "old.localhost", false);
    client.scram("SCRAM-SHA-1", "juliet", "pencil", ("n,,", b"")).expect("the old password is good");
    // What is not offered is not taken; strangers are answered like everybody.
    let mut client = offered(&server, "old.localhost", false);
    for user in ["juliet", "nobody"] {
        let refused = client.scram("SCRAM-SHA-256", user, "pencil", ("n,,", b""));
        assert_eq!(refused.err().as_deref(), Some("invalid-mechanism"));
    }
    // Other domains are as they were.
    offered(&server, "localhost", true);

    // Whoever says the password has keys of both from then on; the domain waits for the last.
    let mut client = offered(&server, "old.localhost", false);
    client.send(format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{}</auth>",
        plain("", "juliet", "pencil")
    ));
    client.expect_sasl().expect("the old password is good");
    server.signal("TERM");
    server.ended();
    server.restart();
    let mut client = offered(&server, "old.localhost", false);
    client.scram("SCRAM-SHA-1", "romeo", "pencil", ("n,,", b"")).expect("the old password is good");
    let passwd = serde_json::json!({"do": "user-passwd", "jid": "romeo@old.localhost", "password": "pen"});
    assert_eq!(server.ask(&passwd)["is"], "done");
    for (name, password) in [("juliet", "pencil"), ("romeo", "pen")] {
        let mut client = offered(&server, "old.localhost", true);
        client.scram("SCRAM-SHA-256", name, password, ("n,,", b"")).expect("there are keys of both");
    }
}

#[test]
fn a_few_that_came_with_sha_1_alone_do_not_take_sha_256_from_the_others() {
    let server = Server::start("[host.\"mixed.localhost\"]\n");
    for name in ["alice", "bob"] {
        server.add(&format!("{name}@mixed.localhost"));
    }
    move_in(&server, "juliet", "mixed.localhost");
    let deadline = Instant::now() + PATIENCE;
    // It was counted, and decided.
    loop {
        let answer = server.ask(&serde_json::json!({"do": "act", "act": {"do": "domain-list"}}));
        let domains = answer["value"].as_array().unwrap_or_else(|| panic!("{answer}"));
        let mixed = domains.iter().find(|it| it["domain"] == "mixed.localhost").unwrap();
        if mixed["accounts_with_sha1_alone"] == 1 {
            assert_eq!(mixed["sha256_held_back"], false);
            break;
        }
        assert!(Instant::now() < deadline, "{answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut client = offered(&server, "mixed.localhost", true);
    // A client that goes on to the next mechanism gets in.
    let refused = client.scram("SCRAM-SHA-256", "juliet", "pencil", ("n,,", b""));
    assert_eq!(refused.err().as_deref(), Some("not-authorized"));
    client.scram("SCRAM-SHA-1", "juliet", "pencil", ("n,,", b"")).expect("the old password is good");
}
