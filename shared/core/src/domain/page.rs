//! The query of a list: keyset pagination, sorting and filters.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::{FieldError, Status, TaskId, pointer, text::check};

/// A keyset pagination cursor: the position next to a task in the list. Opaque to clients.
///
/// Unlike an offset, it stays stable while tasks are created and deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub TaskId);

/// The text is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a cursor from a Link header")]
pub struct InvalidCursor;

impl Cursor {
    /// The id and a checksum, which detects truncated or edited cursors. The checksum is not a
    /// secret: callers may start a page anywhere.
    fn bytes(self) -> [u8; 12] {
        let id = self.0.get().to_be_bytes();
        let checksum = Sha256::new().chain_update(b"task cursor 1").chain_update(id).finalize();
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&id);
        bytes[8..].copy_from_slice(&checksum[..4]);
        bytes
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.bytes()))
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let id = bytes
            .first_chunk()
            .map(|id| i64::from_be_bytes(*id))
            .ok_or(InvalidCursor)?;
        let cursor = Self(TaskId::try_from(id).map_err(|_| InvalidCursor)?);
        if cursor.bytes() == *bytes {
            Ok(cursor)
        } else {
            Err(InvalidCursor)
        }
    }
}

/// The start of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the first task.
    #[default]
    First,
    /// Right after a cursor.
    After(Cursor),
    /// The page that ends right before a cursor.
    Before(Cursor),
}

/// The order of the tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ToSchema)]
pub enum Sort {
    /// `id`: oldest first.
    #[default]
    #[schema(rename = "id")]
    OldestFirst,
    /// `-id`: newest first.
    #[schema(rename = "-id")]
    NewestFirst,
}

impl Sort {
    /// The value of the query parameter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OldestFirst => "id",
            Self::NewestFirst => "-id",
        }
    }
}

/// The filters of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only tasks with this status.
    pub status: Option<Status>,
    /// Only tasks whose title contains this text, ignoring case.
    pub title: Option<String>,
}

/// The query of `GET /tasks`: `?after|before&skip&limit&sort&status&q&count`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub start: Start,
    /// The number of tasks to skip from there, at most [`Page::MAX_SKIP`].
    pub skip: i64,
    /// The maximum number of tasks to return, 1 to [`Page::MAX_LIMIT`].
    pub limit: i64,
    pub sort: Sort,
    pub filter: Filter,
    /// Whether to count all tasks that match the filter.
    pub count: bool,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            start: Start::First,
            skip: 0,
            limit: Self::MAX_LIMIT,
            sort: Sort::default(),
            filter: Filter::default(),
            count: false,
        }
    }
}

impl Page {
    /// The maximum and default number of tasks per page.
    pub const MAX_LIMIT: i64 = 100;

    /// The maximum number of tasks to skip, because Postgres reads them all.
    pub const MAX_SKIP: i64 = 10_000;

    /// The maximum length of the text to search for in titles.
    pub const MAX_SEARCH_CHARS: usize = 255;

    /// Parses query parameters; reports every mistake, not only the first.
    ///
    /// Unknown parameters are mistakes: otherwise `?offset=10` would return the first page and
    /// appear to work.
    pub fn parse<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Vec<FieldError>> {
        let mut page = Self::default();
        let mut seen = Vec::new();
        let mut errors = Vec::new();
        for (name, value) in parameters {
            let outcome = if seen.contains(&name) {
                Err("must be given only once".to_owned())
            } else {
                page.set(name, value)
            };
            seen.push(name);
            if let Err(detail) = outcome {
                errors.push(FieldError::new(pointer(&["query", name]), detail));
            }
        }
        if seen.contains(&"after") && seen.contains(&"before") {
            errors.push(FieldError::new(
                "#/query/before",
                "must not be given together with after",
            ));
        }
        if errors.is_empty() { Ok(page) } else { Err(errors) }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let cursor = || value.parse::<Cursor>().map_err(|error| error.to_string());
        match name {
            "after" => self.start = Start::After(cursor()?),
            "before" => self.start = Start::Before(cursor()?),
            "skip" => {
                let further = |detail| format!("{detail}; to go further, follow the Link header");
                self.skip = integer(value, 0, Self::MAX_SKIP).map_err(further)?;
            }
            "limit" => self.limit = integer(value, 1, Self::MAX_LIMIT)?,
            "sort" => {
                let sorts = [Sort::OldestFirst, Sort::NewestFirst];
                self.sort = one_of(value, sorts, Sort::as_str)?;
            }
            "status" => self.filter.status = Some(one_of(value, Status::ALL, Status::as_str)?),
            "q" => {
                check(value, Self::MAX_SEARCH_CHARS).map_err(|error| error.to_string())?;
                // An empty search field does not filter.
                self.filter.title = Some(value.to_owned()).filter(|text| !text.is_empty());
            }
            "count" => self.count = one_of(value, [true, false], |count| if count { "true" } else { "false" })?,
            _ => {
                let known = "after, before, skip, limit, sort, status, q and count";
                return Err(format!("is not a parameter of this route, which supports {known}"));
            }
        }
        Ok(())
    }
}

/// Parses the only query parameter of the log of actions: the id before which a page begins.
pub fn before<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Option<i64>, Vec<FieldError>> {
    let (mut before, mut errors) = (None, Vec::new());
    for (name, value) in parameters {
        let outcome = match name {
            "before" if before.is_some() => Err("must be given only once".to_owned()),
            "before" => integer(value, 1, i64::MAX).map(|id| before = Some(id)),
            _ => Err("is not a parameter of this route, which supports before".to_owned()),
        };
        if let Err(detail) = outcome {
            errors.push(FieldError::new(pointer(&["query", name]), detail));
        }
    }
    if errors.is_empty() { Ok(before) } else { Err(errors) }
}

/// Parses the id of an action.
pub fn action_id(text: &str) -> Result<i64, FieldError> {
    integer(text, 1, i64::MAX).map_err(|detail| FieldError::new("#/path/id", detail))
}

/// Each number has one spelling, so `+5`, `007` and `-0` are invalid.
fn integer(text: &str, min: i64, max: i64) -> Result<i64, String> {
    match text.parse::<i64>() {
        Ok(number) if (min..=max).contains(&number) && number.to_string() == text => Ok(number),
        _ => Err(format!("must be an integer from {min} to {max}")),
    }
}

fn one_of<T: Copy, const N: usize>(text: &str, values: [T; N], word: impl Fn(T) -> &'static str) -> Result<T, String> {
    let found = values.into_iter().find(|value| word(*value) == text);
    found.ok_or_else(|| format!("must be one of: {}", values.map(word).join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(parameters: &[(&str, &str)]) -> Vec<String> {
        let errors = Page::parse(parameters.iter().copied()).expect_err("invalid");
        errors.into_iter().map(|error| error.pointer).collect()
    }

    fn cursor(id: i64) -> Cursor {
        Cursor(TaskId::try_from(id).expect("an id"))
    }

    #[test]
    fn every_parameter_is_optional() {
        assert_eq!(Page::parse([]), Ok(Page::default()));
        let after = cursor(7).to_string();
        let all = [
            ("limit", "1"),
            ("skip", "10000"),
            ("after", &after),
            ("sort", "-id"),
            ("status", "failed"),
            ("q", "50% off"),
            ("count", "true"),
        ];
        let page = Page {
            start: Start::After(cursor(7)),
            skip: 10_000,
            limit: 1,
            sort: Sort::NewestFirst,
            filter: Filter {
                status: Some(Status::Failed),
                title: Some("50% off".to_owned()),
            },
            count: true,
        };
        assert_eq!(Page::parse(all), Ok(page));
        assert_eq!(Page::parse([("q", "")]), Ok(Page::default()));
    }

    #[test]
    fn cursor_round_trips() {
        for id in [1, 7, i64::MAX] {
            assert_eq!(cursor(id).to_string().parse(), Ok(cursor(id)));
        }
    }

    #[test]
    fn tampered_cursor_is_rejected() {
        let good = cursor(7).to_string();
        let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=+/ ";
        for at in 0..good.len() {
            for letter in letters.chars().filter(|letter| !good[at..].starts_with(*letter)) {
                let bad = format!("{}{letter}{}", &good[..at], &good[at + 1..]);
                assert_eq!(bad.parse::<Cursor>(), Err(InvalidCursor), "{bad}");
            }
        }
        for bad in [
            "",
            "7",
            &good[1..],
            &good[..15],
            &format!("{good}A"),
            &format!("{good}AAAA"),
            &cursor(7).0.to_string(),
        ] {
            assert_eq!(bad.parse::<Cursor>(), Err(InvalidCursor), "{bad}");
        }
        assert_eq!(pointers(&[("after", "AAAA")]), ["#/query/after"]);
        assert_eq!(pointers(&[("before", "AAAA")]), ["#/query/before"]);
        assert_eq!(pointers(&[("before", &good), ("after", &good)]), ["#/query/before"]);
    }

    #[test]
    fn values_out_of_range_are_rejected() {
        for (name, bads) in [
            (
                "limit",
                &[
                    "0",
                    "101",
                    "-1",
                    "abc",
                    "",
                    "1.5",
                    "9223372036854775808",
                    "+5",
                    "007",
                    " 5",
                    "٥",
                    "1_0",
                ][..],
            ),
            (
                "skip",
                &[
                    "-1",
                    "abc",
                    "",
                    "10001",
                    "1500000",
                    "9223372036854775808",
                    "-0",
                    "+0",
                    "00",
                ],
            ),
            ("sort", &["", "ID", "title", "+id"]),
            ("status", &["", "Failed", "done"]),
            ("count", &["", "1", "TRUE"]),
            ("q", &["a\0b", &"x".repeat(256)]),
        ] {
            for bad in bads {
                assert_eq!(pointers(&[(name, bad)]), [format!("#/query/{name}")], "{bad:?}");
            }
        }
    }

    #[test]
    fn every_mistake_in_query_is_reported() {
        assert_eq!(
            pointers(&[("skip", "x"), ("limit", "0"), ("offset", "3"), ("limit", "5")]),
            ["#/query/skip", "#/query/limit", "#/query/offset", "#/query/limit"]
        );
        assert_eq!(
            pointers(&[("a/b~ö", "1"), ("", "2")]),
            ["#/query/a~1b~0%C3%B6", "#/query/"]
        );
    }
}
