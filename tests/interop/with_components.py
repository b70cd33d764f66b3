"""Scenes with components: slixmpp's, and biboumi, a gateway to a local IRC server."""

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import tempfile
import xml.etree.ElementTree as ET

from slixmpp import ComponentXMPP
from slixmpp.exceptions import IqError

from house import COMPONENT_SECRET, DOMAIN
from scenes import eventually, scene
from with_slixmpp import online

SLIXMPP = "slixmpp's component"
BIBOUMI = "biboumi with ngircd"
ECHO = f"echo.{DOMAIN}"
IRC = f"irc.{DOMAIN}"


class Echo(ComponentXMPP):
    """Answers each message with its text, whoever at its domain it was for."""

    def __init__(self, house, secret=COMPONENT_SECRET):
        super().__init__(ECHO, secret, "127.0.0.1", house.component_port)
        self.house = house
        self.seen, self.presences, self.errors, self.ended = [], [], [], []
        self.auto_reconnect = False
        self.started = asyncio.Event()
        for plugin in ("xep_0030", "xep_0199"):
            self.register_plugin(plugin)
        self["xep_0030"].add_identity(category="client", itype="bot", name="Echo")
        self.add_event_handler("session_start", lambda _: self.started.set())
        self.add_event_handler("message", self.answer)
        self.add_event_handler("message_error", self.errors.append)
        self.add_event_handler("stream_error", self.ended.append)
        self.add_event_handler("disconnected", lambda _: self.ended.append("disconnected"))
        for kind in ("available", "unavailable", "subscribe", "subscribed", "probe"):
            self.add_event_handler(f"presence_{kind}", self.presences.append)

    def answer(self, message):
        self.seen.append(message)
        self.send_message(mto=message["from"], mfrom=message["to"], mbody=f"echo of {message['body']}", mtype="chat")

    async def __aenter__(self):
        self.connect("127.0.0.1", self.house.component_port)
        await asyncio.wait_for(self.started.wait(), 10)
        return self

    async def __aexit__(self, *_):
        self.disconnect()
        await eventually("the end of the component's stream", lambda: "disconnected" in self.ended)


async def free(house, domain):
    """Waits until no stream of an earlier scene holds the domain."""
    await eventually(f"{domain} to be free", lambda: domain not in connected(house))


def connected(house):
    status = house.command({"do": "status"})
    return [it["domain"] for it in status["components"] if it.get("connected")]


@contextlib.asynccontextmanager
async def echo(house):
    async with Echo(house) as component:
        yield component
    await free(house, ECHO)


@scene(SLIXMPP)
async def a_user_and_a_component_exchange_messages(house):
    async with echo(house) as component, await online(house, "romeo") as romeo:
        romeo.send_message(mto=f"anybody@{ECHO}/x", mbody="hello", mtype="chat")
        answer = await eventually("the echo", lambda: romeo.messages and romeo.messages[0])
        assert answer["body"] == "echo of hello" and answer["from"] == f"anybody@{ECHO}/x", answer
        assert component.seen[0]["from"] == romeo.boundjid.full


@scene(SLIXMPP)
async def the_host_lists_the_component_and_the_component_says_what_it_is(house):
    async with echo(house), await online(house, "romeo") as romeo:
        items = (await romeo["xep_0030"].get_items(jid=DOMAIN))["disco_items"]["items"]
        assert (IRC, None, "IRC") in items and any(item[0] == ECHO for item in items), items
        info = (await romeo["xep_0030"].get_info(jid=ECHO))["disco_info"]
        assert ("client", "bot", None, "Echo") in info["identities"], info
        await romeo["xep_0199"].ping(jid=ECHO)


@scene(SLIXMPP)
async def a_component_asks_the_host_and_a_client(house):
    async with echo(house) as component, await online(house, "romeo") as romeo:
        info = await component["xep_0030"].get_info(jid=DOMAIN, ifrom=ECHO)
        assert "http://jabber.org/protocol/disco#info" in info["disco_info"]["features"]
        # A client answers those who know that it is there.
        romeo.send_presence(pto=ECHO)
        await eventually("his presence", lambda: component.presences)
        await component["xep_0199"].send_ping(romeo.boundjid.full, ifrom=ECHO)


@scene(SLIXMPP)
async def presence_of_a_component_ends_with_its_stream(house):
    async with await online(house, "romeo") as romeo:
        async with echo(house) as component:
            romeo.send_presence(pto=ECHO, ptype="subscribe")
            await eventually("the request", lambda: any(it["type"] == "subscribe" for it in component.presences))
            component.send_presence(pto=romeo.boundjid.bare, pfrom=ECHO, ptype="subscribed")
            component.send_presence(pto=romeo.boundjid.bare, pfrom=f"{ECHO}/here")
            await eventually("its presence", lambda: any(it["from"] == f"{ECHO}/here" for it in romeo.presences))
            romeo.presences.clear()
        await eventually("that it is gone", lambda: any(
            it["from"] == f"{ECHO}/here" and it["type"] == "unavailable" for it in romeo.presences))
        # When it is back it is asked.
        async with echo(house) as component:
            await eventually("a probe", lambda: any(it["type"] == "probe" for it in component.presences))


@scene(SLIXMPP)
async def who_writes_to_a_component_that_is_away_hears_that_it_is(house):
    await free(house, ECHO)
    async with await online(house, "romeo") as romeo:
        romeo.send_message(mto=f"anybody@{ECHO}", mbody="hello", mtype="chat")
        error = await eventually("the error", lambda: romeo.messages and romeo.messages[0])
        assert error["error"]["condition"] == "remote-server-timeout" and error["error"]["type"] == "wait", error
        assert ECHO in error["error"]["text"], error
        try:
            await romeo["xep_0030"].get_info(jid=ECHO)
            raise AssertionError("nobody is there to answer")
        except IqError as refused:
            assert refused.iq["error"]["condition"] == "remote-server-timeout"


@scene(SLIXMPP)
async def an_error_goes_to_the_component_whose_message_found_nobody(house):
    async with echo(house) as component:
        component.send_message(mto=f"nobody-of-that-name@{DOMAIN}", mfrom=f"somebody@{ECHO}", mbody="hello")
        error = await eventually("the error", lambda: component.errors and component.errors[0])
        # slixmpp looks for errors in the namespace of clients alone.
        assert error["to"] == f"somebody@{ECHO}" and "<service-unavailable" in str(error), error


@scene(SLIXMPP)
async def a_component_that_writes_as_somebody_else_loses_its_stream(house):
    async with await online(house, "romeo") as romeo:
        component = Echo(house)
        component.connect("127.0.0.1", house.component_port)
        await asyncio.wait_for(component.started.wait(), 10)
        component.send_message(mto=romeo.boundjid.bare, mfrom=f"juliet@{DOMAIN}", mbody="forged")
        await eventually("the stream's end", lambda: "disconnected" in component.ended)
        assert "invalid-from" in [str(it["condition"]) for it in component.ended if it != "disconnected"]
        assert not romeo.messages
    await free(house, ECHO)


@scene(SLIXMPP)
async def a_second_stream_of_a_component_is_a_conflict_and_the_first_stays(house):
    async with echo(house), await online(house, "romeo") as romeo:
        second = Echo(house)
        second.connect("127.0.0.1", house.component_port)
        await eventually("the stream's end", lambda: "disconnected" in second.ended)
        assert "conflict" in [str(it["condition"]) for it in second.ended if it != "disconnected"]
        romeo.send_message(mto=ECHO, mbody="still there?", mtype="chat")
        await eventually("the echo", lambda: romeo.messages)


@scene(SLIXMPP)
async def a_component_with_a_wrong_secret_is_not_authorized(house):
    stranger = Echo(house, secret="a guess")
    stranger.connect("127.0.0.1", house.component_port)
    await eventually("the stream's end", lambda: "disconnected" in stranger.ended)
    assert not stranger.started.is_set()
    assert "not-authorized" in [str(it["condition"]) for it in stranger.ended if it != "disconnected"]


# ---- biboumi ----


class Chatter:
    """Somebody at an IRC client: RFC 2812, as much of it as a chat needs."""

    async def join(self, address, nick, channel):
        self.lines = []
        self.reader, self.writer = await asyncio.open_connection(address, 6667)
        self.say(f"NICK {nick}", f"USER {nick} 0 * :{nick}")
        self.task = asyncio.create_task(self.listen())
        await self.hears("001")
        self.say(f"JOIN {channel}")
        await self.hears(f"JOIN :{channel}", f"JOIN {channel}")
        return self

    def say(self, *lines):
        self.writer.write("".join(f"{line}\r\n" for line in lines).encode())

    async def listen(self):
        while line := await self.reader.readline():
            line = line.decode(errors="replace").strip()
            self.lines.append(line)
            if line.startswith("PING"):
                self.say("PONG" + line[4:])

    async def hears(self, *words):
        return await eventually(
            f"{words} from the IRC server",
            lambda: next((line for line in self.lines if any(word in line for word in words)), None), 20)

    def leave(self):
        self.task.cancel()
        self.writer.close()


@contextlib.asynccontextmanager
async def gateway(house):
    """ngircd on a loopback address of its own, and biboumi between it and waft. Gives the IRC server's address."""
    address = f"127.{64 + secrets.randbelow(128)}.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"
    folder = tempfile.mkdtemp(prefix="waft-irc-")
    processes = []

    async def run(name, *command):
        program = shutil.which(command[0], path=os.environ["PATH"] + ":/usr/sbin")
        assert program, f"{command[0]} is not installed"
        log = open(os.path.join(folder, f"{name}.log"), "ab")
        process = await asyncio.create_subprocess_exec(
            program, *command[1:], stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log)
        processes.append(process)

    def listens():
        with socket.socket() as probe:
            return probe.connect_ex((address, 6667)) == 0

    try:
        with open(os.path.join(folder, "ngircd.conf"), "w") as file:
            file.write(
                "[Global]\nName = irc.scene.example\nInfo = scenes\nMotdPhrase = hello\nMotdFile = /dev/null\n"
                f"Listen = {address}\nPorts = 6667\nServerUID = {os.getuid() or 'irc'}\n"
                f"ServerGID = {os.getgid() or 'irc'}\n"
                "[Options]\nDNS = no\nIdent = no\nPAM = no\n[Limits]\nMaxConnectionsIP = 0\n"
            )
        await run("ngircd", "ngircd", "--nodaemon", "--config", os.path.join(folder, "ngircd.conf"))
        await eventually("the IRC server", listens, 20)
        with open(os.path.join(folder, "biboumi.cfg"), "w") as file:
            file.write(
                f"hostname={IRC}\npassword={COMPONENT_SECRET}\nxmpp_server_ip=127.0.0.1\n"
                f"port={house.component_port}\ndb_name={folder}/biboumi.sqlite\nidentd_port=0\nlog_level=0\n"
            )
        await run("biboumi", "biboumi", os.path.join(folder, "biboumi.cfg"))
        await eventually("biboumi at waft", lambda: IRC in connected(house), 20)
        yield address
    except BaseException:
        for name in ("ngircd", "biboumi"):
            with contextlib.suppress(OSError), open(os.path.join(folder, f"{name}.log"), errors="replace") as file:
                print(f"---- {name} said ----", *file.read().splitlines()[-30:], sep="\n", flush=True)
        raise
    finally:
        for process in reversed(processes):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), 5)
            if process.returncode is None:
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)
        await free(house, IRC)


async def join(person, room, nick):
    """Enters a room as XEP-0045 §7.2 says, and waits for its own presence."""
    presence = person.make_presence(pto=f"{room}/{nick}")
    presence.append(ET.Element("{http://jabber.org/protocol/muc}x"))
    presence.send()
    await eventually(f"{nick} in {room}", lambda: any(it["from"] == f"{room}/{nick}" and it["type"] == "available"
                                                      for it in person.presences), 20)


def heard(person, sender, body):
    return lambda: any(it["from"] == sender and it["body"] == body for it in person.messages)


@scene(BIBOUMI, seconds=90)
async def a_user_joins_an_IRC_channel_and_talks_with_those_who_are_there(house):
    async with gateway(house) as address:
        room = f"#balcony%{address}@{IRC}"
        nurse = await Chatter().join(address, "nurse", "#balcony")
        async with await online(house, "romeo") as romeo, await online(house, "juliet") as juliet:
            await join(romeo, room, "romeo")
            await nurse.hears("romeo!", ":romeo")
            await join(juliet, room, "juliet")
            await eventually("the nurse among the occupants", lambda: any(
                it["from"] == f"{room}/nurse" for it in romeo.presences))
            romeo.send_message(mto=room, mbody="What light through yonder window breaks?", mtype="groupchat")
            await nurse.hears("PRIVMSG #balcony :What light through yonder window breaks?")
            await eventually("his words at Juliet",
                             heard(juliet, f"{room}/romeo", "What light through yonder window breaks?"), 20)
            nurse.say("PRIVMSG #balcony :Madam!")
            await eventually("the nurse at Romeo", heard(romeo, f"{room}/nurse", "Madam!"), 20)
            # In private, both ways.
            nurse.say("PRIVMSG juliet :Your lady mother is coming to your chamber.")
            await eventually("what is for Juliet alone", lambda: any(
                it["body"] == "Your lady mother is coming to your chamber." for it in juliet.messages), 20)
            assert not any("lady mother" in it["body"] for it in romeo.messages)
            # He goes offline: the gateway hears it, and the channel too.
            romeo.presences.clear()
        await eventually("that Romeo has left", lambda: any(
            line.startswith(":romeo!") and (" QUIT" in line or " PART" in line) for line in nurse.lines), 20)
        nurse.leave()


@scene(BIBOUMI, seconds=90)
async def when_the_gateway_ends_its_occupants_are_gone(house):
    async with await online(house, "romeo") as romeo:
        async with gateway(house) as address:
            room = f"#balcony%{address}@{IRC}"
            await join(romeo, room, "romeo")
            romeo.presences.clear()
        await eventually("the end of the room", lambda: any(
            it["from"].bare == room and it["type"] == "unavailable" for it in romeo.presences), 20)
