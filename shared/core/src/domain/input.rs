//! Parses a JSON object and reports every mistake in it, not only the first.

use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{FieldError, pointer};

/// A request body that is a JSON object.
pub trait Input: Sized {
    /// Parses the object, or reports every mistake in it.
    fn parse(value: Value) -> Result<Self, Vec<FieldError>>;
}

/// Parses a document that is also given as text, which shows repeated members.
pub fn parse<T: Input>(value: Value, text: &[u8]) -> Result<T, Vec<FieldError>> {
    let repeated = repeated(text);
    let mut errors: Vec<FieldError> = repeated
        .iter()
        .map(|name| FieldError::new(pointer(&[name]), "must be given only once"))
        .collect();
    match T::parse(value) {
        Ok(input) if errors.is_empty() => Ok(input),
        Ok(_) => Err(errors),
        Err(others) => {
            let mut reported: Vec<String> = errors.iter().map(|error| error.pointer.clone()).collect();
            reported.sort_unstable();
            let others = others
                .into_iter()
                .filter(|error| reported.binary_search(&error.pointer).is_err());
            errors.extend(others);
            Err(errors)
        }
    }
}

/// The names that several members of an object have. RFC 8259, section 4, leaves their meaning
/// open; a [`Value`] has the last.
fn repeated(text: &[u8]) -> Vec<String> {
    struct Names;

    impl<'de> Visitor<'de> for Names {
        type Value = Vec<String>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Vec<String>, A::Error> {
            let mut names = Vec::new();
            while let Some((name, IgnoredAny)) = members.next_entry()? {
                names.push(name);
            }
            Ok(names)
        }
    }

    // Other values have no members.
    let names = serde_json::Deserializer::from_slice(text).deserialize_map(Names);
    let mut names = names.unwrap_or_default();
    names.sort_unstable();
    let repeated = names.chunk_by(|one, other| one == other).filter(|same| same.len() > 1);
    repeated.map(|same| same[0].clone()).collect()
}

/// The members of an object that are still to be read, and the mistakes in those that were.
pub(super) struct Members {
    unread: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Members {
    /// The members of `value`, which must be an object.
    pub fn of(value: Value) -> Result<Self, Vec<FieldError>> {
        match value {
            Value::Object(unread) => Ok(Self {
                unread,
                errors: Vec::new(),
            }),
            _ => Err(vec![FieldError::new("#", "must be an object")]),
        }
    }

    /// Reads an optional member.
    pub fn optional<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let value = self.unread.remove(name)?;
        serde_json::from_value(value)
            .map_err(|error| self.errors.push(FieldError::new(pointer(&[name]), error)))
            .ok()
    }

    /// Reads a required member.
    pub fn required<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        if !self.unread.contains_key(name) {
            self.errors.push(FieldError::new(pointer(&[name]), "is required"));
        }
        self.optional(name)
    }

    /// Reports a mistake in a member.
    pub fn reject(&mut self, name: &str, detail: impl ToString) {
        self.errors.push(FieldError::new(pointer(&[name]), detail));
    }

    /// Reports a mistake in the object as a whole.
    pub fn reject_all(&mut self, detail: impl ToString) {
        self.errors.push(FieldError::new("#", detail));
    }

    /// Reports the members that were not read as unknown. Returns `value` if there was no mistake.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, Vec<FieldError>> {
        let unknown = self.unread.keys();
        let unknown = unknown.map(|name| FieldError::new(pointer(&[name]), "is not a member of this object"));
        self.errors.extend(unknown);
        match value {
            Some(value) if self.errors.is_empty() => Ok(value),
            _ => Err(self.errors),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes every object.
    struct Any;

    impl Input for Any {
        fn parse(_: Value) -> Result<Self, Vec<FieldError>> {
            Ok(Self)
        }
    }

    fn repeated_pointers(text: &str) -> Vec<String> {
        let value = serde_json::from_str(text).expect("JSON");
        let errors = parse::<Any>(value, text.as_bytes()).err().unwrap_or_default();
        errors.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn each_repeated_name_is_reported_once() {
        for text in ["{}", r#"{"a":1,"b":2,"A":3}"#, r#"[{"a":1,"a":2}]"#, "7", "null"] {
            assert_eq!(repeated_pointers(text), [""; 0], "{text}");
        }
        assert_eq!(
            repeated_pointers(r#"{"b":1,"a":2,"b":3,"b":4,"\u0061":5}"#),
            ["#/a", "#/b"]
        );
    }
}
