//! What is done to the server. Each attack gives how often it did it.

use crate::Size;
use crate::client::{Client, Got};
use crate::peer::{self, HEADER};
use crate::server::{MUTE, PASSWORD, Server, USERS, user};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub type Attack = fn(&Server, Size) -> io::Result<u64>;

/// Name, what it is, and the attack.
pub const ALL: &[(&str, &str, Attack)] = &[
    ("nothing", "to compare with", nothing),
    ("silent", "connections that say nothing", silent),
    ("slow", "a byte now and then", slow),
    ("half", "an element that does not end, in each connection", half),
    ("tls", "half a handshake, and what is none", tls),
    ("storm", "connections that come and go", storm),
    ("guesses", "logins with wrong passwords", guesses),
    ("xml", "entities, elements and depth without end, before authentication", xml),
    ("readers", "sessions that are sent much and read nothing", readers),
    ("messages", "messages as fast as they are taken", messages),
    ("presence", "presence, to contacts and to anybody", presence),
    ("iqs", "requests that cost something", iqs),
    ("strangers", "messages to addresses that do not exist", strangers),
    ("huge", "the largest stanzas that are allowed: bytes, elements, depth", huge),
    ("too-huge", "larger ones", too_huge),
    ("relogin", "sessions that come and go", relogin),
    ("domains", "messages to domains that do not answer", domains),
    ("dialback", "keys of many domains, and answers that nobody asked for", dialback),
];

/// Threads that a flood comes from.
const THREADS: usize = 4;

fn nothing(_: &Server, size: Size) -> io::Result<u64> {
    std::thread::sleep(size.length);
    Ok(0)
}

/// Runs `work` on some threads until the time is over; it gives how often it did what it does.
fn flood(size: Size, work: impl Fn(usize, &dyn Fn() -> bool) -> io::Result<u64> + Sync) -> io::Result<u64> {
    let until = Instant::now() + size.length;
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (done, work) = (&done, &work);
            scope.spawn(move || {
                while Instant::now() < until {
                    // The server may end any of it; then it begins again.
                    match work(thread, &|| Instant::now() < until) {
                        Ok(count) => done.fetch_add(count, Ordering::Relaxed),
                        Err(_) => {
                            std::thread::sleep(Duration::from_millis(20));
                            done.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            });
        }
    });
    Ok(done.load(Ordering::Relaxed))
}

/// Opens connections from many addresses, 40 of each, and holds them.
fn hold(size: Size, to: SocketAddr, says: &[u8]) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for n in 0..size.connections {
        let Ok(mut tcp) = peer::connect(peer::botnet(n / 40), to) else { continue };
        let _ = peer::push(&mut tcp, says);
        held.push(tcp);
    }
    held
}

fn silent(server: &Server, size: Size) -> io::Result<u64> {
    let held = hold(size, server.clients, b"");
    std::thread::sleep(size.length);
    Ok(held.len() as u64)
}

fn slow(server: &Server, size: Size) -> io::Result<u64> {
    let mut held = hold(size, server.clients, b"<");
    let until = Instant::now() + size.length;
    let mut bytes = 0;
    for byte in HEADER.as_bytes()[1..].iter().cycle() {
        held.retain_mut(|tcp| peer::push(tcp, &[*byte]).is_ok());
        bytes += held.len() as u64;
        if Instant::now() >= until {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(bytes)
}

fn half(server: &Server, size: Size) -> io::Result<u64> {
    let says = format!("{HEADER}<a>{}", "x".repeat(9_500));
    let held = hold(size, server.clients, says.as_bytes());
    std::thread::sleep(size.length);
    Ok(held.len() as u64)
}

fn tls(server: &Server, size: Size) -> io::Result<u64> {
    // The first bytes of a ClientHello of 500, and nothing of the rest.
    let mut held = hold(
        Size { connections: size.connections / 2, ..size },
        server.direct,
        b"\x16\x03\x01\x01\xf4\x01\x00\x01\xf0\x03\x03",
    );
    held.extend(hold(Size { connections: size.connections / 2, ..size }, server.direct, &[0x80; 300]));
    std::thread::sleep(size.length);
    Ok(held.len() as u64)
}

fn storm(server: &Server, size: Size) -> io::Result<u64> {
    let turn = AtomicU64::new(0);
    flood(size, |_, _| {
        let n = turn.fetch_add(1, Ordering::Relaxed) as usize;
        let mut tcp = peer::connect(peer::botnet(n % 5_000), server.clients)?;
        if n.is_multiple_of(2) {
            tcp.write_all(HEADER.as_bytes())?;
        }
        Ok(1)
    })
}

fn guesses(server: &Server, size: Size) -> io::Result<u64> {
    let turn = AtomicU64::new(0);
    flood(size, |_, _| {
        let n = turn.fetch_add(1, Ordering::Relaxed) as usize;
        let tcp = peer::connect(peer::botnet(n % 200), server.clients)?;
        // Wrong passwords of those who are, and of those who are not.
        let _ = Client::over(tcp, &user(n % (2 * USERS)), "a wrong one");
        Ok(1)
    })
}

fn xml(server: &Server, size: Size) -> io::Result<u64> {
    let says = [
        format!("{HEADER}<!DOCTYPE a [<!ENTITY l 'ha'><!ENTITY m '&l;&l;&l;&l;&l;&l;'>]><a>&m;</a>"),
        format!("{HEADER}{}", "<a/>".repeat(100_000)),
        format!("{HEADER}{}", "<a>".repeat(100_000)),
        format!("{HEADER}<a {}/>", (0..20_000).map(|n| format!("a{n}='' ")).collect::<String>()),
        format!("{HEADER}<a {}/>", (0..20_000).map(|n| format!("xmlns:a{n}='u' ")).collect::<String>()),
        format!("{HEADER}<{}/>", "a".repeat(1 << 20)),
        format!("{HEADER}<a b='{}'/>", "x".repeat(1 << 20)),
    ];
    let turn = AtomicU64::new(0);
    flood(size, |_, _| {
        let n = turn.fetch_add(1, Ordering::Relaxed) as usize;
        let mut tcp = peer::connect(peer::botnet(n % 2_000), server.clients)?;
        tcp.set_write_timeout(Some(Duration::from_secs(1)))?;
        let _ = tcp.write_all(says[n % says.len()].as_bytes());
        peer::drain(&mut tcp);
        Ok(1)
    })
}

/// A session of one of the attackers' accounts, from an address of its own.
fn session(server: &Server, n: usize, resource: &str) -> io::Result<Client> {
    let tcp = peer::connect(peer::own_address(2 + n), server.clients)?;
    let mut client = Client::over(tcp, &user(n % USERS), PASSWORD)?;
    client.bind(resource, false)?;
    client.send("<presence/>")?;
    Ok(client)
}

/// Says something again and again, and reads what comes.
fn says(client: &mut Client, goes_on: &dyn Fn() -> bool, text: impl Fn(u64) -> String) -> io::Result<u64> {
    let mut n = 0;
    while goes_on() {
        client.send(&text(n))?;
        n += 1;
        while let Got::Element(_) = client.next(Duration::from_micros(50))? {}
    }
    Ok(n)
}

fn readers(server: &Server, size: Size) -> io::Result<u64> {
    // They log in and then read nothing; what they ask for is much, and others write to them.
    let mut deaf = Vec::new();
    for n in 0..8 {
        let mut client = session(server, 8 + n, "deaf")?;
        for id in 0..50 {
            client.send(&format!(
                "<iq type='get' id='{id}'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>"
            ))?;
        }
        deaf.push(client);
    }
    let body = "y".repeat(8_000);
    flood(size, |thread, goes_on| {
        let mut client = session(server, thread, "loud")?;
        says(&mut client, goes_on, |n| {
            let to = user(8 + n as usize % 8);
            format!("<message to='{to}@localhost/deaf' type='chat' id='{n}'><body>{body}</body></message>")
        })
    })
}

fn messages(server: &Server, size: Size) -> io::Result<u64> {
    flood(size, |thread, goes_on| {
        let mut client = session(server, thread, "loud")?;
        let to = user((thread + 1) % THREADS);
        says(&mut client, goes_on, |n| {
            format!("<message to='{to}@localhost' type='chat' id='{n}'><body>{n}</body></message>")
        })
    })
}

fn presence(server: &Server, size: Size) -> io::Result<u64> {
    flood(size, |thread, goes_on| {
        let mut client = session(server, thread, "loud")?;
        for n in 0..USERS {
            client.send(&format!("<presence to='{}@localhost' type='subscribe'/>", user(n)))?;
            client.send(&format!("<presence to='{}@localhost' type='subscribed'/>", user(n)))?;
        }
        says(&mut client, goes_on, |n| match n % 3 {
            0 => format!("<presence><status>{n}</status></presence>"),
            1 => format!("<presence to='{}@localhost/loud'/>", user(n as usize % USERS)),
            _ => format!("<presence to='{}@localhost' type='probe'/>", user(n as usize % USERS)),
        })
    })
}

fn iqs(server: &Server, size: Size) -> io::Result<u64> {
    flood(size, |thread, goes_on| {
        let mut client = session(server, thread, "loud")?;
        says(&mut client, goes_on, |n| match n % 6 {
            0 => format!("<iq type='set' id='{n}'><query xmlns='urn:xmpp:mam:2'/></iq>"),
            1 => format!("<iq type='get' id='{n}'><query xmlns='jabber:iq:roster'/></iq>"),
            2 => format!(
                "<iq type='set' id='{n}'><vCard xmlns='vcard-temp'><NOTE>{}</NOTE></vCard></iq>",
                "z".repeat(9_000)
            ),
            3 => format!("<iq type='get' id='{n}'><vCard xmlns='vcard-temp'/></iq>"),
            4 => format!(
                "<iq type='set' id='{n}'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='n'>\
                 <item id='{n}'><x xmlns='u'/></item></publish></pubsub></iq>"
            ),
            _ => format!(
                "<iq type='get' id='{n}' to='{}@localhost'><fetch xmlns='urn:waft:fetch:0'/></iq>",
                user(n as usize % USERS)
            ),
        })
    })
}

fn strangers(server: &Server, size: Size) -> io::Result<u64> {
    flood(size, |thread, goes_on| {
        let mut client = session(server, thread, "loud")?;
        says(&mut client, goes_on, |n| {
            format!("<message to='nobody{n}@localhost' type='chat' id='{n}'><body>{n}</body></message>")
        })
    })
}

fn huge(server: &Server, size: Size) -> io::Result<u64> {
    let bytes = "x".repeat(250_000);
    let elements = "<a/>".repeat(9_900);
    let depth = format!("{}{}", "<a>".repeat(60), "</a>".repeat(60));
    flood(size, |thread, goes_on| {
        let mut client = session(server, thread, "loud")?;
        let to = user((thread + 1) % THREADS);
        says(&mut client, goes_on, |n| {
            let inner = [&bytes, &elements, &depth][n as usize % 3];
            format!(
                "<message to='{to}@localhost' type='chat' id='{n}'><body>{n}</body><x xmlns='u'>{inner}</x></message>"
            )
        })
    })
}

fn too_huge(server: &Server, size: Size) -> io::Result<u64> {
    let bytes = "x".repeat(1 << 20);
    let elements = "<a/>".repeat(50_000);
    let depth = "<a>".repeat(30_000);
    flood(size, |thread, goes_on| {
        let mut n = 0;
        while goes_on() {
            let mut client = session(server, thread, "loud")?;
            let inner = [&bytes, &elements, &depth][n as usize % 3];
            let _ = client.send(&format!("<message to='{}@localhost'><x xmlns='u'>{inner}", user(thread)));
            // Our end: the answer is an error of the stream.
            let _ = client.next(Duration::from_millis(300));
            n += 1;
        }
        Ok(n)
    })
}

fn relogin(server: &Server, size: Size) -> io::Result<u64> {
    let turn = AtomicU64::new(0);
    flood(size, |_, goes_on| {
        let mut n = 0;
        while goes_on() {
            let who = turn.fetch_add(1, Ordering::Relaxed) as usize;
            let mut client = session(server, who % 400, &format!("r{}", who % 5))?;
            client.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>")?;
            n += 1;
        }
        Ok(n)
    })
}

fn domains(server: &Server, size: Size) -> io::Result<u64> {
    flood(size, |thread, goes_on| {
        let mut client = session(server, thread, "loud")?;
        says(&mut client, goes_on, |n| {
            let to = match n % 2 {
                0 => MUTE[n as usize / 2 % MUTE.len()].to_owned(),
                _ => format!("d{n}.invalid"),
            };
            format!("<message to='x@{to}' type='chat' id='{n}'><body>{n}</body></message>")
        })
    })
}

fn dialback(server: &Server, size: Size) -> io::Result<u64> {
    let header = "<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' to='localhost' version='1.0' \
                  from='mute1.example' xmlns:stream='http://etherx.jabber.org/streams'>";
    let turn = AtomicU64::new(0);
    flood(size, |_, goes_on| {
        let n = turn.fetch_add(1, Ordering::Relaxed) as usize;
        let tcp = peer::connect(peer::botnet(n % 300), server.servers)?;
        tcp.set_write_timeout(Some(Duration::from_secs(1)))?;
        tcp.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut tls = peer::encrypted(tcp)?;
        tls.write_all(header.as_bytes())?;
        let mut buffer = [0; 16 * 1024];
        let mut count = 0;
        for k in 0..200 {
            // What it says is read now and then, and nobody cares.
            if !goes_on() || k % 40 == 39 && matches!(tls.read(&mut buffer), Ok(0)) {
                break;
            }
            let text = match k % 4 {
                0 => format!("<db:result from='{}' to='localhost'>{k}</db:result>", MUTE[k % MUTE.len()]),
                1 => format!("<db:result from='d{n}-{k}.invalid' to='localhost'>{k}</db:result>"),
                2 => format!("<db:verify from='mute1.example' to='localhost' id='{k}'>{k}</db:verify>"),
                _ => "<db:result from='mute1.example' to='localhost' type='invalid'/>".to_owned(),
            };
            tls.write_all(text.as_bytes())?;
            count += 1;
        }
        Ok(count)
    })
}
