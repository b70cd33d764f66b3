//! Between rows and records.

use rusqlite::Row;
use rusqlite::types::ValueRef;
use store::{Direction, OutboxRow, Record, RosterItem, ScramKeys, SessionRow, Subscription, Token};
use xmpp::{BareJid, Jid, Stamp};

/// What a row holds, or why it cannot be read.
pub type Decoded<T> = Result<T, String>;

/// The columns that [`record`] reads, in its order.
pub const RECORD_COLUMNS: usize = 10;

/// Reads `position, outgoing, peer, resource, stanza, pending, archived, dedupe, expires, arrival`.
pub fn record(row: &Row<'_>) -> Decoded<Record> {
    let peer = text(row, 2)?;
    let peer = match optional(row, 3, text)? {
        Some(resource) => jid(&[peer, "/", resource].concat())?,
        None => jid(peer)?,
    };
    let dedupe = optional(row, 7, blob)?.map(|key| key.try_into().map_err(|_| "its dedupe key is not of 16 bytes"));
    Ok(Record {
        position: integer(row, 0)?,
        direction: if flag(row, 1)? { Direction::Outgoing } else { Direction::Incoming },
        peer,
        stanza: blob(row, 4)?.to_vec(),
        pending: flag(row, 5)?,
        archived: flag(row, 6)?,
        dedupe: dedupe.transpose()?,
        expires: optional(row, 8, integer)?.map(Stamp),
    })
}

/// Reads `contact, name, groups, subscription, listed, version`.
pub fn roster_item(row: &Row<'_>) -> Decoded<RosterItem> {
    Ok(RosterItem {
        jid: bare(text(row, 0)?)?,
        name: optional(row, 1, text)?.map(Into::into),
        groups: split(text(row, 2)?)?.into_iter().map(Into::into).collect(),
        subscription: subscription(integer(row, 3)?)?,
        listed: flag(row, 4)?,
        version: unsigned(row, 5)?,
    })
}

/// Reads `contact, stanza, received`.
pub fn request(row: &Row<'_>) -> Decoded<(BareJid, Vec<u8>, Stamp)> {
    Ok((bare(text(row, 0)?)?, blob(row, 1)?.to_vec(), Stamp(integer(row, 2)?)))
}

/// Reads `resource, epoch, resume_id_hash, presence, directed, since, received`.
pub fn session(row: &Row<'_>) -> Decoded<SessionRow> {
    Ok(SessionRow {
        resource: text(row, 0)?.into(),
        epoch: unsigned(row, 1)?,
        resume_id_hash: blob(row, 2)?.to_vec(),
        presence: blob(row, 3)?.to_vec(),
        directed: split(text(row, 4)?)?.into_iter().map(jid).collect::<Decoded<_>>()?,
        since: Stamp(integer(row, 5)?),
        received: optional(row, 6, integer)?.map(|received| received as u32),
    })
}

/// Reads `id, local, remote, accepted, stanza`.
pub fn outbox(row: &Row<'_>) -> Decoded<OutboxRow> {
    Ok(OutboxRow {
        id: integer(row, 0)?,
        local: bare(text(row, 1)?)?,
        remote: text(row, 2)?.into(),
        accepted: Stamp(integer(row, 3)?),
        stanza: blob(row, 4)?.to_vec(),
    })
}

/// Reads `local, remote, reached`.
pub fn domain(row: &Row<'_>) -> Decoded<(BareJid, Box<str>, Stamp)> {
    Ok((bare(text(row, 0)?)?, text(row, 1)?.into(), Stamp(integer(row, 2)?)))
}

/// Reads `client, mechanism, secret, expires, previous, previous_expires, count`.
pub fn token(row: &Row<'_>) -> Decoded<Token> {
    let previous = optional(row, 4, blob)?.zip(optional(row, 5, integer)?);
    Ok(Token {
        client: text(row, 0)?.into(),
        mechanism: text(row, 1)?.into(),
        secret: blob(row, 2)?.to_vec(),
        expires: Stamp(integer(row, 3)?),
        previous: previous.map(|(secret, expires)| (secret.to_vec(), Stamp(expires))),
        count: integer(row, 6)?.try_into().map_err(|_| "its count is out of range")?,
    })
}

/// Reads `mechanism, salt, iterations, stored_key, server_key`.
pub fn scram<'r>(row: &'r Row<'_>) -> Decoded<(&'r str, ScramKeys)> {
    let keys = ScramKeys {
        salt: blob(row, 1)?.to_vec(),
        iterations: integer(row, 2)?.try_into().map_err(|_| "its iterations are out of range")?,
        stored_key: blob(row, 3)?.to_vec(),
        server_key: blob(row, 4)?.to_vec(),
    };
    Ok((text(row, 0)?, keys))
}

pub fn jid(text: &str) -> Decoded<Jid> {
    Jid::parse(text).map_err(|error| format!("{text:?} is no JID: {error:?}"))
}

pub fn bare(text: &str) -> Decoded<BareJid> {
    BareJid::parse(text).map_err(|error| format!("{text:?} is no bare JID: {error:?}"))
}

/// The bare JID of a row of `accounts`.
pub fn account(local: &str, host: &str) -> Decoded<BareJid> {
    if local.is_empty() { bare(host) } else { bare(&[local, "@", host].concat()) }
}

pub fn text<'r>(row: &'r Row<'_>, column: usize) -> Decoded<&'r str> {
    value(row, column)?.as_str().map_err(|error| format!("column {column}: {error}"))
}

pub fn blob<'r>(row: &'r Row<'_>, column: usize) -> Decoded<&'r [u8]> {
    value(row, column)?.as_blob().map_err(|error| format!("column {column}: {error}"))
}

pub fn integer(row: &Row<'_>, column: usize) -> Decoded<i64> {
    value(row, column)?.as_i64().map_err(|error| format!("column {column}: {error}"))
}

pub fn unsigned(row: &Row<'_>, column: usize) -> Decoded<u64> {
    integer(row, column)?.try_into().map_err(|_| format!("column {column}: it is negative"))
}

pub fn flag(row: &Row<'_>, column: usize) -> Decoded<bool> {
    Ok(integer(row, column)? != 0)
}

pub fn optional<'r, T>(
    row: &'r Row<'_>,
    column: usize,
    read: impl FnOnce(&'r Row<'_>, usize) -> Decoded<T>,
) -> Decoded<Option<T>> {
    if value(row, column)? == ValueRef::Null { Ok(None) } else { read(row, column).map(Some) }
}

fn value<'r>(row: &'r Row<'_>, column: usize) -> Decoded<ValueRef<'r>> {
    row.get_ref(column).map_err(|error| error.to_string())
}

/// A subscription in five bits.
pub fn subscription_bits(subscription: Subscription) -> i64 {
    let Subscription { to, from, pending_out, pending_in, approved } = subscription;
    [to, from, pending_out, pending_in, approved].iter().rev().fold(0, |bits, set| bits << 1 | i64::from(*set))
}

fn subscription(bits: i64) -> Decoded<Subscription> {
    if !(0..32).contains(&bits) {
        return Err(format!("{bits} is no subscription"));
    }
    let bit = |n: u32| bits >> n & 1 == 1;
    Ok(Subscription { to: bit(0), from: bit(1), pending_out: bit(2), pending_in: bit(3), approved: bit(4) })
}

/// Texts as one text that [`split`] takes apart whatever they hold: `7:Friends4:Work`.
pub fn join<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let mut joined = String::new();
    for text in texts {
        joined.push_str(&text.len().to_string());
        joined.push(':');
        joined.push_str(text);
    }
    joined
}

fn split(joined: &str) -> Decoded<Vec<&str>> {
    let mut texts = Vec::new();
    let mut rest = joined;
    while !rest.is_empty() {
        let next = rest.split_once(':').and_then(|(length, behind)| behind.split_at_checked(length.parse().ok()?));
        let (text, behind) = next.ok_or_else(|| format!("{joined:?} is no list of texts"))?;
        texts.push(text);
        rest = behind;
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_texts_are_split_again() {
        for texts in [vec![], vec![""], vec!["a", "", "3:abc", "ü\n:", "12"]] {
            assert_eq!(split(&join(texts.iter().copied())), Ok(texts));
        }
    }

    #[test]
    fn what_was_not_joined_is_not_split() {
        for joined in ["3:ab", ":", "x:a", "a", "1:ü", "99999999999999999999:a", "-1:a"] {
            assert!(split(joined).is_err(), "{joined}");
        }
    }

    #[test]
    fn every_subscription_is_its_bits_again() {
        for bits in 0..32 {
            assert_eq!(subscription(bits).map(subscription_bits), Ok(bits));
        }
        assert!(subscription(32).is_err() && subscription(-1).is_err());
    }
}
