//! Signatures of requests to AWS (AWS General Reference, "Create a signed AWS API request").
//!
//! Implemented here because aws-sigv4 would add 20 crates to functions that only read; tests
//! compare the results with botocore's.

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::config::AwsCredentials;

/// Signs the requests of one moment to one service.
pub struct Signer<'a> {
    credentials: &'a AwsCredentials,
    service: &'static str,
    date: String,
    /// The value of `X-Amz-Date`.
    pub moment: String,
}

impl<'a> Signer<'a> {
    pub fn new(credentials: &'a AwsCredentials, service: &'static str, now: OffsetDateTime) -> Self {
        let (year, month, day) = now.to_calendar_date();
        let date = format!("{year:04}{:02}{day:02}", u8::from(month));
        let (hour, minute, second) = now.to_hms();
        Self {
            credentials,
            service,
            moment: format!("{date}T{hour:02}{minute:02}{second:02}Z"),
            date,
        }
    }

    fn scope(&self) -> String {
        format!(
            "{}/{}/{}/aws4_request",
            self.date, self.credentials.region, self.service
        )
    }

    /// The access key and what the signature is valid for.
    pub fn credential(&self) -> String {
        format!("{}/{}", self.credentials.access_key_id, self.scope())
    }

    /// The signature of a canonical request.
    pub fn sign(&self, request: &str) -> String {
        let (moment, scope) = (&self.moment, self.scope());
        let to_sign = format!("AWS4-HMAC-SHA256\n{moment}\n{scope}\n{}", digest(request));
        let secret = format!("AWS4{}", self.credentials.secret_access_key);
        let key = [
            &self.date,
            self.credentials.region.as_str(),
            self.service,
            "aws4_request",
        ]
        .into_iter()
        .fold(secret.into_bytes(), |key, part| hmac(&key, part));
        hmac(&key, &to_sign).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The headers that sign a request without a query. Its path has no characters to be escaped.
    pub fn headers(&self, method: &str, host: &str, path: &str, body: &str) -> Vec<(&'static str, String)> {
        let mut headers = vec![("x-amz-date", self.moment.clone())];
        if let Some(token) = &self.credentials.session_token {
            headers.push(("x-amz-security-token", token.clone()));
        }
        // Sorted by name, as the signature requires.
        let (mut lines, mut names) = (format!("host:{host}\n"), "host".to_owned());
        for (name, value) in &headers {
            lines += &format!("{name}:{value}\n");
            names += &format!(";{name}");
        }
        let request = format!("{method}\n{path}\n\n{lines}\n{names}\n{}", digest(body));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}, SignedHeaders={names}, Signature={}",
            self.credential(),
            self.sign(&request)
        );
        headers.push(("authorization", authorization));
        headers
    }
}

/// The digest of a body, as a canonical request has it.
pub fn digest(text: &str) -> String {
    format!("{:x}", Sha256::digest(text))
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key may have any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_match_botocore() {
        // From SigV4Auth of botocore 1.43.106.
        let now = OffsetDateTime::from_unix_timestamp(1_795_387_412).expect("a time");
        let path = "/2015-03-31/event-source-mappings/a1b2c3d4-0000-4000-8000-00c0ffee0001";
        let host = "lambda.eu-central-1.amazonaws.com";
        let token = "IQoJb3JpZ2luX2VjEA//+/=a b~c";
        for (session_token, method, body, signature) in [
            (
                None,
                "GET",
                "",
                "5cbd417e1a4b6b971e08758e12db045f124ffe3978cd3ed8a8e0c24b0ee4170d",
            ),
            (
                None,
                "PUT",
                r#"{"Enabled":false}"#,
                "37ce2ca11b55879e8a80c72137c574a4a30f9bf77fda8cd8faec5ba32af8771b",
            ),
            (
                Some(token),
                "GET",
                "",
                "bceea7a1a251c9caab67ec94b1482df06d748b565a27cd56b3fb1f01ec19bce2",
            ),
            (
                Some(token),
                "PUT",
                r#"{"Enabled":false}"#,
                "dadff5f893ded3c83849239757c7f171ae324e207c89c456cf21c220a0d72c5a",
            ),
        ] {
            let credentials = AwsCredentials {
                access_key_id: "AKIDEXAMPLE".to_owned(),
                secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
                session_token: session_token.map(str::to_owned),
                region: "eu-central-1".to_owned(),
            };
            let headers = Signer::new(&credentials, "lambda", now).headers(method, host, path, body);
            let names = match session_token {
                None => "host;x-amz-date",
                Some(_) => "host;x-amz-date;x-amz-security-token",
            };
            let authorization = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-central-1/lambda/aws4_request, \
                 SignedHeaders={names}, Signature={signature}"
            );
            let mut expected = vec![("x-amz-date", "20261122T224332Z".to_owned())];
            expected.extend(session_token.map(|token| ("x-amz-security-token", token.to_owned())));
            expected.push(("authorization", authorization));
            assert_eq!(headers, expected, "{method}");
        }
    }
}
