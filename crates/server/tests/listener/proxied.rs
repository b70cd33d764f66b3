//! The listener behind a proxy: PROXY protocol, versions 1 and 2.

use crate::client::{Client, header};
use crate::server::{Server, eventually};
use std::sync::LazyLock;

static SERVER: LazyLock<Server> =
    LazyLock::new(|| Server::start("[log]\nlevel = \"debug\"\n[limits]\nrates = false\nfirst_byte_seconds = 2\n"));

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    [SIGNATURE, &[0x20 | command, family], &(body.len() as u16).to_be_bytes(), body].concat()
}

/// Logs in behind this header and looks up which address the log names.
#[track_caller]
fn logged_address(user: &str, head: &[u8], address: &str) {
    SERVER.ensure(&format!("{user}@localhost"));
    let mut client = Client::connect(SERVER.proxied);
    client.send([head, header("localhost").as_bytes()].concat());
    client.expect("</stream:features>");
    client.scram("SCRAM-SHA-1", user, user, ("n,,", b"")).unwrap();
    eventually(address, || {
        SERVER.log().lines().any(|line| line.contains(user) && line.contains(&format!("address={address}")))
    });
}

#[test]
fn both_versions_name_the_client_for_limits_and_logs() {
    logged_address("text4", b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 5222\r\n", "192.0.2.7");
    logged_address("text6", b"PROXY TCP6 2001:db8::7 2001:db8::1 4000 5222\r\n", "2001:db8::7");
    logged_address("binary4", &binary(1, 0x11, &[192, 0, 2, 9, 192, 0, 2, 1, 0x0f, 0xa0, 0x14, 0x66]), "192.0.2.9");
    let mut six = [0; 36];
    six[..16].copy_from_slice(&"2001:db8::9".parse::<std::net::Ipv6Addr>().unwrap().octets());
    // With an extension behind the addresses.
    logged_address("binary6", &binary(1, 0x21, &[&six[..], &[0x04, 0, 3, 1, 2, 3]].concat()), "2001:db8::9");
}

#[test]
fn a_header_in_pieces_is_one_header() {
    for head in [b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 5222\r\n".to_vec(), binary(0, 0, &[])] {
        let mut client = Client::connect(SERVER.proxied);
        for byte in head {
            client.send([byte]);
        }
        client.open("localhost");
    }
}

#[test]
fn what_is_no_header_gets_no_answer() {
    for head in [
        header("localhost").into_bytes(),
        b"PROXY TCP4 nonsense\r\n".to_vec(),
        binary(1, 0x11, &[1, 2]),
        vec![0x16, 3, 1],
    ] {
        let mut client = Client::connect(SERVER.proxied);
        client.send(head);
        assert_eq!(client.expect_end(), "");
    }
}

#[test]
fn a_header_on_a_listener_that_asks_for_none_is_no_stream() {
    let mut client = Client::connect(SERVER.plain);
    client.send("PROXY TCP4 192.0.2.7 192.0.2.1 4000 5222\r\n");
    client.expect_error("not-well-formed");
}
