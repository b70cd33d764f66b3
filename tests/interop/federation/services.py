"""Scenes of the federation run around it: a component behind waft, and what the operator sees."""

import asyncio
import contextlib
import json

import slixmpp
from dns import DEAD
from servers import COMPONENT_SECRET


class Echo(slixmpp.ComponentXMPP):
    """Answers each message with its text."""

    def __init__(self, server):
        super().__init__(f"echo.{server.domain}", COMPONENT_SECRET, server.address, 5347)
        self.auto_reconnect = False
        self.started, self.presences = asyncio.Event(), []
        self.register_plugin("xep_0199")
        self.add_event_handler("session_start", lambda _: self.started.set())
        self.add_event_handler("message", self.answer)
        for kind in ("available", "unavailable"):
            self.add_event_handler(f"presence_{kind}", self.presences.append)

    def answer(self, message):
        self.send_message(mto=message["from"], mfrom=message["to"], mbody=f"echo of {message['body']}", mtype="chat")


@contextlib.asynccontextmanager
async def echo(server):
    component = Echo(server)
    component.connect(server.address, 5347)
    await asyncio.wait_for(component.started.wait(), 60)
    try:
        yield component
    finally:
        await component.disconnect()


async def their_user_and_our_component_talk(w):
    async with echo(w.ours) as component:
        address = f"bot@echo.{w.ours.domain}"
        w.romeo.send_message(mto=address, mbody="hi", mtype="chat")
        await w.romeo.sees("message", address, "echo of hi")
        await component["xep_0199"].send_ping(w.theirs.domain, ifrom=component.boundjid.bare, timeout=60)
        # What it shows of its users ends with its stream, there too.
        component.send_presence(pto=w.romeo.boundjid.full, pfrom=f"{address}/x")
        await w.romeo.sees("presence_available", f"{address}/x")
    await w.romeo.sees("presence_unavailable", f"{address}/x")
    w.romeo.send_message(mto=address, mbody="hi", mtype="chat")
    error = await w.romeo.sees("message_error", address)
    assert error["error"]["condition"] == "remote-server-timeout", error


async def run(w, *arguments):
    process = await asyncio.create_subprocess_exec(
        w.waft, *arguments, "--config", w.ours.config,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, errors = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode, out.decode(), errors.decode()


async def waft_check_walks_to_them_and_back(w):
    status, out, errors = await run(w, "check", w.theirs.domain, "--json")
    assert status == 0, out + errors
    check = json.loads(out)
    steps = {step["step"]: step["state"] for step in check["steps"]}
    assert check["ok"] and list(steps)[:6] == ["policy", "srv", "addresses", "tcp", "tls", "certificate"], steps
    assert steps["there and back"] == "ok", steps
    proof = "external" if w.mode == "certificates" else "dialback"
    assert steps[proof] == "ok", steps
    assert steps["certificate"] == ("ok" if w.mode == "certificates" else "note"), steps


async def waft_check_names_the_step_that_fails(w):
    status, out, errors = await run(w, "check", "nowhere.example", "--json")
    check = json.loads(out)
    failed = [step["step"] for step in check["steps"] if step["state"] == "failed"]
    assert status == 1 and failed[0] == "addresses" and "addresses" in errors, out + errors
    # There is a machine, and no server on it.
    status, out, errors = await run(w, "check", "closed.example")
    assert status == 1 and "FAILED tcp" in out and "do: " in out, out + errors


async def waft_s2s_list_shows_the_links(w):
    w.juliet.send_message(mto=w.r, mbody="for the list", mtype="chat")
    await w.romeo.sees("message", w.j, "for the list")
    status, out, errors = await run(w, "s2s", "list", w.theirs.domain, "--json")
    links = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and links, out + errors
    proof = "certificate" if w.mode == "certificates" else "dialback"
    assert all(link["trust"] == proof and link["since"] for link in links if link["direction"] != "none"), links
    assert any(link["direction"] in ("out", "both") for link in links), links
    status, out, errors = await run(w, "s2s", "list")
    assert status == 0 and w.theirs.domain in out, out + errors


async def draft_3_domain_its_server_is_found_by_name_priority_and_what_answers(w):
    """Draft §3, DOMAIN: RFC 6120 §3.2.1, RFC 2782. The first target of their SRV records is dead, all scenes find the second."""
    status, out, errors = await run(w, "check", w.theirs.domain, "--json")
    steps = {step["step"]: step for step in json.loads(out)["steps"]}
    assert status == 0, out + errors
    addresses = steps["addresses"]["detail"]
    assert addresses.index(DEAD) < addresses.index(w.theirs.address), addresses
    assert w.theirs.address in steps["tcp"]["detail"], out


async def draft_3_domain_that_says_it_has_no_server_is_not_looked_for_elsewhere(w):
    """Draft §3, DOMAIN: RFC 2782, the target `.`; there is an address of that name, and it is not asked."""
    w.juliet.send_message(mto="nobody@silent.example", mbody="?", mtype="chat")
    error = await w.juliet.sees("message_error", "nobody@silent.example")
    assert error["error"]["condition"] == "remote-server-not-found", error
