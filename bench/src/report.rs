//! The table: medians, spread, ratios, and what they say of the goals.

use crate::plot;
use crate::servers::Kind;
use crate::work::Figure;
use crate::workloads::{Goal, WORKLOADS, Workload};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

const BEGIN: &str = "<!-- measured: begin -->\n";
const END: &str = "<!-- measured: end -->\n";

/// All figures, by workload and server.
#[derive(Default)]
pub struct Results(BTreeMap<usize, BTreeMap<Kind, Vec<Figure>>>);

/// A median and how far the runs lie apart.
struct Spread {
    low: f64,
    median: f64,
    high: f64,
}

fn spread(figures: &[Figure], pick: impl Fn(&Figure) -> f64) -> Spread {
    let mut values: Vec<f64> = figures.iter().map(pick).collect();
    values.sort_by(f64::total_cmp);
    let at = |n: usize| values.get(n).copied().unwrap_or(f64::NAN);
    Spread { low: at(0), median: at(values.len() / 2), high: at(values.len().saturating_sub(1)) }
}

fn median(figures: &[Figure], pick: impl Fn(&Figure) -> f64) -> f64 {
    spread(figures, pick).median
}

/// With commas between thousands.
fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn time(micros: f64) -> String {
    if micros >= 100.0 { whole(micros) } else { format!("{micros:.1}") }
}

impl Results {
    pub fn add(&mut self, workload: usize, kind: Kind, figure: Figure) {
        self.0.entry(workload).or_default().entry(kind).or_default().push(figure);
    }

    /// Markdown.
    pub fn table(&self) -> String {
        let mut out = String::from(
            "| work, the operation | waft | Prosody | ejabberd | relay | best peer ÷ waft | goal |\n\
             |---|---|---|---|---|---|---|\n",
        );
        for workload in self.0.keys() {
            out += &self.row(*workload);
            out.push('\n');
        }
        out
    }

    pub fn row(&self, w: usize) -> String {
        let (Some(workload), Some(figures)) = (WORKLOADS.get(w), self.0.get(&w)) else { return String::new() };
        let cell = |kinds: &[Kind]| {
            let found = kinds.iter().find_map(|kind| figures.get(kind));
            found.map_or_else(|| "–".to_owned(), |it| cell(workload, it))
        };
        let ratio = match (own(figures), best_cpu(figures)) {
            _ if workload.is_memory() => match (own(figures), best(figures, |it| it.bytes, f64::min)) {
                (Some(own), Some(best)) => format!("{:.1}", best / median(own, |it| it.bytes)),
                _ => "–".to_owned(),
            },
            (Some(own), Some(best)) => format!("{:.1}", best / median(own, |it| it.cpu_us)),
            _ => "–".to_owned(),
        };
        let goals: Vec<String> = workload.goals.iter().map(|goal| judge(*goal, figures)).collect();
        format!(
            "| {}, {} | {} | {} | {} | {} | {ratio} | {} |",
            workload.name,
            workload.unit,
            cell(&[Kind::Waft, Kind::WaftLive, Kind::WaftRoomy]),
            cell(&[Kind::Prosody, Kind::ProsodyArchive]),
            cell(&[Kind::Ejabberd, Kind::EjabberdArchive]),
            cell(&[Kind::Relay, Kind::Fan]),
            if goals.is_empty() { "–".to_owned() } else { goals.join("; ") },
        )
    }

    /// # Errors
    /// The folder has no `performance.md` with the marks, or cannot be written to.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let page = folder.join("performance.md");
        let text = std::fs::read_to_string(&page)?;
        let (Some((before, _)), Some((_, after))) = (text.split_once(BEGIN), text.split_once(END)) else {
            return Err(io::Error::other("performance.md has no marks for the table"));
        };
        let mut middle = format!("{}\n", self.table());
        let plots = folder.join("performance");
        std::fs::create_dir_all(&plots)?;
        for (name, title, is_memory) in [
            ("cpu", "Server CPU time of an operation, as a multiple of waft's", false),
            ("memory", "Memory of an idle session, as a multiple of waft's", true),
        ] {
            let bars = self.multiples(is_memory);
            if !bars.is_empty() {
                std::fs::write(plots.join(format!("{name}.svg")), plot::bars(title, &bars))?;
                let _ = writeln!(middle, "![{title}](performance/{name}.svg)\n");
            }
        }
        std::fs::write(page, format!("{before}{BEGIN}{middle}{END}{after}"))
    }

    /// Each workload with the servers' multiples of waft.
    fn multiples(&self, is_memory: bool) -> Vec<plot::Group> {
        let pick = move |it: &Figure| if is_memory { it.bytes } else { it.cpu_us };
        let mut out = Vec::new();
        for (w, figures) in &self.0 {
            let Some(workload) = WORKLOADS.get(*w).filter(|it| it.is_memory() == is_memory) else { continue };
            let Some(own) = own(figures).map(|it| median(it, pick)) else { continue };
            let peers: Vec<_> = figures
                .iter()
                .filter(|(kind, _)| kind.is_peer())
                .map(|(kind, it)| (kind.name(), median(it, pick) / own))
                .collect();
            if !peers.is_empty() {
                out.push(plot::Group { label: workload.name, bars: peers });
            }
        }
        out
    }
}

type Figures = BTreeMap<Kind, Vec<Figure>>;

fn own(figures: &Figures) -> Option<&Vec<Figure>> {
    [Kind::Waft, Kind::WaftLive, Kind::WaftRoomy].iter().find_map(|kind| figures.get(kind))
}

/// The best peer's, by `better` of two.
fn best(figures: &Figures, pick: impl Fn(&Figure) -> f64, better: fn(f64, f64) -> f64) -> Option<f64> {
    figures.iter().filter(|(kind, _)| kind.is_peer()).map(|(_, it)| median(it, &pick)).reduce(better)
}

fn best_cpu(figures: &Figures) -> Option<f64> {
    best(figures, |it| it.cpu_us, f64::min)
}

fn cell(workload: &Workload, figures: &[Figure]) -> String {
    if workload.is_memory() {
        let bytes = spread(figures, |it| it.bytes / 1024.0);
        let rate = median(figures, |it| it.per_second);
        return format!("{:.1} KiB ({:.1}–{:.1}), {}/s", bytes.median, bytes.low, bytes.high, whole(rate));
    }
    let cpu = spread(figures, |it| it.cpu_us);
    let rate = whole(median(figures, |it| it.per_second));
    let mut out = format!("{} µs ({}–{}), {rate}/s", time(cpu.median), time(cpu.low), time(cpu.high));
    if figures.iter().any(|it| it.p50 > 0.0) {
        let (p50, p99) = (median(figures, |it| it.p50), median(figures, |it| it.p99));
        let _ = write!(out, ", p50 {p50:.2} ms, p99 {p99:.2} ms");
    }
    if figures.iter().any(|it| it.worst > 0.0) {
        let _ = write!(out, ", at most {:.2} ms (messages of others)", median(figures, |it| it.worst));
    }
    out
}

/// The goal, and whether it is met.
fn judge(goal: Goal, figures: &Figures) -> String {
    let said = |text: String, met: Option<bool>| match met {
        Some(true) => format!("{text}: met"),
        Some(false) => format!("{text}: **missed**"),
        None => format!("{text}: unknown"),
    };
    let own_of = |pick: fn(&Figure) -> f64| own(figures).map(|it| median(it, pick));
    let cpu = own_of(|it| it.cpu_us);
    match goal {
        Goal::CpuBelowPeer(times) => {
            let met = cpu.zip(best_cpu(figures)).map(|(cpu, best)| cpu * times <= best);
            said(format!("≤ 1/{times:.0} of the best peer"), met)
        }
        Goal::CpuOfRelay(times) => {
            let relay = figures.get(&Kind::Relay).map(|it| median(it, |it| it.cpu_us));
            said(format!("≤ {times:.0} × the relay"), cpu.zip(relay).map(|(cpu, relay)| cpu <= times * relay))
        }
        Goal::RateAbovePeer(times) => {
            let peers = best(figures, |it| it.per_second, f64::max);
            let met = own_of(|it| it.per_second).zip(peers).map(|(rate, best)| rate >= times * best);
            said(format!("≥ {times:.0} × the best peer's rate"), met)
        }
        Goal::SoonerThanPeer => {
            let half = own_of(|it| it.p50).zip(best(figures, |it| it.p50, f64::min));
            let most = own_of(|it| it.p99).zip(best(figures, |it| it.p99, f64::min));
            let met = half.zip(most).map(|((a, b), (c, d))| a < b && c < d);
            said("p50 and p99 below the best peer's".to_owned(), met)
        }
        Goal::Bytes(most) => {
            said(format!("≤ {:.0} KiB", most / 1024.0), own_of(|it| it.bytes).map(|bytes| bytes <= most))
        }
        Goal::OthersWait(most) => {
            said(format!("others wait ≤ {most:.0} ms"), own_of(|it| it.worst).map(|worst| worst <= most))
        }
        Goal::CpuMillis(most) => said(format!("≤ {most:.0} ms"), cpu.map(|cpu| cpu <= most * 1e3)),
    }
}
