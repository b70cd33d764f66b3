//! `waft top`: what the running server does, anew every few seconds.

use super::{Failure, say};
use crate::admin::client::AdminConnection;
use crate::admin::{Answer, Request};
use crate::cli;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

/// Figures of one moment, by name and labels as OpenMetrics writes them.
struct Figures {
    at: Instant,
    by_name: BTreeMap<String, f64>,
}

pub fn top(arguments: &cli::Top) -> Result<(), Failure> {
    let mut server = super::status::connect(&arguments.place)?;
    let interval = Duration::from_secs_f64(arguments.interval.clamp(0.1, 3_600.0));
    let mut before = figures(&mut server)?;
    let live = !arguments.once && !arguments.json && std::io::stdout().is_terminal();
    loop {
        std::thread::sleep(interval);
        let now = figures(&mut server)?;
        if arguments.json {
            say(json(&before, &now));
        } else {
            let text = table(&before, &now);
            let mut out = std::io::stdout().lock();
            // Home, and what was below is cleared.
            let (begin, end) = if live { ("\x1b[H\x1b[2J", "\n(Ctrl-C ends)\n") } else { ("", "") };
            // A reader that went away ends it.
            if write!(out, "{begin}{text}{end}").and_then(|()| out.flush()).is_err() {
                return Ok(());
            }
        }
        if arguments.once {
            return Ok(());
        }
        before = now;
    }
}

fn figures(server: &mut AdminConnection) -> Result<Figures, Failure> {
    match server.ask(&Request::Metrics)? {
        Answer::Metrics { text } => Ok(Figures { at: Instant::now(), by_name: parse(&text) }),
        _ => Err(super::status::unexpected()),
    }
}

/// `name{labels} value` lines; comments are passed over.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' ').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?))))
        .collect()
}

impl Figures {
    fn value(&self, name: &str) -> f64 {
        self.by_name.get(name).copied().unwrap_or(0.0)
    }

    /// All of a name, with the value of one label.
    fn by_label<'f>(&'f self, name: &'f str, label: &'f str) -> impl Iterator<Item = (&'f str, f64)> {
        self.by_name.iter().filter_map(move |(key, value)| {
            let labels = key.strip_prefix(name)?.strip_prefix('{')?.strip_suffix('}')?;
            let at = labels.find(&format!("{label}=\""))? + label.len() + 2;
            Some((labels[at..].split('"').next()?, *value))
        })
    }
}

/// A second, between the two.
fn rate(before: &Figures, now: &Figures, name: &str) -> f64 {
    let seconds = now.at.duration_since(before.at).as_secs_f64().max(0.001);
    (now.value(name) - before.value(name)).max(0.0) / seconds
}

/// The time within which this share was done, between the two; at least the upper bound of its bucket. `None`: nothing
/// was done.
fn quantile(before: &Figures, now: &Figures, name: &str, share: f64) -> Option<f64> {
    let bucket = format!("{name}_bucket");
    let mut buckets: Vec<(f64, f64)> = now
        .by_label(&bucket, "le")
        .map(|(le, count)| {
            let earlier = before.value(&format!("{bucket}{{le=\"{le}\"}}"));
            (le.parse().unwrap_or(f64::INFINITY), count - earlier)
        })
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all = buckets.last()?.1;
    let wanted = all * share;
    (all > 0.0).then(|| buckets.iter().find(|(_, count)| *count >= wanted).map(|(le, _)| *le))?
}

fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".into(),
        Some(seconds) if seconds.is_infinite() => "> 25 s".into(),
        Some(seconds) if seconds < 0.001 => format!("<= {:.0} µs", seconds * 1e6),
        Some(seconds) if seconds < 1.0 => format!("<= {:.0} ms", seconds * 1e3),
        Some(seconds) => format!("<= {seconds:.1} s"),
    }
}

const SETS: [(&str, &str); 6] = [
    ("client_presence", "presence, clients"),
    ("client_messages", "messages, clients"),
    ("server_presence", "presence, servers"),
    ("server_messages", "messages, servers"),
    ("client_iq", "other, clients"),
    ("server_iq", "other, servers"),
];
const TIMES: [(&str, &str); 3] =
    [("waft_stanza_seconds", "stanzas done"), ("waft_commit_seconds", "commits"), ("waft_login_seconds", "logins")];

fn table(before: &Figures, now: &Figures) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "{name:<22} {text}");
    };
    let count = |name: &str| format!("{:.0}", now.value(name));
    line("up", super::status::duration(now.value("waft_uptime_seconds") as u64));
    line(
        "memory, open files",
        format!(
            "{:.1} MiB, {} of {}",
            now.value("waft_resident_memory_bytes") / 1_048_576.0,
            count("waft_open_files"),
            count("waft_open_files_max")
        ),
    );
    let sessions: Vec<String> =
        now.by_label("waft_sessions", "state").map(|(state, n)| format!("{n:.0} {state}")).collect();
    line("sessions", sessions.join(", "));
    line("streams", format!("{} ({} stanzas wait to be written)", count("waft_streams"), count("waft_client_queue")));
    line("accounts", format!("{} ({} in memory)", count("waft_accounts"), count("waft_accounts_in_memory")));
    for (set, called) in SETS {
        let name = format!("waft_stanzas_total{{set=\"{set}\"}}");
        line(called, format!("{:.1}/s ({})", rate(before, now, &name), count(&name)));
    }
    for (name, called) in TIMES {
        let of = |share| time(quantile(before, now, name, share));
        line(called, format!("half {}, 99 of 100 {}", of(0.5), of(0.99)));
    }
    line(
        "store",
        format!(
            "{:.1} commits/s, {:.1} changes/s, {} wait",
            rate(before, now, "waft_store_commits_total"),
            rate(before, now, "waft_store_changes_total"),
            count("waft_store_queue")
        ),
    );
    line(
        "logins, failures",
        format!(
            "{:.1}/s, {:.1}/s ({} failed)",
            rate(before, now, "waft_logins_total"),
            rate(before, now, "waft_auth_failures_total"),
            count("waft_auth_failures_total")
        ),
    );
    let mut links: BTreeMap<&str, f64> = BTreeMap::new();
    for (direction, n) in now.by_label("waft_s2s_links", "direction") {
        *links.entry(direction).or_default() += n;
    }
    let links: Vec<String> = links.iter().map(|(direction, n)| format!("{n:.0} {direction}")).collect();
    line(
        "other domains",
        format!(
            "{} ({} stanzas wait)",
            if links.is_empty() { "none".into() } else { links.join(", ") },
            count("waft_s2s_queue")
        ),
    );
    for (limit, hit) in now.by_label("waft_limits_hit_total", "limit").filter(|(_, hit)| *hit > 0.0) {
        line(
            &format!("limit: {limit}"),
            format!(
                "{hit:.0} times, {:.1}/s",
                rate(before, now, &format!("waft_limits_hit_total{{limit=\"{limit}\"}}"))
            ),
        );
    }
    out
}

/// Every figure, and beside each that only grows its rate.
fn json(before: &Figures, now: &Figures) -> String {
    let rates: BTreeMap<&str, f64> = now
        .by_name
        .keys()
        .filter(|name| name.split('{').next().unwrap_or_default().ends_with("_total"))
        .map(|name| (name.as_str(), rate(before, now, name)))
        .collect();
    let finite = |name: &str, share| quantile(before, now, name, share).filter(|it| it.is_finite());
    let times: BTreeMap<&str, serde_json::Value> = TIMES
        .iter()
        .map(|(name, _)| (*name, serde_json::json!({ "p50": finite(name, 0.5), "p99": finite(name, 0.99) })))
        .collect();
    serde_json::json!({ "figures": now.by_name, "per_second": rates, "seconds": times }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(after: Duration, text: &str) -> Figures {
        static BEGAN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        Figures { at: *BEGAN + after, by_name: parse(text) }
    }

    const ONE: &str = "# HELP waft_stanzas x\nwaft_stanzas_total{set=\"client_messages\"} 10\n\
        waft_stanza_seconds_bucket{le=\"0.001\"} 5\nwaft_stanza_seconds_bucket{le=\"0.01\"} 5\n\
        waft_stanza_seconds_bucket{le=\"+Inf\"} 5\nwaft_limits_hit_total{limit=\"s2s_queue_stanzas_max\"} 0\n# EOF\n";
    const TWO: &str = "waft_stanzas_total{set=\"client_messages\"} 30\n\
        waft_stanza_seconds_bucket{le=\"0.001\"} 6\nwaft_stanza_seconds_bucket{le=\"0.01\"} 8\n\
        waft_stanza_seconds_bucket{le=\"+Inf\"} 9\nwaft_limits_hit_total{limit=\"s2s_queue_stanzas_max\"} 3\n";

    #[test]
    fn what_happened_between_two_looks_is_shown() {
        let (one, two) = (figures(Duration::ZERO, ONE), figures(Duration::from_secs(2), TWO));
        assert_eq!(rate(&one, &two, "waft_stanzas_total{set=\"client_messages\"}"), 10.0);
        // Of the four in between one took less than a millisecond, two less than ten, and one longer.
        assert_eq!(quantile(&one, &two, "waft_stanza_seconds", 0.25), Some(0.001));
        assert_eq!(quantile(&one, &two, "waft_stanza_seconds", 0.5), Some(0.01));
        assert_eq!(quantile(&one, &two, "waft_stanza_seconds", 0.99), Some(f64::INFINITY));
        assert_eq!(quantile(&one, &one, "waft_stanza_seconds", 0.5), None);
        let text = table(&one, &two);
        assert!(text.contains("messages, clients      10.0/s (30)"), "{text}");
        assert!(text.contains("limit: s2s_queue_stanzas_max 3 times, 1.5/s"), "{text}");
    }

    #[test]
    fn json_has_figures_rates_and_times() {
        let (one, two) = (figures(Duration::ZERO, ONE), figures(Duration::from_secs(2), TWO));
        let told: serde_json::Value = serde_json::from_str(&json(&one, &two)).expect("an object");
        assert_eq!(told["per_second"]["waft_limits_hit_total{limit=\"s2s_queue_stanzas_max\"}"], 1.5);
        assert_eq!(told["seconds"]["waft_stanza_seconds"]["p50"], 0.01);
        assert!(told["seconds"]["waft_stanza_seconds"]["p99"].is_null());
    }
}
