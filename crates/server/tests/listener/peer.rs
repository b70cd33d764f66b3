//! Another domain's server, as far as the tests need one: it says what it is told to, proves itself by dialback, and
//! remembers what it heard. And a wire between two servers that can be cut.

use crate::client::Client;
use crate::server::{PATIENCE, eventually, free_address};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What the peer does when it is asked whether a key is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verifies {
    Valid,
    Invalid,
    Never,
}

pub struct Peer {
    pub domain: &'static str,
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    domain: &'static str,
    verifies: Verifies,
    tls: Arc<ServerConfig>,
    heard: Mutex<String>,
    connections: AtomicUsize,
    /// Said on every stream, once it has asked for something.
    says: Mutex<String>,
}

impl Peer {
    pub fn start(domain: &'static str, verifies: Verifies) -> Peer {
        let address = free_address();
        let listener = TcpListener::bind(address).expect("the address is free");
        let key = rcgen::generate_simple_self_signed([domain.to_owned()]).expect("a certificate can be made");
        let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(
                vec![key.cert.der().clone()],
                PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()).into(),
            )
            .expect("certificate and key fit");
        let state = Arc::new(State {
            domain,
            verifies,
            tls: Arc::new(tls),
            heard: Mutex::default(),
            connections: AtomicUsize::new(0),
            says: Mutex::default(),
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let state = shared.clone();
                state.connections.fetch_add(1, Ordering::AcqRel);
                std::thread::spawn(move || state.serve(socket));
            }
        });
        Peer { domain, address, state }
    }

    /// All that came over all streams that were opened to it.
    pub fn heard(&self) -> String {
        self.state.heard.lock().expect("no panic holds it").clone()
    }

    #[track_caller]
    pub fn hears(&self, what: &str) {
        eventually(&format!("{} hears {what}; it heard {}", self.domain, self.heard()), || self.heard().contains(what));
    }

    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Acquire)
    }

    /// Says it on every stream that proves itself from now on, instead of `valid`.
    pub fn answers_with(&self, text: &str) {
        *self.state.says.lock().expect("no panic holds it") = text.into();
    }

    /// A stream of its own to the server, encrypted, up to the features.
    pub fn opens(&self, to: SocketAddr, host: &str) -> Client {
        self.opens_saying(crate::client::own_address(), to, host, "")
    }

    /// … from that address.
    pub fn opens_from(&self, from: IpAddr, to: SocketAddr, host: &str) -> Client {
        self.opens_saying(from, to, host, "")
    }

    /// … with further attributes of the header.
    pub fn opens_saying(&self, from: IpAddr, to: SocketAddr, host: &str, more: &str) -> Client {
        let mut client = Client::connect_from(from, to);
        let header = header(self.domain, host, more);
        client.send(&header);
        client.expect("</stream:features>");
        client.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        client.expect("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        let mut config = crate::client::tls_config(None);
        config.alpn_protocols.clear();
        client.handshake_with(config, host);
        client.send(&header);
        client.expect("</stream:features>");
        client
    }

    /// … and proved by dialback.
    pub fn proves(&self, to: SocketAddr, host: &str) -> Client {
        let mut client = self.opens(to, host);
        self.proves_on(&mut client, host);
        client
    }

    pub fn proves_on(&self, client: &mut Client, host: &str) {
        client.send(format!("<db:result from='{}' to='{host}'>key</db:result>", self.domain));
        client.expect("type='valid'/>");
    }
}

fn header(from: &str, to: &str, more: &str) -> String {
    format!(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
         xmlns:stream='http://etherx.jabber.org/streams' from='{from}' to='{to}' version='1.0'{more}>"
    )
}

impl State {
    fn serve(&self, mut socket: TcpStream) {
        let _ = socket.set_read_timeout(Some(PATIENCE));
        let mut seen = String::new();
        if read_until(&mut socket, &mut seen, "<stream:stream", ">").is_none() {
            return;
        }
        let features = "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>";
        let hello = header(self.domain, "", " id='clear'");
        if socket.write_all(format!("{hello}{features}").as_bytes()).is_err()
            || read_until(&mut socket, &mut seen, "<starttls", ">").is_none()
        {
            return;
        }
        let _ = socket.write_all(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        let Ok(connection) = ServerConnection::new(self.tls.clone()) else { return };
        let mut stream = StreamOwned::new(connection, socket);
        let mut seen = String::new();
        if read_until(&mut stream, &mut seen, "<stream:stream", ">").is_none() {
            return;
        }
        let features =
            "<stream:features><dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback></stream:features>";
        let hello = header(self.domain, "", " id='encrypted'");
        let _ = stream.write_all(format!("{hello}{features}").as_bytes());
        self.talk(&mut stream, &mut seen);
    }

    fn talk(&self, stream: &mut StreamOwned<ServerConnection, TcpStream>, seen: &mut String) {
        let mut buffer = [0; 16 * 1024];
        loop {
            while let Some(answer) = self.answer(seen) {
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
            match stream.read(&mut buffer) {
                Ok(count) if count > 0 => {
                    let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                    self.heard.lock().expect("no panic holds it").push_str(&text);
                    seen.push_str(&text);
                }
                _ => return,
            }
        }
    }

    /// To the first dialback element in what was seen, which is taken out.
    fn answer(&self, seen: &mut String) -> Option<String> {
        let (at, name) =
            ["result", "verify"].iter().filter_map(|name| Some((seen.find(&format!("<db:{name} "))?, *name))).min()?;
        let end = at + seen[at..].find(&format!("</db:{name}>"))?;
        let element = seen[at..end].to_owned();
        seen.drain(..end);
        let attribute = |name: &str| crate::client::attribute(&element, name).to_owned();
        let (from, to) = (attribute("from"), attribute("to"));
        if name == "result" {
            let says = self.says.lock().expect("no panic holds it").clone();
            if !says.is_empty() {
                return Some(says);
            }
            return Some(format!("<db:result from='{to}' to='{from}' type='valid'/>"));
        }
        let kind = match self.verifies {
            Verifies::Valid => "valid",
            Verifies::Invalid => "invalid",
            Verifies::Never => return Some(String::new()),
        };
        Some(format!("<db:verify from='{to}' to='{from}' id='{}' type='{kind}'/>", attribute("id")))
    }
}

/// Reads until `start` and then `end` have come.
fn read_until(stream: &mut impl Read, seen: &mut String, start: &str, end: &str) -> Option<()> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(at) = seen.find(start)
            && let Some(to) = seen[at..].find(end)
        {
            seen.drain(..at + to + end.len());
            return Some(());
        }
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => seen.push_str(&String::from_utf8_lossy(&buffer[..count])),
            _ => return None,
        }
    }
}

/// A wire to a server: it counts connections and can be cut.
pub struct Wire {
    pub address: SocketAddr,
    state: Arc<WireState>,
}

/// From who opened the connection, or to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    There,
    Back,
}

struct WireState {
    to: SocketAddr,
    connections: AtomicUsize,
    /// Bytes there, and back, that still pass; negative: no bound.
    left: [AtomicI64; 2],
    down: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Wire {
    pub fn to(to: SocketAddr) -> Wire {
        let address = free_address();
        let listener = TcpListener::bind(address).expect("the address is free");
        let state = Arc::new(WireState {
            to,
            connections: AtomicUsize::new(0),
            left: [AtomicI64::new(-1), AtomicI64::new(-1)],
            down: AtomicBool::new(false),
            sockets: Mutex::default(),
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if shared.down.load(Ordering::Acquire) {
                    continue;
                }
                shared.connections.fetch_add(1, Ordering::AcqRel);
                shared.carry(socket);
            }
        });
        Wire { address, state }
    }

    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Acquire)
    }

    /// The wire breaks when so many more bytes have gone that way; then it is whole again.
    pub fn break_after(&self, way: Way, bytes: usize) {
        self.state.left[way as usize].store(i64::try_from(bytes).expect("a small number"), Ordering::Release);
    }

    /// Cuts what is there now; `down`: nothing new passes either.
    pub fn cut(&self, down: bool) {
        self.state.down.store(down, Ordering::Release);
        self.state.cut();
    }
}

impl WireState {
    fn cut(&self) {
        for socket in self.sockets.lock().expect("no panic holds it").drain(..) {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }

    fn carry(self: &Arc<WireState>, near: TcpStream) {
        let Ok(far) = TcpStream::connect(self.to) else { return };
        let copies = [near.try_clone(), far.try_clone(), near.try_clone(), far.try_clone()].map(Result::ok);
        let [Some(near_read), Some(far_read), Some(near_kept), Some(far_kept)] = copies else { return };
        self.sockets.lock().expect("no panic holds it").extend([near_kept, far_kept]);
        let (there, back) = (self.clone(), self.clone());
        std::thread::spawn(move || there.pump(near_read, far, Way::There));
        std::thread::spawn(move || back.pump(far_read, near, Way::Back));
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, way: Way) {
        let bound = &self.left[way as usize];
        let mut buffer = [0; 16 * 1024];
        while let Ok(count) = from.read(&mut buffer) {
            if count == 0 {
                break;
            }
            let mut passes = count;
            if bound.load(Ordering::Acquire) >= 0 {
                let left = bound.fetch_sub(count as i64, Ordering::AcqRel);
                if left <= count as i64 {
                    passes = usize::try_from(left.max(0)).unwrap_or(0);
                    let _ = to.write_all(&buffer[..passes]);
                    bound.store(-1, Ordering::Release);
                    return self.cut();
                }
            }
            if to.write_all(&buffer[..passes]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
        let _ = from.shutdown(std::net::Shutdown::Both);
    }
}

/// Waits a little and looks that it stays so: for what must not happen. Short, as it can only miss a fault.
pub fn stays(why: &str, mut what: impl FnMut() -> bool) {
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(300) {
        assert!(what(), "{why}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
