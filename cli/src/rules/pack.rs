//! The rules that ship with the program, in force unless switched off.

use super::set::Source;

/// The pack as a rule file like any other.
pub(crate) fn source() -> Source {
    Source {
        name: "belfry.yml (built in)".to_owned(),
        text: include_str!("../../../packaging/rules/belfry.yml").to_owned(),
    }
}
