//! Whether another account may send to the task queue. The emulator does not enforce the policies of
//! queues, so the sender of an incident does.

use anyhow::Result;
use serde_json::Value;

use super::live::Live;

/// Who may send to the task queue.
#[derive(Debug, PartialEq, Eq)]
pub enum Senders {
    /// The other account.
    Other,
    /// Only the account that owns the queue.
    Owner,
    /// None: the owner is denied as well.
    None,
}

impl Senders {
    /// Those that the policy lets send, of this account and the owner.
    pub fn of(live: &Live, account: &str) -> Result<Self> {
        let attributes = live.attributes(&live.queue)?;
        let owner = live.queue.rsplit('/').nth(1).unwrap_or_default();
        Ok(Self::by(
            attributes["Policy"].as_str().unwrap_or_default(),
            account,
            owner,
        ))
    }

    /// A statement has to allow another account's requests, and none may deny them ("Cross-account
    /// policy evaluation logic", AWS IAM). Conditions are taken to be true for it, and false for the
    /// owner.
    fn by(policy: &str, account: &str, owner: &str) -> Self {
        let policy: Value = serde_json::from_str(policy).unwrap_or_default();
        let statements = each(&policy["Statement"]);
        let has = |effect: &str, account: &str| {
            let mut statements = statements.iter().filter(|statement| statement["Effect"] == effect);
            statements.any(|statement| {
                let applies = account != owner || statement.get("Condition").is_none();
                applies && is_about(statement, account)
            })
        };
        match (has("Deny", owner), has("Allow", account) && !has("Deny", account)) {
            (true, _) => Self::None,
            (false, true) => Self::Other,
            (false, false) => Self::Owner,
        }
    }
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
        let senders = |statements: Value| {
            let policy = json!({"Statement": statements}).to_string();
            Senders::by(&policy, "222222222222", "000000000000")
        };
        let allowed = statement(
            "Allow",
            json!({"AWS": "arn:aws:iam::222222222222:role/import"}),
            json!("sqs:SendMessage"),
        );
        assert_eq!(senders(allowed.clone()), Senders::Other);
        for (principal, action) in [
            (json!({"AWS": "222222222222"}), json!("SQS:*")),
            (
                json!({"AWS": ["111111111111", "222222222222"]}),
                json!(["sqs:ReceiveMessage", "sqs:Send*"]),
            ),
        ] {
            let denied = statement("Deny", principal.clone(), action.clone());
            assert_eq!(senders(json!([statement("Allow", principal, action)])), Senders::Other);
            assert_eq!(senders(json!([allowed, denied])), Senders::Owner, "{denied}");
        }
        for (principal, action) in [
            (json!({"AWS": "111111111111"}), json!("sqs:*")),
            (json!("*"), json!("sqs:ReceiveMessage")),
        ] {
            let other = statement("Deny", principal.clone(), action.clone());
            assert_eq!(senders(json!([statement("Allow", principal, action)])), Senders::Owner);
            assert_eq!(senders(json!([allowed, other])), Senders::Other, "{other}");
        }
        let but_owner =
            json!({"Effect": "Deny", "NotPrincipal": {"AWS": "000000000000"}, "NotAction": "sqs:ReceiveMessage"});
        assert_eq!(senders(json!([allowed, but_owner])), Senders::Owner);
        for without in [json!([]), json!(null)] {
            assert_eq!(senders(without), Senders::Owner);
        }
    }

    #[test]
    fn denial_of_everyone_includes_the_owner() {
        let senders = |statement: Value| {
            let policy = json!({"Statement": [statement]}).to_string();
            Senders::by(&policy, "222222222222", "000000000000")
        };
        let mut denied = json!({"Effect": "Deny", "Principal": "*", "Action": "sqs:*"});
        assert_eq!(senders(denied.clone()), Senders::None);
        denied["Condition"] = json!({"StringNotEquals": {"aws:PrincipalAccount": "000000000000"}});
        assert_eq!(senders(denied), Senders::Owner);
    }
}
