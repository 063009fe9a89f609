//! The page that shows a report: one file that needs nothing else.

use std::fmt::Write as _;

use quintet_protocol::handshake::Role;

use super::fault::names;
use super::plot::{Plot, Series, escape};
use super::report::{Point, Report, Shard, seconds};

/// Its looks. Colours follow the reader's scheme.
const STYLE: &str = include_str!("page.css");

/// The page of a report.
pub fn page(report: &Report) -> String {
    let looks = if report.totals.violations == 0 {
        "good"
    } else {
        "bad"
    };
    let verdict = format!("<p class=\"verdict {looks}\">{}</p>", report.verdict());
    let title = match report.shards.as_slice() {
        [one] => format!("Quintet soak, seed {}", one.seed),
        shards => format!("Quintet soak, {} shards", shards.len()),
    };
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n<main>\n<h1>{title}</h1>\n{verdict}\n"
    );
    figures(&mut out, report);
    violations(&mut out, report);
    plots(&mut out, report);
    recoveries(&mut out, report);
    shards(&mut out, report);
    out.push_str("</main>\n</html>\n");
    out
}

fn figures(out: &mut String, report: &Report) {
    let t = &report.totals;
    out.push_str("<dl class=\"figures\">\n");
    let speed = if t.ran_ms == 0 {
        0.0
    } else {
        t.vm_time_ms as f64 / t.ran_ms as f64
    };
    for (name, value) in [
        ("time", seconds(t.ran_ms)),
        ("guest time", seconds(t.vm_time_ms)),
        ("guest time beside the host's", format!("{:.1} %", speed * 100.0)),
        ("faults", grouped(t.faults)),
        ("looks", grouped(t.looks)),
        ("rounds", grouped(t.rounds)),
        ("interrupts", grouped(t.interrupts)),
        ("sectors written", grouped(t.sectors_written)),
        ("sectors compared", grouped(t.sectors_read)),
        ("disk errors borne", grouped(t.disk_errors)),
        ("pictures compared", grouped(t.pictures)),
    ] {
        let _ = writeln!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    out.push_str("</dl>\n");
}

fn violations(out: &mut String, report: &Report) {
    if report.shards.iter().all(|s| s.violations.is_empty()) {
        return;
    }
    out.push_str(
        "<h2>Violations</h2>\n<table><tr><th>seed</th><th>at</th><th>invariant</th><th>what was seen</th>\
         <th class=\"n\">times</th><th>kept in</th></tr>\n",
    );
    for shard in &report.shards {
        for v in &shard.violations {
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
                shard.seed,
                seconds(v.at_ms),
                escape(&v.invariant),
                escape(&v.text),
                v.times,
                escape(shard.evidence.as_deref().unwrap_or("-"))
            );
        }
    }
    out.push_str("</table>\n");
}

/// A series of a run: one for each process where there is one run, else one for each run.
fn series(report: &Report, value: fn(&Point, usize) -> Option<f64>) -> Vec<Series> {
    let points = |shard: &Shard, of: &dyn Fn(&Point) -> Option<f64>| {
        shard
            .points
            .iter()
            .map(|p| (p.at_ms, of(p).unwrap_or(f64::NAN)))
            .collect()
    };
    if let [one] = report.shards.as_slice() {
        return Role::ALL
            .into_iter()
            .enumerate()
            .map(|(n, role)| Series {
                name: role.to_string(),
                colour: n,
                points: points(one, &|p| value(p, n)),
            })
            .collect();
    }
    let all = |p: &Point| (0..Role::ALL.len()).map(|n| value(p, n)).sum::<Option<f64>>();
    report
        .shards
        .iter()
        .enumerate()
        .map(|(n, shard)| Series {
            name: format!("seed {}", shard.seed),
            colour: n,
            points: points(shard, &all),
        })
        .collect()
}

/// How much of a count comes in a millisecond, over stretches of a second or a 300th of the run, whichever is longer: shorter
/// ones would show when looks were taken, not what the machine did.
fn rate(shard: &Shard, count: fn(&Point) -> u64, scale: f64) -> Vec<(u64, f64)> {
    let least = (shard.ran_ms / 300).max(1000);
    let mut rates = Vec::new();
    let mut points = shard.points.iter();
    let Some(mut from) = points.next() else {
        return rates;
    };
    for to in points {
        let host = to.at_ms.saturating_sub(from.at_ms);
        if host >= least {
            let part = count(to).saturating_sub(count(from)) as f64 / host as f64;
            rates.push((to.at_ms, part * scale));
            from = to;
        }
    }
    rates
}

/// VM time beside the host's, in per cent.
fn speed(shard: &Shard) -> Vec<(u64, f64)> {
    rate(shard, |p| p.vm_time_ms, 100.0)
}

/// Rounds a second.
fn pace(shard: &Shard) -> Vec<(u64, f64)> {
    rate(shard, |p| p.rounds, 1000.0)
}

fn plots(out: &mut String, report: &Report) {
    let marks = || match report.shards.as_slice() {
        [one] => one.injected.iter().map(|i| i.at_ms).collect(),
        _ => Vec::new(),
    };
    let each = |of: fn(&Shard) -> Vec<(u64, f64)>| -> Vec<Series> {
        let many = report.shards.len() > 1;
        let one = |(n, shard): (usize, &Shard)| Series {
            name: if many {
                format!("seed {}", shard.seed)
            } else {
                "machine".to_owned()
            },
            colour: n,
            points: of(shard),
        };
        report.shards.iter().enumerate().map(one).collect()
    };
    out.push_str("<h2>Over time</h2>\n");
    if report.shards.len() == 1 {
        out.push_str("<p class=\"note\">Strokes at the bottom are faults.</p>\n");
    }
    for plot in [
        Plot {
            title: "Speed: guest time beside the host's",
            unit: "%",
            series: each(speed),
            marks: marks(),
            dots: false,
        },
        Plot {
            title: "Rounds of the guest",
            unit: "a second",
            series: each(pace),
            marks: marks(),
            dots: false,
        },
        Plot {
            title: "Memory, guest RAM not counted",
            unit: "MiB",
            series: series(report, |p, n| {
                (p.memory_kib[n] > 0).then(|| p.memory_kib[n] as f64 / 1024.0)
            }),
            marks: marks(),
            dots: false,
        },
        Plot {
            title: "Open descriptors",
            unit: "",
            series: series(report, |p, n| {
                (p.descriptors[n] > 0).then_some(p.descriptors[n] as f64)
            }),
            marks: marks(),
            dots: false,
        },
        Plot {
            title: "Until all was well again after a fault",
            unit: "ms",
            series: recovery_dots(report),
            marks: Vec::new(),
            dots: true,
        },
    ] {
        out.push_str(&plot.html());
    }
}

/// Recoveries by fault, over time.
fn recovery_dots(report: &Report) -> Vec<Series> {
    let injected = || report.shards.iter().flat_map(|s| &s.injected);
    report
        .recoveries
        .keys()
        .enumerate()
        .map(|(n, fault)| Series {
            name: fault.to_string(),
            colour: n,
            points: injected()
                .filter(|i| i.fault == *fault)
                .filter_map(|i| Some((i.at_ms, i.recovery_ms?.max(1) as f64)))
                .collect(),
        })
        .collect()
}

fn recoveries(out: &mut String, report: &Report) {
    if report.recoveries.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Recoveries</h2>\n<table><tr><th>fault</th><th class=\"n\">times</th><th class=\"n\">least</th>\
         <th class=\"n\">median</th><th class=\"n\">most</th></tr>\n",
    );
    for (fault, r) in &report.recoveries {
        let _ = writeln!(
            out,
            "<tr><td>{fault}</td><td class=\"n\">{}</td><td class=\"n\">{} ms</td><td class=\"n\">{} ms</td>\
             <td class=\"n\">{} ms</td></tr>",
            grouped(r.count),
            grouped(r.least_ms),
            grouped(r.median_ms),
            grouped(r.most_ms)
        );
    }
    out.push_str("</table>\n");
}

fn shards(out: &mut String, report: &Report) {
    out.push_str("<h2>Runs</h2>\n");
    for s in &report.shards {
        let _ = writeln!(
            out,
            "<details{}><summary>seed {}: {} of {}{}, {} faults, {} rounds</summary>\n<p>Version {}, host {}, begun {} s \
             after 1970. A fault every {} in the mean: {}.</p>\n<pre>{}</pre>\n<pre>{}</pre>\n</details>",
            if report.shards.len() == 1 { " open" } else { "" },
            s.seed,
            seconds(s.ran_ms),
            seconds(s.duration_ms),
            if s.interrupted { ", interrupted" } else { "" },
            s.injected.len(),
            grouped(s.totals.rounds),
            escape(&s.version),
            escape(&s.host),
            s.began,
            seconds(s.every_ms),
            match names(&s.faults) {
                none if none.is_empty() => "none".to_owned(),
                names => names,
            },
            escape(&s.command.join(" ")),
            escape(&super::schedule::text(&s.schedule))
        );
    }
}

/// A number with its thousands apart.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, c) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202F}');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::invariants::Violation;
    use crate::soak::report::tests::shard;

    #[test]
    fn a_page_needs_nothing_from_elsewhere() {
        let page = page(&Report::new(vec![shard(1)]));
        for outside in ["http:", "https:", "src=", "@import", "url(", "<script"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert_eq!(page.matches("<svg").count(), 5);
        assert!(page.contains("no violation") && page.contains("seed 1"));
        assert!(!page.contains("NaN"));
    }

    #[test]
    fn what_a_report_says_cannot_become_markup() {
        let mut bad = shard(1);
        bad.violations.push(Violation {
            at_ms: 1500,
            invariant: "guest".into(),
            text: "the guest printed \"<b onload='x'>\"".into(),
            times: 3,
        });
        bad.totals.violations = 1;
        bad.evidence = Some("/tmp/<dir>".into());
        let page = page(&Report::new(vec![bad]));
        assert!(page.contains("&lt;b onload=&#39;x&#39;&gt;") && page.contains("/tmp/&lt;dir&gt;"));
        assert!(!page.contains("<b onload") && !page.contains("host <&>"));
        assert!(page.contains("1 violation"));
    }

    #[test]
    fn elements_are_closed() {
        let page = page(&Report::new(vec![shard(1), shard(2)]));
        for element in ["svg", "figure", "table", "details", "dl", "main", "pre", "tr"] {
            let open =
                page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
            assert_eq!(open, page.matches(&format!("</{element}>")).count(), "{element}");
        }
        assert!(page.contains("2 shards") && page.contains("seed 2"));
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1\u{202F}234\u{202F}567");
    }
}
