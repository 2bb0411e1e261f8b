//! Curves as a picture in a file: laid out once, drawn as SVG or PNG.

mod png;
mod svg;

use time::{OffsetDateTime, UtcOffset};

use super::plot::Extent;

pub(crate) use png::png;
pub(crate) use svg::svg;

/// In pixels.
const WIDTH: f32 = 1200.0;
const PLOT_HEIGHT: f32 = 480.0;
const MARGIN_LEFT: f32 = 90.0;
const MARGIN_RIGHT: f32 = 30.0;
const MARGIN_TOP: f32 = 50.0;
/// What a line of text takes.
const LINE: f32 = 20.0;
/// Series that are named below the plot: more than eyes follow.
const NAMED_MAX: usize = 24;
/// Longest heading and name, in characters.
const HEADING_MAX: usize = 130;
const NAME_MAX: usize = 60;
/// Marks at an axis, at most.
const MARKS_MAX: i64 = 8;

/// Colours that are told apart on white, from those that are told apart best; after the last the first again.
const COLORS: [Color; 10] = [
    Color(31, 119, 180),
    Color(214, 39, 40),
    Color(44, 160, 44),
    Color(148, 103, 189),
    Color(255, 127, 14),
    Color(23, 190, 207),
    Color(227, 119, 194),
    Color(140, 86, 75),
    Color(188, 189, 34),
    Color(127, 127, 127),
];
const TEXT: Color = Color(40, 40, 40);
const GRID: Color = Color(225, 225, 225);
const AXIS: Color = Color(120, 120, 120);

/// Red, green, blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Color(u8, u8, u8);

/// What a chart shows.
#[derive(Debug)]
pub(crate) struct Chart<'a> {
    pub(crate) heading: &'a str,
    /// Names and points, which are joined unless they are farther apart than `gap_ms`.
    pub(crate) curves: Vec<(String, Vec<(i64, f64)>)>,
    pub(crate) from_ms: i64,
    pub(crate) until_ms: i64,
    pub(crate) gap_ms: i64,
}

/// What to draw, in order.
#[derive(Debug, PartialEq)]
enum Shape {
    Line {
        points: Vec<(f32, f32)>,
        color: Color,
        width: f32,
    },
    /// From `x` on, around it, or up to it; `y` is the base line.
    Text {
        x: f32,
        y: f32,
        text: String,
        anchor: Anchor,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anchor {
    Start,
    Middle,
    End,
}

/// Shapes on white.
#[derive(Debug)]
struct Picture {
    width: f32,
    height: f32,
    shapes: Vec<Shape>,
}

impl Chart<'_> {
    /// Lays the chart out; `show` says what a value is in its unit.
    fn picture(&self, show: &dyn Fn(f64) -> String) -> Picture {
        let mut shapes = Vec::new();
        let text = |x, y, text: String, anchor| Shape::Text { x, y, text, anchor };
        shapes.push(text(MARGIN_LEFT, 30.0, cut(self.heading, HEADING_MAX), Anchor::Start));
        let values = self.curves.iter().flat_map(|(_, points)| points.iter().map(|(_, value)| *value));
        if let Some(extent) = Extent::of(values) {
            self.axes(extent, show, &mut shapes);
            self.lines(extent, &mut shapes);
        } else {
            let middle = (MARGIN_LEFT + (WIDTH - MARGIN_RIGHT)) / 2.0;
            shapes.push(text(middle, MARGIN_TOP + PLOT_HEIGHT / 2.0, "no values".to_owned(), Anchor::Middle));
        }
        let mut y = MARGIN_TOP + PLOT_HEIGHT + 2.0 * LINE;
        for (at, (name, _)) in self.curves.iter().take(NAMED_MAX).enumerate() {
            let (column, row) = (at % 2, at / 2);
            let x = MARGIN_LEFT + column as f32 * (WIDTH - MARGIN_LEFT - MARGIN_RIGHT) / 2.0;
            y = MARGIN_TOP + PLOT_HEIGHT + (row as f32 + 2.5) * LINE;
            shapes.push(Shape::Line { points: vec![(x, y - 4.0), (x + 20.0, y - 4.0)], color: color(at), width: 3.0 });
            shapes.push(text(x + 28.0, y, cut(name, NAME_MAX), Anchor::Start));
        }
        if self.curves.len() > NAMED_MAX {
            y += LINE;
            let more = format!("and {} more", self.curves.len() - NAMED_MAX);
            shapes.push(text(MARGIN_LEFT, y, more, Anchor::Start));
        }
        Picture { width: WIDTH, height: y + LINE, shapes }
    }

    /// A line for each mark, and what it stands for.
    fn axes(&self, extent: Extent, show: &dyn Fn(f64) -> String, shapes: &mut Vec<Shape>) {
        let (left, right) = (MARGIN_LEFT, WIDTH - MARGIN_RIGHT);
        let bottom = MARGIN_TOP + PLOT_HEIGHT;
        for value in marks(extent) {
            let y = self.y(extent, value);
            shapes.push(Shape::Line { points: vec![(left, y), (right, y)], color: GRID, width: 1.0 });
            shapes.push(Shape::Text { x: left - 8.0, y: y + 4.0, text: show(value), anchor: Anchor::End });
        }
        for time_ms in time_marks(self.from_ms, self.until_ms) {
            let x = self.x(time_ms);
            shapes.push(Shape::Line { points: vec![(x, MARGIN_TOP), (x, bottom)], color: GRID, width: 1.0 });
            let text = moment(time_ms, self.until_ms - self.from_ms);
            shapes.push(Shape::Text { x, y: bottom + LINE, text, anchor: Anchor::Middle });
        }
        let frame = vec![(left, MARGIN_TOP), (left, bottom), (right, bottom)];
        shapes.push(Shape::Line { points: frame, color: AXIS, width: 1.0 });
    }

    fn lines(&self, extent: Extent, shapes: &mut Vec<Shape>) {
        for (at, (_, points)) in self.curves.iter().enumerate() {
            let finite: Vec<(i64, f64)> = points.iter().copied().filter(|(_, value)| value.is_finite()).collect();
            for run in finite.chunk_by(|before, after| after.0 - before.0 <= self.gap_ms) {
                let mut line: Vec<_> =
                    run.iter().map(|&(time_ms, value)| (self.x(time_ms), self.y(extent, value))).collect();
                // A point alone is a short line.
                if let [(x, y)] = line[..] {
                    line = vec![(x - 1.0, y), (x + 1.0, y)];
                }
                shapes.push(Shape::Line { points: line, color: color(at), width: 2.0 });
            }
        }
    }

    fn x(&self, time_ms: i64) -> f32 {
        let span = (self.until_ms - self.from_ms).max(1) as f32;
        MARGIN_LEFT + (time_ms - self.from_ms) as f32 / span * (WIDTH - MARGIN_LEFT - MARGIN_RIGHT)
    }

    fn y(&self, extent: Extent, value: f64) -> f32 {
        MARGIN_TOP + (1.0 - extent.share(value)) as f32 * PLOT_HEIGHT
    }
}

fn color(at: usize) -> Color {
    COLORS.get(at % COLORS.len()).copied().unwrap_or(TEXT)
}

/// On one line, and no longer than fits.
fn cut(text: &str, most: usize) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// Round values within an extent: multiples of 1, 2 or 5 times a power of ten.
fn marks(extent: Extent) -> Vec<f64> {
    let rough = (extent.high / MARKS_MAX as f64 - extent.low / MARKS_MAX as f64).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= rough);
    let Some(step) = step.filter(|step| step.is_finite()) else { return Vec::new() };
    // A little more: what is a mark but for rounding is one.
    let (first, last) = ((extent.low / step - 1e-9).ceil(), (extent.high / step + 1e-9).floor());
    // Where values differ by less than a number can tell, there are no round ones between them.
    let count = (last - first).clamp(0.0, 2.0 * MARKS_MAX as f64) as i64;
    (0..=count).map(|at| (first + at as f64) * step).collect()
}

/// What people count time in, in seconds.
const TIME_STEPS: [i64; 22] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800,
    1_209_600, 2_419_200, 7_862_400,
];

/// Round instants within a range.
fn time_marks(from_ms: i64, until_ms: i64) -> Vec<i64> {
    let span_ms = (until_ms - from_ms).max(1);
    let fits = |step: &i64| span_ms / (step * 1000) <= MARKS_MAX;
    const YEAR_MS: i64 = 365 * 86_400_000;
    let years = || (span_ms / MARKS_MAX / YEAR_MS + 1) * YEAR_MS;
    let step_ms = TIME_STEPS.into_iter().find(fits).map_or_else(years, |step| step * 1000);
    let first_ms = from_ms.div_euclid(step_ms) * step_ms;
    let marks = (0..=2 * MARKS_MAX).map(|at| first_ms.saturating_add(at.saturating_mul(step_ms)));
    marks.filter(|time_ms| (from_ms..=until_ms).contains(time_ms)).collect()
}

/// An instant in UTC, as finely as a range of this length needs it.
fn moment(time_ms: i64, span_ms: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_ms) * 1_000_000);
    let Ok(time) = time.map(|time| time.to_offset(UtcOffset::UTC)) else { return String::new() };
    let date = format!("{:02}-{:02}", u8::from(time.month()), time.day());
    let clock = format!("{:02}:{:02}", time.hour(), time.minute());
    match span_ms {
        ..900_000 => format!("{clock}:{:02}Z", time.second()),
        900_000..100_000_000 => format!("{clock}Z"),
        100_000_000..900_000_000 => format!("{date} {clock}Z"),
        900_000_000..25_000_000_000 => date,
        _ => format!("{}-{date}", time.year()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_within() {
        let marks = |low, high| marks(Extent { low, high });
        assert_eq!(marks(0.0, 100.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(marks(3.2, 3.9).len(), 8);
        assert_eq!(marks(-1.0, 1.0), [-1.0, -0.5, 0.0, 0.5, 1.0]);
        assert!(marks(f64::MIN, f64::MAX).iter().all(|value| value.is_finite()));
        assert!(marks(1e15, 1e15 + 0.1).len() < 20);
    }

    #[test]
    fn times_are_round_and_as_fine_as_they_must_be() {
        let hour = time_marks(1_000_000_123, 1_003_600_123);
        assert_eq!(hour.len(), 6);
        assert!(hour.iter().all(|time_ms| time_ms % 600_000 == 0));
        assert_eq!(moment(0, 60_000), "00:00:00Z");
        assert_eq!(moment(90_000, 3_600_000), "00:01Z");
        assert_eq!(moment(86_400_000, 604_800_000), "01-02 00:00Z");
        assert_eq!(moment(86_400_000, 31 * 86_400_000), "01-02");
        assert_eq!(moment(86_400_000, 400 * 86_400_000), "1970-01-02");
        for days in [90, 365, 1_825, 36_500] {
            let marks = time_marks(1_700_000_000_000, 1_700_000_000_000 + days * 86_400_000).len();
            assert!((3..=9).contains(&marks), "{days} days: {marks}");
        }
    }

    #[test]
    fn every_value_is_drawn_within_the_plot_and_gaps_stay_gaps() {
        let points = vec![(0, 1.0), (10, f64::MAX), (20, f64::NAN), (30, -5.0), (90, 2.0)];
        let chart = Chart { heading: "up", curves: vec![("a".into(), points)], from_ms: 0, until_ms: 100, gap_ms: 20 };
        let picture = chart.picture(&|value| value.to_string());
        let curves = picture.shapes.iter().filter_map(|shape| match shape {
            Shape::Line { points, width: 2.0, .. } => Some(points),
            _ => None,
        });
        let curves: Vec<_> = curves.collect();
        assert_eq!(curves.iter().map(|points| points.len()).collect::<Vec<_>>(), [3, 2]);
        let inside = |(x, y): &(f32, f32)| {
            (MARGIN_LEFT - 1.0..=WIDTH - MARGIN_RIGHT + 1.0).contains(x)
                && (MARGIN_TOP..=MARGIN_TOP + PLOT_HEIGHT).contains(y)
        };
        assert!(curves.into_iter().flatten().all(inside));
    }
}
