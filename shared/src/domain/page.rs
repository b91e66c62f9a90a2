//! Which part of a list a client asked for.

use super::FieldError;

/// `?skip=..&limit=..` of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// How many tasks to pass over, from 0.
    pub skip: i64,
    /// How many tasks to return at the most, 1 to [`Page::MAX_LIMIT`].
    pub limit: i64,
}

impl Default for Page {
    fn default() -> Self {
        Self {
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
                "skip" => integer(value, 0, i64::MAX).map(|skip| page.skip = skip),
                "limit" => integer(value, 1, Self::MAX_LIMIT).map(|limit| page.limit = limit),
                _ => Err("is not a parameter of this route; it takes skip and limit".to_owned()),
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
    fn both_parameters_are_optional() {
        assert_eq!(Page::parse([]), Ok(Page { skip: 0, limit: 100 }));
        assert_eq!(
            Page::parse([("limit", "1"), ("skip", "9223372036854775807")]),
            Ok(Page {
                skip: i64::MAX,
                limit: 1
            })
        );
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
