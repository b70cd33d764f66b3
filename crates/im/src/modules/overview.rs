//! Inbox overview, XEP-0430: the conversations, the latest first, with what is unread and the last message of each.
//!
//! It is read from the latest part of the archive: what lies before that part is no news. What was read is known by the
//! markers that own clients sent to the other side (XEP-0333) and by those that they keep for each other (XEP-0490).

use super::archive;
use super::displayed;
use super::rsm;
use crate::account::Account;
use crate::archive_ids::{self, ArchiveIds};
use crate::effects::{Delivery, Effect, Effects, Query, QueryAnswer};
use crate::item::SessionId;
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::modules::{answer, unexpected};
use crate::nodes::{SPACE, item_key};
use crate::session;
use std::collections::HashMap;
use std::sync::Arc;
use store::{Direction, PageQuery, Record};
use xmpp::{BareJid, Element, IqType, Stanza, StanzaCondition, StanzaError, ns};

pub const NS: &str = "urn:xmpp:inbox:1";
const MARKERS: &str = "urn:xmpp:chat-markers:0";
/// The latest messages of the archive that are looked at.
const WINDOW: usize = 2_000;
/// … and their bytes: they are all in memory at once.
const WINDOW_BYTES_MAX: usize = 8 << 20;
/// Rides in the request from one query to the next.
const READ: &str = "urn:waft:read";

pub static MODULE: Module = Module {
    name: "overview",
    specs: &[xep(430, "0.2.0").without("conversations that are not among the latest 2,000 messages, or 8 MiB")],
    account_features: &[NS],
    account_iq: &[(IqType::Get, NS, "inbox", Who::Owner, inbox)],
    offered: |policy| policy.archive,
    ..Module::EMPTY
};

/// §3.1. First what own clients keep of what they have shown, then the messages.
fn inbox(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    Wanted::of(iq.child)?;
    archive_ids::keep_now(account, iq, fx);
    let items = account.nodes.get(displayed::NS).map(|node| node.items.as_slice()).unwrap_or_default();
    let keys = items.iter().map(|item| item_key(displayed::NS, &item.id)).collect();
    Ok(Answer::Query(Query::Blobs { account: account.jid.clone(), space: SPACE.into(), keys }, after_markers))
}

/// What a request says.
struct Wanted {
    unread_only: bool,
    messages: bool,
    max: usize,
    after: Option<String>,
    before: Option<String>,
}

impl Wanted {
    fn of(inbox: &Element) -> Result<Wanted, StanzaError> {
        let flag = |name: &str, default: bool| match inbox.attribute(name) {
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            None => Ok(default),
            Some(_) => Err(StanzaError::from(StanzaCondition::BadRequest)),
        };
        let text = |name: &str| inbox.find("set", rsm::NS)?.find(name, rsm::NS).map(Element::text_content);
        let max = match text("max") {
            Some(max) => max.trim().parse().map_err(|_| StanzaCondition::BadRequest)?,
            None => usize::MAX,
        };
        Ok(Wanted {
            unread_only: flag("unread-only", false)?,
            messages: flag("messages", true)?,
            max,
            after: text("after"),
            before: text("before"),
        })
    }
}

fn after_markers(
    account: &mut Account,
    iq: &Arc<Stanza>,
    session: Option<SessionId>,
    came: QueryAnswer,
    fx: &mut Effects,
) {
    let found = match came {
        QueryAnswer::Blobs(found) => found,
        other => return answer(account, iq, session, Err(unexpected(other)), fx),
    };
    let read = found.iter().filter_map(|(key, payload)| {
        let (_, jid) = key.split_once('\u{1f}')?;
        let marker = Element::parse(payload, "").ok()?;
        let id = marker.find("stanza-id", ns::SID)?.attribute("id")?.to_owned();
        Some(Element::new("read", READ).attr("jid", jid).attr("id", id))
    });
    let request = Stanza { payload: iq.payload.with(read), ..Stanza::clone(iq) };
    let query = PageQuery { limit: WINDOW, bytes_max: Some(WINDOW_BYTES_MAX), backwards: true, ..PageQuery::default() };
    let query = Query::Page { account: account.jid.clone(), query: Box::new(query) };
    fx.push(Effect::Query { query, iq: Arc::new(request), session, then: show });
}

/// One conversation.
#[derive(Debug, PartialEq)]
struct Entry<'a> {
    jid: BareJid,
    /// Of its last record.
    position: i64,
    unread: usize,
    /// The last instant message.
    last: Option<&'a Record>,
}

/// The conversations of these records (oldest first), the latest first. `read` has what own clients have shown, by
/// conversation.
fn conversations<'a>(records: &'a [Record], read: &HashMap<&str, i64>) -> Vec<Entry<'a>> {
    let mut entries: Vec<Entry<'a>> = Vec::new();
    let mut at: HashMap<&str, usize> = HashMap::new();
    // Ids of the unread messages of each, oldest first.
    let mut unread: Vec<Vec<Option<String>>> = Vec::new();
    for record in records {
        let Ok(message) = Stanza::parse(&record.stanza) else { continue };
        let index = *at.entry(record.peer.bare_str()).or_insert_with(|| {
            entries.push(Entry { jid: record.peer.to_bare(), position: 0, unread: 0, last: None });
            unread.push(Vec::new());
            entries.len() - 1
        });
        let entry = &mut entries[index];
        entry.position = record.position;
        let is_message = message.payload.has("body", ns::CLIENT);
        if is_message {
            entry.last = Some(record);
        }
        match record.direction {
            Direction::Incoming if is_message => {
                unread[index].push(message.id.as_deref().map(str::to_owned));
            }
            Direction::Incoming => {}
            // §4: what is marked is read, and all that came before it.
            Direction::Outgoing => {
                let marker = message
                    .payload
                    .children()
                    .find(|child| child.ns == MARKERS && matches!(child.name, "displayed" | "acknowledged"));
                let id = marker.and_then(|marker| marker.attribute("id"));
                let marked =
                    unread[index].iter().rposition(|known| known.is_some() && known.as_deref() == id.as_deref());
                if let Some(marked) = marked {
                    unread[index].drain(..=marked);
                }
            }
        }
        if read.get(entry.jid.as_str()).is_some_and(|read| record.position <= *read) {
            unread[index].clear();
        }
    }
    for (entry, unread) in entries.iter_mut().zip(unread) {
        entry.unread = unread.len();
    }
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.position));
    entries
}

fn positions(iq: &Stanza, ids: &ArchiveIds) -> Vec<(String, i64)> {
    let read = iq.payload.children().filter(|child| child.is("read", READ));
    read.filter_map(|child| Some((child.attribute("jid")?.into_owned(), ids.position(&child.attribute("id")?)?)))
        .collect()
}

fn show(account: &mut Account, iq: &Arc<Stanza>, session: Option<SessionId>, came: QueryAnswer, fx: &mut Effects) {
    let page = match came {
        QueryAnswer::Page(page) => page,
        other => return answer(account, iq, session, Err(unexpected(other)), fx),
    };
    let read = positions(iq, &account.archive_ids);
    let read: HashMap<&str, i64> = read.iter().map(|(jid, at)| (jid.as_str(), *at)).collect();
    let all = conversations(&page.records, &read);
    let told = iq.payload.first().ok_or(StanzaCondition::BadRequest.into());
    let told = told
        .and_then(|inbox| Wanted::of(&inbox.to_element()))
        .and_then(|wanted| tell(account, iq, session, &wanted, &all, fx));
    answer(account, iq, session, told.map(Some), fx);
}

/// The entries of the page, then what stands in `<fin/>`.
fn tell(
    account: &mut Account,
    iq: &Stanza,
    session: Option<SessionId>,
    wanted: &Wanted,
    all: &[Entry<'_>],
    fx: &mut Effects,
) -> Result<Element, StanzaError> {
    let listed: Vec<&Entry<'_>> = all.iter().filter(|entry| !wanted.unread_only || entry.unread > 0).collect();
    let at = |jid: &str| listed.iter().position(|entry| entry.jid.as_str() == jid).ok_or(StanzaCondition::ItemNotFound);
    let mut from = match &wanted.after {
        Some(jid) => at(jid)? + 1,
        None => 0,
    };
    let mut to = match wanted.before.as_deref().filter(|jid| !jid.is_empty()) {
        Some(jid) => at(jid)?.max(from),
        None => listed.len(),
    };
    let max = wanted.max.min(account.policy.limits.archive_page_max);
    if wanted.before.is_some() {
        from = from.max(to.saturating_sub(max));
    } else {
        to = to.min(from.saturating_add(max));
    }
    let (Some(id), Some(receiver)) = (session, iq.from.clone()) else {
        return Err(StanzaCondition::BadRequest.into());
    };
    let page = &listed[from..to];
    for entry in page {
        let element = Element::new("entry", NS)
            .attr("jid", entry.jid.as_str())
            .attr("unread", entry.unread.to_string())
            .attr("id", account.archive_ids.text(entry.position));
        let last = entry.last.filter(|_| wanted.messages);
        let message = last.and_then(|last| archive::result(last, iq.id.as_deref(), &account.archive_ids));
        let payload = xmpp::stanza::Payload::of([element]);
        let payload = match &message {
            Some(message) => payload.with(message.payload.children().map(|child| child.to_element())),
            None => payload,
        };
        let message = Stanza { payload, ..Stanza::message(xmpp::MessageType::Normal) };
        let message = message.with_from(account.jid.clone()).with_to(receiver.clone());
        let delivery = Delivery::plain(Arc::new(message));
        session::deliver(account, id, delivery, fx);
    }
    let mut set = Element::new("set", rsm::NS);
    if let (Some(first), Some(last)) = (page.first(), page.last()) {
        let first = Element::new("first", rsm::NS).attr("index", from.to_string()).text(first.jid.as_str());
        set = set.child(first).child(Element::new("last", rsm::NS).text(last.jid.as_str()));
    }
    let set = set.child(Element::new("count", rsm::NS).text(listed.len().to_string()));
    let unread = all.iter().filter(|entry| entry.unread > 0).count();
    let all_unread: usize = all.iter().map(|entry| entry.unread).sum();
    let fin = Element::new("fin", NS).attr("total", all.len().to_string()).attr("unread", unread.to_string());
    Ok(fin.attr("all-unread", all_unread.to_string()).child(set))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::Item;
    use crate::testing::{START, Scene, account, archive_id, jid};
    use store::{Change, Page};

    fn record(n: i64, direction: Direction, peer: &str, content: &str) -> Record {
        let (from, to) = match direction {
            Direction::Incoming => (peer, "juliet@capulet.example"),
            Direction::Outgoing => ("juliet@capulet.example/home", peer),
        };
        Record {
            position: START.0 + n,
            direction,
            peer: jid(peer),
            stanza: format!("<message from='{from}' to='{to}' id='m{n}' type='chat'>{content}</message>").into_bytes(),
            pending: false,
            archived: true,
            dedupe: None,
            expires: None,
        }
    }

    fn came(n: i64, peer: &str) -> Record {
        record(n, Direction::Incoming, peer, &format!("<body>{n}</body>"))
    }

    fn sent(n: i64, peer: &str, content: &str) -> Record {
        record(n, Direction::Outgoing, peer, content)
    }

    fn shown(n: i64, peer: &str, of: i64) -> Record {
        sent(n, peer, &format!("<displayed xmlns='{MARKERS}' id='m{of}'/>"))
    }

    const ROMEO: &str = "romeo@montague.example/x";
    const NURSE: &str = "nurse@capulet.example/y";

    fn unread(records: &[Record], read: &[(&str, i64)]) -> Vec<(String, usize)> {
        let read = read.iter().map(|(jid, n)| (*jid, START.0 + n)).collect();
        conversations(records, &read).into_iter().map(|entry| (entry.jid.to_string(), entry.unread)).collect()
    }

    fn expected(of: &[(&str, usize)]) -> Vec<(String, usize)> {
        of.iter().map(|(jid, unread)| (jid.split('/').next().unwrap_or_default().to_owned(), *unread)).collect()
    }

    // §4.
    #[test]
    fn what_is_marked_is_read_and_all_before_it() {
        let mut records = vec![came(1, ROMEO), came(2, NURSE), came(3, ROMEO), came(4, ROMEO)];
        assert_eq!(unread(&records, &[]), expected(&[(ROMEO, 3), (NURSE, 1)]));
        records.push(shown(5, ROMEO, 3));
        assert_eq!(unread(&records, &[]), expected(&[(ROMEO, 1), (NURSE, 1)]));
        // A receipt, an answer, and a marker for something else mark nothing.
        records.push(sent(6, ROMEO, "<received xmlns='urn:xmpp:receipts' id='m4'/>"));
        records.push(sent(7, NURSE, "<body>Anon!</body>"));
        records.push(shown(8, ROMEO, 2));
        assert_eq!(unread(&records, &[]), expected(&[(ROMEO, 1), (NURSE, 1)]));
        records.push(came(9, ROMEO));
        assert_eq!(unread(&records, &[]), expected(&[(ROMEO, 2), (NURSE, 1)]));
    }

    #[test]
    fn what_own_clients_tell_each_other_counts_too() {
        let records = [came(1, ROMEO), came(2, ROMEO), came(3, ROMEO)];
        assert_eq!(unread(&records, &[("romeo@montague.example", 2)]), expected(&[(ROMEO, 1)]));
    }

    #[test]
    fn a_record_that_cannot_be_read_is_passed_over() {
        let poison = Record { stanza: b"<message><body>".to_vec(), ..came(2, ROMEO) };
        assert_eq!(unread(&[came(1, ROMEO), poison], &[]), expected(&[(ROMEO, 1)]));
    }

    fn asks(juliet: &mut Scene, attributes: &str, content: &str, records: Vec<Record>) -> Vec<String> {
        let iq = format!("<iq type='get' id='q1'><inbox xmlns='{NS}' {attributes}>{content}</inbox></iq>");
        let mut fx = juliet.sends("home", &iq);
        for answer in [QueryAnswer::Blobs(Vec::new()), QueryAnswer::Page(Page { records, ..Page::default() })] {
            let query = fx.list.into_iter().find_map(|effect| match effect {
                Effect::Query { iq, session, then, .. } => Some((iq, session, then)),
                _ => None,
            });
            let (iq, session, then) = query.expect("a query");
            fx = juliet.item(Item::Answered { iq, session, answer, then });
        }
        fx.delivered("home")
    }

    // §5: examples 2 and 3.
    #[test]
    fn the_conversations_come_with_their_last_messages_and_then_the_counts() {
        let mut juliet = account("juliet@capulet.example").with("home", 0);
        let records = vec![came(1, ROMEO), came(2, NURSE), came(3, ROMEO), shown(4, NURSE, 2)];
        let told = asks(&mut juliet, "", "", records.clone());
        assert_eq!(told.len(), 3);
        let (first, second) = (archive_id(START.0 + 4), archive_id(START.0 + 3));
        let entry = format!("<entry xmlns='{NS}' jid='nurse@capulet.example' unread='0' id='{first}'/>");
        assert!(told[0].contains(&format!("{entry}<result xmlns='urn:xmpp:mam:2' queryid='q1'")), "{}", told[0]);
        assert!(told[0].contains("<body>2</body>"));
        assert!(told[1].contains(&format!("jid='romeo@montague.example' unread='2' id='{second}'")), "{}", told[1]);
        assert!(told[2].contains(&format!("<fin xmlns='{NS}' total='2' unread='1' all-unread='2'>")), "{}", told[2]);

        let told = asks(&mut juliet, "unread-only='true' messages='false'", "", records.clone());
        assert_eq!(told.len(), 2);
        assert!(told[0].contains("romeo") && !told[0].contains("<result"));

        let set = |content: &str| format!("<set xmlns='http://jabber.org/protocol/rsm'>{content}</set>");
        let told = asks(&mut juliet, "", &set("<max>1</max><after>nurse@capulet.example</after>"), records);
        assert!(told[0].contains("romeo"), "{told:?}");
        assert!(told[1].contains("<first index='1'>romeo@montague.example</first>"), "{told:?}");
    }

    #[test]
    fn the_markers_of_own_clients_are_read_from_their_node() {
        let mut juliet = account("juliet@capulet.example").with("home", 0);
        let marker = format!(
            "<displayed xmlns='{}'><stanza-id xmlns='urn:xmpp:sid:0' by='juliet@capulet.example' id='{}'/></displayed>",
            displayed::NS,
            archive_id(START.0 + 1)
        );
        let fx = juliet.sends(
            "home",
            &format!("<message to='romeo@montague.example'><displayed xmlns='{MARKERS}' id='m1'/>{marker}</message>"),
        );
        let blobs = fx.commits().into_iter().filter_map(|change| match change {
            Change::BlobPut { space, key, value, .. } if &*space == SPACE => Some((key, value)),
            _ => None,
        });
        let blobs: Vec<_> = blobs.collect();
        let fx = juliet.sends("home", &format!("<iq type='get' id='q1'><inbox xmlns='{NS}'/></iq>"));
        let Some(Effect::Query { iq, session, then, .. }) = fx.list.into_iter().next() else { panic!("a query") };
        let mut fx = juliet.item(Item::Answered { iq, session, answer: QueryAnswer::Blobs(blobs), then });
        let Some(Effect::Query { iq, session, then, .. }) = fx.list.pop() else { panic!("a query") };
        let page = Page { records: vec![came(1, ROMEO), came(2, ROMEO)], ..Page::default() };
        let told = juliet.item(Item::Answered { iq, session, answer: QueryAnswer::Page(page), then }).delivered("home");
        assert!(told[0].contains("unread='1'"), "{told:?}");
    }
}
