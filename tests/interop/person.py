"""Somebody at slixmpp: connects, remembers all that comes, waits for what should come."""

import asyncio
from pathlib import Path

from slixmpp import ClientXMPP
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

from house import PASSWORD
from scenes import eventually

PLUGINS = [
    "xep_0012", "xep_0030", "xep_0049", "xep_0054", "xep_0059", "xep_0092", "xep_0115", "xep_0184", "xep_0191",
    "xep_0199", "xep_0202", "xep_0203", "xep_0280", "xep_0313", "xep_0334", "xep_0359",
]  # fmt: skip

# As slixmpp names them: the type, or for available presence what it shows.
PRESENCE_KINDS = [
    "available", "away", "chat", "dnd", "xa", "unavailable", "subscribe", "subscribed", "unsubscribe", "unsubscribed",
    "error",
]  # fmt: skip


class Person(ClientXMPP):
    """One stream. `messages`, `presences` and `pushes` hold what came, oldest first; `everything` also messages without
    a body, which slixmpp keeps from `messages`."""

    def __init__(self, house, jid, *, password=PASSWORD, mechanism=None, managed=False, plugins=(), options=None):
        options = {name: dict(value) for name, value in (options or {}).items()}
        if mechanism:
            options["feature_mechanisms"] = {"use_mech": mechanism}
        super().__init__(jid, password, plugin_config=options)
        self.house = house
        self.ca_certs = Path(house.certificate)
        self.auto_reconnect = False
        self.roster.auto_authorize = None
        self.roster.auto_subscribe = False
        self.messages, self.presences, self.pushes, self.failures = [], [], [], []
        self.seen = set()
        for name in [*PLUGINS, *(["xep_0198"] if managed else []), *plugins]:
            self.register_plugin(name)
        self.everything = []
        self.register_handler(Callback("all messages", MatchXPath("{jabber:client}message"), self.everything.append))
        self.add_event_handler("message", self.messages.append)
        self.add_event_handler("message_error", self.messages.append)
        for kind in PRESENCE_KINDS:
            self.add_event_handler(f"presence_{kind}", self.presences.append)
        self.add_event_handler("roster_update", self.pushes.append)
        self.add_event_handler("failed_all_auth", self.failures.append)
        for name in ("session_start", "session_resumed", "sm_enabled", "disconnected", "killed"):
            self.add_event_handler(name, lambda _, name=name: self.seen.add(name))

    async def login(self, direct=False, either=False):
        """Logs in by STARTTLS, or by direct TLS, or as slixmpp would on its own."""
        if not either:
            self.enable_direct_tls = direct
            self.enable_starttls = not direct
        self.connect("127.0.0.1", self.house.direct_port if direct else self.house.starttls_port)
        await self.sees("session_start")
        return self

    async def sees(self, *names):
        await eventually(f"{' or '.join(names)} at {self.requested_jid}", lambda: self.seen & set(names))

    async def come(self, **presence):
        """Asks for the roster and becomes available."""
        await self.get_roster()
        self.send_presence(**presence)
        me = self.boundjid.full
        await self.hears(self.presences, f"the own presence of {me}", lambda p: p["from"].full == me)
        return self

    async def leave(self):
        """Closes the stream in order."""
        if self.is_connected():
            await self.disconnect()

    def cut(self):
        """The connection breaks, without a word."""
        self.abort()

    async def hears(self, where, what, which):
        """Waits for the first in `where` that `which` is true of, and takes it out."""

        def found():
            for index, stanza in enumerate(where):
                if which(stanza):
                    return where.pop(index)
            return None

        return await eventually(f"{what} at {self.boundjid}", found)

    async def hears_body(self, body):
        return await self.hears(self.messages, f"the message {body!r}", lambda m: m["body"] == body)

    async def hears_presence(self, kind, sender):
        """`kind` is one of `PRESENCE_KINDS`."""
        bare = "/" not in str(sender)
        which = lambda p: p["type"] == kind and (p["from"].bare if bare else p["from"].full) == str(sender)
        return await self.hears(self.presences, f"{kind} from {sender}", which)

    async def hears_push(self, contact, **fields):
        """Waits for a roster push of the contact with these fields (name, subscription, groups, ask)."""

        def which(push):
            item = push["roster"]["items"].get(contact)
            return push["type"] == "set" and item is not None and all(item[k] == v for k, v in fields.items())

        return await self.hears(self.pushes, f"a push of {contact} with {fields}", which)

    async def knows_nothing_more(self):
        """After this, all that the server had to say before has come: it answers in order."""
        await self["xep_0199"].ping(self.boundjid.bare)
        await asyncio.sleep(0)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.leave()


async def befriend(one, other):
    """Each subscribes to the other's presence; both are online."""
    for asks, grants in ((one, other), (other, one)):
        asks.send_presence_subscription(pto=grants.boundjid.bare)
        await grants.hears_presence("subscribe", asks.boundjid.bare)
        grants.send_presence_subscription(pto=asks.boundjid.bare, ptype="subscribed")
        await asks.hears_presence("subscribed", grants.boundjid.bare)
