//! Plots as inline SVG: lines or dots over time, nothing else.
//!
//! A plotting crate draws pictures of a fixed size with fonts of its own; a page wants text that is text and colours that
//! follow the reader's light or dark scheme, for which the few elements used here are enough.

use std::fmt::Write as _;

/// One curve, or one set of dots.
#[derive(Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Number of its colour; each eight of them have a shape of their own where dots are drawn.
    pub colour: usize,
    /// Times in milliseconds, and values; a gap where the value is not finite.
    pub points: Vec<(u64, f64)>,
}

/// A plot.
#[derive(Debug)]
pub struct Plot<'a> {
    /// What it shows.
    pub title: &'a str,
    /// Unit of its values.
    pub unit: &'a str,
    /// Curves or dots.
    pub series: Vec<Series>,
    /// Moments to mark with a stroke at the bottom, in milliseconds.
    pub marks: Vec<u64>,
    /// Dots on a scale of powers of ten, in place of curves.
    pub dots: bool,
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 28.0;

/// Text that may stand in HTML and in an attribute.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A round step of which about `count` make `range`.
fn step(range: f64, count: f64) -> f64 {
    let raw = (range / count).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(raw.log10().floor());
    let digit = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|d| d * power >= raw)
        .unwrap_or(10.0);
    digit * power
}

/// A value as a label: no more digits than its step needs.
fn label(value: f64, step: f64) -> String {
    let digits = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.digits$}")
}

/// A step of time, in milliseconds: a round number of seconds, minutes or hours.
fn time_step(range: u64) -> (u64, u64, &'static str) {
    const STEPS: [u64; 19] = [
        1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 28_800, 43_200, 86_400,
        172_800,
    ];
    let found = STEPS.into_iter().map(|s| s * 1000).find(|s| range / s <= 10);
    let step = found.unwrap_or((range / 10).max(1));
    match step {
        0..60_000 => (step, 1000, "s"),
        60_000..3_600_000 => (step, 60_000, "min"),
        _ => (step, 3_600_000, "h"),
    }
}

impl Plot<'_> {
    /// The figure.
    pub fn html(&self) -> String {
        let values = || {
            self.series
                .iter()
                .flat_map(|s| &s.points)
                .filter(|p| p.1.is_finite())
        };
        let end = values()
            .map(|p| p.0)
            .chain(self.marks.iter().copied())
            .max()
            .unwrap_or(0)
            .max(1);
        let most = values().map(|p| p.1).fold(0.0, f64::max);
        let mut out = format!(
            "<figure><figcaption>{}<span class=\"unit\">{}</span></figcaption>\n",
            escape(self.title),
            escape(self.unit)
        );
        if values().next().is_none() {
            out.push_str("<p class=\"none\">nothing to show</p></figure>\n");
            return out;
        }
        let _ = writeln!(
            out,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(self.title)
        );
        let x = |ms: u64| LEFT + (WIDTH - LEFT - RIGHT) * ms as f64 / end as f64;
        let inner = HEIGHT - TOP - BOTTOM;
        let ticks = self.ticks(most);
        let top = ticks.last().map_or(1.0, |t| t.0).max(f64::MIN_POSITIVE);
        let lowest = ticks.first().map_or(0.0, |t| t.0);
        let y = |value: f64| {
            let part = if self.dots {
                (value.max(lowest) / lowest).log10() / (top / lowest).log10().max(f64::MIN_POSITIVE)
            } else {
                value / top
            };
            TOP + inner * (1.0 - part.clamp(0.0, 1.0))
        };
        for (value, text) in &ticks {
            let at = y(*value);
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0
            );
        }
        let (step, unit, name) = time_step(end);
        for ms in (0..=end).step_by(step as usize) {
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{TOP}\" y2=\"{1:.1}\"/>\
                 <text x=\"{0:.1}\" y=\"{2:.1}\" text-anchor=\"middle\">{3} {name}</text>",
                x(ms),
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 17.0,
                ms as f64 / unit as f64
            );
        }
        for &ms in &self.marks {
            let _ = writeln!(
                out,
                "<line class=\"mark\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{1:.1}\" y2=\"{2:.1}\"/>",
                x(ms),
                HEIGHT - BOTTOM - 7.0,
                HEIGHT - BOTTOM
            );
        }
        for series in &self.series {
            self.draw(&mut out, series, &x, &y);
        }
        out.push_str("</svg>\n<div class=\"legend\">");
        for series in &self.series {
            let _ = write!(
                out,
                "<span><i class=\"c{} s{}\"></i>{}</span>",
                series.colour % 8,
                if self.dots { series.colour / 8 % 3 } else { 1 },
                escape(&series.name)
            );
        }
        out.push_str("</div></figure>\n");
        out
    }

    /// Values with lines of their own, lowest first, and what stands beside them.
    fn ticks(&self, most: f64) -> Vec<(f64, String)> {
        if self.dots {
            let top = most.max(1.0).log10().ceil().max(1.0) as i32;
            return (0..=top)
                .map(|p| (10_f64.powi(p), label(10_f64.powi(p), 1.0)))
                .collect();
        }
        let step = step(most.max(1e-9), 4.0);
        let count = (most / step).ceil().max(1.0) as u32;
        (0..=count)
            .map(|n| (f64::from(n) * step, label(f64::from(n) * step, step)))
            .collect()
    }

    fn draw(&self, out: &mut String, series: &Series, x: &dyn Fn(u64) -> f64, y: &dyn Fn(f64) -> f64) {
        let colour = series.colour % 8;
        if self.dots {
            // A disc, a square and a diamond, some five units wide.
            let outline = [
                "m-2.6 0a2.6 2.6 0 1 0 5.2 0a2.6 2.6 0 1 0-5.2 0",
                "m-2.4-2.4h4.8v4.8h-4.8z",
                "m0-3.4l3.4 3.4l-3.4 3.4l-3.4-3.4z",
            ][series.colour / 8 % 3];
            for (ms, value) in series.points.iter().filter(|p| p.1.is_finite()) {
                let _ = writeln!(
                    out,
                    "<path class=\"d{colour}\" d=\"M{:.1} {:.1}{outline}\"><title>{} {value:.0} {}</title></path>",
                    x(*ms),
                    y(*value),
                    escape(&series.name),
                    escape(self.unit)
                );
            }
            return;
        }
        let mut path = String::new();
        let mut pen = 'M';
        for (ms, value) in &series.points {
            if value.is_finite() {
                let _ = write!(path, "{pen}{:.1} {:.1}", x(*ms), y(*value));
                pen = 'L';
            } else {
                pen = 'M';
            }
        }
        let _ = writeln!(out, "<path class=\"l{colour}\" d=\"{path}\"/>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(u64, f64)>, dots: bool) -> String {
        let series = vec![Series {
            name: "a<b".into(),
            colour: 2,
            points,
        }];
        Plot {
            title: "t & u",
            unit: "ms",
            series,
            marks: vec![500],
            dots,
        }
        .html()
    }

    #[test]
    fn a_curve_has_a_gap_where_there_is_no_value() {
        let svg = plot(vec![(0, 1.0), (1000, 2.0), (2000, f64::NAN), (3000, 1.0)], false);
        let path = svg.split("d=\"").nth(1).expect("a path");
        assert_eq!(path.matches('M').count(), 2);
        assert!(svg.contains("a&lt;b") && svg.contains("t &amp; u") && svg.contains("class=\"mark\""));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn dots_lie_on_powers_of_ten() {
        let svg = plot(vec![(0, 1.0), (1000, 1000.0)], true);
        for label in [">1<", ">10<", ">100<", ">1000<"] {
            assert!(svg.contains(label), "{label}");
        }
        assert!(svg.contains(&format!(" {TOP:.1}m-2.6 0")) && !svg.contains("NaN"));
    }

    #[test]
    fn nothing_and_nothing_but_zero_can_be_drawn() {
        assert!(plot(Vec::new(), false).contains("nothing to show"));
        for svg in [plot(vec![(0, 0.0)], false), plot(vec![(0, 0.0)], true)] {
            assert!(
                svg.contains("</svg>") && !svg.contains("NaN") && !svg.contains("inf"),
                "{svg}"
            );
        }
    }

    #[test]
    fn steps_are_round() {
        assert_eq!(step(100.0, 4.0), 50.0);
        assert_eq!(step(7.0, 4.0), 2.0);
        assert_eq!(label(0.5, 0.5), "0.5");
        assert_eq!(time_step(60_000), (10_000, 1000, "s"));
        assert_eq!(time_step(3_600_000), (600_000, 60_000, "min"));
        assert_eq!(time_step(86_400_000 * 30).2, "h");
    }
}
