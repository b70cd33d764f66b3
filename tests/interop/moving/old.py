"""The servers that are left: Prosody and ejabberd from Debian, each with data folders of its own, on a free port."""

import glob
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from ports import free_port  # noqa: E402

PASSWORD = "an old secret"
DOMAIN = os.environ.get("OLD_DOMAIN", "old.example")


class Old:
    """A server that writes data, until it is stopped."""

    def __init__(self, folder):
        self.folder, self.port, self.process = folder, free_port(), None
        os.makedirs(folder)
        self.chain, self.key = f"{folder}/cert.pem", f"{folder}/key.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={DOMAIN}",
                        "-addext", f"subjectAltName=DNS:{DOMAIN}", "-keyout", self.key, "-out", self.chain],
                       check=True, capture_output=True)
        self.configure()

    def start(self):
        self.output = open(f"{self.folder}/output", "ab")
        self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output,
                                        start_new_session=True, env=os.environ | self.environment(), cwd=self.folder)
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    with open(f"{self.folder}/output", errors="replace") as said:
                        raise SystemExit(f"{type(self).__name__} does not start:\n{said.read()[-3000:]}") from None
                time.sleep(0.1)

    def stop(self):
        if self.process is None:
            return
        for how in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, how)
                self.process.wait(20)
                break
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self.process = None

    def environment(self):
        return {}


class Prosody(Old):
    """`storage`: internal or sql. `hash`: SHA-1, SHA-256, or none for plain passwords."""

    def __init__(self, folder, storage, hash):
        self.storage, self.hash = storage, hash
        super().__init__(folder)

    @property
    def data(self):
        return f"{self.folder}/data" if self.storage == "internal" else f"{self.folder}/data/prosody.sqlite"

    def configure(self):
        self.config = f"{self.folder}/prosody.cfg.lua"
        passwords = 'authentication = "internal_plain"' if self.hash is None else (
            f'authentication = "internal_hashed"\npassword_hash = "{self.hash}"\ndefault_iteration_count = 4096')
        with open(self.config, "w") as file:
            file.write(f"""
run_as_root = true
pidfile = "{self.folder}/pid"
data_path = "{self.folder}/data"
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {self.port} }}
c2s_direct_tls_ports = {{ }}
modules_enabled = {{ "smacks"; "roster"; "saslauth"; "tls"; "disco"; "ping"; "offline"; "presence"; "message"; "iq";
  "mam"; "private"; "vcard_legacy"; "pep"; "blocklist"; "lastactivity" }}
modules_disabled = {{ "http"; "admin_shell"; "admin_socket"; "s2s" }}
{passwords}
storage = "{self.storage}"
sql = {{ driver = "SQLite3"; database = "prosody.sqlite" }}
default_archive_policy = true
limits = {{ }}
log = {{ info = "{self.folder}/log" }}
VirtualHost "{DOMAIN}"
  ssl = {{ key = "{self.key}"; certificate = "{self.chain}" }}
""")
        os.makedirs(f"{self.folder}/data", exist_ok=True)

    def command(self):
        return ["prosody", "--config", self.config, "-F"]

    def add_user(self, name):
        subprocess.run(["prosodyctl", "--config", self.config, "register", name, DOMAIN, PASSWORD], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Ejabberd(Old):
    """`hash`: sha, sha256, or None for plain passwords."""

    def __init__(self, folder, hash):
        self.hash = hash
        super().__init__(folder)
        self.node = f"old{os.getpid()}at{self.port}@localhost"

    def configure(self):
        both = f"{self.folder}/both.pem"
        with open(both, "wb") as out:
            for part in (self.key, self.chain):
                with open(part, "rb") as file:
                    shutil.copyfileobj(file, out)
        passwords = "" if self.hash is None else f"auth_password_format: scram\nauth_scram_hash: {self.hash}\n"
        with open(f"{self.folder}/ejabberd.yml", "w") as file:
            file.write(f"""
hosts:
  - {DOMAIN}
loglevel: info
certfiles:
  - {both}
listen:
  - port: {self.port}
    ip: 127.0.0.1
    module: ejabberd_c2s
    starttls: true
    access: anybody
auth_method: internal
{passwords}registration_timeout: infinity
access_rules:
  anybody:
    allow: all
modules:
  mod_admin_extra: {{}}
  mod_roster: {{}}
  mod_disco: {{}}
  mod_offline: {{}}
  mod_ping: {{}}
  mod_mam:
    default: always
  mod_privacy: {{}}
  mod_blocking: {{}}
  mod_private: {{}}
  mod_vcard: {{}}
  mod_last: {{}}
  # (Without it export2sql of this version ends before the archives.)
  mod_muc: {{}}
""")

    def command(self):
        return ["erl", "-noinput", "-pa", *self.paths(), "-sname", self.node, "-mnesia", "dir",
                f'"{self.folder}/data"', "-ejabberd", "config", f'"{self.folder}/ejabberd.yml"', "-ejabberd", "log_path",
                f'"{self.folder}/log"', "-s", "ejabberd"]

    def paths(self):
        return [path for root in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib/erlang/lib")
                for path in glob.glob(f"{root}/*/ebin")]

    def environment(self):
        return {"HOME": self.folder}

    def call(self, *arguments, patience=60, ends=True):
        """What `ejabberdctl` does: calls the command on the running node. `ends`: it must come to an end."""
        words = ", ".join(f'"{argument}"' for argument in arguments)
        ask = (f"net_kernel:connect_node('{self.node}'), R = rpc:call('{self.node}', ejabberd_ctl, process, [[{words}]], 60000), "
               "io:format(\"~p~n\", [R]), halt(case R of 0 -> 0; _ -> 1 end).")
        name = f"{self.node.split('@')[0]}ctl@localhost"
        try:
            asked = subprocess.run(["erl", "-noinput", "-hidden", "-sname", name, "-eval", ask], capture_output=True,
                                   env=os.environ | self.environment(), text=True, timeout=patience)
        except subprocess.TimeoutExpired:
            if ends:
                raise
            return
        if asked.returncode != 0:
            raise SystemExit(f"ejabberdctl {arguments}: {asked.stdout}{asked.stderr}")

    def add_user(self, name):
        # It listens before its tables are there.
        for attempt in range(20):
            try:
                return self.call("register", name, DOMAIN, PASSWORD)
            except SystemExit:
                if attempt == 19:
                    raise
                time.sleep(0.5)

    def export(self):
        """As its administrator would: XEP-0227 of everything, and the archive, which that leaves out, as SQL."""
        folder = f"{self.folder}/export"
        os.makedirs(folder)
        self.call("export_piefxis", folder)
        # In the version of Debian 12 it never comes to an end where somebody is blocked; the archives come before that.
        self.call("export2sql", DOMAIN, f"{folder}/{DOMAIN}.sql", patience=8, ends=False)
        return folder
