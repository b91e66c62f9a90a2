//! Direct calls to the emulator's CloudFormation and Lambda APIs: reading what is deployed, and
//! replacing a function's code. The SAM CLI takes seconds for either.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use roxmltree::{Document, Node};
use serde_json::{Value, json};
use ureq::Agent;

use crate::tools::process;

/// The region of the local stack.
pub const REGION: &str = "us-east-1";

/// The alias that template.yaml publishes: `AutoPublishAlias`.
const ALIAS: &str = "live";

/// A client of the emulator.
pub struct Aws {
    url: String,
    agent: Agent,
}

/// A CloudFormation stack.
pub struct CloudFormationStack {
    /// Such as `UPDATE_COMPLETE`
    pub status: String,
    /// The time of the last deployment.
    pub updated: String,
    /// The `Outputs` of template.yaml
    pub outputs: BTreeMap<String, String>,
    /// The names of its Lambda functions, by logical id in template.yaml
    pub functions: BTreeMap<String, String>,
}

impl CloudFormationStack {
    /// True if the last deployment succeeded.
    pub fn is_complete(&self) -> bool {
        matches!(self.status.as_str(), "CREATE_COMPLETE" | "UPDATE_COMPLETE")
    }
}

impl Aws {
    /// The emulator at this URL.
    pub fn new(url: String) -> Self {
        let config = Agent::config_builder()
            // LocalStack loads each service at its first call: 40 s on a busy machine.
            .timeout_global(Some(Duration::from_secs(120)))
            .http_status_as_error(false)
            .build();
        Self {
            url,
            agent: config.into(),
        }
    }

    /// The stack of this name, if it exists (AWS CloudFormation API Reference, `DescribeStacks` and
    /// `DescribeStackResources`).
    pub fn stack(&self, name: &str) -> Result<Option<CloudFormationStack>> {
        let (status, stacks) = self.cloudformation("DescribeStacks", name)?;
        if status == 400 && stacks.contains("does not exist") {
            return Ok(None);
        }
        ensure!(status == 200, "DescribeStacks failed: {status} {stacks}");
        let (status, resources) = self.cloudformation("DescribeStackResources", name)?;
        ensure!(status == 200, "DescribeStackResources failed: {status} {resources}");
        parse_stack(&stacks, &resources).map(Some)
    }

    /// Deletes the stack of this name and waits until it is gone.
    pub fn delete_stack(&self, name: &str, at_most: Duration) -> Result<()> {
        let (status, response) = self.cloudformation("DeleteStack", name)?;
        ensure!(status == 200, "DeleteStack failed: {status} {response}");
        let is_gone = || match self.stack(name) {
            Ok(Some(there)) => there.status == "DELETE_COMPLETE",
            Ok(None) => true,
            Err(_) => false,
        };
        process::wait_until(at_most, is_gone).with_context(|| format!("the stack {name} was not deleted"))
    }

    /// Lambda's digest of the code that a function's callers get; none if the function does not
    /// exist.
    pub fn code(&self, function: &str) -> Result<Option<String>> {
        // A function without the alias serves $LATEST.
        for qualifier in ["?Qualifier=live", ""] {
            let path = format!("/2015-03-31/functions/{function}/configuration{qualifier}");
            let (status, configuration) = self.lambda("GET", &path, String::new())?;
            match status {
                200 => return Ok(configuration["CodeSha256"].as_str().map(str::to_owned)),
                404 => {}
                status => bail!("GetFunctionConfiguration of {function} failed: {status} {configuration}"),
            }
        }
        Ok(None)
    }

    /// A function's environment variables, as template.yaml sets them.
    pub fn variables(&self, function: &str) -> Result<BTreeMap<String, String>> {
        let path = format!("/2015-03-31/functions/{function}/configuration");
        let (status, mut configuration) = self.lambda("GET", &path, String::new())?;
        ensure!(
            status == 200,
            "GetFunctionConfiguration of {function} failed: {status} {configuration}"
        );
        Ok(serde_json::from_value(
            configuration["Environment"]["Variables"].take(),
        )?)
    }

    /// Replaces a function's code by this zip file, as `sam sync --code` does: publishes a version
    /// and moves the alias to it. Returns Lambda's digest of the code.
    pub fn replace_code(&self, function: &str, zip: &[u8]) -> Result<String> {
        let functions = "/2015-03-31/functions";
        let alias = format!("{functions}/{function}/aliases/{ALIAS}");
        let has_alias = match self.lambda("GET", &alias, String::new())? {
            (200, _) => true,
            (404, _) => false,
            (status, response) => bail!("GetAlias of {function} failed: {status} {response}"),
        };
        // As text: a JSON library would escape-check millions of characters.
        let code = format!(
            r#"{{"ZipFile":"{}","Publish":{has_alias}}}"#,
            BASE64_STANDARD.encode(zip)
        );
        let (status, updated) = self.lambda("PUT", &format!("{functions}/{function}/code"), code)?;
        ensure!(
            status == 200,
            "UpdateFunctionCode of {function} failed: {status} {updated}"
        );
        if has_alias {
            let version = json!({"FunctionVersion": updated["Version"]}).to_string();
            let (status, response) = self.lambda("PUT", &alias, version)?;
            ensure!(status == 200, "UpdateAlias of {function} failed: {status} {response}");
        }
        process::wait_until(Duration::from_secs(30), || {
            self.lambda("GET", &format!("{functions}/{function}/configuration"), String::new())
                .is_ok_and(|(_, configuration)| configuration["LastUpdateStatus"] != "InProgress")
        })
        .with_context(|| format!("the new code of {function} did not become active"))?;
        let digest = updated["CodeSha256"].as_str();
        digest
            .map(str::to_owned)
            .context("the response of UpdateFunctionCode has no CodeSha256")
    }

    fn cloudformation(&self, action: &str, stack: &str) -> Result<(u16, String)> {
        let request = self
            .agent
            .post(&self.url)
            .header("authorization", credentials("cloudformation"));
        let form = [("Action", action), ("Version", "2010-05-15"), ("StackName", stack)];
        let mut response = request.send_form(form).with_context(|| self.unreachable())?;
        Ok((response.status().as_u16(), response.body_mut().read_to_string()?))
    }

    fn lambda(&self, method: &str, path: &str, body: String) -> Result<(u16, Value)> {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", credentials("lambda"))
            .header("content-type", "application/json")
            .body(body)?;
        let mut response = self.agent.run(request).with_context(|| self.unreachable())?;
        let text = response.body_mut().read_to_string()?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok((response.status().as_u16(), body))
    }

    fn unreachable(&self) -> String {
        format!("the emulator does not respond on {}; start it: make up", self.url)
    }
}

/// The part of a request's signature that emulators read: account, region and service. They do not
/// verify it.
fn credentials(service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=local/20260101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=0"
    )
}

fn parse_stack(stacks: &str, resources: &str) -> Result<CloudFormationStack> {
    let stacks = Document::parse(stacks).context("DescribeStacks returned malformed XML")?;
    let resources = Document::parse(resources).context("DescribeStackResources returned malformed XML")?;
    let root = stacks.root();
    Ok(CloudFormationStack {
        status: text(root, "StackStatus").context("DescribeStacks returned no StackStatus")?,
        updated: text(root, "LastUpdatedTime")
            .or_else(|| text(root, "CreationTime"))
            .unwrap_or_default(),
        outputs: members(root, "Outputs")
            .filter_map(|output| Some((text(output, "OutputKey")?, text(output, "OutputValue")?)))
            .collect(),
        functions: members(resources.root(), "StackResources")
            .filter(|resource| text(*resource, "ResourceType").as_deref() == Some("AWS::Lambda::Function"))
            .filter_map(|resource| {
                Some((
                    text(resource, "LogicalResourceId")?,
                    text(resource, "PhysicalResourceId")?,
                ))
            })
            .collect(),
    })
}

fn text(node: Node, name: &str) -> Option<String> {
    let found = node.descendants().find(|node| node.has_tag_name(name))?;
    found.text().map(str::to_owned)
}

fn members<'a>(node: Node<'a, 'a>, list: &str) -> impl Iterator<Item = Node<'a, 'a>> {
    let list = node.descendants().find(|node| node.has_tag_name(list));
    list.into_iter()
        .flat_map(|list| list.children().filter(Node::is_element))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stack_is_parsed_from_cloudformation_xml() {
        let stacks = r#"<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><DescribeStacksResult>
            <Stacks><member><StackName>task-api</StackName><StackStatus>UPDATE_COMPLETE</StackStatus>
            <CreationTime>2026-01-01T00:00:00Z</CreationTime><LastUpdatedTime>2026-01-02T00:00:00Z</LastUpdatedTime><Outputs>
            <member><OutputKey>ApiId</OutputKey><OutputValue>1a2b</OutputValue><Description>d</Description></member>
            <member><OutputKey>Url</OutputKey><OutputValue>http://a/?b&amp;c</OutputValue></member>
            </Outputs></member></Stacks></DescribeStacksResult></DescribeStacksResponse>"#;
        let resources = r#"<DescribeStackResourcesResponse><DescribeStackResourcesResult><StackResources>
            <member><LogicalResourceId>TaskQueue</LogicalResourceId><PhysicalResourceId>http://q</PhysicalResourceId>
            <ResourceType>AWS::SQS::Queue</ResourceType></member>
            <member><LogicalResourceId>GetTaskFunction</LogicalResourceId><PhysicalResourceId>task-api-GetTaskFunction-1</PhysicalResourceId>
            <ResourceType>AWS::Lambda::Function</ResourceType></member>
            </StackResources></DescribeStackResourcesResult></DescribeStackResourcesResponse>"#;
        let stack = parse_stack(stacks, resources).expect("a stack");
        assert!(stack.is_complete());
        assert_eq!(stack.updated, "2026-01-02T00:00:00Z");
        assert_eq!(stack.outputs["ApiId"], "1a2b");
        assert_eq!(stack.outputs["Url"], "http://a/?b&c");
        assert_eq!(stack.functions.len(), 1);
        assert_eq!(stack.functions["GetTaskFunction"], "task-api-GetTaskFunction-1");
    }
}
