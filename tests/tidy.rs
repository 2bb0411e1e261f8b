//! Keeps the project's habits by reading its files: who may depend on whom, who may name what, how long things may get.
//!
//! What the compiler, clippy and rustfmt check is not here. A rule that fails names the file, the line and the habit.

#![expect(clippy::unwrap_used, reason = "a check fails by panicking, which shows where")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

/// What each package may depend on, besides what is not ours.
const PACKAGES: [(&str, &[&str]); 6] = [
    ("common", &[]),
    ("agent", &["belfry-common"]),
    ("cli", &["belfry-common", "belfry-promql", "belfry-reference", "belfry-store"]),
    ("cli/store", &["belfry-common", "belfry-reference"]),
    ("cli/promql", &[]),
    ("cli/reference", &[]),
];

/// One file names each heavy neighbour.
const NEIGHBOURS: [(&str, &str, &str); 9] = [
    ("parquet", "", "cli/src/exchange/parquet_file/"),
    ("pco::", "", "cli/store/src/block/pco.rs"),
    ("bincode", "", "common/src/wire/message/"),
    ("zstd", "", "common/src/wire/compress.rs"),
    ("rusqlite", "", "cli/src/state/sqlite.rs"),
    ("promql_parser", "", "cli/promql/src/plan/"),
    ("nvml_wrapper", "", "agent/src/gpu/nvml/library/"),
    ("stdout()", "cli/", "cli/src/render/output.rs"),
    ("stdout()", "agent/", "agent/src/commands/output.rs"),
];

/// What is pure: no tokio, no I/O, no clock, no threads.
const PURE: [&str; 12] = [
    "agent/src/readings.rs",
    "agent/src/schedule.rs",
    "cli/promql/src/",
    "cli/reference/src/",
    "cli/src/alerts/",
    "cli/src/fleet/standing.rs",
    "cli/src/ingest/caps.rs",
    "cli/src/ingest/inspect.rs",
    "cli/src/listen/admission.rs",
    "cli/src/rules/",
    "common/src/model/",
    "common/src/wire/",
];
const IMPURE: [&str; 8] = ["tokio", "std::fs", "fs::", "File::", "clock::", "thread::", "std::env", "UdpSocket"];
/// The one file of a pure module that reads files for it.
const PURE_BUT: [&str; 1] = ["cli/src/rules/load.rs"];

/// Which modules of its own crate a module may name: those before it in the data's way, never a later one.
const UPSTREAM: [(&str, &[&str]); 9] = [
    ("agent/src/samplers/", &["readings", "samplers"]),
    ("agent/src/lanes.rs", &["readings", "samplers"]),
    ("agent/src/sampling.rs", &["config", "lanes", "readings", "samplers", "schedule", "statistics", "urgent"]),
    ("agent/src/spool/", &["spool", "statistics"]),
    ("agent/src/outbox.rs", &["spool", "statistics"]),
    ("agent/src/uplink/", &["outbox", "spool", "statistics", "uplink"]),
    ("cli/src/rules/", &["alerts", "instant", "rules"]),
    ("cli/src/alerts/", &["alerts", "rules"]),
    ("cli/src/rehearsal/", &["alerts", "rehearsal", "rules"]),
];

const FILE_LINES_MAX: usize = 450;
const FUNCTION_LINES_MAX: usize = 80;

/// Folders that hold what was built or found.
const SKIPPED: [&str; 4] = [".git", "target", "corpus", "crashes"];

/// A file that git would track.
struct TextFile {
    path: String,
    text: String,
    /// All of it is test code.
    is_test: bool,
}

impl TextFile {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The lines before the tests at a file's end; none of a file that is all tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = if self.is_test { 0 } else { tests_begin(&self.text).unwrap_or(usize::MAX) };
        self.text.lines().take(end).enumerate().map(|(at, line)| (at + 1, line))
    }
}

static FILES: LazyLock<Vec<TextFile>> = LazyLock::new(|| {
    let mut paths = Vec::new();
    walk(&root(), &mut paths);
    paths.sort();
    let text = |path: &PathBuf| {
        let relative = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        Some(TextFile { path: relative, text: fs::read_to_string(path).ok()?, is_test: false })
    };
    let mut files: Vec<TextFile> = paths.iter().filter_map(text).collect();
    let declared: BTreeSet<String> = files.iter().flat_map(test_modules).collect();
    for file in &mut files {
        let is_declared = declared.iter().any(|module| {
            file.path.strip_prefix(module.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        });
        let in_tests = file.path.split('/').any(|part| matches!(part, "tests" | "benches"));
        file.is_test = is_declared || in_tests;
    }
    files
});

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn walk(directory: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        // In a linked work tree `.git` is a file.
        if SKIPPED.contains(&&*entry.file_name().to_string_lossy()) {
            continue;
        }
        if kind.is_dir() {
            walk(&entry.path(), paths);
        } else if kind.is_file() {
            paths.push(entry.path());
        }
    }
}

/// Modules that a file declares for tests only, as the start of their paths.
fn test_modules(file: &TextFile) -> Vec<String> {
    let directory = file.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let pairs = file.text.lines().zip(file.text.lines().skip(1));
    let declared = pairs.filter(|(attribute, _)| attribute.trim() == "#[cfg(test)]").filter_map(|(_, line)| {
        let name = line.trim().strip_suffix(';')?.rsplit_once("mod ")?.1;
        Some(format!("{directory}/{name}"))
    });
    declared.collect()
}

/// How many lines stand before `mod tests { … }`.
fn tests_begin(text: &str) -> Option<usize> {
    let pairs = text.lines().zip(text.lines().skip(1));
    pairs.into_iter().position(|(attribute, module)| {
        attribute == "#[cfg(test)]" && module.starts_with("mod ") && module.ends_with('{')
    })
}

fn rust() -> impl Iterator<Item = &'static TextFile> {
    FILES.iter().filter(|file| file.is_rust())
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Whether `line` names `word`, and not only as part of a longer word.
fn names(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part))
}

/// Fails with every problem on a line of its own.
fn check(habit: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{habit}:\n  {}\n", problems.join("\n  "));
}

#[test]
fn packages_depend_only_downwards() {
    let mut problems = Vec::new();
    for (package, allowed) in PACKAGES {
        let text = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(section).and_then(toml::Value::as_table) else { continue };
            for name in dependencies.keys().filter(|name| name.starts_with("belfry")) {
                if !allowed.contains(&name.as_str()) {
                    problems.push(format!("{package}/Cargo.toml: [{section}] may not name {name}"));
                }
            }
        }
    }
    check("agent → common ← cli; store and promql know neither each other nor the cli", &problems);
}

#[test]
fn versions_of_dependencies_are_declared_once() {
    let mut problems = Vec::new();
    for package in PACKAGES.iter().map(|(package, _)| *package).chain(["tests"]) {
        let text = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        for section in ["dependencies", "dev-dependencies"] {
            let Some(dependencies) = manifest.get(section).and_then(toml::Value::as_table) else { continue };
            for (name, value) in dependencies {
                if value.get("workspace").is_none() {
                    problems.push(format!("{package}/Cargo.toml: {name} must say `workspace = true`"));
                }
            }
        }
    }
    check("versions of dependencies stand in the workspace's Cargo.toml", &problems);
}

#[test]
fn one_file_names_each_heavy_neighbour() {
    let mut problems = Vec::new();
    for file in rust() {
        for (line, text) in file.code().filter(|(_, text)| !is_comment(text)) {
            for (name, within, owner) in NEIGHBOURS {
                if file.path.starts_with(within) && names(text, name) && !file.path.starts_with(owner) {
                    problems.push(format!("{}:{line}: only {owner} may name {name}", file.path));
                }
            }
        }
    }
    check("one file names each heavy neighbour", &problems);
}

#[test]
fn clocks_are_read_in_one_file() {
    let mut problems = Vec::new();
    for file in rust().filter(|file| file.path != "common/src/clock.rs") {
        for (line, text) in file.code().filter(|(_, text)| !is_comment(text)) {
            if names(text, "Instant::now") || names(text, "SystemTime::now") {
                problems.push(format!("{}:{line}: use belfry_common::clock", file.path));
            }
        }
    }
    check("clocks are read in common/src/clock.rs", &problems);
}

#[test]
fn pure_modules_are_pure() {
    let mut problems = Vec::new();
    let is_pure = |file: &&TextFile| {
        PURE.iter().any(|pure| file.path.starts_with(pure)) && !PURE_BUT.contains(&file.path.as_str())
    };
    for file in rust().filter(is_pure) {
        for (line, text) in file.code().filter(|(_, text)| !is_comment(text)) {
            for name in IMPURE.iter().filter(|name| names(text, name.trim_end_matches("::")) && text.contains(*name)) {
                problems.push(format!("{}:{line}: names {name}", file.path));
            }
        }
    }
    check("pure modules know no tokio, no I/O, no clock", &problems);
}

#[test]
fn stages_name_only_what_is_before_them() {
    let mut problems = Vec::new();
    for (stage, allowed) in UPSTREAM {
        for file in rust().filter(|file| file.path.starts_with(stage)) {
            let code: String =
                file.code().filter(|(_, text)| !is_comment(text)).flat_map(|(_, text)| [text, "\n"]).collect();
            for module in crate_modules(&code) {
                if !allowed.contains(&module.as_str()) {
                    problems.push(format!("{}: may name crate::{{{}}}, not {module}", file.path, allowed.join(", ")));
                }
            }
        }
    }
    check("a stage uses what is before it, never a later one", &problems);
}

/// The modules of its own crate that some code names: from `crate::one::…` and `use crate::{one::…, two}`.
fn crate_modules(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut modules = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            modules.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut is_start = true;
        for (at, c) in group.char_indices() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => is_start = true,
                c if is_start && !c.is_whitespace() => {
                    modules.insert(word(&group[at..]));
                    is_start = false;
                }
                _ => {}
            }
        }
    }
    modules.retain(|module| module.starts_with(char::is_lowercase));
    modules
}

#[test]
fn nothing_is_left_undone_or_silenced() {
    // Put together here, so that this file does not hold them.
    let forbidden = ["todo", "unimplemented"].map(|word| format!("{word}!")).into_iter();
    let forbidden: Vec<String> = forbidden.chain(["allow(", "ignore"].map(|word| format!("#[{word}"))).collect();
    let mut problems = Vec::new();
    for file in rust() {
        for (line, text) in file.text.lines().enumerate().filter(|(_, text)| !is_comment(text)) {
            for word in forbidden.iter().filter(|word| text.contains(word.as_str())) {
                problems.push(format!("{}:{}: {word}", file.path, line + 1));
            }
        }
    }
    check("nothing is left undone, no test is switched off, lints are expected with a reason", &problems);
}

#[test]
fn files_and_functions_are_short() {
    let mut problems = Vec::new();
    for file in rust() {
        let lines: Vec<&str> = file.code().map(|(_, text)| text).collect();
        if lines.len() > FILE_LINES_MAX {
            let count = lines.len();
            problems.push(format!("{}: {count} lines before its tests, at most {FILE_LINES_MAX}", file.path));
        }
        for (line, name, length) in functions(&lines) {
            if length > FUNCTION_LINES_MAX {
                problems.push(format!("{}:{line}: {name} has {length} lines, at most {FUNCTION_LINES_MAX}", file.path));
            }
        }
    }
    check("files and functions are short enough to be read in one go", &problems);
}

/// Each function's line, name and length. Relies on rustfmt: a body ends with a brace below the first letter.
fn functions(lines: &[&str]) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let Some(at_fn) = code.find("fn ").filter(|_| is_function(code)) else { continue };
        let name: String = code[at_fn + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let end = format!("{indent}}}");
        let mut rest = lines.iter().skip(at).enumerate();
        let last = rest.find_map(|(length, line)| {
            let is_last = *line == end || (length == 0 && line.ends_with('}')) || (line.ends_with(';') && length == 0);
            is_last.then_some(length + 1)
        });
        found.push((at + 1, name, last.unwrap_or(0)));
    }
    found
}

fn is_function(code: &str) -> bool {
    let before = code.split("fn ").next().unwrap_or_default();
    let is_modifier = |word: &str| {
        matches!(word, "const" | "async" | "unsafe" | "extern" | "\"C\"" | "in")
            || word.starts_with("pub")
            || word.ends_with(')')
    };
    code.contains("fn ") && before.split_whitespace().all(is_modifier)
}

#[test]
fn every_file_says_what_it_is() {
    let is_source = |file: &&TextFile| !file.is_test && file.path.contains("src/");
    let silent = rust().filter(is_source).filter(|file| !file.text.trim_start().starts_with("//!"));
    let problems: Vec<String> = silent.map(|file| format!("{}: begins without //!", file.path)).collect();
    check("a module says first what it is and what is absent", &problems);
}

#[test]
fn documents_name_only_what_exists() {
    let mut problems = Vec::new();
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "packaging/README.md"] {
        let Some(file) = FILES.iter().find(|file| file.path == name) else {
            problems.push(format!("{name} does not exist"));
            continue;
        };
        for (line, text) in file.text.lines().enumerate() {
            for path in text.split('`').skip(1).step_by(2).filter(|span| is_path(span)) {
                if !exists(path) {
                    problems.push(format!("{name}:{}: there is no {path}", line + 1));
                }
            }
        }
    }
    check("documents name only files that exist", &problems);
}

/// Whether a word in back quotes is meant as a path of this repository.
fn is_path(span: &str) -> bool {
    let is_plain = span.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    let first = span.split('/').next().unwrap_or_default();
    let is_ours = matches!(first, "agent" | "cli" | "common" | "packaging" | "tests" | ".ci") && span.contains('/');
    is_plain && !span.starts_with('/') && (is_ours || span.ends_with(".rs"))
}

/// A path may begin at the root or in the sources of a package.
fn exists(path: &str) -> bool {
    let bases = ["", "common/src", "agent/src", "cli/src", "cli/store/src", "cli/promql/src", "tests"];
    bases.iter().any(|base| root().join(base).join(path).exists())
}

#[test]
fn no_file_names_the_machine_it_was_written_on() {
    let homes = ["work", "root"].map(|name| format!("/{name}/"));
    let mut problems = Vec::new();
    for file in &*FILES {
        for (line, text) in file.text.lines().enumerate() {
            let is_absolute = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || "._-/}".contains(c));
            for home in &homes {
                if text.match_indices(home.as_str()).any(|(at, _)| is_absolute(at)) {
                    problems.push(format!("{}:{}: {home}…", file.path, line + 1));
                }
            }
        }
    }
    check("no file holds an absolute path of somebody's machine", &problems);
}

#[test]
fn example_configurations_show_each_key_once() {
    let mut problems = Vec::new();
    for name in ["packaging/agent.toml", "packaging/collector.toml"] {
        let Some(file) = FILES.iter().find(|file| file.path == name) else {
            problems.push(format!("{name} does not exist"));
            continue;
        };
        let shown: Vec<&str> = file.text.lines().map(uncommented).collect();
        // A key that stands there twice is refused by TOML itself.
        if let Err(error) = shown.join("\n").parse::<toml::Table>() {
            problems.push(format!("{name}: with every `#key` in force: {}", error.message()));
        }
        if let Err(error) = file.text.parse::<toml::Table>() {
            problems.push(format!("{name}: as it is: {}", error.message()));
        }
    }
    check("example configurations are valid, with and without their keys in force", &problems);
}

/// A line of an example with its key in force: `#key`, but not `# words`.
fn uncommented(line: &str) -> &str {
    line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase())).unwrap_or(line)
}

#[test]
fn every_member_keeps_the_workspaces_lints() {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let workspace: toml::Table = text.parse().unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap().iter().filter_map(toml::Value::as_str);
    let manifests: BTreeMap<&str, toml::Table> = members
        .map(|member| (member, fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap().parse().unwrap()))
        .collect();
    let keeps = |manifest: &toml::Table| manifest.get("lints").is_some_and(|lints| lints.get("workspace").is_some());
    let without = manifests.iter().filter(|(_, manifest)| !keeps(manifest));
    let problems: Vec<String> =
        without.map(|(member, _)| format!("{member}/Cargo.toml: no [lints] workspace = true")).collect();
    check("every member keeps the workspace's lints", &problems);
}

/// The readers of Rust above are simple; this is what they must see.
#[test]
fn the_rules_see_what_they_should() {
    let code = "pub(crate) const fn one() -> u8 { 1 }\n    async fn two(\n        a: u8,\n    ) -> u8 {\n        a\n    }\nlet fn_ = 1;";
    let lines: Vec<&str> = code.lines().collect();
    assert_eq!(functions(&lines), [(1, "one".to_string(), 1), (2, "two".to_string(), 5)]);
    let modules = crate_modules(
        "use crate::{\n    config::{self, Settings},\n    spool::worker::X, Sampler,\n};\ncrate::app::run()",
    );
    assert_eq!(modules.iter().collect::<Vec<_>>(), ["app", "config", "spool"]);
    assert!(names("use zstd::bulk;", "zstd") && !names("let zstd_bulk = 1;", "zstd"));
    assert!(is_path("wire/frame.rs") && is_path("packaging/systemd/") && !is_path("/etc/belfry") && !is_path("cli"));
    assert_eq!(tests_begin("//! x\n\n#[cfg(test)]\nmod tests {\n}"), Some(2));
    assert_eq!((uncommented("#a = 1"), uncommented("# words")), ("a = 1", "# words"));
}
