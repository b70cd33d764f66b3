//! Service administration by forms, XEP-0133 with XEP-0050: the commands of the admin socket for accounts that the
//! configuration names in `[admin] accounts`, by any client that shows forms.
//!
//! A form becomes the same requests as a command on the socket does, and is noted in the audit log the same way. Nobody
//! else is told that there is anything.

use super::notices::Occasion;
use super::{House, Ready};
use crate::admin::acts::Act;
use crate::admin::server::noted;
use crate::admin::{Answer, InviteWish, Request, Secret};
use im::Ticket;
use im::modules::commands::{NS, items_at_host};
use im::modules::data_form::{field, form};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use xmpp::ns::{DATA_FORM, DISCO_INFO, DISCO_ITEMS};
use xmpp::{Element, IqType, Jid, Stanza, StanzaCondition, StanzaError, StanzaType};

/// XEP-0133 §4, and the FORM_TYPE of all its forms.
const ADMIN: &str = "http://jabber.org/protocol/admin";
/// What it has no node for.
const WAFT: &str = "urn:waft:admin:0";
/// XEP-0401 §5.4, §12.1.
const CREATE_ACCOUNT: (&str, &str) = ("urn:xmpp:invite", "create-account");
const INVITATION: &str = "urn:xmpp:invite#invitation";
/// XEP-0133 §4.11.
const EDIT_BLACKLIST: (&str, &str) = (ADMIN, "edit-blacklist");
const BLACKLIST: &str = "blacklistjids";
/// Addresses in one form.
const JIDS_MAX: usize = 100;

/// A field of a form: variable, kind, label, whether it must be filled in.
type Field = (&'static str, &'static str, &'static str, bool);

/// Values of fields.
type Present = Vec<(&'static str, Vec<String>)>;

struct Command {
    /// Behind [`ADMIN`] or [`WAFT`] and `#`.
    node: (&'static str, &'static str),
    name: &'static str,
    fields: &'static [Field],
    /// The requests of a filled-in form.
    requests: Requests,
    /// What its fields are now, for forms that change it.
    present: fn(&House) -> Present,
    /// The variable under which an answer is shown.
    shown: &'static str,
}

const JIDS: Field = ("accountjids", "jid-multi", "Accounts", true);
const DOMAIN: Field = ("domain", "text-single", "Domain", true);
const MOTD: Field = ("motd", "text-multi", "Text", true);
const JID: Field = ("accountjid", "jid-single", "Account", true);

static COMMANDS: &[Command] = &[
    command(
        "add-user",
        "Add an account",
        &[JID, ("password", "text-private", "Password", true), ("password-verify", "text-private", "Once more", true)],
        "",
        |it| {
            let [once, again] = ["password", "password-verify"].map(|field| it.one(field));
            if once != again {
                return Err("the two passwords differ".into());
            }
            Ok(vec![Request::UserAdd { jid: it.must("accountjid")?, password: Secret(it.must("password")?) }])
        },
    ),
    command("delete-user", "Remove accounts", &[JIDS], "", |it| it.each(|jid| Request::UserDel { jid })),
    command("disable-user", "Disable accounts", &[JIDS], "", |it| {
        it.each(|jid| Request::UserDisable { jid, disabled: true })
    }),
    command("reenable-user", "Enable accounts again", &[JIDS], "", |it| {
        it.each(|jid| Request::UserDisable { jid, disabled: false })
    }),
    command("end-user-session", "End sessions", &[JIDS], "", |it| {
        it.each(|jid| Request::Act { act: Act::SessionEnd { jid } })
    }),
    command(
        "change-user-password",
        "Change a password",
        &[JID, ("password", "text-private", "Password", true)],
        "",
        |it| Ok(vec![Request::UserPasswd { jid: it.must("accountjid")?, password: Secret(it.must("password")?) }]),
    ),
    command("get-user-roster", "Show rosters", &[JIDS], "roster", |it| {
        it.each(|jid| Request::Act { act: Act::RosterList { jid } })
    }),
    command("get-user-lastlogin", "Show when somebody was last seen", &[JIDS], "lastlogin", |it| {
        it.each(|jid| Request::Act { act: Act::UserShow { jid } })
    }),
    command("user-stats", "Show accounts", &[JIDS], "stats", |it| {
        it.each(|jid| Request::Act { act: Act::UserShow { jid } })
    }),
    command("get-registered-users-list", "List accounts", &[DOMAIN], "registereduserjids", |it| {
        Ok(vec![Request::UserList { host: it.must("domain")?, after: String::new() }])
    }),
    command("get-online-users-list", "List sessions", &[], "onlineuserjids", |_| Ok(vec![Request::Sessions])),
    command(
        "announce",
        "Write to everybody who is there",
        &[("subject", "text-single", "Subject", false), ("announcement", "text-multi", "Text", true)],
        "",
        |it| {
            let text = it.text("announcement");
            Ok(vec![Request::Act { act: Act::Announce { domain: None, subject: it.one("subject"), text } }])
        },
    ),
    // XEP-0133 §4.13 to §4.16.
    command("get-registered-users-num", "Count accounts", &[DOMAIN], "registeredusersnum", |it| {
        count(it, "registered")
    }),
    command("get-disabled-users-num", "Count disabled accounts", &[DOMAIN], "disabledusersnum", |it| {
        count(it, "disabled")
    }),
    command("get-online-users-num", "Count users who are there", &[DOMAIN], "onlineusersnum", |it| count(it, "online")),
    command("set-motd", "Set the message of the day", &[MOTD], "", |it| notice(it, Occasion::Motd, "motd")),
    // XEP-0133 §4.25: "which SHOULD include the current message of the day".
    command("edit-motd", "Edit the message of the day", &[MOTD], "", |it| notice(it, Occasion::Motd, "motd"))
        .showing(|house| vec![("motd", told_now(house, Occasion::Motd))]),
    command("delete-motd", "Remove the message of the day", &[], "", |_| Ok(vec![no_notice(Occasion::Motd)])),
    command("set-welcome", "Set the welcome", &[("welcome", "text-multi", "Text", true)], "", |it| {
        notice(it, Occasion::Welcome, "welcome")
    })
    .showing(|house| vec![("welcome", told_now(house, Occasion::Welcome))]),
    command("delete-welcome", "Remove the welcome", &[], "", |_| Ok(vec![no_notice(Occasion::Welcome)])),
    own("notices", "Show the message of the day and the welcome", &[], "notices", |_| {
        Ok(vec![Request::Act { act: Act::Notices }])
    }),
    own("block", "Speak with a domain no more", &[DOMAIN], "", |it| {
        Ok(vec![Request::Act { act: Act::Block { domain: it.must("domain")?, blocked: true } }])
    }),
    own("unblock", "Speak with a domain again", &[DOMAIN], "", |it| {
        Ok(vec![Request::Act { act: Act::Block { domain: it.must("domain")?, blocked: false } }])
    }),
    // XEP-0133 §4.11. What is asked for is what differs: see `blacklist`.
    Command {
        node: EDIT_BLACKLIST,
        name: "Edit the list of blocked domains",
        fields: &[(BLACKLIST, "jid-multi", "Domains", false)],
        requests: |_| Ok(Vec::new()),
        present: |house| vec![(BLACKLIST, blocked_now(house))],
        shown: "",
    },
    own("blocked", "List blocked domains", &[], "domains", |_| Ok(vec![Request::Act { act: Act::Blocked }])),
    command("shutdown", "Stop the server", &[], "", |_| Ok(vec![Request::Stop])),
    own(
        "roster-put",
        "Put a contact into a roster",
        &[
            JID,
            ("contact", "jid-single", "Contact", true),
            ("name", "text-single", "Name", false),
            ("groups", "text-multi", "Groups", false),
            ("both", "boolean", "Each subscribed to the other", false),
        ],
        "",
        |it| {
            let act = Act::RosterPut {
                jid: it.must("accountjid")?,
                contact: it.must("contact")?,
                name: it.one("name"),
                groups: it.all("groups"),
                both: it.yes("both"),
            };
            Ok(vec![Request::Act { act }])
        },
    ),
    own(
        "roster-remove",
        "Take a contact out of a roster",
        &[JID, ("contact", "jid-single", "Contact", true), ("both", "boolean", "On both sides", false)],
        "",
        |it| {
            let act =
                Act::RosterRemove { jid: it.must("accountjid")?, contact: it.must("contact")?, both: it.yes("both") };
            Ok(vec![Request::Act { act }])
        },
    ),
    own(
        "user-roles",
        "Say which parts an account may play",
        &[JID, ("roles", "text-multi", "presentity, watcher, sender, inbox", true)],
        "",
        |it| Ok(vec![Request::UserRoles { jid: it.must("accountjid")?, roles: it.all("roles") }]),
    ),
    own("status", "Show the server", &[], "status", |_| Ok(vec![Request::Status])),
    own("links", "Show streams with other domains", &[], "links", |_| Ok(vec![Request::Links])),
    own("forget", "Forget the key of a server", &[DOMAIN], "", |it| {
        Ok(vec![Request::Forget { domain: it.must("domain")? }])
    }),
    own("queues", "Show what waits", &[], "queues", |_| Ok(vec![Request::Act { act: Act::Queues }])),
    own("limits", "Show which bounds were met", &[], "limits", |_| Ok(vec![Request::Act { act: Act::Limits }])),
    own("certificates", "Show certificates", &[], "certificates", |_| Ok(vec![Request::Certificates])),
    own("domains", "List domains", &[], "domains", |_| Ok(vec![Request::Act { act: Act::DomainList }])),
    own(
        "domain-add",
        "Host one more domain",
        &[("domain", "text-single", "Domain", true), ("options", "text-multi", "Options, each as NAME=VALUE", false)],
        "",
        |it| Ok(vec![Request::Act { act: Act::DomainAdd { domain: it.must("domain")?, options: it.all("options") } }]),
    ),
    own("domain-remove", "Host a domain no more", &[DOMAIN], "", |it| {
        Ok(vec![Request::Act { act: Act::DomainRemove { domain: it.must("domain")? } }])
    }),
    own("log-level", "Change what is logged", &[("level", "text-single", "Level", false)], "level", |it| {
        Ok(vec![Request::Act { act: Act::LogLevel { level: it.one("level") } }])
    })
    .showing(|_| vec![("level", vec![crate::log::level()])]),
    own("drain", "Take no new connections, or take them again", &[("on", "boolean", "Drain", false)], "", |it| {
        Ok(vec![Request::Act { act: Act::Drain { on: it.yes("on") } }])
    })
    .showing(|house| vec![("on", vec![u8::from(house.draining.load(Ordering::Acquire)).to_string()])]),
    // XEP-0401 §5.4. What is asked for depends on who asks: see `invitation`.
    Command {
        node: CREATE_ACCOUNT,
        name: "Create account",
        fields: &[
            ("username", "text-single", "Username", false),
            ("roster-subscription", "boolean", "Roster subscription", false),
        ],
        requests: |_| Ok(Vec::new()),
        present: |_| Vec::new(),
        shown: "",
    },
    own("reload", "Read configuration and certificates again", &[], "notes", |_| Ok(vec![Request::Reload])),
];

type Requests = fn(&Filled<'_>) -> Result<Vec<Request>, String>;

const fn command(
    node: &'static str,
    name: &'static str,
    fields: &'static [Field],
    shown: &'static str,
    requests: Requests,
) -> Command {
    Command { node: (ADMIN, node), name, fields, requests, present: |_| Vec::new(), shown }
}

const fn own(
    node: &'static str,
    name: &'static str,
    fields: &'static [Field],
    shown: &'static str,
    requests: Requests,
) -> Command {
    Command { node: (WAFT, node), name, fields, requests, present: |_| Vec::new(), shown }
}

/// A figure of one domain.
fn count(it: &Filled<'_>, only: &str) -> Result<Vec<Request>, String> {
    Ok(vec![Request::Act { act: Act::Count { domain: it.must("domain")?, only: Some(only.to_owned()) } }])
}

fn notice(it: &Filled<'_>, occasion: Occasion, field: &str) -> Result<Vec<Request>, String> {
    let text = Some(it.text(field)).filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| format!("\"{field}\" must be filled in"))?;
    Ok(vec![Request::Act { act: Act::NoticeSet { occasion, subject: None, text: Some(text) } }])
}

fn no_notice(occasion: Occasion) -> Request {
    Request::Act { act: Act::NoticeSet { occasion, subject: None, text: None } }
}

/// A text as the lines of a field.
fn told_now(house: &House, occasion: Occasion) -> Vec<String> {
    let text = house.notices.of(occasion).map(|notice| notice.text).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn blocked_now(house: &House) -> Vec<String> {
    crate::config::blocked_domains(&house.config.read().data)
}

impl Command {
    /// Its form shows what there is.
    const fn showing(self, present: fn(&House) -> Present) -> Command {
        Command { present, ..self }
    }

    fn node(&self) -> String {
        format!("{}#{}", self.node.0, self.node.1)
    }

    /// XEP-0133 §4: each form has the same FORM_TYPE.
    fn form(&self, house: &House) -> Element {
        let present = (self.present)(house);
        let fields = self.fields.iter().map(|(var, kind, label, required)| {
            let values = present.iter().find(|(known, _)| known == var).map(|(_, values)| values.as_slice());
            let values = values.unwrap_or_default().iter().map(String::as_str);
            let asked = field(var, values).attr("type", kind).attr("label", label);
            if *required { asked.child(Element::new("required", DATA_FORM)) } else { asked }
        });
        let title = Element::new("title", DATA_FORM).text(self.name);
        form("form", ADMIN).child(title).children_from(fields)
    }
}

/// A submitted form.
struct Filled<'a>(Option<&'a Element>);

impl Filled<'_> {
    /// As many as a stanza holds.
    fn values(&self, var: &str) -> impl Iterator<Item = String> {
        let fields = self.0.into_iter().flat_map(Element::elements);
        let values = fields.filter(move |it| it.attribute("var") == Some(var)).flat_map(Element::elements);
        values.filter(|it| it.is("value", DATA_FORM)).map(Element::text_content)
    }

    fn all(&self, var: &str) -> Vec<String> {
        self.values(var).filter(|it| !it.is_empty()).take(JIDS_MAX).collect()
    }

    /// A text of several lines, with those that are empty.
    fn text(&self, var: &str) -> String {
        self.values(var).collect::<Vec<_>>().join("\n").trim().to_owned()
    }

    fn one(&self, var: &str) -> Option<String> {
        self.all(var).into_iter().next()
    }

    fn must(&self, var: &str) -> Result<String, String> {
        self.one(var).ok_or_else(|| format!("\"{var}\" must be filled in"))
    }

    fn yes(&self, var: &str) -> bool {
        matches!(self.one(var).as_deref(), Some("1" | "true"))
    }

    fn each(&self, request: fn(String) -> Request) -> Result<Vec<Request>, String> {
        let jids = self.all("accountjids");
        if jids.is_empty() {
            return Err("name one account at least".into());
        }
        Ok(jids.into_iter().map(request).collect())
    }
}

impl House {
    /// Answers what an administrator asks the host about commands; `false`: it is nothing of that, or comes from
    /// somebody else.
    pub fn administer(self: &Arc<House>, stanza: &Arc<Stanza>, to: &Jid, ticket: &Ticket) -> bool {
        let StanzaType::Iq(kind @ (IqType::Get | IqType::Set)) = stanza.kind else { return false };
        let (Some(child), Some(from)) = (stanza.payload.first(), &stanza.from) else { return false };
        let node = child.attribute("node").unwrap_or_default().into_owned();
        let known = COMMANDS.iter().find(|command| command.node() == node);
        let asks = match (kind, child.ns) {
            (IqType::Get, DISCO_ITEMS) => node == NS,
            (IqType::Get, DISCO_INFO) => node == NS || known.is_some(),
            (IqType::Set, NS) => child.name == "command",
            _ => false,
        };
        // (`from` is stamped by the account's own server, which is this one.)
        let is_admin = self.config.read().admin.accounts.iter().any(|admin| admin == from.bare_str());
        if !asks || !to.is_bare() || !is_admin || self.host(from.domain()).is_none() {
            return false;
        }
        let child = child.to_element();
        if kind == IqType::Get {
            let content = if *child.ns == *DISCO_ITEMS { self.items(to) } else { info(&node, known) };
            self.answered(stanza.result(Some(content)), ticket.clone());
            return true;
        }
        let (house, stanza, by, ticket) = (self.clone(), stanza.clone(), from.bare_str().to_owned(), ticket.clone());
        self.runtime.spawn(async move {
            let answer = match house.execute(&child, known, &by).await {
                Ok(content) => Some(stanza.result(Some(content))),
                Err(error) => stanza.error(&error),
            };
            if let Some(answer) = answer {
                house.answered(answer, ticket);
            }
        });
        true
    }

    fn answered(self: &Arc<House>, answer: Stanza, ticket: Ticket) {
        let Some(to) = answer.to.clone() else { return };
        let mut ready = Ready::new();
        self.tell(to, Arc::new(answer), im::Ingress { stream: 0, ordinal: 0 }, ticket, &mut ready);
        self.work(&mut ready);
    }

    /// XEP-0050 §3: a form, then what it came to.
    async fn execute(&self, child: &Element, known: Option<&Command>, by: &str) -> Result<Element, StanzaError> {
        let command = known.ok_or(StanzaCondition::ItemNotFound)?;
        let answer = |status: &str| {
            let session = child.attribute("sessionid").unwrap_or(command.node.1);
            Element::new("command", NS).attr("node", command.node()).attr("sessionid", session).attr("status", status)
        };
        match child.attribute("action").unwrap_or("execute") {
            "cancel" => return Ok(answer("canceled")),
            "execute" | "complete" | "next" => {}
            _ => return Err(StanzaError::from(StanzaCondition::BadRequest).with_application("bad-action", NS)),
        }
        let submitted = child.find("x", DATA_FORM).filter(|form| form.attribute("type") == Some("submit"));
        if submitted.is_none() && !command.fields.is_empty() {
            let actions = Element::new("actions", NS).attr("execute", "complete").child(Element::new("complete", NS));
            return Ok(answer("executing").child(actions).child(command.form(self)));
        }
        let refused = |why: String| StanzaError::from(StanzaCondition::NotAcceptable).with_text(why);
        let requests = match command.node {
            CREATE_ACCOUNT => vec![invitation(&Filled(submitted), by)],
            EDIT_BLACKLIST => blacklist(&Filled(submitted), blocked_now(self)).map_err(refused)?,
            _ => (command.requests)(&Filled(submitted)).map_err(refused)?,
        };
        let ops = self.admin.get().ok_or(StanzaCondition::InternalServerError)?;
        let mut lines = Vec::new();
        for request in requests {
            match noted(request, &**ops, by).await {
                Answer::Refused { why } => return Err(refused(why)),
                Answer::Done => {}
                Answer::Invited { uri, invitation } => {
                    let values = [("uri", uri.as_str()), ("expire", invitation.expires.as_str())];
                    let fields = values.map(|(var, value)| field(var, [value]).attr("type", "text-single"));
                    return Ok(answer("completed").child(form("result", INVITATION).children_from(fields)));
                }
                answer => lines.extend(lines_of(&answer)),
            }
        }
        let note = Element::new("note", NS).attr("type", "info").text("Done.");
        if lines.is_empty() || command.shown.is_empty() {
            return Ok(answer("completed").child(note));
        }
        let shown = field(command.shown, lines.iter().map(String::as_str)).attr("type", "text-multi");
        Ok(answer("completed").child(form("result", ADMIN).child(shown.attr("label", command.name))))
    }
}

impl House {
    /// An administrator's, and those that every user has.
    fn items(&self, host: &Jid) -> Element {
        let item = |command: &Command| {
            let item = Element::new("item", DISCO_ITEMS).attr("jid", host.as_str());
            item.attr("node", command.node()).attr("name", command.name)
        };
        let of_users = self.policy(host.domain()).map(|policy| items_at_host(&policy)).unwrap_or_default();
        let items = COMMANDS.iter().map(item).chain(of_users);
        Element::new("query", DISCO_ITEMS).attr("node", NS).children_from(items)
    }
}

/// An invitation of the administrator's host, who becomes a contact of the new user if that is wanted.
fn invitation(filled: &Filled<'_>, by: &str) -> Request {
    let (_, domain) = by.split_once('@').unwrap_or(("", by));
    Request::InviteCreate(InviteWish {
        domain: Some(domain.to_owned()),
        username: filled.one("username"),
        inviter: filled.yes("roster-subscription").then(|| by.to_owned()),
        ..InviteWish::default()
    })
}

/// What makes the list of blocked domains the one that was filled in.
///
/// # Errors
/// For people: one of them is no domain; then nothing is to be done.
fn blacklist(filled: &Filled<'_>, present: Vec<String>) -> Result<Vec<Request>, String> {
    let wanted = filled.values(BLACKLIST).map(|it| it.trim().to_owned()).filter(|it| !it.is_empty());
    // As they are kept: one that is written otherwise is no other.
    let wanted: BTreeSet<String> = wanted.map(|it| super::acts::blocked_name(&it)).collect::<Result<_, _>>()?;
    let present: BTreeSet<String> = present.into_iter().collect();
    let request = |domain: &String, blocked| Request::Act { act: Act::Block { domain: domain.clone(), blocked } };
    let more = wanted.difference(&present).map(|domain| request(domain, true));
    Ok(more.chain(present.difference(&wanted).map(|domain| request(domain, false))).collect())
}

/// XEP-0050 §2.2, §2.3.
fn info(node: &str, known: Option<&Command>) -> Element {
    let kind = if known.is_some() { "command-node" } else { "command-list" };
    let identity = Element::new("identity", DISCO_INFO).attr("category", "automation").attr("type", kind);
    let identity = identity.attr_opt("name", known.map(|command| command.name));
    let feature = |var: &str| Element::new("feature", DISCO_INFO).attr("var", var);
    Element::new("query", DISCO_INFO).attr("node", node).child(identity).child(feature(NS)).child(feature(DATA_FORM))
}

/// An answer as lines of a form: of a list one an entry, of a list of addresses the addresses.
fn lines_of(answer: &Answer) -> Vec<String> {
    let value = match answer {
        Answer::Value { value } => value.clone(),
        Answer::Sessions { sessions } => return sessions.iter().map(|it| it.jid.clone()).collect(),
        Answer::Users { users } => return users.iter().map(|it| it.jid.clone()).collect(),
        Answer::Notes { notes } => return notes.clone(),
        other => serde_json::to_value(other).unwrap_or_default(),
    };
    crate::commands::acts::lines(&value)
}

/// How a value is shown on a line.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(map) => {
            map.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}
