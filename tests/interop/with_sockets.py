"""Scenes over a bare socket: what no client library does, or would do for us."""

import asyncio
import base64
import hashlib
import hmac
import os
import re
import ssl

from house import DOMAIN, PASSWORD
from scenes import scene

PEER = "socket"
HEADER = (
    f"<?xml version='1.0'?><stream:stream to='{DOMAIN}' version='1.0' xmlns='jabber:client' "
    "xmlns:stream='http://etherx.jabber.org/streams'>"
)
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
STARTTLS = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"


class Wire:
    """Bytes to and from the server; what was read is searched, not parsed."""

    def __init__(self, reader, writer):
        self.reader, self.writer, self.text = reader, writer, ""

    def send(self, text):
        self.writer.write(text.encode())

    async def until(self, mark):
        """Reads up to `mark` (a regular expression); gives the match."""
        while True:
            match = re.search(mark, self.text, re.S)
            if match:
                self.text = self.text[match.end() :]
                return match
            data = await asyncio.wait_for(self.reader.read(65536), 10)
            assert data, f"the stream ended before {mark}: {self.text!r}"
            self.text += data.decode()

    async def ask(self, text, mark):
        self.send(text)
        return await self.until(mark)

    async def ends(self):
        """Reads to the end; gives what came."""
        while data := await asyncio.wait_for(self.reader.read(65536), 10):
            self.text += data.decode()
        return self.text


def tls(house):
    return ssl.create_default_context(cafile=house.certificate)


async def connect(house):
    return Wire(*await asyncio.open_connection("127.0.0.1", house.starttls_port))


async def secured(house):
    """A stream behind STARTTLS, with its features read."""
    wire = await connect(house)
    await wire.ask(HEADER, "</stream:features>")
    await wire.ask(STARTTLS, "<proceed[^>]*>")
    await wire.writer.start_tls(tls(house), server_hostname=DOMAIN)
    wire.features = (await wire.ask(HEADER, "<stream:features>(.*)</stream:features>"))[1]
    return wire


@scene(PEER)
async def before_STARTTLS_nothing_but_STARTTLS_is_offered(house):
    wire = await connect(house)
    features = (await wire.ask(HEADER, "<stream:features>(.*)</stream:features>"))[1]
    assert "<required/>" in features and "mechanism" not in features, features
    answer = await wire.ask(f"<auth xmlns='{SASL}' mechanism='PLAIN'>AGEAYg==</auth>", "<failure.*</failure>|</stream:stream>")
    assert "<success" not in answer[0]


@scene(PEER)
async def what_is_sent_in_clear_behind_STARTTLS_is_not_taken_into_TLS(house):
    wire = await connect(house)
    await wire.ask(HEADER, "</stream:features>")
    wire.send(STARTTLS + f"<auth xmlns='{SASL}' mechanism='PLAIN'>AGEAYg==</auth>")
    said = await wire.ends()
    assert "<proceed" not in said, said


@scene(PEER)
async def SCRAM_SHA_256_PLUS_binds_to_the_end_point(house):
    await scram_plus(house, tamper=False)


@scene(PEER)
async def SCRAM_SHA_256_PLUS_with_the_binding_of_another_channel_is_refused(house):
    await scram_plus(house, tamper=True)


async def scram_plus(house, tamper):
    """RFC 5802 with tls-server-end-point (RFC 5929 §4), from the texts and nothing of ours."""
    user = house.account("romeo").split("@")[0]
    wire = await secured(house)
    assert "<mechanism>SCRAM-SHA-256-PLUS</mechanism>" in wire.features, wire.features
    certificate = wire.writer.get_extra_info("ssl_object").getpeercert(True)
    binding = hashlib.sha256(certificate + (b"x" if tamper else b"")).digest()
    encode = lambda data: base64.b64encode(data).decode()
    gs2, nonce = "p=tls-server-end-point,,", encode(os.urandom(18))
    first = f"n={user},r={nonce}"
    wire.send(f"<auth xmlns='{SASL}' mechanism='SCRAM-SHA-256-PLUS'>{encode((gs2 + first).encode())}</auth>")
    server = base64.b64decode((await wire.until("<challenge[^>]*>([^<]*)</challenge>"))[1]).decode()
    fields = dict(field.split("=", 1) for field in server.split(","))
    assert fields["r"].startswith(nonce)
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
    mac = lambda key, text: hmac.new(key, text.encode(), "sha256").digest()
    key = mac(salted, "Client Key")
    bare = f"c={encode(gs2.encode() + binding)},r={fields['r']}"
    whole = f"{first},{server},{bare}"
    proof = bytes(a ^ b for a, b in zip(key, mac(hashlib.sha256(key).digest(), whole)))
    wire.send(f"<response xmlns='{SASL}'>{encode(f'{bare},p={encode(proof)}'.encode())}</response>")
    answer = await wire.until("<success[^>]*>([^<]*)</success>|<failure.*?</failure>")
    if tamper:
        assert answer[0].startswith("<failure"), answer[0]
        return
    assert answer[0].startswith("<success"), answer[0]
    verifier = base64.b64decode(answer[1]).decode()
    assert verifier == "v=" + encode(mac(mac(salted, "Server Key"), whole)), "the server proves that it knows too"


@scene(PEER)
async def a_stream_to_a_domain_that_is_not_hosted_is_told_so(house):
    wire = await connect(house)
    wire.send(HEADER.replace(f"to='{DOMAIN}'", "to='elsewhere.example'"))
    assert "host-unknown" in await wire.ends()


@scene(PEER)
async def bytes_that_are_no_XML_end_the_stream_with_an_error(house):
    wire = await connect(house)
    wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    said = await wire.ends()
    assert "<stream:error" in said, said


@scene(PEER)
async def a_stream_that_was_begun_ends_when_the_client_closes_it(house):
    wire = await secured(house)
    wire.send("</stream:stream>")
    assert "</stream:stream>" in await wire.ends()
