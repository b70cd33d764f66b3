"""What users of the old server did there, before it was left."""

import asyncio
import ssl

import slixmpp
from slixmpp.xmlstream import ET

from old import DOMAIN, PASSWORD


class User(slixmpp.ClientXMPP):
    """A client that writes what it is told to, and remembers what came."""

    def __init__(self, name, port, password=PASSWORD, domain=DOMAIN, resource="old"):
        super().__init__(f"{name}@{domain}/{resource}", password)
        self.port, self.came, self.requests = port, [], []
        self.enable_direct_tls = False
        self.auto_reconnect = False
        self.ssl_context.check_hostname = False
        self.ssl_context.verify_mode = ssl.CERT_NONE
        self.roster.auto_authorize = None
        self.roster.auto_subscribe = False
        for plugin in ("xep_0030", "xep_0049", "xep_0054", "xep_0059", "xep_0191", "xep_0199", "xep_0203", "xep_0297", "xep_0313"):
            self.register_plugin(plugin)
        self.online = asyncio.get_running_loop().create_future()
        self.add_event_handler("session_start", lambda _: self.online.done() or self.online.set_result(True))
        self.add_event_handler("failed_all_auth", lambda _: self.online.done() or self.online.set_result(False))
        self.add_event_handler("message", self.came.append)
        self.add_event_handler("presence_subscribe", self.requests.append)

    async def login(self, available=True):
        self.connect("127.0.0.1", self.port)
        assert await asyncio.wait_for(self.online, 30), f"{self.boundjid.bare} cannot log in"
        if available:
            await self.get_roster()
            self.send_presence()
            await self.settle()
        return self

    async def settle(self):
        """All that was sent before was taken by the server."""
        await self.plugin["xep_0199"].send_ping(self.boundjid.domain)

    async def logout(self):
        await self.settle()
        await self.disconnect()

    async def stored(self, element):
        """Puts XML into private storage."""
        iq = self.make_iq_set()
        query = ET.Element("{jabber:iq:private}query")
        query.append(ET.fromstring(element))
        iq.append(query)
        await iq.send()

    async def read(self, element):
        """What is in private storage under the name of the element."""
        iq = self.make_iq_get()
        query = ET.Element("{jabber:iq:private}query")
        query.append(ET.fromstring(element))
        iq.append(query)
        answer = await iq.send()
        return ET.tostring(answer.xml).decode()

    async def archive(self):
        """(from, body) of all archived messages, oldest first."""
        results = self.plugin["xep_0313"].retrieve(iterator=True, rsm={"max": 20})
        found = []
        async for page in results:
            for message in page["mam"]["results"]:
                stanza = message["mam_result"]["forwarded"]["stanza"]
                found.append((stanza["from"].bare, stanza["body"]))
        return found


SAID = [("alice", "Where is the balcony? <here> & \"there\""), ("bob", "Over the orchard wall.\nMind the dog — 🐕"), ("alice", "I come")]
OFFLINE = ["Are you asleep?", "I wait below, \\ and / 'quoted' ]]> over"]


async def live(port):
    """Alice and Bob befriend each other and talk; Alice asks Carol, who does not answer; Dave asks Alice. Bob goes, and
    Alice writes to him."""
    alice, bob, dave = [User(name, port) for name in ("alice", "bob", "dave")]
    for user in (alice, bob):
        await user.login()
    alice.send_presence_subscription(f"bob@{DOMAIN}", ptype="subscribe")
    await until(lambda: bob.requests)
    bob.send_presence_subscription(f"alice@{DOMAIN}", ptype="subscribed")
    bob.send_presence_subscription(f"alice@{DOMAIN}", ptype="subscribe")
    await until(lambda: alice.requests)
    alice.send_presence_subscription(f"bob@{DOMAIN}", ptype="subscribed")
    await alice.update_roster(f"bob@{DOMAIN}", name="Bob <the> Builder", groups=["Friends", "Böse \"Buben\""])
    await alice.update_roster("eve@elsewhere.example", name="Eve")
    alice.send_presence_subscription(f"carol@{DOMAIN}", ptype="subscribe")
    await alice.plugin["xep_0191"].block("mallory@elsewhere.example")
    await alice.plugin["xep_0191"].block("spam.example")
    card = alice.plugin["xep_0054"].make_vcard()
    card["FN"] = "Alice of the Balcony"
    await alice.plugin["xep_0054"].publish_vcard(card)
    await alice.stored("<prefs xmlns='client:prefs'><tab>3</tab></prefs>")
    await dave.login()
    dave.send_presence_subscription(f"alice@{DOMAIN}", ptype="subscribe")
    await dave.settle()
    await until(lambda: len(alice.requests) == 2)
    users = {"alice": alice, "bob": bob}
    for who, text in SAID:
        other = "bob" if who == "alice" else "alice"
        users[who].send_message(f"{other}@{DOMAIN}", text, mtype="chat")
        await until(lambda: users[other].came and users[other].came[-1]["body"] == text)
    await bob.logout()
    await dave.logout()
    await asyncio.sleep(1.1)
    for text in OFFLINE:
        alice.send_message(f"bob@{DOMAIN}", text, mtype="chat")
    await alice.logout()


async def until(condition, seconds=30):
    for _ in range(seconds * 50):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come")
