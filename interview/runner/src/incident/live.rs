//! The running stack as an operator reaches it: the API, the emulator's AWS APIs, Postgres.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::{runtime::Runtime, time::timeout};
use ureq::Agent;
use xtask::stack::{
    Stack, TOKEN_LIFETIME,
    aws::{Aws, REGION},
    deploy::STACK_NAME,
    start,
};

/// The access key of the account that owns the stack. One of twelve digits is another account's.
const OWN_ACCOUNT: &str = "local";

/// The most entries of a request for several messages.
const ENTRIES: usize = 10;

/// The time limit of a request or a statement.
const LIMIT: Duration = Duration::from_secs(10);

/// Milliseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Where everything is.
#[derive(Clone, Deserialize, Serialize)]
pub struct Live {
    /// The emulator's URL.
    pub aws: String,
    pub api: String,
    token: String,
    pub database: String,
    pub queue: String,
    pub dead_letters: String,
    /// The id of the event source mapping.
    pub mapping: String,
    /// The functions' names in Lambda, by folder.
    pub functions: BTreeMap<String, String>,
}

impl Live {
    /// The deployed stack; fails if it is not running.
    pub fn of(stack: &Stack) -> Result<Self> {
        let deployed = start::deployed(stack)?;
        let there = Aws::new(stack.emulator.url()).stack(STACK_NAME)?;
        let functions = there.context("there is no deployed stack")?.functions;
        let mut live = Self {
            aws: stack.emulator.url(),
            api: deployed.api_url,
            token: stack.issuer()?.token("orders", "admin", TOKEN_LIFETIME),
            database: deployed.database_url,
            queue: deployed.task_queue_url,
            dead_letters: deployed.dead_letter_queue_url,
            mapping: String::new(),
            functions: functions.into_iter().map(|(id, name)| (folder(&id), name)).collect(),
        };
        let mappings = live.lambda("GET /2015-03-31/event-source-mappings/", &Value::Null)?;
        let processor = live.function("task-processor")?;
        let is_ours = |mapping: &&Value| {
            let function = mapping["FunctionArn"].as_str().unwrap_or_default();
            function.contains(&format!(":{processor}:"))
        };
        let mapping = mappings["EventSourceMappings"]
            .as_array()
            .into_iter()
            .flatten()
            .find(is_ours);
        live.mapping = mapping
            .and_then(|mapping| mapping["UUID"].as_str())
            .context("the task queue has no event source mapping; deploy again: make down, then make up")?
            .to_owned();
        Ok(live)
    }

    /// A function's name in Lambda.
    pub fn function(&self, folder: &str) -> Result<&str> {
        let name = self.functions.get(folder);
        name.map(String::as_str)
            .with_context(|| format!("the function {folder} is not deployed"))
    }

    /// Calls the API: `GET /tasks/1`. The status is 0 if there was no response.
    pub fn api(&self, request: &str, body: &Value, key: Option<&str>) -> (u16, Value) {
        let mut headers = vec![("authorization", format!("Bearer {}", self.token))];
        headers.extend(key.map(|key| ("idempotency-key", key.to_owned())));
        let sent = send(&self.api, request, body, &headers);
        sent.unwrap_or_else(|error| (0, json!(format!("{error:#}"))))
    }

    /// Calls Lambda: `PUT /2015-03-31/…`.
    pub fn lambda(&self, request: &str, body: &Value) -> Result<Value> {
        succeed(request, send(&self.aws, request, body, &[signature("lambda")])?)
    }

    /// Calls SQS: `SendMessage`.
    pub fn sqs(&self, action: &str, body: &Value) -> Result<Value> {
        self.sqs_of(OWN_ACCOUNT, action, body)
    }

    /// The same by another account.
    fn sqs_of(&self, account: &str, action: &str, body: &Value) -> Result<Value> {
        let target = ("x-amz-target", format!("AmazonSQS.{action}"));
        let signature = signature_of(account, "sqs");
        succeed(action, send(&self.aws, "POST /", body, &[signature, target])?)
    }

    /// The JSON log lines of a function since a time: their times, and what they say.
    pub fn log(&self, function: &str, since: u64) -> Result<Vec<(u64, Value)>> {
        let target = ("x-amz-target", "Logs_20140328.FilterLogEvents".to_owned());
        let group = format!("/aws/lambda/{}", self.function(function)?);
        let body = json!({"logGroupName": group, "startTime": since});
        let (status, found) = send(&self.aws, "POST /", &body, &[signature("logs"), target])?;
        // The group is created with its first line.
        let events = found["events"].as_array().filter(|_| status == 200).cloned();
        Ok(events
            .unwrap_or_default()
            .iter()
            .filter_map(|event| {
                let line = serde_json::from_str(event["message"].as_str()?.trim()).ok()?;
                Some((event["timestamp"].as_u64()?, line))
            })
            .collect())
    }

    /// The attributes of a queue.
    pub fn attributes(&self, queue: &str) -> Result<Value> {
        let body = json!({"QueueUrl": queue, "AttributeNames": ["All"]});
        Ok(self.sqs("GetQueueAttributes", &body)?["Attributes"].take())
    }

    /// The bodies of all messages in the dead-letter queue, which stay there.
    pub fn dead_letters(&self) -> Result<Vec<String>> {
        let mut seen = BTreeMap::new();
        loop {
            let known = seen.len();
            for message in self.receive(&self.dead_letters, 60)? {
                let id = message["MessageId"].to_string();
                seen.entry(id).or_insert(message);
            }
            if seen.len() == known {
                break;
            }
        }
        let messages: Vec<&Value> = seen.values().collect();
        for messages in messages.chunks(ENTRIES) {
            let entries = messages.iter().enumerate().map(|(at, message)| {
                json!({"Id": at.to_string(), "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0})
            });
            let entries: Vec<Value> = entries.collect();
            let body = json!({"QueueUrl": self.dead_letters, "Entries": entries});
            self.sqs("ChangeMessageVisibilityBatch", &body)?;
        }
        let bodies = seen.values().filter_map(|message| message["Body"].as_str());
        Ok(bodies.map(str::to_owned).collect())
    }

    /// Receives up to ten messages, which are hidden for some seconds.
    pub fn receive(&self, queue: &str, hidden: u32) -> Result<Vec<Value>> {
        let body = json!({"QueueUrl": queue, "MaxNumberOfMessages": ENTRIES, "VisibilityTimeout": hidden});
        let received = self.sqs("ReceiveMessage", &body)?;
        Ok(received["Messages"].as_array().cloned().unwrap_or_default())
    }

    pub fn send(&self, queue: &str, message: &str) -> Result<()> {
        self.sqs("SendMessage", &json!({"QueueUrl": queue, "MessageBody": message}))
            .map(drop)
    }

    /// Sends the same message several times, as another account.
    pub fn send_all(&self, account: &str, queue: &str, message: &str, count: usize) -> Result<()> {
        let numbers: Vec<usize> = (0..count).collect();
        for numbers in numbers.chunks(ENTRIES) {
            let entries = numbers
                .iter()
                .map(|number| json!({"Id": number.to_string(), "MessageBody": message}));
            let entries: Vec<Value> = entries.collect();
            self.sqs_of(
                account,
                "SendMessageBatch",
                &json!({"QueueUrl": queue, "Entries": entries}),
            )?;
        }
        Ok(())
    }

    /// The version that a function's callers get.
    pub fn version(&self, folder: &str) -> Result<String> {
        let alias = self.lambda(&format!("GET {}/aliases/live", self.path(folder)?), &Value::Null)?;
        let version = alias["FunctionVersion"].as_str().map(str::to_owned);
        version.with_context(|| format!("the alias of {folder} has no version"))
    }

    pub fn set_version(&self, folder: &str, version: &str) -> Result<()> {
        let request = format!("PUT {}/aliases/live", self.path(folder)?);
        self.lambda(&request, &json!({"FunctionVersion": version})).map(drop)
    }

    /// An environment variable of the version that a function's callers get; empty if it is not set.
    pub fn variable(&self, folder: &str, name: &str) -> Result<String> {
        let request = format!("GET {}/configuration?Qualifier=live", self.path(folder)?);
        let configuration = self.lambda(&request, &Value::Null)?;
        let value = configuration["Environment"]["Variables"][name].as_str();
        Ok(value.unwrap_or_default().to_owned())
    }

    /// Deploys a version of a function with another value of an environment variable.
    pub fn set_variable(&self, folder: &str, variable: &str, value: &str) -> Result<()> {
        let path = self.path(folder)?;
        let mut configuration = self.lambda(&format!("GET {path}/configuration"), &Value::Null)?;
        let mut environment = configuration["Environment"].take();
        environment["Variables"][variable] = json!(value);
        let changed = json!({"Environment": {"Variables": environment["Variables"]}});
        self.lambda(&format!("PUT {path}/configuration"), &changed)?;
        let published = self.lambda(&format!("POST {path}/versions"), &json!({}))?;
        let version = published["Version"].as_str().context("no version was published")?;
        self.set_version(folder, version)
    }

    fn path(&self, folder: &str) -> Result<String> {
        Ok(format!("/2015-03-31/functions/{}", self.function(folder)?))
    }

    /// A session of Postgres, as its owner.
    pub fn database(&self) -> Result<Db> {
        Db::open(&self.database)
    }
}

/// The part of a signature that the emulator reads; it does not verify it.
fn signature(service: &str) -> (&'static str, String) {
    signature_of(OWN_ACCOUNT, service)
}

fn signature_of(account: &str, service: &str) -> (&'static str, String) {
    let scope = format!("{account}/20260101/{REGION}/{service}/aws4_request");
    (
        "authorization",
        format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"),
    )
}

/// `get-task` for `GetTaskFunction`.
fn folder(logical_id: &str) -> String {
    let mut folder = String::new();
    for character in logical_id.trim_end_matches("Function").chars() {
        if character.is_uppercase() && !folder.is_empty() {
            folder.push('-');
        }
        folder.extend(character.to_lowercase());
    }
    folder
}

fn succeed(what: &str, (status, response): (u16, Value)) -> Result<Value> {
    ensure!((200..300).contains(&status), "{what} failed: {status} {response}");
    Ok(response)
}

fn send(url: &str, request: &str, body: &Value, headers: &[(&str, String)]) -> Result<(u16, Value)> {
    let config = Agent::config_builder()
        .timeout_global(Some(LIMIT))
        .http_status_as_error(false)
        .build();
    let (method, path) = request.split_once(' ').context("a request has a method and a path")?;
    let mut prepared = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{url}{path}"))
        .header("content-type", "application/json");
    for (name, value) in headers {
        prepared = prepared.header(*name, value);
    }
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let mut response = Agent::from(config)
        .run(prepared.body(body)?)
        .with_context(|| format!("no response from {url}"))?;
    let text = response.body_mut().read_to_string()?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok((response.status().as_u16(), body))
}

/// A session of Postgres, for code that does not await.
pub struct Db {
    runtime: Runtime,
    connection: PgConnection,
}

impl Db {
    pub fn open(url: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let connection = runtime.block_on(async { timeout(LIMIT, PgConnection::connect(url)).await });
        let connection = connection.context("Postgres did not respond in time")?;
        let connection = connection.context("Postgres refused a connection")?;
        Ok(Self { runtime, connection })
    }

    /// Runs statements; those with `{` are no format strings.
    pub fn execute(&mut self, statements: &str) -> Result<()> {
        let run = sqlx::raw_sql(statements).execute(&mut self.connection);
        let run = self.runtime.block_on(async { timeout(6 * LIMIT, run).await });
        run.context("Postgres did not respond in time")?
            .with_context(|| format!("Postgres refused: {statements}"))?;
        Ok(())
    }

    /// The rows of a query, as JSON objects.
    pub fn rows(&mut self, query: &str) -> Result<Vec<Value>> {
        let aggregate = format!("select coalesce(json_agg(row_to_json(found)), '[]')::text from ({query}) as found");
        let run = sqlx::query_scalar::<_, String>(&aggregate).fetch_one(&mut self.connection);
        let text = self.runtime.block_on(async { timeout(6 * LIMIT, run).await });
        let text = text
            .context("Postgres did not respond in time")?
            .with_context(|| format!("Postgres refused: {query}"))?;
        Ok(serde_json::from_str(&text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logical_ids_name_folders() {
        assert_eq!(folder("GetTaskFunction"), "get-task");
        assert_eq!(folder("HealthFunction"), "health");
    }
}
