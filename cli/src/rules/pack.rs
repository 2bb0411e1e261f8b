//! The rules that ship with the program, in force unless switched off.

use super::set::Source;

/// The pack as rule files like any others.
pub(crate) fn sources() -> Vec<Source> {
    let files = [
        ("belfry.yml (built in)", include_str!("../../../packaging/rules/belfry.yml")),
        ("belfry-gpu.yml (built in)", include_str!("../../../packaging/rules/belfry-gpu.yml")),
    ];
    files.into_iter().map(|(name, text)| Source { name: name.to_owned(), text: text.to_owned() }).collect()
}
