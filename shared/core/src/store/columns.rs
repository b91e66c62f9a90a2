//! The columns of a task, listed in one place.

/// Passes the columns of a task to another macro: each member of [`Task`](crate::domain::Task) with
/// its select expression. `!` and `?` state which are nullable, because Postgres reports no
/// nullability for a `union`.
macro_rules! with_task_columns {
    ($macro:ident! $input:tt) => {
        $macro! {
            @ $input
            id r#"id as "id!: TaskId""#,
            title r#"title as "title!: Title""#,
            description r#"description as "description?: Description""#,
            status r#"shown_status(status, lease_expires_at) as "status!: StoredStatus""#,
            result r#"result as "result?""#,
            attempts r#"attempts as "attempts!""#,
            run_at r#"run_at as "run_at?""#,
            created_at r#"created_at as "created_at!""#,
            updated_at r#"updated_at as "updated_at!""#,
            version r#"version as "version!""#
        }
    };
}

/// A statement that returns tasks: the text before and after their columns, then the arguments.
/// sqlx checks it at compile time like every other, because macros by example expand first.
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

/// Like [`query_tasks`], for rows with more columns than a task. [`task_of`] extracts the task from
/// a row.
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

/// Extracts the task from a row of [`query_tasks_and_more`].
macro_rules! task_of {
    (@ ($row:ident) $($member:ident $column:literal),+) => {
        Task { $($member: $row.$member),+ }
    };
    ($row:ident) => {
        $crate::store::columns::with_task_columns!(task_of! ($row))
    };
}

pub(super) use {query_tasks, query_tasks_and_more, task_of, with_task_columns};
