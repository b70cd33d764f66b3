#!/usr/bin/env python3
"""What is around a move: the old server and its users, an authority, two real clients. For tests/packages/run, within
its view of the machine; the interpreter is that of the clients.

    day.py live | authority | clients | again
"""

import asyncio
import importlib.machinery
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
os.environ["OLD_DOMAIN"] = "example.org"
sys.path.insert(0, f"{TESTS}/interop/moving")

import life  # noqa: E402
from old import DOMAIN, PASSWORD, Prosody  # noqa: E402

ROOTS = "/root/roots.pem"


def module(name, path):
    """Of a file without an ending."""
    loader = importlib.machinery.SourceFileLoader(name, path)
    found = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(found)
    return found


def live():
    """Alice, Bob, Carol and Dave at Prosody, until it is stopped."""
    prosody = Prosody("/root/old", "internal", "SHA-1")
    for name in ("alice", "bob", "carol", "dave"):
        prosody.add_user(name)
    prosody.start()
    try:
        asyncio.run(life.live(prosody.port))
    finally:
        prosody.stop()
    shutil.rmtree("/var/lib/prosody", ignore_errors=True)
    shutil.move(prosody.data, "/var/lib/prosody")


def authority():
    """Pebble, at the address that the book says; goes on in the background."""
    acme = module("acme", f"{TESTS}/interop/acme/run")
    pebble = acme.Authority("/root/authority", port=14000)
    pebble.http_port = 80
    pebble.start().ready()
    shutil.copy(pebble.ca, "/etc/ssl/acme-ca.pem")
    with open(ROOTS, "w") as file:
        file.write(pebble.roots)


def chat():
    """xmpp.js as Alice and as Bob, which trusts the authority alone."""
    facts = {"service": f"xmpps://{DOMAIN}:5223", "starttls": f"xmpp://{DOMAIN}:5222", "domain": DOMAIN,
             "password": PASSWORD, "romeo": f"alice@{DOMAIN}", "juliet": f"bob@{DOMAIN}", "contacts": 3}
    subprocess.run(["node", f"{TESTS}/interop/xmpp_js.mjs", "chat", json.dumps(facts)], check=True, timeout=170,
                   env=os.environ | {"NODE_EXTRA_CA_CERTS": ROOTS})


def clients():
    """slixmpp finds all that there was, and xmpp.js talks; with the old passwords."""
    asyncio.run(module("moving", f"{TESTS}/interop/moving/run").look(5222))
    chat()


async def remembers():
    alice = await life.User("alice", 5222, resource="again").login()
    said = [text for _, text in await alice.archive()]
    wanted = [text for _, text in life.SAID] + life.OFFLINE + ["It is I"]
    assert said[: len(wanted)] == wanted, said
    assert alice.client_roster[f"bob@{DOMAIN}"]["subscription"] == "both"
    await alice.logout()


def again():
    """After the restore: the same users, contacts, archive."""
    asyncio.run(remembers())
    chat()


if __name__ == "__main__":
    logging.getLogger("slixmpp").setLevel(logging.CRITICAL + 1)
    began = time.monotonic()
    {"live": live, "authority": authority, "clients": clients, "again": again}[sys.argv[1]]()
    print(f"{sys.argv[1]}: {time.monotonic() - began:.1f} s", file=sys.stderr)
