//! Requirements on template.yaml. Each check panics if one is not met.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{filter_pattern, function_name, log_lines, of_type, one_or_more, operations, public_routes};
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
    capacity_fits_every_limit,
    roles_allow_only_known_actions,
    only_admin_processing_changes_mapping,
    roles_have_no_further_managed_policies,
    every_role_has_boundary,
    boundary_allows_roles_and_no_iam,
    deployment_creates_only_bounded_roles,
    deployment_trusts_one_environment_of_repository,
    log_role_of_account_outlives_stack,
    functions_log_in_as_their_database_role,
    previous_version_keeps_its_server_while_proxy_is_switched,
    public_routes_are_known,
    other_routes_require_authorizer,
    regions_without_database_certificate_are_refused,
    api_refuses_old_tls_versions,
    domain_is_optional_and_leads_to_api,
    firewall_limits_requests_per_address,
    cloud_api_is_closed_and_has_no_passwords,
    gateway_responses_are_problems,
    functions_time_out_before_api_gateway,
    functions_are_reachable_only_through_api,
    api_is_throttled_logged_and_traced,
    functions_have_expiring_logs_and_alarm,
    log_lines_reach_functions_filter,
    metric_filters_count_recorded_lines,
    every_alarm_reaches_topic,
    network_has_no_route_to_internet,
    database_is_private_encrypted_and_backed_up,
    sandbox_pauses_and_prod_does_not,
    functions_depend_on_migrations,
    prod_is_deployed_gradually,
    failing_route_stops_canary,
    fix_is_deployed_at_once_despite_alarm,
    prod_requires_alarm_email,
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

/// Lambda's default limit of concurrent executions in an account and region.
const CONCURRENT_EXECUTIONS: u64 = 1000;

/// Logins a second up to which IAM authentication is recommended.
const IAM_LOGINS: u64 = 200;

/// See the comment at `Capacity`.
fn capacity_fits_every_limit(templates: &Value) {
    for environment in CLOUD {
        let capacity = &templates["translated"]["Mappings"]["Capacity"][environment];
        let limits = &properties(templates, environment, "ApiStage")["MethodSettings"][0];
        let (rate, burst) = (&limits["ThrottlingRateLimit"], &limits["ThrottlingBurstLimit"]);
        let mapping = properties(templates, environment, "TaskQueueEventSourceMapping");
        let processors = number(&mapping["ScalingConfig"]["MaximumConcurrency"]);
        let (rate, burst) = (number(rate), number(burst));
        let (mut longest, mut authorizer) = (0, 0);
        for (name, function) in functions(templates, environment) {
            let seconds = number(&function["Timeout"]);
            match name.as_str() {
                "authorizer" => authorizer = seconds,
                // Not behind the API; or for single requests of operators, without a connection.
                "task-processor" | "task-reconciler" | "migrator" | "admin-redrive" => {}
                _ => longest = longest.max(seconds),
            }
        }
        let (reconciler, migrator) = (1, 1);

        let executions = burst + (authorizer + longest) * rate + processors + reconciler + migrator;
        assert!(
            executions <= CONCURRENT_EXECUTIONS,
            "{environment}: {executions} concurrent executions"
        );
        assert_eq!(number(&capacity["Concurrency"]), executions, "{environment}");

        // AWS Lambda Developer Guide, "Using Lambda with Amazon SQS": Lambda starts with five
        // batches and adds up to 300 a minute.
        let pollers = 5 + 300 / 60;
        let logins = burst + rate + pollers.min(processors) + reconciler + migrator;
        assert!(logins <= IAM_LOGINS, "{environment}: {logins} logins in a second");

        let connections = burst + longest * rate + processors + reconciler + migrator;
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
                    // See the next check.
                    let about_mapping = ["ProcessingChange", "ProcessingView"].contains(&name.as_str());
                    assert!((known || about_mapping) && !action.contains('*'), "{name}: {action}");
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

/// The actions on the event source mapping that each function's role allows. `permissions` compares
/// them with the calls of the code.
pub fn allowed_in_lambda(template: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut allowed = BTreeMap::new();
    for name in ["ProcessingChange", "ProcessingView"] {
        let policy = &template["Resources"][name]["Properties"];
        let action = &policy["PolicyDocument"]["Statement"]["Action"];
        let action = action.as_str().and_then(|action| action.strip_prefix("lambda:"));
        for role in policy["Roles"].as_array().expect("roles") {
            let function = role["Ref"].as_str().expect("a role").trim_end_matches("Role");
            let actions = allowed.entry(function_name(function)).or_insert_with(BTreeSet::new);
            actions.insert(action.expect("one action of Lambda").to_owned());
        }
    }
    allowed
}

/// Of the mapping only, and without passing its messages to another function.
fn only_admin_processing_changes_mapping(templates: &Value) {
    let with_lambda = FUNCTIONS.iter().filter(|function| !function.lambda.is_empty());
    let expected = with_lambda.map(|function| {
        let actions = function.lambda.iter().map(|&action| action.to_owned());
        (function.name.to_owned(), actions.collect())
    });
    let expected: BTreeMap<String, BTreeSet<String>> = expected.collect();
    let mapping = json!({"Fn::GetAtt": ["TaskQueueEventSourceMapping", "EventSourceMappingArn"]});
    for environment in CLOUD {
        assert_eq!(allowed_in_lambda(&templates[environment]), expected, "{environment}");
        for name in ["ProcessingChange", "ProcessingView"] {
            let statement = &properties(templates, environment, name)["PolicyDocument"]["Statement"];
            assert_eq!(statement["Resource"], mapping, "{name}");
        }
        let change = &properties(templates, environment, "ProcessingChange")["PolicyDocument"]["Statement"];
        let processor = json!([
            {"Fn::GetAtt": ["TaskProcessorFunction", "Arn"]},
            {"Fn::Sub": "${TaskProcessorFunction.Arn}:live"},
        ]);
        assert_eq!(
            change["Condition"],
            json!({"ArnEquals": {"lambda:FunctionArn": processor}})
        );
        // With RDS Proxy, the mapping depends on the roles that log in through it.
        for (name, role) in of_type(&templates[environment], "AWS::IAM::Role") {
            assert!(!role.to_string().contains("TaskQueueEventSourceMapping"), "{name}");
        }
    }
    for environment in EVERYWHERE {
        for (name, function) in functions(templates, environment) {
            let id = &function["Environment"]["Variables"]["EVENT_SOURCE_MAPPING_ID"];
            let expected = match expected.contains_key(&name) {
                true => json!({"Ref": "TaskQueueEventSourceMapping"}),
                false => Value::Null,
            };
            assert_eq!(*id, expected, "{environment}: {name}");
        }
        // A deployment leaves alone what the template does not set.
        let mapping = properties(templates, environment, "TaskQueueEventSourceMapping");
        assert!(mapping.get("Enabled").is_none(), "{environment}");
    }
}

/// A role can have ten; each is a grant on all resources that AWS may extend.
fn roles_have_no_further_managed_policies(templates: &Value) {
    for environment in ["sandbox", "prod", "prod-with-options"] {
        for (name, role) in of_type(&templates[environment], "AWS::IAM::Role") {
            let policies = role["Properties"]["ManagedPolicyArns"].as_array().into_iter().flatten();
            let policies = policies.map(|policy| policy["Fn::Sub"].as_str().or(policy.as_str()).expect("an ARN"));
            let policies: BTreeSet<&str> = policies.filter_map(|arn| arn.rsplit('/').next()).collect();
            let expected: &[&str] = match name.as_str() {
                "DatabaseProxyRole" => &[],
                "TrafficShiftRole" => &["AWSCodeDeployRoleForLambda"],
                "ApiAccountRole" => &["AmazonAPIGatewayPushToCloudWatchLogs"],
                "AuthorizerFunctionRole" => &["AWSLambdaBasicExecutionRole", "AWSXrayWriteOnlyAccess"],
                _ => &[
                    "AWSLambdaBasicExecutionRole",
                    "AWSLambdaVPCAccessExecutionRole",
                    "AWSXrayWriteOnlyAccess",
                ],
            };
            assert_eq!(policies, expected.iter().copied().collect(), "{environment}: {name}");
        }
    }
}

/// A role's own policies and those attached to it by AWS::IAM::Policy.
fn own_actions(template: &Value) -> BTreeSet<&str> {
    let roles = of_type(template, "AWS::IAM::Role");
    let inline = roles.flat_map(|(_, role)| role["Properties"]["Policies"].as_array().into_iter().flatten());
    let inline = inline.map(|policy| &policy["PolicyDocument"]);
    let attached = of_type(template, "AWS::IAM::Policy").map(|(_, policy)| &policy["Properties"]["PolicyDocument"]);
    let statements = inline
        .chain(attached)
        .flat_map(|document| one_or_more(&document["Statement"]));
    let actions = statements.flat_map(|statement| one_or_more(&statement["Action"]));
    actions.filter_map(Value::as_str).collect()
}

fn statements<'a>(templates: &'a Value, policy: &str) -> Vec<&'a Value> {
    one_or_more(&properties(templates, "bootstrap", policy)["PolicyDocument"]["Statement"])
}

/// bootstrap.yaml's role may create only such roles.
fn every_role_has_boundary(templates: &Value) {
    let roles: Vec<_> = of_type(&templates["prod-with-options"], "AWS::IAM::Role").collect();
    assert_eq!(
        roles.len(),
        FUNCTIONS.len() + 3,
        "CodeDeploy's, the proxy's and API Gateway's"
    );
    for (name, role) in roles {
        let boundary = &role["Properties"]["PermissionsBoundary"];
        assert_eq!(*boundary, "arn:aws:iam::123456789012:policy/boundary", "{name}");
    }
    for environment in EVERYWHERE {
        for (name, role) in of_type(&templates[environment], "AWS::IAM::Role") {
            assert!(role["Properties"].get("PermissionsBoundary").is_none(), "{name}");
        }
    }
}

fn boundary_allows_roles_and_no_iam(templates: &Value) {
    let statements = statements(templates, "Boundary");
    let allowed = statements.iter().flat_map(|statement| {
        assert_eq!(statement["Effect"], "Allow");
        one_or_more(&statement["Action"])
    });
    let allowed: BTreeSet<&str> = allowed.map(|action| action.as_str().expect("an action")).collect();
    for action in &allowed {
        let (service, _) = action.split_once(':').expect("a service");
        assert!(!["iam", "sts", "organizations"].contains(&service), "{action}");
        assert!(!action.contains('*'), "{action}");
    }
    for environment in ["prod", "prod-with-options"] {
        for action in own_actions(&templates[environment]) {
            assert!(allowed.contains(action), "the boundary denies {action}");
        }
    }
}

fn deployment_creates_only_bounded_roles(templates: &Value) {
    let boundary = json!({"StringEquals": {"iam:PermissionsBoundary": {"Ref": "Boundary"}}});
    // Those of its own stack, which excludes this one and the boundary.
    let own = json!({"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/task-api-${Environment}-*"});
    let with_boundary = [
        "iam:AttachRolePolicy",
        "iam:CreateRole",
        "iam:DeleteRolePolicy",
        "iam:DetachRolePolicy",
        "iam:PutRolePermissionsBoundary",
        "iam:PutRolePolicy",
    ];
    let without = [
        "iam:DeleteRole",
        "iam:GetRole",
        "iam:GetRolePolicy",
        "iam:ListAttachedRolePolicies",
        "iam:ListRolePolicies",
        "iam:TagRole",
        "iam:UntagRole",
        "iam:UpdateAssumeRolePolicy",
    ];
    for statement in statements(templates, "Deployment") {
        assert_eq!(statement["Effect"], "Allow");
        let actions = one_or_more(&statement["Action"]).into_iter();
        for action in actions.map(|action| action.as_str().expect("an action")) {
            let (service, name) = action.split_once(':').expect("a service");
            assert!(!service.contains('*'), "{action}");
            match action {
                _ if with_boundary.contains(&action) => {
                    assert_eq!(
                        (&statement["Condition"], &statement["Resource"]),
                        (&boundary, &own),
                        "{action}"
                    );
                }
                _ if without.contains(&action) => assert_eq!(statement["Resource"], own, "{action}"),
                "iam:PassRole" => {
                    assert_eq!(statement["Resource"], own);
                    let to = &statement["Condition"]["StringEquals"]["iam:PassedToService"];
                    assert!(to.as_array().is_some_and(|services| services.len() == 3), "{to}");
                }
                "iam:CreateServiceLinkedRole" => {
                    assert!(statement["Condition"]["StringEquals"]["iam:AWSServiceName"].is_array());
                }
                _ => assert!(
                    !["iam", "sts", "organizations", "account"].contains(&service),
                    "{action}"
                ),
            }
            if statement["Resource"] == "*" {
                let region = json!({"StringEquals": {"aws:RequestedRegion": {"Ref": "AWS::Region"}}});
                assert_eq!(statement["Condition"], region, "{action}");
            }
            assert!(service != "kms" || !name.contains('*'), "{action}");
        }
    }
    let role = properties(templates, "bootstrap", "DeployRole");
    assert_eq!(role["ManagedPolicyArns"], json!([{"Ref": "Deployment"}]));
    assert!(role.get("Policies").is_none());
}

fn deployment_trusts_one_environment_of_repository(templates: &Value) {
    let role = properties(templates, "bootstrap", "DeployRole");
    assert_eq!(role["MaxSessionDuration"], 3600);
    let provider = "arn:${AWS::Partition}:iam::${AWS::AccountId}:oidc-provider/token.actions.githubusercontent.com";
    let issuer = "token.actions.githubusercontent.com";
    let statement = json!({
        "Effect": "Allow",
        "Principal": {"Federated": {"Fn::Sub": provider}},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {
            format!("{issuer}:aud"): "sts.amazonaws.com",
            format!("{issuer}:sub"): {"Fn::Sub": "repo:${Repository}:environment:${Environment}"},
        }},
    });
    assert_eq!(role["AssumeRolePolicyDocument"]["Statement"], statement);
    // StringEquals takes no wildcards, but a subject with one would still look as if it did.
    let pattern = &templates["bootstrap"]["Parameters"]["Repository"]["AllowedPattern"];
    assert_eq!(*pattern, "[^/:*?]+/[^/:*?]+");
    let client = &properties(templates, "bootstrap", "GitHub")["ClientIdList"];
    assert_eq!(*client, json!(["sts.amazonaws.com"]));
}

/// API Gateway has one log role for all APIs of an account and region.
fn log_role_of_account_outlives_stack(templates: &Value) {
    for environment in ["sandbox", "prod", "bootstrap"] {
        for name in ["ApiAccount", "ApiAccountRole"] {
            let resource = &templates[environment]["Resources"][name];
            for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
                assert_eq!(resource[policy], "Retain", "{environment}: {policy} of {name}");
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
            if ["ProcessingChange", "ProcessingView"].contains(&name.as_str()) {
                continue;
            }
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

/// The server that a function connects to.
fn server(function: &Value) -> &str {
    let url = &function["Environment"]["Variables"]["DATABASE_URL"]["Fn::Sub"];
    url[1]["Host"]["Fn::GetAtt"][0].as_str().expect("a server")
}

/// During a gradual deployment the previous version runs beside the new one. CloudFormation deletes
/// what the new template lacks only afterwards, but changes the rest before.
fn previous_version_keeps_its_server_while_proxy_is_switched(templates: &Value) {
    let (with, without) = ("prod", "prod-without-proxy");
    for (old, new) in [(without, with), (with, without), (with, with), (without, without)] {
        let resources = |environment: &str| {
            templates[environment]["Resources"]
                .as_object()
                .expect("resources")
                .clone()
        };
        let mut during = resources(old);
        during.extend(resources(new));
        let during = json!({"Resources": during});
        for version in [old, new] {
            for (name, function) in functions(templates, version) {
                let role = function["Environment"]["Variables"]["DATABASE_ROLE"].as_str();
                let Some(role) = role.filter(|role| *role != "migrator") else {
                    continue;
                };
                let server = server(function);
                let expected = if version == with {
                    "DatabaseProxyServer"
                } else {
                    "Database"
                };
                assert_eq!(server, expected, "{version}: {name}");
                let id = match server {
                    "Database" => "${Database.DBClusterResourceId}",
                    _ => r#"{"Fn::GetAtt":["DatabaseProxyServer","DBProxyArn"]}"#,
                };
                let allows = |policy: &Value| {
                    let statement = &policy["Properties"]["PolicyDocument"]["Statement"];
                    let resource = statement["Resource"].to_string();
                    let roles = policy["Properties"]["Roles"].as_array().expect("roles").iter();
                    let mut roles = roles.filter_map(|role| role["Ref"].as_str());
                    roles.any(|role| function_name(role.trim_end_matches("Role")) == name)
                        && resource.contains(id)
                        && resource.contains(&format!("/{role}\""))
                };
                assert!(
                    of_type(&during, "AWS::IAM::Policy").any(|(_, policy)| allows(policy)),
                    "from {old} to {new}: {name} of {version} may not log in at {server}"
                );
            }
        }
        // Both servers take connections from the same group.
        for server in ["Database", "DatabaseProxyServer"] {
            if let Some(server) = during["Resources"].get(server) {
                let groups = &server["Properties"]["VpcSecurityGroupIds"];
                assert_eq!(*groups, json!([{"Ref": "DatabaseSecurityGroup"}]));
            }
        }
    }
    // The functions depend on the migrations, and through them on a proxy that is ready.
    let ready = templates[with]["Resources"]["Migrations"]["Properties"]["Proxy"].to_string();
    for needed in [
        "DatabaseProxyTargets",
        "ReaderProxyLogin",
        "WriterProxyLogin",
        "ProcessorProxyLogin",
    ] {
        assert!(ready.contains(&format!("${{{needed}}}")), "{needed}: {ready}");
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

/// The bundle in shared/core/rds-ca has no root of these regions: nothing could log in there.
fn regions_without_database_certificate_are_refused(templates: &Value) {
    let rule = &templates["translated"]["Rules"]["RegionIsAccepted"];
    assert_eq!(
        rule["RuleCondition"],
        json!({"Fn::Not": [{"Fn::Equals": [{"Ref": "Environment"}, "local"]}]})
    );
    let contains = &rule["Assertions"][0]["Assert"]["Fn::Contains"];
    assert_eq!(contains[1], json!({"Ref": "AWS::Region"}));
    let accepted = contains[0].as_array().expect("regions").iter();
    let bundle = include_str!("../../../shared/core/rds-ca/rds-ca.pem");
    for region in accepted.map(|region| region.as_str().expect("a region")) {
        let root = format!("# Amazon RDS {region} Root CA RSA2048 G1\n");
        assert!(bundle.contains(&root), "{region} has no root certificate");
    }
}

/// TLS 1.2 and 1.3. Without a policy API Gateway also accepts 1.0.
const TLS: &str = "SecurityPolicy_TLS13_1_2_2021_06";

fn api_refuses_old_tls_versions(templates: &Value) {
    for environment in ["sandbox", "prod", "prod-with-options"] {
        let template = &templates[environment];
        for kind in ["AWS::ApiGateway::RestApi", "AWS::ApiGateway::DomainName"] {
            for (name, endpoint) in of_type(template, kind) {
                let endpoint = &endpoint["Properties"];
                assert_eq!(
                    (&endpoint["SecurityPolicy"], &endpoint["EndpointAccessMode"]),
                    (&json!(TLS), &json!("STRICT")),
                    "{environment}: {name}"
                );
            }
        }
    }
    // The emulators offer no TLS.
    assert!(properties(templates, "local", "Api").get("SecurityPolicy").is_none());
}

fn domain_is_optional_and_leads_to_api(templates: &Value) {
    let names = ["ApiAddress", "ApiCertificate", "ApiDomain", "ApiDomainMapping"];
    for environment in EVERYWHERE {
        for name in names {
            assert!(
                templates[environment]["Resources"].get(name).is_none(),
                "{environment}: {name}"
            );
        }
    }
    let of = |name| properties(templates, "prod-with-options", name);
    let (domain, zone) = (json!("tasks.example.com"), json!("Z0123456789ABCDEFGHIJ"));
    let validation = json!([{"DomainName": domain, "HostedZoneId": zone}]);
    assert_eq!(
        *of("ApiCertificate"),
        json!({"DomainName": domain, "ValidationMethod": "DNS", "DomainValidationOptions": validation})
    );
    assert_eq!(of("ApiDomain")["DomainName"], domain);
    assert_eq!(
        of("ApiDomain")["RegionalCertificateArn"],
        json!({"Ref": "ApiCertificate"})
    );
    assert_eq!(
        *of("ApiDomainMapping"),
        json!({"DomainName": {"Ref": "ApiDomain"}, "BasePath": "v1", "RestApiId": {"Ref": "Api"}, "Stage": "prod"})
    );
    let target = json!({"DNSName": {"Fn::GetAtt": ["ApiDomain", "RegionalDomainName"]},
        "HostedZoneId": {"Fn::GetAtt": ["ApiDomain", "RegionalHostedZoneId"]}});
    assert_eq!(
        *of("ApiAddress"),
        json!({"HostedZoneId": zone, "Name": domain, "Type": "A", "AliasTarget": target})
    );
    let url = |environment: &str| templates[environment]["Outputs"]["ApiUrl"]["Value"]["Fn::Sub"].clone();
    assert_eq!(url("prod-with-options"), "https://${DomainName}/${BasePath}");
    let default = "https://${Api}.execute-api.${AWS::Region}.${AWS::URLSuffix}/${Environment}";
    assert_eq!(url("prod"), default);
    // A name without a zone would wait for its certificate until the deployment times out.
    let assertions = templates["translated"]["Rules"]["DomainIsComplete"]["Assertions"].as_array();
    let assertions = assertions.expect("assertions").iter();
    let not = |parameter, value| json!({"Fn::Not": [{"Fn::Equals": [{"Ref": parameter}, value]}]});
    assert_eq!(
        assertions.map(|assertion| &assertion["Assert"]).collect::<Vec<_>>(),
        [
            &not("DomainName", ""),
            &not("HostedZoneId", ""),
            &not("Environment", "local")
        ]
    );
}

fn firewall_limits_requests_per_address(templates: &Value) {
    for environment in EVERYWHERE {
        assert_eq!(of_type(&templates[environment], "AWS::WAFv2::WebACL").count(), 0);
    }
    let firewall = properties(templates, "prod-with-options", "Firewall");
    assert_eq!(firewall["DefaultAction"], json!({"Allow": {}}));
    let rules = firewall["Rules"].as_array().expect("rules");
    assert_eq!(rules.len(), 1);
    assert_eq!(rules[0]["Action"], json!({"Block": {}}));
    let limit = json!({"AggregateKeyType": "IP", "EvaluationWindowSec": 300, "Limit": "1000"});
    assert_eq!(rules[0]["Statement"], json!({"RateBasedStatement": limit}));
    let association = properties(templates, "prod-with-options", "FirewallOfApi");
    assert_eq!(association["WebACLArn"], json!({"Fn::GetAtt": ["Firewall", "Arn"]}));
    let stage = association["ResourceArn"]["Fn::Sub"].as_str().expect("an ARN");
    assert!(
        stage.ends_with(":apigateway:${AWS::Region}::/restapis/${Api}/stages/${Environment}"),
        "{stage}"
    );
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

/// By default API Gateway waits 29 s for an integration ("Quotas for configuring and running a REST
/// API in API Gateway").
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
            assert_eq!(function["LoggingConfig"]["LogGroup"], group, "{name}");
        }
        let filter = properties(templates, environment, "FunctionErrorsFilter");
        assert_eq!(filter["LogGroupName"], group);
        let metric = &filter["MetricTransformations"][0];
        let alarm = properties(templates, environment, "FunctionErrorsAlarm");
        assert_eq!(
            (&alarm["Namespace"], &alarm["MetricName"]),
            (&metric["MetricNamespace"], &metric["MetricName"])
        );
    }
}

/// With JSON logs, Lambda drops a function's lines below ApplicationLogLevel (INFO by default),
/// whatever RUST_LOG says.
fn log_lines_reach_functions_filter(templates: &Value) {
    for environment in EVERYWHERE {
        for (name, function) in functions(templates, environment) {
            let config = &function["LoggingConfig"];
            assert_eq!(
                (&config["LogFormat"], &config["ApplicationLogLevel"]),
                (&json!("JSON"), &json!("TRACE")),
                "{environment}: {name}"
            );
        }
    }
}

/// Each line of log_lines.toml is counted by exactly the filters that it names.
fn metric_filters_count_recorded_lines(templates: &Value) {
    for environment in CLOUD {
        let filters = of_type(&templates[environment], "AWS::Logs::MetricFilter");
        let filters: Vec<_> = filters.map(|(name, one)| (name, &one["Properties"])).collect();
        for line in log_lines::read() {
            let counting = filters.iter().filter(|(_, filter)| {
                let pattern = filter["FilterPattern"].as_str().expect("a pattern");
                filter["LogGroupName"]["Ref"] == line.log.as_str() && filter_pattern::matches(pattern, &line.content)
            });
            let counting: BTreeSet<&str> = counting.map(|(name, _)| name.as_str()).collect();
            let exists = |name: &&String| filters.iter().any(|(filter, _)| filter == name);
            let expected = line.counted_by.iter().filter(exists).map(String::as_str);
            assert_eq!(counting, expected.collect(), "{environment}: {}", line.name);
        }
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
        "MessagesMissingAlarm",
        "QueueAgeAlarm",
        "RouteErrorsAlarm",
    ];
    for environment in CLOUD {
        let template = &templates[environment];
        let mut alarms: Vec<&str> = Vec::new();
        for (name, alarm) in of_type(template, "AWS::CloudWatch::Alarm") {
            let alarm = &alarm["Properties"];
            for actions in ["AlarmActions", "OKActions"] {
                assert_eq!(alarm[actions], json!([{"Ref": "AlarmTopic"}]), "{name}: {actions}");
            }
            assert_eq!(alarm["TreatMissingData"], "notBreaching", "{name}");
            assert!(alarm["AlarmDescription"].is_string(), "{name}");
            alarms.push(name);
        }
        alarms.sort_unstable();
        let expected = expected
            .into_iter()
            .filter(|alarm| environment == "prod" || *alarm != "RouteErrorsAlarm");
        assert_eq!(alarms, expected.collect::<Vec<_>>());
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
            "MessagesResent",
            "MessagesMissing",
            "TasksDiscarded",
            "KeysDeleted",
            "KeysLeft",
            "TasksDeleted",
            "OldTasksLeft",
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
            let is_outside = name == "authorizer";
            assert_eq!(function.get("VpcConfig").is_none(), is_outside, "{name}");
            let role = function["Role"]["Fn::GetAtt"][0].as_str().expect("a role");
            let policies = properties(templates, environment, role)["ManagedPolicyArns"].to_string();
            let manages_interfaces = policies.contains("AWSLambdaVPCAccessExecutionRole");
            assert_eq!(manages_interfaces, !is_outside, "{role}: {policies}");
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
        let endpoint = properties(templates, environment, "LambdaEndpoint");
        let statement = &endpoint["PolicyDocument"]["Statement"];
        assert_eq!(
            (&statement["Action"], &statement["Resource"]),
            (
                &json!(["lambda:GetEventSourceMapping", "lambda:UpdateEventSourceMapping"]),
                &json!({"Fn::GetAtt": ["TaskQueueEventSourceMapping", "EventSourceMappingArn"]})
            )
        );
        assert_eq!(endpoint["PrivateDnsEnabled"], true);
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
        let logs = ["postgresql", "iam-db-auth-error"];
        assert_eq!(database["EnableCloudwatchLogsExports"], json!(logs));
        for log in logs {
            // RDS would create the group, without expiry.
            let name = json!({"Fn::Sub": format!("/aws/rds/cluster/${{AWS::StackName}}/{log}")});
            let mut groups = of_type(template, "AWS::Logs::LogGroup");
            let group = groups.find(|(_, group)| group["Properties"]["LogGroupName"] == name);
            let (group, _) = group.unwrap_or_else(|| panic!("{log} has no log group"));
            let dependencies = cluster["DependsOn"].as_array().expect("dependencies");
            assert!(dependencies.contains(&json!(group)), "{group}");
        }
        assert_eq!(database["DatabaseInsightsMode"], "standard");
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
        assert_eq!(*canary, "Canary10Percent10Minutes", "{name}");
        let alarms = [
            "ApiErrorsAlarm",
            "ApiLatencyAlarm",
            "FunctionErrorsAlarm",
            "RouteErrorsAlarm",
        ];
        let alarms = alarms.map(|alarm| json!({"Name": {"Ref": alarm}}));
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

/// A route with 1% of the traffic fails wholly in a new version, which gets a tenth of it.
fn failing_route_stops_canary(templates: &Value) {
    let request = |method: &str, status: u16| json!({"method": method, "route": "/tasks/{id}", "status": status});
    let mut requests = vec![request("GET", 200); 9900];
    requests.extend(vec![request("DELETE", 204); 90]);
    requests.extend(vec![request("DELETE", 500); 10]);

    let alarm = properties(templates, "prod", "RouteErrorsAlarm");
    let query = alarm["Metrics"][0]["Expression"]["Fn::Sub"].as_str().expect("a query");
    let metric = "RouteErrors";
    let expected = format!(
        "SELECT AVG({metric}) FROM SCHEMA(\"${{AWS::StackName}}\", method, route) \
         GROUP BY method, route ORDER BY AVG() DESC LIMIT 1"
    );
    assert_eq!(query, expected);
    let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, filter) in of_type(&templates["prod"], "AWS::Logs::MetricFilter") {
        let filter = &filter["Properties"];
        let transformation = &filter["MetricTransformations"][0];
        if transformation["MetricName"] != metric {
            continue;
        }
        assert_eq!(filter["LogGroupName"], json!({"Ref": "ApiLogs"}), "{name}");
        let namespace = &transformation["MetricNamespace"];
        assert_eq!(*namespace, json!({"Ref": "AWS::StackName"}), "{name}");
        let value: f64 = transformation["MetricValue"]
            .as_str()
            .expect("text")
            .parse()
            .expect("a number");
        let pattern = filter["FilterPattern"].as_str().expect("a pattern");
        let dimensions = transformation["Dimensions"].as_array().expect("dimensions");
        let keys: Vec<&Value> = dimensions.iter().map(|dimension| &dimension["Key"]).collect();
        assert_eq!(keys, ["method", "route"], "{name}");
        for request in requests
            .iter()
            .filter(|request| filter_pattern::matches(pattern, request))
        {
            let selected = dimensions.iter().map(|dimension| {
                let selector = dimension["Value"].as_str().expect("a selector");
                request[selector.trim_start_matches("$.")].to_string()
            });
            let series = selected.collect::<Vec<_>>().join(" ");
            values.entry(series).or_default().push(value);
        }
    }
    assert_eq!(values.values().map(Vec::len).sum::<usize>(), requests.len());
    let rates = values
        .values()
        .map(|series| series.iter().sum::<f64>() / series.len() as f64);
    let worst = rates.fold(0.0, f64::max);
    assert_eq!(alarm["ComparisonOperator"], "GreaterThanThreshold");
    assert!(worst > alarm["Threshold"].as_f64().expect("a number"), "{worst}");
    // A wholly failing route must be seen before the rest of the traffic follows.
    let period = number(&alarm["Metrics"][0]["Period"]);
    assert!(number(&alarm["EvaluationPeriods"]) * period <= 600);
    // All members that the filters select are in the access log.
    let format = &properties(templates, "prod", "ApiStage")["AccessLogSetting"]["Format"];
    for member in ["\"method\":", "\"route\":", "\"status\":"] {
        assert!(format.as_str().expect("a format").contains(member), "{member}");
    }
}

fn prod_requires_alarm_email(templates: &Value) {
    let rule = &templates["translated"]["Rules"]["ProdHasAlarmEmail"];
    assert_eq!(
        *rule,
        json!({
            "RuleCondition": {"Fn::Equals": [{"Ref": "Environment"}, "prod"]},
            "Assertions": [{
                "Assert": {"Fn::Not": [{"Fn::Equals": [{"Ref": "AlarmEmail"}, ""]}]},
                "AssertDescription": rule["Assertions"][0]["AssertDescription"],
            }],
        })
    );
}

/// CodeDeploy refuses a deployment while one of its alarms is in ALARM, also the one with the fix.
fn fix_is_deployed_at_once_despite_alarm(templates: &Value) {
    let template = &templates["prod-at-once"];
    for kind in ["AWS::CodeDeploy::DeploymentGroup", "AWS::CodeDeploy::Application"] {
        assert_eq!(of_type(template, kind).count(), 0, "{kind}");
    }
    let aliases: Vec<_> = of_type(template, "AWS::Lambda::Alias").collect();
    assert_eq!(aliases.len(), FUNCTIONS.len() - 1, "all except the authorizer's");
    for (name, alias) in aliases {
        assert!(alias.get("UpdatePolicy").is_none(), "{name}");
    }
    // The alarms themselves remain.
    let alarms = |template| {
        let alarms = of_type(template, "AWS::CloudWatch::Alarm");
        alarms.map(|(name, alarm)| (name.clone(), alarm.clone())).collect()
    };
    let (gradual, at_once): (Vec<_>, Vec<_>) = (alarms(&templates["prod"]), alarms(template));
    assert_eq!(at_once, gradual);
    let parameter = &templates["translated"]["Parameters"]["Rollout"];
    assert_eq!(parameter["Default"], "gradual");
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
