//! Ownership of tasks.

/// The tasks that a caller may see and change. To the caller, all others do not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access<'a> {
    /// All tasks.
    All,
    /// The tasks that this subject created.
    Own(&'a str),
}

impl<'a> Access<'a> {
    /// The owner to filter by; `None` for all tasks.
    pub fn owner(self) -> Option<&'a str> {
        match self {
            Self::All => None,
            Self::Own(subject) => Some(subject),
        }
    }
}
