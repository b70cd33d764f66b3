"""Scenes with slixmpp: administration by forms, XEP-0133."""

import json
import os

from slixmpp.exceptions import IqError
from slixmpp.xmlstream import ET

from house import ADMINISTRATOR, DOMAIN, PASSWORD
from person import Person
from scenes import scene

PEER = "slixmpp"
COMMANDS = "http://jabber.org/protocol/commands"
ADMIN = "http://jabber.org/protocol/admin"
WAFT = "urn:waft:admin:0"


async def administrator(house):
    house.command({"do": "user-add", "jid": ADMINISTRATOR, "password": PASSWORD})
    return await Person(house, ADMINISTRATOR).login()


async def execute(person, node, **fields):
    """Asks for the form, fills it in; gives the completed command."""
    iq = person.make_iq_set(ito=DOMAIN)
    iq.append(ET.Element(f"{{{COMMANDS}}}command", {"node": node, "action": "execute"}))
    answer = (await iq.send()).xml.find(f"{{{COMMANDS}}}command")
    if answer.get("status") == "completed":
        return answer
    form = answer.find("{jabber:x:data}x")
    asked = [field.get("var") for field in form.findall("{jabber:x:data}field")]
    assert set(fields) <= set(asked), asked
    iq = person.make_iq_set(ito=DOMAIN)
    command = ET.Element(f"{{{COMMANDS}}}command", {"node": node, "sessionid": answer.get("sessionid"), "action": "complete"})
    filled = ET.SubElement(command, "{jabber:x:data}x", {"type": "submit"})
    for var, value in {"FORM_TYPE": ADMIN, **fields}.items():
        ET.SubElement(ET.SubElement(filled, "{jabber:x:data}field", {"var": var}), "{jabber:x:data}value").text = value
    iq.append(command)
    answer = (await iq.send()).xml.find(f"{{{COMMANDS}}}command")
    assert answer.get("status") == "completed", ET.tostring(answer)
    return answer


def shown(command):
    return [value.text for value in command.iter("{jabber:x:data}value")]


@scene(PEER)
async def an_administrator_makes_and_ends_accounts_by_forms_and_it_is_noted(house):
    jid = f"made{next(house.names)}@{DOMAIN}"
    async with await administrator(house) as admin:
        nodes = [item[1] for item in (await admin["xep_0030"].get_items(jid=DOMAIN, node=COMMANDS))["disco_items"]["items"]]
        assert f"{ADMIN}#add-user" in nodes and f"{WAFT}#drain" in nodes, nodes
        await execute(admin, f"{ADMIN}#add-user", accountjid=jid, password=PASSWORD, **{"password-verify": PASSWORD})
        async with Person(house, jid) as made:
            await made.login()
            online = shown(await execute(admin, f"{ADMIN}#get-online-users-list"))
            assert made.boundjid.full in online, online
            stats = shown(await execute(admin, f"{ADMIN}#user-stats", accountjids=jid))
            assert any(line.startswith("created") for line in stats), stats
            await execute(admin, f"{ADMIN}#end-user-session", accountjids=jid)
            await made.sees("disconnected", "killed")
        await execute(admin, f"{ADMIN}#delete-user", accountjids=jid)
    with open(os.path.join(house.data, "audit.jsonl")) as audit:
        acts = [json.loads(line) for line in audit]
    mine = [(act["by"], act["do"]) for act in acts if act.get("jid") == jid]
    assert mine == [(ADMINISTRATOR, "user-add"), (ADMINISTRATOR, "session-end"), (ADMINISTRATOR, "user-del")], mine
    assert PASSWORD not in json.dumps(acts)


@scene(PEER)
async def what_is_wrong_in_a_form_is_said_and_changes_nothing(house):
    jid = f"made{next(house.names)}@{DOMAIN}"
    async with await administrator(house) as admin:
        try:
            await execute(admin, f"{ADMIN}#add-user", accountjid=jid, password="one", **{"password-verify": "two"})
        except IqError as error:
            assert "differ" in error.iq["error"]["text"], error
        else:
            raise AssertionError("it was taken")
    assert house.command({"do": "user-del", "jid": jid})["is"] == "refused"


@scene(PEER)
async def somebody_else_finds_no_commands_of_administrators(house):
    async with Person(house, house.account("romeo")) as romeo:
        await romeo.login()
        found = await romeo["xep_0030"].get_items(jid=DOMAIN, node=COMMANDS)
        nodes = [node for _, node, _ in found["disco_items"]["items"]]
        assert not [node for node in nodes if node.startswith(ADMIN)], nodes
        try:
            await execute(romeo, f"{ADMIN}#get-online-users-list")
        except IqError as error:
            assert error.iq["error"]["condition"] in ("service-unavailable", "item-not-found"), error
        else:
            raise AssertionError("it was answered")


@scene(PEER)
async def an_administrator_counts_blocks_and_forgets_by_forms(house):
    async with await administrator(house) as admin:
        *_, registered = shown(await execute(admin, f"{ADMIN}#get-registered-users-num", domain=DOMAIN))
        *_, online = shown(await execute(admin, f"{ADMIN}#get-online-users-num", domain=DOMAIN))
        *_, disabled = shown(await execute(admin, f"{ADMIN}#get-disabled-users-num", domain=DOMAIN))
        assert int(registered) >= int(online) >= 1 and int(disabled) >= 0, (registered, online, disabled)
        await execute(admin, f"{WAFT}#block", domain="*.spam.example")
        assert "*.spam.example" in shown(await execute(admin, f"{WAFT}#blocked"))
        await execute(admin, f"{WAFT}#unblock", domain="*.spam.example")
        assert "*.spam.example" not in shown(await execute(admin, f"{WAFT}#blocked"))
        for node, why in (("forget", "does not federate"), ("unblock", "not among those")):
            try:
                await execute(admin, f"{WAFT}#{node}", domain="unknown.example")
            except IqError as error:
                assert why in error.iq["error"]["text"], error
            else:
                raise AssertionError("it was taken")
