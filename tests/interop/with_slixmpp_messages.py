"""Scenes with slixmpp: what a client asks of its archive, and what is done with messages on their way to it."""

import base64
import hashlib
import hmac
import time as clock
import xml.etree.ElementTree as ET

from house import DOMAIN, TURN_SECRET
from person import befriend
from scenes import eventually, scene
from with_components import ECHO, echo
from with_slixmpp import PEER, online

MAM = "urn:xmpp:mam:2"
FORWARD = "urn:xmpp:forward:0"
RSM = "http://jabber.org/protocol/rsm"
DATA = "jabber:x:data"
PUSH = "urn:xmpp:push:0"
WORDS = "{urn:xmpp:fulltext:0}fulltext"


async def ask(person, kind, content, to=None):
    """An iq with this content; gives what its answer holds."""
    iq = person.make_iq_get(ito=to) if kind == "get" else person.make_iq_set(ito=to)
    iq.append(ET.fromstring(content))
    return list((await iq.send()).xml)[0]


def say(person, to, body, more="", id=None):
    message = person.make_message(mto=to, mtype="chat", mbody=body)
    if id:
        message["id"] = id
    for element in ET.fromstring(f"<all>{more}</all>"):
        message.append(element)
    message.send()


async def walk(person, fields=(), paging="<max>50</max>", more=""):
    """One page of the archive: what came, as (id, message), and the end."""
    form = "".join(f"<field var='{var}'>{''.join(f'<value>{v}</value>' for v in values)}</field>" for var, *values in fields)
    form = f"<x xmlns='{DATA}' type='submit'><field var='FORM_TYPE'><value>{MAM}</value></field>{form}</x>"
    person.everything.clear()
    query = f"<query xmlns='{MAM}'>{form}<set xmlns='{RSM}'>{paging}</set>{more}</query>"
    fin = await ask(person, "set", query)
    results = [m.xml.find(f"{{{MAM}}}result") for m in person.everything]
    inner = f"{{{FORWARD}}}forwarded/{{jabber:client}}message"
    return [(r.get("id"), r.find(inner)) for r in results if r is not None], fin


def bodies(page):
    return [message.findtext("{jabber:client}body") for _, message in page]


@scene(PEER)
async def the_archive_is_asked_by_partner_by_id_by_time_and_newest_first(house):
    async with await online(house, "juliet") as juliet:
        async with await online(house, "romeo") as romeo, await online(house, "nurse") as nurse:
            me = juliet.boundjid.bare
            for number in range(4):
                for who in (romeo, nurse):
                    say(who, me, f"{who.boundjid.local}{number}")
                    await juliet.hears_body(f"{who.boundjid.local}{number}")
            everything, fin = await walk(juliet)
            assert len(everything) == 8 and fin.get("complete") == "true", ET.tostring(fin)
            assert fin.findtext(f"{{{RSM}}}set/{{{RSM}}}count") == "8", ET.tostring(fin)
            ids = [id for id, _ in everything]
            of_romeo, _ = await walk(juliet, [("with", romeo.boundjid.bare)])
            assert bodies(of_romeo) == [f"{romeo.boundjid.local}{n}" for n in range(4)], bodies(of_romeo)
            named, _ = await walk(juliet, [("ids", ids[5], ids[2])])
            assert [id for id, _ in named] == [ids[2], ids[5]], named
            between, _ = await walk(juliet, [("after-id", ids[1]), ("before-id", ids[5])])
            assert [id for id, _ in between] == ids[2:5], between
            flipped, _ = await walk(juliet, paging="<max>3</max><before/>", more="<flip-page/>")
            assert [id for id, _ in flipped] == ids[:4:-1], flipped
            metadata = await ask(juliet, "get", f"<metadata xmlns='{MAM}'/>")
            ends = [metadata.find(f"{{{MAM}}}{end}") for end in ("start", "end")]
            assert [end.get("id") for end in ends] == [ids[0], ids[-1]], ET.tostring(metadata)
            since, _ = await walk(juliet, [("start", ends[1].get("timestamp"))])
            assert since and since[-1][0] == ids[-1], since
            until, _ = await walk(juliet, [("end", ends[0].get("timestamp"))])
            assert until and until[0][0] == ids[0], until


@scene(PEER)
async def preferences_and_hints_decide_what_the_archive_keeps(house):
    async with await online(house, "juliet") as juliet:
        async with await online(house, "romeo") as romeo, await online(house, "nurse") as nurse:
            prefs = f"<prefs xmlns='{MAM}' default='always'><always/><never><jid>{nurse.boundjid.bare}</jid></never></prefs>"
            await ask(juliet, "set", prefs)
            shown = await ask(juliet, "get", f"<prefs xmlns='{MAM}'/>")
            assert shown.get("default") == "always", ET.tostring(shown)
            assert shown.findtext(f"{{{MAM}}}never/{{{MAM}}}jid") == nurse.boundjid.bare, ET.tostring(shown)
            hint = lambda name: f"<{name} xmlns='urn:xmpp:hints'/>"
            say(nurse, juliet.boundjid.bare, "not kept")
            say(romeo, juliet.boundjid.bare, "in passing", hint("no-store"))
            say(romeo, juliet.boundjid.bare, "not for ever", hint("no-permanent-store"))
            say(romeo, juliet.boundjid.bare, "kept")
            for body in ("not kept", "in passing", "not for ever", "kept"):
                await juliet.hears_body(body)
            received = "<received xmlns='urn:xmpp:receipts' id='r1'/>"
            silent = romeo.make_message(mto=juliet.boundjid.bare, mtype="chat")
            for element in ET.fromstring(f"<all>{received}{hint('store')}</all>"):
                silent.append(element)
            silent.send()
            await juliet.hears(juliet.everything, "a receipt", lambda m: m.xml.find("{urn:xmpp:receipts}received") is not None)
            page, _ = await walk(juliet)
            assert bodies(page) == ["kept", None], bodies(page)


@scene(PEER)
async def words_are_found_in_the_archive(house):
    async with await online(house, "juliet") as juliet, await online(house, "romeo") as romeo:
        for body in ("the lark, the herald of the morn", "no nightingale", "It was the Lark"):
            say(romeo, juliet.boundjid.bare, body)
            await juliet.hears_body(body)
        form = await ask(juliet, "get", f"<query xmlns='{MAM}'/>")
        assert any(f.get("var") == WORDS for f in form.iter(f"{{{DATA}}}field")), ET.tostring(form)

        async def found():
            page, _ = await walk(juliet, [(WORDS, "lark")])
            return bodies(page) == ["the lark, the herald of the morn", "It was the Lark"]

        await eventually("both larks", found)
        page, _ = await walk(juliet, [(WORDS, "lark herald")])
        assert bodies(page) == ["the lark, the herald of the morn"], bodies(page)


@scene(PEER)
async def corrections_and_reactions_are_in_the_archives_of_both(house):
    async with await online(house, "romeo") as romeo, await online(house, "juliet") as juliet:
        say(romeo, juliet.boundjid.bare, "wherefor", id="m1")
        await juliet.hears_body("wherefor")
        say(romeo, juliet.boundjid.bare, "wherefore", "<replace xmlns='urn:xmpp:message-correct:0' id='m1'/>", id="m2")
        assert (await juliet.hears_body("wherefore")).xml.find("{urn:xmpp:message-correct:0}replace").get("id") == "m1"
        reaction = juliet.make_message(mto=romeo.boundjid.bare, mtype="chat")
        reaction.append(ET.fromstring("<reactions xmlns='urn:xmpp:reactions:0' id='m2'><reaction>❤</reaction></reactions>"))
        reaction.send()
        kind = "{urn:xmpp:reactions:0}reactions"
        await romeo.hears(romeo.everything, "a reaction", lambda m: m.xml.find(kind) is not None)
        for person in (romeo, juliet):
            page, _ = await walk(person)
            assert bodies(page) == ["wherefor", "wherefore", None], bodies(page)
            assert page[2][1].find(kind).get("id") == "m2", ET.tostring(page[2][1])


@scene(PEER)
async def who_looks_elsewhere_is_told_what_counts_at_once_and_the_rest_when_it_looks_again(house):
    juliet, romeo = await online(house, "juliet", plugins=["xep_0352"]), await online(house, "romeo")
    async with juliet, romeo:
        await befriend(juliet, romeo)
        await juliet.hears_presence("available", romeo.boundjid.full)
        await juliet.knows_nothing_more()
        juliet.presences.clear()
        juliet.everything.clear()
        juliet.send_raw("<inactive xmlns='urn:xmpp:csi:0'/>")
        await juliet.knows_nothing_more()
        # (From here on an answer would wake the client, and bring with it all that waits.)
        state = lambda name: romeo.send_raw(
            f"<message to='{juliet.boundjid.bare}' type='chat'><{name} xmlns='http://jabber.org/protocol/chatstates'/></message>"
        )
        for status in ("one", "two", "three"):
            romeo.send_presence(pstatus=status)
            state("composing")
        state("paused")
        await romeo.knows_nothing_more()
        assert not juliet.presences and not juliet.everything, (juliet.presences, juliet.everything)
        say(romeo, juliet.boundjid.bare, "look!")
        await juliet.hears_body("look!")
        assert [p["status"] for p in juliet.presences] == ["three"], juliet.presences
        # The chat state came before the message that ends it.
        assert len(juliet.everything) == 2, juliet.everything
        romeo.send_presence(pstatus="four")
        await romeo.knows_nothing_more()
        juliet.send_raw("<active xmlns='urn:xmpp:csi:0'/>")
        await juliet.hears(juliet.presences, "what waited", lambda p: p["status"] == "four")


@scene(PEER)
async def a_phone_that_is_away_is_woken_by_its_app_server_for_messages_and_calls(house):
    async with echo(house) as service:
        from slixmpp.xmlstream.handler import Callback
        from slixmpp.xmlstream.matcher import MatchXPath

        told = []

        def answer(iq):
            told.append(iq)
            iq.reply().send()

        pubsub = "{http://jabber.org/protocol/pubsub}pubsub"
        service.register_handler(Callback("app server", MatchXPath(f"{{jabber:component:accept}}iq/{pubsub}"), answer))
        phone = await online(house, "juliet")
        jid = phone.boundjid.bare
        options = "".join(
            f"<field var='{var}'><value>{value}</value></field>"
            for var, value in (("FORM_TYPE", "http://jabber.org/protocol/pubsub#publish-options"), ("secret", "xyz"))
        )
        enable = f"<enable xmlns='{PUSH}' jid='{ECHO}' node='phone'><x xmlns='{DATA}' type='submit'>{options}</x></enable>"
        iq = phone.make_iq_set()
        iq.append(ET.fromstring(enable))
        await iq.send()
        shown = await ask(phone, "get", "<registrations xmlns='urn:waft:push-registrations:0'/>")
        assert ECHO in ET.tostring(shown).decode(), ET.tostring(shown)
        async with await online(house, "romeo") as romeo:
            say(romeo, jid, "here already")
            await phone.hears_body("here already")
            await romeo.knows_nothing_more()
            assert not told, "who is there needs no waking"
            await phone.leave()
            await eventually("her end", lambda: "disconnected" in phone.seen)
            say(romeo, jid, "awake?")
            await eventually("a push", lambda: len(told) == 1)
            publish = ET.tostring(told[0].xml).decode()
            assert "phone" in publish and "xyz" in publish and "awake?" not in publish, publish
            count = [f.findtext(f"{{{DATA}}}value") for f in told[0].xml.iter(f"{{{DATA}}}field") if f.get("var") == "message-count"]
            assert count == ["1"], publish
            call = romeo.make_message(mto=jid, mtype="chat")
            call.append(ET.fromstring("<propose xmlns='urn:xmpp:jingle-message:0' id='c1'/>"))
            call.append(ET.fromstring("<store xmlns='urn:xmpp:hints'/>"))
            call.send()
            await eventually("a push for the call", lambda: len(told) == 2)


@scene(PEER)
async def who_blocks_may_say_why_and_the_operator_reads_it(house):
    async with await online(house, "juliet") as juliet, await online(house, "tybalt") as tybalt:
        report = "<report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:spam'><text>Buy daggers.</text></report>"
        block = f"<block xmlns='urn:xmpp:blocking'><item jid='{tybalt.boundjid.bare}'>{report}</item></block>"
        iq = juliet.make_iq_set()
        iq.append(ET.fromstring(block))
        await iq.send()
        said = lambda: [line for line in house.said().splitlines() if "Buy daggers." in line]
        line = (await eventually("the report in the log", said))[0]
        assert tybalt.boundjid.bare in line and "spam" in line, line
        say(tybalt, juliet.boundjid.bare, "hear me!")
        await tybalt.hears(tybalt.messages, "an error", lambda m: m["type"] == "error")


@scene(PEER)
async def relays_are_shown_with_credentials_that_end(house):
    async with await online(house, "juliet") as juliet:
        services = await ask(juliet, "get", "<services xmlns='urn:xmpp:extdisco:2'/>", to=DOMAIN)
        stun, turn = (services.find(f"*[@type='{kind}']") for kind in ("stun", "turn"))
        assert stun.get("host") == "stun.example.org" and stun.get("password") is None, ET.tostring(services)
        ends = int(turn.get("username"))
        assert clock.time() + 80_000 < ends < clock.time() + 90_000, ET.tostring(turn)
        secret = hmac.new(TURN_SECRET.encode(), turn.get("username").encode(), hashlib.sha1).digest()
        assert turn.get("password") == base64.b64encode(secret).decode(), ET.tostring(turn)
