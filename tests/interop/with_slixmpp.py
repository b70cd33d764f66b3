"""Scenes with slixmpp."""

import time as clock
import xml.etree.ElementTree as ET
from datetime import datetime
from pathlib import Path

from slixmpp.exceptions import IqError

from house import DOMAIN, GUESTS
from person import Person, befriend
from scenes import eventually, scene

PEER = "slixmpp"


async def online(house, name, **options):
    jid = options.pop("jid", None) or house.account(name)
    return await (await Person(house, jid, **options).login()).come()


async def refused(answer):
    """The condition of the error that an iq is answered with."""
    try:
        await answer
    except IqError as error:
        return error.iq["error"]["condition"]
    raise AssertionError("it was not refused")


# ---- accounts and logins ----


@scene(PEER)
async def a_stranger_registers_an_account_and_logs_in_with_it(house):
    jid = f"stranger{next(house.names)}@{DOMAIN}"
    options = {"xep_0077": {"force_registration": True}}
    person = Person(house, jid, password="fresh", plugins=["xep_0004", "xep_0066", "xep_0077"], options=options)

    async def register(form):
        iq = person.Iq()
        iq["type"] = "set"
        iq["register"]["username"] = person.requested_jid.user
        iq["register"]["password"] = "fresh"
        await iq.send()

    person.add_event_handler("register", register)
    async with person:
        await person.login()
    async with Person(house, jid, password="fresh") as again:
        await again.login()


@scene(PEER)
async def a_changed_password_counts_from_the_next_login(house):
    async with await online(house, "romeo", plugins=["xep_0077"]) as romeo:
        jid = romeo.boundjid.bare
        await romeo["xep_0077"].change_password("another one")
    async with Person(house, jid, password="another one") as again:
        await again.login()
    async with Person(house, jid) as late:
        late.enable_direct_tls = False
        late.connect("127.0.0.1", house.starttls_port)
        await eventually("the refusal of the old password", lambda: late.failures)


def logs_in_by(mechanism):
    async def play(house):
        async with Person(house, house.account("romeo"), mechanism=mechanism) as romeo:
            await romeo.login()
            assert romeo["feature_mechanisms"].mech.name == mechanism

    play.__name__ = f"a_login_by_{mechanism}"
    scene(PEER)(play)


for each in ("SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"):
    logs_in_by(each)


@scene(PEER)
async def a_login_by_a_certificate(house):
    jid = house.account("romeo")
    async with Person(house, jid, password="", mechanism="EXTERNAL") as romeo:
        romeo.certfile, romeo.keyfile = house.identity(jid)
        await romeo.login()
        assert romeo["feature_mechanisms"].mech.name == "EXTERNAL"
        assert romeo.boundjid.bare == jid, romeo.boundjid


@scene(PEER)
async def a_guest_logs_in_without_a_name(house):
    async with Person(house, GUESTS, password="", mechanism="ANONYMOUS") as guest:
        guest.ca_certs = Path(house.certificate_of(GUESTS))
        await guest.login()
        assert guest["feature_mechanisms"].mech.name == "ANONYMOUS"
        assert guest.boundjid.user and guest.boundjid.domain == GUESTS, guest.boundjid
        await guest.knows_nothing_more()


@scene(PEER)
async def a_login_by_direct_TLS(house):
    async with Person(house, house.account("romeo")) as romeo:
        await romeo.login(direct=True)


@scene(PEER)
async def with_its_defaults_it_tries_direct_TLS_on_the_STARTTLS_port_and_gets_in_all_the_same(house):
    async with Person(house, house.account("romeo")) as romeo:
        await romeo.login(either=True)


@scene(PEER)
async def a_wrong_password_is_refused(house):
    async with Person(house, house.account("romeo"), password="wrong") as romeo:
        romeo.enable_direct_tls = False
        romeo.connect("127.0.0.1", house.starttls_port)
        await eventually("the refusal", lambda: romeo.failures)
        assert "session_start" not in romeo.seen


@scene(PEER)
async def an_account_that_is_removed_is_gone(house):
    async with await online(house, "romeo", plugins=["xep_0077"]) as romeo:
        jid = romeo.boundjid.bare
        await romeo["xep_0077"].cancel_registration()
        await romeo.sees("disconnected")
    async with Person(house, jid) as late:
        late.enable_direct_tls = False
        late.connect("127.0.0.1", house.starttls_port)
        await eventually("the refusal", lambda: late.failures)


# ---- the roster ----


@scene(PEER)
async def roster_changes_are_pushed_to_the_other_resource(house):
    jid, contact = house.account("romeo"), f"mercutio@{DOMAIN}"
    async with await online(house, "", jid=f"{jid}/one") as one, await online(house, "", jid=f"{jid}/two") as two:
        await one.update_roster(contact, name="Mercutio", groups=[])
        await two.hears_push(contact, name="Mercutio", subscription="none")
        await one.update_roster(contact, name="M.", groups=["Friends", "Montague"])
        push = await two.hears_push(contact, name="M.")
        assert sorted(push["roster"]["items"][contact]["groups"]) == ["Friends", "Montague"]
        await one.del_roster_item(contact)
        await two.hears_push(contact, subscription="remove")
        roster = await two.get_roster()
        assert contact not in roster["roster"]["items"]


@scene(PEER)
async def the_roster_is_there_at_the_next_login(house):
    jid, contact = house.account("romeo"), f"mercutio@{DOMAIN}"
    async with await online(house, "", jid=jid) as romeo:
        await romeo.update_roster(contact, name="Mercutio", groups=["Friends"])
    async with await Person(house, jid).login() as again:
        item = (await again.get_roster())["roster"]["items"][contact]
        assert (item["name"], item["groups"], item["subscription"]) == ("Mercutio", ["Friends"], "none")


@scene(PEER)
async def a_subscription_that_is_granted_both_ways_shows_in_both_rosters(house):
    async with await online(house, "romeo") as romeo, await online(house, "juliet") as juliet:
        await befriend(romeo, juliet)
        await romeo.hears_push(juliet.boundjid.bare, subscription="both")
        await juliet.hears_push(romeo.boundjid.bare, subscription="both")
        await romeo.hears_presence("available", juliet.boundjid.full)


@scene(PEER)
async def a_subscription_that_is_denied_leaves_no_trace_of_presence(house):
    async with await online(house, "romeo") as romeo, await online(house, "juliet") as juliet:
        romeo.send_presence_subscription(pto=juliet.boundjid.bare)
        await romeo.hears_push(juliet.boundjid.bare, subscription="none", ask="subscribe")
        await juliet.hears_presence("subscribe", romeo.boundjid.bare)
        juliet.send_presence_subscription(pto=romeo.boundjid.bare, ptype="unsubscribed")
        await romeo.hears_presence("unsubscribed", juliet.boundjid.bare)
        await romeo.hears_push(juliet.boundjid.bare, subscription="none", ask="")
        juliet.send_presence(pshow="away")
        await juliet.hears_presence("away", juliet.boundjid.full)
        await romeo.knows_nothing_more()
        assert not [p for p in romeo.presences if p["from"].bare == juliet.boundjid.bare]


@scene(PEER)
async def a_request_to_somebody_offline_waits_for_them(house):
    juliet_jid = house.account("juliet")
    async with await online(house, "romeo") as romeo:
        romeo.send_presence_subscription(pto=juliet_jid)
        await romeo.hears_push(juliet_jid, ask="subscribe")
        async with await online(house, "", jid=juliet_jid) as juliet:
            await juliet.hears_presence("subscribe", romeo.boundjid.bare)


@scene(PEER)
async def who_unsubscribes_hears_that_the_other_is_unavailable_and_nothing_more(house):
    async with await online(house, "romeo") as romeo, await online(house, "juliet") as juliet:
        await befriend(romeo, juliet)
        await romeo.hears_presence("available", juliet.boundjid.full)
        romeo.send_presence_subscription(pto=juliet.boundjid.bare, ptype="unsubscribe")
        await juliet.hears_presence("unsubscribe", romeo.boundjid.bare)
        await romeo.hears_push(juliet.boundjid.bare, subscription="from")
        await juliet.hears_push(romeo.boundjid.bare, subscription="to")
        await romeo.hears_presence("unavailable", juliet.boundjid.full)
        juliet.send_presence(pshow="away")
        await juliet.hears_presence("away", juliet.boundjid.full)
        await romeo.knows_nothing_more()
        assert not [p for p in romeo.presences if p["type"] == "away"]


# ---- presence ----


@scene(PEER)
async def a_contact_is_seen_to_come_change_and_go(house):
    async with await online(house, "romeo") as romeo, await online(house, "juliet") as juliet:
        await befriend(romeo, juliet)
        name = juliet.boundjid.full
        await romeo.hears_presence("available", name)
        juliet.send_presence(pshow="dnd", pstatus="at the balcony", ppriority=7)
        changed = await romeo.hears_presence("dnd", name)
        assert (changed["status"], changed["priority"]) == ("at the balcony", 7)
        await juliet.leave()
        await romeo.hears_presence("unavailable", name)
        async with await online(house, "", jid=juliet.boundjid.bare) as again:
            await romeo.hears_presence("available", again.boundjid.full)
            await again.hears_presence("available", romeo.boundjid.full)


@scene(PEER)
async def a_connection_that_breaks_makes_its_user_unavailable(house):
    async with await online(house, "romeo") as romeo:
        juliet = await online(house, "juliet")
        await befriend(romeo, juliet)
        await romeo.hears_presence("available", juliet.boundjid.full)
        juliet.cut()
        await romeo.hears_presence("unavailable", juliet.boundjid.full)


@scene(PEER)
async def directed_presence_reaches_a_stranger_and_so_does_its_end(house):
    async with await online(house, "romeo") as romeo, await online(house, "juliet") as juliet:
        juliet.send_presence(pto=romeo.boundjid.full, pstatus="only for you")
        came = await romeo.hears_presence("available", juliet.boundjid.full)
        assert came["status"] == "only for you"
        await juliet.leave()
        await romeo.hears_presence("unavailable", juliet.boundjid.full)


# ---- messages ----


@scene(PEER)
async def two_people_chat(house):
    async with await online(house, "romeo") as romeo, await online(house, "juliet") as juliet:
        romeo.send_message(mto=juliet.boundjid.bare, mbody="But soft! <what> & light?", mtype="chat")
        heard = await juliet.hears_body("But soft! <what> & light?")
        assert heard["from"].full == romeo.boundjid.full and heard["type"] == "chat"
        heard.reply("Ay me!").send()
        assert (await romeo.hears_body("Ay me!"))["from"].full == juliet.boundjid.full


@scene(PEER)
async def many_messages_come_in_order(house):
    async with await online(house, "romeo") as romeo, await online(house, "juliet") as juliet:
        for number in range(300):
            romeo.send_message(mto=juliet.boundjid.bare, mbody=f"{number}", mtype="chat")
        await eventually("300 messages", lambda: len(juliet.messages) == 300)
        assert [m["body"] for m in juliet.messages] == [str(number) for number in range(300)]


@scene(PEER)
async def a_message_to_a_full_JID_goes_to_that_resource_alone(house):
    jid = house.account("juliet")
    async with await online(house, "romeo") as romeo, await online(house, "", jid=f"{jid}/balcony") as balcony:
        async with await online(house, "", jid=f"{jid}/chamber") as chamber:
            romeo.send_message(mto=f"{jid}/chamber", mbody="in here", mtype="chat")
            await chamber.hears_body("in here")
            await balcony.knows_nothing_more()
            assert not balcony.messages


@scene(PEER)
async def messages_to_somebody_offline_wait_with_the_time_at_which_they_came(house):
    jid = house.account("juliet")
    async with await online(house, "romeo") as romeo:
        for body in ("first", "second"):
            romeo.send_message(mto=jid, mbody=body, mtype="chat")
        await romeo.knows_nothing_more()
        async with await online(house, "", jid=jid) as juliet:
            for body in ("first", "second"):
                heard = await juliet.hears_body(body)
                assert heard["delay"]["stamp"] is not None and heard["from"].full == romeo.boundjid.full
        async with await online(house, "", jid=jid) as again:
            await again.knows_nothing_more()
            assert not again.messages


@scene(PEER)
async def a_message_to_nobody_comes_back_as_an_error(house):
    async with await online(house, "romeo") as romeo:
        romeo.send_message(mto=f"nobody@{DOMAIN}", mbody="hello?", mtype="chat")
        error = await romeo.hears(romeo.messages, "the error", lambda m: m["type"] == "error")
        assert error["error"]["condition"] == "service-unavailable"


@scene(PEER)
async def carbons_show_both_sides_of_a_chat_to_the_other_resource(house):
    jid = house.account("juliet")
    async with await online(house, "romeo") as romeo, await online(house, "", jid=f"{jid}/phone") as phone:
        async with await online(house, "", jid=f"{jid}/desk") as desk:
            received, sent = [], []
            phone.add_event_handler("carbon_received", received.append)
            phone.add_event_handler("carbon_sent", sent.append)
            await phone["xep_0280"].enable()
            romeo.send_message(mto=f"{jid}/desk", mbody="to the desk", mtype="chat")
            await desk.hears_body("to the desk")
            carbon = (await eventually("the carbon of what was received", lambda: received))[0]
            assert carbon["carbon_received"]["body"] == "to the desk" and carbon["from"].bare == jid
            desk.send_message(mto=romeo.boundjid.full, mbody="from the desk", mtype="chat")
            await romeo.hears_body("from the desk")
            carbon = (await eventually("the carbon of what was sent", lambda: sent))[0]
            assert carbon["carbon_sent"]["body"] == "from the desk"


@scene(PEER)
async def the_archive_has_what_was_said(house):
    async with await online(house, "romeo") as romeo, await online(house, "juliet") as juliet:
        for number in range(5):
            romeo.send_message(mto=juliet.boundjid.bare, mbody=f"line {number}", mtype="chat")
        live = [(await juliet.hears_body(f"line {number}"))["stanza_id"]["id"] for number in range(5)]
        for person in (romeo, juliet):
            results = await person["xep_0313"].retrieve(jid=person.boundjid.bare, rsm={"max": 50})
            found = [result["mam_result"]["forwarded"]["stanza"]["body"] for result in results["mam"]["results"]]
            assert found == [f"line {number}" for number in range(5)], found
        assert [result["mam_result"]["id"] for result in results["mam"]["results"]] == live


# ---- stream management ----


@scene(PEER)
async def a_cut_stream_is_resumed_and_what_came_meanwhile_is_given(house):
    juliet = await online(house, "juliet", managed=True)
    async with await online(house, "romeo") as romeo:
        await juliet.sees("sm_enabled")
        await befriend(romeo, juliet)
        await romeo.hears_presence("available", juliet.boundjid.full)
        name = juliet.boundjid.full
        juliet.cut()
        await juliet.sees("disconnected")
        romeo.send_message(mto=juliet.boundjid.bare, mbody="are you there?", mtype="chat")
        await romeo.knows_nothing_more()
        juliet.seen.clear()
        juliet.connect("127.0.0.1", house.starttls_port)
        await juliet.sees("session_resumed")
        assert juliet.boundjid.full == name
        await juliet.hears_body("are you there?")
        juliet.send_message(mto=romeo.boundjid.bare, mbody="always", mtype="chat")
        await romeo.hears_body("always")
        assert not [p for p in romeo.presences if p["type"] == "unavailable"], "nobody noticed the cut"
    await juliet.leave()


@scene(PEER)
async def every_stanza_that_is_sent_is_acknowledged(house):
    async with await online(house, "romeo", managed=True) as romeo, await online(house, "juliet") as juliet:
        await romeo.sees("sm_enabled")
        acked = []
        romeo.add_event_handler("stanza_acked", acked.append)
        for number in range(20):
            romeo.send_message(mto=juliet.boundjid.bare, mbody=f"{number}", mtype="chat")
        await juliet.hears_body("19")
        romeo["xep_0198"].request_ack()
        await eventually("20 acknowledgements", lambda: sum(bool(s["body"]) for s in acked if s.name == "message") == 20)


# ---- what is kept, and what is asked ----


@scene(PEER)
async def who_is_blocked_is_not_heard_and_sees_nobody(house):
    async with await online(house, "romeo") as romeo, await online(house, "tybalt") as tybalt:
        await befriend(romeo, tybalt)
        await tybalt.hears_presence("available", romeo.boundjid.full)
        await romeo["xep_0191"].block(tybalt.boundjid.bare)
        await tybalt.hears_presence("unavailable", romeo.boundjid.full)
        blocked = await romeo["xep_0191"].get_blocked_jids()
        assert {str(jid) for jid in blocked} == {tybalt.boundjid.bare}
        tybalt.send_message(mto=romeo.boundjid.bare, mbody="villain", mtype="chat")
        error = await tybalt.hears(tybalt.messages, "the error", lambda m: m["type"] == "error")
        assert error["error"]["condition"] == "service-unavailable"
        await romeo["xep_0191"].unblock(tybalt.boundjid.bare)
        await tybalt.hears_presence("available", romeo.boundjid.full)
        tybalt.send_message(mto=romeo.boundjid.bare, mbody="peace", mtype="chat")
        await romeo.hears_body("peace")
        assert not [m for m in romeo.messages if m["body"] == "villain"]


@scene(PEER)
async def a_card_is_kept_and_shown_to_contacts_alone(house):
    async with await online(house, "romeo") as romeo, await online(house, "juliet") as juliet:
        async with await online(house, "tybalt") as tybalt:
            await befriend(romeo, juliet)
            card = juliet["xep_0054"].make_vcard()
            card["FN"] = "Juliet Capulet"
            await juliet["xep_0054"].publish_vcard(card)
            shown = await romeo["xep_0054"].get_vcard(juliet.boundjid.bare, cached=False)
            assert shown["vcard_temp"]["FN"] == "Juliet Capulet"
            assert await refused(tybalt["xep_0054"].get_vcard(juliet.boundjid.bare, cached=False))


@scene(PEER)
async def private_XML_is_kept_as_it_was_given(house):
    jid = house.account("romeo")

    def query(content, kind):
        return f"<iq type='{kind}' id='x' xmlns='jabber:client'><query xmlns='jabber:iq:private'>{content}</query></iq>"

    async def ask(person, content, kind):
        iq = person.Iq(xml=ET.fromstring(query(content, kind)))
        iq["id"] = person.new_id()
        return await iq.send()

    async with await online(house, "", jid=jid) as romeo:
        await ask(romeo, "<storage xmlns='storage:bookmarks'><url name='a &amp; b' url='https://x'/></storage>", "set")
    async with await online(house, "", jid=jid) as again:
        answer = await ask(again, "<storage xmlns='storage:bookmarks'/>", "get")
        url = answer.xml.find(".//{storage:bookmarks}url")
        assert url is not None and url.attrib == {"name": "a & b", "url": "https://x"}


@scene(PEER)
async def the_server_answers_ping_version_time_uptime_and_disco(house):
    async with await online(house, "romeo") as romeo:
        assert await romeo["xep_0199"].ping(DOMAIN) < 10
        version = await romeo["xep_0092"].get_version(DOMAIN)
        assert version["software_version"]["name"] == "waft" and version["software_version"]["version"]
        time = await romeo["xep_0202"].get_entity_time(DOMAIN)
        utc = time["entity_time"].xml.find("{urn:xmpp:time}utc").text
        assert utc.endswith("Z") and abs(datetime.fromisoformat(utc).timestamp() - clock.time()) < 60, utc
        uptime = await romeo["xep_0012"].get_last_activity(DOMAIN)
        assert int(uptime["last_activity"]["seconds"]) >= 0
        info = await romeo["xep_0030"].get_info(DOMAIN, cached=False)
        assert ("server", "im") in {(i[0], i[1]) for i in info["disco_info"]["identities"]}
        features = info["disco_info"]["features"]
        for feature in ("http://jabber.org/protocol/disco#info", "urn:xmpp:ping", "jabber:iq:register"):
            assert feature in features, f"{feature} is not in {sorted(features)}"
        own = await romeo["xep_0030"].get_info(romeo.boundjid.bare, cached=False)
        assert ("account", "registered") in {(i[0], i[1]) for i in own["disco_info"]["identities"]}
        await romeo["xep_0030"].get_items(DOMAIN)


@scene(PEER)
async def a_contact_is_told_when_somebody_was_last_there_and_a_stranger_is_not(house):
    async with await online(house, "romeo") as romeo, await online(house, "tybalt") as tybalt:
        juliet = await online(house, "juliet")
        await befriend(romeo, juliet)
        jid = juliet.boundjid.bare
        await juliet.leave()
        await romeo.hears_presence("unavailable", jid)
        answer = await romeo["xep_0012"].get_last_activity(jid)
        assert 0 <= int(answer["last_activity"]["seconds"]) < 60
        assert await refused(tybalt["xep_0012"].get_last_activity(jid))


@scene(PEER)
async def an_iq_between_two_clients_goes_there_and_back(house):
    async with await online(house, "romeo") as romeo, await online(house, "juliet") as juliet:
        juliet["xep_0092"].software_name = "balcony"
        await befriend(romeo, juliet)
        version = await romeo["xep_0092"].get_version(juliet.boundjid.full)
        assert version["software_version"]["name"] == "balcony"


@scene(PEER)
async def a_second_login_with_the_same_resource_replaces_the_first(house):
    jid = house.account("romeo") + "/same"
    async with await online(house, "", jid=jid) as first, await online(house, "", jid=jid) as second:
        await first.sees("disconnected")
        await second.knows_nothing_more()


