//! ejabberd's archives as SQL: what `ejabberdctl export2sql` writes, or a dump of the table `archive` with named
//! columns (`pg_dump --column-inserts`). Its export by XEP-0227 leaves them out.

use crate::account::Account;
use crate::{LeftOut, Problem, Source};
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use xmpp::{Element, Stamp, ns};

/// Longest statement.
const STATEMENT_BYTES_MAX: usize = 64 << 20;

/// Where rows begin, by file and user.
type Index = HashMap<(usize, String), Vec<u64>>;

/// Accounts of one source, with the archives of files beside it.
pub struct WithArchives<S> {
    source: S,
    /// Which host's, and where.
    files: Vec<(Option<String>, PathBuf)>,
}

impl<S: Source> WithArchives<S> {
    /// `files`: each the archive of the host that it is named for (`example.org.sql`), or of all hosts if there is no
    /// other.
    pub fn new(source: S, files: Vec<PathBuf>) -> WithArchives<S> {
        let named = files.len() > 1;
        let host = |path: &Path| path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned).filter(|_| named);
        WithArchives { source, files: files.into_iter().map(|path| (host(&path), path)).collect() }
    }

    /// The rows of each account, by where they begin in their file: one account's messages are in memory at a time.
    fn index(&self) -> Result<(Index, LeftOut), Problem> {
        let (mut index, mut left_out) = (Index::new(), LeftOut::default());
        for (at, (_, path)) in self.files.iter().enumerate() {
            statements(path, 0, &mut |begin, statement| {
                match row(statement) {
                    Some(Row { user, .. }) => index.entry((at, user)).or_default().push(begin),
                    None if statement.starts_with("INSERT INTO archive") => {
                        left_out.add("a row of the archive that cannot be read")
                    }
                    None => {}
                }
                true
            })?;
        }
        Ok((index, left_out))
    }
}

impl<S: Source> Source for WithArchives<S> {
    fn count(&self) -> Result<u64, Problem> {
        self.source.count()
    }

    fn each(&self, take: &mut dyn FnMut(Account) -> Result<(), Problem>) -> Result<LeftOut, Problem> {
        let (mut index, mut left_out) = self.index()?;
        let more = self.source.each(&mut |mut account| {
            for (at, (host, path)) in self.files.iter().enumerate() {
                if host.as_deref().is_some_and(|host| host != account.jid.domain()) {
                    continue;
                }
                let user = account.jid.local().unwrap_or_default().to_owned();
                for begin in index.remove(&(at, user)).unwrap_or_default() {
                    statements(path, begin, &mut |_, statement| {
                        archived(&mut account, statement);
                        false
                    })?;
                }
            }
            account.archive.sort_by_key(|message| message.at);
            take(account)
        })?;
        left_out.extend(more);
        for ((_, user), rows) in index {
            for _ in rows {
                left_out.add(format!("a message in the archive of {user:?}, who has no account"));
            }
        }
        Ok(left_out)
    }
}

fn archived(account: &mut Account, statement: &str) {
    let Some(row) = row(statement) else { return };
    let element = Element::parse(row.xml.as_bytes(), ns::CLIENT).ok();
    let id = row.timestamp.to_string();
    match element.and_then(|element| account.message(element, Stamp(row.timestamp), Some(&id))) {
        Some(message) => account.archive.push(message),
        None => account.left_out.add("a message of the archive that is none"),
    }
}

struct Row {
    user: String,
    /// Microseconds since 1970, and the id.
    timestamp: i64,
    xml: String,
}

fn row(statement: &str) -> Option<Row> {
    let rest = statement.trim_start().strip_prefix("INSERT INTO ")?;
    let rest = rest.strip_prefix("public.").unwrap_or(rest).strip_prefix("archive")?.trim_start().strip_prefix('(')?;
    let (names, rest) = rest.split_once(')')?;
    let rest = rest.trim_start().strip_prefix("VALUES")?.trim_start().strip_prefix('(')?;
    let (mut user, mut timestamp, mut xml) = (None, None, None);
    let mut values = rest;
    for name in names.split(',').map(|name| name.trim().trim_matches('"')) {
        let (value, after) = value(values)?;
        match name {
            "username" => user = Some(value),
            "timestamp" => timestamp = value.parse().ok(),
            "xml" => xml = Some(value),
            _ => {}
        }
        let after = after.trim_start();
        values = after.strip_prefix(',').unwrap_or(after).trim_start();
    }
    Some(Row { user: user?, timestamp: timestamp?, xml: xml? })
}

/// A number or a text, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let text = text.strip_prefix('E').filter(|it| it.starts_with('\'')).unwrap_or(text);
    let Some(inside) = text.strip_prefix('\'') else {
        let end = text.find([',', ')'])?;
        return Some((text[..end].trim().to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut rest = inside.char_indices();
    while let Some((at, c)) = rest.next() {
        match c {
            '\'' if inside[at + 1..].starts_with('\'') => {
                rest.next();
                value.push('\'');
            }
            '\'' => return Some((value, &inside[at + 1..])),
            '\\' => value.push(match rest.next()?.1 {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                '0' => '\0',
                other => other,
            }),
            c => value.push(c),
        }
    }
    None
}

/// Gives each statement and where it begins, from `begin` on, until `take` has enough. A last one that was cut short is
/// passed over.
fn statements(path: &Path, begin: u64, take: &mut dyn FnMut(u64, &str) -> bool) -> Result<(), Problem> {
    use std::io::{Seek, SeekFrom};
    let wrong = |error: std::io::Error| Problem::of(path, error);
    let mut file = std::fs::File::open(path).map_err(wrong)?;
    file.seek(SeekFrom::Start(begin)).map_err(wrong)?;
    let mut input = BufReader::with_capacity(1 << 16, file);
    let (mut at, mut statement, mut bytes) = (begin, begin, Vec::new());
    loop {
        let read = input.read_until(b'\n', &mut bytes).map_err(wrong)? as u64;
        if read == 0 {
            return Ok(());
        }
        at += read;
        // A text may go over lines: it has an end when its quotes have.
        let comment = bytes.starts_with(b"--");
        if !comment && (!bytes.trim_ascii_end().ends_with(b";") || is_open(&bytes)) && bytes.len() < STATEMENT_BYTES_MAX
        {
            continue;
        }
        if !comment && !take(statement, &String::from_utf8_lossy(&bytes)) {
            return Ok(());
        }
        bytes.clear();
        statement = at;
    }
}

/// Does a text begin that has no end?
fn is_open(statement: &[u8]) -> bool {
    let (mut open, mut escaped) = (false, false);
    for byte in statement {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if open => escaped = true,
            b'\'' => open = !open,
            _ => {}
        }
    }
    open
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pie;

    const SQL: &str = r#"-- a comment
delete from users where username='juliet' and 0=0;
INSERT INTO archive(username, timestamp, peer, bare_peer, xml, txt, kind, nick) VALUES ('juliet', 1795640143933943, 'romeo@montague.example', 'romeo@montague.example', '<message xml:lang=''en'' to=''juliet@capulet.example'' from=''romeo@montague.example/x'' type=''chat'' xmlns=''jabber:client''><body>a;
b \\ &apos;c&apos;\nd</body></message>', 'x \"y\"', 'chat', '');
INSERT INTO archive(username, timestamp, xml) VALUES ('nobody', 1, '<message/>');
INSERT INTO archive(username, timestamp, xml) VALUES ('juliet', 2, '<message xmlns=''jabber:client''/>');
INSERT INTO archive(username, timestamp, xml) VALUES ('juliet', 3, '<mess"#;

    #[test]
    fn archives_are_added_to_the_accounts_of_the_export() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (xml, sql) = (folder.path().join("all.xml"), folder.path().join("capulet.example.sql"));
        std::fs::write(&xml, "<host xmlns='urn:xmpp:pie:0' jid='capulet.example'><user name='juliet'/></host>")
            .expect("can be written");
        std::fs::write(&sql, SQL).expect("can be written");
        let source = WithArchives::new(pie::open(&xml, None).expect("is there"), vec![sql]);
        let mut accounts = Vec::new();
        let left_out = source
            .each(&mut |account| {
                accounts.push(account);
                Ok(())
            })
            .expect("can be read");
        let archive = &accounts[0].archive;
        assert_eq!(archive.iter().map(|it| it.at.0).collect::<Vec<_>>(), [2, 1_795_640_143_933_943]);
        let text = String::from_utf8_lossy(&archive[1].stanza);
        assert!(text.contains("a;\nb \\ ") && text.contains("\nd</body>"), "{text}");
        assert_eq!(left_out.0.len(), 1, "{left_out:?}");
    }
}
