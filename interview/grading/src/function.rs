//! A running function, and its responses.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use harness::{LambdaHost, Proxy};
use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use tokio::time::timeout;

use crate::env;

/// How long a function may take to start or to respond. Longer than any timeout in template.yaml.
const PATIENCE: Duration = Duration::from_secs(30);

/// The time until an invocation's deadline, as for the task-processor on AWS.
const TIME: Duration = Duration::from_secs(30);

/// A function that is about to be started.
#[derive(Clone)]
pub struct Starting {
    name: String,
    variables: BTreeMap<String, String>,
    time: Duration,
}

impl Starting {
    pub(crate) fn new(name: &str, variables: BTreeMap<String, String>) -> Self {
        let (name, time) = (name.to_owned(), TIME);
        Self { name, variables, time }
    }

    /// Sets a variable of its environment, overriding template.yaml.
    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.variables.insert(variable.to_owned(), value.to_owned());
        self
    }

    /// Sets the time until an invocation's deadline. The deadline is not enforced.
    pub fn in_time(self, time: Duration) -> Self {
        Self { time, ..self }
    }

    /// Routes its database connections through the proxy.
    pub fn through(self, proxy: &Proxy) -> Self {
        let options: PgConnectOptions = self.variables["DATABASE_URL"].parse().expect("a URL");
        self.with("DATABASE_URL", &proxy.url(&options))
    }

    /// Starts it and waits until it requests its first event, at the end of its init phase.
    pub async fn start(self) -> Function {
        let sandbox = LambdaHost {
            functions: PathBuf::from(env("FUNCTIONS")),
            variables: self.variables.into_iter().collect(),
            time: self.time,
        };
        let started = timeout(PATIENCE, sandbox.start_idle(&self.name)).await;
        let started = started.unwrap_or_else(|_| panic!("{} does not start", self.name));
        let function = started.unwrap_or_else(|error| panic!("{error:#}"));
        Function {
            name: self.name,
            function,
        }
    }
}

/// A function's process: one execution environment. It is killed on drop.
pub struct Function {
    /// `create-task`
    pub name: String,
    function: harness::Function,
}

/// The response of a function behind the API.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: u64,
    headers: BTreeMap<String, String>,
    /// The raw body.
    pub body: String,
}

impl Function {
    /// Sends it an API Gateway event (see [`harness::events`]) and returns the response.
    pub async fn call(&mut self, event: &Value) -> Response {
        let response = self.invoke(event).await;
        let response = response.unwrap_or_else(|error| panic!("{} failed: {error}", self.name));
        Response::of(&response)
    }

    /// Sends it an event and returns its response or its error.
    pub async fn invoke(&mut self, event: &Value) -> Result<Value, String> {
        let outcome = timeout(PATIENCE, self.function.outcome(event)).await;
        let outcome = outcome.unwrap_or_else(|_| panic!("{} does not respond", self.name));
        let outcome = outcome.unwrap_or_else(|error| panic!("{error:#}"));
        outcome.map(|response| response.body).map_err(|failure| failure.error)
    }

    /// The JSON lines that it has printed so far: its log and its metrics.
    pub fn lines(&self) -> Vec<Value> {
        let output = self.output();
        let lines = output.lines().filter_map(|line| serde_json::from_str(line).ok());
        lines.collect()
    }

    /// Everything that it has printed so far.
    pub fn output(&self) -> String {
        self.function.output().expect("output is captured")
    }

    /// The log lines with this message.
    pub fn logged(&self, message: &str) -> Vec<Value> {
        let mut lines = self.lines();
        lines.retain(|line| line["message"] == message);
        lines
    }

    /// The values of a metric, in printed order; a distribution is expanded. Empty unless the
    /// function was started with a `METRICS_NAMESPACE`.
    pub fn metric(&self, name: &str) -> Vec<f64> {
        let lines = self.lines();
        let of_metrics = lines.iter().filter(|line| line["_aws"].is_object());
        of_metrics.flat_map(|line| values(&line[name])).collect()
    }

    /// Its peak memory, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.function.peak_memory().expect("it runs")
    }
}

/// The values of a number, or of a distribution in the embedded metric format.
fn values(metric: &Value) -> Vec<f64> {
    let Some(values) = metric["Values"].as_array() else {
        return metric.as_f64().into_iter().collect();
    };
    let counts = metric["Counts"].as_array().into_iter().flatten();
    let counts = counts.map(|count| usize::try_from(count.as_u64().unwrap_or(1)).unwrap_or(1));
    let values = values.iter().filter_map(Value::as_f64);
    let repeated = values.zip(counts.chain(std::iter::repeat(1)));
    repeated
        .flat_map(|(value, count)| std::iter::repeat_n(value, count))
        .collect()
}

impl Response {
    fn of(response: &Value) -> Self {
        let single = response["headers"].as_object().into_iter().flatten();
        let single = single.filter_map(|(name, value)| Some((name, value.as_str()?.to_owned())));
        let multiple = response["multiValueHeaders"].as_object().into_iter().flatten();
        let multiple = multiple.filter_map(|(name, values)| {
            let values: Vec<&str> = values.as_array()?.iter().filter_map(Value::as_str).collect();
            Some((name, values.join(", ")))
        });
        Self {
            status: response["statusCode"].as_u64().unwrap_or_default(),
            headers: single
                .chain(multiple)
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect(),
            body: response["body"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// A header, case-insensitively; empty if absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(&name.to_ascii_lowercase()).map_or("", String::as_str)
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON, {error}: {}", self.body))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metric_is_number_or_distribution() {
        assert_eq!(values(&json!(3)), [3.0]);
        assert_eq!(values(&json!({"Values": [1.5, 2], "Counts": [2, 1]})), [1.5, 1.5, 2.0]);
        assert!(values(&Value::Null).is_empty());
    }

    #[test]
    fn header_lookup_ignores_case_and_form() {
        let response = Response::of(&json!({
            "statusCode": 200, "body": "{}", "headers": {"ETag": "1"}, "multiValueHeaders": {"vary": ["a", "b"]},
        }));
        assert_eq!((response.header("etag"), response.header("Vary")), ("1", "a, b"));
        assert_eq!(
            (response.status, response.header("x"), response.json()),
            (200, "", json!({}))
        );
    }
}
