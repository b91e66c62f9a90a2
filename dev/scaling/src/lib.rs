//! A model of the system at a number of requests per second: executions, connections, ACUs, SQS
//! requests and costs, and which limit is reached at which rate. docs/scaling.md explains it and
//! contains its [`tables`]; `cargo run --bin scaling` prints them. The parameters are in
//! [model.toml](../model.toml).

use serde::Deserialize;

const KIB: f64 = 1024.0;
const MILLION: f64 = 1e6;
const MICRO: f64 = 1e-6;
const MILLI: f64 = 1e-3;

/// The parameters of the model.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    rates: Vec<f64>,
    traffic: Traffic,
    measured: Measured,
    assumed: Assumed,
    lambda: Lambda,
    /// The limits, some of which are those of template.yaml.
    pub limits: Limits,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Traffic {
    create: f64,
    list: f64,
    cached_authorizations: f64,
    peak: f64,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Measured {
    function_cpu_us: f64,
    get_postgres_us: f64,
    list_postgres_us: f64,
    create_postgres_us: f64,
    task_function_cpu_us: f64,
    task_postgres_us: f64,
    task_wal_bytes: f64,
    task_bytes: f64,
    get_round_trips: f64,
    list_round_trips: f64,
    create_round_trips: f64,
    batch_round_trips: f64,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Assumed {
    round_trip_ms: f64,
    sqs_ms: f64,
    cold_ms: f64,
    work_ms: f64,
    vcpu_per_acu: f64,
    aurora_factor: f64,
    target_utilization: f64,
    log_bytes: f64,
    traced: f64,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lambda {
    memory_mb: f64,
    vcpu_mb: f64,
    pollers: f64,
    batch_size: f64,
}

/// What is reached first.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub requests_per_second: f64,
    pub processors: f64,
    pub acu: f64,
    pub connections: f64,
    executions: f64,
    logins: f64,
    gateway_requests: f64,
    largest_acu: f64,
    most_connections: f64,
    stall_seconds: f64,
}

/// List prices, in USD.
#[derive(Clone, Deserialize)]
struct Prices {
    hours_a_month: f64,
    aurora_acu_hour: f64,
    aurora_million_ios: f64,
    aurora_gb_month: f64,
    sqs_million_requests: f64,
    lambda_million_requests: f64,
    lambda_gb_second: f64,
    log_gb: f64,
    xray_million_traces: f64,
    /// Up to this many million requests a month, at this price a million.
    api_gateway_tiers: Vec<(f64, f64)>,
}

/// The load at one rate. Rates are per second.
struct Load {
    tasks: f64,
    /// Messages in a batch of the processor.
    batch: f64,
    /// Invocations of all functions.
    invocations: f64,
    /// Executions at a time behind the API, on average.
    requests_in_flight: f64,
    /// Executions of the processor at a time, on average.
    processors: f64,
    /// Executions at a time in the busiest second.
    executions: f64,
    /// The same while Postgres does not respond, and each request waits for its deadline.
    stalled: f64,
    /// Logins to Postgres in the first second of a burst, when every execution is new.
    logins: f64,
    acu: f64,
    sqs_requests: f64,
    log_writes: f64,
}

/// How much of a limit a rate needs.
type Need = fn(&Model, f64) -> f64;

impl Model {
    /// The parameters in model.toml.
    pub fn read() -> Self {
        toml::from_str(include_str!("../model.toml")).expect("model.toml fits its types")
    }

    /// Seconds of an execution, from its CPU time at Lambda's share of a CPU and its waits.
    fn seconds(&self, cpu_us: f64, waits_ms: f64) -> f64 {
        let share = self.lambda.memory_mb / self.lambda.vcpu_mb;
        cpu_us * MICRO / share + waits_ms * MILLI
    }

    fn load(&self, rate: f64) -> Load {
        let Self {
            traffic,
            measured,
            assumed,
            lambda,
            limits,
            ..
        } = self;
        let get = 1.0 - traffic.create - traffic.list;
        let request = |round_trips: f64, sqs: f64| {
            self.seconds(
                measured.function_cpu_us,
                round_trips * assumed.round_trip_ms + sqs * assumed.sqs_ms,
            )
        };
        let seconds = get * request(measured.get_round_trips, 0.0)
            + traffic.list * request(measured.list_round_trips, 0.0)
            + traffic.create * request(measured.create_round_trips, 1.0);
        let authorized = 1.0 / traffic.cached_authorizations;
        let requests_in_flight = rate * (seconds + authorized * self.seconds(measured.function_cpu_us, 0.0));

        let tasks = rate * traffic.create;
        let fixed = measured.batch_round_trips * assumed.round_trip_ms + assumed.work_ms;
        let batch_seconds = |batch: f64| self.seconds(measured.task_function_cpu_us * batch, fixed);
        // What arrives while each of the pollers has an invocation.
        let waiting = tasks * batch_seconds(1.0) / lambda.pollers;
        let batch = waiting.clamp(1.0, lambda.batch_size);
        let processors = tasks / batch * batch_seconds(batch);

        let executions = (requests_in_flight + processors) * traffic.peak;
        let in_burst = rate * traffic.peak;
        let postgres = rate * (get * measured.get_postgres_us + traffic.list * measured.list_postgres_us)
            + tasks * (measured.create_postgres_us + measured.task_postgres_us);
        let cores = postgres * MICRO * assumed.aurora_factor / assumed.target_utilization;
        Load {
            tasks,
            batch,
            invocations: rate * (1.0 + authorized) + tasks / batch,
            requests_in_flight,
            processors,
            executions,
            stalled: in_burst * limits.stall_seconds + processors.min(limits.processors),
            logins: executions.max(in_burst * assumed.cold_ms * MILLI),
            acu: (cores * traffic.peak / assumed.vcpu_per_acu).max(1.0),
            // Send; receive and delete by batch.
            sqs_requests: tasks * (1.0 + 2.0 / batch),
            log_writes: tasks * (measured.task_wal_bytes / (4.0 * KIB)).max(3.0 / batch),
        }
    }

    /// Costs of a month at a constant rate, by service.
    fn costs(&self, prices: &Prices, rate: f64) -> Vec<(&'static str, f64)> {
        let load = self.load(rate);
        let seconds = prices.hours_a_month * 3600.0;
        let millions = |rate: f64| rate * seconds / MILLION;
        let running = load.requests_in_flight + load.processors;
        let gigabytes = self.lambda.memory_mb / KIB;
        let mean_acu = (load.acu / self.traffic.peak).max(1.0);
        let (writer, standby) = (mean_acu, mean_acu);
        vec![
            ("API Gateway", tiered(&prices.api_gateway_tiers, millions(rate))),
            (
                "Lambda",
                millions(load.invocations) * prices.lambda_million_requests
                    + running * seconds * gigabytes * prices.lambda_gb_second,
            ),
            ("SQS", millions(load.sqs_requests) * prices.sqs_million_requests),
            (
                "Aurora, writer and standby",
                (writer + standby) * prices.hours_a_month * prices.aurora_acu_hour,
            ),
            (
                "Aurora, writes to the log",
                millions(load.log_writes) * prices.aurora_million_ios,
            ),
            (
                "Aurora, a month's tasks kept",
                millions(load.tasks) * MILLION * self.measured.task_bytes / 1e9 * prices.aurora_gb_month,
            ),
            (
                "logs",
                millions(rate) * MILLION * self.assumed.log_bytes / 1e9 * prices.log_gb,
            ),
            (
                "X-Ray",
                millions(rate) * self.assumed.traced * prices.xray_million_traces,
            ),
        ]
    }

    /// Each limit: its name, its value and how much of it a rate needs.
    fn limited(&self) -> Vec<(&'static str, f64, Need)> {
        let limits = &self.limits;
        vec![
            (
                "stage throttling (`RequestsPerSecond`)",
                limits.requests_per_second,
                |model, rate| rate * model.traffic.peak,
            ),
            ("logins with IAM tokens, in a burst", limits.logins, |model, rate| {
                model.load(rate).logins
            }),
            (
                "executions, while Postgres does not respond",
                limits.executions,
                |model, rate| model.load(rate).stalled,
            ),
            (
                "connections, while Postgres does not respond",
                limits.connections,
                |model, rate| model.load(rate).stalled,
            ),
            ("ACUs of prod (`MaxAcu`)", limits.acu, |model, rate| {
                model.load(rate).acu
            }),
            ("processors (`Processors`)", limits.processors, |model, rate| {
                model.load(rate).processors * model.traffic.peak
            }),
            ("executions", limits.executions, |model, rate| {
                model.load(rate).executions
            }),
            (
                "connections of any Aurora instance",
                limits.most_connections,
                |model, rate| model.load(rate).executions,
            ),
            ("API Gateway, of an account", limits.gateway_requests, |model, rate| {
                rate * model.traffic.peak
            }),
            ("ACUs of the largest instance", limits.largest_acu, |model, rate| {
                model.load(rate).acu
            }),
        ]
    }

    /// The limits in the order in which a growing rate reaches them.
    fn reached(&self) -> Vec<(&'static str, f64, f64)> {
        let mut reached: Vec<_> = self
            .limited()
            .into_iter()
            .map(|(name, limit, need)| (name, limit, reached_at(limit, |rate| need(self, rate))))
            .collect();
        reached.sort_by(|one, other| one.2.total_cmp(&other.2));
        reached
    }
}

/// The rate at which a growing need reaches a limit.
fn reached_at(limit: f64, need: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, 1e9);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if need(middle) < limit {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The price of an amount, each part of it at the price of its tier.
fn tiered(tiers: &[(f64, f64)], amount: f64) -> f64 {
    let mut below = 0.0;
    let mut sum = 0.0;
    for &(up_to, price) in tiers {
        sum += (amount.min(up_to) - below).max(0.0) * price;
        below = up_to;
    }
    sum
}

/// A number with two significant digits at least, and separators.
fn shown(number: f64) -> String {
    let digits = match number {
        10.0.. => 0,
        1.0.. => 1,
        _ => 2,
    };
    let text = format!("{number:.digits$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let grouped: Vec<String> = whole
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|digits| String::from_utf8_lossy(digits).into_owned())
        .collect();
    let grouped = grouped.join(",");
    match fraction.trim_end_matches('0') {
        "" => grouped,
        fraction => format!("{grouped}.{fraction}"),
    }
}

fn row(cells: impl IntoIterator<Item = String>) -> String {
    let cells: Vec<String> = cells.into_iter().collect();
    format!("| {} |\n", cells.join(" | "))
}

/// The tables of docs/scaling.md.
pub fn tables() -> String {
    let model = Model::read();
    let prices: Prices = toml::from_str(include_str!("../../../docs/prices.toml")).expect("the prices fit their types");
    let loads: Vec<Load> = model.rates.iter().map(|&rate| model.load(rate)).collect();
    let head = |first: &str| {
        let rates = model.rates.iter().map(|&rate| format!("{}/s", shown(rate)));
        row([first.to_owned()].into_iter().chain(rates)) + &format!("|{}\n", "---|".repeat(model.rates.len() + 1))
    };
    let line = |name: &str, value: &dyn Fn(&Load) -> f64| {
        row([name.to_owned()]
            .into_iter()
            .chain(loads.iter().map(|load| shown(value(load)))))
    };

    let reached = model.reached();
    let first = (0..model.rates.len()).map(|index| {
        let before = if index == 0 { 0.0 } else { model.rates[index - 1] };
        let limit = reached
            .iter()
            .find(|(.., at)| (before..=model.rates[index]).contains(at));
        limit.map_or("none".to_owned(), |(name, _, at)| {
            format!("{name}: at {}/s", shown(*at))
        })
    });
    let mut tables = head("requests")
        + &line("tasks created", &|load| load.tasks)
        + &line("messages in a batch", &|load| load.batch)
        + &line("executions at a time, in the busiest second", &|load| load.executions)
        + &line("… while Postgres does not respond", &|load| load.stalled)
        + &line("connections without RDS Proxy: as many as executions", &|load| {
            load.executions
        })
        + &line("logins in a burst", &|load| load.logins)
        + &line("ACUs, in the busiest second", &|load| load.acu)
        + &line("SQS requests a second", &|load| load.sqs_requests)
        + &row(
            ["**reached first, if what the column to the left needs is changed**".to_owned()]
                .into_iter()
                .chain(first),
        );

    let costs: Vec<_> = model.rates.iter().map(|&rate| model.costs(&prices, rate)).collect();
    tables += "\n";
    tables += &head("USD a month, at this rate all the time");
    for (index, (service, _)) in costs[0].iter().enumerate() {
        tables += &row([(*service).to_owned()]
            .into_iter()
            .chain(costs.iter().map(|costs| shown(costs[index].1))));
    }
    let sums = costs.iter().map(|costs| costs.iter().map(|(_, usd)| usd).sum::<f64>());
    tables += &row(["**together**".to_owned()]
        .into_iter()
        .chain(sums.map(|sum| format!("**{}**", shown(sum)))));

    tables += "\n| limit | value | reached at |\n|---|---|---|\n";
    for (name, limit, at) in &reached {
        tables += &row([(*name).to_owned(), shown(*limit), format!("{} requests/s", shown(*at))]);
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_an_amount_has_its_tiers_price() {
        let tiers = [(10.0, 3.0), (20.0, 2.0), (1000.0, 1.0)];
        for (amount, price) in [(0.0, 0.0), (4.0, 12.0), (10.0, 30.0), (15.0, 40.0), (25.0, 55.0)] {
            assert_eq!(tiered(&tiers, amount), price, "{amount}");
        }
    }

    #[test]
    fn limit_is_reached_at_the_rate_that_needs_it() {
        assert!((reached_at(75.0, |rate| rate * 3.0) - 25.0).abs() < 1e-6);
        for (name, limit, need) in Model::read().limited() {
            let model = Model::read();
            let at = reached_at(limit, |rate| need(&model, rate));
            assert!(
                need(&model, at * 0.999) < limit && need(&model, at * 1.001) >= limit,
                "{name}: {at}"
            );
        }
    }

    #[test]
    fn load_grows_with_the_rate() {
        let model = Model::read();
        let rates = [1.0, 10.0, 100.0, 1000.0, 10_000.0];
        for pair in rates.windows(2) {
            let (less, more) = (model.load(pair[0]), model.load(pair[1]));
            assert!(less.executions < more.executions && less.stalled < more.stalled && less.acu <= more.acu);
            assert!(less.logins < more.logins && less.sqs_requests < more.sqs_requests);
        }
    }

    /// By hand: what 1,000 requests/s need, with round parameters.
    #[test]
    fn load_is_what_parameters_imply() {
        let mut model = Model::read();
        model.traffic = Traffic {
            create: 0.5,
            list: 0.0,
            cached_authorizations: f64::INFINITY,
            peak: 2.0,
        };
        model.lambda = Lambda {
            memory_mb: 256.0,
            vcpu_mb: 2560.0,
            pollers: 5.0,
            batch_size: 10.0,
        };
        model.assumed = Assumed {
            round_trip_ms: 1.0,
            sqs_ms: 10.0,
            cold_ms: 100.0,
            work_ms: 96.0,
            vcpu_per_acu: 0.25,
            aurora_factor: 2.0,
            target_utilization: 0.5,
            log_bytes: 0.0,
            traced: 0.0,
        };
        model.measured.function_cpu_us = 100.0;
        model.measured.task_function_cpu_us = 200.0;
        (model.measured.get_postgres_us, model.measured.create_postgres_us) = (20.0, 80.0);
        model.measured.task_postgres_us = 100.0;
        let load = model.load(1000.0);
        // Reads take 1 ms of CPU at a tenth of one and 1 ms of waiting; creations 1 + 2 + 10 ms.
        assert!((load.requests_in_flight - (500.0 * 0.002 + 500.0 * 0.013)).abs() < 1e-9);
        // A batch of ten takes 20 + 2 + 96 ms.
        assert_eq!(load.batch, 10.0);
        assert!((load.processors - 50.0 * 0.118).abs() < 1e-9);
        assert!((load.executions - 2.0 * (7.5 + 5.9)).abs() < 1e-9);
        assert!((load.stalled - (2000.0 * model.limits.stall_seconds + 5.9)).abs() < 1e-9);
        // 500 * 20 + 500 * 180 µs, doubled, at half the utilization, at the peak, by 0.25.
        assert!((load.acu - 0.1 * 2.0 / 0.5 * 2.0 / 0.25).abs() < 1e-9);
        assert!((load.sqs_requests - 500.0 * 1.2).abs() < 1e-9);
        // A burst of 2,000, each of which lasts a tenth of a second.
        assert!((load.logins - 200.0).abs() < 1e-9);
    }

    #[test]
    fn numbers_are_readable() {
        for (number, text) in [
            (0.254, "0.25"),
            (1.0, "1"),
            (9.96, "10"),
            (12.4, "12"),
            (1669.0, "1,669"),
            (6.5, "6.5"),
        ] {
            assert_eq!(shown(number), text);
        }
    }
}
