//! The response to API Gateway: an IAM policy for the whole stage.
//!
//! API Gateway caches the policy per token and applies it to every method that is called with the
//! token. A policy for a single method would deny the others.

use serde_json::{Value, json};

use crate::Identity;

/// The event contains no method of an API.
#[derive(Debug, thiserror::Error)]
#[error("the event's methodArn is not the ARN of an API Gateway method")]
pub struct NotAMethodArn;

/// The stage of a method: `arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/prod` of
/// `arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/prod/GET/tasks/7`. The partition,
/// region and account are taken as given: `aws-cn`, `aws-us-gov`, or the values of an emulator.
pub fn stage(method_arn: &str) -> Result<&str, NotAMethodArn> {
    let mut parts = method_arn.splitn(6, ':');
    let mut part = || parts.next().ok_or(NotAMethodArn);
    let (arn, partition, service, _region, _account, resource) = (part()?, part()?, part()?, part()?, part()?, part()?);
    let mut names = resource.splitn(3, '/');
    let (Some(api), Some(name), Some(method)) = (names.next(), names.next(), names.next()) else {
        return Err(NotAMethodArn);
    };
    let stage = &method_arn[..method_arn.len() - method.len() - 1];
    // The part after the stage is controlled by the client. A wildcard in the stage would match
    // other stages.
    let is_valid = arn == "arn"
        && partition.starts_with("aws")
        && service == "execute-api"
        && !api.is_empty()
        && !name.is_empty()
        && !method.is_empty()
        && !stage.contains(['*', '?']);
    if is_valid { Ok(stage) } else { Err(NotAMethodArn) }
}

/// Admins may call everything in the stage, viewers may read everything, other callers may call
/// everything except `/admin`.
///
/// `*` also matches slashes, so the `Deny` covers more than necessary (`GET /tasks/admin/process`),
/// never less. It is not the only check: the functions check `admin` and `viewer` in the context
/// themselves.
pub fn response(stage: &str, identity: &Identity) -> Value {
    let statement =
        |effect, resources| json!({ "Effect": effect, "Action": "execute-api:Invoke", "Resource": resources });
    let allowed = match identity.is_viewer {
        true => vec![format!("{stage}/GET/*"), format!("{stage}/HEAD/*")],
        false => vec![format!("{stage}/*")],
    };
    let mut statements = vec![statement("Allow", allowed)];
    if !identity.is_admin && !identity.is_viewer {
        let admin_routes = vec![format!("{stage}/*/admin"), format!("{stage}/*/admin/*")];
        statements.push(statement("Deny", admin_routes));
    }
    json!({
        // Only for the access log, into whose lines API Gateway inserts it without escaping.
        "principalId": without_json_syntax(&identity.subject),
        "policyDocument": { "Version": "2012-10-17", "Statement": statements },
        // The functions find it in `requestContext.authorizer`. API Gateway passes only strings.
        "context": {
            "sub": identity.subject,
            "scope": identity.scopes.join(" "),
            "admin": identity.is_admin.to_string(),
            "viewer": identity.is_viewer.to_string(),
        },
    })
}

/// The printable ASCII text with the characters percent-encoded that have a meaning in a JSON
/// string.
fn without_json_syntax(text: &str) -> String {
    // The percent sign as well, so that no two texts become the same.
    text.replace('%', "%25").replace('"', "%22").replace('\\', "%5C")
}
