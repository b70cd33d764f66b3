//! The servers compared: how each is started with its best known settings, and what it costs.

use crate::client::{Target, trusting};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// The floor: the same bytes from one socket to another, and nothing else.
    Relay,
    /// The floor of presence: what comes from the first goes to all others, and nothing else.
    Fan,
    /// waft with its archive on: every message in the log before it is delivered.
    Waft,
    /// waft with the archive off: messages are delivered live.
    WaftLive,
    /// waft as it comes, with room for 20,000 contacts. What others wait for is to be the server, and not the machine: on
    /// memory, where there is a file system of that kind, instead of the disk; and before all else that would run on its
    /// core (the system's own threads take it for 2 to 4 ms at a time).
    WaftRoomy,
    Prosody,
    Ejabberd,
    /// Prosody with mod_mam on SQLite, which syncs as the database's defaults are: a full sync a transaction.
    ProsodyArchive,
    /// ejabberd with mod_mam on SQLite.
    EjabberdArchive,
}

impl Kind {
    /// Is it what waft is compared with?
    pub fn is_peer(self) -> bool {
        !matches!(self, Kind::Relay | Kind::Fan | Kind::Waft | Kind::WaftLive | Kind::WaftRoomy)
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Relay => "relay",
            Kind::Fan => "relay to all",
            Kind::Waft => "waft",
            Kind::WaftLive => "waft, archive off",
            Kind::WaftRoomy => "waft, large rosters",
            Kind::Prosody => "Prosody",
            Kind::Ejabberd => "ejabberd",
            Kind::ProsodyArchive => "Prosody, mod_mam",
            Kind::EjabberdArchive => "ejabberd, mod_mam",
        }
    }
}

/// A running server, ended when dropped.
pub struct Server {
    pub kind: Kind,
    child: Child,
    /// The process whose time counts.
    pid: u32,
    clear: u16,
    direct: u16,
    _folder: tempfile::TempDir,
}

pub const DOMAIN: &str = "localhost";

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        let _ = Command::new("kill").args(["-TERM", &self.pid.to_string()]).status();
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ports of servers: none that the kernel gives to connections, thousands of which may just have ended.
const PORTS: Range<u16> = 20_000..32_000;

/// A port that nobody listens on. Each is given once, until all were.
fn free_port() -> io::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in PORTS {
        let port = PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::other(format!("no port of {PORTS:?} is free")))
}

/// Server CPU so far, in seconds: user and system time of the process.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

impl Server {
    pub fn cpu(&self) -> f64 {
        cpu_seconds(self.pid)
    }

    /// Resident bytes.
    pub fn rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    pub fn target(&self, tls: bool) -> Target {
        let port = if tls { self.direct } else { self.clear };
        let tls = tls.then(trusting);
        let starttls = matches!(self.kind, Kind::Prosody | Kind::ProsodyArchive) && tls.is_some();
        let port = if starttls { self.clear } else { port };
        Target {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            domain: DOMAIN.into(),
            tls,
            starttls,
            from: Ipv4Addr::LOCALHOST,
        }
    }

    /// Starts a server on `core` and waits until it accepts connections.
    pub fn start(kind: Kind, waft: &Path, core: usize) -> io::Result<Server> {
        let memory = Path::new("/dev/shm");
        let folder = match kind {
            Kind::WaftRoomy if memory.is_dir() => tempfile::tempdir_in(memory)?,
            _ => tempfile::tempdir()?,
        };
        let (clear, direct) = (free_port()?, free_port()?);
        let mut pinned = Command::new("nice");
        pinned.args(["-n", if kind == Kind::WaftRoomy { first_of_all() } else { "0" }]);
        pinned.args(["taskset", "-c", &core.to_string()]);
        let at = |name: &str| folder.path().join(name);
        match kind {
            Kind::Relay | Kind::Fan => {
                let how = if kind == Kind::Fan { "--fan" } else { "--relay" };
                pinned.arg(std::env::current_exe()?).arg(how).arg(clear.to_string());
            }
            Kind::Waft | Kind::WaftLive | Kind::WaftRoomy => {
                let archive = kind != Kind::WaftLive;
                let room = if kind == Kind::WaftRoomy { "roster_items_max = 20000\n" } else { "" };
                std::fs::write(
                    at("waft.toml"),
                    format!(
                        "[log]\nlevel = \"error\"\n[[listen]]\naddress = \"127.0.0.1:{clear}\"\ntls = \"optional\"\n[[listen]]\naddress = \"127.0.0.1:{direct}\"\ntls = \"direct\"\n[host.\"{DOMAIN}\"]\nregistration = \"open\"\narchive = {archive}\n[limits]\nrates = false\n{room}"
                    ),
                )?;
                pinned.arg(waft).arg("serve").arg("--data").arg(at("data")).arg("--config").arg(at("waft.toml"));
            }
            Kind::Prosody | Kind::ProsodyArchive => {
                let (module, archive) = match kind {
                    Kind::ProsodyArchive => (
                        " \"mam\";",
                        "storage = { archive = \"sql\" }\nsql = { driver = \"SQLite3\"; database = \"archive.sqlite\" }\n\
                         default_archive_policy = true\narchive_expires_after = \"never\"\n",
                    ),
                    _ => ("", ""),
                };
                std::fs::create_dir(at("data"))?;
                std::fs::write(
                    at("prosody.cfg.lua"),
                    format!(
                        "run_as_root = true\npidfile = \"{f}/prosody.pid\"\ndata_path = \"{f}/data\"\ngc = {{ mode = \"generational\" }}\nnetwork_backend = \"epoll\"\nmodules_enabled = {{ \"roster\"; \"saslauth\"; \"tls\"; \"disco\"; \"ping\"; \"register\"; \"offline\"; \"presence\"; \"message\"; \"iq\"; \"smacks\"; \"carbons\"; \"c2s\"; \"register_ibr\";{module} }}\n{archive}modules_disabled = {{ \"s2s\"; \"limits\" }}\nallow_registration = true\nmin_seconds_between_registrations = 0\nregistration_throttle_max = 100000\nc2s_require_encryption = false\nallow_unencrypted_plain_auth = true\nauthentication = \"internal_hashed\"\nc2s_ports = {{ {clear} }}\ns2s_ports = {{ }}\ninterfaces = {{ \"127.0.0.1\" }}\nlog = {{ error = \"{f}/error.log\" }}\nVirtualHost \"{DOMAIN}\"\n  ssl = {{ certificate = \"{f}/cert.pem\"; key = \"{f}/key.pem\" }}\n",
                        f = folder.path().display()
                    ),
                )?;
                certificate(&folder)?;
                pinned.args(["prosody", "--config"]).arg(at("prosody.cfg.lua")).arg("-F");
            }
            Kind::Ejabberd | Kind::EjabberdArchive => {
                let (module, archive) = match kind {
                    Kind::EjabberdArchive => (
                        "  mod_mam:\n    db_type: sql\n    default: always\n",
                        format!("sql_type: sqlite\nsql_database: {}/archive.sqlite\n", folder.path().display()),
                    ),
                    _ => ("", String::new()),
                };
                std::fs::create_dir(at("data"))?;
                certificate(&folder)?;
                let both = [std::fs::read(at("cert.pem"))?, std::fs::read(at("key.pem"))?].concat();
                std::fs::write(at("both.pem"), both)?;
                std::fs::write(
                    at("ejabberd.yml"),
                    format!(
                        "hosts:\n  - {DOMAIN}\nloglevel: error\ncertfiles:\n  - {f}/both.pem\nlisten:\n  - port: {clear}\n    ip: 127.0.0.1\n    module: ejabberd_c2s\n    starttls: true\n    access: anybody\n  - port: {direct}\n    ip: 127.0.0.1\n    module: ejabberd_c2s\n    tls: true\n    access: anybody\n{archive}auth_password_format: scram\nauth_scram_hash: sha\nauth_method: internal\nregistration_timeout: infinity\naccess_rules:\n  anybody:\n    allow: all\nmodules:\n  mod_roster: {{}}\n  mod_disco: {{}}\n  mod_offline: {{}}\n  mod_ping: {{}}\n  mod_stream_mgmt: {{}}\n  mod_carboncopy: {{}}\n  mod_register:\n    access: anybody\n    access_from: anybody\n    ip_access: anybody\n{module}",
                        f = folder.path().display()
                    ),
                )?;
                pinned
                    .arg("erl")
                    .args(["-noinput", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none", "+K", "true"])
                    .args(["-pa"])
                    .args(ejabberd_paths())
                    .args(["-sname", &format!("bench{clear}@localhost"), "-mnesia", "dir"])
                    .arg(format!("\"{}/data\"", folder.path().display()))
                    .args(["-ejabberd", "config"])
                    .arg(format!("\"{}/ejabberd.yml\"", folder.path().display()))
                    .args(["-ejabberd", "log_path"])
                    .arg(format!("\"{}/ejabberd.log\"", folder.path().display()))
                    .args(["-s", "ejabberd"]);
            }
        }
        let child = pinned.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        // nice becomes taskset by exec, and that the server.
        let mut server = Server { kind, pid: child.id(), child, clear, direct, _folder: folder };
        let until = Instant::now() + Duration::from_secs(40);
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, clear)).is_err() {
            if let Some(status) = server.child.try_wait()? {
                return Err(io::Error::other(format!("{} ended before it answered: {status}", kind.name())));
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!("{} does not answer; is it installed?", kind.name())));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        std::thread::sleep(Duration::from_millis(300));
        Ok(server)
    }
}

/// The niceness of what runs before all others. Where that is not permitted, it is said.
fn first_of_all() -> &'static str {
    const FIRST: &str = "-20";
    // (It runs what it was given all the same.)
    let tried = Command::new("nice").args(["-n", FIRST, "true"]).output();
    if tried.is_ok_and(|tried| tried.stderr.is_empty()) {
        return FIRST;
    }
    eprintln!("the server has no priority: what others wait while its core does something else is counted, too");
    "0"
}

/// Debian's ejabberd and its libraries.
fn ejabberd_paths() -> Vec<PathBuf> {
    let mut out = Vec::new();
    for root in ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib/erlang/lib"] {
        let Ok(entries) = std::fs::read_dir(root) else { continue };
        out.extend(entries.flatten().map(|e| e.path().join("ebin")).filter(|p| p.is_dir()));
    }
    out
}

fn certificate(folder: &tempfile::TempDir) -> io::Result<()> {
    let at = |name: &str| folder.path().join(name);
    let status = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-keyout",
        ])
        .arg(at("key.pem"))
        .arg("-out")
        .arg(at("cert.pem"))
        .stderr(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("openssl could not make a certificate")) }
}
