"""Scenes of the federation run: fetch, subscriptions with a duration, and access rules, with servers that know them and
with those that do not. See docs/protocol/fetch.md, leases.md and access-rules.md."""

import asyncio
import xml.etree.ElementTree as ET

import slixmpp

FETCH, PIDF, LEASES = "urn:waft:fetch:0", "urn:ietf:params:xml:ns:pidf", "urn:waft:leases:0"
ROSTER = "jabber:iq:roster"
RULES, WATCHERS = "urn:waft:rules:0", "urn:waft:watchers:0"
COMMON, PRES = "urn:ietf:params:xml:ns:common-policy", "urn:ietf:params:xml:ns:pres-rules"


async def fetch(client, whom):
    """The `<fetch/>` of the answer; raises IqError."""
    iq = client.Iq()
    iq["type"], iq["to"] = "get", whom
    iq.append(ET.Element(f"{{{FETCH}}}fetch"))
    answer = await iq.send(timeout=60)
    return answer.xml.find(f"{{{FETCH}}}fetch")


async def subscription(client, contact):
    """Asked by hand: with a version the answer to slixmpp's own question has no items."""
    iq = client.Iq()
    iq["type"] = "get"
    iq.append(ET.Element(f"{{{ROSTER}}}query"))
    for item in (await iq.send(timeout=60)).xml.iter(f"{{{ROSTER}}}item"):
        if item.get("jid") == contact:
            return item.get("subscription")
    return None


async def a_subscriber_fetches_and_keeps_the_subscription(w):
    w.romeo.send_presence(pstatus="in the garden")
    await w.juliet.sees("presence_available", w.r, status="in the garden")
    # By probe, what their server says after a moment is not waited for: then it is asked again.
    for _ in range(10):
        answer = await fetch(w.juliet, w.r)
        tuples = answer.findall(f"{{{PIDF}}}presence/{{{PIDF}}}tuple")
        if tuples or answer.get("by") != "probe":
            break
    text = ET.tostring(answer, encoding="unicode")
    assert any(it.findtext(f"{{{PIDF}}}status/{{{PIDF}}}basic") == "open" for it in tuples), text
    assert any(it.findtext(f"{{{PIDF}}}note") == "in the garden" for it in tuples), text
    by_probe = answer.get("by") == "probe"
    assert by_probe == (w.theirs.name != "waft"), f"by {answer.get('by')}"
    assert await subscription(w.juliet, w.r) == "both"
    assert await subscription(w.romeo, w.j) == "both"


async def a_stranger_is_refused_and_ends_nothing(w):
    for whom in (f"nobody@{w.theirs.domain}", f"stranger@{w.theirs.domain}"):
        try:
            await fetch(w.juliet, whom)
        except slixmpp.exceptions.IqError as error:
            assert error.iq["error"]["condition"] in ("service-unavailable", "feature-not-implemented"), error.iq
        else:
            raise AssertionError(f"{whom} was fetched")
    assert await subscription(w.juliet, w.r) == "both"


async def what_their_user_fetches_here(w):
    """Any server passes the iq on: the client need not have a server that knows it."""
    w.juliet.send_presence(pstatus="on the balcony")
    await w.romeo.sees("presence_available", w.j, status="on the balcony")
    answer = await fetch(w.romeo, w.j)
    assert answer.get("by") is None
    assert any(it.text == "on the balcony" for it in answer.iter(f"{{{PIDF}}}note")), ET.tostring(answer)


async def what_both_sides_hold_is_shown_where_it_can_be_known(w):
    iq = w.juliet.Iq()
    iq["type"] = "get"
    status = ET.Element(f"{{{LEASES}}}status")
    status.set("jid", w.r)
    iq.append(status)
    answer = (await iq.send(timeout=60)).xml.find(f"{{{LEASES}}}status")
    mine, theirs = answer.find(f"{{{LEASES}}}mine"), answer.find(f"{{{LEASES}}}theirs")
    assert mine.get("to") == "true" and mine.get("from") == "true", ET.tostring(answer)
    if w.theirs.name == "waft":
        assert theirs.get("to") == "true" and theirs.get("from") == "true", ET.tostring(answer)
    else:
        assert theirs.get("unknown") == "true", ET.tostring(answer)
    assert answer.find(f"{{{LEASES}}}drift") is None


async def a_lease_passes_their_server(w):
    """A subscription that is there is given an end by our side; their server passes it on, or knows nothing of it."""
    stanza = w.juliet.make_presence(pto=w.r, ptype="subscribed")
    lease = ET.Element(f"{{{LEASES}}}lease")
    lease.set("seconds", "3600")
    stanza.append(lease)
    stanza.send()
    answer = await fetch(w.romeo, w.j)
    assert answer is not None
    assert await subscription(w.romeo, w.j) == "both"


async def edits_rules(client, content):
    """One rule, or the removal of one. It is acknowledged when whom it concerns was told, or what he is told was queued."""
    iq = client.Iq()
    iq["type"] = "set"
    rules = ET.Element(f"{{{RULES}}}rules")
    rules.set("etag", "*")
    rules.append(ET.fromstring(content))
    iq.append(rules)
    await iq.send(timeout=15)


def rule(identifier, whom, actions, transformations=""):
    return (
        f"<rule xmlns='{COMMON}' id='{identifier}'><conditions><identity><one id='xmpp:{whom}'/></identity></conditions>"
        f"<actions>{actions}</actions>{transformations}</rule>"
    )


def handling(name):
    return f"<sub-handling xmlns='{PRES}'>{name}</sub-handling>"


async def their_user_is_shown_what_a_rule_says(w):
    """Rules are applied where the presentity is: any server passes on what comes out."""
    w.juliet.send_presence(pstatus="reading a letter")
    await w.romeo.sees("presence_available", w.j, status="reading a letter")
    w.romeo.forget()
    shown = (
        f"<transformations><provide-services xmlns='{PRES}'><all-services/></provide-services>"
        f"<other-status xmlns='{RULES}'><status>about</status></other-status></transformations>"
    )
    await edits_rules(w.juliet, rule("romeo", w.r, handling("allow"), shown))
    await w.romeo.sees("presence_available", w.j, status="about")
    w.juliet.send_presence(pstatus="writing an answer")
    await asyncio.sleep(1)
    assert not any(s["status"] == "writing an answer" for k, s in w.romeo.seen if k == "presence_available"), w.romeo.seen


async def their_user_is_blocked_politely_and_keeps_the_subscription(w):
    w.romeo.forget()
    await edits_rules(w.juliet, rule("romeo", w.r, handling("polite-block")))
    await w.romeo.sees("presence_unavailable", w.j)
    w.romeo.forget()
    w.juliet.send_presence(pstatus="dancing")
    answer = await fetch(w.romeo, w.j)
    closed = [it.text for it in answer.iter(f"{{{PIDF}}}basic")]
    assert closed == ["closed"], ET.tostring(answer)
    await asyncio.sleep(1)
    assert not any(k == "presence_available" and s["from"].bare == w.j for k, s in w.romeo.seen), w.romeo.seen
    assert await subscription(w.romeo, w.j) == "both" and await subscription(w.juliet, w.r) == "both"


async def their_users_message_is_refused_by_rule_and_taken_without(w):
    refuse = f"<message xmlns='{RULES}'>refuse</message>{handling('allow')}"
    await edits_rules(w.juliet, rule("romeo", w.r, refuse))
    await w.romeo.sees("presence_available", w.j, status="dancing")
    w.romeo.forget()
    w.romeo.send_message(mto=w.j, mbody="let me in", mtype="chat")
    error = await w.romeo.sees("message_error", w.j)
    assert error["error"]["condition"] == "service-unavailable", error
    await edits_rules(w.juliet, f"<remove xmlns='{RULES}' id='romeo'/>")
    w.romeo.send_message(mto=w.j, mbody="and now", mtype="chat")
    await w.juliet.sees("message", w.r, "and now")
    assert not any(k == "message" and s["body"] == "let me in" for k, s in w.juliet.seen)


async def their_user_is_listed_with_what_proves_their_domain(w):
    iq = w.juliet.Iq()
    iq["type"] = "get"
    iq.append(ET.Element(f"{{{WATCHERS}}}query"))
    answer = (await iq.send(timeout=15)).xml
    rows = [row for row in answer.iter(f"{{{WATCHERS}}}row") if row.get("jid") == w.r]
    assert rows and rows[0].get("kind") == "subscriber", ET.tostring(answer)
    proof = {"dialback": "dialback", "certificates": "certificate"}[w.mode]
    assert rows[0].get("auth") == proof, ET.tostring(rows[0])


SCENES = [
    a_subscriber_fetches_and_keeps_the_subscription,
    a_stranger_is_refused_and_ends_nothing,
    what_their_user_fetches_here,
    what_both_sides_hold_is_shown_where_it_can_be_known,
    their_user_is_listed_with_what_proves_their_domain,
    their_user_is_shown_what_a_rule_says,
    their_user_is_blocked_politely_and_keeps_the_subscription,
    their_users_message_is_refused_by_rule_and_taken_without,
    a_lease_passes_their_server,
]
