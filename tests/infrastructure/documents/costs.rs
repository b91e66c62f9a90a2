//! The tables of costs in docs/deploy.md, calculated from the template and docs/prices.toml; and
//! the limits from which dev/scaling calculates those in docs/scaling.md.

use scaling::Model;
use serde_json::Value;
use support::documents::file;

use crate::template::{of_type, templates};

struct Prices(Value);

impl Prices {
    fn read() -> Self {
        let text = file("docs/prices.toml").expect("the prices");
        Self(toml::from_str(&text).expect("TOML"))
    }

    fn of(&self, name: &str) -> f64 {
        number(&self.0[name])
    }

    fn hours(&self) -> f64 {
        self.of("hours_a_month")
    }
}

fn number(value: &Value) -> f64 {
    let text = value.as_str().and_then(|text| text.parse().ok());
    value
        .as_f64()
        .or(text)
        .unwrap_or_else(|| panic!("not a number: {value}"))
}

/// One row of a table; without an amount if it depends on the use.
struct Row {
    name: String,
    calculation: String,
    usd: f64,
    shown: String,
}

fn row(name: impl Into<String>, calculation: impl Into<String>, usd: f64) -> Row {
    Row {
        name: name.into(),
        calculation: calculation.into(),
        usd,
        shown: format!("{usd:.2}"),
    }
}

fn count(template: &Value, kind: &str) -> usize {
    of_type(template, kind).count()
}

fn float(count: usize) -> f64 {
    count as f64
}

fn zones(template: &Value) -> usize {
    let endpoints = of_type(template, "AWS::EC2::VPCEndpoint").map(|(_, endpoint)| &endpoint["Properties"]);
    let interfaces = endpoints.filter(|endpoint| endpoint["VpcEndpointType"] == "Interface");
    interfaces
        .map(|endpoint| endpoint["SubnetIds"].as_array().map_or(0, Vec::len))
        .sum()
}

/// Those of one metric. An alarm on a query is billed by the metrics that it reads, which exist
/// only while there are requests.
fn alarms(template: &Value) -> usize {
    let alarms = of_type(template, "AWS::CloudWatch::Alarm");
    alarms
        .filter(|(_, alarm)| alarm["Properties"].get("MetricName").is_some())
        .count()
}

fn cluster(template: &Value) -> &Value {
    &template["Resources"]["Database"]["Properties"]
}

fn polling(prices: &Prices) -> (f64, f64) {
    let receives = prices.of("pollers") * prices.hours() * 3600.0 / prices.of("poll_seconds") / 1e6;
    (receives, receives * prices.of("sqs_million_requests"))
}

/// How often a sandbox's reconciler runs in a month, its interval in hours, and the hours that the
/// database is awake each time: the frozen function's connection lasts until
/// `idle_session_timeout`, and then the pause is due.
fn sweeps(template: &Value, prices: &Prices) -> (f64, f64, f64) {
    let schedule = &template["Resources"]["TaskReconcilerFunctionSchedule"]["Properties"]["ScheduleExpression"];
    let schedule = schedule.as_str().expect("a schedule");
    let hours = schedule
        .strip_prefix("rate(")
        .and_then(|rest| rest.strip_suffix(" hours)"));
    let hours: f64 = hours.and_then(|hours| hours.parse().ok()).expect("hours");
    let parameters = &template["Resources"]["DatabaseParameters"]["Properties"]["Parameters"];
    let session = number(&parameters["idle_session_timeout"]) / 1000.0;
    let pause = number(&cluster(template)["ServerlessV2ScalingConfiguration"]["SecondsUntilAutoPause"]);
    ((prices.hours() / hours).round(), hours, (session + pause) / 3600.0)
}

fn sandbox(template: &Value, prices: &Prices) -> String {
    let endpoint = prices.of("interface_endpoint_hour");
    assert_eq!(zones(template), 2, "one of each endpoint");
    let alarms = alarms(template);
    let free_alarms = float(alarms) * prices.of("alarm_month");
    let (times, interval, awake) = sweeps(template, prices);
    let (acu, acu_hour) = (prices.of("awake_acu"), prices.of("aurora_acu_hour"));
    let (receives, free_receives) = polling(prices);
    assert_eq!(cluster(template)["ServerlessV2ScalingConfiguration"]["MinCapacity"], 0);
    assert_eq!(count(template, "AWS::KMS::Key"), 1);
    assert_eq!(count(template, "AWS::CloudWatch::Dashboard"), 1);
    let rows = [
        row(
            "interface endpoints of SQS and Lambda, one zone",
            format!("{endpoint} an hour, endpoint and zone"),
            2.0 * endpoint * prices.hours(),
        ),
        row("KMS key of the alarm topic", "one key", prices.of("kms_key_month")),
        row(
            format!("{alarms} alarms"),
            format!(
                "{:.2} each; the first 10 of an account are free",
                prices.of("alarm_month")
            ),
            free_alarms,
        ),
        row("Aurora, asleep", "0 ACU", 0.0),
        row(
            format!("Aurora, woken by the reconciler every {interval} hours"),
            format!(
                "{times} times about {:.0} min at {acu} ACU, {acu_hour} an ACU-hour; it sleeps after \
                 `idle_session_timeout` and `SecondsUntilAutoPause`",
                awake * 60.0
            ),
            times * awake * acu * acu_hour,
        ),
        Row {
            shown: "< 0.10".to_owned(),
            ..row("Aurora storage", "0.10 a GB; an empty database is well below one", 0.1)
        },
        row(
            "Lambda polling the queue",
            format!(
                "about {receives:.2} million empty receives at {:.2} a million; the first million is free",
                prices.of("sqs_million_requests")
            ),
            free_receives,
        ),
        row("dashboard", "the first three of an account are free, then 3.00", 0.0),
        row(
            "log groups, EMF metrics, API Gateway, Lambda, X-Ray, backups of one day, S3 endpoint, security groups",
            "by use",
            0.0,
        ),
    ];
    let sum: f64 = rows.iter().map(|row| row.usd).sum();
    let free = sum - free_alarms - free_receives;
    render(
        "sandbox",
        &rows,
        &format!("**about {sum:.0}** ({free:.0} with the free tiers)"),
        &[],
    )
}

fn prod(template: &Value, prices: &Prices) -> String {
    let instances = count(template, "AWS::RDS::DBInstance");
    let floor = number(&cluster(template)["ServerlessV2ScalingConfiguration"]["MinCapacity"]);
    assert_eq!((instances, zones(template)), (2, 4));
    let shared = prices.of("kms_key_month") + float(alarms(template)) * prices.of("alarm_month") + polling(prices).1;
    let acu = prices.of("aurora_acu_hour");
    let rows = [
        row(
            "Aurora, writer and standby",
            format!("{instances} instances, floor of {floor} ACU each"),
            float(instances) * floor * acu * prices.hours(),
        ),
        row(
            "interface endpoints of SQS and Lambda, two zones",
            "",
            4.0 * prices.of("interface_endpoint_hour") * prices.hours(),
        ),
        row("key, alarms, polling, as above", "", shared),
        Row {
            shown: "< 1".to_owned(),
            ..row("Aurora storage, and backups of 35 days beyond its size", "by use", 1.0)
        },
        row(
            "RouteErrorsAlarm and its metrics",
            "by use: 0.40 for each route with requests",
            0.0,
        ),
    ];
    let sum: f64 = rows.iter().map(|row| row.usd).sum();
    let least = prices.of("proxy_least_acu");
    let proxy = row(
        "RDS Proxy, if enabled",
        format!("{} an ACU-hour, at least {least} ACUs", prices.of("proxy_acu_hour")),
        prices.of("proxy_acu_hour") * least * prices.hours(),
    );
    let proxy = Row {
        shown: format!("+ {}", proxy.shown),
        ..proxy
    };
    render("prod", &rows, &format!("**about {sum:.0}**"), &[proxy])
}

fn render(name: &str, rows: &[Row], sum: &str, optional: &[Row]) -> String {
    let line = |row: &Row| {
        let calculation = if row.calculation.is_empty() {
            " ".to_owned()
        } else {
            format!(" {} ", row.calculation)
        };
        format!("| {} |{calculation}| {} |\n", row.name, row.shown)
    };
    let rows: String = rows.iter().map(line).collect();
    let optional: String = optional.iter().map(line).collect();
    format!("| {name} | calculation | USD a month |\n|---|---|---|\n{rows}| **together** | | {sum} |\n{optional}")
}

#[test]
fn tables_of_costs_are_those_of_template() {
    let (templates, prices) = (templates(), Prices::read());
    let document = file("docs/deploy.md").expect("the document");
    for table in [
        sandbox(&templates["sandbox"], &prices),
        prod(&templates["prod"], &prices),
    ] {
        assert!(document.contains(&table), "docs/deploy.md needs this table:\n\n{table}");
    }
}

#[test]
fn limits_of_scaling_are_those_of_template() {
    let templates = templates();
    let limits = Model::read().limits;
    for (name, value) in [
        ("RequestsPerSecond", limits.requests_per_second),
        ("Processors", limits.processors),
        ("MaxAcu", limits.acu),
        ("MaxConnections", limits.connections),
    ] {
        let capacity = &templates["translated"]["Mappings"]["Capacity"]["prod"][name];
        assert_eq!(capacity.as_f64(), Some(value), "{name}");
    }
}
