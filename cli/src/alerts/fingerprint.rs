//! Numbers that name alerts and rules the same way for ever.
//!
//! FNV-1a with 64 bits. A label set is hashed as Prometheus and Alertmanager do: names in order, each followed by the
//! byte 255, its value, and 255 again. So an alert's fingerprint here is its fingerprint there.

use std::fmt;

use belfry_promql::Labels;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::rules::RuleKey;

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;
const SEPARATOR: u8 = 255;

/// A hash shown as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Fingerprint(pub(crate) u64);

impl Fingerprint {
    /// The fingerprint of a label set.
    pub(crate) fn of(labels: &Labels) -> Self {
        Self(labels.iter().fold(OFFSET, |hash, (name, value)| add(add(hash, name), value)))
    }

    /// The fingerprint of a rule.
    pub(crate) fn of_rule(key: &RuleKey) -> Self {
        let texts = [key.group.as_str(), &key.name, &key.labels, &key.ordinal.to_string()];
        Self(texts.into_iter().fold(OFFSET, add))
    }
}

fn add(hash: u64, text: &str) -> u64 {
    text.bytes().chain([SEPARATOR]).fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map(Self).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_to_prometheus() {
        // From the tests of Prometheus' common library, `model/signature_test.go` and `labelset_test.go`.
        assert_eq!(Fingerprint::of(&Labels::empty()).0, 14_695_981_039_346_656_037);
        let labels = Labels::from_pairs([("name", "garland, briggs"), ("fear", "love is not enough")]);
        assert_eq!(Fingerprint::of(&labels).0, 5_799_056_148_416_392_346);
    }

    #[test]
    fn written_as_sixteen_digits() {
        let json = serde_json::to_string(&Fingerprint(255)).expect("JSON");
        assert_eq!(json, "\"00000000000000ff\"");
        assert_eq!(serde_json::from_str::<Fingerprint>(&json).expect("a fingerprint"), Fingerprint(255));
    }
}
