//! Would the checks notice? Each mutation is a mistake that somebody could make in template.yaml.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value, json};

use super::{checks::CHECKS, templates};

/// A mistake: what it is called, where it is (a JSON pointer into [`templates`]), and what stands there then. Null: nothing.
type Mistake = (&'static str, String, Value);

/// What people get wrong, in the environment where it would hurt.
fn mistakes() -> Vec<Mistake> {
    let mistakes = [
        queues(),
        permissions(),
        api(),
        functions(),
        network(),
        database(),
        operation(),
    ];
    mistakes.into_iter().flatten().collect()
}

fn at(environment: &str, resource: &str, rest: &str) -> String {
    format!("/{environment}/Resources/{resource}{rest}")
}

fn property(environment: &str, resource: &str, rest: &str) -> String {
    at(environment, resource, &format!("/Properties/{rest}"))
}

fn variable(environment: &str, function: &str, name: &str) -> String {
    property(environment, function, &format!("Environment/Variables/{name}"))
}

fn queues() -> Vec<Mistake> {
    let mapping = "TaskQueueEventSourceMapping";
    vec![
        (
            "the task queue has no dead-letter queue",
            property("prod", "TaskQueue", "RedrivePolicy"),
            Value::Null,
        ),
        (
            "a poison message comes back 50 times",
            property("prod", "TaskQueue", "RedrivePolicy/maxReceiveCount"),
            json!(50),
        ),
        (
            "a queue is not encrypted",
            property("sandbox", "TaskDeadLetterQueue", "SqsManagedSseEnabled"),
            json!(false),
        ),
        (
            "any queue may use this dead-letter queue",
            property("prod", "TaskDeadLetterQueue", "RedriveAllowPolicy"),
            Value::Null,
        ),
        (
            "a queue may be used without TLS",
            property("prod", "QueuePolicy", "Queues/1"),
            Value::Null,
        ),
        (
            "the policy for TLS allows",
            property("prod", "QueuePolicy", "PolicyDocument/Statement/Effect"),
            json!("Allow"),
        ),
        (
            "messages come back while they are worked on",
            property("sandbox", "TaskQueue", "VisibilityTimeout"),
            json!(60),
        ),
        (
            "the last retry comes after the visibility",
            variable("prod", "TaskProcessorFunction", "RETRY_DELAY_SECONDS"),
            json!("60"),
        ),
        (
            "what waits is taken for lost",
            variable("sandbox", "TaskReconcilerFunction", "LOST_AFTER_SECONDS"),
            json!("60"),
        ),
        (
            "one failure brings the whole batch back",
            property("prod", mapping, "FunctionResponseTypes"),
            Value::Null,
        ),
        (
            "the processor takes every connection",
            property("prod", mapping, "ScalingConfig"),
            Value::Null,
        ),
        (
            "more processors than the database bears",
            property("prod", mapping, "ScalingConfig/MaximumConcurrency"),
            json!(1000),
        ),
        (
            "messages do not go to the version that is live",
            property("prod", mapping, "FunctionName"),
            json!({"Ref": "TaskProcessorFunction"}),
        ),
        (
            "throttled receives fill the dead-letter queue",
            property("prod", "TaskProcessorFunction", "ReservedConcurrentExecutions"),
            json!(5),
        ),
    ]
}

fn permissions() -> Vec<Mistake> {
    let statement = |rest: &str| {
        property(
            "prod",
            "CreateTaskFunctionRole",
            &format!("Policies/0/PolicyDocument/Statement/{rest}"),
        )
    };
    let send = json!([{"PolicyDocument": {"Statement": {
        "Effect": "Allow", "Action": "sqs:SendMessage", "Resource": {"Fn::GetAtt": ["TaskQueue", "Arn"]}}}}]);
    vec![
        ("create-task may send to every queue", statement("Resource"), json!("*")),
        (
            "create-task may receive",
            statement("Action"),
            json!(["sqs:SendMessage", "sqs:ReceiveMessage"]),
        ),
        (
            "create-task may do everything in SQS",
            statement("Action"),
            json!("sqs:*"),
        ),
        (
            "get-task may send",
            property("prod", "GetTaskFunctionRole", "Policies"),
            send,
        ),
        (
            "a function is an administrator",
            property("prod", "GetTaskFunctionRole", "ManagedPolicyArns/0"),
            json!("arn:aws:iam::aws:policy/AdministratorAccess"),
        ),
        (
            "a function that reads may log in as writer",
            property("prod", "WriterLogin", "Roles/0"),
            json!({"Ref": "GetTaskFunctionRole"}),
        ),
        (
            "a function that reads takes the writer's role",
            variable("prod", "ListTasksFunction", "DATABASE_ROLE"),
            json!("writer"),
        ),
        (
            "a function has no role of the database",
            variable("local", "GetTaskFunction", "DATABASE_ROLE"),
            Value::Null,
        ),
        (
            "everybody may log in as the migrator",
            property("prod", "MigratorLogin", "PolicyDocument/Statement/Resource"),
            json!("*"),
        ),
    ]
}

fn api() -> Vec<Mistake> {
    let body = |environment: &str, rest: &str| property(environment, "Api", &format!("Body/{rest}"));
    let authorizer = |rest: &str| {
        body(
            "prod",
            &format!("components/securitySchemes/Jwt/x-amazon-apigateway-authorizer/{rest}"),
        )
    };
    let response = |rest: &str| body("prod", &format!("x-amazon-apigateway-gateway-responses/{rest}"));
    vec![
        (
            "everybody may create tasks",
            body("prod", "paths/~1tasks/post/security"),
            json!([{"NONE": []}]),
        ),
        (
            "a route asks nobody",
            body("prod", "paths/~1tasks~1{id}/delete/security"),
            Value::Null,
        ),
        (
            "a route leads to a function that is not gradual",
            body("prod", "paths/~1tasks/get/x-amazon-apigateway-integration/uri"),
            json!({"Fn::Sub": "${ListTasksFunction.Arn}/invocations"}),
        ),
        (
            "requests without a token reach the authorizer",
            authorizer("authorizerResultTtlInSeconds"),
            json!(0),
        ),
        (
            "a decision is kept for a header that everybody can choose",
            authorizer("identitySource"),
            json!("method.request.header.Host"),
        ),
        (
            "another issuer is not obeyed at once",
            authorizer("authorizerUri"),
            json!({"Fn::Sub": "${AuthorizerFunctionAliaslive}"}),
        ),
        (
            "API Gateway's 401 is not JSON",
            response("UNAUTHORIZED/responseTemplates/application~1json"),
            json!("{\"type\":}"),
        ),
        ("API Gateway's 500 is its own", response("DEFAULT_5XX"), Value::Null),
        (
            "an answer of API Gateway is not a problem",
            response("THROTTLED/responseParameters/gatewayresponse.header.Content-Type"),
            Value::Null,
        ),
        (
            "the cloud may be open",
            "/translated/Rules/OnlyALocalStackIsOpen".to_owned(),
            Value::Null,
        ),
        (
            "a laptop's key signs for the cloud",
            "/translated/Rules/OnlyALocalStackIsOpen/Assertions/3".to_owned(),
            Value::Null,
        ),
        (
            "tokens for others are valid here",
            "/translated/Rules/OnlyALocalStackIsOpen/Assertions/2".to_owned(),
            Value::Null,
        ),
        (
            "whoever says open is open",
            "/translated/Conditions/IsOpen".to_owned(),
            json!({"Fn::Equals": [{"Ref": "Auth"}, "open"]}),
        ),
        (
            "the API is open unless somebody closes it",
            "/translated/Parameters/Auth/Default".to_owned(),
            json!("open"),
        ),
        (
            "there is a second stage",
            at("prod", "SecondStage", ""),
            json!({"Type": "AWS::ApiGateway::Stage", "Properties": {"StageName": "Stage"}}),
        ),
        (
            "the API takes any load",
            property("prod", "ApiStage", "MethodSettings"),
            Value::Null,
        ),
        (
            "more requests than the database bears",
            property("prod", "ApiStage", "MethodSettings/0/ThrottlingBurstLimit"),
            json!(2000),
        ),
        (
            "the access log is not JSON",
            property("prod", "ApiStage", "AccessLogSetting/Format"),
            json!("{\"requestId\":$context.requestId}"),
        ),
        (
            "nobody logs requests",
            property("prod", "ApiStage", "AccessLogSetting"),
            Value::Null,
        ),
        (
            "traces begin behind the API",
            property("prod", "ApiStage", "TracingEnabled"),
            json!(false),
        ),
        (
            "API Gateway gives up first",
            property("prod", "AdminRedriveFunction", "Timeout"),
            json!(60),
        ),
        (
            "a function has a URL of its own",
            at("prod", "Url", ""),
            json!({"Type": "AWS::Lambda::Url", "Properties": {}}),
        ),
        (
            "every API may call a function",
            property("prod", "GetTaskFunctionGetTaskPermissionStage", "SourceArn"),
            Value::Null,
        ),
    ]
}

fn functions() -> Vec<Mistake> {
    vec![
        (
            "a function is open by itself",
            variable("prod", "GetTaskFunction", "AUTH"),
            json!("open"),
        ),
        (
            "a password may be in an environment",
            "/translated/Rules/DatabaseUrlIsForLocalOnly".to_owned(),
            Value::Null,
        ),
        (
            "a password is in an environment",
            variable("prod", "GetTaskFunction", "DATABASE_URL"),
            json!({"Fn::Sub": "postgres://u:p@${Host}/${Migrations.Database}?sslmode=verify-full"}),
        ),
        (
            "the database need not prove who it is",
            variable("prod", "GetTaskFunction", "DATABASE_URL"),
            json!({"Fn::Sub": "postgres://${Host}/${Migrations.Database}?sslmode=require"}),
        ),
        (
            "a function is updated before the schema",
            variable("prod", "GetTaskFunction", "DATABASE_URL"),
            json!({"Fn::Sub": "postgres://${Host}/tasks?sslmode=verify-full"}),
        ),
        (
            "a new migration does not run",
            property("prod", "Migrations", "Code"),
            Value::Null,
        ),
        (
            "CloudFormation gives up before the migrator",
            property("prod", "Migrations", "ServiceTimeout"),
            json!(60),
        ),
        (
            "the migrator cannot answer",
            at("prod", "Migrations", "/DependsOn"),
            json!(["DatabaseWriter", "MigratorLogin"]),
        ),
        (
            "a function is not traced",
            property("prod", "GetTaskFunction", "TracingConfig"),
            Value::Null,
        ),
        (
            "a function's logs are kept for ever",
            property("prod", "GetTaskFunction", "LoggingConfig/LogGroup"),
            Value::Null,
        ),
        (
            "logs are kept for ever",
            property("prod", "FunctionLogs", "RetentionInDays"),
            Value::Null,
        ),
    ]
}

fn network() -> Vec<Mistake> {
    vec![
        (
            "there is a way to the internet",
            at("prod", "Nat", ""),
            json!({"Type": "AWS::EC2::NatGateway", "Properties": {}}),
        ),
        (
            "a function is outside the network",
            property("prod", "GetTaskFunction", "VpcConfig"),
            Value::Null,
        ),
        (
            "the functions may call anybody",
            property("prod", "FunctionSecurityGroup", "SecurityGroupEgress/0/CidrIp"),
            json!("0.0.0.0/0"),
        ),
        (
            "a group lets everything out",
            property("prod", "DatabaseSecurityGroup", "SecurityGroupEgress"),
            Value::Null,
        ),
        (
            "the queue's endpoint lets nobody in",
            at("prod", "FunctionsToQueueIn", ""),
            Value::Null,
        ),
        (
            "out of one port and into another",
            property("prod", "FunctionsToDatabaseIn", "ToPort"),
            json!(5433),
        ),
        (
            "every bucket can be written to",
            property("prod", "AnswerEndpoint", "PolicyDocument/Statement/Resource"),
            json!("*"),
        ),
    ]
}

fn database() -> Vec<Mistake> {
    let scaling = "ServerlessV2ScalingConfiguration";
    vec![
        (
            "the database goes with the stack",
            at("prod", "Database", "/DeletionPolicy"),
            json!("Delete"),
        ),
        (
            "the database can be deleted by mistake",
            property("prod", "Database", "DeletionProtection"),
            json!(false),
        ),
        (
            "the database is not encrypted",
            property("prod", "Database", "StorageEncrypted"),
            json!(false),
        ),
        (
            "the master has a password",
            property("prod", "Database", "MasterUserPassword"),
            json!("secret"),
        ),
        (
            "anybody can reach the database",
            property("prod", "DatabaseWriter", "PubliclyAccessible"),
            json!(true),
        ),
        (
            "the functions do not trust the server's authority",
            property("prod", "DatabaseStandby", "CACertificateIdentifier"),
            json!("rds-ca-ecc384-g1"),
        ),
        (
            "the database takes connections without TLS",
            property("prod", "DatabaseParameters", "Parameters/rds.force_ssl"),
            json!("0"),
        ),
        (
            "the database is updated behind CloudFormation's back",
            property("prod", "Database", "EngineVersion"),
            json!("17"),
        ),
        (
            "the parameters are those of another version",
            property("prod", "DatabaseParameters", "Family"),
            json!("aurora-postgresql16"),
        ),
        (
            "yesterday's data is lost",
            property("prod", "Database", "BackupRetentionPeriod"),
            json!(1),
        ),
        (
            "the sandbox never sleeps",
            property("sandbox", "Database", &format!("{scaling}/MinCapacity")),
            json!(0.5),
        ),
        (
            "prod sleeps",
            property("prod", "Database", &format!("{scaling}/MinCapacity")),
            json!(0),
        ),
        (
            "a frozen function keeps the sandbox awake",
            property("sandbox", "DatabaseParameters", "Parameters/idle_session_timeout"),
            json!("0"),
        ),
        (
            "the reconciler keeps the sandbox awake",
            property("sandbox", "TaskReconcilerFunctionSchedule", "ScheduleExpression"),
            json!("rate(1 minute)"),
        ),
    ]
}

fn operation() -> Vec<Mistake> {
    vec![
        (
            "nobody hears an alarm",
            property("prod", "DeadLetterAlarm", "AlarmActions"),
            json!([]),
        ),
        ("an alarm is gone", at("prod", "QueueAgeAlarm", ""), Value::Null),
        (
            "silence is an alarm",
            property("prod", "ApiErrorsAlarm", "TreatMissingData"),
            Value::Null,
        ),
        (
            "the alarm of failing functions hears nothing",
            property("prod", "FunctionErrorsFilter", "LogGroupName"),
            json!({"Ref": "ApiLogs"}),
        ),
        (
            "a refused token takes a deployment back",
            property("prod", "FunctionErrorsFilter", "FilterPattern"),
            json!("{ $.type = \"platform.report\" && $.record.status != \"success\" }"),
        ),
        (
            "CloudWatch cannot write to the encrypted topic",
            property("prod", "AlarmKey", "KeyPolicy/Statement/1"),
            Value::Null,
        ),
        (
            "the topic is not encrypted",
            property("prod", "AlarmTopic", "KmsMasterKeyId"),
            Value::Null,
        ),
        (
            "the alarm comes when no connection is left",
            property("prod", "DatabaseConnectionsAlarm", "Threshold"),
            json!(1669),
        ),
        (
            "a function is deployed at once",
            at("prod", "GetTaskFunctionAliaslive", "/UpdatePolicy"),
            Value::Null,
        ),
        (
            "no alarm stops a deployment",
            property("prod", "GetTaskFunctionDeploymentGroup", "AlarmConfiguration"),
            Value::Null,
        ),
        (
            "a laptop gets a network",
            at("local", "Vpc", ""),
            json!({"Type": "AWS::EC2::VPC", "Properties": {}}),
        ),
        (
            "a parameter is in no group",
            "/translated/Metadata/AWS::CloudFormation::Interface/ParameterGroups/0".to_owned(),
            Value::Null,
        ),
    ]
}

/// Puts the value there, or takes away what is there.
fn mutate(templates: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = templates
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
        (Value::Array(list), value) => list[name.parse::<usize>().expect("an index")] = value,
        (parent, value) => parent[name.as_str()] = value,
    }
}

#[test]
fn every_mistake_is_noticed() {
    let templates = templates();
    for (mistake, pointer, value) in mistakes() {
        let mut mutant = templates.clone();
        mutate(&mut mutant, &pointer, value);
        assert_ne!(mutant, templates, "{mistake}: nothing has changed");
        let notices = |check: fn(&Value)| catch_unwind(AssertUnwindSafe(|| check(&mutant))).is_err();
        assert!(
            CHECKS.iter().any(|(_, check)| notices(*check)),
            "nobody notices: {mistake}"
        );
    }
}
