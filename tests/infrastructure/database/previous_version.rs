//! The statements of former versions on the schema of this one: both versions run during a
//! deployment, and the previous one alone after a rollback.

use std::time::Duration;

use serde_json::{Value, json};
use shared::{
    domain::{Status, TaskId},
    store::processing::{Claim, ClaimOutcome, ClaimRequest, Outcome, Settle},
};
use sqlx::{PgPool, Row};

use crate::support::{App, database, execute, row, store_status, task};

/// Before migration 12.
const CLAIM: &str = "
    with requested as (
    select * from unnest($1::bigint[], $2::timestamptz[]) as requested (id, sent_at)
    ), claimable as (
    select tasks.id from tasks join requested using (id)
    where status = 'pending' or status = 'processing' and lease_expires_at <= now() or status = 'failed' and settled_at < sent_at
    for update of tasks skip locked
    ), claimed as (
    update tasks set status = 'processing', result = null,
    attempts = case when status = 'failed' then 1 else attempts + 1 end, fencing_token = fencing_token + 1,
    lease_expires_at = now() + make_interval(secs => $3),
    requested_at = case when status = 'failed' then now() else requested_at end,
    started_at = now(), settled_at = null, version = version + 1, updated_at = now()
    from claimable where tasks.id = claimable.id returning tasks.*
    ) select id,title,description,status::text,result,attempts,created_at,updated_at,version, fencing_token, is_claimed, is_claimable
    from (select claimed.*, true as is_claimed, false as is_claimable from claimed
    union all
    select tasks.*, false, coalesce(status = 'pending' or status = 'processing' and lease_expires_at <= now() or status = 'failed' and settled_at < sent_at, false)
    from tasks join requested using (id) where id not in (select id from claimed)) as found";

const SETTLE: &str = "
    with outcome as (
    select * from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[]) as outcome (id, fencing_token, status, result) order by id
    ), current as (
    select task.id, outcome.status, outcome.result from outcome cross join lateral (
    select tasks.id from tasks where tasks.id = outcome.id and tasks.fencing_token = outcome.fencing_token and tasks.status = 'processing' for update) as task
    ) update tasks set status = current.status::task_status, result = current.result, lease_expires_at = null,
    settled_at = case when current.status in ('completed', 'failed') then now() end, version = version + 1, updated_at = now()
    from current where tasks.id = current.id returning tasks.id";

const SEARCH: &str = "select id from tasks
    where bigrams(title) @> bigrams($1) and position(folded($1) in folded(title)) > 0 order by id";

/// Before migration 18: `POST /tasks/{id}/process`, `PATCH /tasks/{id}` with a title and a status, and
/// the deletion of old tasks.
const RESET: &str = "
    update tasks set status = 'pending', result = null, attempts = 0, earlier_attempts = ended_attempts(tasks, null),
    enqueued_at = null, lease_expires_at = null, settled_at = null, requested_at = now(), started_at = null,
    version = version + 1, updated_at = now()
    where id = $1 and (lease_expires_at is null or lease_expires_at <= now()) returning id";

const UPDATE: &str = "
    update tasks set title = coalesce($2, title),
    status = case when $3::text is null then status when $3::text = 'processing' then 'pending' else $3::text::task_status end,
    attempts = case when $3::text = 'pending' then 0 when $3::text = 'processing' and lease_expires_at is null then 0 else attempts end,
    lease_expires_at = case when $3::text is null then lease_expires_at when $3::text = 'processing' then coalesce(lease_expires_at, now()) end,
    settled_at = case when $3::text is null then settled_at when $3::text in ('completed', 'failed') then coalesce(settled_at, now()) end,
    version = version + 1, updated_at = now()
    where id = $1 returning id";

const DELETE_SETTLED: &str = "delete from tasks where settled_at < now() - interval '1 day' returning id";

/// The previous version's claim: whether it has claimed the task, and the new token.
async fn claim_before(pool: &PgPool, id: i64) -> Option<i64> {
    let rows = sqlx::query(CLAIM)
        .bind([id])
        .bind([None::<time::OffsetDateTime>])
        .bind(60.0)
        .fetch_all(pool)
        .await
        .expect("the statement is valid");
    assert_eq!(rows.len(), 1);
    rows[0]
        .get::<bool, _>("is_claimed")
        .then(|| rows[0].get("fencing_token"))
}

async fn settle_before(pool: &PgPool, id: i64, token: i64) -> Vec<i64> {
    sqlx::query_scalar(SETTLE)
        .bind([id])
        .bind([token])
        .bind(["completed"])
        .bind(["by the previous version"])
        .fetch_all(pool)
        .await
        .expect("the statement is valid")
}

async fn claim(pool: &PgPool, id: i64) -> ClaimOutcome {
    let id = TaskId::try_from(id).expect("an id");
    let claim = Claim {
        requests: &[ClaimRequest { id, sent_at: None }],
        lease: Duration::from_secs(60),
    };
    let outcomes = database(pool).run(&claim).await.expect("run");
    outcomes.into_values().next().expect("an outcome")
}

async fn settle(pool: &PgPool, id: i64, fencing_token: i64) -> usize {
    let outcome = Outcome {
        id: TaskId::try_from(id).expect("an id"),
        fencing_token,
        status: Status::Completed,
        result: Some("by this version".to_owned()),
    };
    database(pool).run(&Settle(&[outcome])).await.expect("run").len()
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn previous_version_respects_lease_of_this_one(pool: PgPool) {
    let id = task(&pool, "t").await;
    let ClaimOutcome::Claimed(claimed) = claim(&pool, id).await else {
        panic!("not claimed")
    };
    let before = row(&pool, id).await;
    assert_eq!(claim_before(&pool, id).await, None);
    assert_eq!(row(&pool, id).await, before);
    assert_eq!(settle(&pool, id, claimed.fencing_token).await, 1);

    // An expired lease can be taken over, and the outcome of the first worker no longer counts.
    let id = task(&pool, "t").await;
    let ClaimOutcome::Claimed(claimed) = claim(&pool, id).await else {
        panic!("not claimed")
    };
    execute(
        &pool,
        "update tasks set lease_expires_at = now() where lease_expires_at is not null",
    )
    .await;
    assert_eq!(claim_before(&pool, id).await, Some(claimed.fencing_token + 1));
    assert_eq!(settle(&pool, id, claimed.fencing_token).await, 0);
    assert_eq!(settle_before(&pool, id, claimed.fencing_token + 1).await, [id]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn this_version_respects_lease_of_previous_one(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    let token = claim_before(&pool, id).await.expect("claimed");
    assert_eq!(claim(&pool, id).await, ClaimOutcome::Busy);
    assert_eq!(app.get(format!("/tasks/{id}")).await.json()["status"], "processing");
    assert_eq!(app.get("/admin/status").await.json()["tasks"]["processing"], 1);
    assert_eq!(app.post(format!("/tasks/{id}/process"), None).await.status(), 409);
    assert_eq!(settle_before(&pool, id, token).await, [id]);
    assert_eq!(row(&pool, id).await["result"], "by the previous version");

    let id = task(&pool, "t").await;
    let token = claim_before(&pool, id).await.expect("claimed");
    execute(
        &pool,
        "update tasks set lease_expires_at = now() where lease_expires_at is not null",
    )
    .await;
    let ClaimOutcome::Claimed(claimed) = claim(&pool, id).await else {
        panic!("not claimed")
    };
    assert_eq!(settle_before(&pool, id, token).await, [0; 0]);
    assert_eq!(settle(&pool, id, claimed.fencing_token).await, 1);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn title_written_by_previous_version_is_found(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "before").await;
    let found = async |query: &str| app.get(format!("/tasks?q={query}")).await.json()[0]["id"].clone();
    assert_eq!(found("before").await, id);
    execute(&pool, "update tasks set title = 'after'").await;
    let titles: Value = sqlx::query_scalar("select jsonb_agg(title) from task_titles")
        .fetch_one(&pool)
        .await
        .expect("titles");
    assert_eq!((titles, found("after").await), (json!(["after"]), json!(id)));
    let by_previous: Vec<i64> = sqlx::query_scalar(SEARCH)
        .bind("aft")
        .fetch_all(&pool)
        .await
        .expect("ids");
    assert_eq!(by_previous, [id]);
    execute(&pool, "delete from tasks").await;
    let left: i64 = sqlx::query_scalar("select count(*) from task_titles")
        .fetch_one(&pool)
        .await
        .expect("a count");
    assert_eq!(left, 0);
}

/// A task that is scheduled in an hour.
async fn scheduled(pool: &PgPool) -> i64 {
    let id = task(pool, "t").await;
    store_status(pool, id, Status::Scheduled).await;
    id
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn former_version_survives_scheduled_task(pool: PgPool) {
    let app = App::new(&pool);
    // Its workers leave it alone, also when its time has come.
    let id = scheduled(&pool).await;
    let before = row(&pool, id).await;
    assert_eq!(claim_before(&pool, id).await, None);
    assert_eq!(row(&pool, id).await, before);
    execute(&pool, "update tasks set run_at = now()").await;
    assert_eq!(claim_before(&pool, id).await, None);
    // Its clients can change it, and run it at once.
    assert_eq!(run_before(&pool, UPDATE, id, None).await, [id]);
    assert_eq!(row(&pool, id).await["status"], "scheduled");
    for status in ["completed", "failed", "processing", "pending"] {
        let id = scheduled(&pool).await;
        assert_eq!(run_before(&pool, UPDATE, id, Some(status)).await, [id]);
        assert_eq!(row(&pool, id).await["status"], status);
    }
    let id = scheduled(&pool).await;
    assert_eq!(run_before(&pool, RESET, id, None).await, [id]);
    // This version processes what it left: the time stays, and does not matter.
    assert!(matches!(claim(&pool, id).await, ClaimOutcome::Claimed(_)));
    assert_eq!(app.get(format!("/tasks/{id}")).await.json()["status"], "processing");
}

/// Runs a former version's statement about a task, and returns the ids of the tasks that it changed.
async fn run_before(pool: &PgPool, sql: &str, id: i64, status: Option<&str>) -> Vec<i64> {
    let query = sqlx::query_scalar(sql).bind(id);
    let query = match sql.contains("$3") {
        true => query.bind(None::<&str>).bind(status),
        false => query,
    };
    query.fetch_all(pool).await.expect("no constraint is violated")
}

/// How former versions read a status that they do not know: `api::newer_version`.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn former_version_survives_cancelled_task(pool: PgPool) {
    let app = App::new(&pool);
    let cancelled = async || {
        let id = task(&pool, "t").await;
        let token = claim_before(&pool, id).await.expect("claimed");
        assert_eq!(app.post(format!("/tasks/{id}/cancel"), None).await.status(), 200);
        (id, token, row(&pool, id).await)
    };
    let run = async |sql: &str, id: i64, status: Option<&str>| run_before(&pool, sql, id, status).await;
    // Its workers: the outcome of the running one is discarded, and no other one claims it.
    let (id, token, before) = cancelled().await;
    assert_eq!(settle_before(&pool, id, token).await, [0; 0]);
    assert_eq!(claim_before(&pool, id).await, None);
    assert_eq!(row(&pool, id).await, before);
    // Its clients can change it, and open it again.
    assert_eq!(run(UPDATE, id, None).await, [id]);
    assert_eq!(row(&pool, id).await["status"], "cancelled");
    for status in ["completed", "failed", "processing", "pending"] {
        let (id, ..) = cancelled().await;
        assert_eq!(run(UPDATE, id, Some(status)).await, [id]);
        assert_eq!(row(&pool, id).await["status"], status);
    }
    assert_eq!(run(RESET, id, None).await, [id]);
    assert!(claim_before(&pool, id).await.is_some());
    // It is deleted like other old tasks.
    let (id, ..) = cancelled().await;
    execute(
        &pool,
        "update tasks set settled_at = now() - interval '2 days' where status = 'cancelled'",
    )
    .await;
    let deleted: Vec<i64> = sqlx::query_scalar(DELETE_SETTLED)
        .fetch_all(&pool)
        .await
        .expect("deleted");
    assert_eq!(deleted, [id]);
}
