//! Text from other machines, made fit for a terminal: nothing in it can move the cursor, change colours or turn the line around.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// The text with every character that a terminal would act on, or that nobody can see, spelled out.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if is_harmful(character) => out.extend(character.escape_unicode()),
            _ => out.push(character),
        }
    }
    out
}

/// Controls, and the format characters that reorder or hide text (Unicode's bidi controls, zero-width and tag characters).
pub(crate) fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Columns that the text takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// `metric{label="value",…}`, safe to print.
pub(crate) fn selector<'a>(metric: &str, labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let pairs: Vec<String> = labels
        .map(|(name, value)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            format!("{}=\"{}\"", escape(name), escape(&value))
        })
        .collect();
    let metric = escape(metric);
    if pairs.is_empty() { metric } else { format!("{metric}{{{}}}", pairs.join(",")) }
}

/// The text in at most `columns`; what is left out is marked with `…`.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_string();
    }
    let mut out = String::new();
    let mut room = columns.saturating_sub(1);
    for character in text.chars() {
        let Some(left) = room.checked_sub(character.width().unwrap_or(0)) else { break };
        room = left;
        out.push(character);
    }
    // A variation selector has no width and makes the character before it wide.
    while width(&out) >= columns && out.pop().is_some() {}
    if columns > 0 {
        out.push('…');
    }
    out
}

/// The text as lines of at most `columns`, broken between words. A word that is longer has a line to itself.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let Some(line) = lines.last_mut() else { continue };
        if line.is_empty() {
            line.push_str(word);
        } else if width(line) + 1 + width(word) <= columns {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// The text in at most `columns`; what is left out is in the middle, and marked with `…`.
pub(crate) fn cut_middle(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_string();
    }
    let begin = cut(text, columns.div_ceil(2));
    let mut room = columns.saturating_sub(width(&begin));
    let mut end = Vec::new();
    for character in text.chars().rev() {
        let Some(left) = room.checked_sub(character.width().unwrap_or(0)) else { break };
        room = left;
        end.push(character);
    }
    // What has no width belongs to a character that is left out.
    while end.pop_if(|last| last.width().unwrap_or(0) == 0).is_some() {}
    let mut all: String = begin.chars().chain(end.into_iter().rev()).collect();
    while width(&all) > columns && begin.len() < all.len() {
        all.remove(begin.len());
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_spelled_out() {
        assert_eq!(escape("a\u{1b}[31mb\r\nc\td\u{7f}\u{9b}"), "a\\u{1b}[31mb\\r\\nc\\td\\u{7f}\\u{9b}");
        assert_eq!(escape("evil\u{202e}gnp.exe\u{2066}\u{200b}"), "evil\\u{202e}gnp.exe\\u{2066}\\u{200b}");
        assert_eq!(escape("Grüße, 日本, 71°C, 🙂"), "Grüße, 日本, 71°C, 🙂");
    }

    #[test]
    fn cut_text_says_so_and_counts_wide_characters() {
        assert_eq!(cut("gpu-01", 6), "gpu-01");
        assert_eq!(cut("gpu-012", 6), "gpu-0…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abc", 1), "…");
        assert_eq!(cut("abc", 0), "");
        assert_eq!(cut_middle("rack12-node001", 14), "rack12-node001");
        assert_eq!(cut_middle("rack12-node001", 9), "rack…e001");
        assert_eq!(cut_middle("日本語日本語", 5), "日…語");
        assert_eq!(cut_middle("abc", 1), "…");
        assert_eq!(cut_middle("abc", 0), "");
        let candles = "ab🕯\u{fe0f}🕯\u{fe0f}cd";
        assert_eq!(cut(candles, 4), "ab🕯…");
        assert_eq!(cut_middle(candles, 5), "ab…cd");
    }

    #[test]
    fn long_text_is_broken_between_words() {
        assert_eq!(wrap("drain the node, then reboot", 10), ["drain the", "node, then", "reboot"]);
        assert_eq!(wrap("see nvidia-bug-report.sh now", 8), ["see", "nvidia-bug-report.sh", "now"]);
        assert_eq!(wrap("", 8), [""]);
    }

    proptest! {
        #[test]
        fn escaped_text_is_one_harmless_line(text: String) {
            prop_assert!(!escape(&text).chars().any(is_harmful));
        }

        #[test]
        fn cut_text_fits(text: String, columns in 0..40_usize) {
            prop_assert!(width(&cut(&escape(&text), columns)) <= columns);
            prop_assert!(width(&cut_middle(&escape(&text), columns)) <= columns);
        }
    }
}
