//! The audit log: every administrative act, who gave it, when, on what, and what came of it; never a password.
//!
//! A file of the data folder, one JSON object a line, only ever appended to and opened anew for each line: whoever
//! rotates it moves it away.

use crate::admin::Request;
use crate::data;
use serde_json::{Map, Value, json};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use xmpp::Stamp;

/// Within the data folder.
pub const FILE: &str = "audit.jsonl";

/// Requests that change nothing and show nobody's messages.
const LOOKING: [&str; 12] = [
    "user-list",
    "watchers",
    "fetch",
    "sessions",
    "status",
    "links",
    "known",
    "check",
    "archive-page",
    "metrics",
    "invite-list",
    "certificates",
];
/// Fields that are never written.
const SECRETS: [&str; 3] = ["password", "secret", "token"];

/// What a request does, for the log; `None`: it only looks.
pub fn of(request: &Request) -> Option<Map<String, Value>> {
    let (name, jid) = match request {
        // What holds a password is not even turned into JSON.
        Request::UserAdd { jid, .. } => ("user-add", jid),
        Request::UserPasswd { jid, .. } => ("user-passwd", jid),
        Request::ArchivePage { jid, after: 0 } => ("archive-export", jid),
        Request::Ask { set: false, .. } => return None,
        Request::Act { act } => return act.audited(),
        other => return general(serde_json::to_value(other).ok()?),
    };
    let Value::Object(map) = json!({ "do": name, "jid": jid }) else { return None };
    Some(map)
}

/// A request as it came, but for what is secret.
pub fn general(request: Value) -> Option<Map<String, Value>> {
    let Value::Object(mut map) = request else { return None };
    if map.get("do").and_then(Value::as_str).is_some_and(|name| LOOKING.contains(&name)) {
        return None;
    }
    map.retain(|name, value| !SECRETS.contains(&name.as_str()) && !value.is_null());
    Some(map)
}

/// Appends an act. `outcome`: `None` if it was done, else why not. That it cannot be written is logged, and ends nothing.
pub fn write(data: &Path, at: Stamp, by: &str, act: Map<String, Value>, outcome: Option<&str>) {
    let mut line = Map::new();
    line.insert("at".into(), at.to_xmpp().into());
    line.insert("by".into(), by.into());
    line.extend(act);
    line.insert("outcome".into(), outcome.map_or("done".into(), |why| format!("refused: {why}")).into());
    let path = data.join(FILE);
    let append = || {
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        file.write_all(&text)?;
        file.sync_data()?;
        data::own_as(data, &path)
    };
    if let Err(error) = append() {
        tracing::error!(%error, path = %path.display(), "an administrative act could not be noted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Secret;

    #[test]
    fn an_act_is_noted_without_its_password() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let password = || Secret("tr0ub4dor".into());
        for request in [
            Request::UserAdd { jid: "a@x".into(), password: password() },
            Request::UserPasswd { jid: "a@x".into(), password: password() },
            Request::UserDel { jid: "a@x".into() },
        ] {
            write(folder.path(), Stamp(0), "uid 0", of(&request).expect("is an act"), None);
        }
        write(folder.path(), Stamp(0), "uid 7", of(&Request::Stop).expect("is an act"), Some("no"));
        let text = std::fs::read_to_string(folder.path().join(FILE)).expect("is there");
        assert!(!text.contains("tr0ub4dor"), "{text}");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("is JSON")).collect();
        assert_eq!(
            lines[2],
            json!({"at": "1970-01-01T00:00:00Z", "by": "uid 0", "do": "user-del", "jid": "a@x", "outcome": "done"})
        );
        assert_eq!(lines[3]["outcome"], "refused: no");
    }

    #[test]
    fn what_only_looks_is_not_noted() {
        for request in [Request::Status, Request::Sessions, Request::Links] {
            assert!(of(&request).is_none(), "{request:?}");
        }
    }
}
