"""Scenes of the federation run: fetch, and subscriptions with a duration, with servers that know them and with those that
do not. See docs/protocol/fetch.md and leases.md."""

import xml.etree.ElementTree as ET

import slixmpp

FETCH, PIDF, LEASES = "urn:waft:fetch:0", "urn:ietf:params:xml:ns:pidf", "urn:waft:leases:0"
ROSTER = "jabber:iq:roster"


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


SCENES = [
    a_subscriber_fetches_and_keeps_the_subscription,
    a_stranger_is_refused_and_ends_nothing,
    what_their_user_fetches_here,
    what_both_sides_hold_is_shown_where_it_can_be_known,
    a_lease_passes_their_server,
]
