//! The log of operators' actions.
//!
//! A statement that changes tasks for an admin ([`Access::Admin`](crate::domain::Access)) adds its
//! action itself. Here are those for actions that change nothing in Postgres, and for reading the log.

use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::Statement;

/// What an operator has done.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Action {
    /// Assigned in ascending order.
    #[schema(minimum = 1)]
    pub id: i64,
    /// When (RFC 3339, UTC).
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The subject of the admin.
    #[schema(example = "alice")]
    pub operator: String,
    /// `update`, `process`, `cancel`, `delete`, `retry` of many tasks, `redrive` of the dead-letter
    /// queue, or `pause` or `resume` of processing. Later versions may add others.
    #[schema(example = "cancel")]
    pub action: String,
    /// The task, if it was about one.
    #[schema(required, minimum = 1)]
    pub task_id: Option<i64>,
    /// Which tasks, if it was about all that match.
    #[schema(required, value_type = Option<Object>)]
    pub filter: Option<Value>,
    /// The number of tasks; of a redrive, of messages. Null for `pause` and `resume`, and if it is
    /// not known: on AWS, SQS moves the messages later.
    #[schema(required, minimum = 0)]
    pub count: Option<i64>,
    /// False if an action about many tasks has more steps: `POST /admin/actions/{id}/continue`.
    pub is_complete: bool,
}

/// The most actions of a page.
const PAGE: i64 = 100;

/// Lists actions, newest first.
pub struct ListActions {
    /// Only those that are older than this one.
    pub before: Option<i64>,
}

/// A page of actions.
#[derive(Debug)]
pub struct Actions {
    pub page: Vec<Action>,
    /// Whether there are older ones.
    pub is_more: bool,
}

impl Statement for ListActions {
    type Output = Actions;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        let rows = sqlx::query!(
            r#"select id, at, operator, action, task_id, filter::text, count,
                      below is null or ended_at is not null as "is_complete!"
               from operator_actions
               where id < $1
               order by id desc
               limit $2"#,
            self.before.unwrap_or(i64::MAX),
            PAGE + 1,
        )
        .fetch_all(connection)
        .await?;
        let mut page = Vec::new();
        for row in rows {
            let filter = row.filter.as_deref().map(serde_json::from_str).transpose();
            page.push(Action {
                id: row.id,
                at: row.at,
                operator: row.operator,
                action: row.action,
                task_id: row.task_id,
                filter: filter.map_err(|error| sqlx::Error::Decode(error.into()))?,
                count: row.count,
                is_complete: row.is_complete,
            });
        }
        let is_more = page.len() as i64 > PAGE;
        page.truncate(PAGE as usize);
        Ok(Actions { page, is_more })
    }
}

/// Records an action that changes nothing in Postgres.
pub struct RecordAction<'a> {
    /// The subject of the admin.
    pub operator: &'a str,
    pub action: &'a str,
    /// See [`Action::count`].
    pub count: Option<i64>,
}

impl Statement for RecordAction<'_> {
    type Output = ();

    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Output, sqlx::Error> {
        sqlx::query!(
            "insert into operator_actions (operator, action, count) values ($1, $2, $3)",
            self.operator,
            self.action,
            self.count,
        )
        .execute(connection)
        .await
        .map(|_| ())
    }
}
