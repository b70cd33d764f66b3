//! One who has very many contacts: what comes by the thousand at login.

use crate::client::Client;
use crate::server::Server;
use std::collections::HashSet;
use std::time::Duration;

const CONTACTS: usize = 130;
/// Of each contact: as many as an account may have.
const RESOURCES: usize = 16;

const R: &str = "<r xmlns='urn:xmpp:sm:3'/>";

/// Full JIDs of contacts that the text shows.
fn shown(text: &str, into: &mut HashSet<String>) {
    for presence in text.split("<presence ").skip(1) {
        let from = presence.split("from='").nth(1).and_then(|rest| rest.split('\'').next()).unwrap_or_default();
        if from.starts_with('c') && from.contains('/') {
            into.insert(from.to_owned());
        }
    }
}

fn stanzas(text: &str) -> u32 {
    ["<presence ", "<message ", "<iq "].iter().map(|name| text.matches(name).count() as u32).sum()
}

/// `hub` and its contacts, who see each other; all the contacts' resources are there.
fn crowd(server: &Server) -> Vec<Client> {
    let mut hub = Client::session(server, "hub", "first");
    for n in 0..CONTACTS {
        server.ensure(&format!("c{n}@localhost"));
        hub.send(format!("<presence to='c{n}@localhost' type='subscribe'/>"));
    }
    hub.sync();
    drop(hub);
    let mut crowd = Vec::with_capacity(CONTACTS * RESOURCES);
    for n in 0..CONTACTS {
        for r in 0..RESOURCES {
            let mut client = Client::session(server, &format!("c{n}"), &format!("r{r}"));
            client.send("<presence/>");
            if r == 0 {
                client.send("<presence to='hub@localhost' type='subscribed'/>");
            }
            client.sync();
            crowd.push(client);
        }
    }
    crowd
}

// LIMITS.md §1: what may be unacknowledged is less than what a login brings.
#[test]
fn a_client_with_two_thousand_resources_of_contacts_logs_in_and_hears_of_all() {
    let server = Server::with_files(8_192, "[limits]\nrates = false\n");
    let mut crowd = crowd(&server);
    let all = CONTACTS * RESOURCES;
    let before = server.resident_bytes();

    // With acknowledgements, none of which comes at first.
    let mut hub = Client::session(&server, "hub", "managed");
    hub.manage();
    hub.send("<presence/>");
    let mut heard = hub.hear(Duration::from_secs(2));
    let mut seen = HashSet::new();
    shown(&heard, &mut seen);
    assert!(seen.len() >= 500 && seen.len() <= 750, "{} of {all}", seen.len());
    // A message is not held up by the rest.
    crowd[0].send("<message to='hub@localhost/managed' type='chat'><body>among the crowd</body></message>");
    heard += &hub.expect("<body>among the crowd</body>");
    let mut count = stanzas(&heard);
    hub.send(format!("<a xmlns='urn:xmpp:sm:3' h='{count}'/>"));
    while seen.len() < all {
        let more = hub.expect(R);
        shown(&more, &mut seen);
        count += stanzas(&more);
        hub.send(format!("<a xmlns='urn:xmpp:sm:3' h='{count}'/>"));
    }
    hub.sync();

    // And without.
    let mut plain = Client::session(&server, "hub", "plain");
    plain.send("<presence/>");
    std::thread::sleep(Duration::from_millis(500));
    let mut seen = HashSet::new();
    while seen.len() < all {
        shown(&plain.expect("/>"), &mut seen);
    }
    plain.sync();
    let grown = server.resident_bytes().saturating_sub(before);
    // What the allocator keeps of the first burst (20 to 30 MiB) is not given back at once; a backlog without bound would
    // be beyond this.
    assert!(grown < 64 << 20, "grew by {grown} bytes");
}
