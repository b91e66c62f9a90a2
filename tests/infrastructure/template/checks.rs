//! Requirements on template.yaml. Each check panics if one is not met.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{function_name, of_type, one_or_more, operations, public_routes};
use crate::support::functions::FUNCTIONS;

/// Defines a test for each check, and the list of all checks that the mutation tests run.
macro_rules! checks {
    ($($check:ident),* $(,)?) => {
        /// Every check and its name.
        pub const CHECKS: &[(&str, fn(&Value))] = &[$((stringify!($check), $check)),*];

        mod of_the_template {
            $(#[test]
            fn $check() {
                super::$check(&crate::template::templates());
            })*
        }
    };
}

checks! {
    queues_are_encrypted_and_have_dead_letter_queue,
    queue_times_fit_processor_timeout,
    event_source_mapping_is_partial_and_bounded,
    database_has_enough_connections,
    roles_allow_only_known_actions,
    functions_log_in_as_their_database_role,
    public_routes_are_known,
    other_routes_require_authorizer,
    cloud_api_is_closed_and_has_no_passwords,
    gateway_responses_are_problems,
    functions_time_out_before_api_gateway,
    functions_are_reachable_only_through_api,
    api_is_throttled_logged_and_traced,
    functions_have_expiring_logs_and_alarm,
    every_alarm_reaches_topic,
    network_has_no_route_to_internet,
    database_is_private_encrypted_and_backed_up,
    sandbox_pauses_and_prod_does_not,
    functions_depend_on_migrations,
    prod_is_deployed_gradually,
    local_stack_has_only_local_resources,
    every_parameter_is_in_a_group,
}

const EVERYWHERE: [&str; 3] = ["local", "sandbox", "prod"];
const CLOUD: [&str; 2] = ["sandbox", "prod"];

/// A resource's properties, in an environment.
fn properties<'a>(templates: &'a Value, environment: &str, name: &str) -> &'a Value {
    &templates[environment]["Resources"][name]["Properties"]
}

fn variables<'a>(templates: &'a Value, environment: &str, function: &str) -> &'a Value {
    &properties(templates, environment, function)["Environment"]["Variables"]
}

fn number(value: &Value) -> u64 {
    // Text in environment variables.
    let text = value.as_str().and_then(|text| text.parse().ok());
    value
        .as_u64()
        .or(text)
        .unwrap_or_else(|| panic!("not a number: {value}"))
}

/// The functions of an environment, by name.
fn functions<'a>(templates: &'a Value, environment: &str) -> Vec<(String, &'a Value)> {
    let functions = of_type(&templates[environment], "AWS::Lambda::Function");
    functions
        .map(|(name, one)| (function_name(name), &one["Properties"]))
        .collect()
}

fn queues_are_encrypted_and_have_dead_letter_queue(templates: &Value) {
    for environment in EVERYWHERE {
        let template = &templates[environment];
        for (name, queue) in of_type(template, "AWS::SQS::Queue") {
            assert_eq!(queue["Properties"]["SqsManagedSseEnabled"], true, "{name}");
            let target = &queue["Properties"]["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0];
            let is_redrive_target = queue["Properties"]["RedriveAllowPolicy"]["redrivePermission"] == "byQueue";
            assert!(is_redrive_target || target == "TaskDeadLetterQueue", "{name}");
        }
        let redrive = &properties(templates, environment, "TaskQueue")["RedrivePolicy"];
        assert_eq!(redrive["maxReceiveCount"], 5);
        assert_eq!(redrive["deadLetterTargetArn"]["Fn::GetAtt"][0], "TaskDeadLetterQueue");
    }
    for environment in CLOUD {
        let policy = properties(templates, environment, "QueuePolicy");
        let queues = of_type(&templates[environment], "AWS::SQS::Queue");
        let queues: BTreeSet<&str> = queues.map(|(name, _)| name.as_str()).collect();
        let covered = policy["Queues"].as_array().expect("queues").iter();
        let covered: BTreeSet<&str> = covered.filter_map(|queue| queue["Ref"].as_str()).collect();
        assert_eq!(covered, queues);
        let statement = &policy["PolicyDocument"]["Statement"];
        assert_eq!(
            (&statement["Effect"], &statement["Principal"], &statement["Action"]),
            (&json!("Deny"), &json!("*"), &json!("sqs:*"))
        );
        assert_eq!(
            statement["Condition"],
            json!({"Bool": {"aws:SecureTransport": "false"}})
        );
    }
}

fn queue_times_fit_processor_timeout(templates: &Value) {
    for environment in EVERYWHERE {
        let queue = properties(templates, environment, "TaskQueue");
        let visibility = number(&queue["VisibilityTimeout"]);
        let receives = number(&queue["RedrivePolicy"]["maxReceiveCount"]);
        let processor = properties(templates, environment, "TaskProcessorFunction");
        // AWS Lambda Developer Guide, "Using Lambda with Amazon SQS".
        assert!(visibility >= 6 * number(&processor["Timeout"]), "{environment}");
        let processor = variables(templates, environment, "TaskProcessorFunction");
        assert_eq!(number(&processor["MAX_RECEIVE_COUNT"]), receives, "{environment}");
        // The delay before the last receive is the longest.
        let longest = number(&processor["RETRY_DELAY_SECONDS"]) << (receives - 2);
        assert!(longest <= visibility, "{environment}");
        let reconciler = variables(templates, environment, "TaskReconcilerFunction");
        assert!(
            number(&reconciler["LOST_AFTER_SECONDS"]) >= receives * visibility,
            "{environment}"
        );
        assert_eq!(number(&reconciler["MAX_ATTEMPTS"]), 2 * receives, "{environment}");
    }
}

fn event_source_mapping_is_partial_and_bounded(templates: &Value) {
    for environment in EVERYWHERE {
        let mapping = properties(templates, environment, "TaskQueueEventSourceMapping");
        assert_eq!(mapping["FunctionResponseTypes"], json!(["ReportBatchItemFailures"]));
        assert!(number(&mapping["ScalingConfig"]["MaximumConcurrency"]) >= 2);
        // Not the function itself: a new version would receive all messages at once.
        assert_eq!(
            mapping["FunctionName"],
            json!({"Fn::Sub": "${TaskProcessorFunction}:live"})
        );
        for (name, function) in functions(templates, environment) {
            assert!(function.get("ReservedConcurrentExecutions").is_none(), "{name}");
        }
    }
}

/// Each execution environment has one connection: see the comment at `Capacity`.
fn database_has_enough_connections(templates: &Value) {
    for environment in CLOUD {
        let capacity = &templates["translated"]["Mappings"]["Capacity"][environment];
        let limits = &properties(templates, environment, "ApiStage")["MethodSettings"][0];
        let (rate, burst) = (&limits["ThrottlingRateLimit"], &limits["ThrottlingBurstLimit"]);
        let mapping = properties(templates, environment, "TaskQueueEventSourceMapping");
        let processors = number(&mapping["ScalingConfig"]["MaximumConcurrency"]);
        let connections = number(burst) + 6 * number(rate) + processors + 2;
        let available = number(&capacity["MaxConnections"]);
        assert!(
            connections <= available,
            "{environment}: {connections} connections of {available}"
        );
        let alarm = properties(templates, environment, "DatabaseConnectionsAlarm");
        let percent = number(&alarm["Threshold"]) * 100 / available;
        assert!((75..=80).contains(&percent), "{environment}: {percent}%");
        let scaling = &properties(templates, environment, "Database")["ServerlessV2ScalingConfiguration"];
        assert_eq!(scaling["MaxCapacity"], capacity["MaxAcu"]);
    }
}

/// The SQS actions that each function's role allows. `permissions` compares them with the calls of
/// the code.
pub fn allowed_in_sqs(template: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut allowed = BTreeMap::new();
    for (name, role) in of_type(template, "AWS::IAM::Role") {
        let policies = role["Properties"]["Policies"].as_array().into_iter().flatten();
        for statement in policies.flat_map(|policy| one_or_more(&policy["PolicyDocument"]["Statement"])) {
            let actions = one_or_more(&statement["Action"]).into_iter();
            let actions = actions.filter_map(|action| action.as_str()?.strip_prefix("sqs:"));
            let function = function_name(name.trim_end_matches("Role"));
            let actions = actions.map(str::to_owned);
            allowed.entry(function).or_insert_with(BTreeSet::new).extend(actions);
        }
    }
    allowed.retain(|_, actions| !actions.is_empty());
    allowed
}

fn roles_allow_only_known_actions(templates: &Value) {
    let with_sqs = FUNCTIONS.iter().filter(|function| !function.sqs.is_empty());
    let allowed = with_sqs.map(|function| {
        let actions = function.sqs.iter().map(|&action| action.to_owned());
        (function.name.to_owned(), actions.collect())
    });
    let expected: BTreeMap<String, BTreeSet<String>> = allowed.collect();
    for environment in EVERYWHERE {
        let template = &templates[environment];
        assert_eq!(allowed_in_sqs(template), expected, "{environment}");
        let roles = of_type(template, "AWS::IAM::Role").flat_map(|(name, role)| {
            let policies = role["Properties"]["Policies"].as_array().into_iter().flatten();
            policies.map(move |policy| (name, &policy["PolicyDocument"]))
        });
        let policies =
            of_type(template, "AWS::IAM::Policy").map(|(name, one)| (name, &one["Properties"]["PolicyDocument"]));
        for (name, document) in roles.chain(policies) {
            for statement in one_or_more(&document["Statement"]) {
                assert_eq!(statement["Effect"], "Allow", "{name}");
                let resource = statement["Resource"].to_string();
                assert!(
                    !resource.contains("\"*\""),
                    "{name} may use every resource: {statement}"
                );
                for action in one_or_more(&statement["Action"]) {
                    let action = action.as_str().expect("an action");
                    let known = action.starts_with("sqs:") || action == "rds-db:connect";
                    assert!(known && !action.contains('*'), "{name}: {action}");
                }
            }
        }
        // Policies of AWS: logs, traces, network interfaces, traffic shifting, API Gateway's logs.
        let managed = [
            "service-role/AWSLambdaBasicExecutionRole",
            "service-role/AWSLambdaVPCAccessExecutionRole",
            "AWSXrayWriteOnlyAccess",
            "service-role/AWSCodeDeployRoleForLambda",
            "service-role/AmazonAPIGatewayPushToCloudWatchLogs",
        ];
        for (name, role) in of_type(template, "AWS::IAM::Role") {
            for policy in role["Properties"]["ManagedPolicyArns"].as_array().into_iter().flatten() {
                let policy = policy["Fn::Sub"].as_str().or(policy.as_str()).expect("an ARN");
                let (_, policy) = policy.split_once(":policy/").expect("a policy");
                assert!(managed.contains(&policy), "{name}: {policy}");
            }
        }
    }
}

fn functions_log_in_as_their_database_role(templates: &Value) {
    let mut expected: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for function in &FUNCTIONS {
        if let Some(role) = function.role {
            expected.entry(role).or_default().insert(function.name.to_owned());
        }
    }
    for environment in EVERYWHERE {
        let mut configured: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for (name, function) in functions(templates, environment) {
            if let Some(role) = function["Environment"]["Variables"]["DATABASE_ROLE"].as_str() {
                configured.entry(role).or_default().insert(name);
            }
        }
        let mut expected = expected.clone();
        if environment == "local" {
            expected.remove("migrator"); // `make up` migrates
        }
        assert_eq!(configured, expected, "{environment}");
    }
    for environment in CLOUD {
        let mut granted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, policy) in of_type(&templates[environment], "AWS::IAM::Policy") {
            let statement = &policy["Properties"]["PolicyDocument"]["Statement"];
            assert_eq!(statement["Action"], "rds-db:connect", "{name}");
            let resource = &statement["Resource"]["Fn::Sub"];
            let resource = resource[0].as_str().or(resource.as_str()).expect("an ARN");
            let (_, role) = resource.rsplit_once('/').expect("a database role");
            for function in policy["Properties"]["Roles"].as_array().expect("roles") {
                let function = function["Ref"].as_str().expect("a role").trim_end_matches("Role");
                granted
                    .entry(role.to_owned())
                    .or_default()
                    .insert(function_name(function));
            }
        }
        let expected = expected
            .clone()
            .into_iter()
            .map(|(role, functions)| (role.to_owned(), functions));
        assert_eq!(granted, expected.collect(), "{environment}");
    }
}

fn public_routes_are_known(templates: &Value) {
    let expected = [
        "ANY /",
        "ANY /{proxy+}",
        "GET /admin/dashboard",
        "GET /docs",
        "GET /docs/{asset}",
        "GET /health",
        "GET /openapi.json",
        "GET /redoc",
    ];
    let heads = expected
        .iter()
        .filter_map(|route| Some(format!("HEAD {}", route.strip_prefix("GET ")?)));
    let expected: BTreeSet<String> = heads.chain(expected.map(str::to_owned)).collect();
    for environment in EVERYWHERE {
        assert_eq!(public_routes(&templates[environment]), expected);
    }
}

fn other_routes_require_authorizer(templates: &Value) {
    for environment in EVERYWHERE {
        let body = &properties(templates, environment, "Api")["Body"];
        let settings = &body["components"]["securitySchemes"]["Jwt"]["x-amazon-apigateway-authorizer"];
        // With a TTL of 0 s, requests without a token reach the authorizer; only an open one allows
        // them.
        let seconds = if environment == "local" { 0 } else { 300 };
        assert_eq!(settings["authorizerResultTtlInSeconds"], seconds, "{environment}");
        assert_eq!(settings["identitySource"], "method.request.header.Authorization");
        // The function, not an alias: a change of the issuer takes effect at once.
        let uri = settings["authorizerUri"].to_string();
        assert!(uri.contains("[\"AuthorizerFunction\",\"Arn\"]"), "{uri}");
        for (route, operation) in operations(&templates[environment]) {
            let requirements = operation["security"].as_array().map_or(0, Vec::len);
            assert_eq!(requirements, 1, "{route} must have one security requirement");
        }
        let auth = if environment == "local" { "open" } else { "closed" };
        for (name, function) in functions(templates, environment) {
            assert_eq!(
                function["Environment"]["Variables"]["AUTH"], auth,
                "{environment}: {name}"
            );
        }
    }
    // Even without the Rules, only a local stack can be open.
    let is = |parameter: &str, value: &str| json!({"Fn::Equals": [{"Ref": parameter}, value]});
    assert_eq!(
        templates["translated"]["Conditions"]["IsOpen"],
        json!({"Fn::And": [is("Environment", "local"), is("Auth", "open")]})
    );
}

fn cloud_api_is_closed_and_has_no_passwords(templates: &Value) {
    let template = &templates["translated"];
    assert_eq!(template["Parameters"]["Auth"]["Default"], "closed");
    let not_local = json!({"Fn::Not": [{"Fn::Equals": [{"Ref": "Environment"}, "local"]}]});
    let is = |parameter: &str, value: &str| json!({"Fn::Equals": [{"Ref": parameter}, value]});
    let not = |condition: Value| json!({"Fn::Not": [condition]});
    for (rule, asserted) in [
        ("DatabaseUrlIsForLocalOnly", vec![is("DatabaseUrl", "")]),
        (
            "OnlyALocalStackIsOpen",
            vec![
                is("Auth", "closed"),
                not(is("JwtIssuer", "")),
                not(is("JwtAudience", "")),
                is("LocalJwks", ""),
            ],
        ),
    ] {
        let rule = &template["Rules"][rule];
        assert_eq!(rule["RuleCondition"], not_local);
        let assertions = rule["Assertions"].as_array().expect("assertions");
        let assertions: Vec<&Value> = assertions.iter().map(|assertion| &assertion["Assert"]).collect();
        assert_eq!(assertions, asserted.iter().collect::<Vec<_>>());
    }
    for environment in CLOUD {
        for (name, function) in functions(templates, environment) {
            let url = &function["Environment"]["Variables"]["DATABASE_URL"]["Fn::Sub"];
            let url = url[0].as_str().or(url.as_str()).expect("a URL");
            assert!(
                !url.contains('@') && url.contains("sslmode=verify-full"),
                "{name}: {url}"
            );
        }
    }
}

fn gateway_responses_are_problems(templates: &Value) {
    let responses = &properties(templates, "prod", "Api")["Body"]["x-amazon-apigateway-gateway-responses"];
    let responses = responses.as_object().expect("responses");
    for name in [
        "DEFAULT_4XX",
        "DEFAULT_5XX",
        "UNAUTHORIZED",
        "ACCESS_DENIED",
        "THROTTLED",
    ] {
        assert!(responses.contains_key(name), "{name}");
    }
    for (name, response) in responses {
        let media_type = &response["responseParameters"]["gatewayresponse.header.Content-Type"];
        assert_eq!(media_type, "'application/problem+json'", "{name}");
        let text = response["responseTemplates"]["application/json"]
            .as_str()
            .expect("a template");
        // API Gateway inserts a quoted string there.
        let text = text.replace("$context.error.messageString", "\"message\"");
        let problem: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(problem["type"], "about:blank", "{name}");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{name}");
        assert!(problem["status"].is_u64() || name.starts_with("DEFAULT"), "{name}");
    }
}

/// API Gateway waits 29 s for an integration ("Amazon API Gateway important notes").
fn functions_time_out_before_api_gateway(templates: &Value) {
    for (name, function) in functions(templates, "prod") {
        let is_behind_api = !["task-processor", "task-reconciler", "migrator"].contains(&name.as_str());
        let seconds = number(&function["Timeout"]);
        assert!(!is_behind_api || (3..=29).contains(&seconds), "{name}: {seconds} s");
    }
}

fn functions_are_reachable_only_through_api(templates: &Value) {
    for environment in EVERYWHERE {
        let template = &templates[environment];
        assert_eq!(of_type(template, "AWS::Lambda::Url").count(), 0);
        for (name, permission) in of_type(template, "AWS::Lambda::Permission") {
            let principal = permission["Properties"]["Principal"].as_str().expect("a principal");
            assert!(
                ["apigateway.amazonaws.com", "events.amazonaws.com"].contains(&principal),
                "{name}: {principal}"
            );
            let source = &permission["Properties"]["SourceArn"];
            assert!(!source.is_null(), "{name}: any account's API may invoke it");
        }
        for (route, operation) in operations(template) {
            let uri = operation["x-amazon-apigateway-integration"]["uri"].to_string();
            assert!(
                uri.contains("FunctionAliaslive}"),
                "{route} bypasses the live alias: {uri}"
            );
        }
    }
}

fn api_is_throttled_logged_and_traced(templates: &Value) {
    for environment in CLOUD {
        // SAM adds a second stage, without these settings, unless the OpenAPI version is 3.
        let stages: Vec<&Value> = of_type(&templates[environment], "AWS::ApiGateway::Stage")
            .map(|(_, stage)| &stage["Properties"])
            .collect();
        assert_eq!(stages.len(), 1);
        assert!(templates[environment]["Resources"]["Api"]["Properties"]["Body"]["openapi"].is_string());
        let settings = &stages[0]["MethodSettings"][0];
        assert_eq!(
            (&settings["ResourcePath"], &settings["HttpMethod"]),
            (&json!("/*"), &json!("*"))
        );
        assert!(number(&settings["ThrottlingRateLimit"]) > 0 && number(&settings["ThrottlingBurstLimit"]) > 0);
        assert_eq!(stages[0]["TracingEnabled"], true);
        let log = &stages[0]["AccessLogSetting"];
        assert_eq!(log["DestinationArn"], json!({"Fn::GetAtt": ["ApiLogs", "Arn"]}));
        // As API Gateway fills it in: numbers are not quoted.
        let line = log["Format"].as_str().expect("a format");
        let line = line
            .replace(":$context.requestTimeEpoch", ":1")
            .replace(":$context.status", ":200")
            .replace(":$context.responseLength", ":1")
            .replace(":$context.responseLatency", ":1");
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for member in ["requestId", "traceId", "subject", "route", "status", "latencyMs"] {
            assert!(line.get(member).is_some(), "{member}");
        }
        for (name, function) in functions(templates, environment) {
            assert_eq!(function["TracingConfig"]["Mode"], "Active", "{name}");
        }
    }
}

fn functions_have_expiring_logs_and_alarm(templates: &Value) {
    for environment in CLOUD {
        for (name, group) in of_type(&templates[environment], "AWS::Logs::LogGroup") {
            assert!(group["Properties"]["RetentionInDays"].is_u64(), "{name}");
        }
        let group = json!({"Ref": "FunctionLogs"});
        for (name, function) in functions(templates, environment) {
            assert_eq!(
                function["LoggingConfig"],
                json!({"LogFormat": "JSON", "LogGroup": group}),
                "{name}"
            );
        }
        let filter = properties(templates, environment, "FunctionErrorsFilter");
        assert_eq!(filter["LogGroupName"], group);
        let pattern = filter["FilterPattern"].as_str().expect("a pattern");
        // Any client can send a token that the authorizer refuses, which it does with an error.
        for status in ["success", "error"] {
            assert!(
                pattern.contains(&format!("$.record.status != \"{status}\"")),
                "{pattern}"
            );
        }
        let metric = &filter["MetricTransformations"][0];
        let alarm = properties(templates, environment, "FunctionErrorsAlarm");
        assert_eq!(
            (&alarm["Namespace"], &alarm["MetricName"]),
            (&metric["MetricNamespace"], &metric["MetricName"])
        );
    }
}

fn every_alarm_reaches_topic(templates: &Value) {
    let expected = [
        "ApiErrorsAlarm",
        "ApiLatencyAlarm",
        "ApiThrottledAlarm",
        "DatabaseCapacityAlarm",
        "DatabaseConnectionsAlarm",
        "DeadLetterAlarm",
        "FunctionErrorsAlarm",
        "FunctionThrottlesAlarm",
        "QueueAgeAlarm",
    ];
    for environment in CLOUD {
        let template = &templates[environment];
        let mut alarms: Vec<&str> = Vec::new();
        for (name, alarm) in of_type(template, "AWS::CloudWatch::Alarm") {
            let alarm = &alarm["Properties"];
            assert_eq!(alarm["AlarmActions"], json!([{"Ref": "AlarmTopic"}]), "{name}");
            assert_eq!(alarm["TreatMissingData"], "notBreaching", "{name}");
            assert!(alarm["AlarmDescription"].is_string(), "{name}");
            alarms.push(name);
        }
        alarms.sort_unstable();
        assert_eq!(alarms, expected);
        let body = properties(templates, environment, "Dashboard")["DashboardBody"].to_string();
        for alarm in alarms {
            assert!(
                body.contains(&format!("${{{alarm}.Arn}}")),
                "{alarm} is not on the dashboard"
            );
        }
        // The names are the only link to the metrics that the functions' tests verify.
        for metric in [
            "TasksCreated",
            "TasksCompleted",
            "TasksFailed",
            "BatchSize",
            "ProcessingTime",
            "QueueLatency",
        ] {
            assert!(body.contains(metric), "{metric} is not on the dashboard");
        }
        assert_eq!(
            properties(templates, environment, "AlarmTopic")["KmsMasterKeyId"],
            json!({"Ref": "AlarmKey"})
        );
        let statements = &properties(templates, environment, "AlarmKey")["KeyPolicy"]["Statement"];
        let cloudwatch = statements.as_array().expect("statements").iter().find(|statement| {
            statement["Principal"]["Service"] == "cloudwatch.amazonaws.com"
                && statement["Action"] == json!(["kms:Decrypt", "kms:GenerateDataKey"])
        });
        assert!(cloudwatch.is_some(), "CloudWatch cannot publish to the topic");
    }
}

fn network_has_no_route_to_internet(templates: &Value) {
    for environment in CLOUD {
        let template = &templates[environment];
        for kind in [
            "AWS::EC2::InternetGateway",
            "AWS::EC2::NatGateway",
            "AWS::EC2::Route",
            "AWS::EC2::EgressOnlyInternetGateway",
        ] {
            assert_eq!(of_type(template, kind).count(), 0, "{kind}");
        }
        for (name, function) in functions(templates, environment) {
            // The authorizer fetches the issuer's keys from the internet.
            assert_eq!(function.get("VpcConfig").is_none(), name == "authorizer", "{name}");
        }
        for (name, group) in of_type(template, "AWS::EC2::SecurityGroup") {
            let group = &group["Properties"];
            assert!(group["GroupDescription"].is_string(), "{name}");
            assert!(group.get("SecurityGroupIngress").is_none(), "{name}");
            // Without an egress rule, a group allows all outbound traffic.
            let egress = group["SecurityGroupEgress"].as_array().expect("rules");
            let responds_to_s3 = name == "MigratorSecurityGroup" && egress[0]["ToPort"] == 443;
            assert!(
                egress.len() == 1 && (responds_to_s3 || egress[0]["CidrIp"] == "255.255.255.255/32"),
                "{name}"
            );
        }
        // Each egress rule to another group has an ingress rule there, for the same port.
        let rules = |kind: &'static str, from: &'static str, to: &'static str| {
            let rules = of_type(template, kind).map(move |(name, rule)| {
                let rule = &rule["Properties"];
                assert!(rule["Description"].is_string(), "{name}");
                assert!(rule.get("CidrIp").is_none(), "{name}");
                [&rule[from], &rule[to], &rule["FromPort"], &rule["ToPort"]].map(Value::to_string)
            });
            rules.collect::<BTreeSet<_>>()
        };
        assert_eq!(
            rules("AWS::EC2::SecurityGroupEgress", "GroupId", "DestinationSecurityGroupId"),
            rules("AWS::EC2::SecurityGroupIngress", "SourceSecurityGroupId", "GroupId")
        );
        let endpoint = properties(templates, environment, "AnswerEndpoint");
        let statement = &endpoint["PolicyDocument"]["Statement"];
        assert_eq!(statement["Action"], "s3:PutObject");
        assert!(
            statement["Resource"]
                .to_string()
                .contains("cloudformation-custom-resource-response")
        );
    }
}

fn database_is_private_encrypted_and_backed_up(templates: &Value) {
    for environment in CLOUD {
        let template = &templates[environment];
        let cluster = &template["Resources"]["Database"];
        for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
            assert_eq!(cluster[policy], "Snapshot", "{policy}");
        }
        let database = &cluster["Properties"];
        assert_eq!(database["StorageEncrypted"], true);
        assert_eq!(database["EnableIAMDatabaseAuthentication"], true);
        for password in ["MasterUserPassword", "ManageMasterUserPassword"] {
            assert!(database.get(password).is_none(), "{password}");
        }
        assert_eq!(database["MasterUserAuthenticationType"], "iam-db-auth");
        assert_eq!(database["EnableCloudwatchLogsExports"], json!(["postgresql"]));
        assert!(number(&database["BackupRetentionPeriod"]) >= if environment == "prod" { 35 } else { 1 });
        let parameters = properties(templates, environment, "DatabaseParameters");
        assert_eq!(parameters["Parameters"]["rds.force_ssl"], "1");
        let version = database["EngineVersion"].as_str().expect("a pinned version");
        let (major, _) = version.split_once('.').expect("a minor version");
        assert_eq!(parameters["Family"], format!("aurora-postgresql{major}"));
        let instances: Vec<_> = of_type(template, "AWS::RDS::DBInstance").collect();
        assert_eq!(instances.len(), if environment == "prod" { 2 } else { 1 });
        for (name, instance) in instances {
            assert_eq!(instance["Properties"]["PubliclyAccessible"], false, "{name}");
            // The authority whose certificates are in shared/core/rds-ca.
            assert_eq!(
                instance["Properties"]["CACertificateIdentifier"], "rds-ca-rsa2048-g1",
                "{name}"
            );
            assert_eq!(instance["Properties"]["AutoMinorVersionUpgrade"], false, "{name}");
        }
    }
}

fn sandbox_pauses_and_prod_does_not(templates: &Value) {
    let database = properties(templates, "sandbox", "Database");
    let scaling = &database["ServerlessV2ScalingConfiguration"];
    assert_eq!(scaling["MinCapacity"], 0);
    assert_eq!(scaling["SecondsUntilAutoPause"], 300);
    assert_eq!(database["DeletionProtection"], false);
    assert_eq!(of_type(&templates["sandbox"], "AWS::RDS::DBProxy").count(), 0);
    // Otherwise the connection of a frozen environment would prevent the pause.
    let idle = &properties(templates, "sandbox", "DatabaseParameters")["Parameters"]["idle_session_timeout"];
    assert!((1..300_000).contains(&number(idle)), "{idle}");
    let schedule = &properties(templates, "sandbox", "TaskReconcilerFunctionSchedule")["ScheduleExpression"];
    assert_eq!(schedule, "rate(12 hours)");

    let database = properties(templates, "prod", "Database");
    let scaling = &database["ServerlessV2ScalingConfiguration"];
    assert!(number(&scaling["MinCapacity"]) > 0);
    assert!(scaling.get("SecondsUntilAutoPause").is_none());
    assert_eq!(database["DeletionProtection"], true);
    let proxy = properties(templates, "prod", "DatabaseProxyServer");
    assert_eq!(proxy["RequireTLS"], true);
    let rule = &templates["translated"]["Rules"]["ProxyIsForProdOnly"];
    assert_eq!(
        rule["Assertions"][0]["Assert"],
        json!({"Fn::Equals": [{"Ref": "Environment"}, "prod"]})
    );
}

fn functions_depend_on_migrations(templates: &Value) {
    for environment in CLOUD {
        for (name, function) in functions(templates, environment) {
            let url = function["Environment"]["Variables"]["DATABASE_URL"].to_string();
            let depends = url.contains("${Migrations.Database}");
            assert_eq!(depends, name != "migrator", "{name}: {url}");
        }
        let migrations = &templates[environment]["Resources"]["Migrations"];
        assert_eq!(
            migrations["Properties"]["ServiceToken"],
            json!({"Ref": "MigratorFunctionAliaslive"})
        );
        // A new version of the migrator makes CloudFormation invoke it again.
        let code = migrations["Properties"]["Code"]["Ref"].as_str().expect("a version");
        assert_eq!(
            templates[environment]["Resources"][code]["Type"],
            "AWS::Lambda::Version"
        );
        assert!(code.starts_with("MigratorFunctionVersion"), "{code}");
        let timeout = number(&properties(templates, environment, "MigratorFunction")["Timeout"]);
        assert!(number(&migrations["Properties"]["ServiceTimeout"]) > timeout);
        let dependencies = migrations["DependsOn"].as_array().expect("dependencies");
        for dependency in ["DatabaseWriter", "MigratorLogin", "AnswerEndpoint"] {
            assert!(dependencies.contains(&json!(dependency)), "{dependency}");
        }
        let invoke = of_type(&templates[environment], "AWS::Lambda::EventInvokeConfig");
        let retries = invoke.map(|(_, config)| &config["Properties"]["MaximumRetryAttempts"]);
        assert_eq!(retries.collect::<Vec<_>>(), [&json!(0)]);
    }
}

fn prod_is_deployed_gradually(templates: &Value) {
    assert_eq!(
        of_type(&templates["sandbox"], "AWS::CodeDeploy::DeploymentGroup").count(),
        0
    );
    let template = &templates["prod"];
    for (name, _) in of_type(template, "AWS::Lambda::Function") {
        // A new issuer must take effect at once; the migrator has no traffic to shift.
        let is_immediate = ["AuthorizerFunction", "MigratorFunction"].contains(&name.as_str());
        let alias = &template["Resources"][format!("{name}Aliaslive")];
        let group = &alias["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]["DeploymentGroupName"]["Ref"];
        assert_eq!(group.is_string(), !is_immediate, "{name}");
        if is_immediate {
            continue;
        }
        let group = &template["Resources"][group.as_str().expect("a name")]["Properties"];
        let canary = &group["DeploymentConfigName"]["Fn::Sub"][1]["ConfigName"];
        assert_eq!(*canary, "Canary10Percent5Minutes", "{name}");
        let alarms = json!([
            {"Name": {"Ref": "ApiErrorsAlarm"}}, {"Name": {"Ref": "ApiLatencyAlarm"}}, {"Name": {"Ref": "FunctionErrorsAlarm"}}
        ]);
        assert_eq!(
            group["AlarmConfiguration"],
            json!({"Enabled": true, "Alarms": alarms}),
            "{name}"
        );
        let rollback = &group["AutoRollbackConfiguration"]["Events"];
        assert!(
            rollback.to_string().contains("DEPLOYMENT_STOP_ON_ALARM"),
            "{name}: {rollback}"
        );
    }
}

fn local_stack_has_only_local_resources(templates: &Value) {
    let all = templates["local"]["Resources"].as_object().expect("resources");
    let kinds: BTreeSet<&str> = all.values().filter_map(|one| one["Type"].as_str()).collect();
    let expected = [
        "AWS::ApiGateway::Deployment",
        "AWS::ApiGateway::RestApi",
        "AWS::ApiGateway::Stage",
        "AWS::Events::Rule",
        "AWS::IAM::Role",
        "AWS::Lambda::Alias",
        "AWS::Lambda::EventSourceMapping",
        "AWS::Lambda::Function",
        "AWS::Lambda::Permission",
        "AWS::Lambda::Version",
        "AWS::SQS::Queue",
    ];
    assert_eq!(kinds, expected.into());
}

fn every_parameter_is_in_a_group(templates: &Value) {
    let template = &templates["translated"];
    let interface = &template["Metadata"]["AWS::CloudFormation::Interface"];
    let declared = template["Parameters"].as_object().expect("parameters").keys();
    let declared: BTreeSet<&str> = declared.map(String::as_str).collect();
    let groups = interface["ParameterGroups"].as_array().expect("groups").iter();
    let grouped = groups.flat_map(|group| group["Parameters"].as_array().expect("parameters"));
    let grouped: Vec<&str> = grouped.filter_map(Value::as_str).collect();
    assert_eq!(grouped.len(), declared.len(), "{grouped:?}");
    assert_eq!(BTreeSet::from_iter(grouped), declared);
    let labels = interface["ParameterLabels"].as_object().expect("labels").keys();
    assert_eq!(labels.map(String::as_str).collect::<BTreeSet<_>>(), declared);
}
