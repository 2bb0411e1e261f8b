//! A picture as SVG 1.1.

use std::fmt::Write as _;

use super::{Anchor, Chart, Color, Picture, Shape, TEXT};

/// The chart as a document; `show` says what a value is in its unit.
pub(crate) fn svg(chart: &Chart<'_>, show: &dyn Fn(f64) -> String) -> String {
    let Picture { width, height, shapes } = chart.picture(show);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    for shape in &shapes {
        // Writing to a string does not fail.
        let _ = match shape {
            Shape::Line { points, color, width } => {
                let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
                writeln!(
                    out,
                    "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\"/>",
                    points.join(" "),
                    hex(*color)
                )
            }
            Shape::Text { x, y, text, anchor } => {
                let anchor = match anchor {
                    Anchor::Start => "start",
                    Anchor::Middle => "middle",
                    Anchor::End => "end",
                };
                writeln!(
                    out,
                    "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{}\" text-anchor=\"{anchor}\">{}</text>",
                    hex(TEXT),
                    escaped(text)
                )
            }
        };
    }
    out.push_str("</svg>\n");
    out
}

fn hex(Color(red, green, blue): Color) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Text of a document. Control characters, which XML has none of, are left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place() {
        let curves = vec![("a{b=\"<script>&\u{1b}\"}".to_owned(), vec![(0, 1.0), (10, 2.0)])];
        let chart = Chart { heading: "a > 1", curves, from_ms: 0, until_ms: 10, gap_ms: 10 };
        let svg = svg(&chart, &|value| format!("{value:.1} W"));
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains(">a &gt; 1</text>") && svg.contains("&lt;script&gt;&amp;\"}</text>"), "{svg}");
        assert!(svg.contains(">1.2 W</text>") && !svg.contains('\u{1b}'));
    }
}
