//! What is asked and shown: fields, submitted forms, results.

use super::commands::Command;
use crate::admin::{Answer, Request};
use crate::house::House;
use im::modules::data_form::{field, form};
use serde_json::Value;
use xmpp::Element;
use xmpp::ns::{DATA_FORM, ROSTER};

/// XEP-0133 §4, and the FORM_TYPE of all its forms.
pub const ADMIN: &str = "http://jabber.org/protocol/admin";
/// Addresses in one form.
pub const JIDS_MAX: usize = 100;
/// Addresses in one answer, whatever was asked for: some 200 kB at most.
pub const LIST_MAX: usize = 1_000;

/// A field of a form: variable, kind, label, whether it must be filled in.
pub type Field = (&'static str, &'static str, &'static str, bool);

/// Values of fields.
pub type Present = Vec<(&'static str, Vec<String>)>;

/// How many of a list are shown. XEP-0133 §4.18.
pub const MAX_ITEMS: Field = ("max_items", "list-single", "How many at most", false);
const MAX_ITEMS_OPTIONS: [&str; 7] = ["25", "50", "75", "100", "150", "200", "none"];

impl Command {
    /// XEP-0133 §4: each form has the same FORM_TYPE.
    pub fn form(&self, house: &House) -> Element {
        let present = (self.present)(house);
        let fields = self.fields.iter().map(|(var, kind, label, required)| {
            let values = present.iter().find(|(known, _)| known == var).map(|(_, values)| values.as_slice());
            let values = values.unwrap_or_default().iter().map(String::as_str);
            let option = |it: &str| Element::new("option", DATA_FORM).attr("label", it).child(value(it));
            let options = if *var == MAX_ITEMS.0 { &MAX_ITEMS_OPTIONS[..] } else { &[] };
            let asked = field(var, values).attr("type", kind).attr("label", label);
            let asked = asked.children_from(options.iter().map(|it| option(it)));
            if *required { asked.child(Element::new("required", DATA_FORM)) } else { asked }
        });
        let title = Element::new("title", DATA_FORM).text(self.name);
        form("form", ADMIN).child(title).children_from(fields)
    }
}

fn value(text: &str) -> Element {
    Element::new("value", DATA_FORM).text(text)
}

/// A submitted form.
pub struct Filled<'a> {
    pub form: Option<&'a Element>,
    /// Whose commands these are: the domain that was asked.
    pub host: &'a str,
}

impl Filled<'_> {
    /// As many as a stanza holds.
    pub fn values(&self, var: &str) -> impl Iterator<Item = String> {
        let fields = self.form.into_iter().flat_map(Element::elements);
        let values = fields.filter(move |it| it.attribute("var") == Some(var)).flat_map(Element::elements);
        values.filter(|it| it.is("value", DATA_FORM)).map(Element::text_content)
    }

    pub fn all(&self, var: &str) -> Vec<String> {
        self.values(var).filter(|it| !it.is_empty()).take(JIDS_MAX).collect()
    }

    /// A text of several lines, with those that are empty.
    pub fn text(&self, var: &str) -> String {
        self.values(var).collect::<Vec<_>>().join("\n").trim().to_owned()
    }

    pub fn one(&self, var: &str) -> Option<String> {
        self.all(var).into_iter().next()
    }

    pub fn must(&self, var: &str) -> Result<String, String> {
        self.one(var).ok_or_else(|| format!("\"{var}\" must be filled in"))
    }

    pub fn yes(&self, var: &str) -> bool {
        matches!(self.one(var).as_deref(), Some("1" | "true"))
    }

    /// Those that are named.
    pub fn accounts(&self) -> Vec<String> {
        ["accountjids", "accountjid"].iter().flat_map(|var| self.all(var)).collect()
    }

    /// How many are wanted; `none` is no bound of the asker's.
    pub fn max(&self) -> usize {
        self.one(MAX_ITEMS.0).and_then(|max| max.parse().ok()).unwrap_or(LIST_MAX).min(LIST_MAX)
    }

    pub fn each(&self, request: fn(String) -> Request) -> Result<Vec<Request>, String> {
        let jids = self.accounts();
        if jids.is_empty() {
            return Err("name one account at least".into());
        }
        Ok(jids.into_iter().map(request).collect())
    }
}

/// How what a command came to is shown.
#[derive(Clone, Copy)]
pub enum Shown {
    /// A note: it was done.
    Done,
    /// Lines under this variable; without any, a note.
    Lines(&'static str),
    /// Values under this variable, also none at all.
    Values(&'static str),
    /// Fields that are made of the values that answer.
    Fields(fn(&[Value]) -> Vec<Element>),
}

impl Shown {
    /// The form of a result, if it has one. `asked`: the accounts that were named.
    pub fn form(self, label: &str, asked: &[String], answers: &[Answer]) -> Option<Element> {
        let lines = || answers.iter().flat_map(lines_of).collect::<Vec<_>>();
        let fields = match self {
            Shown::Done => return None,
            Shown::Lines(var) => {
                let lines = Some(lines()).filter(|lines| !lines.is_empty())?;
                vec![field(var, lines.iter().map(String::as_str)).attr("type", "text-multi").attr("label", label)]
            }
            Shown::Values(var) => {
                let lines = lines();
                let kind = if var.ends_with("jids") { "jid-multi" } else { "text-single" };
                vec![field(var, lines.iter().map(String::as_str)).attr("type", kind).attr("label", label)]
            }
            Shown::Fields(fields) => {
                let values: Vec<Value> = answers.iter().filter_map(value_of).collect();
                let asked = field("accountjids", asked.iter().map(String::as_str)).attr("type", "jid-multi");
                std::iter::once(asked).chain(fields(&values)).collect()
            }
        };
        Some(form("result", ADMIN).children_from(fields))
    }
}

fn value_of(answer: &Answer) -> Option<Value> {
    match answer {
        Answer::Value { value } => Some(value.clone()),
        _ => None,
    }
}

/// An answer as lines of a form: of a list one an entry, of a list of addresses the addresses.
fn lines_of(answer: &Answer) -> Vec<String> {
    let value = match answer {
        Answer::Done => return Vec::new(),
        Answer::Value { value } => value.clone(),
        Answer::Sessions { sessions } => return sessions.iter().map(|it| it.jid.clone()).collect(),
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

/// Rosters for people, and as XEP-0133 §4.8 has them: behind the fields, in the form of RFC 6121 §2.
pub fn rosters(rosters: &[Value]) -> Vec<Element> {
    let lines: Vec<String> = rosters.iter().flat_map(crate::commands::acts::lines).collect();
    let shown = field("roster", lines.iter().map(String::as_str)).attr("type", "text-multi").attr("label", "Roster");
    let text = |contact: &Value, name: &str| contact[name].as_str().map(str::to_owned);
    let item = |contact: &Value| {
        let groups = contact["groups"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Element::new("item", ROSTER)
            .attr_opt("jid", text(contact, "jid").as_deref())
            .attr_opt("name", text(contact, "name").as_deref())
            .attr_opt("subscription", text(contact, "subscription").as_deref())
            .attr_opt("ask", (contact["asked"] == true).then_some("subscribe"))
            .children_from(groups.map(|group| Element::new("group", ROSTER).text(group)))
    };
    let query =
        |roster: &Value| Element::new("query", ROSTER).children_from(roster.as_array().into_iter().flatten().map(item));
    std::iter::once(shown).chain(rosters.iter().map(query)).collect()
}

/// When each logged in last, or was there last; one who never was, when the account was made. XEP-0133 §4.9.
pub fn last_logins(accounts: &[Value]) -> Vec<Element> {
    let last = |account: &Value| {
        let sessions = account["sessions"].as_array().into_iter().flatten();
        let since = sessions.filter_map(|it| it["since"].as_str()).max();
        since.or_else(|| account["last_seen"].as_str()).or_else(|| account["created"].as_str()).map(str::to_owned)
    };
    let times: Vec<String> = accounts.iter().filter_map(last).collect();
    vec![field("lastlogin", times.iter().map(String::as_str)).attr("type", "text-single").attr("label", "Last login")]
}

/// XEP-0133 §4.10, and what else is known.
pub fn statistics(accounts: &[Value]) -> Vec<Element> {
    let sizes: Vec<String> = accounts.iter().map(|it| plain(&it["contacts"])).collect();
    let resource = |session: &Value| Some(session["jid"].as_str()?.split_once('/')?.1.to_owned());
    let sessions = accounts.iter().flat_map(|it| it["sessions"].as_array().into_iter().flatten());
    let resources: Vec<String> = sessions.filter_map(resource).collect();
    let lines: Vec<String> = accounts.iter().flat_map(crate::commands::acts::lines).collect();
    [("rostersize", sizes), ("onlineresources", resources), ("stats", lines)]
        .map(|(var, values)| field(var, values.iter().map(String::as_str)).attr("type", "text-multi"))
        .into()
}
