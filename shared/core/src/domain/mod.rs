//! What a task is and which input is valid. Knows nothing of HTTP or SQS.
//!
//! Input is *parsed into* these types, never validated beside them: a [`Title`] that exists is valid.

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

/// One thing that is wrong with a client's input, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// A JSON pointer as URI fragment (RFC 6901, section 6): `#/title` for a member of the body,
    /// `#/query/limit` for a query parameter, `#/path/id` for a path parameter, `#/header/idempotency-key` for a
    /// header.
    pub pointer: String,
    /// What is wrong, for a person.
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
