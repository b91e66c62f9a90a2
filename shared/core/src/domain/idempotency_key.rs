//! Idempotency keys, with which clients mark a request as a retry of another.

/// The value of an `Idempotency-Key` header: 1 to 255 visible ASCII characters except `"`, chosen
/// by the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// The text is not an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 255 visible ASCII characters without inner quotes, for example a UUID")]
pub struct InvalidIdempotencyKey;

impl IdempotencyKey {
    /// The maximum length; the database has a CHECK with the same number.
    pub const MAX_CHARS: usize = 255;

    /// Parses the value of the header. A quoted string, as in
    /// draft-ietf-httpapi-idempotency-key-header, section 2.1, and the same text without quotes, as
    /// most clients send it, are the same key.
    pub fn parse(value: &[u8]) -> Result<Self, InvalidIdempotencyKey> {
        let text = std::str::from_utf8(value).map_err(|_| InvalidIdempotencyKey)?;
        // Optional whitespace in HTTP (RFC 9110, section 5.6.3) is narrower than whitespace in
        // Unicode.
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

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_key_equals_unquoted_key() {
        let key = Ok(IdempotencyKey("8e03978e-40d5-43dd-bc93-6894a57f9324".to_owned()));
        assert_eq!(IdempotencyKey::parse(b"8e03978e-40d5-43dd-bc93-6894a57f9324"), key);
        assert_eq!(
            IdempotencyKey::parse(b" \"8e03978e-40d5-43dd-bc93-6894a57f9324\" "),
            key
        );
        assert!(IdempotencyKey::parse("k".repeat(255).as_bytes()).is_ok());
    }

    #[test]
    fn malformed_keys_are_rejected() {
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
