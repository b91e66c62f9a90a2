//! The checks of the exercise task-cache.

// functions: get-task, update-task

use std::time::{Duration, Instant};

use grading::{Function, Proxy, Response, Starting, Template, TestEnvironment, events};
use serde_json::{Value, json};

/// A TTL longer than any check.
const HOUR: &str = "3600000";

/// get-task, behind a proxy that counts its round trips.
struct Reader {
    function: Function,
    proxy: Proxy,
}

impl Reader {
    /// One that caches tasks for an hour.
    async fn new(environment: &TestEnvironment) -> Self {
        Self::start(environment, cached(environment, HOUR, "100")).await
    }

    async fn start(environment: &TestEnvironment, starting: Starting) -> Self {
        let proxy = environment.proxy().await;
        let function = starting.through(&proxy).start().await;
        let mut reader = Self { function, proxy };
        // The first reads also prepare the statements. The task does not exist, so nothing can be
        // cached.
        for event in [get(999_999), anew(get(999_999)), known(get(999_999), "\"1\"")] {
            assert_eq!(reader.read(&event).await.0.status, 404, "a task that does not exist");
        }
        reader
    }

    /// The response, and how many round trips to Postgres it took.
    async fn read(&mut self, event: &Value) -> (Response, usize) {
        let before = self.proxy.round_trips();
        let response = self.function.call(event).await;
        (response, self.proxy.round_trips() - before)
    }

    /// The task, which must exist, and the round trips.
    async fn task(&mut self, event: &Value) -> (Value, usize) {
        let (response, round_trips) = self.read(event).await;
        assert_eq!(response.status, 200, "a read of a task: {}", response.body);
        (response.json(), round_trips)
    }
}

/// get-task with these settings.
fn cached(environment: &TestEnvironment, milliseconds: &str, entries: &str) -> Starting {
    environment
        .function("get-task")
        .with("TASK_CACHE_TTL_MILLISECONDS", milliseconds)
        .with("TASK_CACHE_ENTRIES", entries)
        .with("METRICS_NAMESPACE", "graded")
}

/// A read by alice.
fn get(id: i64) -> Value {
    events::by(events::task("GET", id, ""), "alice", false)
}

fn anew(event: Value) -> Value {
    events::with_header(event, "Cache-Control", "no-cache")
}

/// A read by a client that has this version.
fn known(event: Value, etag: &str) -> Value {
    events::with_header(event, "If-None-Match", etag)
}

/// A read by a client that has the first version.
fn conditional(event: Value) -> Value {
    known(event, "\"1\"")
}

/// A task owned by alice.
async fn task(environment: &TestEnvironment, title: &str) -> i64 {
    let id = environment.task(title, "").await;
    environment
        .execute(&format!("update tasks set created_by = 'alice' where id = {id}"))
        .await;
    id
}

/// Changes the title through another function, and returns the new ETag.
async fn rename(writer: &mut Function, id: i64, title: &str) -> String {
    let event = events::by(events::task("PATCH", id, ""), "alice", false);
    let response = writer.call(&events::with_body(event, &json!({"title": title}))).await;
    assert_eq!(response.status, 200, "a change of the title: {}", response.body);
    response.header("etag").to_owned()
}

#[tokio::test]
async fn without_the_cache_every_read_is_one_round_trip() {
    let environment = TestEnvironment::new().await;
    let id = task(&environment, "t").await;
    for (what, starting) in [
        (
            "with the local settings of template.yaml",
            environment.function("get-task"),
        ),
        ("with a TTL of 0", cached(&environment, "0", "100")),
        ("with room for 0 tasks", cached(&environment, HOUR, "0")),
    ] {
        let mut reader = Reader::start(&environment, starting).await;
        for _ in 0..3 {
            let (_, round_trips) = reader.task(&get(id)).await;
            assert_eq!(round_trips, 1, "round trips of a read, {what}");
        }
    }
    for name in ["sandbox", "prod"] {
        let template = Template::of(name);
        let variables = &template.function("get-task")["Environment"]["Variables"];
        let (ttl, entries) = (
            &variables["TASK_CACHE_TTL_MILLISECONDS"],
            &variables["TASK_CACHE_ENTRIES"],
        );
        assert!(
            ttl.is_null() || [ttl, entries].into_iter().any(|value| *value == "0" || *value == 0),
            "{name}: the cache is on, with a TTL of {ttl} ms and {entries} entries"
        );
    }
}

#[tokio::test]
async fn repeated_read_is_identical_without_a_round_trip() {
    let environment = TestEnvironment::new().await;
    let id = task(&environment, "t").await;
    let mut reader = Reader::new(&environment).await;
    let (first, round_trips) = reader.read(&get(id)).await;
    assert_eq!(
        (first.status, round_trips),
        (200, 1),
        "status and round trips of the first read"
    );
    for _ in 0..3 {
        let (again, round_trips) = reader.read(&get(id)).await;
        assert_eq!(round_trips, 0, "round trips of a further read");
        assert_eq!(again.body, first.body, "the body of a further read");
        for name in ["etag", "content-type", "cache-control"] {
            assert_eq!(again.header(name), first.header(name), "{name} of a further read");
        }
    }
}

#[tokio::test]
async fn entry_expires_however_often_it_is_read() {
    let environment = TestEnvironment::new().await;
    let id = task(&environment, "before").await;
    let mut writer = environment.function("update-task").start().await;
    let mut reader = Reader::start(&environment, cached(&environment, "3000", "100")).await;
    reader.task(&get(id)).await;
    let entered = Instant::now();
    assert_eq!(
        reader.task(&get(id)).await.1,
        0,
        "round trips of an immediate second read"
    );
    rename(&mut writer, id, "after").await;
    // More often than the TTL: an entry whose TTL restarts with each read never expires.
    loop {
        // At least as old as that when the function looks at it, on a slow machine as well.
        let age = entered.elapsed();
        if reader.task(&get(id)).await.0["title"] == "after" {
            break;
        }
        assert!(
            age < Duration::from_millis(3500),
            "{:.1} s after it was read, a task with a TTL of 3 s is still the old version",
            age.as_secs_f64()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn no_cache_and_if_none_match_read_and_refresh_the_entry() {
    let environment = TestEnvironment::new().await;
    let id = task(&environment, "first").await;
    let mut writer = environment.function("update-task").start().await;
    let mut reader = Reader::new(&environment).await;

    // The directive may be one of several, in upper or lower case (RFC 9111).
    for directives in ["no-cache", "max-age=600, No-Cache"] {
        reader.task(&get(id)).await;
        rename(&mut writer, id, directives).await;
        let event = events::with_header(get(id), "Cache-Control", directives);
        let (now, round_trips) = reader.task(&event).await;
        assert_eq!(
            (now["title"].as_str(), round_trips),
            (Some(directives), 1),
            "title and round trips of a read with Cache-Control: {directives}"
        );
        let (next, round_trips) = reader.task(&get(id)).await;
        assert_eq!(
            (next["title"].as_str(), round_trips),
            (Some(directives), 0),
            "title and round trips of the read after one with Cache-Control: {directives}"
        );
    }

    // Other directives do not count, whatever their letters.
    for directives in ["no-transform", "x-no-cache", "no-cache-please", "no-c", "max-stale"] {
        let event = events::with_header(get(id), "Cache-Control", directives);
        assert_eq!(
            reader.task(&event).await.1,
            0,
            "round trips of a read with Cache-Control: {directives}, when the task is in memory"
        );
    }

    // The client has the version that its own change created; the cache has the previous one.
    let own = rename(&mut writer, id, "own").await;
    let (response, _) = reader.read(&known(get(id), &own)).await;
    assert_eq!(
        (response.status, response.header("etag")),
        (304, own.as_str()),
        "status and ETag of a read with If-None-Match: {own}, which is the task's version"
    );
    let (next, round_trips) = reader.task(&get(id)).await;
    assert_eq!(
        (next["title"].as_str(), round_trips),
        (Some("own"), 0),
        "title and round trips of the read after one with If-None-Match"
    );
    // Now another client changes it.
    let newer = rename(&mut writer, id, "newer").await;
    let (response, _) = reader.read(&known(get(id), &own)).await;
    assert_eq!(
        (response.status, response.header("etag")),
        (200, newer.as_str()),
        "status and ETag of a read with If-None-Match: {own}, when the task's version is {newer}"
    );
}

#[tokio::test]
async fn cached_task_is_not_shown_to_other_users() {
    let environment = TestEnvironment::new().await;
    let id = task(&environment, "t").await;
    let mut reader = Reader::new(&environment).await;
    let by = |subject, admin| events::by(events::task("GET", id, ""), subject, admin);
    reader.task(&get(id)).await;
    assert_eq!(
        reader.task(&get(id)).await.1,
        0,
        "round trips of the owner's second read"
    );
    let (response, _) = reader.read(&by("bob", false)).await;
    assert_eq!(response.status, 404, "bob's read of a task that alice has read");
    assert_eq!(reader.task(&by("root", true)).await.0["id"], id, "an admin's read");
    for subject in ["bob", "root"] {
        let (response, _) = reader.read(&by(subject, false)).await;
        assert_eq!(
            response.status, 404,
            "a read by {subject}, not an admin, of a task that an admin has read"
        );
    }
    assert_eq!(reader.task(&get(id)).await.0["id"], id, "the owner's final read");
}

#[tokio::test]
async fn missing_and_deleted_tasks_are_not_cached() {
    let environment = TestEnvironment::new().await;
    let mut reader = Reader::new(&environment).await;
    let (response, _) = reader.read(&get(4242)).await;
    assert_eq!(response.status, 404, "a read of a task that does not exist yet");
    let insert = "insert into tasks (id, title, created_by) overriding system value values (4242, 't', 'alice')";
    environment.execute(insert).await;
    reader.task(&get(4242)).await;
    assert_eq!(
        reader.task(&get(4242)).await.1,
        0,
        "round trips of a second read once it exists"
    );

    environment.execute("delete from tasks").await;
    let (response, _) = reader.read(&anew(get(4242))).await;
    assert_eq!(
        response.status, 404,
        "a read of a deleted task with Cache-Control: no-cache"
    );
    let (response, _) = reader.read(&get(4242)).await;
    assert_eq!(response.status, 404, "the read after one that found the task deleted");

    // Once one caller finds it deleted, it is not served to others either.
    let admin = |id| events::by(events::task("GET", id, ""), "root", true);
    for (who, finds, other) in [
        ("its owner", get as fn(i64) -> Value, admin as fn(i64) -> Value),
        ("an admin", admin, get),
    ] {
        for (how, fresh) in [
            ("Cache-Control: no-cache", anew as fn(Value) -> Value),
            ("If-None-Match", conditional),
        ] {
            let id = task(&environment, "t").await;
            for event in [get(id), admin(id)] {
                reader.task(&event).await;
            }
            environment.execute("delete from tasks").await;
            assert_eq!(
                reader.read(&fresh(finds(id))).await.0.status,
                404,
                "a read of a deleted task with {how}"
            );
            for (whose, event) in [("another caller's", other(id)), ("the same caller's", finds(id))] {
                let (response, _) = reader.read(&event).await;
                assert_eq!(
                    response.status, 404,
                    "{whose} read of a task that {who} found deleted with {how}"
                );
            }
        }
    }

    let id = task(&environment, "t").await;
    reader.proxy.take_down().await;
    let (response, _) = reader.read(&get(id)).await;
    assert_eq!(response.status, 503, "a read without a database");
    reader.proxy.open();
    reader.task(&get(id)).await;
    assert_eq!(
        reader.task(&get(id)).await.1,
        0,
        "round trips of a second read once the database is back"
    );

    // An entry is no spare database: not for those who ask for the current task, nor after its TTL.
    reader.proxy.take_down().await;
    for (how, event) in [
        ("Cache-Control: no-cache", anew(get(id))),
        ("If-None-Match", conditional(get(id))),
    ] {
        let (response, _) = reader.read(&event).await;
        assert_eq!(
            response.status, 503,
            "a read with {how} without a database, when the task is in memory"
        );
    }
    let mut reader = Reader::start(&environment, cached(&environment, "500", "100")).await;
    reader.task(&get(id)).await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    reader.proxy.take_down().await;
    let (response, _) = reader.read(&get(id)).await;
    assert_eq!(
        response.status, 503,
        "a read without a database, when the TTL of the task in memory has ended"
    );
}

#[tokio::test]
async fn full_cache_evicts_an_older_task() {
    let environment = TestEnvironment::new().await;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(task(&environment, &format!("task {number}")).await);
    }
    let mut reader = Reader::start(&environment, cached(&environment, HOUR, "3")).await;
    for id in &ids {
        reader.task(&get(*id)).await;
        assert_eq!(
            reader.task(&get(*id)).await.1,
            0,
            "round trips of a task that was just read"
        );
    }
    // Each is read once, so hits are entries from before, whatever the eviction policy.
    let mut kept = 0;
    for id in &ids {
        let (task, round_trips) = reader.task(&get(*id)).await;
        assert_eq!(task["id"], *id, "the id in the response");
        kept += usize::from(round_trips == 0);
    }
    assert!(
        kept <= 3,
        "{kept} of 20 tasks were cached, although TASK_CACHE_ENTRIES is 3"
    );

    // One more than there is room for. The last ones first: a miss evicts another one.
    let newest = task(&environment, "newest").await;
    let mut reader = Reader::start(&environment, cached(&environment, HOUR, "20")).await;
    for id in ids.iter().chain([&newest]) {
        reader.task(&get(*id)).await;
    }
    let mut kept = 0;
    for id in ids.iter().rev() {
        kept += usize::from(reader.task(&get(*id)).await.1 == 0);
    }
    // Each miss may evict one that is still to be read: with a random choice there are nine misses
    // in one of 360,000 runs.
    assert!(
        kept >= 12,
        "{kept} of 20 tasks were still cached after one more was read, although TASK_CACHE_ENTRIES is 20"
    );
}

#[tokio::test]
async fn hits_and_misses_are_metrics_that_reach_cloudwatch() {
    let environment = TestEnvironment::new().await;
    let id = task(&environment, "t").await;
    let mut reader = Reader::new(&environment).await;
    let sums = |reader: &Reader| {
        ["TaskCacheHits", "TaskCacheMisses"].map(|name| reader.function.metric(name).iter().sum::<f64>())
    };
    let [hits, misses] = sums(&reader);
    for event in [get(id), get(id), anew(get(id)), get(id), get(999_999)] {
        reader.read(&event).await;
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let [hits, misses] = [sums(&reader)[0] - hits, sums(&reader)[1] - misses];
        if [hits, misses] == [2.0, 3.0] {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "after two reads from memory and three from the database: TaskCacheHits {hits}, TaskCacheMisses {misses}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let lines = reader.function.lines();
    let directives: Vec<&Value> = lines.iter().map(|line| &line["_aws"]["CloudWatchMetrics"][0]).collect();
    for name in ["TaskCacheHits", "TaskCacheMisses"] {
        let metric = json!({"Name": name, "Unit": "Count"});
        let is_declared = directives.iter().any(|directive| {
            let metrics = directive["Metrics"].as_array().into_iter().flatten();
            directive["Namespace"] == "graded" && metrics.into_iter().any(|one| *one == metric)
        });
        assert!(
            is_declared,
            "no line declares {metric} in the namespace of METRICS_NAMESPACE"
        );
    }
    let prod = Template::of("prod");
    let variables = &prod.function("get-task")["Environment"]["Variables"];
    for name in ["METRICS_NAMESPACE", "TASK_CACHE_TTL_MILLISECONDS", "TASK_CACHE_ENTRIES"] {
        let is_set = !variables[name].is_null() && variables[name] != "";
        assert!(is_set, "GetTaskFunction has no {name} in prod");
    }
}
