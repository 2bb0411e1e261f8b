//! Tables for people: one line a row whatever is in it, so that they can be read, and searched, line by line.
//!
//! A table that is too wide first narrows its flexible columns, then drops columns from the right. comfy-table would wrap or cut
//! cells, and knows no order in which columns matter.

use super::{
    Look,
    style::Style,
    text::{cut, cut_middle, escape, width},
};

const GAP: &str = "  ";

/// A piece of text of one style. Escaped when it is made, so that it cannot act on the terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    text: String,
    style: Style,
}

impl Span {
    pub(crate) fn new(text: &str, style: Style) -> Self {
        Self { text: escape(text), style }
    }
}

/// What stands in a row's column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cell(Vec<Span>);

impl Cell {
    pub(crate) fn new(text: &str, style: Style) -> Self {
        if text.is_empty() { Self::default() } else { Self(vec![Span::new(text, style)]) }
    }

    pub(crate) fn plain(text: &str) -> Self {
        Self::new(text, Style::Plain)
    }

    /// The text, or the sign for what is missing.
    pub(crate) fn known(text: Option<String>) -> Self {
        text.map_or_else(|| Self::new(super::units::MISSING, Style::Dim), |text| Self::plain(&text))
    }

    pub(crate) fn width(&self) -> usize {
        self.0.iter().map(|span| width(&span.text)).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn push(&mut self, span: Span) {
        self.0.push(span);
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// The same in at most `columns`, each of its texts cut in the middle.
    fn cut_middle(&self, columns: usize) -> Self {
        let cut = |span: &Span| Span { text: cut_middle(&span.text, columns), style: span.style };
        Self(self.0.iter().map(cut).collect())
    }

    /// As the terminal shows it, in at most `columns`.
    pub(crate) fn paint(&self, columns: usize, is_colored: bool) -> String {
        if self.width() <= columns {
            return self.0.iter().map(|span| span.style.paint(&span.text, is_colored)).collect();
        }
        // One column is for the mark of what is left out, which the first span that does not fit carries.
        let mut room = columns.saturating_sub(1);
        let mut out = String::new();
        for span in &self.0 {
            let wanted = width(&span.text);
            if wanted > room {
                let marked = cut(&format!("{}…", span.text), (room + 1).min(columns));
                out.push_str(&span.style.paint(&marked, is_colored));
                break;
            }
            room -= wanted;
            out.push_str(&span.style.paint(&span.text, is_colored));
        }
        out
    }
}

impl FromIterator<Span> for Cell {
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> Self {
        Self(spans.into_iter().collect())
    }
}

/// What may become of a column when there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// Stays as it is.
    Always,
    /// Is dropped; the one furthest right goes first.
    Droppable,
    /// Stays, and is cut down to so many columns at worst.
    Flexible(usize),
    /// As flexible, but cut in the middle: names of nodes differ at their end.
    Name(usize),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Column<'a> {
    /// Safe to print.
    pub(crate) title: &'a str,
    pub(crate) is_right: bool,
    pub(crate) fit: Fit,
}

impl<'a> Column<'a> {
    pub(crate) const fn left(title: &'a str, fit: Fit) -> Self {
        Self { title, is_right: false, fit }
    }

    pub(crate) const fn right(title: &'a str, fit: Fit) -> Self {
        Self { title, is_right: true, fit }
    }
}

/// Rows under titles. A column without anything in it is left out.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    pub(crate) columns: &'a [Column<'a>],
    pub(crate) rows: Vec<Vec<Cell>>,
}

impl Table<'_> {
    /// The lines, each with its end.
    pub(crate) fn render(&self, look: &Look) -> String {
        let widths = self.widths(look.width);
        let titles = self.columns.iter().map(|column| Cell::new(column.title, Style::Bold)).collect::<Vec<_>>();
        let mut out = String::new();
        for row in std::iter::once(&titles).chain(&self.rows) {
            self.line(row, &widths, look.is_colored, &mut out);
        }
        out
    }

    fn line(&self, row: &[Cell], widths: &[Option<usize>], is_colored: bool, out: &mut String) {
        let mut line = String::new();
        let mut gap = 0;
        for ((column, cell), wide) in self.columns.iter().zip(row).zip(widths) {
            let Some(wide) = *wide else { continue };
            let padding = wide.saturating_sub(cell.width());
            if !cell.is_empty() {
                let before = if column.is_right { padding } else { 0 };
                line.extend(std::iter::repeat_n(' ', gap + before));
                line.push_str(&match column.fit {
                    Fit::Name(_) => cell.cut_middle(wide).paint(wide, is_colored),
                    _ => cell.paint(wide, is_colored),
                });
                gap = 0;
            }
            // Spaces are owed until something follows them: no line ends with one.
            gap += if cell.is_empty() {
                wide
            } else if column.is_right {
                0
            } else {
                padding
            } + GAP.len();
        }
        out.push_str(&line);
        out.push('\n');
    }

    /// How wide each column is; nothing for those that are left out.
    fn widths(&self, limit: Option<usize>) -> Vec<Option<usize>> {
        let natural = |at: usize, column: &Column| {
            let widest = self.rows.iter().filter_map(|row| row.get(at)).map(Cell::width).max().unwrap_or(0);
            (widest > 0 || column.fit == Fit::Always).then(|| widest.max(width(column.title)))
        };
        let natural: Vec<Option<usize>> =
            self.columns.iter().enumerate().map(|(at, column)| natural(at, column)).collect();
        let Some(limit) = limit else { return natural };
        let mut kept = natural;
        loop {
            let least = self.columns.iter().zip(&kept).map(|(column, wide)| wide.map(|wide| least(column, wide)));
            let least: Vec<Option<usize>> = least.collect();
            let last = self
                .columns
                .iter()
                .zip(&kept)
                .rposition(|(column, wide)| column.fit == Fit::Droppable && wide.is_some());
            match last {
                Some(last) if total(&least) > limit => kept.iter_mut().skip(last).take(1).for_each(|wide| *wide = None),
                _ => return spread(&kept, least, limit),
            }
        }
    }
}

fn least(column: &Column, natural: usize) -> usize {
    match column.fit {
        Fit::Flexible(least) | Fit::Name(least) => natural.min(least.max(width(column.title))),
        Fit::Always | Fit::Droppable => natural,
    }
}

fn total(widths: &[Option<usize>]) -> usize {
    let shown = widths.iter().flatten();
    shown.clone().sum::<usize>() + shown.count().saturating_sub(1) * GAP.len()
}

/// Gives the room that is left to the columns that were narrowed, from the left.
fn spread(natural: &[Option<usize>], mut widths: Vec<Option<usize>>, limit: usize) -> Vec<Option<usize>> {
    let mut room = limit.saturating_sub(total(&widths));
    for (wide, natural) in widths.iter_mut().flatten().zip(natural.iter().flatten()) {
        let more = (natural - *wide).min(room);
        *wide += more;
        room -= more;
    }
    widths
}

#[cfg(test)]
mod tests {
    use belfry_common::model::Timestamp;
    use expect_test::{Expect, expect};

    use super::*;

    const COLUMNS: &[Column] = &[
        Column::left("NAME", Fit::Flexible(6)),
        Column::right("COUNT", Fit::Always),
        Column::left("EMPTY", Fit::Droppable),
        Column::right("SIZE", Fit::Droppable),
        Column::left("WHY", Fit::Flexible(8)),
    ];

    fn check(width: Option<usize>, expected: &Expect) {
        let row = |name: &str, count: &str, size: &str, why: &str| {
            vec![Cell::plain(name), Cell::plain(count), Cell::default(), Cell::plain(size), Cell::plain(why)]
        };
        let rows = vec![
            row("first-name", "1", "12 GiB", ""),
            row("b", "1000", "3 MiB", "too\nmuch of \u{1b}[31mit"),
            row("c", "", "", "日本語の理由はここにあります"),
        ];
        let table = Table { columns: COLUMNS, rows };
        let look = Look { width, is_colored: false, now: Timestamp::from_millis(0) };
        let text = table.render(&look);
        expected.assert_eq(&text);
        let widest = text.lines().map(super::width).max();
        assert!(width.is_none_or(|width| widest <= Some(width.max(23))), "{widest:?}");
    }

    #[test]
    fn without_a_limit_nothing_is_cut() {
        check(
            None,
            &expect![[r#"
                NAME        COUNT    SIZE  WHY
                first-name      1  12 GiB
                b            1000   3 MiB  too\nmuch of \u{1b}[31mit
                c                          日本語の理由はここにあります
            "#]],
        );
    }

    #[test]
    fn flexible_columns_give_way_before_others_are_dropped() {
        check(
            Some(36),
            &expect![[r#"
                NAME        COUNT    SIZE  WHY
                first-name      1  12 GiB
                b            1000   3 MiB  too\nmuc…
                c                          日本語の…
            "#]],
        );
        check(
            Some(27),
            &expect![[r#"
                NAME        COUNT  WHY
                first-name      1
                b            1000  too\nmu…
                c                  日本語…
            "#]],
        );
        check(
            Some(10),
            &expect![[r#"
                NAME    COUNT  WHY
                first…      1
                b        1000  too\nmu…
                c              日本語…
            "#]],
        );
    }

    #[test]
    fn colours_take_no_room() {
        let cell: Cell = [Span::new("ab", Style::Bad), Span::new("cd", Style::Plain)].into_iter().collect();
        assert_eq!(cell.width(), 4);
        assert_eq!(cell.paint(4, true), "\u{1b}[1;31mab\u{1b}[0mcd");
        assert_eq!(cell.paint(3, false), "ab…");
        assert_eq!(cell.paint(2, false), "a…");
        assert_eq!(cell.paint(0, false), "");
        assert_eq!(cell.paint(1, false), "…");
    }
}
