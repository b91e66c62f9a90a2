//! Reads an object that a client sent and finds everything that is wrong with it, not only the first thing.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::FieldError;

/// What clients send as a JSON object.
pub trait Input: Sized {
    /// Parses the object; if it is not valid, says all that is wrong with it.
    fn parse(value: Value) -> Result<Self, Vec<FieldError>>;
}

/// The members of an object that have not been read yet, and what was wrong with those that have.
pub(super) struct Members {
    unread: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Members {
    /// The members of an object; anything else is a mistake.
    pub fn of(value: Value) -> Result<Self, Vec<FieldError>> {
        match value {
            Value::Object(unread) => Ok(Self {
                unread,
                errors: Vec::new(),
            }),
            _ => Err(vec![FieldError::new("#", "must be an object")]),
        }
    }

    /// Reads a member that may be missing.
    pub fn optional<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let value = self.unread.remove(name)?;
        serde_json::from_value(value)
            .map_err(|error| self.errors.push(FieldError::new(pointer(name), error)))
            .ok()
    }

    /// Reads a member that must be there.
    pub fn required<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        if !self.unread.contains_key(name) {
            self.errors.push(FieldError::new(pointer(name), "is required"));
        }
        self.optional(name)
    }

    /// Ends the reading: what is unread is unknown. Without any mistake `value` is there and valid.
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

/// The JSON pointer of a member, as URI fragment (RFC 6901, sections 3 and 6).
fn pointer(name: &str) -> String {
    format!("#/{}", name.replace('~', "~0").replace('/', "~1"))
}
