//! `*` and `?` over short names: for files, metrics and nodes on the command line.

/// Whether `text` is what `pattern` describes: `*` any run of characters, `?` any one.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last star stands and how much of the text it has taken: the only place to come back to.
    let mut star: Option<(usize, usize)> = None;
    while let Some(&character) = text.get(t) {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&wanted) if wanted == '?' || wanted == character => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                (p, t) = (at + 1, taken + 1);
            }
        }
    }
    pattern.iter().skip(p).all(|&rest| rest == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_take_any_run_and_question_marks_one() {
        for (pattern, text) in [
            ("*", ""),
            ("node_*", "node_load1"),
            ("*_total", "a_total"),
            ("n?de*1", "node_load1"),
            ("a*b*c", "axxbyyc"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("node", "node_"), ("?", ""), ("a*b", "axc"), ("*a", "b")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        assert!(!matches(&"*a".repeat(2000), &"a".repeat(1000)), "no exponential search");
    }
}
