//! Tasks and the validation of input, independent of HTTP and SQS.
//!
//! Input is *parsed into* these types, not validated separately: every [`Title`] is valid.

mod access;
mod bulk;
mod idempotency_key;
mod input;
mod message;
mod page;
mod processing;
mod task;
mod text;

pub use access::Access;
pub use bulk::{BulkAction, BulkFilter, BulkRequest, FilterText, FilterTime};
pub use idempotency_key::{IdempotencyKey, InvalidIdempotencyKey};
pub use input::{Input, parse};
pub use message::TaskMessage;
pub use page::{Cursor, Filter, InvalidCursor, Page, Sort, Start, action_id, before};
pub use processing::ProcessingRequest;
pub use task::{NewTask, NotSettable, RunAt, SettableStatus, Status, StoredStatus, Task, TaskId, TaskPatch};
pub use text::{Description, TextError, Title};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;
use utoipa::ToSchema;

/// One mistake in the input, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// A JSON pointer as a URI fragment (RFC 6901, section 6).
    /// `#/title` is a member of the body, `#/query/limit` a query parameter,
    /// `#/path/id` a path parameter, `#/header/idempotency-key` a header.
    pub pointer: String,
    /// A human-readable explanation.
    pub detail: String,
}

impl FieldError {
    /// A mistake at `pointer`.
    pub fn new(pointer: impl Into<String>, detail: impl ToString) -> Self {
        Self {
            pointer: pointer.into(),
            detail: detail.to_string(),
        }
    }
}

/// The ASCII characters that a URI fragment cannot contain (RFC 3986, section 3.5).
const NOT_IN_FRAGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The JSON pointer to these names, as a URI fragment (RFC 6901, sections 3 and 6).
fn pointer(names: &[&str]) -> String {
    let mut pointer = "#".to_owned();
    for name in names {
        let name = name.replace('~', "~0").replace('/', "~1");
        pointer.push('/');
        pointer.extend(utf8_percent_encode(&name, NOT_IN_FRAGMENT));
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::pointer;

    /// The examples of RFC 6901, section 6, and characters outside of ASCII.
    #[test]
    fn pointer_is_a_uri_fragment() {
        for (name, fragment) in [
            ("foo", "#/foo"),
            ("", "#/"),
            ("a/b", "#/a~1b"),
            ("c%d", "#/c%25d"),
            ("e^f", "#/e%5Ef"),
            ("g|h", "#/g%7Ch"),
            ("i\\j", "#/i%5Cj"),
            ("k\"l", "#/k%22l"),
            (" ", "#/%20"),
            ("m~n", "#/m~0n"),
            ("~1", "#/~01"),
            ("\u{7f}ö", "#/%7F%C3%B6"),
            ("a:b@c?d", "#/a:b@c?d"),
        ] {
            assert_eq!(pointer(&[name]), fragment, "{name:?}");
        }
        assert_eq!(pointer(&["query", "a#b"]), "#/query/a%23b");
    }
}
