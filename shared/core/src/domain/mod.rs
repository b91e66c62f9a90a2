//! Tasks and the validation of input, independent of HTTP and SQS.
//!
//! Input is *parsed into* these types, not validated separately: every [`Title`] is valid.

mod access;
mod idempotency_key;
mod input;
mod message;
mod page;
mod task;
mod text;

pub use access::Access;
pub use idempotency_key::{IdempotencyKey, InvalidIdempotencyKey};
pub use input::Input;
pub use message::TaskMessage;
pub use page::{Cursor, Filter, InvalidCursor, Page, Sort, Start};
pub use task::{NewTask, Status, Task, TaskId, TaskPatch};
pub use text::{Description, TextError, Title};

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
