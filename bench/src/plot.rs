//! Bars, as SVG that reads on light and dark pages.

use std::fmt::Write as _;

/// One workload: a bar for each peer.
pub struct Group {
    pub label: &'static str,
    /// Name, and the multiple of waft's figure.
    pub bars: Vec<(&'static str, f64)>,
}

const BAR: usize = 14;
const GAP: usize = 10;
const LEFT: usize = 290;
const WIDTH: usize = 860;
const TOP: usize = 46;
/// Longer than that, a bar is broken off; its number stands beside it.
const MOST: f64 = 20.0;

fn colour(name: &str) -> &'static str {
    if name.starts_with("Prosody") { "#6e8fc9" } else { "#c98d4e" }
}

pub fn bars(title: &str, groups: &[Group]) -> String {
    let rows: usize = groups.iter().map(|it| it.bars.len()).sum();
    let height = TOP + rows * BAR + groups.len() * GAP + 20;
    let scale = (WIDTH - LEFT - 150) as f64 / MOST;
    let mut out = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' font-family='sans-serif' \
         font-size='11'>\n<style>text{{fill:#555}}@media(prefers-color-scheme:dark){{text{{fill:#bbb}}}}</style>\n\
         <text x='10' y='22' font-size='15'>{title}</text>\n"
    );
    let mut y = TOP;
    for group in groups {
        let middle = y + group.bars.len() * BAR / 2 + 4;
        let _ = writeln!(out, "<text x='{}' y='{middle}' text-anchor='end'>{}</text>", LEFT - 10, group.label);
        for (name, times) in &group.bars {
            let length = times.min(MOST) * scale;
            let _ = writeln!(
                out,
                "<rect x='{LEFT}' y='{y}' width='{length:.0}' height='{}' fill='{}'/>\
                 <text x='{:.0}' y='{}'>{times:.1} × · {name}</text>",
                BAR - 2,
                colour(name),
                LEFT as f64 + length + 6.0,
                y + BAR - 4,
            );
            y += BAR;
        }
        y += GAP;
    }
    let _ = writeln!(
        out,
        "<line x1='{x:.0}' x2='{x:.0}' y1='{TOP}' y2='{y}' stroke='#888' stroke-dasharray='3 3'/>\
         <text x='{x:.0}' y='{}' text-anchor='middle'>waft</text>\n</svg>",
        TOP - 6,
        x = LEFT as f64 + scale,
    );
    out
}
