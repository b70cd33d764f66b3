"""Scenes with xmpp.js: each is a function of `xmpp_js.mjs`, played in a process of its own."""

import asyncio
import json
import os

from house import DOMAIN, PASSWORD
from scenes import scene

PEER = "xmpp.js"
SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "xmpp_js.mjs")


async def play(house, name, **accounts):
    facts = {
        "service": f"xmpps://localhost:{house.direct_port}",
        "starttls": f"xmpp://localhost:{house.starttls_port}",
        "domain": DOMAIN,
        "password": PASSWORD,
        **accounts,
    }
    environment = {**os.environ, "NODE_EXTRA_CA_CERTS": house.certificate}
    process = await asyncio.create_subprocess_exec(
        "node", SCRIPT, name, json.dumps(facts),
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 160)
    except asyncio.TimeoutError:
        process.kill()
        output, _ = await process.communicate()
        raise AssertionError(f"it did not end: {output.decode()}") from None
    assert process.returncode == 0, output.decode()


@scene(PEER, seconds=180)
async def it_logs_in_by_direct_TLS_and_two_of_it_chat(house):
    await play(house, "chat", romeo=house.account("romeo"), juliet=house.account("juliet"))


@scene(PEER, seconds=180)
async def it_logs_in_by_STARTTLS(house):
    await play(house, "starttls", romeo=house.account("romeo"))


@scene(PEER, seconds=180)
async def it_logs_in_by_SASL2_and_then_by_a_token(house):
    romeo = house.account("romeo")
    await play(house, "token", romeo=romeo)
    logins = [line for line in house.said().splitlines() if "authenticated" in line and romeo in line]
    mechanisms = [mechanism for line in logins for mechanism in ("SCRAM-SHA-1", "HT-SHA-256-NONE") if mechanism in line]
    assert mechanisms == ["SCRAM-SHA-1", "HT-SHA-256-NONE"], logins


@scene(PEER, seconds=180)
async def it_resumes_its_stream_after_the_connection_broke(house):
    await play(house, "resume", romeo=house.account("romeo"), juliet=house.account("juliet"))


@scene(PEER, seconds=180)
async def carbons_show_both_sides_of_a_chat_to_the_other_resource(house):
    await play(house, "carbons", romeo=house.account("romeo"), juliet=house.account("juliet"))


@scene(PEER, seconds=180)
async def the_archive_is_walked_page_by_page(house):
    await play(house, "archive", romeo=house.account("romeo"), juliet=house.account("juliet"))


@scene(PEER, seconds=180)
async def a_wrong_password_is_refused(house):
    await play(house, "wrong_password", romeo=house.account("romeo"))
