//! Which part of a list a client asked for.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{FieldError, TaskId};

/// A place in a list, right after one of its tasks. Opaque to clients.
///
/// It stays where it is while tasks before it are deleted, which a number of tasks to skip does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(TaskId);

/// The text is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a cursor as a Link header has it")]
pub struct InvalidCursor;

impl Cursor {
    /// The place after this task.
    pub fn after(id: TaskId) -> Self {
        Self(id)
    }

    /// The task before the place.
    pub fn task(self) -> TaskId {
        self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0.get().to_be_bytes()))
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let bytes: [u8; 8] = bytes.try_into().map_err(|_| InvalidCursor)?;
        let id = TaskId::try_from(i64::from_be_bytes(bytes)).map_err(|_| InvalidCursor)?;
        Ok(Self(id))
    }
}

/// `?after=..&skip=..&limit=..` of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Where to begin; at the first task if there is none.
    pub after: Option<Cursor>,
    /// How many tasks to pass over from there, from 0.
    pub skip: i64,
    /// How many tasks to return at the most, 1 to [`Page::MAX_LIMIT`].
    pub limit: i64,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            after: None,
            skip: 0,
            limit: Self::MAX_LIMIT,
        }
    }
}

impl Page {
    /// The most tasks one page holds, and how many it holds when the client does not say.
    pub const MAX_LIMIT: i64 = 100;

    /// Parses query parameters; reports every mistake, not only the first.
    ///
    /// An unknown parameter is a mistake too: `?offset=10` would otherwise answer with the first page
    /// and look as if it had worked.
    pub fn parse<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Vec<FieldError>> {
        let mut page = Self::default();
        let mut seen = Vec::new();
        let mut errors = Vec::new();
        for (name, value) in parameters {
            let outcome = match name {
                _ if seen.contains(&name) => Err("must be given only once".to_owned()),
                "after" => value
                    .parse()
                    .map(|cursor| page.after = Some(cursor))
                    .map_err(|error: InvalidCursor| error.to_string()),
                "skip" => integer(value, 0, i64::MAX).map(|skip| page.skip = skip),
                "limit" => integer(value, 1, Self::MAX_LIMIT).map(|limit| page.limit = limit),
                _ => Err("is not a parameter of this route; it takes after, skip and limit".to_owned()),
            };
            seen.push(name);
            if let Err(detail) = outcome {
                errors.push(FieldError::new(format!("#/query/{name}"), detail));
            }
        }
        if errors.is_empty() { Ok(page) } else { Err(errors) }
    }
}

fn integer(text: &str, min: i64, max: i64) -> Result<i64, String> {
    match text.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("must be an integer from {min} to {max}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(parameters: &[(&str, &str)]) -> Vec<String> {
        let errors = Page::parse(parameters.iter().copied()).expect_err("invalid");
        errors.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn every_parameter_is_optional() {
        assert_eq!(
            Page::parse([]),
            Ok(Page {
                after: None,
                skip: 0,
                limit: 100
            })
        );
        assert_eq!(
            Page::parse([("limit", "1"), ("skip", "9223372036854775807")]),
            Ok(Page {
                after: None,
                skip: i64::MAX,
                limit: 1
            })
        );
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is_one() {
        for id in [1, 7, i64::MAX] {
            let cursor = Cursor::after(TaskId::try_from(id).expect("an id"));
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
            assert_eq!(
                Page::parse([("after", &*cursor.to_string())]).map(|page| page.after),
                Ok(Some(cursor))
            );
        }
        for bad in [
            "",
            "7",
            "AAAAAAAAAAA",
            "AAAAAAAAAAc=",
            "AAAAAAAAAAd",
            "//////////8",
            "__________8",
            "AAAAAAAAAAcA",
        ] {
            assert_eq!(pointers(&[("after", bad)]), ["#/query/after"], "{bad}");
        }
    }

    #[test]
    fn values_outside_the_range_are_refused() {
        for bad in ["0", "101", "-1", "abc", "", "1.5", "9223372036854775808"] {
            assert_eq!(pointers(&[("limit", bad)]), ["#/query/limit"], "{bad:?}");
        }
        for bad in ["-1", "abc", "", "9223372036854775808"] {
            assert_eq!(pointers(&[("skip", bad)]), ["#/query/skip"], "{bad:?}");
        }
    }

    #[test]
    fn every_mistake_is_reported_unknown_and_repeated_parameters_too() {
        assert_eq!(
            pointers(&[("skip", "x"), ("limit", "0"), ("offset", "3"), ("limit", "5")]),
            ["#/query/skip", "#/query/limit", "#/query/offset", "#/query/limit"]
        );
    }
}
