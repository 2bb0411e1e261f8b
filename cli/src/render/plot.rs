//! Curves in a terminal: two by four dots to a character.

use super::style::{Style, Tint};

/// A curve's points, of which those that are farther apart than `gap_ms` are not joined.
#[derive(Debug)]
pub(crate) struct Curve {
    pub(crate) points: Vec<(i64, f64)>,
    pub(crate) tint: Tint,
}

/// What a plot shows.
#[derive(Debug)]
pub(crate) struct Plot {
    pub(crate) curves: Vec<Curve>,
    pub(crate) from_ms: i64,
    pub(crate) until_ms: i64,
    /// Points that are farther apart are not joined: there was nothing between them.
    pub(crate) gap_ms: i64,
    /// In characters, without what stands at the axes.
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// The least and the greatest value of an axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Extent {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Extent {
    /// Of all finite values, a little apart if they are all the same; nothing if there are none.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let finite = values.filter(|value| value.is_finite());
        let (low, high) = finite.fold(None, |extent: Option<(f64, f64)>, value| {
            let (low, high) = extent.unwrap_or((value, value));
            Some((low.min(value), high.max(value)))
        })?;
        if high > low {
            return Some(Self { low, high });
        }
        let apart = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
        Some(Self { low: low - apart, high: high + apart })
    }

    /// The value at a share of the way from the least to the greatest.
    pub(crate) fn at(self, share: f64) -> f64 {
        // Not high - low, which may be more than a number can be.
        self.low * (1.0 - share) + self.high * share
    }

    /// How far a value is on the way from the least to the greatest.
    pub(crate) fn share(self, value: f64) -> f64 {
        let half = self.high / 2.0 - self.low / 2.0;
        if half > 0.0 { (value / 2.0 - self.low / 2.0) / half } else { 0.5 }
    }
}

/// Dots of one character, and whose they are: the curve that was drawn last.
#[derive(Debug, Clone, Copy, Default)]
struct Spot {
    dots: u8,
    tint: Option<Tint>,
}

impl Plot {
    pub(crate) fn extent(&self) -> Option<Extent> {
        Extent::of(self.curves.iter().flat_map(|curve| curve.points.iter().map(|(_, value)| *value)))
    }

    /// The lines of the plot, from above.
    pub(crate) fn lines(&self, is_colored: bool) -> Vec<String> {
        let mut canvas = Canvas::new(self.width, self.height);
        if let Some(extent) = self.extent() {
            for curve in &self.curves {
                self.draw(curve, extent, &mut canvas);
            }
        }
        canvas.lines(is_colored)
    }

    fn draw(&self, curve: &Curve, extent: Extent, canvas: &mut Canvas) {
        let span = (self.until_ms - self.from_ms).max(1) as f64;
        let mut before: Option<(i64, f64, f64)> = None;
        for &(time_ms, value) in curve.points.iter().filter(|(_, value)| value.is_finite()) {
            let x = (time_ms - self.from_ms) as f64 / span * (canvas.dots_across() - 1.0);
            let y = (1.0 - extent.share(value)) * (canvas.dots_down() - 1.0);
            match before.filter(|(then_ms, ..)| time_ms - then_ms <= self.gap_ms) {
                Some((_, from_x, from_y)) => canvas.line((from_x, from_y), (x, y), curve.tint),
                None => canvas.dot(x, y, curve.tint),
            }
            before = Some((time_ms, x, y));
        }
    }
}

#[derive(Debug)]
struct Canvas {
    width: usize,
    height: usize,
    spots: Vec<Spot>,
}

/// The bits of a character's dots, by row and column, as Unicode has them from U+2800 on.
const DOTS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
const EMPTY: u32 = 0x2800;

impl Canvas {
    fn new(width: usize, height: usize) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        Self { width, height, spots: vec![Spot::default(); width * height] }
    }

    fn dots_across(&self) -> f64 {
        self.width as f64 * 2.0
    }

    fn dots_down(&self) -> f64 {
        self.height as f64 * 4.0
    }

    fn dot(&mut self, x: f64, y: f64, tint: Tint) {
        let (x, y) = (x.round().max(0.0) as usize, y.round().max(0.0) as usize);
        let (column, row) = (x / 2, y / 4);
        if column >= self.width {
            return;
        }
        if let (Some(spot), Some(bit)) =
            (self.spots.get_mut(row * self.width + column), DOTS.get(y % 4).and_then(|row| row.get(x % 2)))
        {
            *spot = Spot { dots: spot.dots | bit, tint: Some(tint) };
        }
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), tint: Tint) {
        let length = (to.0 - from.0).abs().max((to.1 - from.1).abs()).ceil().max(1.0);
        for step in 0..=length as usize {
            let share = step as f64 / length;
            self.dot(from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share, tint);
        }
    }

    fn lines(&self, is_colored: bool) -> Vec<String> {
        let line = |spots: &[Spot]| {
            let mut text = String::new();
            for run in spots.chunk_by(|a, b| a.tint == b.tint) {
                let characters: String = run.iter().map(|spot| character(spot.dots)).collect();
                match run.first().and_then(|spot| spot.tint) {
                    Some(tint) => text.push_str(&Style::Tint(tint).paint(&characters, is_colored)),
                    None => text.push_str(&characters),
                }
            }
            text.trim_end().to_owned()
        };
        self.spots.chunks(self.width).map(line).collect()
    }
}

fn character(dots: u8) -> char {
    match dots {
        0 => ' ',
        dots => char::from_u32(EMPTY + u32::from(dots)).unwrap_or(' '),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(points: Vec<(i64, f64)>, expected: &Expect) {
        let curves = vec![Curve { points, tint: Tint::of(0) }];
        let plot = Plot { curves, from_ms: 0, until_ms: 100, gap_ms: 10, width: 12, height: 3 };
        let lines: Vec<String> = plot.lines(false).iter().map(|line| format!("│{line}")).collect();
        expected.assert_eq(&lines.join("\n"));
    }

    #[test]
    fn curves_are_drawn_and_gaps_stay_gaps() {
        check(
            (0..=10).map(|at| (at * 10, at as f64)).collect(),
            &expect![[r#"
            │        ⣀⡤⠒⠉
            │    ⣀⠤⠖⠉
            │⣀⠤⠚⠉"#]],
        );
        check(
            [0, 10, 20, 60, 70, 80].map(|at| (at, 5.0)).to_vec(),
            &expect![[r#"
            │
            │⠤⠤⠤    ⠤⠤⠄
            │"#]],
        );
        check(
            vec![(0, f64::NAN), (50, f64::INFINITY)],
            &expect![[r#"
            │
            │
            │"#]],
        );
    }

    #[test]
    fn extents_hold_what_numbers_can_be() {
        assert_eq!(Extent::of([f64::NAN].into_iter()), None);
        assert_eq!(Extent::of([2.0, 2.0].into_iter()), Some(Extent { low: 1.8, high: 2.2 }));
        let widest = Extent::of([f64::MIN, f64::MAX].into_iter()).unwrap();
        assert_eq!((widest.share(f64::MAX), widest.share(0.0), widest.at(0.5)), (1.0, 0.5, 0.0));
    }
}
