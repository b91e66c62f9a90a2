//! Properties of claims, batches and lists, checked against models with arbitrary input.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    time::SystemTime,
};

use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_oneof},
    sample::select,
    test_runner::{Config, TestCaseError, TestError, TestRunner},
};
use serde_json::{Value, json};
use shared::{
    domain::{
        Access, Cursor, Filter, FilterTime, Page, RunAt, Sort, Start, Status, StoredStatus, Task, TaskId, TaskPatch,
    },
    store::{
        Database,
        operating::{AttemptOutcome, FindHistory, History},
        processing::{Claim, ClaimOutcome, ClaimRequest, Outcome, Settle},
        tasks::{Cancel, CancelOutcome, Change, Delete, List, Reset, ResetOutcome, Update},
    },
};
use sqlx::{Connection, PgConnection, PgPool, postgres::PgConnectOptions};
use task_processor::{Settings, TaskError, process};
use time::OffsetDateTime;

use crate::support::settings;

/// The fixture of one case: a function's access to the database, and a connection to inspect it.
struct Case {
    database: Database,
    inspect: PgConnection,
}

impl Case {
    async fn new(options: &PgConnectOptions) -> Self {
        Self {
            database: Database::new(options.clone()),
            inspect: PgConnection::connect_with(options).await.expect("the test's database"),
        }
    }

    async fn execute(&mut self, sql: &str) {
        sqlx::query(sql).execute(&mut self.inspect).await.expect("valid");
    }

    async fn insert(&mut self, columns: &str, values: &str) -> TaskId {
        let insert = format!("insert into tasks (title, {columns}) values ('t', {values}) returning id");
        let id: i64 = sqlx::query_scalar(&insert)
            .fetch_one(&mut self.inspect)
            .await
            .expect("valid");
        TaskId::try_from(id).expect("an id")
    }

    /// `PATCH /tasks/{id}`, as an admin.
    async fn update(&self, id: TaskId, patch: &TaskPatch) -> Change<Task> {
        let update = Update {
            id,
            patch,
            versions: None,
            access: Access::All,
        };
        self.database.run(&update).await.expect("run")
    }

    async fn row(&mut self, id: TaskId) -> Value {
        let row = "select to_jsonb(tasks) || jsonb_build_object(
                       'leased', lease_expires_at > now(), 'status', shown_status(status, lease_expires_at)
                   )
                   from tasks where id = $1";
        let row: Option<Value> = sqlx::query_scalar(row)
            .bind(id.get())
            .fetch_optional(&mut self.inspect)
            .await
            .expect("valid");
        row.unwrap_or_default()
    }
}

/// Checks a property for arbitrary inputs, on a separate thread: proptest is not asynchronous.
async fn check<S>(pool: &PgPool, input: S, property: impl AsyncFn(&mut Case, S::Value) + Send + 'static)
where
    S: Strategy + Send + 'static,
    S::Value: Debug,
{
    let options = (*pool.connect_options()).clone();
    let checking = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let config = Config {
            failure_persistence: None,
            ..Config::default()
        };
        let case = std::cell::RefCell::new(runtime.block_on(Case::new(&options)));
        let outcome = TestRunner::new(config).run(&input, |value| {
            runtime.block_on(property(&mut case.borrow_mut(), value));
            Ok::<(), TestCaseError>(())
        });
        match outcome {
            Err(TestError::Fail(reason, input)) => panic!("{reason}\nfor {input:#?}"),
            outcome => outcome.expect("the property was checked"),
        }
    });
    checking.await.expect("the property is satisfied");
}

/// The number of workers.
const WORKERS: usize = 3;

/// An event in a task's lifecycle.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A worker receives a message about the task, sent before the first event or after the last.
    Claim { worker: usize, sent_late: bool },
    /// A worker settles its last claim, however old that is.
    Settle { worker: usize, status: Status },
    /// A lease expires, because its worker crashed or is slow.
    LeaseExpires,
    /// `POST /tasks/{id}/process`
    ProcessAgain,
    /// `POST /tasks/{id}/cancel`
    Cancel,
    /// `PUT /tasks/{id}`
    SetStatus(Status),
    /// `PATCH /tasks/{id}`, with a time in two hours or in the past.
    Schedule { later: bool },
    /// The time of a scheduled task comes.
    TimeComes,
    /// `DELETE /tasks/{id}`
    Delete,
}

fn status() -> impl Strategy<Value = Status> {
    select(&Status::SETTABLE[..])
}

fn event() -> impl Strategy<Value = Event> {
    let settled = select(&[Status::Pending, Status::Completed, Status::Failed][..]);
    prop_oneof![
        8 => (0..WORKERS, any::<bool>()).prop_map(|(worker, sent_late)| Event::Claim { worker, sent_late }),
        8 => (0..WORKERS, settled).prop_map(|(worker, status)| Event::Settle { worker, status }),
        4 => Just(Event::LeaseExpires),
        2 => Just(Event::ProcessAgain),
        2 => Just(Event::Cancel),
        2 => status().prop_map(Event::SetStatus),
        2 => any::<bool>().prop_map(|later| Event::Schedule { later }),
        2 => Just(Event::TimeComes),
        1 => Just(Event::Delete),
    ]
}

/// The expected state of a task.
#[derive(Clone, Debug)]
struct Model {
    status: Status,
    /// Whether a lease is valid.
    leased: bool,
    fencing_token: i64,
    attempts: i64,
    version: i64,
    /// The numbers and outcomes of all attempts.
    made: Vec<(i64, AttemptOutcome)>,
    /// Whether an outcome may still be stored for the last of them.
    is_open: bool,
    /// Whether the time of a scheduled task has come.
    is_due: bool,
}

impl Model {
    fn is_claimable(&self, sent_late: bool) -> bool {
        match self.status {
            Status::Pending => true,
            Status::Processing => !self.leased,
            Status::Failed => sent_late,
            Status::Scheduled => self.is_due,
            _ => false,
        }
    }

    fn set_status(&mut self, status: Status) {
        self.status = status;
        self.leased = false;
        self.version += 1;
    }

    /// The outcome of the last attempt becomes another, if it is open and has one of these.
    fn end_attempt(&mut self, of: &[AttemptOutcome], outcome: AttemptOutcome) {
        if let Some((_, last)) = self
            .made
            .last_mut()
            .filter(|(_, last)| self.is_open && of.contains(last))
        {
            *last = outcome;
        }
    }
}

fn assert_row_matches(row: &Value, model: Option<&Model>) {
    let Some(model) = model else {
        return assert_eq!(*row, Value::Null);
    };
    let shown = |name: &str| row[name].clone();
    assert_eq!(
        [
            shown("status"),
            shown("fencing_token"),
            shown("attempts"),
            shown("version")
        ],
        [
            json!(model.status),
            json!(model.fencing_token),
            json!(model.attempts),
            json!(model.version)
        ]
    );
    let leased = match model.status {
        Status::Processing => json!(model.leased),
        _ => Value::Null,
    };
    assert_eq!(row["leased"], leased);
    let is_settled = matches!(model.status, Status::Completed | Status::Failed | Status::Cancelled);
    assert_eq!(!row["settled_at"].is_null(), is_settled);
}

/// Applies the events to a task and to its model, and compares the outcome of each and the row it
/// leaves.
async fn claims_and_outcomes_follow_the_model(case: &mut Case, events: Vec<Event>) {
    let id = case.insert("status", "'pending'").await;
    let mut model = Some(Model {
        status: Status::Pending,
        leased: false,
        fencing_token: 0,
        attempts: 0,
        version: 1,
        made: Vec::new(),
        is_open: false,
        is_due: false,
    });
    // The token of each worker's last claim.
    let mut tokens = [None; WORKERS];
    for event in events {
        match event {
            Event::Claim { worker, sent_late } => {
                let sent_at = match sent_late {
                    true => OffsetDateTime::now_utc() + time::Duration::HOUR,
                    false => OffsetDateTime::UNIX_EPOCH,
                };
                let requests = [ClaimRequest {
                    id,
                    sent_at: Some(sent_at),
                }];
                let lease = std::time::Duration::from_secs(60);
                let claim = Claim {
                    requests: &requests,
                    lease,
                };
                let outcome = case.database.run(&claim).await.expect("run").remove(&id);
                match (outcome.expect("an outcome for each task"), &mut model) {
                    (ClaimOutcome::Claimed(claimed), Some(model)) if model.is_claimable(sent_late) => {
                        model.attempts = if model.status == Status::Failed {
                            1
                        } else {
                            model.attempts + 1
                        };
                        model.made.push((model.attempts, AttemptOutcome::Running));
                        model.is_open = true;
                        model.set_status(Status::Processing);
                        model.leased = true;
                        model.fencing_token += 1;
                        let task = &claimed.task;
                        assert!(task.status == Status::Processing && task.result.is_none(), "{task:?}");
                        assert_eq!(
                            (i64::from(task.attempts), task.version),
                            (model.attempts, model.version)
                        );
                        assert_eq!(claimed.fencing_token, model.fencing_token);
                        tokens[worker] = Some(claimed.fencing_token);
                    }
                    (ClaimOutcome::Busy, Some(model)) => {
                        assert!(
                            model.status == Status::Processing && model.leased,
                            "busy, but {model:?}"
                        );
                    }
                    (ClaimOutcome::Early { seconds }, Some(model)) => {
                        assert!(
                            model.status == Status::Scheduled && !model.is_due,
                            "early, but {model:?}"
                        );
                        assert!((7100..=7200).contains(&seconds), "{seconds} s");
                    }
                    (ClaimOutcome::Settled, Some(model)) => {
                        let is_open = matches!(model.status, Status::Pending | Status::Processing | Status::Scheduled);
                        assert!(!is_open && !model.is_claimable(sent_late), "settled, but {model:?}");
                    }
                    (other, model) => assert!(other == ClaimOutcome::Settled, "{other:?}, but {model:?}"),
                }
            }
            Event::Settle { worker, status } => {
                let Some(fencing_token) = tokens[worker] else { continue };
                let result = Some(format!("{status:?} by {worker}"));
                let outcome = Outcome {
                    id,
                    fencing_token,
                    status,
                    result,
                };
                let settled = case.database.run(&Settle(&[outcome])).await.expect("run");
                let has_current_lease =
                    |model: &&mut Model| model.status == Status::Processing && model.fencing_token == fencing_token;
                match model.as_mut().filter(has_current_lease) {
                    Some(model) => {
                        assert_eq!(settled, [id]);
                        let outcome = match status {
                            Status::Completed => AttemptOutcome::Completed,
                            Status::Failed => AttemptOutcome::Failed,
                            _ => AttemptOutcome::Retried,
                        };
                        model.end_attempt(&[AttemptOutcome::Running, AttemptOutcome::Lost], outcome);
                        model.is_open &= status != Status::Pending;
                        model.set_status(status);
                    }
                    None => assert_eq!(settled, []),
                }
            }
            Event::LeaseExpires => {
                let expire = "update tasks set lease_expires_at = now() where lease_expires_at is not null";
                case.execute(expire).await;
                if let Some(model) = &mut model {
                    model.leased = false;
                    model.end_attempt(&[AttemptOutcome::Running], AttemptOutcome::Lost);
                }
            }
            Event::ProcessAgain => {
                let expected = match &mut model {
                    None => ResetOutcome::NotFound,
                    Some(model) if model.leased => ResetOutcome::Processing,
                    Some(model) => {
                        model.set_status(Status::Pending);
                        model.attempts = 0;
                        model.is_open = false;
                        ResetOutcome::Done
                    }
                };
                let access = Access::All;
                let reset = Reset { id, access };
                assert_eq!(case.database.run(&reset).await.expect("run"), expected);
            }
            Event::Cancel => {
                let cancel = Cancel {
                    id,
                    versions: None,
                    access: Access::All,
                };
                let outcome = case.database.run(&cancel).await.expect("run");
                match &mut model {
                    None => assert_eq!(outcome, CancelOutcome::NotFound),
                    Some(model) if matches!(model.status, Status::Completed | Status::Failed) => {
                        assert_eq!(outcome, CancelOutcome::Settled(StoredStatus::Known(model.status)));
                    }
                    Some(model) => {
                        if model.status != Status::Cancelled {
                            model.end_attempt(&[AttemptOutcome::Running], AttemptOutcome::Discarded);
                            model.is_open = false;
                            model.set_status(Status::Cancelled);
                        }
                        let CancelOutcome::Cancelled(task) = outcome else {
                            panic!("{outcome:?}, but {model:?}")
                        };
                        assert_eq!((task.version, task.status == Status::Cancelled), (model.version, true));
                    }
                }
            }
            Event::SetStatus(status) => {
                let patch = TaskPatch {
                    status: Some(status),
                    ..TaskPatch::default()
                };
                let change = case.update(id, &patch).await;
                match &mut model {
                    Some(model) => {
                        // A task that is set to processing again keeps its lease.
                        let leased = model.leased && status == Status::Processing;
                        let is_opened = status == Status::Processing && model.status != Status::Processing;
                        if is_opened || status == Status::Pending {
                            model.attempts = 0;
                        }
                        if is_opened || status != Status::Processing {
                            model.end_attempt(&[AttemptOutcome::Running], AttemptOutcome::Discarded);
                            model.is_open = false;
                        }
                        model.set_status(status);
                        model.leased = leased;
                        assert!(matches!(change, Change::Done(task) if task.version == model.version));
                    }
                    None => assert_eq!(change, Change::NotFound),
                }
            }
            Event::Schedule { later } => {
                let run_at = OffsetDateTime::now_utc() + time::Duration::hours(if later { 2 } else { -2 });
                let patch = TaskPatch {
                    run_at: Some(Some(RunAt::try_from(FilterTime(run_at)).expect("within a year"))),
                    ..TaskPatch::default()
                };
                let change = case.update(id, &patch).await;
                match &mut model {
                    None => assert_eq!(change, Change::NotFound),
                    Some(model) if model.leased => assert_eq!(change, Change::Leased),
                    Some(model) => {
                        model.set_status(if later { Status::Scheduled } else { Status::Pending });
                        model.attempts = 0;
                        model.is_open = false;
                        model.is_due = false;
                        assert!(matches!(change, Change::Done(task) if task.version == model.version));
                    }
                }
            }
            Event::TimeComes => {
                case.execute("update tasks set run_at = now() where status = 'scheduled'")
                    .await;
                if let Some(model) = &mut model {
                    model.is_due = true;
                }
            }
            Event::Delete => {
                let expected = model.take().map_or(Change::NotFound, |_| Change::Done(()));
                let delete = Delete {
                    id,
                    versions: None,
                    access: Access::All,
                };
                assert_eq!(case.database.run(&delete).await.expect("run"), expected);
            }
        }
        assert_row_matches(&case.row(id).await, model.as_ref());
        let history = case.database.run(&FindHistory(id)).await.expect("run");
        let shown = history.map(|history| {
            let attempts = history.attempts.into_iter();
            let attempts = attempts.map(|attempt| (i64::from(attempt.number), attempt.outcome));
            attempts.collect::<Vec<_>>()
        });
        let made = model.as_ref().map(|model| {
            let made = &model.made;
            made[made.len().saturating_sub(History::MAX_ATTEMPTS)..].to_vec()
        });
        assert_eq!(shown, made);
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn one_worker_holds_task_and_only_its_outcome_counts(pool: PgPool) {
    check(&pool, vec(event(), 1..40), claims_and_outcomes_follow_the_model).await;
}

/// A task's state when a batch arrives.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Pending,
    LeasedByAnother,
    LeaseExpired,
    Completed,
    Failed,
    Cancelled,
    Deleted,
}

/// How the work on a task ends: with success, an error of this kind, or a panic.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Work {
    Succeeds,
    Permanent,
    Transient,
    Panics,
}

/// A record of the batch: the index of its task, or none if it is malformed, and its receive count.
type BatchRecord = (Option<usize>, u32);

fn batch() -> impl Strategy<Value = (Vec<(Before, Work)>, Vec<BatchRecord>)> {
    let before = select(
        &[
            Before::Pending,
            Before::Pending,
            Before::LeasedByAnother,
            Before::LeaseExpired,
            Before::Completed,
            Before::Failed,
            Before::Cancelled,
            Before::Deleted,
        ][..],
    );
    let work = select(&[Work::Succeeds, Work::Permanent, Work::Transient, Work::Panics][..]);
    let record = (proptest::option::weighted(0.9, 0..4_usize), 1..7_u32);
    (vec((before, work), 4), vec(record, 0..12))
}

const SETTINGS: Settings = settings::TASK_PROCESSOR;

/// Processes an arbitrary batch and checks the messages to retry and the rows.
async fn each_record_is_either_acknowledged_or_retried(
    case: &mut Case,
    (tasks, records): (Vec<(Before, Work)>, Vec<BatchRecord>),
) {
    let mut ids = Vec::new();
    for (before, _) in &tasks {
        let (columns, values) = match before {
            Before::Pending | Before::Deleted => ("status", "'pending'"),
            Before::LeasedByAnother => ("status, lease_expires_at", "'processing', now() + interval '1 min'"),
            Before::LeaseExpired => ("status, lease_expires_at", "'processing', now()"),
            Before::Completed => ("status, settled_at", "'completed', now()"),
            Before::Failed => ("status, settled_at", "'failed', now()"),
            Before::Cancelled => ("status, settled_at", "'cancelled', now()"),
        };
        let id = case.insert(columns, values).await;
        if *before == Before::Deleted {
            case.execute(&format!("delete from tasks where id = {id}")).await;
        }
        ids.push(id);
    }
    let mut rows = Vec::new();
    for id in &ids {
        rows.push(case.row(*id).await);
    }
    let record = |(number, (task, receives)): (usize, &BatchRecord)| {
        let body = task.map_or("not a task".to_owned(), |task| {
            json!({"task_id": ids[task]}).to_string()
        });
        let attributes = json!({"ApproximateReceiveCount": receives.to_string(), "SentTimestamp": "1"});
        json!({"messageId": number.to_string(), "body": body, "attributes": attributes})
    };
    let event: Vec<Value> = records.iter().enumerate().map(record).collect();
    let event = serde_json::from_value(json!({"Records": event})).expect("an SQS event");
    let works: BTreeMap<TaskId, Work> = ids.iter().copied().zip(tasks.iter().map(|(_, work)| *work)).collect();
    let perform = async |task: &Task, _: &_| match works[&task.id] {
        Work::Succeeds => Ok("done".to_owned()),
        Work::Permanent => Err(TaskError::Permanent("never".to_owned())),
        Work::Transient => Err(TaskError::Transient("not now".to_owned())),
        Work::Panics => panic!("a bug"),
    };
    let deadline = SystemTime::now() + std::time::Duration::from_secs(30);
    let retries = process(&case.database, event, deadline, SETTINGS, perform)
        .await
        .expect("processed")
        .retries;

    let mut expected = Vec::new();
    for (number, (task, _)) in records.iter().enumerate() {
        let is_retried = task.is_none_or(|task| match tasks[task] {
            (Before::Pending | Before::LeaseExpired, work) => matches!(work, Work::Transient | Work::Panics),
            (before, _) => before == Before::LeasedByAnother,
        });
        if is_retried {
            expected.push(number.to_string());
        }
    }
    let retried: Vec<String> = retries.into_iter().map(|retry| retry.message_id).collect();
    assert_eq!(retried, expected);

    for (number, (before, work)) in tasks.iter().enumerate() {
        let receives = records
            .iter()
            .filter(|(task, _)| *task == Some(number))
            .map(|(_, receives)| *receives)
            .max();
        let row = case.row(ids[number]).await;
        let is_claimed = matches!(before, Before::Pending | Before::LeaseExpired);
        let Some(receives) = receives.filter(|_| is_claimed) else {
            assert_eq!(row, rows[number], "an unclaimed task changed");
            continue;
        };
        let (status, result) = match work {
            Work::Succeeds => ("completed", json!("done")),
            Work::Permanent => ("failed", json!("never")),
            _ if receives < SETTINGS.max_receive_count => ("pending", Value::Null),
            Work::Transient => ("failed", json!("not now")),
            Work::Panics => ("failed", json!("the worker panicked")),
        };
        assert_eq!((&row["status"], &row["result"]), (&json!(status), &result));
        assert_eq!(
            (&row["fencing_token"], &row["attempts"]),
            (&json!(1), &json!(1)),
            "not claimed exactly once"
        );
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn no_record_is_both_acknowledged_and_failed(pool: PgPool) {
    check(&pool, batch(), each_record_is_either_acknowledged_or_retried).await;
}

/// A change between two pages.
#[derive(Clone, Copy, Debug)]
enum Between {
    Create(Status, Creator),
    /// Deletes the nth of the initial tasks, if it exists.
    Delete(usize),
}

/// The creator of a task; none for rows older than the column.
type Creator = Option<&'static str>;

/// The initial tasks, the parameters and the access of the list, and the changes between its pages.
type Reading = (
    Vec<(Status, Creator)>,
    Sort,
    Option<Status>,
    Access<'static>,
    i64,
    Vec<Vec<Between>>,
);

fn reading() -> impl Strategy<Value = Reading> {
    let status = || select(&[Status::Pending, Status::Completed][..]);
    let creator = || select(&[Some("alice"), Some("bob"), None][..]);
    let between = prop_oneof![
        (status(), creator()).prop_map(|(status, creator)| Between::Create(status, creator)),
        (0..30_usize).prop_map(Between::Delete)
    ];
    (
        vec((status(), creator()), 0..30),
        select(&[Sort::OldestFirst, Sort::NewestFirst][..]),
        proptest::option::of(status()),
        select(&[Access::All, Access::Own("alice")][..]),
        1..8_i64,
        vec(vec(between, 0..4), 0..12),
    )
}

async fn insert(case: &mut Case, status: Status, creator: Creator) -> TaskId {
    let values = match status {
        Status::Completed => "'completed', now()",
        _ => "'pending', null",
    };
    let creator = creator.map_or("null".to_owned(), |creator| format!("'{creator}'"));
    case.insert("status, settled_at, created_by", &format!("{values}, {creator}"))
        .await
}

/// Reads a list to its end and back while tasks are created and deleted, and compares it with the
/// tasks that existed throughout.
async fn survivors_are_read_once(case: &mut Case, (tasks, sort, status, access, limit, between): Reading) {
    // Uses up the id 1: no cursor can point before it.
    case.insert("status", "'pending'").await;
    case.execute("truncate tasks").await;
    let mut ids = Vec::new();
    for (status, creator) in &tasks {
        ids.push(insert(case, *status, *creator).await);
    }
    let mut deleted = BTreeSet::new();
    let mut between = between.into_iter();
    for forwards in [true, false] {
        let mut read = Vec::new();
        // Backwards, from a cursor past every task.
        let end = Cursor(TaskId::try_from(if sort == Sort::OldestFirst { i64::MAX } else { 1 }).expect("an id"));
        let mut start = if forwards { Start::First } else { Start::Before(end) };
        let existing: Vec<TaskId> = ids.iter().copied().filter(|id| !deleted.contains(id)).collect();
        loop {
            let filter = Filter { status, title: None };
            let page = Page {
                start,
                sort,
                limit,
                filter,
                ..Page::default()
            };
            let list = List { page: &page, access };
            let listed = case.database.run(&list).await.expect("listed");
            let found: Vec<TaskId> = listed.tasks.iter().map(|task| task.id).collect();
            assert!(found.len() <= usize::try_from(limit).expect("small"));
            let next_start = if forwards {
                listed.next.map(Start::After)
            } else {
                listed.previous.map(Start::Before)
            };
            read = if forwards {
                [read, found].concat()
            } else {
                [found, read].concat()
            };
            let Some(next_start) = next_start else { break };
            start = next_start;
            for event in between.next().into_iter().flatten() {
                match event {
                    Between::Create(status, creator) => {
                        insert(case, status, creator).await;
                    }
                    Between::Delete(number) => {
                        if let Some(id) = ids.get(number) {
                            case.execute(&format!("delete from tasks where id = {id}")).await;
                            deleted.insert(*id);
                        }
                    }
                }
            }
        }
        let survived = |id: &TaskId| existing.contains(id) && !deleted.contains(id);
        let matches = |(_, (own, creator)): &(&TaskId, &(Status, Creator))| {
            status.is_none_or(|status| status == *own) && (access == Access::All || access.owner() == *creator)
        };
        let mut expected: Vec<TaskId> = ids.iter().zip(&tasks).filter(matches).map(|(id, _)| *id).collect();
        expected.retain(survived);
        if sort == Sort::NewestFirst {
            expected.reverse();
        }
        read.retain(survived);
        assert_eq!(read, expected, "forwards: {forwards}");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn surviving_task_is_on_exactly_one_page(pool: PgPool) {
    check(&pool, reading(), survivors_are_read_once).await;
}
