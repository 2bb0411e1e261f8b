//! A short name for what a process runs: `python train.py`, `bash`, `ray::IDLE`.
//!
//! Never the whole command line: people put passwords and tokens on it. Of its arguments only an interpreter's script
//! or module is shown, and nothing that follows an option which takes code.
//!
//! Pure.

use super::text;

/// Longer words are no names of scripts.
const SCRIPT_BYTES_MAX: usize = 64;
/// Options before the script: nobody gives more.
const OPTIONS_MAX: usize = 32;

/// An interpreter, and those of its options that matter to find its script.
struct Interpreter {
    names: &'static [&'static str],
    /// Letters of options after which there is no script: code, or standard input.
    code: &'static str,
    code_long: &'static [&'static str],
    /// Letters of options that take a value, in the same word or the next.
    valued: &'static str,
    valued_long: &'static [&'static str],
    /// The letter of the option that names a module to run.
    module: Option<char>,
}

const INTERPRETERS: [Interpreter; 7] = [
    Interpreter {
        names: &["python", "pypy"],
        code: "c",
        code_long: &[],
        valued: "WX",
        valued_long: &["--check-hash-based-pycs"],
        module: Some('m'),
    },
    Interpreter {
        names: &["bash", "sh", "dash", "zsh", "ksh"],
        code: "cs",
        code_long: &[],
        valued: "oO",
        valued_long: &["--rcfile", "--init-file"],
        module: None,
    },
    Interpreter { names: &["perl"], code: "eE", code_long: &[], valued: "IMm", valued_long: &[], module: None },
    Interpreter { names: &["ruby"], code: "e", code_long: &[], valued: "IrCE", valued_long: &[], module: None },
    Interpreter {
        names: &["node"],
        code: "ep",
        code_long: &["--eval", "--print"],
        valued: "rC",
        valued_long: &["--require", "--import", "--loader", "--experimental-loader"],
        module: None,
    },
    Interpreter {
        names: &["julia"],
        code: "eE",
        code_long: &["--eval", "--print"],
        valued: "JtpCLH",
        valued_long: &["--threads", "--procs", "--load", "--sysimage", "--cpu-target"],
        module: None,
    },
    Interpreter { names: &["Rscript"], code: "e", code_long: &[], valued: "", valued_long: &[], module: None },
];

/// The name for a command line, its words ended by zero bytes. `comm` is the kernel's own name for the process.
pub(super) fn short(cmdline: &[u8], comm: &[u8]) -> Option<String> {
    let mut words = cmdline.split(|b| *b == 0).map(|word| str::from_utf8(word).unwrap_or_default());
    let program = words.next().unwrap_or_default();
    // With a space in it, it is a title that the process gave itself, which may repeat all its arguments.
    let program = if program.contains(char::is_whitespace) { "" } else { file_name(program).trim_start_matches('-') };
    let Some(program) = text::clean(program.as_bytes()) else { return text::clean(comm) };
    match script(&program, words) {
        Some(script) => Some(format!("{program} {script}")),
        None => Some(program),
    }
}

/// The script or `-m module` that an interpreter runs.
fn script<'a>(program: &str, mut arguments: impl Iterator<Item = &'a str>) -> Option<String> {
    let name = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let interpreter = INTERPRETERS.iter().find(|interpreter| interpreter.names.contains(&name))?;
    for _ in 0..OPTIONS_MAX {
        let argument = arguments.next()?;
        match interpreter.read(argument) {
            Argument::Script => return checked(file_name(argument)),
            Argument::Alone => {}
            Argument::BeforeValue => _ = arguments.next()?,
            Argument::BeforeScript => return checked(file_name(arguments.next()?)),
            Argument::Module(attached) => {
                let module = if attached.is_empty() { arguments.next()? } else { attached };
                return checked(module).map(|module| format!("-m {module}"));
            }
            Argument::End => return None,
        }
    }
    None
}

/// What an argument before the script means.
enum Argument<'a> {
    Script,
    /// An option complete in itself.
    Alone,
    /// An option whose value is the next argument.
    BeforeValue,
    /// The end of the options.
    BeforeScript,
    /// The module's name, if it is in the same word.
    Module(&'a str),
    /// There is no script.
    End,
}

impl Interpreter {
    fn read<'a>(&self, argument: &'a str) -> Argument<'a> {
        if argument == "--" {
            return Argument::BeforeScript;
        }
        if argument.starts_with("--") {
            let name = argument.split('=').next().unwrap_or_default();
            return match argument {
                _ if self.code_long.contains(&name) => Argument::End,
                _ if self.valued_long.contains(&argument) => Argument::BeforeValue,
                _ => Argument::Alone,
            };
        }
        let Some(letters) = argument.strip_prefix(['-', '+']) else { return Argument::Script };
        if letters.is_empty() {
            return Argument::End;
        }
        for (at, letter) in letters.char_indices() {
            let rest = letters.get(at + letter.len_utf8()..).unwrap_or_default();
            if self.code.contains(letter) {
                return Argument::End;
            }
            if self.module == Some(letter) {
                return Argument::Module(rest);
            }
            if self.valued.contains(letter) {
                return if rest.is_empty() { Argument::BeforeValue } else { Argument::Alone };
            }
        }
        Argument::Alone
    }
}

/// A word that looks like the name of a script or module, and like nothing else.
fn checked(word: &str) -> Option<String> {
    let is_plain = word.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b));
    (is_plain && !word.is_empty() && word.len() <= SCRIPT_BYTES_MAX).then(|| word.to_string())
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// Takes a command line as a shell would, without quotes.
    fn check(cmdline: &str, expected: &Expect) {
        let cmdline = cmdline.split(' ').fold(String::new(), |line, word| line + word + "\0").replace('_', " ");
        expected.assert_eq(&short(cmdline.as_bytes(), b"pt_main_thread").unwrap_or("-".into()));
    }

    #[test]
    fn programs() {
        check("/opt/app/bin/trainer --token hunter2", &expect!["trainer"]);
        check("trainer", &expect!["trainer"]);
        check("-bash", &expect!["bash"]);
        check("ray::IDLE", &expect!["ray::IDLE"]);
        check("/usr/bin/", &expect!["pt_main_thread"]);
    }

    #[test]
    fn titles_are_not_believed() {
        check("python_train.py_--token_hunter2", &expect!["pt_main_thread"]);
        check("slurmstepd:_[123.0]", &expect!["pt_main_thread"]);
        check("", &expect!["pt_main_thread"]);
        assert_eq!(short(b"", b""), None);
    }

    #[test]
    fn scripts_of_python() {
        check("python train.py --token hunter2", &expect!["python train.py"]);
        check("/env/bin/python3.11 -u -Wignore -X dev /home/ada/train.py x", &expect!["python3.11 train.py"]);
        check("/usr/bin/python3 /usr/local/bin/torchrun --nproc 8 train.py", &expect!["python3 torchrun"]);
        check("python -m torch.distributed.run train.py", &expect!["python -m torch.distributed.run"]);
        check("python -um vllm.serve", &expect!["python -m vllm.serve"]);
        check("python -mpip", &expect!["python -m pip"]);
        check("python -c import_os;secret", &expect!["python"]);
        check("python -Ic secret", &expect!["python"]);
        check("python - secret", &expect!["python"]);
        check("python -- train.py", &expect!["python train.py"]);
        check("python --check-hash-based-pycs never train.py", &expect!["python train.py"]);
        check("python", &expect!["python"]);
        check("python pass=word", &expect!["python"]);
    }

    #[test]
    fn scripts_of_others() {
        check("/bin/bash /var/spool/slurmd/job123/slurm-script", &expect!["bash slurm-script"]);
        check("bash -lc secret", &expect!["bash"]);
        check("bash -eo pipefail run.sh", &expect!["bash run.sh"]);
        check("bash --rcfile x +o posix run.sh", &expect!["bash run.sh"]);
        check("perl -w -I lib tool.pl", &expect!["perl tool.pl"]);
        check("perl -ne secret", &expect!["perl"]);
        check("node --max-old-space-size=4096 --require x server.js", &expect!["node server.js"]);
        check("node --eval=secret x", &expect!["node"]);
        check("julia -t 8 --project=. sim.jl", &expect!["julia sim.jl"]);
        check("Rscript --vanilla fit.R", &expect!["Rscript fit.R"]);
        check("bashful secret.sh", &expect!["bashful"]);
    }

    proptest::proptest! {
        #[test]
        fn any_command_line_gives_a_short_name(
            bytes: Vec<u8>,
            words in "(python|bash|-[cmuXW-]{0,3}|[a-z/ é]{0,70}|\u{0}){0,9}",
        ) {
            for cmdline in [&bytes[..], words.as_bytes()] {
                if let Some(name) = short(cmdline, b"comm") {
                    proptest::prop_assert!(!name.is_empty() && name.len() <= 512 + 4 + SCRIPT_BYTES_MAX);
                    proptest::prop_assert!(!name.contains(char::is_control));
                }
            }
        }

        #[test]
        fn code_is_never_shown(program in "python3?|bash|perl", option in "-[euw]{0,2}c") {
            let cmdline = format!("{program}\0{option}\0secret\0secret\0");
            let option_takes_code = program != "perl" || option.contains('e');
            if option_takes_code {
                proptest::prop_assert_eq!(short(cmdline.as_bytes(), b""), Some(program));
            }
        }
    }
}
