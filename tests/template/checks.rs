//! What template.yaml must be. Each check panics if it is not.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{function_name, one_or_more, public_routes, resources, template_operations, translated};

/// Makes a test of each check, and a list of all, which the mutations go through.
macro_rules! checks {
    ($($check:ident),* $(,)?) => {
        /// Every check and its name.
        pub const CHECKS: &[(&str, fn(&Value))] = &[$((stringify!($check), $check)),*];

        mod of_the_template {
            $(#[test]
            fn $check() {
                super::$check(&super::translated());
            })*
        }
    };
}

checks! {
    every_queue_is_encrypted_and_has_a_dead_letter_queue_or_is_one,
    the_queues_times_fit_the_processors_timeout,
    the_event_source_mapping_reports_single_failures_and_bounds_concurrency,
    only_functions_that_send_may_send_and_only_the_processor_may_receive,
    what_is_public_is_known,
    all_else_asks_the_authorizer_which_may_be_skipped_nowhere,
    in_the_cloud_the_api_is_closed_and_no_password_is_in_an_environment,
    what_api_gateway_answers_itself_is_a_problem,
    every_function_ends_before_api_gateway_gives_up,
    no_function_can_be_reached_around_the_api,
}

fn every_queue_is_encrypted_and_has_a_dead_letter_queue_or_is_one(template: &Value) {
    for (name, queue) in resources(template, "AWS::SQS::Queue") {
        assert_eq!(queue["Properties"]["SqsManagedSseEnabled"], true, "{name}");
        let target = &queue["Properties"]["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0];
        assert!(
            name == "TaskDeadLetterQueue" || target == "TaskDeadLetterQueue",
            "{name}"
        );
    }
    let redrive = &template["Resources"]["TaskQueue"]["Properties"]["RedrivePolicy"];
    assert_eq!(redrive["maxReceiveCount"], 5);
    assert_eq!(redrive["deadLetterTargetArn"]["Fn::GetAtt"][0], "TaskDeadLetterQueue");
}

fn the_queues_times_fit_the_processors_timeout(template: &Value) {
    let environments = template["Mappings"]["TaskProcessor"].as_object().expect("environments");
    assert!(!environments.is_empty());
    for (environment, seconds) in environments {
        let (timeout, visibility) = (&seconds["TimeoutSeconds"], &seconds["VisibilitySeconds"]);
        assert!(
            visibility.as_u64() >= timeout.as_u64().map(|timeout| 6 * timeout),
            "{environment}: {seconds}"
        );
    }
    let redrive = &template["Resources"]["TaskQueue"]["Properties"]["RedrivePolicy"];
    let receives = redrive["maxReceiveCount"].as_u64().expect("a number");
    for (environment, seconds) in environments {
        // Text, because it becomes an environment variable.
        let lost: u64 = seconds["LostAfterSeconds"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .expect("a number");
        let visibility = seconds["VisibilitySeconds"].as_u64().expect("a number");
        assert!(lost >= receives * visibility, "{environment}: {seconds}");
        // The delay before the last receive is the longest.
        let delay: u64 = seconds["RetryDelaySeconds"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .expect("a number");
        assert!(delay << (receives - 2) <= visibility, "{environment}: {seconds}");
    }
    let variables = &template["Resources"]["TaskProcessorFunction"]["Properties"]["Environment"]["Variables"];
    assert_eq!(variables["MAX_RECEIVE_COUNT"], receives.to_string());
    let reconciler = &template["Resources"]["TaskReconcilerFunction"]["Properties"]["Environment"]["Variables"];
    assert_eq!(reconciler["MAX_ATTEMPTS"], (2 * receives).to_string());
    let in_map = |name: &str| json!({"Fn::FindInMap": ["TaskProcessor", {"Ref": "Environment"}, name]});
    let resources = &template["Resources"];
    assert_eq!(
        resources["TaskQueue"]["Properties"]["VisibilityTimeout"],
        in_map("VisibilitySeconds")
    );
    assert_eq!(
        resources["TaskProcessorFunction"]["Properties"]["Timeout"],
        in_map("TimeoutSeconds")
    );
}

fn the_event_source_mapping_reports_single_failures_and_bounds_concurrency(template: &Value) {
    let mapping = &template["Resources"]["TaskQueueEventSourceMapping"]["Properties"];
    assert_eq!(mapping["FunctionResponseTypes"], json!(["ReportBatchItemFailures"]));
    assert_eq!(mapping["ScalingConfig"]["MaximumConcurrency"], 5);
}

fn only_functions_that_send_may_send_and_only_the_processor_may_receive(template: &Value) {
    let mut may = BTreeMap::new();
    for (name, role) in resources(template, "AWS::IAM::Role") {
        let policies = role["Properties"]["Policies"].as_array().into_iter().flatten();
        for statement in policies.flat_map(|policy| one_or_more(&policy["PolicyDocument"]["Statement"])) {
            assert_eq!(statement["Effect"], "Allow", "{name}");
            let resource = statement["Resource"].to_string();
            assert!(!resource.contains("\"*\""), "{name} may touch everything: {statement}");
            let actions = one_or_more(&statement["Action"]).into_iter();
            let actions = actions.map(|action| action.as_str().expect("an action").to_owned());
            let function = function_name(name.trim_end_matches("Role"));
            may.entry(function).or_insert_with(BTreeSet::new).extend(actions);
        }
    }
    let send = BTreeSet::from(["sqs:SendMessage".to_owned()]);
    assert_eq!(may.get("create-task"), Some(&send));
    assert_eq!(may.get("process-task"), Some(&send));
    assert_eq!(may.get("task-reconciler"), Some(&send));
    let receive = [
        "sqs:ChangeMessageVisibility",
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
        "sqs:ReceiveMessage",
    ];
    let receive = receive.map(str::to_owned);
    assert_eq!(may.remove("task-processor"), Some(BTreeSet::from(receive)));
    let look = BTreeSet::from(["sqs:GetQueueAttributes".to_owned()]);
    assert_eq!(may.remove("admin-status"), Some(look));
    let redrive = [
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
        "sqs:ReceiveMessage",
        "sqs:SendMessage",
        "sqs:StartMessageMoveTask",
    ];
    assert_eq!(
        may.remove("admin-redrive"),
        Some(BTreeSet::from(redrive.map(str::to_owned)))
    );
    assert_eq!(may.len(), 3, "{may:?}");
}

fn what_is_public_is_known(template: &Value) {
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
    assert_eq!(public_routes(template), expected.map(str::to_owned).into());
}

fn all_else_asks_the_authorizer_which_may_be_skipped_nowhere(template: &Value) {
    let authorizer = &template["Resources"]["Api"]["Properties"]["Body"]["securityDefinitions"]["Jwt"];
    let settings = &authorizer["x-amazon-apigateway-authorizer"];
    // With a decision kept for 0 s, requests without a token reach the authorizer: only an open one has an answer.
    assert_eq!(
        settings["authorizerResultTtlInSeconds"],
        json!({"Fn::If": ["IsOpen", 0, 300]})
    );
    assert_eq!(settings["identitySource"], "method.request.header.Authorization");
    assert!(
        settings["authorizerUri"].to_string().contains("AuthorizerFunction"),
        "{settings}"
    );
    assert_eq!(
        template["Conditions"]["IsOpen"],
        json!({"Fn::Equals": [{"Ref": "Auth"}, "open"]})
    );
    for (route, operation) in template_operations(template) {
        let requirements = operation["security"].as_array().map_or(0, Vec::len);
        assert_eq!(requirements, 1, "{route} must say whom it asks");
    }
    for (name, function) in resources(template, "AWS::Lambda::Function") {
        let auth = &function["Properties"]["Environment"]["Variables"]["AUTH"];
        assert_eq!(*auth, json!({"Ref": "Auth"}), "{name}");
    }
}

fn in_the_cloud_the_api_is_closed_and_no_password_is_in_an_environment(template: &Value) {
    assert_eq!(template["Parameters"]["Auth"]["Default"], "closed");
    let not_local = json!({"Fn::Not": [{"Fn::Equals": [{"Ref": "Environment"}, "local"]}]});
    let is = |parameter: &str, value: &str| json!({"Fn::Equals": [{"Ref": parameter}, value]});
    let not = |condition: Value| json!({"Fn::Not": [condition]});
    for (rule, asserted) in [
        ("DatabaseUrlIsForLocalOnly", vec![is("DatabaseUrl", "")]),
        (
            "OnlyALocalStackIsOpen",
            vec![is("Auth", "closed"), not(is("JwtIssuer", "")), is("LocalJwks", "")],
        ),
    ] {
        let rule = &template["Rules"][rule];
        assert_eq!(rule["RuleCondition"], not_local);
        let assertions = rule["Assertions"].as_array().expect("assertions");
        let assertions: Vec<&Value> = assertions.iter().map(|assertion| &assertion["Assert"]).collect();
        assert_eq!(assertions, asserted.iter().collect::<Vec<_>>());
    }
}

fn what_api_gateway_answers_itself_is_a_problem(template: &Value) {
    let responses = &template["Resources"]["Api"]["Properties"]["Body"]["x-amazon-apigateway-gateway-responses"];
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
        // API Gateway puts a string in quotes there.
        let text = text.replace("$context.error.messageString", "\"message\"");
        let problem: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(problem["type"], "about:blank", "{name}");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{name}");
        assert!(problem["status"].is_u64() || name.starts_with("DEFAULT"), "{name}");
    }
}

/// "Amazon API Gateway important notes": an integration may take 29 s.
fn every_function_ends_before_api_gateway_gives_up(template: &Value) {
    for (name, function) in resources(template, "AWS::Lambda::Function") {
        let behind_the_api = !["TaskProcessorFunction", "TaskReconcilerFunction"].contains(&name.as_str());
        if behind_the_api {
            let timeout = function["Properties"]["Timeout"].as_u64();
            assert!(
                timeout.is_some_and(|seconds| (3..=29).contains(&seconds)),
                "{name}: {timeout:?}"
            );
        }
    }
}

fn no_function_can_be_reached_around_the_api(template: &Value) {
    assert_eq!(resources(template, "AWS::Lambda::Url").count(), 0);
    for (name, permission) in resources(template, "AWS::Lambda::Permission") {
        let principal = permission["Properties"]["Principal"].as_str().expect("a principal");
        assert!(
            ["apigateway.amazonaws.com", "events.amazonaws.com"].contains(&principal),
            "{name}: {principal}"
        );
        assert!(
            !permission["Properties"]["SourceArn"].is_null(),
            "{name}: anybody's API may call"
        );
    }
}
