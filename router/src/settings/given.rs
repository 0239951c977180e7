//! A value as it was given, before anybody judged it.
//!
//! Flags, environment and file all end as text, so that one validation reads them all and can
//! list every fault at once, each with the text that the operator wrote.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A flag or its environment variable.
    Flag,
    /// The configuration file.
    File,
    /// Nobody set it.
    Default,
}

/// A value's text and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// As written; a number or boolean of the file in its canonical text.
    pub text: String,
    /// Who gave it.
    pub source: Source,
}

impl Given {
    fn in_file(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            source: Source::File,
        }
    }
}

impl FromStr for Given {
    type Err = Infallible;

    /// What clap calls for flags and environment.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self {
            text: text.to_owned(),
            source: Source::Flag,
        })
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Given;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number or true or false")
    }

    fn visit_str<E>(self, text: &str) -> Result<Given, E> {
        Ok(Given::in_file(text))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Given, E> {
        Ok(Given::in_file(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Given, E> {
        Ok(Given::in_file(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Given, E> {
        Ok(Given::in_file(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Given, E> {
        Ok(Given::in_file(value.to_string()))
    }
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = Option<Vec<Given>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of texts, or one text with commas")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.split(',').map(Given::in_file).collect()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element()? {
            list.push(item);
        }
        Ok(Some(list))
    }
}

/// Reads a list that the file may write as an array or as one text with commas.
///
/// # Errors
/// The value is neither.
pub(super) fn list<'de, D>(deserializer: D) -> Result<Option<Vec<Given>>, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(ListVisitor)
}
