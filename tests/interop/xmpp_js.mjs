// Scenes with xmpp.js: `node xmpp_js.mjs NAME FACTS`; ends with 0 if the scene went well.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// Where the packages were installed; ES modules do not look at NODE_PATH.
const packages = createRequire(pathToFileURL(process.env.WAFT_NODE_MODULES + "/"));
const { client, xml, jid } = await import(pathToFileURL(packages.resolve("@xmpp/client")));

const facts = JSON.parse(process.argv[3]);

async function online(account, { prepare, ...options } = {}) {
  const entity = client({
    service: facts.service,
    domain: facts.domain,
    username: jid(account).local,
    password: facts.password,
    ...options,
  });
  // Of each step; the default suits people, not a busy machine.
  entity.timeout = 60_000;
  // It listens for the server's header only when its own is written and confirmed; over TLS the answer is there before.
  const write = entity.write.bind(entity);
  entity.write = async (text) => void write(text).catch(() => {});
  entity.heard = [];
  entity.on("stanza", (stanza) => entity.heard.push(stanza));
  entity.on("error", () => {});
  prepare?.(entity);
  await entity.start();
  await entity.send(xml("presence"));
  return entity;
}

async function eventually(what, find) {
  for (const until = Date.now() + 40_000; Date.now() < until; ) {
    const found = find();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`waited for ${what}`);
}

function hears(entity, body) {
  return eventually(body, () => entity.heard.find((s) => s.is("message") && s.getChildText("body") === body));
}

function chat(to, body) {
  return xml("message", { type: "chat", to }, xml("body", {}, body));
}

const scenes = {
  async chat() {
    const romeo = await online(facts.romeo);
    const juliet = await online(facts.juliet);
    await romeo.send(chat(facts.juliet, "<soft> & light"));
    const heard = await hears(juliet, "<soft> & light");
    assert.equal(heard.attrs.from, romeo.jid.toString());
    await juliet.send(chat(heard.attrs.from, "ay me"));
    await hears(romeo, "ay me");
    const roster = await romeo.iqCaller.get(xml("query", "jabber:iq:roster"));
    assert.equal(roster.getChildren("item").length, facts.contacts ?? 0);
    await romeo.stop();
    await juliet.stop();
  },

  async starttls() {
    const romeo = await online(facts.romeo, { service: facts.starttls });
    await romeo.iqCaller.get(xml("ping", "urn:xmpp:ping"), facts.domain);
    await romeo.stop();
  },

  // SASL2 with Bind 2 and stream management inline; then a token in place of the password.
  async token() {
    let kept = null;
    const prepare = (entity) => {
      entity.fast.saveToken = async (token) => void (kept = token);
      entity.fast.fetchToken = async () => kept;
      entity.fast.deleteToken = async () => void (kept = null);
    };
    const userAgent = xml("user-agent", { id: "6b1f2a6e-3c1d-4f5a-9b7e-0d2c4e6f8a10" });
    const first = await online(facts.romeo, { userAgent, resource: "desk", prepare });
    assert.equal(kept.mechanism, "HT-SHA-256-NONE");
    assert.match(first.jid.resource, /^desk\//);
    assert.ok(first.streamManagement.enabled && first.streamManagement.id);
    const name = first.jid.toString();
    await first.stop();
    const second = await online(facts.romeo, { userAgent, resource: "desk", password: "not the password", prepare });
    assert.equal(second.jid.toString(), name);
    await second.iqCaller.get(xml("ping", "urn:xmpp:ping"), facts.domain);
    await second.stop();
  },

  async resume() {
    const romeo = await online(facts.romeo);
    const juliet = await online(facts.juliet);
    await eventually("stream management", () => juliet.streamManagement.enabled && juliet.streamManagement.id);
    const name = juliet.jid.toString();
    let resumed = false;
    juliet.streamManagement.on("resumed", () => (resumed = true));
    (juliet.socket.socket ?? juliet.socket).destroy();
    await romeo.send(chat(facts.juliet, "are you there?"));
    await eventually("resumption", () => resumed);
    await hears(juliet, "are you there?");
    assert.equal(juliet.jid.toString(), name);
    await juliet.send(chat(facts.romeo, "always"));
    await hears(romeo, "always");
    assert.equal(juliet.heard.filter((s) => s.getChildText("body") === "are you there?").length, 1);
    await romeo.stop();
    await juliet.stop();
  },

  async carbons() {
    const romeo = await online(facts.romeo);
    const desk = await online(facts.juliet, { resource: "desk" });
    const phone = await online(facts.juliet, { resource: "phone" });
    await phone.iqCaller.set(xml("enable", "urn:xmpp:carbons:2"));
    const copied = (side, body) =>
      eventually(`the copy of ${body}`, () =>
        phone.heard.find((s) => {
          const copy = s.getChild(side, "urn:xmpp:carbons:2");
          const message = copy?.getChild("forwarded", "urn:xmpp:forward:0")?.getChild("message");
          return message?.getChildText("body") === body;
        }),
      );
    await romeo.send(chat(desk.jid.toString(), "to the desk"));
    await hears(desk, "to the desk");
    assert.equal((await copied("received", "to the desk")).attrs.from, facts.juliet);
    await desk.send(chat(facts.romeo, "from the desk"));
    await hears(romeo, "from the desk");
    assert.equal((await copied("sent", "from the desk")).attrs.from, facts.juliet);
    for (const entity of [romeo, desk, phone]) await entity.stop();
  },

  async archive() {
    const romeo = await online(facts.romeo);
    const juliet = await online(facts.juliet);
    const bodies = Array.from({ length: 12 }, (_, n) => `line ${n}`);
    for (const body of bodies) await romeo.send(chat(facts.juliet, body));
    await hears(juliet, "line 11");
    const live = juliet.heard.filter((s) => s.getChildText("body")).map((s) => s.getChild("stanza-id").attrs.id);
    const found = [];
    let after;
    for (let page = 0; page < 4; page++) {
      juliet.heard.length = 0;
      const rsm = xml("set", "http://jabber.org/protocol/rsm", xml("max", {}, "5"), after && xml("after", {}, after));
      const query = xml("iq", { type: "set" }, xml("query", { xmlns: "urn:xmpp:mam:2" }, rsm));
      const fin = (await juliet.iqCaller.request(query)).getChild("fin", "urn:xmpp:mam:2");
      for (const stanza of juliet.heard) {
        const result = stanza.getChild("result", "urn:xmpp:mam:2");
        if (result) found.push([result.attrs.id, result.getChild("forwarded").getChild("message").getChildText("body")]);
      }
      after = fin.getChild("set", "http://jabber.org/protocol/rsm")?.getChildText("last");
      if (fin.attrs.complete === "true") break;
    }
    assert.deepEqual(found.map(([, body]) => body), bodies);
    assert.deepEqual(found.map(([id]) => id), live);
    await romeo.stop();
    await juliet.stop();
  },

  async wrong_password() {
    await assert.rejects(online(facts.romeo, { password: "wrong" }), (error) => {
      assert.equal(error.condition, "not-authorized");
      return true;
    });
  },
};

try {
  await scenes[process.argv[2]]();
  process.exit(0);
} catch (error) {
  console.error(error);
  process.exit(1);
}
