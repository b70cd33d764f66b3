//! When a certificate is renewed, and when what went wrong is tried again. Pure: seconds in, seconds out.

/// From when to when a certificate is in force, seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    pub from: i64,
    pub until: i64,
}

/// The longest pause between two attempts.
const PAUSE_MAX: i64 = 86_400;

/// When a certificate is renewed: when two thirds of its life are over, or up to a thirtieth of it sooner, so that those
/// of many servers do not come at once. `jitter` is from 0 to 1.
pub fn renewal(life: Life, jitter: f64) -> i64 {
    let length = (life.until - life.from).max(0);
    let early = (length as f64 / 30.0 * jitter.clamp(0.0, 1.0)) as i64;
    life.from + length / 3 * 2 - early
}

/// Seconds from a failed attempt to the next: `first` after the first failure, then each twice as long, up to a day, and
/// all a quarter more or less as `jitter` (0 to 1) says.
pub fn pause(failures: u32, first: i64, jitter: f64) -> i64 {
    let doubled =
        first.max(1).saturating_mul(1_i64.checked_shl(failures.saturating_sub(1).min(32)).unwrap_or(PAUSE_MAX));
    let pause = doubled.min(PAUSE_MAX) as f64 * (0.75 + jitter.clamp(0.0, 1.0) / 2.0);
    (pause as i64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    #[test]
    fn a_certificate_of_90_days_is_renewed_in_the_three_days_before_its_60th() {
        let life = Life { from: 0, until: 90 * DAY };
        assert_eq!(renewal(life, 0.0), 60 * DAY);
        assert_eq!(renewal(life, 1.0), 57 * DAY);
    }

    #[test]
    fn a_certificate_of_six_days_is_renewed_on_its_fourth() {
        assert_eq!(renewal(Life { from: DAY, until: 7 * DAY }, 0.0), 5 * DAY);
    }

    #[test]
    fn pauses_double_up_to_a_day() {
        let pauses: Vec<i64> = (1..=12).map(|failures| pause(failures, 300, 0.5)).collect();
        assert_eq!(pauses[..4], [300, 600, 1_200, 2_400]);
        assert_eq!(pauses[11], DAY);
        assert_eq!(pause(u32::MAX, 300, 0.5), DAY);
    }

    #[test]
    fn pauses_differ_by_a_quarter() {
        assert_eq!((pause(1, 400, 0.0), pause(1, 400, 1.0)), (300, 500));
    }
}
