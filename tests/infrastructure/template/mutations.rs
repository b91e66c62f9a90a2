//! Mutation tests of the checks: each entry of mutations.toml is a mistake in template.yaml, which
//! a check must detect.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;

use super::{checks::CHECKS, templates};

/// Sets the value at a pointer, or removes it if the new value is null.
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
fn checks_detect_every_mutation() {
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
        assert_ne!(mutant, templates, "{mistake}: the mutation changes nothing");
        let detects = |check: fn(&Value)| catch_unwind(AssertUnwindSafe(|| check(&mutant))).is_err();
        assert!(
            CHECKS.iter().any(|(_, check)| detects(*check)),
            "not detected: {mistake}"
        );
    }
}
