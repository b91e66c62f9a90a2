//! Would the checks notice? Each mutation is a mistake that somebody could make in template.yaml.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value, json};

use super::{checks::CHECKS, translated};

/// Mistakes: what each is called, where it is (a JSON pointer into the translated template), and what stands there then.
/// Null: nothing.
fn mistakes() -> Vec<(&'static str, &'static str, Value)> {
    const API: &str = "/Resources/Api/Properties/Body";
    let at = |place: &str| -> &'static str { format!("{API}{place}").leak() };
    let statement = "/Resources/CreateTaskFunctionRole/Properties/Policies/0/PolicyDocument/Statement";
    let under = |pointer: &str, rest: &str| -> &'static str { format!("{pointer}{rest}").leak() };
    let responses = "/x-amazon-apigateway-gateway-responses";
    vec![
        (
            "the task queue has no dead-letter queue",
            "/Resources/TaskQueue/Properties/RedrivePolicy",
            Value::Null,
        ),
        (
            "a poison message comes back 50 times",
            "/Resources/TaskQueue/Properties/RedrivePolicy/maxReceiveCount",
            json!(50),
        ),
        (
            "a queue is not encrypted",
            "/Resources/TaskDeadLetterQueue/Properties/SqsManagedSseEnabled",
            json!(false),
        ),
        (
            "messages come back while they are worked on",
            "/Mappings/TaskProcessor/sandbox/VisibilitySeconds",
            json!(60),
        ),
        (
            "the visibility timeout is that of another place",
            "/Resources/TaskQueue/Properties/VisibilityTimeout",
            json!(30),
        ),
        (
            "what waits is taken for lost",
            "/Mappings/TaskProcessor/sandbox/LostAfterSeconds",
            json!("60"),
        ),
        (
            "one failure brings the whole batch back",
            "/Resources/TaskQueueEventSourceMapping/Properties/FunctionResponseTypes",
            Value::Null,
        ),
        (
            "the processor takes every connection",
            "/Resources/TaskQueueEventSourceMapping/Properties/ScalingConfig",
            Value::Null,
        ),
        (
            "create-task may send to every queue",
            under(statement, "/Resource"),
            json!("*"),
        ),
        (
            "create-task may receive",
            under(statement, "/Action"),
            json!(["sqs:SendMessage", "sqs:ReceiveMessage"]),
        ),
        (
            "get-task may send",
            "/Resources/GetTaskFunctionRole/Properties/Policies",
            json!([{"PolicyDocument": {"Statement": {
            "Effect": "Allow", "Action": "sqs:SendMessage", "Resource": {"Fn::GetAtt": ["TaskQueue", "Arn"]}}}}]),
        ),
        (
            "everybody may create tasks",
            at("/paths/~1tasks/post/security"),
            json!([{"NONE": []}]),
        ),
        (
            "a route asks nobody",
            at("/paths/~1tasks~1{id}/delete/security"),
            Value::Null,
        ),
        (
            "requests without a token reach the authorizer",
            at("/securityDefinitions/Jwt/x-amazon-apigateway-authorizer/authorizerResultTtlInSeconds"),
            json!(0),
        ),
        (
            "a decision is kept for a header that everybody can choose",
            at("/securityDefinitions/Jwt/x-amazon-apigateway-authorizer/identitySource"),
            json!("method.request.header.Host"),
        ),
        (
            "a function is open by itself",
            "/Resources/GetTaskFunction/Properties/Environment/Variables/AUTH",
            json!("open"),
        ),
        ("the cloud may be open", "/Rules/OnlyALocalStackIsOpen", Value::Null),
        (
            "a laptop's key signs for the cloud",
            "/Rules/OnlyALocalStackIsOpen/Assertions/2",
            Value::Null,
        ),
        (
            "a password may be in an environment",
            "/Rules/DatabaseUrlIsForLocalOnly",
            Value::Null,
        ),
        (
            "the API is open unless somebody closes it",
            "/Parameters/Auth/Default",
            json!("open"),
        ),
        (
            "API Gateway's 401 is not JSON",
            at(&format!("{responses}/UNAUTHORIZED/responseTemplates/application~1json")),
            json!("{\"type\":}"),
        ),
        (
            "API Gateway's 500 is its own",
            at(&format!("{responses}/DEFAULT_5XX")),
            Value::Null,
        ),
        (
            "API Gateway gives up first",
            "/Resources/AdminRedriveFunction/Properties/Timeout",
            json!(60),
        ),
        (
            "a function has a URL of its own",
            "/Resources/Url",
            json!({"Type": "AWS::Lambda::Url", "Properties": {}}),
        ),
        (
            "every API may call a function",
            "/Resources/GetTaskFunctionGetTaskPermissionlocal",
            json!({
            "Type": "AWS::Lambda::Permission", "Properties": {"Principal": "*"}}),
        ),
    ]
}

/// Puts the value there, or takes away what is there.
fn mutate(template: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = template
        .pointer_mut(parent)
        .unwrap_or_else(|| panic!("nothing is at {pointer}"));
    let name = name.replace("~1", "/").replace("~0", "~");
    match (parent, value) {
        (Value::Array(list), Value::Null) => {
            list.remove(name.parse().expect("an index"));
        }
        (Value::Object(members), Value::Null) => {
            members
                .remove(&name)
                .unwrap_or_else(|| panic!("nothing is at {pointer}"));
        }
        (parent, value) => parent[name.as_str()] = value,
    }
}

#[test]
fn every_mistake_is_noticed() {
    let template = translated();
    for (mistake, pointer, value) in mistakes() {
        let mut mutant = template.clone();
        mutate(&mut mutant, pointer, value);
        assert_ne!(mutant, template, "{mistake}: nothing has changed");
        let notices = |check: fn(&Value)| catch_unwind(AssertUnwindSafe(|| check(&mutant))).is_err();
        assert!(
            CHECKS.iter().any(|(_, check)| notices(*check)),
            "nobody notices: {mistake}"
        );
    }
}
