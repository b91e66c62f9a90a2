//! Would the checks notice? Each mutation of mutations.toml is a mistake that somebody could make in template.yaml.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;

use super::{checks::CHECKS, templates};

/// Puts the value there, or removes what is there.
fn mutate(templates: &mut Value, pointer: &str, value: &Value) {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = templates.pointer_mut(parent);
    let parent = parent.unwrap_or_else(|| panic!("nothing is at {pointer}"));
    let name = name.replace("~1", "/").replace("~0", "~");
    match (parent, value) {
        (Value::Array(list), Value::Null) => {
            list.remove(name.parse().expect("an index"));
        }
        (Value::Object(members), Value::Null) => {
            let removed = members.remove(&name);
            removed.unwrap_or_else(|| panic!("nothing is at {pointer}"));
        }
        (Value::Array(list), value) => list[name.parse::<usize>().expect("an index")] = value.clone(),
        (parent, value) => parent[name.as_str()] = value.clone(),
    }
}

#[test]
fn checks_notice_every_mutation() {
    let templates = templates();
    let groups: Value = toml::from_str(include_str!("mutations.toml")).expect("TOML");
    let groups = groups.as_object().expect("groups").values();
    let mutations = groups.flat_map(|group| group.as_object().expect("mutations"));
    for (mistake, mutation) in mutations {
        let mut mutant = templates.clone();
        mutate(
            &mut mutant,
            mutation["at"].as_str().expect("a pointer"),
            &mutation["value"],
        );
        assert_ne!(mutant, templates, "{mistake}: nothing has changed");
        let notices = |check: fn(&Value)| catch_unwind(AssertUnwindSafe(|| check(&mutant))).is_err();
        assert!(
            CHECKS.iter().any(|(_, check)| notices(*check)),
            "not noticed: {mistake}"
        );
    }
}
