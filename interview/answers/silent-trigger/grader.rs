//! silent-trigger: a message on the task queue reaches the processor, in each environment that
//! template.yaml describes.
// functions: task-processor

use std::{collections::BTreeMap, fs};

use grading::{TASK_QUEUE, Template, TestEnvironment};
use serde_json::{Value, json};

const ENVIRONMENTS: [&str; 3] = ["local", "sandbox", "prod"];

/// The actions that Lambda's pollers need, and those that the processor itself calls.
const NEEDED: [&str; 4] = [
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:ChangeMessageVisibility",
];

/// Calls that the actions above cover: to name them as well allows no more.
const ALSO_ALLOWED: [&str; 2] = ["sqs:DeleteMessageBatch", "sqs:ChangeMessageVisibilityBatch"];

/// All other actions of SQS (Service Authorization Reference, "Actions, resources, and condition
/// keys for Amazon SQS"), to compare patterns with.
const OTHERS: [&str; 17] = [
    "sqs:AddPermission",
    "sqs:CancelMessageMoveTask",
    "sqs:CreateQueue",
    "sqs:DeleteQueue",
    "sqs:GetQueueUrl",
    "sqs:ListDeadLetterSourceQueues",
    "sqs:ListMessageMoveTasks",
    "sqs:ListQueues",
    "sqs:ListQueueTags",
    "sqs:PurgeQueue",
    "sqs:RemovePermission",
    "sqs:SendMessage",
    "sqs:SendMessageBatch",
    "sqs:SetQueueAttributes",
    "sqs:StartMessageMoveTask",
    "sqs:TagQueue",
    "sqs:UntagQueue",
];

/// The trigger of the processor, in each environment.
fn triggers() -> Vec<(&'static str, Value)> {
    let triggers = ENVIRONMENTS.map(|environment| {
        let trigger = Template::of(environment).trigger(TASK_QUEUE, "task-processor").clone();
        assert!(
            trigger.is_object(),
            "{environment}: no event source mapping connects the task queue to the processor"
        );
        (environment, trigger)
    });
    triggers.into()
}

/// The value of an expression as text, in a stack named `task-api`.
fn text(template: &Template, expression: &Value) -> Option<String> {
    if let Some(text) = expression.as_str() {
        return Some(text.to_owned());
    }
    let (function, of) = expression.as_object()?.iter().next()?;
    match function.as_str() {
        "Ref" => variable(template, of.as_str()?),
        "Fn::GetAtt" => {
            let parts: Vec<&str> = match of.as_str() {
                Some(of) => vec![of],
                None => of.as_array()?.iter().filter_map(Value::as_str).collect(),
            };
            variable(template, &parts.join("."))
        }
        "Fn::Join" => {
            let parts: Option<Vec<String>> = of[1].as_array()?.iter().map(|part| text(template, part)).collect();
            Some(parts?.join(of[0].as_str()?))
        }
        "Fn::Sub" => {
            let (pattern, own) = match of.as_str() {
                Some(pattern) => (pattern, &Value::Null),
                None => (of[0].as_str()?, &of[1]),
            };
            let mut parts = pattern.split("${");
            let mut substituted = parts.next()?.to_owned();
            for part in parts {
                let (name, rest) = part.split_once('}')?;
                let value = match own.get(name) {
                    Some(own) => text(template, own),
                    None => variable(template, name),
                };
                substituted += &value?;
                substituted += rest;
            }
            Some(substituted)
        }
        _ => None,
    }
}

/// The value of a name in an expression.
fn variable(template: &Template, name: &str) -> Option<String> {
    let known = [
        ("AWS::Partition", "aws"),
        ("AWS::Region", "eu-central-1"),
        ("AWS::AccountId", "123456789012"),
        ("AWS::StackName", "task-api"),
        ("AWS::URLSuffix", "amazonaws.com"),
    ];
    if let Some((_, value)) = known.iter().find(|(known, _)| *known == name) {
        return Some((*value).to_owned());
    }
    let (queue, attribute) = name.split_once('.')?;
    let is_queue = template.resource(queue)["Type"] == "AWS::SQS::Queue";
    match attribute {
        "Arn" if is_queue => Some(arn(&queue_name(template, queue))),
        "QueueName" if is_queue => Some(queue_name(template, queue)),
        _ => None,
    }
}

fn queue_name(template: &Template, queue: &str) -> String {
    let name = &template.resource(queue)["Properties"]["QueueName"];
    text(template, name).unwrap_or_else(|| format!("task-api-{queue}-1A2B3C"))
}

fn arn(queue: &str) -> String {
    format!("arn:aws:sqs:eu-central-1:123456789012:{queue}")
}

/// Compares as IAM does: `*` matches any text, `?` a single character.
fn is_like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
    fn compare(text: &[char], pattern: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', rest @ ..] => (0..=text.len()).any(|from| compare(&text[from..], rest)),
            [letter, rest @ ..] => match text {
                [first, others @ ..] => (letter == first || *letter == '?') && compare(others, rest),
                [] => false,
            },
        }
    }
    compare(&text, &pattern)
}

fn one_or_more(value: &Value) -> Vec<&Value> {
    value
        .as_array()
        .map_or_else(|| vec![value], |list| list.iter().collect())
}

/// The statements of the processor's role, from all of its policies.
fn statements(template: &Template) -> Vec<Value> {
    let role = &template.function("task-processor")["Role"];
    let name = role["Fn::GetAtt"][0]
        .as_str()
        .or_else(|| role["Fn::GetAtt"].as_str()?.strip_suffix(".Arn"));
    let name = name.expect("the processor has its own role");
    let inline = template.resource(name)["Properties"]["Policies"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut documents: Vec<Value> = inline.iter().map(|policy| policy["PolicyDocument"].clone()).collect();
    for kind in ["AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::RolePolicy"] {
        for policy in template.resources(kind).into_values() {
            let properties = &policy["Properties"];
            let roles = one_or_more(&properties["Roles"])
                .into_iter()
                .chain([&properties["RoleName"]]);
            if roles.into_iter().any(|role| role["Ref"] == name) {
                documents.push(properties["PolicyDocument"].clone());
            }
        }
    }
    let statements = documents
        .iter()
        .flat_map(|document| one_or_more(&document["Statement"]));
    statements.cloned().collect()
}

/// True if the processor's role allows this action on this queue.
fn allows(template: &Template, action: &str, queue: &str) -> bool {
    let (arn, action) = (arn(queue), action.to_lowercase());
    let is_one_of = |patterns: &Value, name: &str, is_action: bool| {
        let patterns = one_or_more(patterns).into_iter();
        let mut patterns = patterns.filter_map(|pattern| text(template, pattern));
        patterns.any(|pattern| {
            let pattern = if is_action { pattern.to_lowercase() } else { pattern };
            is_like(name, &pattern)
        })
    };
    let applies = |statement: &&Value| {
        let is_covered = |member: &str, name: &str| {
            let is_action = member == "Action";
            match &statement[format!("Not{member}")] {
                Value::Null => is_one_of(&statement[member], name, is_action),
                except => !is_one_of(except, name, is_action),
            }
        };
        is_covered("Action", &action) && is_covered("Resource", &arn)
    };
    let statements = statements(template);
    let effects: Vec<&Value> = statements
        .iter()
        .filter(applies)
        .map(|statement| &statement["Effect"])
        .collect();
    effects.contains(&&json!("Allow")) && !effects.contains(&&json!("Deny"))
}

/// Whether a filter rule accepts a value (AWS Lambda Developer Guide, "Filter rule syntax").
fn rule(rule: &Value, value: Option<&Value>) -> bool {
    let Some((kind, of)) = rule.as_object().and_then(|rule| rule.iter().next()) else {
        return value == Some(rule);
    };
    let as_text = value.and_then(Value::as_str);
    match kind.as_str() {
        "exists" => value.is_some() == (of == &json!(true)),
        "prefix" => as_text
            .zip(of.as_str())
            .is_some_and(|(text, prefix)| text.starts_with(prefix)),
        "suffix" => as_text
            .zip(of.as_str())
            .is_some_and(|(text, suffix)| text.ends_with(suffix)),
        "anything-but" => value.is_some_and(|value| !one_or_more(of).contains(&value)),
        "equals-ignore-case" => as_text
            .zip(of.as_str())
            .is_some_and(|(one, other)| one.eq_ignore_ascii_case(other)),
        "numeric" => value.and_then(Value::as_f64).is_some_and(|number| {
            let of = of.as_array().map(Vec::as_slice).unwrap_or_default();
            of.chunks_exact(2).all(|comparison| {
                let bound = comparison[1].as_f64().unwrap_or(f64::NAN);
                match comparison[0].as_str() {
                    Some("=") => number == bound,
                    Some(">") => number > bound,
                    Some(">=") => number >= bound,
                    Some("<") => number < bound,
                    Some("<=") => number <= bound,
                    _ => false,
                }
            })
        }),
        _ => panic!("the checks do not support the filter rule {rule}"),
    }
}

/// Whether a pattern accepts a value.
fn lets_through(pattern: &Value, value: Option<&Value>) -> bool {
    match pattern {
        // Lambda drops a body that is text if the pattern of the body is JSON, whatever its rules.
        Value::Object(_) if value.is_some_and(|value| !value.is_object()) => false,
        Value::Object(members) => members.iter().all(|(name, pattern)| match (name.as_str(), pattern) {
            ("$or", Value::Array(patterns)) => patterns.iter().any(|pattern| lets_through(pattern, value)),
            _ => lets_through(pattern, value.and_then(|value| value.get(name))),
        }),
        // And a body that is JSON if the pattern of the body is rules for text, whatever they are.
        Value::Array(_) if value.is_some_and(Value::is_object) => false,
        Value::Array(rules) => rules.iter().any(|one| rule(one, value)),
        _ => false,
    }
}

/// Whether a trigger passes a message with this body to its function.
fn hands_on(trigger: &Value, body: &str) -> bool {
    let filters = trigger["FilterCriteria"]["Filters"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    // Parsed if it is JSON.
    let body = serde_json::from_str(body).unwrap_or_else(|_| json!(body));
    let message = json!({
        "messageId": "m1", "receiptHandle": "r1", "body": body, "messageAttributes": {}, "awsRegion": "eu-central-1",
        "eventSource": "aws:sqs", "eventSourceARN": arn("task-api-tasks"),
        "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1795359600000"},
    });
    let lets_through = |filter: &Value| {
        let pattern = filter["Pattern"].as_str().expect("a filter has a pattern");
        lets_through(
            &serde_json::from_str(pattern).expect("a pattern is JSON"),
            Some(&message),
        )
    };
    filters.is_empty() || filters.iter().any(lets_through)
}

/// Whether the processor is triggered in this environment, for this value of `Maintenance`.
fn is_on(environment: &str, maintenance: &str) -> bool {
    let folder = std::env::var("TEMPLATES").expect("`make grade` sets it");
    let file = fs::read_to_string(format!("{folder}/sandbox.json")).expect("the template is translated");
    let template: Value = serde_json::from_str(&file).expect("JSON");
    let parameters = template["Parameters"].as_object().expect("parameters").iter();
    let mut values: BTreeMap<&str, Value> = parameters
        .map(|(name, parameter)| (name.as_str(), parameter["Default"].clone()))
        .collect();
    assert!(
        values.contains_key("Maintenance"),
        "template.yaml has no parameter Maintenance any more"
    );
    values.extend([("Environment", json!(environment)), ("Maintenance", json!(maintenance))]);
    let resources = template["Resources"].as_object().expect("resources").values();
    let mut mappings = resources.filter(|resource| resource["Type"] == "AWS::Lambda::EventSourceMapping");
    let mapping = mappings.next().expect("an event source mapping");
    let is_there = mapping["Condition"]
        .as_str()
        .is_none_or(|name| decide(&template, &values, &json!({"Condition": name})));
    is_there && resolve(&template, &values, &mapping["Properties"]["Enabled"]) != json!("false")
}

/// Evaluates a condition as CloudFormation does.
fn decide(template: &Value, values: &BTreeMap<&str, Value>, condition: &Value) -> bool {
    let (function, of) = condition
        .as_object()
        .and_then(|one| one.iter().next())
        .expect("a condition");
    let decide = |condition: &Value| decide(template, values, condition);
    let all = || of.as_array().expect("a list").iter();
    match function.as_str() {
        "Condition" => decide(&template["Conditions"][of.as_str().expect("a name")]),
        "Fn::Equals" => resolve(template, values, &of[0]) == resolve(template, values, &of[1]),
        "Fn::Not" => !decide(&of[0]),
        "Fn::And" => all().all(decide),
        "Fn::Or" => all().any(decide),
        _ => panic!("the checks do not support the condition {condition}"),
    }
}

/// A value that may depend on conditions, parameters and mappings.
fn resolve(template: &Value, values: &BTreeMap<&str, Value>, value: &Value) -> Value {
    let resolve = |value: &Value| resolve(template, values, value);
    let Some((function, of)) = value.as_object().and_then(|one| one.iter().next()) else {
        return match value {
            Value::Bool(_) | Value::Number(_) => json!(value.to_string()),
            _ => value.clone(),
        };
    };
    match function.as_str() {
        "Ref" => resolve(values.get(of.as_str().unwrap_or_default()).unwrap_or(&Value::Null)),
        "Fn::If" => {
            let condition = json!({"Condition": of[0]});
            resolve(if decide(template, values, &condition) {
                &of[1]
            } else {
                &of[2]
            })
        }
        "Fn::FindInMap" => {
            let [map, first, second] = [0, 1, 2].map(|at| resolve(&of[at]).as_str().unwrap_or_default().to_owned());
            resolve(&template["Mappings"][map][first][second])
        }
        _ => Value::Null,
    }
}

#[tokio::test]
async fn processor_works_when_invoked_directly() {
    let environment = TestEnvironment::new().await;
    let id = environment.task("Process user data", "Count the words of this").await;
    environment.enqueue(&[id]).await;
    let mut processor = environment.function("task-processor").start().await;
    let delivered = environment.deliver(&mut processor, 1).await;
    assert!(delivered.redelivered.is_empty(), "the message was not acknowledged");
    assert_eq!(environment.row(id).await["status"], "completed", "the task's status");
}

#[tokio::test]
async fn trigger_connects_the_api_queue_to_the_processor() {
    for (environment, trigger) in triggers() {
        let template = Template::of(environment);
        for function in ["create-task", "process-task", "task-reconciler"] {
            let url = &template.function(function)["Environment"]["Variables"]["QUEUE_URL"];
            assert_eq!(
                *url,
                json!({"Ref": TASK_QUEUE}),
                "{environment}: QUEUE_URL of {function}"
            );
        }
        let types = &trigger["FunctionResponseTypes"];
        assert_eq!(
            *types,
            json!(["ReportBatchItemFailures"]),
            "{environment}: FunctionResponseTypes"
        );
        let most = trigger["ScalingConfig"]["MaximumConcurrency"].as_u64();
        assert!(
            most.is_some_and(|most| most >= 2),
            "{environment}: the number of processors is not bounded"
        );
    }
}

#[tokio::test]
async fn trigger_is_enabled_in_every_environment() {
    for (environment, trigger) in triggers() {
        let is_off = trigger["Enabled"] == json!(false) || trigger["Enabled"] == json!("false");
        assert!(!is_off, "{environment}: the event source mapping is not enabled");
    }
}

#[tokio::test]
async fn messages_wait_in_the_queue_during_maintenance_only() {
    for environment in ENVIRONMENTS {
        assert!(
            !is_on(environment, "true"),
            "{environment}: tasks are processed while Maintenance is \"true\""
        );
        assert!(
            is_on(environment, "false"),
            "{environment}: no task is processed while Maintenance is \"false\""
        );
    }
}

#[tokio::test]
async fn message_about_a_task_reaches_the_processor() {
    for (environment, trigger) in triggers() {
        for body in [r#"{"task_id":7}"#, r#"{"task_id":7,"priority":1}"#] {
            assert!(
                hands_on(&trigger, body),
                "{environment}: {body} does not reach the processor"
            );
        }
    }
}

#[tokio::test]
async fn malformed_message_is_not_deleted_silently() {
    for (environment, trigger) in triggers() {
        for body in [r#"{"taskId":7}"#, "{}", "not JSON"] {
            assert!(
                hands_on(&trigger, body),
                "{environment}: {body} is deleted without reaching a dead-letter queue"
            );
        }
        let template = Template::of(environment);
        let redrive = &template.resource(TASK_QUEUE)["Properties"]["RedrivePolicy"];
        assert!(
            !redrive["deadLetterTargetArn"].is_null(),
            "{environment}: the task queue has no dead-letter queue"
        );
    }
}

#[tokio::test]
async fn processor_role_allows_what_the_trigger_needs() {
    for environment in ENVIRONMENTS {
        let template = Template::of(environment);
        let queue = queue_name(&template, TASK_QUEUE);
        for action in NEEDED {
            assert!(
                allows(&template, action, &queue),
                "{environment}: the role does not allow {action} on the task queue"
            );
        }
    }
}

#[tokio::test]
async fn processor_role_allows_nothing_else_in_sqs() {
    for environment in ENVIRONMENTS {
        let template = Template::of(environment);
        let queue = queue_name(&template, TASK_QUEUE);
        // Also what the statements name and the list does not have.
        let statements = statements(&template);
        let named = statements
            .iter()
            .flat_map(|statement| one_or_more(&statement["Action"]));
        let named = named
            .filter_map(Value::as_str)
            .filter(|action| !action.contains(['*', '?']));
        let named = named.filter(|action| action.to_lowercase().starts_with("sqs:"));
        let is_fine = |action: &str| {
            let mut fine = NEEDED.iter().chain(&ALSO_ALLOWED);
            fine.any(|fine| fine.eq_ignore_ascii_case(action))
        };
        for action in OTHERS.into_iter().chain(named).filter(|action| !is_fine(action)) {
            assert!(
                !allows(&template, action, &queue),
                "{environment}: the role allows {action}"
            );
        }
        for other in [
            "task-api-other",
            "billing",
            &queue_name(&template, "TaskDeadLetterQueue"),
        ] {
            for action in NEEDED.into_iter().chain(ALSO_ALLOWED).chain(OTHERS) {
                assert!(
                    !allows(&template, action, other),
                    "{environment}: the role allows {action} on the queue {other}"
                );
            }
        }
        let role = &template.function("task-processor")["Role"]["Fn::GetAtt"][0];
        let role = template.resource(role.as_str().unwrap_or_default());
        let managed = role["Properties"]["ManagedPolicyArns"].to_string();
        assert!(
            !["SQS", "AdministratorAccess", "PowerUserAccess"]
                .iter()
                .any(|name| managed.contains(name)),
            "{environment}: the role has a managed policy that covers every queue"
        );
    }
}
