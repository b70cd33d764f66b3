"""One user's client, which remembers what it saw."""

import asyncio
import ssl
import time

import slixmpp
from servers import PASSWORD


class Client(slixmpp.ClientXMPP):
    """One user's client, which remembers what it saw."""

    def __init__(self, server, name, register=False, managed=False):
        super().__init__(f"{name}@{server.domain}/scene", PASSWORD)
        self.home, self.seen, self.changed = server, [], asyncio.Event()
        self.enable_direct_tls = False
        self.ssl_context.check_hostname = False
        self.ssl_context.verify_mode = ssl.CERT_NONE
        self.auto_authorize = None
        self.auto_subscribe = False
        for plugin in ("xep_0030", "xep_0199", "xep_0092"):
            self.register_plugin(plugin)
        if managed:
            # An acknowledgement is asked for after each stanza; what is heard of it is an event of its own.
            self.register_plugin("xep_0198", {"allow_resume": False, "window": 1})
        if register:
            self.register_plugin("xep_0077")
            self.plugin["xep_0077"].force_registration = True
            self.add_event_handler("register", self.make_account)
        self.online = asyncio.get_running_loop().create_future()
        self.add_event_handler("session_start", self.began)
        for event in ("message", "message_error", "presence_available", "presence_unavailable", "presence_subscribe",
                      "presence_subscribed", "presence_unsubscribed", "presence_error"):
            self.add_event_handler(event, lambda stanza, event=event: self.saw(event, stanza))

    async def make_account(self, _):
        iq = self.Iq()
        iq["type"] = "set"
        iq["register"]["username"] = self.boundjid.user
        iq["register"]["password"] = PASSWORD
        try:
            await iq.send()
        except slixmpp.exceptions.IqError as error:
            if error.iq["error"]["condition"] != "conflict":
                raise

    async def began(self, _):
        await self.get_roster()
        self.send_presence()
        if not self.online.done():
            self.online.set_result(None)

    def saw(self, event, stanza):
        self.seen.append((event, stanza))
        self.changed.set()

    async def login(self):
        self.connect(self.home.address, 5222)
        await asyncio.wait_for(self.online, 120)
        return self

    async def logout(self):
        await self.disconnect()

    async def sees(self, event, sender=None, body=None, status=None, seconds=90):
        """Waits until such a stanza has come, and takes it and what came before it of the kind."""

        def fits(stanza):
            return ((sender is None or stanza["from"].bare == sender or str(stanza["from"]) == sender)
                    and (body is None or stanza["body"] == body) and (status is None or stanza["status"] == status))

        deadline = time.monotonic() + seconds
        while True:
            for at, (kind, stanza) in enumerate(self.seen):
                if kind == event and fits(stanza):
                    del self.seen[at]
                    return stanza
            self.changed.clear()
            left = deadline - time.monotonic()
            if left <= 0:
                had = [f"{kind} from {stanza['from']}" for kind, stanza in self.seen[-6:]]
                raise AssertionError(f"{self.boundjid.bare} did not see {event} of {sender} {body or status or ''}; had last {had}")
            try:
                await asyncio.wait_for(self.changed.wait(), left)
            except asyncio.TimeoutError:
                pass

    def forget(self):
        self.seen.clear()
