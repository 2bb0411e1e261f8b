//! Every cap on rule files, with its reason.

/// Largest rule file. The largest published collections of rules are under 300 KiB.
pub(crate) const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What the tree of one file may weigh once aliases are expanded: a file that grows more than a few times is a bomb.
pub(crate) const TREE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Deepest nesting of YAML collections; a rule file needs five levels.
pub(crate) const YAML_DEPTH_MAX: usize = 32;

/// Most rules over all files; large organisations have a few thousand.
pub(crate) const RULES_MAX: usize = 20_000;

/// Most labels, and most annotations, of one rule: people write about five.
pub(crate) const LABELS_PER_RULE_MAX: usize = 64;

/// Most problems told of one file: whoever has more mends these first.
pub(crate) const PROBLEMS_PER_FILE_MAX: usize = 100;

/// Longest template: a long description is 2 KiB.
pub(crate) const TEMPLATE_BYTES_MAX: usize = 64 * 1024;

/// Deepest nesting of `if` and of brackets in a template, and longest pipeline: each level costs stack.
pub(crate) const TEMPLATE_DEPTH_MAX: usize = 32;

/// What one template may yield, and any text on the way to it: an alert is carried in mails and on pagers.
pub(crate) const TEMPLATE_OUTPUT_BYTES_MAX: usize = 16 * 1024;

/// Longest value of a label that a template yields: what the store accepts too.
pub(crate) const LABEL_VALUE_BYTES_MAX: usize = belfry_common::limits::LABEL_VALUE_BYTES_MAX;

/// Largest compiled regular expression of a template; what people write needs a hundredth of it.
pub(crate) const REGEX_BYTES_MAX: usize = 1 << 20;

/// Widest field and longest precision of `printf`.
pub(crate) const PRINTF_WIDTH_MAX: usize = 1_000;

/// Most evaluations that one test of rules takes: two months of a rule each minute are a tenth of it.
pub(crate) const TEST_EVALUATIONS_MAX: i64 = 1_000_000;

/// Longest name of a group or alert: longer ones are a mistake in the file's layout.
pub(crate) const NAME_BYTES_MAX: usize = 256;
