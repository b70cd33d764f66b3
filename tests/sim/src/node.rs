//! A server of one domain: how it starts, crashes and comes back.

use crate::disk::Disk;
use crate::network::{Crash, Net};
use crate::random::Random;
use parking_lot::Mutex;
use server::certificates::Certificates;
use server::config::{self, Config, Sources};
use server::crypto::AwsLc;
use server::house::run::Running;
use server::s2s::dane::Tlsa;
use server::s2s::dns::{Answer, DnsFault, Found, Resolve, Srv};
use server::systemd::Inherited;
use server::world::{Network, Wall, World};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use store::Store;
use stream::{Crypto, Hash};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

pub const CLIENTS: u16 = 5222;
pub const SERVERS: u16 = 5269;
/// Where the virtual clock begins: microseconds since 1970.
const BEGINNING: i64 = 1_800_000_000_000_000;

/// The domain of the n-th server.
pub fn domain(n: usize) -> String {
    format!("d{n}.example")
}

pub fn address(n: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(9, 9, 9, n as u8 + 1))
}

/// DNS, the same for all servers.
#[derive(Default)]
pub struct Names {
    pub servers: usize,
    /// Until when questions fail, and after how long they say so.
    pub trouble: Mutex<Option<(Instant, Duration)>>,
    /// Questions for names that end so are never answered.
    pub hangs: Vec<String>,
    /// Other addresses than the usual one.
    pub addresses: BTreeMap<String, Vec<IpAddr>>,
    /// All answers are secure, and there may be such records.
    pub signed: bool,
    pub tlsa: Mutex<BTreeMap<String, Vec<Tlsa>>>,
}

impl Names {
    async fn wait(&self) -> Result<(), DnsFault> {
        let trouble = *self.trouble.lock();
        match trouble {
            Some((until, pause)) if Instant::now() < until => {
                sleep(pause).await;
                Err(DnsFault::Failed("no answer".into()))
            }
            Some(_) | None => {
                sleep(Duration::from_millis(3)).await;
                Ok(())
            }
        }
    }

    fn found<T>(&self, records: Vec<T>) -> Result<Found<T>, DnsFault> {
        Ok(Found { records, secure: self.signed })
    }

    fn number(&self, name: &str) -> Option<usize> {
        (0..self.servers).find(|n| name == format!("xmpp.{}.", domain(*n)))
    }
}

/// How a server asks.
struct Asks(Arc<Names>);

impl Resolve for Asks {
    fn srv<'a>(&'a self, name: &'a str) -> Answer<'a, Srv> {
        Box::pin(async move {
            self.0.wait().await?;
            if self.0.hangs.iter().any(|it| name.ends_with(it)) {
                return std::future::pending().await;
            }
            let served = (0..self.0.servers).find(|n| name == format!("_xmpp-server._tcp.{}.", domain(*n)));
            let target = format!("xmpp.{}", domain(served.ok_or(DnsFault::Absent)?));
            self.0.found(vec![Srv { priority: 1, weight: 1, port: SERVERS, target }])
        })
    }

    fn addresses<'a>(&'a self, name: &'a str) -> Answer<'a, IpAddr> {
        Box::pin(async move {
            self.0.wait().await?;
            if self.0.hangs.iter().any(|it| name.ends_with(it)) {
                return std::future::pending().await;
            }
            if let Some(addresses) = self.0.addresses.get(name) {
                return self.0.found(addresses.clone());
            }
            self.0.found(vec![address(self.0.number(name).ok_or(DnsFault::Absent)?)])
        })
    }

    fn tlsa<'a>(&'a self, name: &'a str) -> Answer<'a, Tlsa> {
        Box::pin(async move {
            let tlsa = self.0.tlsa.lock().get(name).cloned();
            self.0.found(tlsa.ok_or(DnsFault::Absent)?)
        })
    }

    fn validates(&self) -> bool {
        self.0.signed
    }
}

/// Hashes as they are, randomness from the seed.
struct Seeded(Mutex<Random>);

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
        self.0.lock().fill(out);
    }
    fn eq_constant_time(&self, a: &[u8], b: &[u8]) -> bool {
        AwsLc.eq_constant_time(a, b)
    }
}

/// A machine with its disk, and the server on it, if it runs.
pub struct Node {
    pub n: usize,
    net: Net,
    names: Arc<Names>,
    random: Random,
    /// Lines more for `[s2s]`.
    pub more: String,
    pub disk: Arc<Disk>,
    /// Microseconds by which this machine's clock is wrong.
    pub skew: Arc<AtomicI64>,
    began: Instant,
    pub running: Option<Running>,
    writer: Option<JoinHandle<()>>,
    pub crashes: u64,
}

impl Node {
    pub fn new(n: usize, net: &Net, names: &Arc<Names>, mut random: Random) -> Node {
        Node {
            n,
            net: net.clone(),
            names: names.clone(),
            more: String::new(),
            disk: Arc::new(Disk::new(Random::new(random.draw(), 2))),
            skew: Arc::default(),
            random,
            began: Instant::now(),
            running: None,
            writer: None,
            crashes: 0,
        }
    }

    /// Whom it asks for names, before it starts.
    pub fn ask(&mut self, names: &Arc<Names>) {
        self.names = names.clone();
    }

    pub async fn start(&mut self) {
        self.net.boot(address(self.n));
        let (config, certificates) = setting(self.n, &self.more);
        let (began, skew) = (self.began, self.skew.clone());
        let last = AtomicU64::new(0);
        let wall = move || {
            let now = BEGINNING + began.elapsed().as_micros() as i64 + skew.load(Ordering::Relaxed);
            last.fetch_max(now as u64, Ordering::Relaxed);
            now as u64
        };
        let world = World {
            network: Network::Simulated(self.net.host(address(self.n))),
            wall: Wall::Simulated(Arc::new(wall)),
            crypto: Arc::new(Seeded(Mutex::new(Random::new(self.random.draw(), 3)))),
            resolver: Some(Box::new(Asks(self.names.clone()))),
        };
        self.writer = Some(tokio::spawn(self.disk.clone().write()));
        let store: Arc<dyn Store> = self.disk.clone();
        let secret = vec![self.n as u8; 32];
        let running = Running::start(config, store, certificates, secret, Inherited::none(), world).await;
        self.running = Some(running.expect("a simulated server starts"));
    }

    /// The server, or the whole machine, is gone from one moment to the next.
    pub fn crash(&mut self, how: Crash) {
        self.crashes += 1;
        self.net.crash(address(self.n), how);
        if let Some(writer) = self.writer.take() {
            writer.abort();
        }
        // Its tasks go on for a while, as ghosts: no connection, no disk, nobody hears them.
        if let Some(running) = self.running.take() {
            running.abandon();
        }
        self.disk = Arc::new(self.disk.reopened());
    }
}

/// The server's configuration and certificate: the same in all scenes.
pub fn setting(n: usize, more: &str) -> (Arc<Config>, Arc<Certificates>) {
    type Settings = Mutex<BTreeMap<(usize, String), (Arc<Config>, Arc<Certificates>)>>;
    static SETTINGS: LazyLock<Settings> = LazyLock::new(Settings::default);
    let mut all = SETTINGS.lock();
    all.entry((n, more.to_owned()))
        .or_insert_with(|| {
            let folder = std::env::temp_dir().join(format!("waft-sim-{}-{n}", std::process::id()));
            let (domain, address) = (domain(n), address(n));
            let text = format!(
                "data = \"{}\"\n\
                 [host.\"{domain}\"]\n\
                 [[listen]]\naddress = \"{}\"\ntls = \"optional\"\nforce = true\n\
                 [[listen]]\naddress = \"{}\"\nkind = \"s2s\"\n\
                 [s2s]\nsystem_ca = false\npatience_seconds = 20\nidle_seconds = 60\n{more}\
                 [limits]\ns2s_retry_seconds_max = 8\ns2s_connect_seconds = 5\nstrangers_per_minute = 1000000\n\
                 resume_after_restart_seconds = 15\nack_seconds = 10\nidle_ping_seconds = 20\nidle_close_seconds = 10\n\
                 send_queue_stanzas_max = 64\nresume_seconds_default = 30\nresume_seconds_max = 30\n",
                folder.display(),
                SocketAddr::new(address, CLIENTS),
                SocketAddr::new(address, SERVERS),
            );
            let config = config::parse(&text, None, &Sources::default()).expect("the scenes' configuration is good");
            std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
            let certificates = Certificates::load(&config).expect("certificates can be made");
            // They are in memory now.
            let _ = std::fs::remove_dir_all(&folder);
            (Arc::new(config), Arc::new(certificates))
        })
        .clone()
}
