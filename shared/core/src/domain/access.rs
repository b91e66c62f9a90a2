//! Ownership of tasks.

/// The tasks that a caller may see and change. To the caller, all others do not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access<'a> {
    /// All tasks.
    All,
    /// All tasks. A change is recorded as an action of this admin.
    Admin(&'a str),
    /// The tasks that this subject created.
    Own(&'a str),
}

impl<'a> Access<'a> {
    /// The owner to filter by; `None` for all tasks.
    pub fn owner(self) -> Option<&'a str> {
        match self {
            Self::All | Self::Admin(_) => None,
            Self::Own(subject) => Some(subject),
        }
    }

    /// The admin whose changes are recorded; `None` if they are not.
    pub fn admin(self) -> Option<&'a str> {
        match self {
            Self::Admin(subject) => Some(subject),
            Self::All | Self::Own(_) => None,
        }
    }
}
