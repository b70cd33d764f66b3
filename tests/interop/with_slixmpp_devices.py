"""Scenes with slixmpp: several devices of one person, what they share, and what a server that was killed leaves them."""

import xml.etree.ElementTree as ET

from slixmpp.plugins.xep_0402.stanza import Conference

from house import House
from person import befriend
from scenes import eventually, scene
from with_slixmpp import PEER, online, refused

OUTCOME = "{urn:waft:outcome:0}outcome"
INBOX = "urn:xmpp:inbox:1"
RETRACT = "urn:xmpp:message-retract:1"


async def bare(house, name, *resources, **options):
    jid = house.account(name)
    return [await online(house, "", jid=f"{jid}/{resource}", **options) for resource in resources]


# ---- displayed synchronisation, private nodes ----


@scene(PEER)
async def what_one_device_has_shown_the_others_learn(house):
    desk, phone = await bare(house, "juliet", "desk", "phone", plugins=["xep_0490"])
    async with desk, phone, await online(house, "romeo") as romeo:
        shown = []
        phone.add_event_handler("message_displayed_synchronization_publish", shown.append)
        romeo.send_message(mto=desk.boundjid.bare, mbody="soft!", mtype="chat")
        stanza_id = (await desk.hears_body("soft!"))["stanza_id"]["id"]
        # The phone was asked which events it wants, and has answered.
        await phone.knows_nothing_more()
        await desk["xep_0490"].flag_chat(romeo.boundjid.bare, stanza_id)
        event = (await eventually("what the desk has shown", lambda: shown))[0]
        item = event["pubsub_event"]["items"]["item"]
        assert (item["id"], item["displayed"]["stanza_id"]["id"]) == (romeo.boundjid.bare, stanza_id), str(event)
        async with await online(house, "", jid=f"{desk.boundjid.bare}/late", plugins=["xep_0490"]) as late:
            items = (await late["xep_0490"].catch_up())["pubsub"]["items"]
            found = [(item["id"], item["displayed"]["stanza_id"]["id"]) for item in items]
            assert found == [(romeo.boundjid.bare, stanza_id)], found


@scene(PEER)
async def a_marker_in_passing_reaches_the_own_devices_and_nobody_else(house):
    desk, phone = await bare(house, "juliet", "desk", "phone", plugins=["xep_0490"])
    async with desk, phone, await online(house, "romeo") as romeo:
        shown = []
        phone.add_event_handler("message_displayed_synchronization_publish", shown.append)
        romeo.send_message(mto=desk.boundjid.bare, mbody="soft!", mtype="chat")
        stanza_id = (await desk.hears_body("soft!"))["stanza_id"]["id"]
        await phone.knows_nothing_more()
        marker = desk.make_message(mto=romeo.boundjid.bare, mtype="chat", mbody="seen")
        marker.append(ET.fromstring(
            f"<displayed xmlns='urn:xmpp:mds:displayed:0'><stanza-id xmlns='urn:xmpp:sid:0' id='{stanza_id}' "
            f"by='{desk.boundjid.bare}'/></displayed>"
        ))  # fmt: skip
        marker.send()
        told = await romeo.hears_body("seen")
        assert "mds" not in str(told), str(told)
        event = (await eventually("the marker", lambda: shown))[0]
        assert event["pubsub_event"]["items"]["item"]["displayed"]["stanza_id"]["id"] == stanza_id


@scene(PEER)
async def bookmarks_are_kept_for_their_owner_alone(house):
    plugins = ["xep_0223", "xep_0402"]
    async with await online(house, "juliet", plugins=plugins) as juliet, await online(house, "romeo", plugins=plugins) as romeo:
        info = await juliet["xep_0030"].get_info(jid=juliet.boundjid.bare)
        assert ("pubsub", "pep", None, None) in info["disco_info"]["identities"], str(info)
        assert "http://jabber.org/protocol/pubsub#publish-options" in info["disco_info"]["features"]
        bookmark = Conference()
        bookmark["name"] = "Council of Oberon"
        bookmark["autojoin"] = True
        await juliet["xep_0223"].store(bookmark, node="urn:xmpp:bookmarks:1", id="council@underhill.example")
        items = (await juliet["xep_0223"].retrieve("urn:xmpp:bookmarks:1"))["pubsub"]["items"]
        found = [(item["id"], item["conference"]["name"]) for item in items]
        assert found == [("council@underhill.example", "Council of Oberon")], found
        ask = romeo["xep_0060"].get_items(juliet.boundjid.bare, "urn:xmpp:bookmarks:1")
        assert await refused(ask) == "service-unavailable"
        take = romeo["xep_0060"].publish(juliet.boundjid.bare, "urn:xmpp:bookmarks:1", payload=bookmark.xml)
        assert await refused(take) == "service-unavailable"
        # Another node is for everybody, as it says so.
        def shown_to(model):
            options = juliet["xep_0004"].make_form(ftype="submit")
            options.add_field("FORM_TYPE", "hidden", value="http://jabber.org/protocol/pubsub#publish-options")
            options.add_field("pubsub#access_model", value=model)
            return options

        publish = juliet["xep_0060"].publish
        await publish(juliet.boundjid.bare, "urn:open", payload=bookmark.xml, options=shown_to("open"))
        items = (await romeo["xep_0060"].get_items(juliet.boundjid.bare, "urn:open"))["pubsub"]["items"]
        assert len([item["id"] for item in items]) == 1, str(items)
        # What asks for more than is given is refused, not misunderstood.
        on_request = publish(juliet.boundjid.bare, "urn:asked", payload=bookmark.xml, options=shown_to("authorize"))
        assert await refused(on_request) == "conflict"


# ---- the archive ----


@scene(PEER)
async def the_archive_is_walked_page_by_page_from_both_ends(house):
    async with await online(house, "romeo") as romeo, await online(house, "juliet") as juliet:
        for number in range(25):
            romeo.send_message(mto=juliet.boundjid.bare, mbody=f"{number}", mtype="chat")
        await juliet.hears_body("24")
        for person in (romeo, juliet):
            walk = person["xep_0313"].iterate(jid=person.boundjid.bare, rsm={"max": 7})
            forwards = [(m["mam_result"]["id"], m["mam_result"]["forwarded"]["stanza"]["body"]) async for m in walk]
            walk = person["xep_0313"].iterate(jid=person.boundjid.bare, rsm={"max": 7}, reverse=True)
            backwards = [(m["mam_result"]["id"], m["mam_result"]["forwarded"]["stanza"]["body"]) async for m in walk]
            backwards.reverse()
            assert [body for _, body in forwards] == [f"{number}" for number in range(25)], forwards
            assert backwards == forwards, backwards
            ids = [dict((body, id) for id, body in forwards)]
            assert not any(id.isdigit() and len(id) == 16 and id.startswith("17") for id in ids[0].values()), ids[0]


@scene(PEER)
async def the_inbox_shows_the_conversations_and_what_is_unread(house):
    async with await online(house, "juliet") as juliet:
        async with await online(house, "romeo") as romeo, await online(house, "nurse") as nurse:
            for who, bodies in ((romeo, ["one", "two"]), (nurse, ["madam!"])):
                for body in bodies:
                    who.send_message(mto=juliet.boundjid.bare, mbody=body, mtype="chat")
                    heard = await juliet.hears_body(body)
            marker = juliet.make_message(mto=nurse.boundjid.bare, mtype="chat")
            marker.append(ET.fromstring(f"<displayed xmlns='urn:xmpp:chat-markers:0' id='{heard['id']}'/>"))
            marker.send()
            juliet.messages.clear()
            ask = juliet.make_iq_get()
            ask.append(ET.fromstring(f"<inbox xmlns='{INBOX}'/>"))
            fin = (await ask.send()).xml.find(f"{{{INBOX}}}fin")
            assert (fin.get("total"), fin.get("unread"), fin.get("all-unread")) == ("2", "1", "2"), ET.tostring(fin)
            entries = [m.xml.find(f"{{{INBOX}}}entry") for m in juliet.everything]
            found = [(e.get("jid"), e.get("unread")) for e in entries if e is not None]
            assert found == [(nurse.boundjid.bare, "0"), (romeo.boundjid.bare, "2")], found


@scene(PEER)
async def a_retracted_message_is_a_tombstone_in_both_archives(house):
    async with await online(house, "romeo") as romeo, await online(house, "juliet") as juliet:
        wrong = romeo.make_message(mto=juliet.boundjid.bare, mbody="not for you", mtype="chat")
        wrong["id"] = "wrong-1"
        wrong.send()
        await juliet.hears_body("not for you")
        retraction = romeo.make_message(mto=juliet.boundjid.bare, mbody="/me retracted a message", mtype="chat")
        retraction["id"] = "retract-1"
        retraction.append(ET.fromstring(f"<retract xmlns='{RETRACT}' id='wrong-1'/>"))
        retraction.send()
        await juliet.hears_body("/me retracted a message")
        for person in (romeo, juliet):

            async def look(person=person):
                results = await person["xep_0313"].retrieve(jid=person.boundjid.bare, rsm={"max": 50})
                first = results["mam"]["results"][0]["mam_result"]["forwarded"]["stanza"]
                tombstone = first.xml.find(f"{{{RETRACT}}}retracted")
                return tombstone is not None and tombstone.get("id") == "retract-1" and not first["body"]

            await eventually("the tombstone", look)


# ---- outcomes ----


@scene(PEER)
async def a_sender_that_asks_learns_what_became_of_a_message(house):
    romeo, juliet = await online(house, "romeo"), await online(house, "juliet")
    await befriend(romeo, juliet)
    jid = juliet.boundjid.bare
    await juliet.leave()
    await romeo.hears_presence("unavailable", juliet.boundjid.full)
    async with romeo:
        asks = romeo.make_message(mto=jid, mbody="are you there?", mtype="chat")
        asks["id"] = "asked-1"
        asks.append(ET.fromstring("<request xmlns='urn:waft:outcome:0'/>"))
        asks.send()

        async def hears_outcome(state):
            which = lambda m: (e := m.xml.find(OUTCOME)) is not None and (e.get("id"), e.get("state")) == ("asked-1", state)
            report = await romeo.hears(romeo.everything, f"the outcome {state}", which)
            assert report["from"] == jid, str(report)

        await hears_outcome("stored")
        async with await online(house, "", jid=f"{jid}/again") as again:
            await again.hears_body("are you there?")
            await hears_outcome("delivered")


# ---- a server that is killed ----


@scene(PEER, seconds=120)
async def what_was_acknowledged_is_there_once_after_the_server_was_killed(house):
    mine = House(house.binary)
    mine.start()
    try:
        romeo = await online(mine, "romeo", managed=True)
        juliet = await online(mine, "juliet", managed=True)
        jid = juliet.boundjid.bare
        await juliet.sees("sm_enabled")
        await romeo.sees("sm_enabled")
        acked = []
        romeo.add_event_handler("stanza_acked", acked.append)
        # Her connection breaks; what she is sent from now on she cannot have had.
        juliet.cut()
        await juliet.sees("disconnected")
        for number in range(10):
            romeo.send_message(mto=jid, mbody=f"{number}", mtype="chat")

        def all_acknowledged():
            # Asked again and again: slixmpp writes a request at once, and its messages later.
            romeo["xep_0198"].request_ack()
            return sum(bool(s["body"]) for s in acked if s.name == "message") == 10

        await eventually("acknowledgements", all_acknowledged)
        mine.process.kill()
        mine.process.wait()
        romeo.cut()
        mine.start()
        juliet.seen.clear()
        juliet.connect("127.0.0.1", mine.starttls_port)
        await juliet.sees("session_start")
        await juliet.come()
        for number in range(10):
            await juliet.hears_body(f"{number}")
        await juliet.knows_nothing_more()
        assert not [m for m in juliet.messages if m["body"]], "nothing came twice"
        results = await juliet["xep_0313"].retrieve(jid=jid, rsm={"max": 50})
        found = [result["mam_result"]["forwarded"]["stanza"]["body"] for result in results["mam"]["results"]]
        assert found == [f"{number}" for number in range(10)], found
        await juliet.leave()
    finally:
        assert mine.stop(), mine.said()
