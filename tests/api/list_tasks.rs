//! `GET /tasks`

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{App, Gateway, Response, count, execute, plan_nodes, session, statements, task};

async fn list(pool: &PgPool, query: &[(&str, &str)]) -> Response {
    let request = App::new(pool).get("/tasks");
    let request = query
        .iter()
        .fold(request, |request, (name, value)| request.query(name, value));
    request.await
}

pub fn ids(response: &Response) -> Vec<i64> {
    let tasks = response.json();
    let tasks = tasks.as_array().expect("a bare array");
    tasks.iter().map(|task| task["id"].as_i64().expect("an id")).collect()
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn list_without_tasks_is_empty(pool: PgPool) {
    let response = list(&pool, &[]).await;
    assert_eq!((response.status(), response.json()), (200, json!([])));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn tasks_are_complete_and_sorted_by_id(pool: PgPool) {
    for title in ["a", "b", "c"] {
        task(&pool, title).await;
    }
    // Updated rows move in the table; the order must not.
    execute(&pool, "update tasks set title = 'A' where id = 1").await;
    let response = list(&pool, &[]).await;
    assert_eq!(ids(&response), [1, 2, 3]);
    let listed = &response.json()[0];
    let found = App::new(&pool).get("/tasks/1").await.json();
    assert_eq!((listed, &listed["title"]), (&found, &json!("A")));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn skip_and_limit_choose_page(pool: PgPool) {
    execute(
        &pool,
        "insert into tasks (title) select 't' from generate_series(1, 120)",
    )
    .await;
    assert_eq!(ids(&list(&pool, &[]).await), (1..=100).collect::<Vec<_>>());
    assert_eq!(ids(&list(&pool, &[("limit", "2")]).await), [1, 2]);
    assert_eq!(ids(&list(&pool, &[("skip", "118")]).await), [119, 120]);
    assert_eq!(ids(&list(&pool, &[("skip", "1"), ("limit", "2")]).await), [2, 3]);
    assert_eq!(list(&pool, &[("skip", "120")]).await.json(), json!([]));
    assert_eq!(list(&pool, &[("skip", "10000")]).await.json(), json!([]));
    for skip in ["10001", "1500000", "9223372036854775807"] {
        let response = list(&pool, &[("skip", skip)]).await;
        assert_eq!(
            response.json()["errors"],
            json!([{
                "pointer": "#/query/skip",
                "detail": "must be an integer from 0 to 10000; to go further, follow the Link header",
            }])
        );
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn count_is_exact_up_to_10000(pool: PgPool) {
    let count = async |query: &[(&str, &str)]| {
        let response = list(&pool, &[query, &[("count", "true"), ("limit", "2")]].concat()).await;
        let header = |name| response.header(name).to_owned();
        (header("x-total-count"), header("x-total-count-relation"))
    };
    let exactly = |count: i64| (count.to_string(), "eq".to_owned());
    let at_least = |count: i64| (count.to_string(), "gte".to_owned());
    let insert = async |count: i64, status: &str| {
        let insert = format!(
            "insert into tasks (title, status, settled_at, created_by)
             select case when n % 4 = 0 then 'Café' else 'tea' end, '{status}',
                    case '{status}' when 'failed' then now() end, 'tester'
             from generate_series(1, {count}) as n"
        );
        execute(&pool, &insert).await;
    };
    insert(9_990, "pending").await;
    insert(10, "failed").await;
    execute(&pool, "update tasks set title = 'Rare one' where id in (3, 5, 7)").await;
    let by_status = [("status", "pending")];
    assert_eq!(count(&[]).await, exactly(10_000));
    assert_eq!(count(&by_status).await, exactly(9_990));
    assert_eq!(count(&[("q", "CAFE\u{301}")]).await, exactly(2_499));
    assert_eq!(count(&[("q", "rare")]).await, exactly(3));
    assert_eq!(count(&[("skip", "9999")]).await, exactly(10_000));

    insert(1, "pending").await;
    assert_eq!(count(&[]).await, at_least(10_000));
    assert_eq!(count(&by_status).await, exactly(9_991));
    assert_eq!(count(&[("status", "failed")]).await, exactly(10));
    assert_eq!(count(&[("status", "completed")]).await, exactly(0));
    assert_eq!(count(&[("q", "Café")]).await, at_least(2_499));
    assert_eq!(count(&[("q", "nowhere")]).await, exactly(0));
    insert(10, "pending").await;
    assert_eq!(count(&by_status).await, at_least(10_000));
    // Older than the newest 10,000: known from the page only.
    assert_eq!(count(&[("q", "rare")]).await, at_least(3));
    execute(&pool, "update tasks set title = 'tea' where id = 7").await;
    assert_eq!(count(&[("q", "rare")]).await, exactly(2));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn query_arrives_through_both_gateways(pool: PgPool) {
    execute(&pool, "insert into tasks (title) select 't' from generate_series(1, 5)").await;
    let app = App::new(&pool);
    for gateway in [Gateway::Rest, Gateway::Http] {
        let response = app.get("/tasks?skip=3&limit=1").via(gateway).await;
        assert_eq!(ids(&response), [4]);
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn invalid_parameters_are_422(pool: PgPool) {
    for (name, value) in [
        ("skip", "-1"),
        ("skip", "abc"),
        ("skip", ""),
        ("skip", "10001"),
        ("skip", "9223372036854775808"),
        ("limit", "0"),
        ("limit", "101"),
        ("limit", "1e2"),
        ("limit", "+5"),
        ("limit", "007"),
        ("skip", "-0"),
        ("offset", "1"),
        ("after", ""),
        ("after", "1"),
        ("after", "AAAAAAAAAAA"),
        ("before", "AAAAAAAAAAA"),
        ("sort", "title"),
        ("status", "done"),
        ("count", "yes"),
    ] {
        let response = list(&pool, &[(name, value)]).await;
        response.assert_problem(422, "Unprocessable Entity");
        assert_eq!(response.pointers(), [format!("#/query/{name}")], "{value}");
    }
    let escaped = list(&pool, &[("a/b~ ö", "1")]).await.pointers();
    assert_eq!(escaped, ["#/query/a~1b~0%20%C3%B6"]);
    let mut twice = list(&pool, &[("limit", "1"), ("limit", "2"), ("skip", "x")])
        .await
        .pointers();
    twice.sort();
    assert_eq!(twice, ["#/query/limit", "#/query/skip"]);
}

/// The query parameters of a relation in the `Link` header.
pub fn link(response: &Response, relation: &str) -> Option<Vec<(String, String)>> {
    let relation = format!(">; rel=\"{relation}\"");
    let links = response.header("link").split(", ");
    let query = links
        .filter_map(|link| link.strip_prefix("<?")?.strip_suffix(&relation))
        .next()?;
    Some(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
}

async fn follow(pool: &PgPool, query: &[(String, String)]) -> Response {
    let parameters: Vec<(&str, &str)> = query.iter().map(|(name, value)| (&**name, &**value)).collect();
    let response = list(pool, &parameters).await;
    assert_eq!(response.status(), 200, "{response:?}");
    response
}

/// Reads a whole list along its `next` links, and runs `between` before each further page.
async fn read_all(pool: &PgPool, query: &[(&str, &str)], between: impl AsyncFn(usize)) -> Vec<i64> {
    let mut all = Vec::new();
    let mut response = list(pool, query).await;
    for page in 0.. {
        all.extend(ids(&response));
        let Some(next) = link(&response, "next") else { break };
        between(page).await;
        response = follow(pool, &next).await;
    }
    all
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn next_links_cover_whole_list(pool: PgPool) {
    execute(&pool, "insert into tasks (title) select 't' from generate_series(1, 7)").await;
    for limit in ["1", "2", "3", "6", "7", "8", "100"] {
        let up = read_all(&pool, &[("limit", limit)], async |_| {}).await;
        assert_eq!(up, [1, 2, 3, 4, 5, 6, 7], "{limit}");
        let down = read_all(&pool, &[("limit", limit), ("sort", "-id")], async |_| {}).await;
        assert_eq!(down, [7, 6, 5, 4, 3, 2, 1], "{limit}");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn prev_and_first_links_lead_back(pool: PgPool) {
    execute(&pool, "insert into tasks (title) select 't' from generate_series(1, 7)").await;
    for (sort, all) in [("id", [1, 2, 3, 4, 5, 6, 7]), ("-id", [7, 6, 5, 4, 3, 2, 1])] {
        let first = list(&pool, &[("limit", "3"), ("sort", sort)]).await;
        assert_eq!(ids(&first), all[..3]);
        assert_eq!((link(&first, "first"), link(&first, "prev")), (None, None));
        let second = follow(&pool, &link(&first, "next").expect("a next page")).await;
        assert_eq!(ids(&second), all[3..6]);
        let third = follow(&pool, &link(&second, "next").expect("a next page")).await;
        assert_eq!((ids(&third), link(&third, "next")), (all[6..].to_vec(), None));

        let back = follow(&pool, &link(&third, "prev").expect("a previous page")).await;
        assert_eq!(ids(&back), all[3..6]);
        assert_eq!(link(&back, "next"), link(&second, "next"));
        let back = follow(&pool, &link(&back, "prev").expect("a previous page")).await;
        assert_eq!((ids(&back), link(&back, "prev")), (all[..3].to_vec(), None));
        let begin = follow(&pool, &link(&third, "first").expect("a first page")).await;
        assert_eq!(begin.text(), first.text());
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn filters_apply_and_stay_in_links(pool: PgPool) {
    execute(
        &pool,
        "insert into tasks (title, status, settled_at)
         select case n % 3 when 0 then 'Ship 50% & Ö?' when 1 then 'a_b' else 'x' end,
                case n % 2 when 0 then 'failed'::task_status else 'pending' end,
                case n % 2 when 0 then now() end
         from generate_series(1, 24) as n",
    )
    .await;
    let every = |step: usize, from: i64| (from..=24).step_by(step).collect::<Vec<_>>();
    for (query, expected) in [
        (&[("status", "failed")][..], every(2, 2)),
        (&[("status", "completed")], vec![]),
        (&[("q", "50% & ö?")], every(3, 3)),
        (&[("q", "SHIP")], every(3, 3)),
        (&[("q", "p")], every(3, 3)),
        (&[("q", "_")], every(3, 1)),
        (&[("q", "%")], every(3, 3)),
        (&[("q", "")], every(1, 1)),
        (&[("q", "ship 5 0")], vec![]),
        (&[("q", "ship"), ("status", "failed")], every(6, 6)),
    ] {
        let mut newest_first = expected.clone();
        newest_first.reverse();
        for (sort, expected) in [("id", expected), ("-id", newest_first)] {
            let query = [query, &[("limit", "3"), ("sort", sort), ("count", "true")]].concat();
            assert_eq!(read_all(&pool, &query, async |_| {}).await, expected, "{query:?}");
            let total = expected.len().to_string();
            assert_eq!(list(&pool, &query).await.header("x-total-count"), total, "{query:?}");
        }
    }
    assert_eq!(
        list(&pool, &[]).await.header("x-total-count"),
        "",
        "counted without `count=true`"
    );
}

/// Lambda's limit for a response.
const MAX_RESPONSE: usize = 6_291_556;

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn page_is_shortened_to_response_limit(pool: PgPool) {
    // In the response, each of these characters has 7 bytes.
    execute(
        &pool,
        "insert into tasks (title, description)
         select 't', repeat(chr(1), case when n % 10 = 0 then 1 else 10000 end) from generate_series(1, 250) as n",
    )
    .await;
    // Stored before results were shortened: 80 KB each.
    execute(
        &pool,
        "update tasks set result = repeat('😀', 10000), description = repeat('😀', 10000) where id > 150",
    )
    .await;
    let get = async |query: &[(&str, &str)]| {
        let response = list(&pool, query).await;
        assert_eq!(response.status(), 200);
        let bytes = json!({"body": response.text()}).to_string().len();
        assert!(bytes < MAX_RESPONSE, "{bytes}");
        (bytes, response)
    };
    for (sort, all) in [
        ("id", (1..=250).collect()),
        ("-id", (1..=250).rev().collect::<Vec<_>>()),
    ] {
        let (bytes, first) = get(&[("sort", sort), ("count", "true")]).await;
        assert!(bytes > MAX_RESPONSE * 9 / 10, "the first page is too short: {bytes}");
        assert_eq!(first.header("x-total-count"), "250");
        let (mut read, mut last) = (ids(&first), first);
        while let Some(next) = link(&last, "next") {
            let next: Vec<(&str, &str)> = next.iter().map(|(name, value)| (&**name, &**value)).collect();
            last = get(&next).await.1;
            read.extend(ids(&last));
        }
        assert_eq!(read, all, "{sort}");
        // And back.
        let mut read = ids(&last);
        while let Some(previous) = link(&last, "prev") {
            let previous: Vec<(&str, &str)> = previous.iter().map(|(name, value)| (&**name, &**value)).collect();
            last = get(&previous).await.1;
            read.splice(0..0, ids(&last));
        }
        assert_eq!(read, all, "{sort}");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn search_ignores_normalization_form(pool: PgPool) {
    let (composed, decomposed) = ("Sch\u{f6}n \u{c5}", "Sch\u{6f}\u{308}n \u{41}\u{30a}");
    for title in [composed, decomposed, "Schon A"] {
        task(&pool, title).await;
    }
    for query in [
        "\u{f6}n",
        "o\u{308}n",
        "SCH\u{d6}N",
        "scho\u{308}n a\u{30a}",
        "\u{212b}",
        "\u{f6}",
    ] {
        let response = list(&pool, &[("q", query), ("count", "true")]).await;
        assert_eq!(
            (ids(&response), response.header("x-total-count")),
            (vec![1, 2], "2"),
            "{query:?}"
        );
    }
    assert_eq!(ids(&list(&pool, &[("q", "on a")]).await), [3]);
    // Stored and returned as sent.
    let titles: Vec<Value> = list(&pool, &[]).await.json().as_array().expect("tasks").clone();
    assert_eq!(
        (&titles[0]["title"], &titles[1]["title"]),
        (&json!(composed), &json!(decomposed))
    );
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn title_parts_cover_every_substring(pool: PgPool) {
    for title in ["a", "Ab", "abab", "Ü🚀x", "50% & Ö?", &"é".repeat(255)] {
        let (parts, missing): (i64, i64) = sqlx::query_as(
            "select count(*), count(*) filter (where not title_parts($1) @> search_parts(substr($1, first, length)))
             from generate_series(1, char_length($1)) as first, generate_series(1, char_length($1)) as length",
        )
        .bind(title)
        .fetch_one(&pool)
        .await
        .expect("the query is valid");
        let length = i64::try_from(title.chars().count()).expect("short");
        assert_eq!((parts, missing), (length * length, 0), "{title}");
    }
    let parts: Vec<String> = sqlx::query_scalar("select title_parts('aÖÖ A')")
        .fetch_one(&pool)
        .await
        .expect("the query is valid");
    assert_eq!(parts, ["a", "ö", "ö", " ", "a", "aö", "öö", "ö ", " a"]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn late_page_of_a_million_tasks_costs_as_much_as_first(pool: PgPool) {
    // Maintaining the titles' index would take minutes, and these pages do not use it.
    execute(&pool, "alter table tasks disable trigger tasks_title_inserted").await;
    execute(
        &pool,
        "insert into tasks (title, status, settled_at, created_by)
         select case n % 20000 when 0 then 'needle ' else 'task ' end || n,
                case n % 10 when 0 then 'failed'::task_status else 'completed' end,
                now(),
                case when n > 800000 then 'the newest' when n % 2 = 0 then 'user ' || n % 1000 end
         from generate_series(1, 1000000) as n",
    )
    .await;
    execute(&pool, "vacuum analyze tasks").await;
    let mut connection = session(&pool).await;
    let mut checked = 0;
    for (query, _) in statements() {
        // Those with a sparse filter: `infrastructure::database::growth`.
        if !query.contains("offset $2 limit $3") || query.contains("task_titles") {
            continue;
        }
        checked += 1;
        let prepare = format!("prepare page as {query}");
        sqlx::raw_sql(&prepare).execute(&mut connection).await.expect("valid");
        let is_down = query.contains("id desc");
        // Owners, and an id at which a late page of their tasks begins.
        let owners = match query.contains("created_by = ") {
            false => &[("", if is_down { 100 } else { 999_900 })][..],
            // An owner with few, scattered tasks, and one with many at the end: a walk over all
            // tasks would find them late.
            true if is_down => &[("user 10", 110_000), ("the newest", 900_000)],
            true => &[("user 10", 690_000), ("the newest", 900_000)],
        };
        let first = if is_down { i64::MAX } else { 0 };
        // A custom and a generic plan: Postgres may choose either for a prepared statement that it
        // has run a few times.
        let modes = ["force_custom_plan", "force_generic_plan"];
        for ((owner, late), mode) in owners.iter().flat_map(|owner| modes.map(|mode| (owner, mode))) {
            sqlx::raw_sql(&format!("set plan_cache_mode = {mode}"))
                .execute(&mut connection)
                .await
                .expect("valid");
            let arguments = [
                query.contains("status = ").then_some("failed"),
                Some(*owner).filter(|owner| !owner.is_empty()),
            ];
            let arguments: String = arguments
                .iter()
                .flatten()
                .map(|argument| format!(", '{argument}'"))
                .collect();
            let mut pages = Vec::new();
            for from in [first, *late] {
                let explain =
                    format!("explain (analyze, buffers, format json) execute page ({from}, 0, 101{arguments})");
                let plan: Value = sqlx::query_scalar(&explain)
                    .fetch_one(&mut connection)
                    .await
                    .expect("a plan");
                let plan = plan[0]["Plan"].clone();
                let nodes: Vec<&str> = plan_nodes(&plan)
                    .into_iter()
                    .map(|node| node["Node Type"].as_str().expect("a type"))
                    .collect();
                assert!(
                    !nodes.iter().any(|node| node.contains("Seq Scan")),
                    "{mode}: {query}: {nodes:?}"
                );
                assert!(
                    !nodes.iter().any(|node| node.contains("Sort")),
                    "{mode}: {query}: {nodes:?}"
                );
                let buffers = |name: &str| plan[name].as_i64().expect("a number");
                pages.push(buffers("Shared Hit Blocks") + buffers("Shared Read Blocks"));
            }
            // Blocks read do not depend on the machine's load. The allowance covers the descent of
            // the index.
            assert!(pages[1] <= pages[0] * 6 / 5 + 4, "{mode}: {query}: {pages:?}");
            // At most one block for each task of the page, hence none for other users' tasks.
            assert!(pages[0] <= 101 + 10, "{mode}: {query}: {pages:?}");
        }
        sqlx::raw_sql("deallocate page")
            .execute(&mut connection)
            .await
            .expect("valid");
    }
    assert_eq!(
        checked, 6,
        "two directions of all tasks, of those with a status, and of own tasks"
    );
}

/// More than twice as many tasks as a page with a sparse filter examines.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn sparse_filters_find_all_among_many_tasks(pool: PgPool) {
    // `ab` and `bc` are frequent, `abc` is not. `~` occurs once, `x` everywhere.
    execute(
        &pool,
        "insert into tasks (title, lease_expires_at, created_by)
         select case when n = 6000 then '~ x' when n in (5500, 12000) then 'abc x' else 'ab bc x' end,
                case when n in (1, 11000) then now() + interval '1 h' end, 'user ' || n % 2
         from generate_series(1, 12000) as n",
    )
    .await;
    for (query, expected) in [
        (&[("q", "~")][..], &[6000][..]),
        (&[("q", "~ X")], &[6000]),
        (&[("q", "~"), ("status", "pending")], &[6000]),
        (&[("q", "~"), ("status", "failed")], &[]),
        (&[("q", "\u{e9}")], &[]),
        (&[("q", "abc")], &[5500, 12000]),
        (&[("status", "processing")], &[1, 11000]),
        (&[("q", "ab bc"), ("status", "processing")], &[1, 11000]),
    ] {
        for sort in ["id", "-id"] {
            let query = [query, &[("limit", "3"), ("sort", sort)]].concat();
            let mut found = read_all(&pool, &query, async |_| {}).await;
            found.sort_unstable();
            assert_eq!(found, expected, "{query:?}");
        }
    }
    // A rare text is on the first page, a frequent one fills it.
    assert_eq!(ids(&list(&pool, &[("q", "~")]).await), [6000]);
    let frequent = ids(&list(&pool, &[("q", "x"), ("limit", "3")]).await);
    assert_eq!(frequent, [1, 2, 3]);
    // A page that ended early, even an empty one, links to where it ended; and back.
    let early = list(&pool, &[("q", "abc"), ("limit", "3")]).await;
    assert_eq!(ids(&early), [0; 0]);
    let next = follow(&pool, &link(&early, "next").expect("a next page")).await;
    assert_eq!(ids(&next), [5500]);
    let back = follow(&pool, &link(&next, "prev").expect("a previous page")).await;
    assert_eq!(ids(&back), [0; 0]);
    let begin = follow(&pool, &link(&back, "prev").expect("a previous page")).await;
    assert_eq!((ids(&begin), link(&begin, "prev")), (vec![], None));
    // A status of the caller's own tasks, of which user 1 has 6,000.
    let app = App::new(&pool).as_user("user 1");
    let early = app
        .get("/tasks")
        .query("status", "processing")
        .query("sort", "-id")
        .await;
    assert_eq!(ids(&early), [0; 0]);
    let next = link(&early, "next").expect("a next page");
    let last = next
        .iter()
        .fold(app.get("/tasks"), |request, (name, value)| request.query(name, value));
    let last = last.await;
    assert_eq!((ids(&last), link(&last, "next")), (vec![1], None));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn pages_are_stable_under_concurrent_writes(pool: PgPool) {
    const ROWS: i64 = 1000;
    // Tasks with ids divisible by 5 or 7 are deleted, on pages already read and on pages still
    // unread.
    let stays = |id: &i64| *id <= ROWS && id % 5 != 0 && id % 7 != 0;
    execute(
        &pool,
        "insert into tasks (title) select 't' from generate_series(1, 1000)",
    )
    .await;
    let disturb = async |page: usize| {
        // An update moves a row within the table: here every row, hence across every page boundary.
        execute(&pool, "update tasks set title = title || '.', updated_at = now()").await;
        let (read, unread) = ((page % 20) * 50, (page % 20 + 1) * 50);
        for (divisor, from) in [(5, read), (7, unread)] {
            let delete = format!("delete from tasks where id % {divisor} = 0 and id between {from} and {from} + 49");
            execute(&pool, &delete).await;
        }
        execute(&pool, "insert into tasks (title) values ('new')").await;
    };
    let mut read = read_all(&pool, &[("limit", "50")], disturb).await;
    assert!(read.is_sorted(), "{read:?}");
    assert!(count(&pool).await < ROWS, "nothing was deleted");
    read.retain(stays);
    assert_eq!(read, (1..=ROWS).filter(stays).collect::<Vec<_>>());
}
