//! Titles and descriptions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a text is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Empty or only whitespace.
    #[error("must not be blank")]
    Blank,
    /// More characters (Unicode scalar values) than the column allows.
    #[error("must be at most {max} characters long, but has {actual}")]
    TooLong {
        /// The maximum.
        max: usize,
        /// The number of characters sent.
        actual: usize,
    },
    /// Postgres cannot store U+0000 in a `text`.
    #[error("must not contain the NUL character (U+0000)")]
    Nul,
}

/// Checks that a text is short enough and can be stored in Postgres.
pub(super) fn check(text: &str, max: usize) -> Result<(), TextError> {
    if text.contains('\0') {
        return Err(TextError::Nul);
    }
    match text.chars().count() {
        actual if actual > max => Err(TextError::TooLong { max, actual }),
        _ => Ok(()),
    }
}

/// A title: 1 to 255 characters, not blank, stored exactly as sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(try_from = "String")]
#[sqlx(transparent)]
// The pattern lists the characters of `char::is_whitespace`, because `\s` differs between regex
// dialects.
#[schema(
    min_length = 1,
    max_length = 255,
    pattern = r"^[^\u0000]*[^\u0000\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000][^\u0000]*$",
    example = "Process user data"
)]
pub struct Title(String);

impl Title {
    /// The maximum length; the database has a CHECK with the same number.
    pub const MAX_CHARS: usize = 255;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Title {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        if text.trim().is_empty() {
            return Err(TextError::Blank);
        }
        check(&text, Self::MAX_CHARS)?;
        Ok(Self(text))
    }
}

/// A description: up to 10,000 characters, stored exactly as sent; may be empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(try_from = "String")]
#[sqlx(transparent)]
#[schema(max_length = 10000, pattern = r"^[^\u0000]*$", example = "Count the words of this")]
pub struct Description(String);

impl Description {
    /// The maximum length; the database has a CHECK with the same number.
    pub const MAX_CHARS: usize = 10_000;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Description {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        check(&text, Self::MAX_CHARS)?;
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn title(text: &str) -> Result<Title, TextError> {
        Title::try_from(text.to_owned())
    }

    #[test]
    fn title_is_stored_exactly_as_sent() {
        assert_eq!(title(" Ship it 🚀 ").map(|t| t.0), Ok(" Ship it 🚀 ".to_owned()));
    }

    #[test]
    fn blank_title_is_rejected() {
        for blank in ["", " ", "\t\r\n", "\u{2003}\u{a0}"] {
            assert_eq!(title(blank), Err(TextError::Blank), "{blank:?}");
        }
    }

    #[test]
    fn length_is_counted_in_characters_not_bytes() {
        assert!(title(&"é".repeat(255)).is_ok());
        assert_eq!(
            title(&"é".repeat(256)),
            Err(TextError::TooLong { max: 255, actual: 256 })
        );
    }

    #[test]
    fn nul_character_is_rejected_in_both_texts() {
        assert_eq!(title("a\0b"), Err(TextError::Nul));
        assert_eq!(Description::try_from("a\0b".to_owned()), Err(TextError::Nul));
    }

    #[test]
    fn description_may_be_empty_but_not_too_long() {
        assert!(Description::try_from(String::new()).is_ok());
        assert!(Description::try_from("x".repeat(10_000)).is_ok());
        assert_eq!(
            Description::try_from("x".repeat(10_001)),
            Err(TextError::TooLong {
                max: 10_000,
                actual: 10_001
            })
        );
    }
}
