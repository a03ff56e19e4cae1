//! Reading a part of a request to its end, for what must not go out in it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::pattern::{self, Budget};

/// Reads a value without keeping it, and fails at media given as an address and at what reaches into
/// the server. It also fails at what was only skipped until then and no parser takes, a number beyond
/// every measure or nesting without end: what one server refuses, another may read in a way of its own.
#[derive(Clone, Copy)]
pub(super) struct Walk<'a>(pub Key, pub &'a Budget);

/// What the key above a text says about it.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Key {
    Plain,
    /// Such as `image_url`: must be `data:`.
    Address,
    /// Such as `image`: may be base64, must not have another scheme.
    Media,
    /// Of a part of a message: says what the part is.
    Type,
    /// Nothing in it is an address, whatever its keys are.
    Words,
    /// A JSON schema, or what has one in it.
    Schema,
    /// `pattern` of a schema: a regular expression.
    Pattern,
    /// `patternProperties` of a schema: its keys are.
    Patterns,
}

impl Key {
    fn of(key: &str) -> Self {
        let key = key.to_ascii_lowercase();
        let any = |words: &[&str]| words.iter().any(|word| key.contains(word));
        if key == "type" {
            Self::Type
        } else if any(&["url", "uri", "path"]) {
            Self::Address
        } else if any(&["image", "audio", "video", "file"]) {
            Self::Media
        } else {
            Self::Plain
        }
    }

    /// What is wrong with a text below this key.
    fn objection(self, text: &str, patterns: &Budget) -> Option<&'static str> {
        let scheme = text.trim_start().split_once(':').map(|(scheme, _)| scheme);
        let embedded = scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("data"));
        match self {
            Self::Address if !embedded => Some(ADDRESS),
            Self::Media if !embedded && scheme.is_some() => Some(ADDRESS),
            Self::Type if is_embedding(text) => Some(EMBEDDING),
            Self::Pattern => pattern::objection(text, patterns),
            _ => None,
        }
    }

    /// What a value below `key` is, if this is above.
    fn below(self, key: &str) -> Self {
        match self {
            Self::Words => Self::Words,
            Self::Schema | Self::Pattern if key == "pattern" => Self::Pattern,
            Self::Schema | Self::Pattern if key == "patternProperties" => Self::Patterns,
            Self::Schema | Self::Pattern | Self::Patterns => Self::Schema,
            // Arguments of past calls are the model's own.
            _ if matches!(key, "tool_calls" | "function_call") => Self::Words,
            _ => Self::of(key),
        }
    }
}

const ADDRESS: &str =
    "media must be embedded (`data:…`), because an address would be fetched outside the sandbox";
const EMBEDDING: &str = "embeddings reach into the server; give the text or the media itself";

/// Whether this names something that is put into the model behind its tokens, such as
/// `image_embeds`.
fn is_embedding(name: &str) -> bool {
    name.to_ascii_lowercase().contains("embed")
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("messages")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.0.objection(text, self.1).map_or(Ok(()), |why| Err(E::custom(why)))
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            let below = self.0.below(&key);
            let why = match self.0 {
                Key::Patterns => pattern::objection(&key, self.1),
                _ if matches!(below, Key::Plain | Key::Media | Key::Address) => {
                    is_embedding(&key).then_some(EMBEDDING)
                }
                _ => None,
            };
            if let Some(why) = why {
                return Err(de::Error::custom(why));
            }
            map.next_value_seed(Self(below, self.1))?;
        }
        Ok(())
    }
}
