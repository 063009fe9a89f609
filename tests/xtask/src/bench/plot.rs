//! The ratios as a picture: bars on a logarithmic axis, longer is faster.

use std::fmt::Write;

use super::report::{Clock, Report, times};

const LEFT: f64 = 110.0;
const WIDTH: f64 = 640.0;
const RIGHT: f64 = 60.0;
const TOP: f64 = 58.0;
const BAR: f64 = 12.0;
const GAP: f64 = 8.0;
const COLOURS: [&str; 4] = ["#2f6fab", "#d1782a", "#3b8f53", "#7a5aa6"];

/// Powers of ten that enclose all values and 1.
fn decades(values: impl Iterator<Item = f64>) -> (i32, i32) {
    let (mut low, mut high) = (0.0_f64, 0.0_f64);
    for value in values {
        low = low.min(value.log10());
        high = high.max(value.log10());
    }
    let (low, high) = (low.floor() as i32, high.ceil() as i32);
    if low == high { (low, high + 1) } else { (low, high) }
}

/// Text between tags.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// CPU-time ratios of every engine to the reference, as an SVG document.
pub fn svg(report: &Report<'_>) -> String {
    let compared: Vec<usize> = report.compared().collect();
    let reference = report.engines.get(report.reference).map_or("", |e| e.name());
    let ratios = |row| {
        compared
            .iter()
            .filter_map(move |i| report.ratio(row, *i, Clock::Cpu))
    };
    let (low, high) = decades(report.rows.iter().flat_map(ratios));
    let x = |ratio: f64| LEFT + WIDTH * (ratio.log10() - f64::from(low)) / f64::from(high - low);
    let pitch = BAR * compared.len().max(1) as f64 + GAP;
    let bottom = TOP + pitch * (report.rows.len() + 1) as f64;
    let (width, height) = (LEFT + WIDTH + RIGHT, bottom + 26.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"18\" font-size=\"13\">Times as fast as {reference}, by CPU seconds ({})</text>\n",
        escaped(&report.conditions())
    );
    for (n, i) in compared.iter().enumerate() {
        let left = 10.0 + 90.0 * n as f64;
        let _ = writeln!(
            out,
            "<rect x=\"{left}\" y=\"30\" width=\"10\" height=\"10\" fill=\"{}\"/><text x=\"{}\" y=\"39\">{}</text>",
            COLOURS[n % COLOURS.len()],
            left + 14.0,
            report.engines[*i].name()
        );
    }
    for decade in low..=high {
        let at = x(10_f64.powi(decade));
        let (colour, width) = if decade == 0 {
            ("#333333", 1.5)
        } else {
            ("#cccccc", 1.0)
        };
        let label = 10_f64.powi(decade);
        let _ = writeln!(
            out,
            "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom:.1}\" stroke=\"{colour}\" \
             stroke-width=\"{width}\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            bottom + 16.0
        );
    }
    let named = report.rows.iter().map(|row| {
        let values = compared.iter().map(|i| report.ratio(row, *i, Clock::Cpu));
        (row.name, values.collect::<Vec<_>>())
    });
    let means = compared.iter().map(|i| report.mean(*i, Clock::Cpu)).collect();
    for (row, (name, values)) in named.chain([("mean", means)]).enumerate() {
        let top = TOP + GAP / 2.0 + pitch * row as f64;
        let middle = top + (pitch - GAP) / 2.0 + 4.0;
        let weight = if name == "mean" {
            " font-weight=\"bold\""
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{middle:.1}\" text-anchor=\"end\"{weight}>{}</text>",
            LEFT - 8.0,
            escaped(name)
        );
        for (n, value) in values.into_iter().enumerate() {
            let Some(ratio) = value else { continue };
            let y = top + BAR * n as f64;
            let _ = writeln!(
                out,
                "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x(ratio) - LEFT,
                BAR - 2.0,
                COLOURS[n % COLOURS.len()],
                x(ratio) + 4.0,
                y + BAR - 3.0,
                times(Some(ratio))
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::super::engine::Engine;
    use super::super::report::tests::{options, run};
    use super::*;

    #[test]
    fn decades_enclose_all_values_and_one() {
        assert_eq!(decades([0.02, 0.5].into_iter()), (-2, 0));
        assert_eq!(decades([3.0, 40.0].into_iter()), (0, 2));
        assert_eq!(decades([].into_iter()), (0, 1));
    }

    #[test]
    fn every_ratio_is_a_bar_inside_the_picture() {
        let engines = [Engine::Interp, Engine::Qemu, Engine::Bochs];
        let options = options();
        let runs = [
            run(Engine::Interp, 8.0, "7"),
            run(Engine::Qemu, 2.0, "7"),
            run(Engine::Bochs, 300.0, "7"),
        ];
        let picture = svg(&Report::new(&engines, &options, &runs));
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        // Boot, two pieces and the mean, for two engines; and one of each colour in the legend.
        for colour in &COLOURS[..2] {
            assert_eq!(picture.matches(*colour).count(), 5, "{picture}");
        }
        assert_eq!(
            picture.matches("<text").count(),
            picture.matches("</text>").count()
        );
        let bars = picture.split("<rect x=\"110\"").skip(1);
        let mut count = 0;
        for bar in bars {
            let width = bar
                .split("width=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            let width: f64 = width.and_then(|w| w.parse().ok()).unwrap_or(-1.0);
            assert!((0.0..=WIDTH).contains(&width), "{width}");
            count += 1;
        }
        assert_eq!(count, 8);
    }

    #[test]
    fn text_cannot_break_the_markup() {
        assert_eq!(escaped("a<b>&c"), "a&lt;b&gt;&amp;c");
    }
}
