//! The database roles: each may run its functions' statements and nothing else.

use std::time::Duration;

use serde_json::json;
use shared::{
    domain::{
        Access, BulkAction, BulkFilter, Cursor, Filter, IdempotencyKey, Input, NewTask, Page, Sort, Start, Status,
        TaskId, TaskPatch,
    },
    store::{
        Database, SESSION, Statement, StoreError,
        actions::{ListActions, RecordAction},
        bulk::{ContinueAction, CountMatching, StartAction},
        idempotency::{CountExpired, CreateOnce, CreateOnceOutcome, DeleteExpired},
        operating::{FindHistory, GroupFailures, ReadOverview},
        processing::{Claim, ClaimRequest, FindLost, Lease, Outcome, Settle},
        reconciling::{ClearEnqueued, CountDue, CountSettled, DeleteSettled, Due, Range, TakeDue},
        tasks::{Cancel, CancelOutcome, Change, Delete, Find, Insert, List, MarkEnqueued, Reset, Update},
    },
};
use sqlx::{ConnectOptions, PgConnection, PgPool};

use crate::support::{execute, task};

/// Sets up the roles and logs in as one.
async fn log_in(pool: &PgPool, role: &str) -> Database {
    sqlx::raw_sql(migrator::ROLES)
        .execute(pool)
        .await
        .expect("the roles are set up");
    let database = Database::new((*pool.connect_options()).clone().username(role));
    database.ping().await.expect("the role may log in");
    database
}

async fn allowed<S: Statement>(database: &Database, statement: S) -> S::Output {
    let outcome = database.run(&statement).await;
    outcome.unwrap_or_else(|error| panic!("{}: {error:?}", std::any::type_name::<S>()))
}

async fn refused<S: Statement>(database: &Database, statement: S) {
    let statement_name = std::any::type_name::<S>();
    match database.run(&statement).await {
        // insufficient_privilege
        Err(StoreError::Unexpected(error)) => {
            let code = error.as_database_error().and_then(|error| error.code());
            assert_eq!(code.as_deref(), Some("42501"), "{statement_name}: {error}");
        }
        Err(error) => panic!("{statement_name}: {error:?}"),
        Ok(_) => panic!("{statement_name} is allowed"),
    }
}

/// An arbitrary statement.
struct Sql(&'static str);

impl Statement for Sql {
    type Output = ();

    async fn run(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query(self.0).execute(connection).await.map(|_| ())
    }
}

fn id(id: i64) -> TaskId {
    TaskId::try_from(id).expect("a positive id")
}

fn new_task() -> NewTask {
    NewTask::parse(json!({"title": "new", "description": "d"})).expect("a valid task")
}

/// A page of each kind.
fn pages() -> Vec<Page> {
    let mut pages = Vec::new();
    for sort in [Sort::OldestFirst, Sort::NewestFirst] {
        for status in [None, Some(Status::Pending)] {
            for title in [None, Some("t".to_owned()), Some("title".to_owned())] {
                for start in [Start::First, Start::After(Cursor(id(1))), Start::Before(Cursor(id(1)))] {
                    let filter = Filter {
                        status,
                        title: title.clone(),
                    };
                    let count = true;
                    pages.push(Page {
                        start,
                        sort,
                        filter,
                        count,
                        ..Page::default()
                    });
                }
            }
        }
    }
    pages
}

const NONE_DUE: Due = Due {
    unsent_after: Duration::ZERO,
    lost_after: Duration::ZERO,
    include_lost: true,
    max_attempts: 10,
};

fn claim(requests: &[ClaimRequest]) -> Claim<'_> {
    let lease = Duration::from_secs(10);
    Claim { requests, lease }
}

const ALL: Access = Access::All;
const ADMIN: Access = Access::Admin("admin");

const REDRIVE: RecordAction = RecordAction {
    operator: "admin",
    action: "redrive",
    count: None,
};

fn mark(id: TaskId) -> MarkEnqueued {
    MarkEnqueued { id, run_at: None }
}

fn delete(id: TaskId) -> Delete<'static> {
    Delete {
        id,
        versions: None,
        access: ALL,
    }
}

fn cancel(id: TaskId) -> Cancel<'static> {
    Cancel {
        id,
        versions: None,
        access: ALL,
    }
}

fn take_due<Key>(range: &Range<Key>) -> TakeDue<'_, Key> {
    TakeDue {
        due: NONE_DUE,
        range,
        newest_first: false,
        limit: 10,
    }
}

fn count_due<Key>(range: &Range<Key>) -> CountDue<'_, Key> {
    CountDue {
        due: NONE_DUE,
        range,
        newest_first: false,
        limit: 10,
    }
}

/// Tasks that were settled before.
const SETTLED: DeleteSettled = DeleteSettled {
    older_than: Duration::ZERO,
    from: None,
    limit: 10,
};

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn reader_may_only_read(pool: PgPool) {
    let id = id(task(&pool, "title").await);
    let reader = log_in(&pool, "reader").await;
    assert!(allowed(&reader, Find { id, access: ALL }).await.is_some());
    for page in pages() {
        for access in [ALL, Access::Own("alice")] {
            allowed(&reader, List { page: &page, access }).await;
        }
    }
    allowed(&reader, ReadOverview).await;
    allowed(&reader, GroupFailures).await;
    allowed(&reader, FindHistory(id)).await;
    allowed(&reader, ListActions { before: None }).await;

    let new = &new_task();
    refused(
        &reader,
        Insert {
            new,
            created_by: "alice",
        },
    )
    .await;
    refused(&reader, mark(id)).await;
    refused(&reader, REDRIVE).await;
    let (action, filter) = (BulkAction::Cancel, &BulkFilter::default());
    let operator = "admin";
    refused(
        &reader,
        StartAction {
            operator,
            action,
            filter,
        },
    )
    .await;
    refused(&reader, delete(id)).await;
    refused(&reader, Reset { id, access: ALL }).await;
    refused(&reader, cancel(id)).await;
    refused(&reader, claim(&[ClaimRequest { id, sent_at: None }])).await;
    refused(&reader, take_due(&Range::open())).await;
    refused(&reader, DeleteExpired { from: None, limit: 1 }).await;
    refused(&reader, SETTLED).await;
    for sql in [
        "truncate tasks",
        "create table mine ()",
        "create temporary table mine ()",
        "select from _sqlx_migrations",
        "select nextval('tasks_id_seq')",
        "set role postgres",
        "set role writer",
    ] {
        refused(&reader, Sql(sql)).await;
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn writer_may_change_tasks_but_not_schema(pool: PgPool) {
    let writer = log_in(&pool, "writer").await;
    let new = new_task();
    let task = allowed(
        &writer,
        Insert {
            new: &new,
            created_by: "alice",
        },
    )
    .await;
    allowed(&writer, mark(task.id)).await;
    let key = IdempotencyKey::parse(b"key").expect("a key");
    for replayed in [false, true] {
        let keep = Duration::from_secs(60);
        let outcome = allowed(
            &writer,
            CreateOnce {
                key: &key,
                created_by: "alice",
                keep,
                new: &new,
            },
        )
        .await;
        assert_eq!(
            matches!(outcome, CreateOnceOutcome::Replayed(_)),
            replayed,
            "{outcome:?}"
        );
    }
    let id = task.id;
    for patch in [
        TaskPatch::default(),
        TaskPatch {
            title: Some(new.title.clone()),
            ..TaskPatch::default()
        },
    ] {
        let change = allowed(
            &writer,
            Update {
                id,
                patch: &patch,
                versions: None,
                access: ALL,
            },
        )
        .await;
        assert!(matches!(change, Change::Done(_)), "{change:?}");
        allowed(
            &writer,
            Update {
                id,
                patch: &patch,
                versions: Some(&[99]),
                access: ALL,
            },
        )
        .await;
    }
    allowed(&writer, Reset { id, access: ADMIN }).await;
    allowed(&writer, REDRIVE).await;
    let cancelled = allowed(&writer, cancel(id)).await;
    assert!(matches!(cancelled, CancelOutcome::Cancelled(_)), "{cancelled:?}");
    allowed(&writer, Reset { id, access: ALL }).await;
    let taken = allowed(&writer, take_due(&Range::open())).await;
    assert!(taken.to_send.contains(&(id, 0)), "{taken:?}");
    allowed(&writer, ClearEnqueued(&[id])).await;
    execute(
        &pool,
        "update tasks set status = 'scheduled', run_at = now(), enqueued_at = null",
    )
    .await;
    let taken = allowed(&writer, take_due(&Range::scheduled())).await;
    assert!(taken.to_send.contains(&(id, 0)), "{taken:?}");
    let lost = "update tasks set attempts = 10, status = 'processing', lease_expires_at = now()";
    execute(&pool, lost).await;
    let taken = allowed(&writer, take_due(&Range::open())).await;
    assert!(taken.discarded.contains(&id), "{taken:?}");
    allowed(&writer, count_due(&Range::open())).await;
    allowed(&writer, count_due(&Range::scheduled())).await;
    let limit = 10;
    execute(&pool, "update idempotency_keys set expires_at = now() - interval '1 s'").await;
    let from = None;
    assert_eq!(allowed(&writer, CountExpired { from, limit }).await, 1);
    assert_eq!(allowed(&writer, DeleteExpired { from, limit }).await.count, 1);
    let older_than = Duration::ZERO;
    let settled = CountSettled {
        older_than,
        from,
        limit,
    };
    assert_eq!(allowed(&writer, settled).await, 2);
    assert_eq!(allowed(&writer, SETTLED).await.count, 2);
    assert!(allowed(&writer, Find { id, access: ALL }).await.is_none());
    allowed(&writer, delete(id)).await;

    allowed(
        &writer,
        Insert {
            new: &new,
            created_by: "alice",
        },
    )
    .await;
    for (action, count) in [(BulkAction::Retry, 0), (BulkAction::Cancel, 1), (BulkAction::Delete, 0)] {
        let filter = &BulkFilter {
            status: (action == BulkAction::Delete).then_some(Status::Failed),
            ..BulkFilter::default()
        };
        let counted = allowed(&writer, CountMatching { action, filter }).await;
        assert_eq!((counted.count, counted.is_exact), (count, true), "{action:?}");
        let operator = "admin";
        let started = allowed(
            &writer,
            StartAction {
                operator,
                action,
                filter,
            },
        )
        .await;
        let stepped = allowed(&writer, ContinueAction(started)).await.expect("an action");
        assert_eq!((stepped.count, stepped.is_complete), (Some(count), true), "{action:?}");
    }

    for sql in [
        "truncate tasks",
        "update operator_actions set operator = 'alice'",
        "delete from operator_actions",
        "truncate operator_actions",
        "alter table tasks add column mine text",
        "drop table tasks",
        "create table mine ()",
        "delete from _sqlx_migrations",
        "set role postgres",
    ] {
        refused(&writer, Sql(sql)).await;
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn processor_may_only_claim_and_settle(pool: PgPool) {
    let id = id(task(&pool, "title").await);
    let processor = log_in(&pool, "processor").await;
    let requests = [ClaimRequest { id, sent_at: None }];
    for (fencing_token, status) in [(1, Status::Pending), (2, Status::Completed)] {
        let claims = allowed(&processor, claim(&requests)).await;
        assert_eq!(claims.len(), 1);
        let leases = [Lease { id, fencing_token }];
        assert_eq!(allowed(&processor, FindLost(&leases)).await, []);
        let outcome = Outcome {
            id,
            fencing_token,
            status,
            result: Some("done".to_owned()),
        };
        assert_eq!(allowed(&processor, Settle(&[outcome])).await, [id]);
    }

    let new = &new_task();
    refused(
        &processor,
        Insert {
            new,
            created_by: "alice",
        },
    )
    .await;
    refused(&processor, delete(id)).await;
    refused(&processor, SETTLED).await;
    refused(&processor, mark(id)).await;
    refused(&processor, REDRIVE).await;
    for sql in [
        "update tasks set title = 'mine'",
        "update tasks set id = default",
        "select from idempotency_keys",
        "select from _sqlx_migrations",
        "truncate tasks",
        "create table mine ()",
    ] {
        refused(&processor, Sql(sql)).await;
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn stale_grants_are_revoked_and_new_tables_covered(pool: PgPool) {
    let (reader, writer) = (log_in(&pool, "reader").await, log_in(&pool, "writer").await);
    execute(&pool, "grant update on tasks to reader").await;
    execute(&pool, "grant update (title) on tasks to reader").await;
    execute(&pool, "create table later (id bigint)").await;
    allowed(&reader, Sql("select from later")).await;
    allowed(&writer, Sql("insert into later values (1)")).await;
    refused(&reader, Sql("insert into later values (1)")).await;
    log_in(&pool, "reader").await;
    refused(&reader, Sql("update tasks set title = 'mine'")).await;
    allowed(&reader, Sql("select from later")).await;
}

/// RDS Proxy does not pass on settings of a connection, so they belong to the roles.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn roles_have_session_settings(pool: PgPool) {
    for role in ["reader", "writer", "processor"] {
        log_in(&pool, role).await;
        let options = (*pool.connect_options()).clone().username(role);
        let mut connection = options.connect().await.expect("the role may log in");
        for (setting, value) in SESSION {
            let shown: String = sqlx::query_scalar(&format!("show {setting}"))
                .fetch_one(&mut connection)
                .await
                .expect("a setting");
            assert_eq!(shown, value, "{role}: {setting}");
        }
    }
}

/// As on RDS, where members of the role `rds_iam` log in with tokens.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn roles_are_members_of_rds_iam(pool: PgPool) {
    let mut transaction = pool.begin().await.expect("a transaction");
    // Rolled back at the end: roles belong to the server, not to the test's database.
    sqlx::raw_sql("create role rds_iam")
        .execute(&mut *transaction)
        .await
        .expect("a role");
    for _ in 0..2 {
        sqlx::raw_sql(migrator::ROLES)
            .execute(&mut *transaction)
            .await
            .expect("the roles are set up");
    }
    let members = "select array_agg(member::regrole::text order by member::regrole::text) from pg_auth_members
                   where roleid = 'rds_iam'::regrole";
    let members: Vec<String> = sqlx::query_scalar(members)
        .fetch_one(&mut *transaction)
        .await
        .expect("members");
    assert_eq!(members, ["processor", "reader", "writer"]);
}
