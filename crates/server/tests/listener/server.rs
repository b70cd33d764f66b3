//! The real binary, on loopback addresses of its own, with a data folder that goes with the tests.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long anything may take before a test has failed; the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Ends the process and removes its folder when the tests are gone: statics are never dropped.
const WATCH: &str = "read _; [ \"$(readlink /proc/$1/exe)\" = \"$3\" ] && kill -9 $1; rm -rf \"$2\"";

pub struct Server {
    child: Mutex<Child>,
    /// Ends [`WATCH`]'s wait when it is closed.
    watches: Vec<ChildStdin>,
    pub folder: PathBuf,
    /// `tls = "optional"`.
    pub plain: SocketAddr,
    /// `tls = "required"`.
    pub starttls: SocketAddr,
    /// `tls = "direct"`.
    pub direct: SocketAddr,
    /// `tls = "optional"` behind a PROXY header.
    pub proxied: SocketAddr,
    log: Arc<Mutex<String>>,
    accounts: Mutex<HashSet<String>>,
}

/// An address that nobody else listens on.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let host =
        IpAddr::V4(Ipv4Addr::new(127, 64 + (std::process::id() % 128) as u8, (n >> 6) as u8, (n % 64 + 1) as u8));
    TcpListener::bind((host, 0)).and_then(|it| it.local_addr()).expect("loopback has free ports")
}

impl Server {
    /// Serves `localhost` and what `config` adds. `{folder}` in it is the data folder.
    pub fn start(config: &str) -> Server {
        Server::prepare(config, |_| {})
    }

    /// As [`Server::start`], in a process that may open so many files.
    pub fn with_files(max: u32, config: &str) -> Server {
        Server::run(Some(max), config, |_| {})
    }

    /// As [`Server::start`]; `prepare` may put files into the folder first.
    pub fn prepare(config: &str, prepare: impl FnOnce(&Path)) -> Server {
        Server::run(None, config, prepare)
    }

    fn run(files_max: Option<u32>, config: &str, prepare: impl FnOnce(&Path)) -> Server {
        let folder = tempfile::Builder::new().prefix("waft-listener-").tempdir().expect("a temporary folder").keep();
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).expect("it is ours");
        prepare(&folder);
        let [plain, starttls, direct, proxied] = [(); 4].map(|()| free_address());
        let file = folder.join("waft.toml");
        let listeners = [
            (plain, "optional", false),
            (starttls, "required", false),
            (direct, "direct", false),
            (proxied, "optional", true),
        ]
        .map(|(address, tls, proxy)| {
            format!("[[listen]]\naddress = \"{address}\"\ntls = \"{tls}\"\nproxy_protocol = {proxy}\n")
        })
        .concat();
        let host = if config.contains("[host.\"localhost\"]") { "" } else { "[host.\"localhost\"]\n" };
        let config = config.replace("{folder}", folder.to_str().expect("the folder's name is text"));
        let quick = if config.contains("[accounts]") { "" } else { "[accounts]\nscram_iterations = 4096\n" };
        std::fs::write(&file, format!("{host}{config}\n{quick}{listeners}")).expect("the configuration can be written");
        let log = Arc::new(Mutex::new(String::new()));
        let (child, watch) = spawn(files_max, &folder, &log);
        Server {
            child: Mutex::new(child),
            watches: vec![watch],
            folder,
            plain,
            starttls,
            direct,
            proxied,
            log,
            accounts: Mutex::default(),
        }
    }

    /// Starts it again on the same folder and addresses, after it has ended.
    pub fn restart(&mut self) {
        let (child, watch) = spawn(None, &self.folder, &self.log);
        self.child = Mutex::new(child);
        self.watches.push(watch);
    }

    /// One command by the admin socket; gives the answer.
    pub fn ask(&self, request: &serde_json::Value) -> serde_json::Value {
        let mut socket = UnixStream::connect(self.folder.join("waft.sock")).expect("the admin socket is there");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        socket.write_all(format!("{request}\n").as_bytes()).expect("is taken");
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line).expect("is answered");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"))
    }

    /// Makes an account; the password is its name.
    pub fn add(&self, jid: &str) {
        let name = jid.split('@').next().expect("split gives one");
        let answer = self.ask(&serde_json::json!({"do": "user-add", "jid": jid, "password": name}));
        assert_eq!(answer["is"], "done", "{jid}: {answer}");
    }

    /// Makes an account, unless it was made before.
    pub fn ensure(&self, jid: &str) {
        // Held meanwhile: a second one waits until it is made.
        let mut accounts = self.accounts.lock().expect("no panic holds it");
        if accounts.insert(jid.into()) {
            self.add(jid);
        }
    }

    pub fn status(&self) -> serde_json::Value {
        self.ask(&serde_json::json!({"do": "status"}))
    }

    /// Full JIDs and states of the account's sessions.
    pub fn sessions(&self, bare: &str) -> Vec<(String, String)> {
        let answer = self.ask(&serde_json::json!({"do": "sessions"}));
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let all = answer["sessions"].as_array().unwrap_or_else(|| panic!("no sessions: {answer}"));
        let all = all.iter().map(|it| (text(&it["jid"]), text(&it["state"])));
        all.filter(|(jid, _)| jid.starts_with(&format!("{bare}/"))).collect()
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().expect("no panic holds it").id()
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("there is a kill").success());
    }

    /// The exit status, once it has ended.
    pub fn ended(&self) -> std::process::ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.lock().expect("no panic holds it").try_wait().expect("it is our child") {
                return status;
            }
            assert!(since.elapsed() < PATIENCE, "the server does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it has said on stderr.
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic holds it").clone()
    }

    /// Resident bytes of the process.
    pub fn resident_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
        let kilobytes = line.trim().trim_end_matches(" kB").trim();
        kilobytes.parse::<u64>().expect("a number") * 1024
    }

    /// Open files of the process.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }
}

/// Starts the binary and waits until it is ready.
#[expect(clippy::zombie_processes, reason = "the watching shell outlives this process by design")]
fn spawn(files_max: Option<u32>, folder: &Path, log: &Arc<Mutex<String>>) -> (Child, ChildStdin) {
    let mut child = waft(files_max, folder, &folder.join("waft.toml")).spawn().expect("the binary was built");
    let mut watch = Command::new("sh")
        .args(["-c", WATCH, "sh", &child.id().to_string()])
        .arg(folder)
        .arg(env!("CARGO_BIN_EXE_waft"))
        .stdin(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    let stderr = BufReader::new(child.stderr.take().expect("is piped"));
    let lines = log.clone();
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            let mut log = lines.lock().expect("no panic holds it");
            log.push_str(&line);
            log.push('\n');
        }
    });
    let mut stdout = BufReader::new(child.stdout.take().expect("is piped"));
    let mut greeting = String::new();
    while !greeting.ends_with("ready\n") {
        if stdout.read_line(&mut greeting).expect("stdout is text") == 0 {
            let status = child.wait();
            std::thread::sleep(Duration::from_millis(50));
            panic!("the server ended ({status:?}) before it was ready:\n{}", log.lock().expect("no panic holds it"));
        }
    }
    (child, watch.stdin.take().expect("is piped"))
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut child = self.child.lock().expect("no panic holds it");
        let _ = child.kill();
        let _ = child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn waft(files_max: Option<u32>, folder: &Path, config: &Path) -> Command {
    let binary = env!("CARGO_BIN_EXE_waft");
    let mut command = match files_max {
        None => Command::new(binary),
        Some(max) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("ulimit -n {max}; exec \"$0\" \"$@\""), binary]);
            shell
        }
    };
    command.arg("--data").arg(folder).arg("--config").arg(config).env_remove("WAFT_DATA").env_remove("WAFT_CONFIG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the binary to its end: status, stdout, stderr.
pub fn run(folder: &Path, config: &Path) -> (std::process::ExitStatus, String, String) {
    let mut child = waft(None, folder, config).spawn().expect("the binary was built");
    let since = Instant::now();
    let status = loop {
        match child.try_wait().expect("it is our child") {
            Some(status) => break status,
            None if since.elapsed() > PATIENCE => {
                let _ = child.kill();
                panic!("the process does not end");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().expect("is piped").read_to_string(&mut out).expect("text");
    child.stderr.take().expect("is piped").read_to_string(&mut err).expect("text");
    (status, out, err)
}

/// Waits until `what` holds.
#[track_caller]
pub fn eventually(why: &str, mut what: impl FnMut() -> bool) {
    let since = Instant::now();
    while !what() {
        assert!(since.elapsed() < PATIENCE, "never: {why}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
