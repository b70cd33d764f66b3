//! Result Set Management, XEP-0059: which page of a long answer is wanted, and which one it is.
//!
//! Ids are positions in a log as clients know them ([`crate::archive_ids`]). What does not look like one was never an id
//! here (LIMITS.md §2 row 30).

use crate::archive_ids::ArchiveIds;
use crate::module::{Module, xep};
use store::{Page, PageQuery};
use xmpp::{Element, StanzaCondition, StanzaError};

pub const NS: &str = "http://jabber.org/protocol/rsm";

pub static MODULE: Module =
    Module { name: "rsm", specs: &[xep(59, "1.0").without("pages by index (§2.6)")], ..Module::EMPTY };

/// `<set/>` of a request, read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Paging {
    pub max: Option<usize>,
    pub after: Option<i64>,
    pub before: Option<i64>,
    /// The page before `before`, or the last one.
    pub backwards: bool,
}

impl Paging {
    /// Of the request that holds the `<set/>`; the first page if there is none.
    ///
    /// # Errors
    /// `bad-request` for a `<max/>` that is no number, `item-not-found` for an id that cannot be one (§2.4),
    /// `feature-not-implemented` for a page by index (§2.6).
    pub fn of(request: &Element, ids: &ArchiveIds) -> Result<Paging, StanzaError> {
        let Some(set) = request.find("set", NS) else { return Ok(Paging::default()) };
        let text = |name| set.find(name, NS).map(Element::text_content);
        if text("index").is_some() {
            return Err(StanzaCondition::FeatureNotImplemented.into());
        }
        let max = match text("max") {
            Some(max) => Some(number(&max).ok_or(StanzaCondition::BadRequest)?),
            None => None,
        };
        let before = text("before");
        Ok(Paging {
            max,
            after: text("after").map(|text| id(&text, ids)).transpose()?,
            backwards: before.is_some(),
            before: before.filter(|text| !text.is_empty()).map(|text| id(&text, ids)).transpose()?,
        })
    }

    /// Writes the bounds into a query, tighter ones that stand there stay; at most `max` records, `default` if the
    /// request does not say.
    pub fn apply(&self, query: &mut PageQuery, default: usize, max: usize) {
        query.after = query.after.max(self.after);
        query.before = [query.before, self.before].into_iter().flatten().min();
        query.backwards = self.backwards;
        query.limit = self.max.unwrap_or(default).min(max);
        // Counting costs: once for who begins to page, and for who asks for it (§2.7).
        query.want_count = query.limit == 0 || (self.after.is_none() && self.before.is_none());
    }
}

/// Digits alone; a number beyond all bounds is just a great one.
fn number(text: &str) -> Option<usize> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(usize::MAX))
}

/// The position of an id as it was told to clients.
///
/// # Errors
/// `item-not-found`: it was never told.
pub fn id(text: &str, ids: &ArchiveIds) -> Result<i64, StanzaError> {
    ids.position(text).filter(|position| *position > 0).ok_or_else(|| StanzaCondition::ItemNotFound.into())
}

/// `<set/>` of an answer: first and last, and how many there are, if that was counted. §2.2.
pub fn set(page: &Page, ids: &ArchiveIds) -> Element {
    let mut set = Element::new("set", NS);
    if let (Some(first), Some(last)) = (page.records.first(), page.records.last()) {
        let index = page.first_index.map(|index| index.to_string());
        let first = Element::new("first", NS).attr_opt("index", index).text(ids.text(first.position));
        set = set.child(first).child(Element::new("last", NS).text(ids.text(last.position)));
    }
    match page.count {
        Some(count) => set.child(Element::new("count", NS).text(count.to_string())),
        None => set,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> ArchiveIds {
        ArchiveIds::from_stored(Some(&[0; 32])).expect("it is a key")
    }

    fn paging(content: &str) -> Result<Paging, StanzaCondition> {
        let request = format!("<query xmlns='urn:xmpp:mam:2'><set xmlns='{NS}'>{content}</set></query>");
        let request = Element::parse(request.as_bytes(), "jabber:client").expect("well-formed");
        Paging::of(&request, &ids()).map_err(|error| error.condition)
    }

    #[test]
    fn an_empty_before_is_the_last_page() {
        let last = Paging { max: Some(10), backwards: true, ..Paging::default() };
        assert_eq!(paging("<max>10</max><before/>"), Ok(last));
    }

    #[test]
    fn a_page_is_never_greater_than_the_servers_limit() {
        let mut query = PageQuery::default();
        for (content, limit) in [("", 50), ("<max>7</max>", 7), ("<max>101</max>", 100), ("<max>0</max>", 0)] {
            paging(content).expect("good").apply(&mut query, 50, 100);
            assert_eq!(query.limit, limit);
        }
    }

    #[test]
    fn the_tighter_bound_holds() {
        let mut query = PageQuery { after: Some(10), before: Some(20), ..PageQuery::default() };
        paging(&format!("<after>{}</after>", ids().text(5))).expect("good").apply(&mut query, 50, 100);
        assert_eq!((query.after, query.before), (Some(10), Some(20)));
        paging(&format!("<before>{}</before>", ids().text(15))).expect("good").apply(&mut query, 50, 100);
        assert_eq!((query.after, query.before), (Some(10), Some(15)));
    }

    // LIMITS.md §2 row 30.
    #[test]
    fn row_30_what_is_no_id_is_not_found_whatever_it_is() {
        let long = "9".repeat(65_536);
        let ids = [
            "'",
            "1' OR '1'='1",
            "1;--",
            "-1",
            "+1",
            "01",
            "0",
            "1e3",
            " 1",
            "9223372036854775808",
            "é",
            "00000000000000AF",
            &long,
        ];
        for id in ids {
            for bound in ["before", "after"] {
                assert_eq!(paging(&format!("<{bound}>{id}</{bound}>")), Err(StanzaCondition::ItemNotFound), "{id}");
            }
        }
        assert_eq!(paging("<after/>"), Err(StanzaCondition::ItemNotFound));
    }

    // LIMITS.md §2 row 30.
    #[test]
    fn a_max_that_is_no_number_is_a_bad_request_and_a_huge_one_is_just_great() {
        for max in ["", "-1", "1.5", "0x10", "many", "'"] {
            assert_eq!(paging(&format!("<max>{max}</max>")), Err(StanzaCondition::BadRequest), "{max}");
        }
        let huge = format!("<max>{}</max>", "9".repeat(65_536));
        assert_eq!(paging(&huge).map(|paging| paging.max), Ok(Some(usize::MAX)));
    }
}
