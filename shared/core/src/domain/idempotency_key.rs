//! How a client marks two requests as one.

/// The value of an `Idempotency-Key` header: 1 to 255 visible ASCII characters but `"`, chosen by the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// The text is not an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 255 visible ASCII characters without quotes in between, for example a UUID")]
pub struct InvalidIdempotencyKey;

impl IdempotencyKey {
    /// The most characters a key may have; the same number is a CHECK in the database.
    pub const MAX_CHARS: usize = 255;

    /// Parses a header's value. With quotes it is a string as the draft wants it (draft-ietf-httpapi-idempotency-key-header,
    /// section 2.1), without them it is what most clients send: both mean the same key.
    pub fn parse(value: &[u8]) -> Result<Self, InvalidIdempotencyKey> {
        let text = std::str::from_utf8(value).map_err(|_| InvalidIdempotencyKey)?;
        // What HTTP takes for white space around a value (RFC 9110, section 5.6.3); Unicode has more.
        let text = text.trim_matches([' ', '\t']);
        let key = text
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap_or(text);
        let valid = (1..=Self::MAX_CHARS).contains(&key.len())
            && key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
        if valid {
            Ok(Self(key.to_owned()))
        } else {
            Err(InvalidIdempotencyKey)
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_with_and_without_quotes() {
        let key = Ok(IdempotencyKey("8e03978e-40d5-43dd-bc93-6894a57f9324".to_owned()));
        assert_eq!(IdempotencyKey::parse(b"8e03978e-40d5-43dd-bc93-6894a57f9324"), key);
        assert_eq!(
            IdempotencyKey::parse(b" \"8e03978e-40d5-43dd-bc93-6894a57f9324\" "),
            key
        );
        assert!(IdempotencyKey::parse("k".repeat(255).as_bytes()).is_ok());
    }

    #[test]
    fn empty_long_and_invisible_keys_are_refused() {
        let long = "k".repeat(256);
        for bad in [
            "",
            "  ",
            "\"\"",
            "\"",
            "a\"b",
            "\u{a0}k",
            "a b",
            "a\tb",
            "clé",
            long.as_str(),
        ] {
            assert_eq!(
                IdempotencyKey::parse(bad.as_bytes()),
                Err(InvalidIdempotencyKey),
                "{bad:?}"
            );
        }
        assert_eq!(IdempotencyKey::parse(b"\xff"), Err(InvalidIdempotencyKey));
    }
}
