//! X-Ray trace headers: AWS X-Ray follows a task from its request through the queue to its worker.

use lambda_http::Context;

/// A valid tracing header, for example
/// `Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1` (AWS X-Ray
/// Developer Guide, "Tracing header").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceHeader {
    header: String,
    trace_id: String,
}

impl TraceHeader {
    /// `None` if the header contains no trace id or is malformed. A bad header must not fail a
    /// request or a message.
    pub fn parse(header: &str) -> Option<Self> {
        let is_text = header.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let mut parts = header.split(';').map(str::trim);
        let trace_id = parts.find_map(|part| part.strip_prefix("Root="))?;
        (is_text && is_trace_id(trace_id)).then(|| Self {
            header: header.to_owned(),
            trace_id: trace_id.to_owned(),
        })
    }

    /// The trace of an invocation, which Lambda starts or continues if tracing is active.
    pub fn of(context: &Context) -> Option<Self> {
        Self::parse(context.xray_trace_id.as_deref()?)
    }

    /// The unchanged header.
    pub fn as_str(&self) -> &str {
        &self.header
    }

    /// The trace id, as shown in X-Ray and in the logs.
    pub fn trace_id(&self) -> &str {
        &self.trace_id
    }
}

/// True for a version, a time of 8 hexadecimal digits and 24 random ones ("Tracing header").
fn is_trace_id(text: &str) -> bool {
    let is_hex = |part: &str, digits| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: Vec<&str> = text.split('-').collect();
    matches!(parts[..], ["1", time, random] if is_hex(time, 8) && is_hex(random, 24))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE_ID: &str = "1-5759e988-bd862e3fe1be46a994272793";

    #[test]
    fn trace_id_is_found_anywhere_in_header() {
        for header in [
            "Root=1-5759e988-bd862e3fe1be46a994272793",
            "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=1:2345:0",
            "Self=1-67891234-12456789abcdef012345678; Root=1-5759e988-bd862e3fe1be46a994272793; Sampled=?",
        ] {
            let trace = TraceHeader::parse(header).expect("valid");
            assert_eq!((trace.as_str(), trace.trace_id()), (header, TRACE_ID));
        }
    }

    #[test]
    fn malformed_trace_header_is_ignored() {
        for header in [
            "",
            "Root=",
            "1-5759e988-bd862e3fe1be46a994272793",
            "Parent=53995c3f42cd8ad8;Sampled=1",
            "root=1-5759e988-bd862e3fe1be46a994272793",
            "XRoot=1-5759e988-bd862e3fe1be46a994272793",
            "Root=2-5759e988-bd862e3fe1be46a994272793",
            "Root=1-5759e98-bd862e3fe1be46a9942727931",
            "Root=1-5759e988-bd862e3fe1be46a99427279",
            "Root=1-5759e988-bd862e3fe1be46a994272793a",
            "Root=1-5759e988-bd862e3fe1be46a99427279g",
            "Root=1-5759e988-bd862e3fe1be46a994272793-1",
            "Root=1-5759e988bd862e3fe1be46a994272793",
            "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=\u{e9}",
            "Root=1-5759e988-bd862e3fe1be46a994272793;\n",
        ] {
            assert_eq!(TraceHeader::parse(header), None, "{header:?}");
        }
    }
}
