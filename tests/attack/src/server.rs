//! The server under attack: one process with its default limits, on loopback, and what can be seen of it from outside.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Domains elsewhere whose server takes connections and says nothing.
pub const MUTE: [&str; 3] = ["mute1.example", "mute2.example", "mute3.example"];
pub const PASSWORD: &str = "secret of the tests";
/// Accounts of the attackers who have one.
pub const USERS: usize = 24;

pub struct Server {
    child: Mutex<Child>,
    pid: u32,
    /// Goes when the server is dropped.
    folder: tempfile::TempDir,
    pub clients: SocketAddr,
    pub direct: SocketAddr,
    pub servers: SocketAddr,
    peak: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    /// Whoever dials a mute domain waits here.
    _mute: TcpListener,
}

impl Server {
    pub fn start(binary: &Path) -> io::Result<Server> {
        let folder = tempfile::Builder::new().prefix("waft-attack-").tempdir()?;
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|it| it.local_addr());
        let (clients, direct, servers) = (free()?, free()?, free()?);
        let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let pins: String = MUTE
            .iter()
            .map(|domain| mute.local_addr().map(|at| format!("[s2s.domain.\"{domain}\"]\naddress = \"{at}\"\n")))
            .collect::<io::Result<_>>()?;
        let config = folder.path().join("waft.toml");
        std::fs::write(
            &config,
            format!(
                "[host.\"localhost\"]\n\
                 [[listen]]\naddress = \"{clients}\"\ntls = \"optional\"\n\
                 [[listen]]\naddress = \"{direct}\"\ntls = \"direct\"\n\
                 [[listen]]\naddress = \"{servers}\"\nkind = \"s2s\"\ntls = \"direct\"\n\
                 [s2s]\nallow_private = true\npatience_seconds = 5\n{pins}\
                 [accounts]\nscram_iterations = 4096\n\
                 [log]\nlevel = \"error\"\n"
            ),
        )?;
        let data = folder.path().join("data");
        let log = std::fs::File::create(folder.path().join("log"))?;
        // As many files as a service may have: the share of strangers is a part of it.
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -n \"$(ulimit -Hn)\"; exec \"$0\" \"$@\""])
            .arg(binary)
            .arg("serve")
            .arg("--data")
            .arg(&data)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let pid = child.id();
        let lines = child.stdout.take().ok_or_else(|| io::Error::other("no stdout"))?;
        let peak = Arc::new(AtomicU64::new(0));
        let over = Arc::new(AtomicBool::new(false));
        let server = Server {
            child: Mutex::new(child),
            pid,
            folder,
            clients,
            direct,
            servers,
            peak: peak.clone(),
            over: over.clone(),
            _mute: mute,
        };
        if !BufReader::new(lines).lines().map_while(Result::ok).any(|line| line == "ready") {
            let log = std::fs::read_to_string(server.folder.path().join("log")).unwrap_or_default();
            return Err(io::Error::other(format!("waft ended before it was ready:\n{log}")));
        }
        for name in (0..USERS).map(user).chain(["canary".to_owned()]) {
            server.ask(&format!(r#"{{"do":"user-add","jid":"{name}@localhost","password":"{PASSWORD}"}}"#))?;
        }
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                peak.fetch_max(resident_bytes(pid), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Ok(server)
    }

    /// One command by the admin socket; gives the answer, JSON.
    pub fn ask(&self, request: &str) -> io::Result<String> {
        let mut socket = UnixStream::connect(self.folder.path().join("data/waft.sock"))?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        writeln!(socket, "{request}")?;
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer)?;
        Ok(answer)
    }

    fn counters(&self) -> Vec<(String, u64)> {
        let answer = self.ask(r#"{"do":"status"}"#).unwrap_or_default();
        // `"counters":{"name":1,…}`: names have neither quotes nor colons.
        let inner = answer.split("\"counters\":{").nth(1).and_then(|it| it.split('}').next()).unwrap_or_default();
        let pair = |text: &str| {
            let (name, count) = text.split_once(':')?;
            Some((name.trim_matches('"').to_owned(), count.parse().ok()?))
        };
        inner.split(',').filter_map(pair).collect()
    }

    pub fn counter(&self, name: &str) -> u64 {
        self.counters().into_iter().find(|(it, _)| it == name).map_or(0, |(_, count)| count)
    }

    /// Which limits were hit, and how often.
    pub fn limits_hit(&self) -> Vec<String> {
        let all = self.counters().into_iter();
        all.filter_map(|(name, count)| Some(format!("{} {count}", name.strip_prefix("limit ")?))).collect()
    }

    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(self.pid)
    }

    /// Of all its threads, since it began.
    pub fn processor_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // Behind the name, which may have spaces; in hundredths of a second.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11).take(2);
        fields.filter_map(|it| it.parse::<f64>().ok()).sum::<f64>() / 100.0
    }

    /// From now on the most is remembered.
    pub fn begin_watching(&self) {
        self.peak.store(0, Ordering::Relaxed);
    }

    pub fn peak_bytes(&self) -> u64 {
        self.peak.load(Ordering::Relaxed).max(self.resident_bytes())
    }

    pub fn open_files(&self) -> usize {
        std::fs::read_dir(PathBuf::from(format!("/proc/{}/fd", self.pid))).map_or(0, Iterator::count)
    }

    pub fn has_ended(&self) -> bool {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().is_ok_and(|status| status.is_some())
    }
}

pub fn user(n: usize) -> String {
    format!("user{n}")
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|it| it.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}
