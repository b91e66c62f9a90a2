//! What API Gateway is answered: an IAM policy for the whole stage.
//!
//! For the whole stage, because API Gateway keeps the answer for each token and applies it to every method that is
//! called with it: one that named only this method would forbid the next.

use serde_json::{Value, json};

use crate::Identity;

/// The event names no method of an API.
#[derive(Debug, thiserror::Error)]
#[error("the event's methodArn is not the ARN of an API Gateway method")]
pub struct NotAMethodArn;

/// The stage of a method: `arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/prod` of
/// `arn:aws:execute-api:eu-central-1:123456789012:a1b2c3d4e5/prod/GET/tasks/7`. The partition, the region and the
/// account are as they are given: `aws-cn`, `aws-us-gov`, or what an emulator makes up.
pub fn stage(method_arn: &str) -> Result<&str, NotAMethodArn> {
    let mut parts = method_arn.splitn(6, ':');
    let mut part = || parts.next().ok_or(NotAMethodArn);
    let (arn, partition, service, _region, _account, resource) = (part()?, part()?, part()?, part()?, part()?, part()?);
    let mut names = resource.splitn(3, '/');
    let (Some(api), Some(name), Some(method)) = (names.next(), names.next(), names.next()) else {
        return Err(NotAMethodArn);
    };
    let stage = &method_arn[..method_arn.len() - method.len() - 1];
    // What follows the stage is the client's. A wildcard before it would reach other stages.
    let is_valid = arn == "arn"
        && partition.starts_with("aws")
        && service == "execute-api"
        && !api.is_empty()
        && !name.is_empty()
        && !method.is_empty()
        && !stage.contains(['*', '?']);
    if is_valid { Ok(stage) } else { Err(NotAMethodArn) }
}

/// The answer: an admin may call everything in the stage, others everything but what is for admins.
///
/// `*` matches slashes, too, so the `Deny` covers more than it must (`GET /tasks/admin/process`), never less. It is
/// not the only guard: the functions behind `/admin` look at `admin` in the context themselves.
pub fn answer(stage: &str, identity: &Identity) -> Value {
    let statement =
        |effect, resources| json!({ "Effect": effect, "Action": "execute-api:Invoke", "Resource": resources });
    let mut statements = vec![statement("Allow", vec![format!("{stage}/*")])];
    if !identity.is_admin {
        let for_admins = vec![format!("{stage}/*/admin"), format!("{stage}/*/admin/*")];
        statements.push(statement("Deny", for_admins));
    }
    json!({
        "principalId": identity.subject,
        "policyDocument": { "Version": "2012-10-17", "Statement": statements },
        // What the functions find in `requestContext.authorizer`. API Gateway passes on strings only.
        "context": {
            "sub": identity.subject,
            "scope": identity.scopes.join(" "),
            "admin": identity.is_admin.to_string(),
        },
    })
}
