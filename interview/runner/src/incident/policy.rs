//! Whether another account may send to the task queue. The emulator does not enforce the policies of
//! queues, so the sender of an incident does.

use anyhow::Result;
use serde_json::Value;

use super::live::Live;

/// True if the task queue's policy lets this account send.
pub fn lets_send(live: &Live, account: &str) -> Result<bool> {
    let attributes = live.attributes(&live.queue)?;
    Ok(allows(attributes["Policy"].as_str().unwrap_or_default(), account))
}

/// As another account's requests are evaluated: a statement has to allow, and none may deny ("Cross-account
/// policy evaluation logic", AWS IAM). Conditions are taken to be true.
fn allows(policy: &str, account: &str) -> bool {
    let policy: Value = serde_json::from_str(policy).unwrap_or_default();
    let has = |effect: &str| {
        let mut statements = each(&policy["Statement"]).into_iter();
        statements.any(|statement| statement["Effect"] == effect && is_about(statement, account))
    };
    has("Allow") && !has("Deny")
}

/// True if a statement is about the sending of this account.
fn is_about(statement: &Value, account: &str) -> bool {
    let is_account = |principals: &Value| {
        let principals = principals.get("AWS").unwrap_or(principals);
        let mut names = each(principals).into_iter().filter_map(Value::as_str);
        names.any(|name| name == "*" || name.contains(account))
    };
    let is_send = |actions: &Value| {
        let mut patterns = each(actions).into_iter().filter_map(Value::as_str);
        patterns.any(|pattern| {
            let (pattern, action) = (pattern.to_lowercase(), "sqs:sendmessage");
            match pattern.strip_suffix('*') {
                Some(prefix) => action.starts_with(prefix),
                None => action == pattern,
            }
        })
    };
    let principal = match statement.get("NotPrincipal") {
        Some(others) => !is_account(others),
        None => is_account(&statement["Principal"]),
    };
    let action = match statement.get("NotAction") {
        Some(others) => !is_send(others),
        None => is_send(&statement["Action"]),
    };
    principal && action
}

/// The elements of a list; something else is a list of one.
fn each(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(values) => values.iter().collect(),
        Value::Null => Vec::new(),
        one => vec![one],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn another_account_needs_a_permission_and_no_denial() {
        let statement = |effect: &str, principal: Value, action: Value| json!({"Effect": effect, "Principal": principal, "Action": action});
        let may = |statements: Value| allows(&json!({"Statement": statements}).to_string(), "222222222222");
        let allowed = statement(
            "Allow",
            json!({"AWS": "arn:aws:iam::222222222222:role/import"}),
            json!("sqs:SendMessage"),
        );
        assert!(may(allowed.clone()) && may(json!([allowed])));
        for (principal, action) in [
            (json!("*"), json!("SQS:*")),
            (
                json!({"AWS": ["111111111111", "222222222222"]}),
                json!(["sqs:ReceiveMessage", "sqs:Send*"]),
            ),
        ] {
            let denied = statement("Deny", principal.clone(), action.clone());
            assert!(may(json!([statement("Allow", principal, action)])));
            assert!(!may(json!([allowed, denied])), "{denied}");
        }
        for (principal, action) in [
            (json!({"AWS": "111111111111"}), json!("sqs:*")),
            (json!("*"), json!("sqs:ReceiveMessage")),
        ] {
            let other = statement("Deny", principal.clone(), action.clone());
            assert!(!may(json!([statement("Allow", principal, action)])));
            assert!(may(json!([allowed, other])), "{other}");
        }
        let all_others =
            json!({"Effect": "Deny", "NotPrincipal": {"AWS": "111111111111"}, "NotAction": "sqs:ReceiveMessage"});
        assert!(!may(json!([allowed, all_others])));
        assert!(!may(json!([])) && !allows("", "222222222222"));
    }
}
