//! Numbers of a scenario: those that stay as they are, and those that change with time.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

/// What a faulty call gives, before it is cut to the width of its output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Integer(i128),
    Float(f64),
}

impl Number {
    pub(crate) fn as_u64(self) -> u64 {
        match self {
            Self::Integer(number) => number as u64,
            Self::Float(number) => number as u64,
        }
    }

    pub(crate) fn as_u32(self) -> u32 {
        self.as_u64() as u32
    }

    pub(crate) fn as_i32(self) -> i32 {
        match self {
            Self::Integer(number) => number as i32,
            Self::Float(number) => number as i32,
        }
    }

    pub(crate) fn as_f64(self) -> f64 {
        match self {
            Self::Integer(number) => number as f64,
            Self::Float(number) => number,
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Numbers;

        impl Visitor<'_> for Numbers {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Number, E> {
                Ok(Number::Integer(number.into()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Number, E> {
                Ok(Number::Integer(number.into()))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Number, E> {
                Ok(Number::Float(number))
            }
        }

        deserializer.deserialize_any(Numbers)
    }
}

/// A reading over time: a number, or a ramp.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Curve {
    from: f64,
    per_second: f64,
    min: f64,
    max: f64,
}

impl Curve {
    pub(crate) fn at(self, seconds: f64) -> f64 {
        // Not `clamp`, which panics where a scenario's limits cross.
        self.per_second.mul_add(seconds, self.from).min(self.max).max(self.min)
    }
}

impl From<Number> for Curve {
    fn from(number: Number) -> Self {
        Self { from: number.as_f64(), per_second: 0.0, min: f64::NEG_INFINITY, max: f64::INFINITY }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ramp {
    from: f64,
    per_second: f64,
    min: Option<f64>,
    max: Option<f64>,
}

impl From<Ramp> for Curve {
    fn from(ramp: Ramp) -> Self {
        let Ramp { from, per_second, min, max } = ramp;
        Self { from, per_second, min: min.unwrap_or(f64::NEG_INFINITY), max: max.unwrap_or(f64::INFINITY) }
    }
}

impl<'de> Deserialize<'de> for Curve {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Curves;

        impl<'de> Visitor<'de> for Curves {
            type Value = Curve;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or { from, per_second, min, max }")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Curve, E> {
                Ok(Number::Integer(number.into()).into())
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Curve, E> {
                Ok(Number::Integer(number.into()).into())
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Curve, E> {
                Ok(Number::Float(number).into())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Curve, A::Error> {
                Ramp::deserialize(MapAccessDeserializer::new(map)).map(Curve::from)
            }
        }

        deserializer.deserialize_any(Curves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Line<T> {
        value: T,
    }

    fn parse<'a, T: Deserialize<'a>>(value: &'a str) -> Result<T, String> {
        let line: Result<Line<T>, _> = toml::from_str(value);
        line.map(|line| line.value).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_ramp_grows_until_its_limit() {
        let ramp: Curve = parse("value = { from = 100000, per_second = 500, max = 101000 }").unwrap();
        assert_eq!([0.0, 1.0, 2.0, 3.0].map(|seconds| ramp.at(seconds)), [100000.0, 100500.0, 101000.0, 101000.0]);
        let falling: Curve = parse("value = { from = 10.5, per_second = -1, min = 9.0 }").unwrap();
        assert_eq!([1.0, 60.0].map(|seconds| falling.at(seconds)), [9.5, 9.0]);
        let number: Curve = parse("value = 45").unwrap();
        assert_eq!([0.0, 1e9].map(|seconds| number.at(seconds)), [45.0, 45.0]);
    }

    #[test]
    fn other_shapes_are_refused() {
        assert!(parse::<Curve>("value = { from = 1, per_second = 1, until = 2 }").unwrap_err().contains("`until`"));
        assert!(parse::<Curve>("value = \"45\"").unwrap_err().contains("a number or {"));
        assert!(parse::<Number>("value = true").unwrap_err().contains("a number"));
    }

    #[test]
    fn a_number_is_cut_to_each_width() {
        let all_ones: Number = parse("value = 4294967295").unwrap();
        assert_eq!((all_ones.as_u32(), all_ones.as_u64(), all_ones.as_i32()), (u32::MAX, 4_294_967_295, -1));
        let largest: Number = parse("value = 18446744073709551615").unwrap();
        assert_eq!((largest.as_u32(), largest.as_u64()), (u32::MAX, u64::MAX));
        let negative: Number = parse("value = -1").unwrap();
        assert_eq!((negative.as_u32(), negative.as_u64(), negative.as_f64()), (u32::MAX, u64::MAX, -1.0));
        let huge: Number = parse("value = 9e18").unwrap();
        assert_eq!((huge.as_u64(), huge.to_string().as_str()), (9_000_000_000_000_000_000, "9000000000000000000"));
    }
}
