//! Start, reload and end, as streams and operators see them.

use crate::client::{Client, attribute};
use crate::server::{Server, eventually, run};

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
