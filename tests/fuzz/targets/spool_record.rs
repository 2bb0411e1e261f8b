//! Records of the agent's spool from any bytes. The agent is a program, not a library: its parser is included as a file.
#![no_main]

#[expect(dead_code, reason = "only the parser is under test")]
#[path = "../../../agent/src/spool/record.rs"]
mod record;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    drop(record::Record::parse(data));
});
