//! A script that reads `belfry alerts --follow` line by line, as an operator's would: for measuring when a line is in its hands.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use belfry_common::{clock, model::Timestamp};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::{binaries, collector::Collector};

const PATIENCE: Duration = Duration::from_secs(20);

/// `belfry alerts --follow | while read`
#[derive(Debug)]
pub struct Script {
    shell: Child,
    lines: Receiver<(Timestamp, Value)>,
}

impl Script {
    /// Starts it; the stream has begun when this returns.
    #[must_use]
    pub fn start(collector: &Collector) -> Self {
        let mut shell = Command::new("sh");
        shell.args([
            "-c",
            r#""$0" alerts --follow --identity "$1" | while read -r line; do printf '%s\n' "$line"; done"#,
        ]);
        shell.arg(binaries::belfry()).arg(collector.data_directory()).stdin(Stdio::null()).stdout(Stdio::piped());
        // The shell and what it runs end together.
        shell.process_group(0);
        let mut shell = shell.spawn().unwrap();
        let output = BufReader::new(shell.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let told = clock::now();
                if sender.send((told, serde_json::from_str(&line).unwrap())).is_err() {
                    return;
                }
            }
        });
        let mut script = Self { shell, lines };
        script.wait_for(|line| line["event"] == "heartbeat");
        script
    }

    /// The next line that is so, and when the script had it in its hands.
    pub fn wait_for(&mut self, is_it: impl Fn(&Value) -> bool) -> (Timestamp, Value) {
        loop {
            let (told, line) = self.lines.recv_timeout(PATIENCE).unwrap();
            if is_it(&line) {
                return (told, line);
            }
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        kill_process_group(Pid::from_child(&self.shell), Signal::KILL).unwrap();
        self.shell.wait().unwrap();
    }
}
