//! Parses a JSON object and reports every mistake in it, not only the first.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::FieldError;

/// A request body that is a JSON object.
pub trait Input: Sized {
    /// Parses the object, or reports every mistake in it.
    fn parse(value: Value) -> Result<Self, Vec<FieldError>>;
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
            .map_err(|error| self.errors.push(FieldError::new(pointer(name), error)))
            .ok()
    }

    /// Reads a required member.
    pub fn required<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        if !self.unread.contains_key(name) {
            self.errors.push(FieldError::new(pointer(name), "is required"));
        }
        self.optional(name)
    }

    /// Reports the members that were not read as unknown. Returns `value` if there was no mistake.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, Vec<FieldError>> {
        let unknown = self.unread.keys();
        let unknown = unknown.map(|name| FieldError::new(pointer(name), "is not a member of this object"));
        self.errors.extend(unknown);
        match value {
            Some(value) if self.errors.is_empty() => Ok(value),
            _ => Err(self.errors),
        }
    }
}

/// The JSON pointer of a member, as a URI fragment (RFC 6901, sections 3 and 6).
fn pointer(name: &str) -> String {
    format!("#/{}", name.replace('~', "~0").replace('/', "~1"))
}
