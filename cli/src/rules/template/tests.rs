use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

fn rendered(template: &str, value: f64) -> String {
    let labels =
        Labels::from_pairs([("__name__", "m"), ("instance", "gpu-01.rack:9100"), ("gpu", "3"), ("job", "belfry")]);
    let external_labels = Labels::from_pairs([("site", "north")]);
    let subject = Subject { labels: &labels, value, external_labels: &external_labels, external_url: "http://belfry" };
    match Template::parse(template) {
        Ok(template) => template.render(&subject).unwrap_or_else(|error| format!("<{error}>")),
        Err(error) => format!("refused at {}: {error}", error.offset),
    }
}

#[track_caller]
fn check(template: &str, value: f64, expected: &str) {
    assert_eq!(rendered(template, value), expected, "{template}");
}

#[test]
fn labels_values_and_text() {
    check("plain }} text", 0.0, "plain }} text");
    check("{{ $labels.instance }} is {{$value}}", 1.5, "gpu-01.rack:9100 is 1.5");
    check("{{ .Labels.gpu }}/{{ $.Labels.gpu }}/{{ .Value }}", 2.0, "3/3/2");
    check("[{{ $labels.missing }}]", 0.0, "[]");
    check("{{ $externalLabels.site }} {{ .ExternalLabels.site }} {{ $externalURL }}", 0.0, "north north http://belfry");
    check("{{ index $labels \"gpu\" }} {{ len $labels }}", 0.0, "3 4");
    check("{{ $labels }}", 0.0, "map[__name__:m gpu:3 instance:gpu-01.rack:9100 job:belfry]");
    check("{{ \"a\\\"}}b\" }}{{ `\\n` }}", 0.0, "a\"}}b\\n");
}

#[test]
fn white_space_is_trimmed_where_marked() {
    check("a {{- $value -}} b", 1.0, "a1b");
    check("a \n {{ $value }} b", 1.0, "a \n 1 b");
    check("a {{/* a comment */}} b {{- /* another */ -}} c", 0.0, "a  bc");
    check("{{ -5 }}{{- -5 }}", 0.0, "-5-5");
}

#[test]
fn conditions() {
    check("{{ if gt $value 5.0 }}high{{ else }}low{{ end }}", 6.0, "high");
    check("{{ if gt $value 5 }}high{{ else }}low{{ end }}", 4.0, "low");
    check("{{ if eq $labels.gpu \"1\" \"3\" }}yes{{ end }}", 0.0, "yes");
    check("{{ if ne .Value 1 }}a{{ else if le .Value 1 }}b{{ else }}c{{ end }}", 1.0, "b");
    check("{{ if and $labels.gpu (not $labels.nothing) }}both{{ end }}", 0.0, "both");
    check("{{ if or $labels.nothing \"\" }}a{{ else }}b{{ end }}", 0.0, "b");
    check("{{ or $labels.nothing \"default\" }}", 0.0, "default");
    check("{{ if lt $value 5.0 }}low{{ end }}", f64::NAN, "");
    check("{{ if eq $labels.gpu 3 }}{{ end }}", 0.0, "<`eq`: cannot compare a string with a int>");
}

#[test]
fn variables_of_the_template() {
    check("{{ $x := $labels.gpu }}{{ $x }}", 0.0, "3");
    check("{{ $x := 1 }}{{ if true }}{{ $x := 2 }}{{ $x }}{{ end }}{{ $x }}", 0.0, "21");
    check("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}", 0.0, "2");
    check("{{ $l := $labels }}{{ $l.gpu }}", 0.0, "3");
}

#[test]
fn pipelines_and_text_functions() {
    check("{{ $labels.job | toUpper | printf \"%s!\" }}", 0.0, "BELFRY!");
    check("{{ printf \"%.2f%%\" $value }}", 12.345, "12.35%");
    check("{{ reReplaceAll \"(.*):.*\" \"$1\" $labels.instance }}", 0.0, "gpu-01.rack");
    check("{{ $labels.instance | reReplaceAll \"[0-9]+\" \"#\" }}", 0.0, "gpu-#.rack:#");
    check("{{ stripPort $labels.instance }} {{ stripDomain $labels.instance }}", 0.0, "gpu-01.rack gpu-01:9100");
    check("{{ title \"two words\" }} {{ toLower \"ABC\" }} {{ match \"^g\" \"gpu\" }}", 0.0, "Two Words abc true");
    check("{{ parseDuration \"1h30m\" }}", 0.0, "5400");
    check("{{ print 1 2 \"a\" 3 }}", 0.0, "1 2a3");
}

#[test]
fn numbers_are_written_as_go_writes_them() {
    for (value, expected) in [
        (0.0, "0"),
        (-0.5, "-0.5"),
        (123_456.0, "123456"),
        (1_000_000.0, "1e+06"),
        (1_234_567.0, "1.234567e+06"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "+Inf"),
        (f64::NEG_INFINITY, "-Inf"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e100, "1e+100"),
    ] {
        check("{{ $value }}", value, expected);
    }
}

#[test]
fn humanized() {
    for (function, value, expected) in [
        ("humanize", 0.0, "0"),
        ("humanize", 1_234_567.0, "1.235M"),
        ("humanize", -1_000.0, "-1k"),
        ("humanize", 0.000_012_345, "12.35u"),
        ("humanize", 999.99, "1000"),
        ("humanize", f64::INFINITY, "+Inf"),
        ("humanize1024", 1_048_576.0, "1Mi"),
        ("humanize1024", 1.0, "1"),
        ("humanizeDuration", 0.0, "0s"),
        ("humanizeDuration", 59.4, "59.4s"),
        ("humanizeDuration", 93_784.0, "1d 2h 3m 4s"),
        ("humanizeDuration", -3_600.0, "-1h 0m 0s"),
        ("humanizeDuration", 0.0123, "12.3ms"),
        ("humanizePercentage", 0.123_45, "12.35%"),
        ("humanizeTimestamp", 1_234_567_890.0, "2009-02-13 23:31:30 +0000 UTC"),
        ("humanizeTimestamp", 1_234_567_890.5, "2009-02-13 23:31:30.5 +0000 UTC"),
        ("humanizeTimestamp", 1_234_567_900.0, "2009-02-13 23:31:40 +0000 UTC"),
    ] {
        check(&format!("{{{{ $value | {function} }}}}"), value, expected);
    }
    check("{{ humanize \"1500\" }} {{ humanizeDuration 90 }}", 0.0, "1.5k 1m 30s");
    check("{{ humanize $labels.job }}", 0.0, "<`humanize`: \"belfry\" is no number>");
}

#[test]
fn printf_verbs() {
    for (format, value, expected) in [
        ("%v", 1.5, "1.5"),
        ("%f", 1.5, "1.500000"),
        ("%.2f", 1.005, "1.00"),
        ("%8.2f|", 2.71, "    2.71|"),
        ("%-8.2f|", 2.71, "2.71    |"),
        ("%08.2f", -2.71, "-0002.71"),
        ("%+.1f", 2.0, "+2.0"),
        ("%e", 123_456.0, "1.234560e+05"),
        ("%.1e", 123_456.0, "1.2e+05"),
        ("%g", 100_000.0, "100000"),
        ("%.3g", 1234.5, "1.23e+03"),
        ("%G", 1e-7, "1E-07"),
        ("%d", 5.0, "%!d(float64=5)"),
        ("%s", 5.0, "%!s(float64=5)"),
        ("%5.1f%%", 99.5, " 99.5%"),
        ("%f", f64::INFINITY, "+Inf"),
        ("%", 1.0, "%!(NOVERB)%!(EXTRA float64=1)"),
        ("%f %f", 1.0, "1.000000 %!f(MISSING)"),
    ] {
        check(&format!("{{{{ printf {format:?} $value }}}}"), value, expected);
    }
    check("{{ printf \"%d %s %q %x %t\" 42 $labels.gpu \"a\\\"b\" 255 true }}", 0.0, "42 3 \"a\\\"b\" ff true");
    check("{{ printf \"%2000f\" $value }}", 0.0, "<`printf`: width or precision 2000 is too large>");
}

#[track_caller]
fn check_refused(templates: &[&str], expected: &Expect) {
    let lines: Vec<_> = templates.iter().map(|text| format!("{text}\n    {}\n", rendered(text, 0.0))).collect();
    expected.assert_eq(&lines.concat());
}

#[test]
fn syntax_that_is_refused() {
    check_refused(
        &["{{ $value", "{{ \"abc }}", "{{ }}", "{{ $value $value }}", "{{ (1 }}", "{{ ) }}", "{{ 1x }}", "{{ {} }}"],
        &expect![[r#"
            {{ $value
                refused at 0: the action is not closed
            {{ "abc }}
                refused at 3: the quote is not closed
            {{ }}
                refused at 3: an action needs a value
            {{ $value $value }}
                refused at 10: unexpected `$value`
            {{ (1 }}
                refused at 3: the bracket is not closed
            {{ ) }}
                refused at 3: an action needs a value
            {{ 1x }}
                refused at 3: unexpected `1x`
            {{ {} }}
                refused at 3: unexpected '{'
        "#]],
    );
}

#[test]
fn names_that_are_refused() {
    check_refused(
        &[
            "{{ $valeu }}",
            "{{ .Lables.x }}",
            "{{ $labels.a.b }}",
            "{{ $value.x }}",
            "{{ query \"up\" | first | value }}",
            "{{ range $i, $x := .Labels }}{{ end }}",
            "{{ with $labels.x }}{{ . }}{{ end }}",
            "{{ . }}",
            "{{ $ }}",
            "{{ humanise $value }}",
            "{{ humanize }}",
            "{{ $value | humanize 1 }}",
            "{{ $value | 5 }}",
            "{{ $x = 1 }}",
            "{{ reReplaceAll \"(\" \"\" \"\" }}",
        ],
        &expect![[r#"
            {{ $valeu }}
                refused at 3: variable `$valeu` is not defined
            {{ .Lables.x }}
                refused at 3: there is no field `Lables` here
            {{ $labels.a.b }}
                refused at 12: there is no field `b` here
            {{ $value.x }}
                refused at 9: there is no field `x` here
            {{ query "up" | first | value }}
                refused at 3: `query` is not supported yet in templates
            {{ range $i, $x := .Labels }}{{ end }}
                refused at 3: `range` is not supported yet in templates
            {{ with $labels.x }}{{ . }}{{ end }}
                refused at 3: `with` is not supported yet in templates
            {{ . }}
                refused at 3: `.` is not supported yet in templates
            {{ $ }}
                refused at 3: `$` is not supported yet in templates
            {{ humanise $value }}
                refused at 3: function "humanise" is not defined
            {{ humanize }}
                refused at 3: `humanize` takes 1 argument, not 0
            {{ $value | humanize 1 }}
                refused at 12: `humanize` takes 1 argument, not 2
            {{ $value | 5 }}
                refused at 12: unexpected value where a function is needed
            {{ $x = 1 }}
                refused at 3: variable `$x` is not defined
            {{ reReplaceAll "(" "" "" }}
                refused at 3: invalid regular expression "(": unclosed group
        "#]],
    );
}

#[test]
fn blocks_that_are_refused() {
    check_refused(
        &["{{ if $value }}x", "{{ end }}", "{{ else }}", "{{ if 1 }}{{ else }}{{ else }}{{ end }}"],
        &expect![[r#"
            {{ if $value }}x
                refused at 3: `if` is not closed
            {{ end }}
                refused at 3: unexpected `end`
            {{ else }}
                refused at 3: unexpected `else`
            {{ if 1 }}{{ else }}{{ else }}{{ end }}
                refused at 23: unexpected second `else`
        "#]],
    );
}

#[test]
fn nesting_is_bounded() {
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(50), ")".repeat(50));
    assert_eq!(rendered(&deep, 0.0), "refused at 35: template nests deeper than 32 levels");
    let deep = format!("{{{{ 1{} }}}}", " | print".repeat(1_000));
    assert!(rendered(&deep, 0.0).ends_with("template nests deeper than 32 levels"));
    let deep = "{{ if 1 }}".repeat(50);
    assert!(rendered(&deep, 0.0).ends_with("template nests deeper than 32 levels"));
}

#[test]
fn the_output_is_bounded() {
    let long = "x".repeat(20_000);
    check(&format!("{{{{ $value }}}}{long}"), 0.0, "<the text grows beyond 16384 bytes>");
    let doubled = "{{ $x := \"xxxxxxxxxx\" }}".to_owned() + &"{{ $x = printf \"%s%s\" $x $x }}".repeat(60);
    check(&doubled, 0.0, "<`printf`: the text grows too long>");
    let grown = format!("{{{{ reReplaceAll \"\" {long:?} {long:?} }}}}");
    check(&grown, 0.0, "<`reReplaceAll`: the text grows too long>");
}

proptest! {
    #[test]
    fn garbage_never_panics(text in "(\\{\\{|\\}\\}|[-$.|()\"`'= a-z0-9%é\n]|if|end|else|printf|labels|value|:=){0,40}", value: f64) {
        let text = rendered(&text, value);
        prop_assert!(text.len() <= limits::TEMPLATE_OUTPUT_BYTES_MAX + 200);
    }

    #[test]
    fn any_number_can_be_written(value: f64, precision in 0_usize..20) {
        let text = rendered("{{ $value }}", value);
        if value.is_finite() {
            prop_assert_eq!(text.parse::<f64>().expect("a number"), value);
        }
        let format = format!("{{{{ printf \"%.{precision}g %.{precision}e\" $value $value }}}}");
        prop_assert!(!rendered(&format, value).contains("%!"));
        for function in ["humanize", "humanize1024", "humanizeDuration", "humanizePercentage"] {
            let text = rendered(&format!("{{{{ {function} $value }}}}"), value);
            prop_assert!(!text.is_empty());
        }
    }
}
