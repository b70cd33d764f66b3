//! UTC times: microseconds since 1970 inside, XEP-0082 on the wire.

use std::fmt::Write;

const MICROS: i64 = 1_000_000;
const DAY_SECONDS: i64 = 86_400;
/// The first moment of the year 10000; from there on a year has no four digits.
const YEAR_10000: Stamp = Stamp(253_402_300_800 * MICROS);
/// The first moment of the year 0.
const YEAR_0: Stamp = Stamp(-62_167_219_200 * MICROS);

/// A point in time, microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(pub i64);

impl Stamp {
    /// `2026-11-22T20:18:26.123Z`: milliseconds when there are any, always `Z`. XEP-0082 §3.2.
    ///
    /// Only the years 0 to 9999 can be written (XEP-0082 §2.1); what lies outside is written as the nearest of them.
    pub fn to_xmpp(self) -> String {
        let micros = self.0.clamp(YEAR_0.0, YEAR_10000.0 - 1);
        let seconds = micros.div_euclid(MICROS);
        let millis = micros.rem_euclid(MICROS) / 1000;
        let (year, month, day) = civil_from_days(seconds.div_euclid(DAY_SECONDS));
        let time = seconds.rem_euclid(DAY_SECONDS);
        let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
        let mut out = String::with_capacity("2026-11-22T20:18:26.123Z".len());
        let mut written = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        if millis != 0 {
            written = written.and_then(|()| write!(out, ".{millis:03}"));
        }
        written.expect("a String takes all that is written to it");
        out.push('Z');
        out
    }

    /// Reads a DateTime with any offset. XEP-0082 §3.2. `None` if it is none.
    ///
    /// Fractions may have any number of digits; what is finer than a microsecond is cut off. The hour 24 (as
    /// `24:00:00`) is the next midnight and a second 60 the next minute, as XML Schema and ISO 8601 have them.
    pub fn from_xmpp(text: &str) -> Option<Stamp> {
        let mut rest = Reader(text.as_bytes());
        let year = rest.digits(4)?;
        rest.expect(b'-')?;
        let month = rest.digits(2)?;
        rest.expect(b'-')?;
        let day = rest.digits(2)?;
        rest.expect(b'T')?;
        let (hour, minute) = rest.hour_and_minute()?;
        rest.expect(b':')?;
        let second = rest.digits(2)?;
        let fraction = rest.fraction()?;
        let offset = rest.offset_minutes()?;
        let midnight = hour == 24 && minute == 0 && second == 0 && fraction == 0;
        let valid = rest.0.is_empty()
            && (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day)
            && (hour <= 23 || midnight)
            && minute <= 59
            && second <= 60;
        if !valid {
            return None;
        }
        let seconds = days_from_civil(year, month, day) * DAY_SECONDS + hour * 3600 + (minute - offset) * 60 + second;
        Some(Stamp(seconds * MICROS + fraction))
    }

    pub fn plus_seconds(self, seconds: i64) -> Stamp {
        Stamp(self.0 + seconds * MICROS)
    }

    /// Whole seconds from `earlier` to this; negative if this is earlier.
    pub fn seconds_since(self, earlier: Stamp) -> i64 {
        (self.0 - earlier.0) / MICROS
    }
}

/// Reads fields of fixed width from the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    /// Exactly `count` digits as a number.
    fn digits(&mut self, count: usize) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        digits.iter().try_fold(0, |number, b| b.is_ascii_digit().then(|| number * 10 + i64::from(b - b'0')))
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(())
    }

    fn hour_and_minute(&mut self) -> Option<(i64, i64)> {
        let hour = self.digits(2)?;
        self.expect(b':')?;
        Some((hour, self.digits(2)?))
    }

    /// `.` and at least one digit, in microseconds; 0 if there is no `.`.
    fn fraction(&mut self) -> Option<i64> {
        if self.expect(b'.').is_none() {
            return Some(0);
        }
        let len = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        if len == 0 {
            return None;
        }
        let (digits, rest) = self.0.split_at(len);
        self.0 = rest;
        let padded = digits.iter().copied().chain(std::iter::repeat(b'0')).take(6);
        Some(padded.fold(0, |number, b| number * 10 + i64::from(b - b'0')))
    }

    /// `Z`, or `+hh:mm` or `-hh:mm` within XML Schema's fourteen hours.
    fn offset_minutes(&mut self) -> Option<i64> {
        let (&sign, rest) = self.0.split_first()?;
        self.0 = rest;
        let sign = match sign {
            b'Z' => return Some(0),
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        let (hours, minutes) = self.hour_and_minute()?;
        let offset = hours * 60 + minutes;
        (minutes <= 59 && offset <= 14 * 60).then_some(sign * offset)
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar.
///
/// The year is taken to begin in March, so that the leap day is its last; 400 such years have 146,097 days.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of a day since 1970-01-01; the inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Option<i64> {
        Stamp::from_xmpp(text).map(|stamp| stamp.0)
    }

    #[test]
    fn the_examples_of_xep_0082_name_the_same_moment() {
        let utc = Stamp::from_xmpp("1969-07-21T02:56:15Z");
        assert_eq!(utc, Some(Stamp(-14_159_025 * MICROS)));
        assert_eq!(Stamp::from_xmpp("1969-07-20T21:56:15-05:00"), utc);
    }

    #[test]
    fn a_stamp_is_written_in_utc_with_milliseconds_only_when_there_are_any() {
        assert_eq!(Stamp(0).to_xmpp(), "1970-01-01T00:00:00Z");
        assert_eq!(Stamp(999).to_xmpp(), "1970-01-01T00:00:00Z");
        assert_eq!(Stamp(1_000).to_xmpp(), "1970-01-01T00:00:00.001Z");
        assert_eq!(Stamp(1_795_378_706_123_456).to_xmpp(), "2026-11-22T20:18:26.123Z");
        assert_eq!(Stamp(-1_000).to_xmpp(), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn leap_days_exist_only_in_leap_years() {
        assert_eq!(read("2000-02-29T00:00:00Z"), Some(951_782_400 * MICROS));
        assert_eq!(read("2024-02-29T12:00:00Z"), Some(1_709_208_000 * MICROS));
        assert_eq!(Stamp(1_709_208_000 * MICROS).to_xmpp(), "2024-02-29T12:00:00Z");
        for none in ["1900-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2023-02-29T00:00:00Z"] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn offsets_are_taken_off_to_get_utc() {
        let noon = read("2026-01-01T12:00:00Z");
        for same in [
            "2026-01-01T12:00:00+00:00",
            "2026-01-01T12:00:00-00:00",
            "2026-01-01T19:00:00+07:00",
            "2026-01-01T17:30:00+05:30",
            "2026-01-01T05:00:00-07:00",
            "2026-01-02T02:00:00+14:00",
        ] {
            assert_eq!(read(same), noon, "{same}");
        }
    }

    #[test]
    fn fractions_may_have_any_number_of_digits() {
        for (text, micros) in [
            ("1970-01-01T00:00:00.5Z", 500_000),
            ("1970-01-01T00:00:00.05Z", 50_000),
            ("1970-01-01T00:00:00.123Z", 123_000),
            ("1970-01-01T00:00:00.123456Z", 123_456),
            ("1970-01-01T00:00:00.123456789Z", 123_456),
            ("1970-01-01T00:00:00.000000+00:00", 0),
        ] {
            assert_eq!(read(text), Some(micros), "{text}");
        }
        let long = format!("1970-01-01T00:00:00.{}Z", "9".repeat(10_000));
        assert_eq!(read(&long), Some(999_999));
    }

    #[test]
    fn midnight_may_be_hour_24_and_a_leap_second_is_the_next_minute() {
        assert_eq!(read("2026-12-31T24:00:00Z"), read("2027-01-01T00:00:00Z"));
        assert_eq!(read("2016-12-31T23:59:60Z"), read("2017-01-01T00:00:00Z"));
        assert_eq!(read("2026-12-31T24:00:01Z"), None);
    }

    #[test]
    fn what_is_no_date_time_is_refused() {
        for none in [
            "",
            "1776-07-04",
            "16:00:00",
            "16:00:00Z",
            "20021015T02:56:15",
            "1969-07-21T02:56:15",
            "1969-07-21 02:56:15Z",
            "1969-07-21t02:56:15Z",
            "1969-07-21T02:56:15z",
            "1969-07-21T02:56Z",
            "1969-7-21T02:56:15Z",
            "1969-00-21T02:56:15Z",
            "1969-13-21T02:56:15Z",
            "1969-07-00T02:56:15Z",
            "1969-06-31T02:56:15Z",
            "1969-07-21T25:56:15Z",
            "1969-07-21T02:60:15Z",
            "1969-07-21T02:56:61Z",
            "1969-07-21T02:56:15.Z",
            "1969-07-21T02:56:15,5Z",
            "1969-07-21T02:56:15Z ",
            " 1969-07-21T02:56:15Z",
            "1969-07-21T02:56:15ZZ",
            "1969-07-21T02:56:15+5:00",
            "1969-07-21T02:56:15+0500",
            "1969-07-21T02:56:15+05:60",
            "1969-07-21T02:56:15+14:01",
            "-969-07-21T02:56:15Z",
            "+969-07-21T02:56:15Z",
            "19690-07-21T02:56:15Z",
            "１９６９-07-21T02:56:15Z",
        ] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn the_extremes_are_written_as_the_nearest_year_of_four_digits() {
        assert_eq!(Stamp(i64::MAX).to_xmpp(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Stamp(i64::MIN).to_xmpp(), "0000-01-01T00:00:00Z");
    }

    #[test]
    fn every_day_of_four_centuries_survives_both_ways() {
        let mut expected = (1800, 1, 1);
        let first = days_from_civil(1800, 1, 1);
        for days in first..first + 146_097 {
            assert_eq!(civil_from_days(days), expected);
            let (year, month, day) = expected;
            assert_eq!(days_from_civil(year, month, day), days);
            expected = match (day == days_in_month(year, month), month) {
                (false, _) => (year, month, day + 1),
                (true, 12) => (year + 1, 1, 1),
                (true, _) => (year, month + 1, 1),
            };
        }
        assert_eq!(expected, (2200, 1, 1));
    }

    #[test]
    fn seconds_between_stamps_have_a_sign() {
        let then = Stamp(1_500_000);
        assert_eq!(then.plus_seconds(60).seconds_since(then), 60);
        assert_eq!(then.seconds_since(then.plus_seconds(60)), -60);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_to_the_millisecond(millis in -62_167_219_200_000_i64..253_402_300_800_000) {
            let stamp = Stamp(millis * 1000);
            prop_assert_eq!(Stamp::from_xmpp(&stamp.to_xmpp()), Some(stamp));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC*") {
            let _ = Stamp::from_xmpp(&text);
        }

        #[test]
        fn nothing_like_a_date_makes_the_reader_panic(text in "[0-9T:.Z+-]{0,40}") {
            let _ = Stamp::from_xmpp(&text);
        }
    }
}
