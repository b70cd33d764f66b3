"""The servers of the scenes: waft, Prosody, ejabberd, each with an address and a domain of its own."""

import glob
import os
import re
import shutil
import signal
import socket
import subprocess
import time

PASSWORD = "secret"
COMPONENT_SECRET = "a secret of the components"
# However slow the machine starts a server, what waits for it waits. Scenes in which it is to come back say how soon.
KEEP = 600


def openssl(*arguments, **more):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, **more)


class Authority:
    """Certificates: signed by an authority that all trust, or each by itself."""

    def __init__(self, folder, self_signed):
        self.folder, self.self_signed = folder, self_signed
        os.makedirs(folder, exist_ok=True)
        self.ca = f"{folder}/ca.pem"
        self.ca_key = f"{folder}/ca.key"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                "-subj", "/CN=authority of the scenes", "-addext", "basicConstraints=critical,CA:true",
                "-addext", "keyUsage=critical,keyCertSign", "-keyout", self.ca_key, "-out", self.ca)

    def certificate(self, domain, wrong=None):
        """Gives chain and key. `wrong`: expired, name or self-signed; written over the right ones."""
        chain, key, request = (f"{self.folder}/{domain}.{it}" for it in ("crt", "key", "csr"))
        # The common name says the domain even where the certificate is another's: it counts nothing.
        # (echo: a component of it.)
        san = f"subjectAltName=DNS:{'elsewhere.example' if wrong == 'name' else domain},DNS:echo.{domain}"
        # ejabberd's is as public authorities issue them today: for servers, not for clients. It takes no such certificate
        # itself from who connects to it, so the others show one for both.
        usage = "serverAuth" if domain == "ejabberd.example" else "serverAuth,clientAuth"
        new = ["-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={domain}", "-addext", san, "-addext",
               f"extendedKeyUsage={usage}", "-keyout", key]
        if self.self_signed or wrong == "self-signed":
            openssl("req", "-x509", *new, "-days", "2", "-out", chain)
        elif wrong == "expired":
            openssl("req", *new, "-out", request)
            for file, text in (("index", ""), ("serial", "1000\n")):
                with open(f"{self.folder}/{file}", "w") as out:
                    out.write(text)
            with open(f"{self.folder}/ca.cnf", "w") as out:
                out.write(f"[ca]\ndefault_ca = a\n[a]\ndatabase = {self.folder}/index\nserial = {self.folder}/serial\n"
                          f"new_certs_dir = {self.folder}\ndefault_md = sha256\npolicy = p\ncopy_extensions = copy\n"
                          "[p]\ncommonName = supplied\n")
            openssl("ca", "-config", f"{self.folder}/ca.cnf", "-batch", "-notext", "-in", request, "-cert", self.ca,
                    "-keyfile", self.ca_key, "-startdate", "20200101000000Z", "-enddate", "20210101000000Z", "-out", chain)
        else:
            openssl("req", *new, "-out", request)
            openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.ca_key, "-CAcreateserial",
                    "-days", "2", "-copy_extensions", "copy", "-out", chain)
        for file in (chain, key):
            os.chmod(file, 0o644)
        return chain, key


class Server:
    """A server that can be started and ended again and again, its data kept."""

    def __init__(self, world, domain, address):
        self.world, self.domain, self.address = world, domain, address
        self.folder = f"{world.folder}/{domain}"
        os.makedirs(self.folder)
        os.chmod(self.folder, 0o755)
        self.chain, self.key = world.authority.certificate(domain)
        self.process = None
        self.configure()

    def use_certificate(self, wrong=None):
        """While it does not run. `wrong` as in `Authority.certificate`."""
        self.chain, self.key = self.world.authority.certificate(self.domain, wrong)
        self.configure()

    def start(self):
        self.output = open(f"{self.folder}/output", "ab")
        self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output,
                                        start_new_session=True, env=os.environ | self.environment(), cwd=self.folder)
        for port in (5222, 5269):
            self.wait_for(port)

    def wait_for(self, port):
        deadline = time.monotonic() + 500
        while True:
            try:
                socket.create_connection((self.address, port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{self.domain} does not start; see {self.folder}/output")
                time.sleep(0.1)

    def end(self, how=signal.SIGTERM):
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, how)
        except ProcessLookupError:
            pass
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None

    def environment(self):
        return {}

    def add_user(self, name):
        """Before it starts. What cannot, registers in-band."""


class Waft(Server):
    name = "waft"

    def configure(self):
        self.config = f"{self.folder}/waft.toml"
        trust = "certificate" if self.world.mode == "certificates" else "dialback"
        bidi = "true" if self.world.bidi else "false"
        secret = f"{self.folder}/component.secret"
        with open(secret, "w") as file:
            file.write(COMPONENT_SECRET)
        chain, key = self.world.authority.certificate(f"echo.{self.domain}")
        with open(self.config, "w") as file:
            file.write(f"""
data = "{self.folder}/data"
[host."{self.domain}"]
certificate = "{self.chain}"
key = "{self.key}"
{"archive = false" if getattr(self.world, "quiet", False) else ""}
[[listen]]
address = "{self.address}:5222"
[[listen]]
kind = "s2s"
address = "{self.address}:5269"
[[component]]
domain = "echo.{self.domain}"
secret = "{secret}"
address = "{self.address}:5347"
certificate = "{chain}"
key = "{key}"
[s2s]
trust = "{trust}"
allow_private = true
ca = "{self.world.authority.ca}"
absent_seconds = 4
patience_seconds = 20
keep_seconds = {KEEP}
bidi = {bidi}
{getattr(self.world, "more", "")}
[limits]
rates = {"false" if getattr(self.world, "quiet", False) else "true"}
[log]
level = "{"error" if getattr(self.world, "quiet", False) else "info,waft=debug,waft::s2s=trace"}"
""")

    def keeps_for(self, seconds):
        """How long a message waits for a server that was there, from now on."""
        with open(self.config) as file:
            text = file.read()
        with open(self.config, "w") as file:
            file.write(re.sub(r"(?m)^keep_seconds = .*$", f"keep_seconds = {seconds}", text))
        if self.process is not None:
            before = self.said("the configuration was read again")
            self.process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 60
            while self.said("the configuration was read again") == before:
                assert time.monotonic() < deadline, "waft does not read its configuration again"
                time.sleep(0.05)

    def said(self, words):
        """In how many lines of its log these words stand."""
        with open(f"{self.folder}/output", errors="replace") as file:
            return sum(words in line for line in file)

    def command(self):
        return [self.world.waft, "serve", "--config", self.config]

    def add_user(self, name):
        subprocess.run([self.world.waft, "user", "add", f"{name}@{self.domain}", "--password-stdin", "--config", self.config],
                       input=PASSWORD + "\n", text=True, check=True, stdout=subprocess.DEVNULL)


class Prosody(Server):
    name = "prosody"

    def configure(self):
        self.config = f"{self.folder}/prosody.cfg.lua"
        secure = "true" if self.world.mode == "certificates" else "false"
        bidi = '"s2s_bidi"; ' if self.world.bidi else ""
        # What is measured does as little as it can, and collects its garbage in generations.
        quiet = getattr(self.world, "quiet", False)
        mam, gc = ("", 'gc = { mode = "generational" }') if quiet else ('"mam"; ', "")
        with open(self.config, "w") as file:
            file.write(f"""
run_as_root = true
pidfile = "{self.folder}/pid"
data_path = "{self.folder}/data"
interfaces = {{ "{self.address}" }}
modules_enabled = {{ {bidi}"smacks"; "roster"; "saslauth"; "tls"; "dialback"; "disco"; "ping"; "version"; "offline"; "presence"; "message"; "iq"; "s2s_auth_certs"; {mam}}}
modules_disabled = {{ "http"; "admin_shell"; "admin_socket" }}
authentication = "internal_plain"
c2s_require_encryption = true
s2s_require_encryption = true
s2s_secure_auth = {secure}
limits = {{ }}
{gc}
log = {{ {"error" if quiet else "debug"} = "{self.folder}/log" }}
ssl = {{ cafile = "{self.world.authority.ca}"; capath = "" }}
VirtualHost "{self.domain}"
  ssl = {{ key = "{self.key}"; certificate = "{self.chain}"; cafile = "{self.world.authority.ca}" }}
""")
        os.makedirs(f"{self.folder}/data", exist_ok=True)

    def command(self):
        return ["prosody", "--config", self.config, "-F"]

    def add_user(self, name):
        subprocess.run(["prosodyctl", "--config", self.config, "register", name, self.domain, PASSWORD], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Ejabberd(Server):
    name = "ejabberd"

    def configure(self):
        both = f"{self.folder}/both.pem"
        with open(both, "wb") as out:
            for part in (self.key, self.chain):
                with open(part, "rb") as file:
                    shutil.copyfileobj(file, out)
        starttls = "required"
        dialback = "" if self.world.mode == "certificates" else "  mod_s2s_dialback: {}\n"
        # Only from 24.10 on.
        known = glob.glob("/usr/lib/*/ejabberd-*/ebin/mod_s2s_bidi.beam")
        bidi = "  mod_s2s_bidi: {}\n" if self.world.bidi and known else ""
        with open(f"{self.folder}/ejabberd.yml", "w") as file:
            file.write(f"""
hosts:
  - {self.domain}
loglevel: {"error" if getattr(self.world, "quiet", False) else "debug"}
certfiles:
  - {both}
ca_file: {self.world.authority.ca}
s2s_cafile: {self.world.authority.ca}
s2s_use_starttls: {starttls}
s2s_max_retry_delay: 2
listen:
  - port: 5222
    ip: {self.address}
    module: ejabberd_c2s
    starttls: true
    access: anybody
  - port: 5269
    ip: {self.address}
    module: ejabberd_s2s_in
auth_method: internal
registration_timeout: infinity
access_rules:
  anybody:
    allow: all
modules:
  mod_roster: {{}}
  mod_disco: {{}}
  mod_offline: {{}}
  mod_ping: {{}}
  mod_register:
    access: anybody
    access_from: anybody
    ip_access: anybody
{dialback}{bidi}""")

    def command(self):
        paths = [path for root in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib/erlang/lib")
                 for path in glob.glob(f"{root}/*/ebin")]
        # While something is measured its schedulers do not wait busily.
        idle = ["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"] if getattr(self.world, "quiet", False) else []
        name = f"{self.domain.split('.')[0]}@localhost"
        return ["erl", "-noinput", *idle, "-pa", *paths, "-sname", name, "-mnesia", "dir",
                f'"{self.folder}/data"', "-ejabberd", "config", f'"{self.folder}/ejabberd.yml"', "-ejabberd", "log_path",
                f'"{self.folder}/log"', "-s", "ejabberd"]

    def environment(self):
        return {"HOME": self.folder}


PEERS = {"prosody": Prosody, "ejabberd": Ejabberd}
