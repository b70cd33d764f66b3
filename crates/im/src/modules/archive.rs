//! Message Archive Management, XEP-0313: the account's log, page by page, for its own clients.
//!
//! The ids are made of the positions of the log ([`crate::archive_ids`]): what a live message carries as stanza-id is
//! what the archive says.

use super::data_form::{self, form};
use super::rsm::{self, Paging};
use crate::account::Account;
use crate::archive_ids::{self, ArchiveIds};
use crate::effects::{Delivery, Effect, Effects, Query, QueryAnswer};
use crate::item::{SessionId, Ticket};
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::modules::{answer, unexpected};
use crate::presence::OWN;
use crate::readers;
use crate::session;
use crate::view::Grant;
use std::sync::Arc;
use store::{Page, PageQuery, Record};
use xmpp::ns::DATA_FORM;
use xmpp::xml::escape_attribute;
use xmpp::{Element, IqType, Jid, Stamp, Stanza, StanzaCondition, StanzaError};

pub const NS: &str = "urn:xmpp:mam:2";
pub const EXTENDED: &str = "urn:xmpp:mam:2#extended";
const GROUPCHAT_FIELD: &str = "urn:xmpp:mam:2#groupchat-field";
const WORDS: &str = "urn:xmpp:fulltext:0";
/// XEP-0431 §3.1.
const WORDS_FIELD: &str = "{urn:xmpp:fulltext:0}fulltext";
const VALIDATE: &str = "http://jabber.org/protocol/xdata-validate";

/// Full Text Search in MAM, XEP-0431: one field more, where the store keeps the words.
pub static FULLTEXT: Module = Module {
    name: "full text",
    specs: &[xep(431, "0.2.0")],
    account_features: &[WORDS],
    offered: |policy| policy.archive && policy.fulltext,
    ..Module::EMPTY
};

pub static MODULE: Module = Module {
    name: "archive",
    specs: &[xep(313, "1.1.3")],
    // COMPAT: profanity asks the host alone (XEP-0313 §8: the account whose archive it is).
    host_features: &[NS],
    account_features: &[NS, EXTENDED, GROUPCHAT_FIELD],
    account_iq: &[
        (IqType::Get, NS, "query", Who::Owner, fields),
        (IqType::Set, NS, "query", Who::Granted(Grant::Read), query),
        (IqType::Get, NS, "metadata", Who::Owner, metadata),
    ],
    offered: |policy| policy.archive,
    ..Module::EMPTY
};

/// What a query may say. XEP-0313 §4.1.5.
fn fields(account: &mut Account, _: &Iq<'_>, _: &mut Effects) -> Handled {
    let field = |var: &str, kind: &str| Element::new("field", DATA_FORM).attr("type", kind).attr("var", var);
    let open = Element::new("validate", VALIDATE).attr("datatype", "xs:string").child(Element::new("open", VALIDATE));
    let form = form("form", NS)
        .child(field("with", "jid-single"))
        .children_from(["start", "end", "before-id", "after-id"].map(|var| field(var, "text-single")))
        .child(field("ids", "list-multi").child(open))
        .child(field("include-groupchat", "boolean"))
        .children_from(account.policy.fulltext.then(|| field(WORDS_FIELD, "text-single")));
    Ok(Answer::Result(Some(Element::new("query", NS).child(form))))
}

/// First whether the messages that it names are there (§4.1.3, §4.3.2), then the page.
fn query(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    archive_ids::keep_now(account, iq, fx);
    let wanted = Wanted::of(iq.child, account)?;
    if iq.session.is_none() {
        readers::note(account, iq, fx);
    }
    let account = account.jid.clone();
    Ok(if wanted.named.is_empty() {
        Answer::Query(Query::Page { account, query: Box::new(wanted.page) }, show)
    } else {
        let limit = wanted.named.len();
        let named = PageQuery { ids: wanted.named, limit, ..PageQuery::default() };
        Answer::Query(Query::Page { account, query: Box::new(named) }, after_check)
    })
}

/// A query, read.
struct Wanted {
    page: PageQuery,
    /// All ids that the request names, each once: `item-not-found` unless all are in the archive.
    named: Vec<i64>,
}

impl Wanted {
    /// # Errors
    /// `feature-not-implemented` for a field that is not known (§4.1.5), `item-not-found` for an id that cannot be
    /// one, `jid-malformed` and `bad-request` for what cannot be read, `policy-violation` for too many ids.
    fn of(query: &Element, account: &Account) -> Result<Wanted, StanzaError> {
        let limits = &account.policy.limits;
        let (mut page, mut named) = match query.find("x", DATA_FORM) {
            Some(form) => filter(form, account)?,
            None => Default::default(),
        };
        let paging = Paging::of(query, &account.archive_ids)?;
        named.extend([paging.after, paging.before].into_iter().flatten());
        named.sort_unstable();
        named.dedup();
        paging.apply(&mut page, limits.archive_page_default, limits.archive_page_max);
        page.bytes_max = Some(PAGE_BYTES_MAX);
        Ok(Wanted { page, named })
    }
}

/// The form of a query, and the ids that it names. XEP-0313 §4.1.
fn filter(form: &Element, account: &Account) -> Result<(PageQuery, Vec<i64>), StanzaError> {
    let (ids, ids_max) = (&account.archive_ids, account.policy.limits.archive_page_max);
    let bad = || StanzaError::from(StanzaCondition::BadRequest);
    if form.attribute("type") != Some("submit") || data_form::value(form, "FORM_TYPE").as_deref() != Some(NS) {
        return Err(bad());
    }
    let mut page = PageQuery::default();
    let (mut after, mut before) = (None, None);
    for field in form.elements().filter(|child| child.is("field", DATA_FORM)) {
        let var = field.attribute("var").ok_or_else(bad)?;
        let values: Vec<String> = field.elements().map(Element::text_content).collect();
        let Some(value) = values.first() else { continue };
        let time = || Stamp::from_xmpp(value).ok_or_else(bad);
        match var {
            "FORM_TYPE" => {}
            "with" => page.with = Some(Jid::parse(value).map_err(|_| StanzaCondition::JidMalformed)?),
            "start" => page.start = Some(time()?),
            // A stamp that we told has milliseconds, the position behind it microseconds.
            "end" => page.end = Some(time().map(|end| Stamp(end.0.saturating_add(999 - end.0.rem_euclid(1_000))))?),
            "after-id" => after = Some(rsm::id(value, ids)?),
            "before-id" => before = Some(rsm::id(value, ids)?),
            "ids" if values.len() > ids_max => return Err(StanzaCondition::PolicyViolation.into()),
            "ids" => page.ids = values.iter().map(|value| rsm::id(value, ids)).collect::<Result<_, _>>()?,
            // Messages of rooms are in the rooms' archives only.
            "include-groupchat" => {}
            // An empty one searches for nothing. XEP-0431 §2.2.
            WORDS_FIELD if account.policy.fulltext => {
                page.text = Some(value.as_str().into()).filter(|_| !value.trim().is_empty());
            }
            _ => return Err(StanzaCondition::FeatureNotImplemented.into()),
        }
    }
    // They restrict the result set, as times do: what is counted is in between (§4.1.3). RSM's are places in it.
    page.start = page.start.max(after.map(|after| Stamp(after.saturating_add(1))));
    page.end = [page.end, before.map(|before| Stamp(before.saturating_sub(1)))].into_iter().flatten().min();
    let named = page.ids.iter().copied().chain(after).chain(before).collect();
    Ok((page, named))
}

/// The request again, when a query has been answered.
fn asked(iq: &Stanza) -> Result<Element, StanzaError> {
    Ok(iq.payload.first().ok_or(StanzaCondition::BadRequest)?.to_element())
}

/// The messages that the query names were looked up.
fn after_check(
    account: &mut Account,
    iq: &Arc<Stanza>,
    session: Option<SessionId>,
    found: QueryAnswer,
    fx: &mut Effects,
) {
    let wanted = asked(iq).and_then(|query| Wanted::of(&query, account));
    let checked = match (wanted, found) {
        (Ok(wanted), QueryAnswer::Page(page)) if page.records.len() == wanted.named.len() => Ok(wanted.page),
        (Ok(_), QueryAnswer::Page(_)) => Err(StanzaCondition::ItemNotFound.into()),
        (Ok(_), other) => Err(unexpected(other)),
        (Err(error), _) => Err(error),
    };
    match checked {
        Ok(query) => {
            let query = Query::Page { account: account.jid.clone(), query: Box::new(query) };
            fx.push(Effect::Query { query, iq: iq.clone(), session, then: show });
        }
        Err(error) => answer(account, iq, session, Err(error), fx),
    }
}

/// The messages of the page, oldest first or flipped (§4.3.4), then `<fin/>`. XEP-0313 §4.2.
fn show(account: &mut Account, iq: &Arc<Stanza>, session: Option<SessionId>, found: QueryAnswer, fx: &mut Effects) {
    let page = match found {
        QueryAnswer::Page(page) => page,
        other => return answer(account, iq, session, Err(unexpected(other)), fx),
    };
    let query = match asked(iq) {
        Ok(query) => query,
        Err(error) => return answer(account, iq, session, Err(error), fx),
    };
    let Some(to) = iq.from.clone() else { return };
    let backwards = Wanted::of(&query, account).is_ok_and(|wanted| wanted.page.backwards);
    let mut page = match session {
        Some(id) => fitted(page, backwards, id, account),
        None => page,
    };
    if backwards && !page.complete {
        // COMPAT: slixmpp, which walks backwards, stops at a page that ends with the last message if it is told the index
        // of its first (XEP-0059 §2.1: SHOULD).
        page.first_index = None;
    }
    let queryid = query.attribute("queryid");
    let mut results: Vec<Stanza> = Vec::with_capacity(page.records.len());
    for record in &page.records {
        // What cannot be read is skipped and counted, the next is told (LIMITS.md §2 row 34).
        match result(record, queryid, &account.archive_ids) {
            Some(message) => results.push(message.with_from(account.jid.clone()).with_to(to.clone())),
            None => fx.push(Effect::Count("inbox_records_damaged")),
        }
    }
    if query.find("flip-page", NS).is_some() {
        results.reverse();
    }
    for message in results {
        let stanza = Arc::new(message);
        match session {
            Some(id) if account.session(id).is_some() => {
                let delivery = Delivery::plain(stanza);
                session::deliver(account, id, delivery, fx);
            }
            Some(_) => return,
            // Whoever reads by a grant.
            None => fx.push(Effect::Tell { to: to.clone(), stanza, ingress: OWN, ticket: Ticket::default() }),
        }
    }
    answer(account, iq, session, Ok(Some(fin(&page, &account.archive_ids))), fx);
}

/// Bytes of the messages of one page; one message there is always.
const PAGE_BYTES_MAX: usize = 384 << 10;
/// What the wrapping of a message costs.
const WRAPPING_BYTES: usize = 512;

/// As much of the page as the session has room for: it would end if the page did not fit. The client sees that there
/// is more. XEP-0059 §2.1.
fn fitted(mut page: Page, backwards: bool, id: SessionId, account: &Account) -> Page {
    let limits = &account.policy.limits;
    let Some(session) = account.session(id) else { return page };
    let (stanzas, bytes) = session.room(limits);
    let mut left = bytes.min(PAGE_BYTES_MAX);
    let mut fits = |record: &Record| match left.checked_sub(record.stanza.len() + WRAPPING_BYTES) {
        Some(less) => {
            left = less;
            true
        }
        None => false,
    };
    let count = if backwards {
        page.records.iter().rev().take(stanzas).take_while(|record| fits(record)).count()
    } else {
        page.records.iter().take(stanzas).take_while(|record| fits(record)).count()
    };
    let surplus = page.records.len() - count.max(1).min(page.records.len());
    if surplus == 0 {
        return page;
    }
    page.complete = false;
    if backwards {
        page.records.drain(..surplus);
    } else {
        page.records.truncate(page.records.len() - surplus);
    }
    page
}

fn fin(page: &Page, ids: &ArchiveIds) -> Element {
    let complete = page.complete.then_some("true");
    Element::new("fin", NS).attr_opt("complete", complete).child(rsm::set(page, ids))
}

/// One message of the answer. `None` if the record cannot be read.
pub(super) fn result(record: &Record, queryid: Option<&str>, ids: &ArchiveIds) -> Option<Stanza> {
    // The wrapping is written around the stored bytes, which are in `jabber:client` like the answer itself.
    let stored = record.stanza.strip_prefix(b"<message")?;
    let mut bytes = Vec::with_capacity(stored.len() + WRAPPING_BYTES);
    bytes.extend_from_slice(b"<message><result xmlns='urn:xmpp:mam:2' ");
    if let Some(queryid) = queryid {
        bytes.extend_from_slice(b"queryid='");
        escape_attribute(&mut bytes, queryid);
        bytes.extend_from_slice(b"' ");
    }
    bytes.extend_from_slice(b"id='");
    escape_attribute(&mut bytes, &ids.text(record.position));
    bytes.extend_from_slice(b"'><forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='");
    escape_attribute(&mut bytes, &Stamp(record.position).to_xmpp());
    bytes.extend_from_slice(b"'/><message xmlns='jabber:client'");
    bytes.extend_from_slice(stored);
    bytes.extend_from_slice(b"</forwarded></result></message>");
    Stanza::parse(&bytes).ok()
}

/// Where the archive begins and ends. XEP-0313 §5.
fn metadata(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    archive_ids::keep_now(account, iq, fx);
    let query = PageQuery { limit: 1, ..PageQuery::default() };
    Ok(Answer::Query(Query::Page { account: account.jid.clone(), query: Box::new(query) }, after_first))
}

/// The first message was read. It rides in the request while the last one is.
fn after_first(
    account: &mut Account,
    iq: &Arc<Stanza>,
    session: Option<SessionId>,
    found: QueryAnswer,
    fx: &mut Effects,
) {
    let ids = &account.archive_ids;
    let first = match found {
        QueryAnswer::Page(page) => page.records.first().map(|record| end("start", record, ids)),
        other => return answer(account, iq, session, Err(unexpected(other)), fx),
    };
    let Some(first) = first else {
        return answer(account, iq, session, Ok(Some(Element::new("metadata", NS))), fx);
    };
    let request = Stanza { payload: iq.payload.with([first]), ..Stanza::clone(iq) };
    let query = PageQuery { limit: 1, backwards: true, ..PageQuery::default() };
    let query = Query::Page { account: account.jid.clone(), query: Box::new(query) };
    fx.push(Effect::Query { query, iq: Arc::new(request), session, then: after_last });
}

fn after_last(
    account: &mut Account,
    iq: &Arc<Stanza>,
    session: Option<SessionId>,
    found: QueryAnswer,
    fx: &mut Effects,
) {
    let ids = &account.archive_ids;
    let last = match found {
        QueryAnswer::Page(page) => page.records.last().map(|record| end("end", record, ids)),
        other => return answer(account, iq, session, Err(unexpected(other)), fx),
    };
    let first = iq.payload.child("start", NS).map(|child| child.to_element());
    let metadata = Element::new("metadata", NS).children_from(first.into_iter().chain(last));
    answer(account, iq, session, Ok(Some(metadata)), fx);
}

/// `<metadata/>` of an archive that begins and ends with these records. XEP-0313 §5, XEP-0386 §3.2.
pub fn metadata_of(first: Option<&Record>, last: Option<&Record>, ids: &ArchiveIds) -> Element {
    let ends =
        first.map(|record| end("start", record, ids)).into_iter().chain(last.map(|record| end("end", record, ids)));
    Element::new("metadata", NS).children_from(ends)
}

fn end(name: &str, record: &Record, ids: &ArchiveIds) -> Element {
    let stamp = Stamp(record.position).to_xmpp();
    Element::new(name, NS).attr("id", ids.text(record.position)).attr("timestamp", stamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::Item;
    use crate::testing::{Fx, START, Scene, account, archive_id, jid};
    use store::Direction;

    fn juliet() -> Scene {
        account("juliet@capulet.example").with("chamber", 0)
    }

    fn record(position: i64, body: &str) -> Record {
        Record {
            position,
            direction: Direction::Incoming,
            peer: jid("witch@shakespeare.example"),
            stanza: format!(
                "<message from='witch@shakespeare.example' to='juliet@capulet.example'><body>{body}</body></message>"
            )
            .into_bytes(),
            pending: false,
            archived: true,
            dedupe: None,
            expires: None,
        }
    }

    /// What the step asks the store, and its answer given.
    fn asks(fx: &Fx) -> Option<&PageQuery> {
        fx.list.iter().find_map(|effect| match effect {
            Effect::Query { query: Query::Page { query, .. }, .. } => Some(&**query),
            _ => None,
        })
    }

    fn answered(scene: &mut Scene, fx: Fx, page: Page) -> Fx {
        let query = fx.list.into_iter().find_map(|effect| match effect {
            Effect::Query { iq, session, then, .. } => Some((iq, session, then)),
            _ => None,
        });
        let (iq, session, then) = query.expect("a query");
        scene.item(Item::Answered { iq, session, answer: QueryAnswer::Page(page), then })
    }

    fn queries(scene: &mut Scene, content: &str) -> Fx {
        scene.sends(
            "chamber",
            &format!("<iq type='set' id='q1'><query xmlns='{NS}' queryid='f27'>{content}</query></iq>"),
        )
    }

    fn submits(fields: &str) -> String {
        format!("<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>{NS}</value></field>{fields}</x>")
    }

    fn field(var: &str, value: &str) -> String {
        submits(&format!("<field var='{var}'><value>{value}</value></field>"))
    }

    // XEP-0059 §2.1; LIMITS.md: what may be unacknowledged.
    #[test]
    fn a_page_is_no_longer_than_the_session_has_room_for() {
        let mut juliet = juliet().policy(|p| p.limits.unacked_stanzas_max = 16);
        let session = juliet.id("chamber");
        let request = crate::item::ManagementRequest { resume: true, max: None, id: "sm1".into() };
        juliet.item(Item::Manage { session, request });
        let last = "<set xmlns='http://jabber.org/protocol/rsm'><before/></set>";
        for (content, shown, first) in [("", 0..11, "<first index='0'>"), (last, 29..40, "<first>")] {
            let fx = queries(&mut juliet, content);
            let records = (0..40).map(|n| record(START.0 + n, &format!("no. {n},"))).collect();
            let page = Page { records, complete: true, count: Some(40), first_index: Some(0) };
            let told = answered(&mut juliet, fx, page).delivered("chamber");
            assert_eq!(told.len(), 12, "{told:?}");
            assert!(told[0].contains(&format!("no. {},", shown.start)), "{told:?}");
            assert!(told[10].contains(&format!("no. {},", shown.end - 1)), "{told:?}");
            assert!(!told[11].contains("complete=") && told[11].contains(first), "{}", told[11]);
            assert_eq!(juliet.sessions.len(), 1);
            let sent = juliet.sessions[0].management.as_ref().expect("it is managed").sent();
            juliet.acks("chamber", sent);
        }
    }

    #[test]
    fn a_page_of_large_messages_is_short() {
        let mut juliet = juliet();
        let fx = queries(&mut juliet, "");
        let records = (0..10).map(|n| record(START.0 + n, &"x".repeat(100_000))).collect();
        let page = Page { records, complete: true, count: Some(10), first_index: Some(0) };
        assert_eq!(answered(&mut juliet, fx, page).delivered("chamber").len(), 3 + 1);
        // One there is always.
        let fx = queries(&mut juliet, "");
        let page = Page { records: vec![record(START.0, &"x".repeat(500_000))], complete: true, ..Page::default() };
        assert_eq!(answered(&mut juliet, fx, page).delivered("chamber").len(), 1 + 1);
    }

    // XEP-0313 §4.2, example 17; §4.3.2, example 22.
    #[test]
    fn the_messages_of_the_page_come_in_order_before_the_result() {
        let mut juliet = juliet();
        let fx = queries(&mut juliet, "");
        assert_eq!(asks(&fx).map(|query| (query.limit, query.backwards)), Some((50, false)));
        let records = vec![record(START.0, "Hail"), record(START.0 + 1, "to thee")];
        let page = Page { records, complete: true, count: Some(2), first_index: Some(0) };
        let told = answered(&mut juliet, fx, page).delivered("chamber");
        assert_eq!(told.len(), 3);
        assert_eq!(
            told[0],
            format!(
                "<message from='juliet@capulet.example' to='juliet@capulet.example/chamber'>\
             <result xmlns='urn:xmpp:mam:2' queryid='f27' id='{}'><forwarded xmlns='urn:xmpp:forward:0'>\
             <delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/>\
             <message xmlns='jabber:client' from='witch@shakespeare.example' to='juliet@capulet.example'>\
             <body>Hail</body></message></forwarded></result></message>",
                archive_id(START.0)
            )
        );
        assert!(told[1].contains("<body>to thee</body>"));
        assert!(
            told[2].contains(&format!(
                "<fin xmlns='urn:xmpp:mam:2' complete='true'><set xmlns='http://jabber.org/protocol/rsm'>\
             <first index='0'>{}</first><last>{}</last><count>2</count></set></fin>",
                archive_id(START.0),
                archive_id(START.0 + 1)
            )),
            "{}",
            told[2]
        );
    }

    #[test]
    fn an_empty_page_is_a_result_without_first_and_last() {
        let mut juliet = juliet();
        let fx = queries(&mut juliet, "");
        let told = answered(&mut juliet, fx, Page { complete: true, ..Page::default() }).delivered("chamber");
        assert!(
            told[0].contains(
                "<fin xmlns='urn:xmpp:mam:2' complete='true'><set xmlns='http://jabber.org/protocol/rsm'/></fin>"
            ),
            "{told:?}"
        );
    }

    #[test]
    fn the_form_filters_by_jid_and_time() {
        let fields = "<field var='with'><value>romeo@montague.example</value></field>\
             <field var='start'><value>2026-01-01T00:00:00Z</value></field><field var='end'><value>2026-01-01T00:00:01Z</value></field>";
        let fx = queries(&mut juliet(), &submits(fields));
        let query = asks(&fx).expect("a query");
        assert_eq!(query.with, Some(jid("romeo@montague.example")));
        assert_eq!(query.start, Some(START));
        // A message of the last millisecond was told with just this stamp.
        assert_eq!(query.end, Some(Stamp(START.0 + 1_000_999)));
    }

    // XEP-0431.
    #[test]
    fn words_are_searched_for_where_the_store_keeps_them() {
        let ask = field(WORDS_FIELD, "thee Hail");
        let mut without = juliet();
        assert!(queries(&mut without, &ask).delivered("chamber")[0].contains("feature-not-implemented"));
        let mut juliet = juliet().policy(|policy| policy.fulltext = true);
        let query = |juliet: &mut Scene, content: &str| asks(&queries(juliet, content)).and_then(|q| q.text.clone());
        assert_eq!(query(&mut juliet, &ask).as_deref(), Some("thee Hail"));
        assert_eq!(query(&mut juliet, &field(WORDS_FIELD, " ")), None);
        let form = juliet.sends("chamber", &format!("<iq type='get' id='f'><query xmlns='{NS}'/></iq>"));
        assert!(form.delivered("chamber")[0].contains(WORDS_FIELD));
    }

    // XEP-0313 §4.3.2.
    #[test]
    fn an_id_that_is_not_in_the_archive_is_not_found() {
        for content in [
            field("after-id", &archive_id(17)),
            field("ids", &archive_id(17)),
            format!("<set xmlns='http://jabber.org/protocol/rsm'><after>{}</after></set>", archive_id(17)),
        ] {
            let mut juliet = juliet();
            let fx = queries(&mut juliet, &content);
            assert_eq!(asks(&fx).map(|query| query.ids.clone()), Some(vec![17]));
            let told = answered(&mut juliet, fx, Page::default()).delivered("chamber");
            assert!(told[0].contains("item-not-found"), "{content}");
        }
    }

    #[test]
    fn after_an_id_that_is_in_the_archive_comes_the_page_behind_it() {
        let mut juliet = juliet();
        let fx = queries(
            &mut juliet,
            &format!(
                "<set xmlns='http://jabber.org/protocol/rsm'><max>10</max><after>{}</after></set>",
                archive_id(17)
            ),
        );
        let fx = answered(&mut juliet, fx, Page { records: vec![record(17, "x")], ..Page::default() });
        assert_eq!(asks(&fx).map(|query| (query.after, query.limit, query.backwards)), Some((Some(17), 10, false)));
        let told =
            answered(&mut juliet, fx, Page { records: vec![record(18, "y")], ..Page::default() }).delivered("chamber");
        assert!(told[1].contains("<fin xmlns='urn:xmpp:mam:2'><set"), "{told:?}");
    }

    // XEP-0313 §4.1.3; XEP-0059 §2.7.
    #[test]
    fn what_is_counted_is_behind_the_after_id_and_before_the_before_id_of_the_form() {
        let (early, late) = (field("after-id", &archive_id(17)), field("before-id", &archive_id(40)));
        let counted = |fields: &str| {
            let mut juliet = juliet();
            let fx = queries(
                &mut juliet,
                &format!("{fields}<set xmlns='http://jabber.org/protocol/rsm'><max>0</max></set>"),
            );
            let named = asks(&fx).expect("the ids are looked up").ids.clone();
            let records = named.iter().map(|position| record(*position, "x")).collect();
            let fx = answered(&mut juliet, fx, Page { records, ..Page::default() });
            let query = asks(&fx).expect("the page").clone();
            assert!(query.want_count && query.after.is_none() && query.before.is_none());
            [17, 18, 39, 40].map(|position| query.matches(&record(position, "x")))
        };
        assert_eq!(counted(&early), [false, true, true, true]);
        assert_eq!(counted(&late), [true, true, true, false]);
    }

    // XEP-0313 §4.3.4.
    #[test]
    fn a_flipped_page_comes_newest_first() {
        let mut juliet = juliet();
        let fx = queries(&mut juliet, "<flip-page/>");
        let page = Page { records: vec![record(1, "old"), record(2, "new")], ..Page::default() };
        let told = answered(&mut juliet, fx, page).delivered("chamber");
        assert!(told[0].contains("new") && told[1].contains("old"));
    }

    // LIMITS.md §2 row 34.
    #[test]
    fn a_record_that_cannot_be_read_is_skipped_and_counted() {
        let mut juliet = juliet();
        let fx = queries(&mut juliet, "");
        let poison = Record { stanza: b"<message><body>".to_vec(), ..record(1, "") };
        let fx = answered(&mut juliet, fx, Page { records: vec![poison, record(2, "good")], ..Page::default() });
        assert_eq!(fx.delivered("chamber").len(), 2);
        assert!(fx.list.iter().any(|effect| matches!(effect, Effect::Count("inbox_records_damaged"))));
    }

    // XEP-0313 §4.1.5; LIMITS.md §2 row 30.
    #[test]
    fn what_cannot_be_read_is_refused_without_asking_the_store() {
        let many = submits(&format!("<field var='ids'>{}</field>", "<value>1</value>".repeat(101)));
        for (content, condition) in [
            (field("free-text-search", "where"), "feature-not-implemented"),
            (field("with", "@"), "jid-malformed"),
            (field("start", "yesterday"), "bad-request"),
            (field("ids", "1' OR '1'='1"), "item-not-found"),
            (many, "policy-violation"),
            ("<x xmlns='jabber:x:data' type='submit'/>".into(), "bad-request"),
            ("<set xmlns='http://jabber.org/protocol/rsm'><max>-1</max></set>".into(), "bad-request"),
            ("<set xmlns='http://jabber.org/protocol/rsm'><index>5</index></set>".into(), "feature-not-implemented"),
        ] {
            let fx = queries(&mut juliet(), &content);
            assert!(asks(&fx).is_none());
            assert!(fx.delivered("chamber")[0].contains(condition), "{content}: {:?}", fx.delivered("chamber"));
        }
    }

    // XEP-0313 §5.
    #[test]
    fn metadata_is_the_first_and_the_last_message() {
        let mut juliet = juliet();
        let fx = juliet.sends("chamber", "<iq type='get' id='m1'><metadata xmlns='urn:xmpp:mam:2'/></iq>");
        let fx = answered(&mut juliet, fx, Page { records: vec![record(START.0, "first")], ..Page::default() });
        assert_eq!(asks(&fx).map(|query| (query.limit, query.backwards)), Some((1, true)));
        let told =
            answered(&mut juliet, fx, Page { records: vec![record(START.0 + 1_000_000, "last")], ..Page::default() });
        assert!(
            told.delivered("chamber")[0].contains(&format!(
                "<metadata xmlns='urn:xmpp:mam:2'><start id='{}' timestamp='2026-01-01T00:00:00Z'/>\
             <end id='{}' timestamp='2026-01-01T00:00:01Z'/></metadata>",
                archive_id(START.0),
                archive_id(START.0 + 1_000_000)
            )),
            "{:?}",
            told.delivered("chamber")
        );
    }

    #[test]
    fn metadata_of_an_empty_archive_is_empty() {
        let mut juliet = juliet();
        let fx = juliet.sends("chamber", "<iq type='get' id='m1'><metadata xmlns='urn:xmpp:mam:2'/></iq>");
        let told = answered(&mut juliet, fx, Page::default()).delivered("chamber");
        assert!(told[0].contains("<metadata xmlns='urn:xmpp:mam:2'/>"), "{told:?}");
    }

    #[test]
    fn a_host_without_archive_neither_shows_nor_serves_it() {
        let mut juliet = juliet().policy(|policy| policy.archive = false);
        assert!(queries(&mut juliet, "").delivered("chamber")[0].contains("service-unavailable"));
        let info = "<iq type='get' id='d1'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>";
        assert!(!juliet.sends("chamber", info).delivered("chamber")[0].contains(NS));
    }
}
