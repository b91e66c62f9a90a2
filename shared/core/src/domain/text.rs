//! Titles and descriptions.

use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// Why a text is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Empty, or only invisible characters.
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

/// Characters without a shape of their own: white space, control characters, those that are ignored
/// by default (Unicode, DerivedCoreProperties.txt, `Default_Ignorable_Code_Point`), and the
/// blanks among the letters and symbols. The pattern of [`Title`] lists the same.
const INVISIBLE: [RangeInclusive<char>; 25] = [
    '\0'..=' ',
    '\u{7f}'..='\u{a0}',
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{61c}'..='\u{61c}',
    '\u{115f}'..='\u{1160}',
    '\u{1680}'..='\u{1680}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{2000}'..='\u{200f}',
    '\u{2028}'..='\u{202f}',
    '\u{205f}'..='\u{206f}',
    '\u{2800}'..='\u{2800}',
    '\u{3000}'..='\u{3000}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{fff0}'..='\u{fffb}',
    '\u{13430}'..='\u{13442}',
    '\u{16fe4}'..='\u{16fe4}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d159}'..='\u{1d159}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}',
];

fn is_invisible(character: char) -> bool {
    INVISIBLE.iter().any(|range| range.contains(&character))
}

/// A title: 1 to 255 characters, not blank, stored exactly as sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(try_from = "String")]
#[sqlx(transparent)]
// The dialects of regular expressions differ in names for such characters, and in escapes of those
// beyond U+FFFF: the pattern contains these themselves.
#[schema(
    min_length = 1,
    max_length = 255,
    pattern = "^[^\\u0000]*[^\\u0000-\\u0020\\u007f-\\u00a0\\u00ad\\u034f\\u061c\\u115f\\u1160\\u1680\\u17b4\\u17b5\\u180b-\\u180f\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u206f\\u2800\\u3000\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb\u{13430}-\u{13442}\u{16fe4}\u{1bca0}-\u{1bca3}\u{1d159}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}][^\\u0000]*$",
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

/// Reads a title that is stored already: the rules may have been different then.
pub(super) fn stored_title<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Title, D::Error> {
    String::deserialize(deserializer).map(Title)
}

impl TryFrom<String> for Title {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        if text.chars().all(is_invisible) {
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
        let invisible = INVISIBLE.into_iter().flatten().map(String::from);
        let blanks = ["", " ", "\t\r\n", "\u{2003}\u{a0}", "\u{200b}\u{2800}\u{fe0f}\u{e0020}"];
        for blank in invisible.chain(blanks.map(str::to_owned)) {
            assert_eq!(title(&blank), Err(TextError::Blank), "{blank:?}");
        }
    }

    #[test]
    fn title_with_visible_character_is_accepted() {
        let white_space = ('\0'..=char::MAX).filter(|character| character.is_whitespace() || character.is_control());
        assert!(white_space.into_iter().all(is_invisible));
        for visible in [
            "\u{200b}a",
            "👩\u{200d}💻",
            "❤\u{fe0f}",
            ".",
            "\u{301}",
            "ﷺ",
            "\u{fffd}",
            "\u{e000}",
        ] {
            assert!(title(visible).is_ok(), "{visible:?}");
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
