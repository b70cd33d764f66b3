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


def fields(command):
    """The fields of the form, by variable."""
    form = command.find("{jabber:x:data}x")
    return {field.get("var"): [value.text for value in field] for field in form.findall("{jabber:x:data}field")}


@scene(PEER)
async def an_administrator_makes_and_ends_accounts_by_forms_and_it_is_noted(house):
    jid = f"made{next(house.names)}@{DOMAIN}"
    async with await administrator(house) as admin:
        nodes = [item[1] for item in (await admin["xep_0030"].get_items(jid=DOMAIN, node=COMMANDS))["disco_items"]["items"]]
        assert f"{ADMIN}#add-user" in nodes and f"{WAFT}#drain" in nodes, nodes
        await execute(admin, f"{ADMIN}#add-user", accountjid=jid, password=PASSWORD, **{"password-verify": PASSWORD})
        async with Person(house, jid) as made:
            await made.login()
            online = shown(await execute(admin, f"{ADMIN}#get-online-users-list", max_items="none"))
            assert jid in online and made.boundjid.full not in online, online
            assert made.boundjid.full in shown(await execute(admin, f"{WAFT}#sessions"))
            stats = fields(await execute(admin, f"{ADMIN}#user-stats", accountjid=jid))
            assert stats["rostersize"] == ["0"] and stats["onlineresources"] == [made.boundjid.resource], stats
            assert any(line.startswith("created") for line in stats["stats"]), stats
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
        kinds = ("registered", "disabled", "online", "active", "idle")
        numbers = {}
        for kind in kinds:
            answer = fields(await execute(admin, f"{ADMIN}#get-{kind}-users-num"))
            numbers[kind] = int(answer[f"{kind}usersnum"][0])
        assert numbers["registered"] >= numbers["online"] == numbers["active"] + numbers["idle"] >= 1, numbers
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


@scene(PEER)
async def an_administrator_lists_who_is_there_who_is_away_and_who_is_shut_out(house):
    """XEP-0133 §4.18 to §4.22, §4.8, §4.9."""
    async with await administrator(house) as admin:
        await admin.come()
        async with Person(house, house.account("idle")) as idle:
            await idle.login()
            idle.send_presence(pshow="away")
            jid = idle.boundjid.bare

            async def of(node, var):
                return fields(await execute(admin, f"{ADMIN}#{node}", max_items="200"))[var]

            while jid not in await of("get-idle-users", "activeuserjids"):
                pass
            assert jid not in await of("get-active-users", "activeuserjids")
            assert admin.boundjid.bare in await of("get-active-users", "activeuserjids")
            assert jid in await of("get-registered-users-list", "registereduserjids")
            iq = idle.make_iq_set()
            iq["roster"]["items"] = {"hamlet@example.org": {"name": "Hamlet", "subscription": "", "groups": []}}
            await iq.send()
            roster = await execute(admin, f"{ADMIN}#get-user-roster", accountjids=jid)
            item = roster.find("{jabber:x:data}x/{jabber:iq:roster}query/{jabber:iq:roster}item")
            assert (item.get("jid"), item.get("name")) == ("hamlet@example.org", "Hamlet"), ET.tostring(roster)
            last = fields(await execute(admin, f"{ADMIN}#get-user-lastlogin", accountjids=jid))
            assert last["accountjids"] == [jid] and last["lastlogin"][0].endswith("Z"), last
        assert jid not in await of("get-disabled-users-list", "disableduserjids")
        await execute(admin, f"{ADMIN}#disable-user", accountjids=jid)
        assert jid in await of("get-disabled-users-list", "disableduserjids")
        try:
            await execute(admin, f"{ADMIN}#get-user-roster", accountjids="nobody-at-all@" + DOMAIN)
        except IqError as error:
            assert "nobody-at-all" in error.iq["error"]["text"], error
        else:
            raise AssertionError("it was answered")
