//! The request from API Gateway.

use std::collections::HashMap;

use serde::Deserialize;

use crate::Refusal;

/// The maximum size of a token, in bytes. API Gateway limits all headers to 10,240 bytes in total
/// (Amazon API Gateway Developer Guide, "Quotas for configuring and running a REST API").
const MAX_TOKEN: usize = 8 * 1024;

/// An authorization request. Not the type from `aws_lambda_events`: that fails to parse some header
/// values, which would cause a 500.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The called method, like
    /// `arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/prod/GET/tasks/7`.
    pub method_arn: String,
    /// Each header's last value.
    pub headers: Option<HashMap<String, Option<String>>>,
    /// Each header's values.
    pub multi_value_headers: Option<HashMap<String, Option<Vec<Option<String>>>>>,
}

impl Event {
    /// The token of `Authorization: Bearer <token>` (RFC 6750, section 2.1).
    pub fn token(&self) -> Result<&str, Refusal> {
        let mut values = self.authorization();
        // Two are ambiguous: API Gateway may use one as its cache key, while we verify the other.
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Refusal::NoToken);
        };
        let (scheme, token) = value.split_once(' ').ok_or(Refusal::NoToken)?;
        let token = token.trim_start_matches(' ');
        if token.is_empty() || !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Refusal::NoToken);
        }
        if token.len() > MAX_TOKEN {
            return Err(Refusal::TooLarge);
        }
        Ok(token)
    }

    /// The values of all `Authorization` headers, whose names are case-insensitive.
    fn authorization(&self) -> impl Iterator<Item = &str> {
        let multi = self.multi_value_headers.iter().flatten();
        let multi = multi.flat_map(|(name, values)| values.iter().flatten().map(move |value| (name, value)));
        let single = self.headers.iter().filter(|_| self.multi_value_headers.is_none());
        multi
            .chain(single.flatten())
            .filter(|(name, _)| name.eq_ignore_ascii_case("authorization"))
            .filter_map(|(_, value)| value.as_deref())
    }
}
