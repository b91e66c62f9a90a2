//! template.yaml, translated for CloudFormation (dev/tools/translate.py).

use std::{collections::BTreeMap, fs};

use serde_json::Value;

use crate::env;

/// The resources of one environment, with conditions, parameters and mappings resolved.
pub struct Template(Value);

impl Template {
    /// Reads the template of the environment `local`, `sandbox` or `prod`.
    pub fn of(environment: &str) -> Self {
        let file = format!("{}/{environment}.resolved.json", env("TEMPLATES"));
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        Self(serde_json::from_str(&text).expect("JSON"))
    }

    /// A resource by its name, or null.
    pub fn resource(&self, name: &str) -> &Value {
        &self.0["Resources"][name]
    }

    /// The resources of a type, like `AWS::SQS::Queue`, by their names.
    pub fn resources(&self, kind: &str) -> BTreeMap<&str, &Value> {
        let all = self.0["Resources"].as_object().into_iter().flatten();
        let of_kind = all.filter(|(_, resource)| resource["Type"] == kind);
        of_kind.map(|(name, resource)| (name.as_str(), resource)).collect()
    }

    /// The properties of a function: `create-task` is `CreateTaskFunction`.
    pub fn function(&self, name: &str) -> &Value {
        let resource = format!("{}Function", camel_case(name));
        let function = &self.resource(&resource)["Properties"];
        assert!(function.is_object(), "template.yaml has no {resource}");
        function
    }

    /// The properties of the event source mapping from a queue to a function, or null.
    pub fn trigger(&self, queue: &str, function: &str) -> &Value {
        let function = format!("{}Function", camel_case(function));
        let mappings = self.resources("AWS::Lambda::EventSourceMapping").into_values();
        let mut properties = mappings.map(|mapping| &mapping["Properties"]);
        let trigger = properties.find(|properties| {
            let of_queue = refers_to(&properties["EventSourceArn"], queue);
            of_queue && refers_to(&properties["FunctionName"], &function)
        });
        trigger.unwrap_or(&Value::Null)
    }

    /// The variables of a function's environment, resolved with these queues. References to other
    /// resources are left out.
    pub(crate) fn variables(&self, function: &str, queues: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let variables = self.function(function)["Environment"]["Variables"].as_object();
        let resolved = variables.into_iter().flatten();
        let resolved = resolved.filter_map(|(name, value)| Some((name.clone(), resolve(value, queues)?)));
        resolved.collect()
    }
}

/// "create-task" -> "CreateTask"
fn camel_case(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let (first, rest) = word.split_at_checked(1).unwrap_or_default();
        first.to_uppercase() + rest
    });
    words.collect()
}

/// True if the expression mentions this resource: as a reference, an attribute, or in text.
fn refers_to(expression: &Value, resource: &str) -> bool {
    match expression {
        Value::Array(parts) => parts.iter().any(|part| refers_to(part, resource)),
        Value::Object(parts) => parts.values().any(|part| refers_to(part, resource)),
        // "Name", "Name.Arn", "${Name}:live", and SAM's own alias of a function, "NameAliaslive".
        Value::String(text) => text
            .split(|letter: char| !letter.is_alphanumeric())
            .any(|word| word == resource || word.strip_suffix("Aliaslive") == Some(resource)),
        _ => false,
    }
}

/// The expression's value as text, if it is a literal or refers to a queue.
fn resolve(expression: &Value, queues: &BTreeMap<String, String>) -> Option<String> {
    match expression {
        Value::String(text) => return Some(text.clone()),
        Value::Number(number) => return Some(number.to_string()),
        Value::Bool(flag) => return Some(flag.to_string()),
        _ => {}
    }
    if let Some(name) = expression["Ref"].as_str() {
        return queues.get(name).cloned();
    }
    let of = &expression["Fn::GetAtt"];
    let (name, attribute) = match of.as_str() {
        Some(text) => text.split_once('.')?,
        None => (of[0].as_str()?, of[1].as_str()?),
    };
    let url = queues.get(name)?;
    match attribute {
        "QueueUrl" => Some(url.clone()),
        "QueueName" => url.rsplit('/').next().map(str::to_owned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_literals_or_queues_only() {
        let template = Template(
            json!({"Resources": {"CreateTaskFunction": {"Properties": {"Environment": {"Variables": {
                "TEXT": "5",
                "NUMBER": 5,
                "QUEUE_URL": {"Ref": "TaskQueue"},
                "QUEUE_NAME": {"Fn::GetAtt": ["TaskQueue", "QueueName"]},
                "TABLE": {"Ref": "Table"},
            }}}}}}),
        );
        let queues = BTreeMap::from([("TaskQueue".to_owned(), "http://sqs/000/tasks-1".to_owned())]);
        let expected = [
            ("NUMBER", "5"),
            ("QUEUE_NAME", "tasks-1"),
            ("QUEUE_URL", "http://sqs/000/tasks-1"),
            ("TEXT", "5"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(template.variables("create-task", &queues), BTreeMap::from(expected));
    }

    #[test]
    fn trigger_is_found_by_any_form_of_function_reference() {
        for function in [
            json!({"Fn::Sub": "${TaskProcessorFunction}:live"}),
            json!({"Ref": "TaskProcessorFunctionAliaslive"}),
            json!({"Fn::GetAtt": ["TaskProcessorFunction", "Arn"]}),
        ] {
            let properties = json!({"EventSourceArn": {"Fn::GetAtt": ["TaskQueue", "Arn"]}, "FunctionName": function, "BatchSize": 7});
            let mapping = json!({"Type": "AWS::Lambda::EventSourceMapping", "Properties": properties});
            let template = Template(json!({"Resources": {"Mapping": mapping}}));
            assert_eq!(template.trigger("TaskQueue", "task-processor")["BatchSize"], 7);
            assert_eq!(template.trigger("TaskQueue", "processor"), &Value::Null);
            assert_eq!(template.trigger("Task", "task-processor"), &Value::Null);
        }
    }
}
