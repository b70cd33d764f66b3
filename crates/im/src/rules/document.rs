//! The rules as they are written: a ruleset of RFC 4745 with the permissions of RFC 5025 and some of our own.

use super::shape::Shape;
use super::{Delivery, Handling};
use xmpp::{BareJid, Stamp};

/// Rules in one document.
pub const RULES_MAX: usize = 1_000;
/// Identities in one document: of `one`, `many`, `except` and `group` together.
pub const IDENTITIES_MAX: usize = 10_000;
/// Longest text of a value in it, in bytes.
pub const VALUE_BYTES_MAX: usize = 1_023;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    /// Grows with each change.
    pub version: u64,
    /// In the order of the document.
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    pub id: Box<str>,
    pub conditions: Conditions,
    pub actions: Actions,
    /// `None`: the rule does not speak of it; where no rule that matches does, everything is shown.
    pub shape: Option<Shape>,
}

/// All of them must hold. RFC 4745 §7.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions {
    /// `None`: anybody, authenticated or not. §7.1.1.
    pub identity: Option<Vec<Identity>>,
    /// The user's spheres, one of which must be set now. §7.2.
    pub sphere: Option<Vec<Box<str>>>,
    /// From (inclusive), until (exclusive): one of them must hold. §7.3.
    pub validity: Option<Vec<(Stamp, Stamp)>>,
    /// Times of the day, one of which must hold.
    pub hours: Option<Vec<Hours>>,
}

impl Conditions {
    /// Do they hold whatever the time and the sphere?
    pub fn are_lasting(&self) -> bool {
        self.sphere.is_none() && self.validity.is_none() && self.hours.is_none()
    }
}

/// One of them must match. RFC 4745 §7.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    One(BareJid),
    Many(Many),
    /// A group of the roster; without a name: whoever is in the roster.
    Group(Option<Box<str>>),
    /// Who is not authenticated as anybody in particular. RFC 2779 §5.1.14.
    Unauthenticated,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Many {
    pub domain: Option<Domain>,
    pub except: Vec<Except>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    pub name: Box<str>,
    /// `*.name`: the domain and all below it. RFC 3341 §4.1.
    pub below: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Except {
    One(BareJid),
    Domain(Domain),
}

/// From a minute of the day to another, on some days of the week, at a fixed offset to UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// Minutes after midnight, below 1440. Not later than `from`: until that time of the next day.
    pub from: u16,
    pub until: u16,
    /// Bit 0 is Monday: the days on which it begins.
    pub days: u8,
    /// East of UTC, in minutes.
    pub offset: i16,
}

pub const ALL_DAYS: u8 = 0b111_1111;
const MINUTE: i64 = 60_000_000;
const DAY_MINUTES: i64 = 1_440;

impl Hours {
    /// Does it hold then?
    pub fn holds(&self, now: Stamp) -> bool {
        let minutes = now.0.div_euclid(MINUTE) + i64::from(self.offset);
        let (day, minute) = (minutes.div_euclid(DAY_MINUTES), minutes.rem_euclid(DAY_MINUTES));
        let (from, until) = (i64::from(self.from), i64::from(self.until));
        if from < until {
            self.is_on(day) && (from..until).contains(&minute)
        } else {
            (self.is_on(day) && minute >= from) || (self.is_on(day - 1) && minute < until)
        }
    }

    /// When it next begins or ends, some days without it counted too.
    pub fn next_edge(&self, now: Stamp) -> Stamp {
        let local = now.0 + i64::from(self.offset) * MINUTE;
        let midnight = local - local.rem_euclid(DAY_MINUTES * MINUTE);
        let edges = [self.from, self.until].map(|edge| midnight + i64::from(edge) * MINUTE);
        let next = edges.map(|edge| if edge > local { edge } else { edge + DAY_MINUTES * MINUTE });
        Stamp(next[0].min(next[1]) - i64::from(self.offset) * MINUTE)
    }

    /// 1970-01-01 was a Thursday.
    fn is_on(&self, day: i64) -> bool {
        self.days & (1 << (day + 3).rem_euclid(7)) != 0
    }
}

/// `None`: the rule does not speak of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Actions {
    pub subscribe: Option<Handling>,
    pub fetch: Option<Handling>,
    pub watch: Option<bool>,
    pub publish: Option<bool>,
    pub read: Option<bool>,
    pub message: Option<Delivery>,
}
