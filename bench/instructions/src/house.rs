//! A whole server in memory, and clients that cost next to nothing.

use crate::pipes::{Pipe, Pipes};
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use parking_lot::Mutex;
use server::certificates::Certificates;
use server::config::{self, Sources};
use server::crypto::AwsLc;
use server::house::run::Running;
use server::s2s::dns::{Answer, DnsFault, Resolve, Srv};
use server::systemd::Inherited;
use server::world::simulated::Pipe as _;
use server::world::{Network, Wall, World};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use store::memory::MemoryStore;
use stream::{Crypto, Hash};
use xmpp::BareJid;

pub const DOMAIN: &str = "example.org";
const PASSWORD: &str = "secret";

/// Randomness that is the same each time.
struct Seeded(AtomicU64);

impl Crypto for Seeded {
    fn hmac(&self, hash: Hash, key: &[u8], message: &[u8]) -> Vec<u8> {
        AwsLc.hmac(hash, key, message)
    }
    fn digest(&self, hash: Hash, message: &[u8]) -> Vec<u8> {
        AwsLc.digest(hash, message)
    }
    fn pbkdf2(&self, hash: Hash, password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
        AwsLc.pbkdf2(hash, password, salt, iterations)
    }
    fn random(&self, out: &mut [u8]) {
        for byte in out {
            let number = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            *byte = (number >> 56) as u8;
        }
    }
    fn eq_constant_time(&self, a: &[u8], b: &[u8]) -> bool {
        AwsLc.eq_constant_time(a, b)
    }
}

/// There are no others.
struct Nobody;

impl Resolve for Nobody {
    fn srv<'a>(&'a self, _: &'a str) -> Answer<'a, Srv> {
        Box::pin(async { Err(DnsFault::Absent) })
    }
    fn addresses<'a>(&'a self, _: &'a str) -> Answer<'a, IpAddr> {
        Box::pin(async { Err(DnsFault::Absent) })
    }
}

pub struct House {
    pipes: Arc<Pipes>,
    running: Running,
}

impl House {
    /// Messages are delivered live; nothing is kept for who is there.
    pub async fn start() -> House {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let text = format!(
            "data = \"{}\"\n\
             [host.\"{DOMAIN}\"]\narchive = false\n\
             [[listen]]\naddress = \"127.0.0.1:5222\"\ntls = \"optional\"\n\
             [accounts]\nscram_iterations = 4096\n\
             [limits]\nrates = false\n",
            folder.path().display()
        );
        let config = config::parse(&text, None, &Sources::default()).expect("the configuration is good");
        let certificates = Certificates::load(&config).expect("certificates can be made");
        let pipes = Arc::new(Pipes::default());
        let ticks = AtomicU64::new(1_800_000_000_000_000);
        let world = World {
            network: Network::Simulated(pipes.clone()),
            wall: Wall::Simulated(Arc::new(move || ticks.fetch_add(1, Ordering::Relaxed))),
            crypto: Arc::new(Seeded(AtomicU64::new(1))),
            resolver: Some(Box::new(Nobody)),
        };
        let store = Arc::new(MemoryStore::new());
        let (config, certificates) = (Arc::new(config), Arc::new(certificates));
        let running = Running::start(config, store, certificates, vec![7; 32], Inherited::none(), world).await;
        House { pipes, running: running.expect("the server starts") }
    }

    pub async fn register(&self, user: &str) {
        let jid = BareJid::parse(&format!("{user}@{DOMAIN}")).expect("it is a JID");
        self.running.house.create_account(&jid, PASSWORD).await.expect("the account is created");
    }

    /// Logs in and binds; who exists already.
    pub async fn login(&self, user: &str) -> Client {
        let mut client = Client { pipe: self.pipes.dial(), heard: Vec::new() };
        client.open().await;
        client.scram(user).await;
        client.open().await;
        let bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                    <resource>r</resource></bind></iq>";
        client.ask(bind, "</iq>").await;
        client
    }

    /// … and becomes available.
    pub async fn come(&self, user: &str) -> Client {
        self.register(user).await;
        let mut client = self.login(user).await;
        client.ask("<iq type='get' id='ro'><query xmlns='jabber:iq:roster'/></iq>", "id='ro'").await;
        client.ask("<presence/>", "<presence").await;
        client
    }
}

pub struct Client {
    pipe: Pipe,
    heard: Vec<u8>,
}

impl Client {
    pub fn send(&self, text: &str) {
        let written = self.pipe.try_write(text.as_bytes());
        assert_eq!(written.ok(), Some(text.len()), "a pipe takes all");
    }

    /// Reads until so many of the marks have come.
    pub async fn hear(&mut self, mark: &str, count: usize) {
        self.heard.clear();
        while memchr::memmem::find_iter(&self.heard, mark).count() < count {
            poll_fn(|cx| self.pipe.poll_read_ready(cx)).await.expect("a pipe does not break");
            let mut piece = [0; 4096];
            match self.pipe.try_read(&mut piece) {
                Ok(0) | Err(_) => panic!("no {mark:?} in {:?}", String::from_utf8_lossy(&self.heard)),
                Ok(n) => self.heard.extend_from_slice(&piece[..n]),
            }
        }
    }

    pub async fn ask(&mut self, text: &str, mark: &str) {
        self.send(text);
        self.hear(mark, 1).await;
    }

    async fn open(&mut self) {
        let header = format!(
            "<stream:stream to='{DOMAIN}' version='1.0' xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams'>"
        );
        self.ask(&header, "</stream:features>").await;
    }

    async fn scram(&mut self, user: &str) {
        let sasl = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'";
        let first = format!("n={user},r=of-the-client");
        let auth = BASE64.encode(format!("n,,{first}"));
        self.ask(&format!("<auth {sasl} mechanism='SCRAM-SHA-256'>{auth}</auth>"), "</challenge>").await;
        let heard = String::from_utf8_lossy(&self.heard).into_owned();
        let challenge = heard.split(['>', '<']).find(|it| it.len() > 40 && !it.contains(' ')).expect("a challenge");
        let server = BASE64.decode(challenge).expect("it is base64");
        let server = String::from_utf8(server).expect("it is text");
        let field = |key: &str| server.split(',').find_map(|it| it.strip_prefix(key)).expect("it has all fields");
        let salt = BASE64.decode(field("s=")).expect("it is base64");
        let mac = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
        let key = mac(&salted(salt), b"Client Key");
        let stored = digest::digest(&digest::SHA256, key.as_ref());
        let bare = format!("c=biws,r={}", field("r="));
        let signature = mac(stored.as_ref(), format!("{first},{server},{bare}").as_bytes());
        let proof: Vec<u8> = key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let answer = BASE64.encode(format!("{bare},p={}", BASE64.encode(proof)));
        self.ask(&format!("<response {sasl}>{answer}</response>"), "<success").await;
    }
}

/// The salted password, reckoned once for each account: it is not what is counted.
fn salted(salt: Vec<u8>) -> Vec<u8> {
    static KNOWN: LazyLock<Mutex<HashMap<Vec<u8>, Vec<u8>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock();
    known.entry(salt).or_insert_with_key(|salt| AwsLc.pbkdf2(Hash::Sha256, PASSWORD.as_bytes(), salt, 4096)).clone()
}
