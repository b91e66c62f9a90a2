//! The columns of a task, listed once.

/// Hands the columns of a task to another macro: each member of [`Task`](crate::domain::Task), and what a statement
/// selects for it. `!` and `?` say which may be null, because Postgres does not say so of a `union`.
macro_rules! with_task_columns {
    ($macro:ident! $input:tt) => {
        $macro! {
            @ $input
            id r#"id as "id!: TaskId""#,
            title r#"title as "title!: Title""#,
            description r#"description as "description?: Description""#,
            status r#"status as "status!: Status""#,
            result r#"result as "result?""#,
            attempts r#"attempts as "attempts!""#,
            created_at r#"created_at as "created_at!""#,
            updated_at r#"updated_at as "updated_at!""#,
            version r#"version as "version!""#
        }
    };
}

/// A statement that responds with tasks: the text before and after their columns, then the arguments. Checked at compile
/// time like every other: macros by example expand before sqlx reads the text.
macro_rules! query_tasks {
    (@ ($before:literal, $($after:literal)+ $(, $argument:expr)*) $id:ident $first:literal $(, $member:ident $column:literal)+) => {
        sqlx::query_as!(
            Task,
            $before + " " + $first $(+ ", " + $column)+ + " " $(+ $after)+,
            $($argument),*
        )
    };
    ($before:literal, $($after:literal)+ $(, $argument:expr)* $(,)?) => {
        $crate::store::columns::with_task_columns!(query_tasks! ($before, $($after)+ $(, $argument)*))
    };
}

/// The same for rows that hold more than a task. [`task_of`] takes it out of one.
macro_rules! query_tasks_and_more {
    (@ ($before:literal, $($after:literal)+ $(, $argument:expr)*) $id:ident $first:literal $(, $member:ident $column:literal)+) => {
        sqlx::query!(
            $before + " " + $first $(+ ", " + $column)+ + " " $(+ $after)+,
            $($argument),*
        )
    };
    ($before:literal, $($after:literal)+ $(, $argument:expr)* $(,)?) => {
        $crate::store::columns::with_task_columns!(query_tasks_and_more! ($before, $($after)+ $(, $argument)*))
    };
}

/// The task of a row of [`query_tasks_and_more`].
macro_rules! task_of {
    (@ ($row:ident) $($member:ident $column:literal),+) => {
        Task { $($member: $row.$member),+ }
    };
    ($row:ident) => {
        $crate::store::columns::with_task_columns!(task_of! ($row))
    };
}

pub(super) use {query_tasks, query_tasks_and_more, task_of, with_task_columns};
