//! How a run may use its workspace.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a run may use its workspace.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Work in a view of the folder; apply the changes of a run that ended well.
    #[default]
    Direct,
    /// Work in a view of the folder; the changes wait for a decision.
    Isolated,
    /// Look, but change nothing.
    // Hosts write what people write, so both spellings are read.
    #[serde(alias = "read-only")]
    #[value(alias = "read_only")]
    ReadOnly,
}

/// A text that is not a mode.
#[derive(Debug, thiserror::Error)]
#[error("`mode` is `{0}`; allowed are direct, isolated and read-only")]
pub struct NotAMode(String);

impl FromStr for Mode {
    type Err = NotAMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "direct" => Ok(Self::Direct),
            "isolated" => Ok(Self::Isolated),
            "read-only" | "read_only" => Ok(Self::ReadOnly),
            other => Err(NotAMode(crate::text::one_line(other, 60))),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Isolated => "isolated",
            Self::ReadOnly => "read-only",
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn both_spellings_are_read_everywhere() {
        for text in ["read-only", "read_only"] {
            assert_eq!(text.parse::<Mode>().expect(text), Mode::ReadOnly);
            assert_eq!(<Mode as ValueEnum>::from_str(text, false).expect(text), Mode::ReadOnly);
            let json = serde_json::Value::from(text);
            assert_eq!(serde_json::from_value::<Mode>(json).expect(text), Mode::ReadOnly);
        }
        assert_eq!(serde_json::to_string(&Mode::ReadOnly).expect("json"), "\"read_only\"");
        for mode in [Mode::Direct, Mode::Isolated, Mode::ReadOnly] {
            assert_eq!(mode.to_string().parse::<Mode>().expect("own form"), mode);
        }
        let refused = "write\u{1b}[31m".parse::<Mode>().expect_err("no mode").to_string();
        assert_eq!(refused, "`mode` is `write`; allowed are direct, isolated and read-only");
    }
}
