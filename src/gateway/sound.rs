//! A walk through JSON that keeps nothing.
//!
//! Text that is only skipped can hold what no parser takes: a number beyond every measure, nesting
//! without end. What one server refuses, another may read in a way of its own.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

/// Whether every part of the text can be read.
pub fn check(text: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str::<Sound>(text).map(|Sound| ())
}

struct Sound;

impl<'de> Deserialize<'de> for Sound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Sound {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self, A::Error> {
        while parts.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut parts: A) -> Result<Self, A::Error> {
        while parts.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_passes_and_what_cannot_does_not() {
        for good in ["null", "true", "-1", "1.5e300", r#""a\u00e4""#, r#"[{"a": [1, {}]}, "b"]"#] {
            assert!(check(good).is_ok(), "{good}");
        }
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        for bad in ["2e2240", r#"{"a": [-1e999]}"#, deep.as_str(), "[1,]", r#""\ud800""#, ""] {
            assert!(check(bad).is_err(), "{bad:.40}");
        }
    }
}
