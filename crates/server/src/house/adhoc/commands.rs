//! The commands: what each asks, and the requests that it becomes.

use super::forms::{self, ADMIN, Field, Filled, MAX_ITEMS, Present, Shown};
use crate::admin::acts::{AccountKind, Act};
use crate::admin::{InviteWish, Request, Secret};
use crate::house::House;
use crate::house::notices::Occasion;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

/// What it has no node for.
const WAFT: &str = "urn:waft:admin:0";
/// XEP-0401 §5.4, §12.1.
pub const CREATE_ACCOUNT: (&str, &str) = ("urn:xmpp:invite", "create-account");
pub const INVITATION: &str = "urn:xmpp:invite#invitation";
/// XEP-0133 §4.11.
pub const EDIT_BLACKLIST: (&str, &str) = (ADMIN, "edit-blacklist");
const BLACKLIST: &str = "blacklistjids";
pub struct Command {
    /// Behind [`ADMIN`] or [`WAFT`] and `#`.
    pub node: (&'static str, &'static str),
    pub name: &'static str,
    pub fields: &'static [Field],
    /// The requests of a filled-in form.
    pub requests: Requests,
    /// What its fields are now, for forms that change it.
    pub present: fn(&House) -> Present,
    pub shown: Shown,
}

const JIDS: Field = ("accountjids", "jid-multi", "Accounts", true);
const DOMAIN: Field = ("domain", "text-single", "Domain", true);
const MOTD: Field = ("motd", "text-multi", "Text", true);
const JID: Field = ("accountjid", "jid-single", "Account", true);

pub static COMMANDS: &[Command] = &[
    command(
        "add-user",
        "Add an account",
        &[JID, ("password", "text-private", "Password", true), ("password-verify", "text-private", "Once more", true)],
        Shown::Done,
        |it| {
            let [once, again] = ["password", "password-verify"].map(|field| it.one(field));
            if once != again {
                return Err("the two passwords differ".into());
            }
            Ok(vec![Request::UserAdd { jid: it.must("accountjid")?, password: Secret(it.must("password")?) }])
        },
    ),
    command("delete-user", "Remove accounts", &[JIDS], Shown::Done, |it| it.each(|jid| Request::UserDel { jid })),
    command("disable-user", "Disable accounts", &[JIDS], Shown::Done, |it| {
        it.each(|jid| Request::UserDisable { jid, disabled: true })
    }),
    command("reenable-user", "Enable accounts again", &[JIDS], Shown::Done, |it| {
        it.each(|jid| Request::UserDisable { jid, disabled: false })
    }),
    command("end-user-session", "End sessions", &[JIDS], Shown::Done, |it| {
        it.each(|jid| Request::Act { act: Act::SessionEnd { jid } })
    }),
    command(
        "change-user-password",
        "Change a password",
        &[JID, ("password", "text-private", "Password", true)],
        Shown::Done,
        |it| Ok(vec![Request::UserPasswd { jid: it.must("accountjid")?, password: Secret(it.must("password")?) }]),
    ),
    command("get-user-roster", "Show rosters", &[JIDS], Shown::Fields(forms::rosters), |it| {
        it.each(|jid| Request::Act { act: Act::RosterList { jid } })
    }),
    command(
        "get-user-lastlogin",
        "Show when somebody was last seen",
        &[JIDS],
        Shown::Fields(forms::last_logins),
        |it| it.each(|jid| Request::Act { act: Act::UserShow { jid } }),
    ),
    command("user-stats", "Show an account", &[JID], Shown::Fields(forms::statistics), |it| {
        it.each(|jid| Request::Act { act: Act::UserShow { jid } })
    }),
    // XEP-0133 §4.13 to §4.22: of the domain that is asked.
    command("get-registered-users-num", "Count accounts", &[], Shown::Values("registeredusersnum"), |it| {
        count(it, AccountKind::Registered)
    }),
    command("get-disabled-users-num", "Count disabled accounts", &[], Shown::Values("disabledusersnum"), |it| {
        count(it, AccountKind::Disabled)
    }),
    command("get-online-users-num", "Count users who are there", &[], Shown::Values("onlineusersnum"), |it| {
        count(it, AccountKind::Online)
    }),
    command(
        "get-active-users-num",
        "Count users who are there and not away",
        &[],
        Shown::Values("activeusersnum"),
        |it| count(it, AccountKind::Active),
    ),
    command("get-idle-users-num", "Count users who are there and away", &[], Shown::Values("idleusersnum"), |it| {
        count(it, AccountKind::Idle)
    }),
    command("get-registered-users-list", "List accounts", &[MAX_ITEMS], Shown::Values("registereduserjids"), |it| {
        list(it, AccountKind::Registered)
    }),
    command(
        "get-disabled-users-list",
        "List disabled accounts",
        &[MAX_ITEMS],
        Shown::Values("disableduserjids"),
        |it| list(it, AccountKind::Disabled),
    ),
    command("get-online-users-list", "List users who are there", &[MAX_ITEMS], Shown::Values("onlineuserjids"), |it| {
        list(it, AccountKind::Online)
    }),
    command(
        "get-active-users",
        "List users who are there and not away",
        &[MAX_ITEMS],
        Shown::Values("activeuserjids"),
        |it| list(it, AccountKind::Active),
    ),
    // (The variable is that of §4.22.)
    command(
        "get-idle-users",
        "List users who are there and away",
        &[MAX_ITEMS],
        Shown::Values("activeuserjids"),
        |it| list(it, AccountKind::Idle),
    ),
    own("sessions", "List sessions", &[], Shown::Lines("sessions"), |_| Ok(vec![Request::Sessions])),
    command(
        "announce",
        "Write to everybody who is there",
        &[("subject", "text-single", "Subject", false), ("announcement", "text-multi", "Text", true)],
        Shown::Done,
        |it| {
            let text = it.text("announcement");
            Ok(vec![Request::Act { act: Act::Announce { domain: None, subject: it.one("subject"), text } }])
        },
    ),
    command("set-motd", "Set the message of the day", &[MOTD], Shown::Done, |it| notice(it, Occasion::Motd, "motd")),
    // XEP-0133 §4.25: "which SHOULD include the current message of the day".
    command("edit-motd", "Edit the message of the day", &[MOTD], Shown::Done, |it| notice(it, Occasion::Motd, "motd"))
        .showing(|house| vec![("motd", told_now(house, Occasion::Motd))]),
    command("delete-motd", "Remove the message of the day", &[], Shown::Done, |_| Ok(vec![no_notice(Occasion::Motd)])),
    command("set-welcome", "Set the welcome", &[("welcome", "text-multi", "Text", true)], Shown::Done, |it| {
        notice(it, Occasion::Welcome, "welcome")
    })
    .showing(|house| vec![("welcome", told_now(house, Occasion::Welcome))]),
    command("delete-welcome", "Remove the welcome", &[], Shown::Done, |_| Ok(vec![no_notice(Occasion::Welcome)])),
    own("notices", "Show the message of the day and the welcome", &[], Shown::Lines("notices"), |_| {
        Ok(vec![Request::Act { act: Act::Notices }])
    }),
    own("block", "Speak with a domain no more", &[DOMAIN], Shown::Done, |it| {
        Ok(vec![Request::Act { act: Act::Block { domain: it.must("domain")?, blocked: true } }])
    }),
    own("unblock", "Speak with a domain again", &[DOMAIN], Shown::Done, |it| {
        Ok(vec![Request::Act { act: Act::Block { domain: it.must("domain")?, blocked: false } }])
    }),
    // XEP-0133 §4.11. What is asked for is what differs: see `blacklist`.
    Command {
        node: EDIT_BLACKLIST,
        name: "Edit the list of blocked domains",
        fields: &[(BLACKLIST, "jid-multi", "Domains", false)],
        requests: |_| Ok(Vec::new()),
        present: |house| vec![(BLACKLIST, blocked_now(house))],
        shown: Shown::Done,
    },
    own("blocked", "List blocked domains", &[], Shown::Lines("domains"), |_| {
        Ok(vec![Request::Act { act: Act::Blocked }])
    }),
    command("shutdown", "Stop the server", &[], Shown::Done, |_| Ok(vec![Request::Stop])),
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
        Shown::Done,
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
        Shown::Done,
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
        Shown::Done,
        |it| Ok(vec![Request::UserRoles { jid: it.must("accountjid")?, roles: it.all("roles") }]),
    ),
    own("status", "Show the server", &[], Shown::Lines("status"), |_| Ok(vec![Request::Status])),
    own("links", "Show streams with other domains", &[], Shown::Lines("links"), |_| Ok(vec![Request::Links])),
    own("forget", "Forget the key of a server", &[DOMAIN], Shown::Done, |it| {
        Ok(vec![Request::Forget { domain: it.must("domain")? }])
    }),
    own("queues", "Show what waits", &[], Shown::Lines("queues"), |_| Ok(vec![Request::Act { act: Act::Queues }])),
    own("limits", "Show which bounds were met", &[], Shown::Lines("limits"), |_| {
        Ok(vec![Request::Act { act: Act::Limits }])
    }),
    own("certificates", "Show certificates", &[], Shown::Lines("certificates"), |_| Ok(vec![Request::Certificates])),
    own("domains", "List domains", &[], Shown::Lines("domains"), |_| Ok(vec![Request::Act { act: Act::DomainList }])),
    own(
        "domain-add",
        "Host one more domain",
        &[("domain", "text-single", "Domain", true), ("options", "text-multi", "Options, each as NAME=VALUE", false)],
        Shown::Done,
        |it| Ok(vec![Request::Act { act: Act::DomainAdd { domain: it.must("domain")?, options: it.all("options") } }]),
    ),
    own("domain-remove", "Host a domain no more", &[DOMAIN], Shown::Done, |it| {
        Ok(vec![Request::Act { act: Act::DomainRemove { domain: it.must("domain")? } }])
    }),
    own(
        "log-level",
        "Change what is logged",
        &[("level", "text-single", "Level", false)],
        Shown::Lines("level"),
        |it| Ok(vec![Request::Act { act: Act::LogLevel { level: it.one("level") } }]),
    )
    .showing(|_| vec![("level", vec![crate::log::level()])]),
    own(
        "drain",
        "Take no new connections, or take them again",
        &[("on", "boolean", "Drain", false)],
        Shown::Done,
        |it| Ok(vec![Request::Act { act: Act::Drain { on: it.yes("on") } }]),
    )
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
        shown: Shown::Done,
    },
    own("reload", "Read configuration and certificates again", &[], Shown::Lines("notes"), |_| {
        Ok(vec![Request::Reload])
    }),
];

type Requests = fn(&Filled<'_>) -> Result<Vec<Request>, String>;

const fn command(
    node: &'static str,
    name: &'static str,
    fields: &'static [Field],
    shown: Shown,
    requests: Requests,
) -> Command {
    Command { node: (ADMIN, node), name, fields, requests, present: |_| Vec::new(), shown }
}

const fn own(
    node: &'static str,
    name: &'static str,
    fields: &'static [Field],
    shown: Shown,
    requests: Requests,
) -> Command {
    Command { node: (WAFT, node), name, fields, requests, present: |_| Vec::new(), shown }
}

fn count(it: &Filled<'_>, only: AccountKind) -> Result<Vec<Request>, String> {
    Ok(vec![Request::Act { act: Act::Count { domain: it.host.to_owned(), only } }])
}

fn list(it: &Filled<'_>, only: AccountKind) -> Result<Vec<Request>, String> {
    Ok(vec![Request::Act { act: Act::Accounts { domain: it.host.to_owned(), only, max: it.max() } }])
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

pub fn blocked_now(house: &House) -> Vec<String> {
    crate::config::blocked_domains(&house.config.read().data)
}

impl Command {
    /// Its form shows what there is.
    const fn showing(self, present: fn(&House) -> Present) -> Command {
        Command { present, ..self }
    }

    pub fn node(&self) -> String {
        format!("{}#{}", self.node.0, self.node.1)
    }
}

/// An invitation of the administrator's host, who becomes a contact of the new user if that is wanted.
pub fn invitation(filled: &Filled<'_>, by: &str) -> Request {
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
pub fn blacklist(filled: &Filled<'_>, present: Vec<String>) -> Result<Vec<Request>, String> {
    let wanted = filled.values(BLACKLIST).map(|it| it.trim().to_owned()).filter(|it| !it.is_empty());
    // As they are kept: one that is written otherwise is no other.
    let wanted: BTreeSet<String> = wanted.map(|it| crate::house::acts::blocked_name(&it)).collect::<Result<_, _>>()?;
    let present: BTreeSet<String> = present.into_iter().collect();
    let request = |domain: &String, blocked| Request::Act { act: Act::Block { domain: domain.clone(), blocked } };
    let more = wanted.difference(&present).map(|domain| request(domain, true));
    Ok(more.chain(present.difference(&wanted).map(|domain| request(domain, false))).collect())
}
