//! Which tasks are whose.

/// Which tasks somebody may see and change. All others do not exist for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access<'a> {
    /// All there are, whoever created them.
    All,
    /// Those that this subject has created.
    Own(&'a str),
}

impl<'a> Access<'a> {
    /// Who must have created a task; `None` if that does not matter.
    pub fn owner(self) -> Option<&'a str> {
        match self {
            Self::All => None,
            Self::Own(subject) => Some(subject),
        }
    }
}
