"""A waft of our own: a temporary data folder, free ports on the loopback address, accounts on request."""

import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import tempfile

from ports import free_port

DOMAIN = "localhost"
GUESTS = "guests.localhost"
PASSWORD = "a secret of the tests"
COMPONENT_SECRET = "a secret of the components"
TURN_SECRET = "a secret of the relays"
ADMINISTRATOR = f"administrator@{DOMAIN}"


class House:
    """The server under test and what peers need to know of it."""

    def __init__(self, binary):
        self.binary = binary
        self.folder = tempfile.TemporaryDirectory(prefix="waft-interop-")
        self.data = os.path.join(self.folder.name, "data")
        self.starttls_port = free_port()
        self.direct_port = free_port()
        self.component_port = free_port()
        with open(os.path.join(self.folder.name, "component.secret"), "w") as file:
            file.write(COMPONENT_SECRET + "\n")
        turn_secret = os.path.join(self.folder.name, "turn.secret")
        with open(turn_secret, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(TURN_SECRET + "\n")
        self.make_authority()
        self.config = os.path.join(self.folder.name, "waft.toml")
        with open(self.config, "w") as file:
            file.write(
                f"""
[[listen]]
address = "127.0.0.1:{self.starttls_port}"

[[listen]]
address = "127.0.0.1:{self.direct_port}"
tls = "direct"

[host.{DOMAIN}]
registration = "open"
client_ca = "clients.pem"
external_services = ["stun:stun.example.org", "turn:turn.example.org?transport=udp"]
turn_secret = "turn.secret"

[store]
fulltext = true

[host."{GUESTS}"]
anonymous = true

[accounts]
scram_iterations = 4096

[admin]
accounts = ["{ADMINISTRATOR}"]

[[component]]
domain = "irc.{DOMAIN}"
label = "IRC"
secret = "component.secret"
address = "127.0.0.1:{self.component_port}"

[[component]]
domain = "echo.{DOMAIN}"
secret = "component.secret"
address = "127.0.0.1:{self.component_port}"

# All scenes come from one address.
[limits]
rates = false
"""
            )
        self.names = itertools.count(1)
        self.process = None

    @property
    def certificate(self):
        """The self-signed certificate that waft made; clients check it."""
        return self.certificate_of(DOMAIN)

    def certificate_of(self, domain):
        return os.path.join(self.data, "certificates", f"{domain}.pem")

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.folder.name, check=True, stderr=subprocess.DEVNULL)

    def make_authority(self):
        """The authority whose certificates clients may log in with."""
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "clients.key"]
        self.openssl("req", "-x509", "-subj", "/CN=clients", "-days", "2", "-out", "clients.pem", *new)

    def identity(self, jid):
        """A certificate of the authority for this address (RFC 6120 §13.7.1.4), and its key: two files."""
        name = jid.replace("@", "-at-")
        with open(os.path.join(self.folder.name, f"{name}.ext"), "w") as file:
            file.write(f"subjectAltName=otherName:1.3.6.1.5.5.7.8.5;UTF8:{jid}\nextendedKeyUsage=clientAuth\n")
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key"]
        self.openssl("req", "-new", "-subj", "/CN=somebody", "-out", f"{name}.csr", *new)
        self.openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "clients.pem", "-CAkey", "clients.key", "-set_serial", "2",
            "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem",
        )  # fmt: skip
        return [os.path.join(self.folder.name, f"{name}.{kind}") for kind in ("pem", "key")]

    def start(self):
        self.log = open(os.path.join(self.folder.name, "waft.log"), "ab")
        command = [self.binary, "serve", "--data", self.data, "--config", self.config]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, stdin=subprocess.DEVNULL)
        for line in self.process.stdout:
            if line.strip() == b"ready":
                return
        raise RuntimeError(f"waft did not start:\n{self.said()}")

    def stop(self):
        """Ends waft; says whether it went in order."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20) == 0
        except subprocess.TimeoutExpired:
            self.process.kill()
            return False

    def said(self):
        with open(os.path.join(self.folder.name, "waft.log"), errors="replace") as file:
            return file.read()

    def account(self, name):
        """Makes an account of its own for a scene; gives its bare JID."""
        jid = f"{name}{next(self.names)}@{DOMAIN}"
        answer = self.command({"do": "user-add", "jid": jid, "password": PASSWORD})
        assert answer == {"is": "done"}, answer
        return jid

    def command(self, request):
        """One request by the admin socket."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(20)
            admin.connect(os.path.join(self.data, "waft.sock"))
            admin.sendall(json.dumps(request).encode() + b"\n")
            return json.loads(admin.makefile().readline())

    async def waft_client(self, jid, *arguments):
        """Runs `waft client`; gives what it printed."""
        process = await self.start_waft_client(jid, *arguments)
        output, errors = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 0, errors.decode()
        return output.decode()

    async def start_waft_client(self, jid, *arguments, mechanism=None):
        options = ["--jid", jid, "--host", f"127.0.0.1:{self.starttls_port}", "--data", self.data, "--password-stdin"]
        if mechanism:
            options += ["--mechanism", mechanism]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            self.binary, "client", *options, *arguments, stdin=pipe, stdout=pipe, stderr=pipe
        )
        process.stdin.write(PASSWORD.encode() + b"\n")
        process.stdin.close()
        return process
