//! Join tokens from any text; one that is accepted is revealed as it was given.
#![no_main]

use belfry_common::identity::JoinToken;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(token) = JoinToken::parse(text) {
        assert_eq!(token.reveal(), text.trim());
    }
});
