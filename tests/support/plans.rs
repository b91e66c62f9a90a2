//! The functions' SQL statements and their query plans.

use std::{fs, io, iter};

use serde_json::Value;

/// The text and the number of arguments of each statement in `.sqlx`.
pub fn statements() -> Vec<(String, usize)> {
    let statement = |entry: io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("text");
        let statement: Value = serde_json::from_str(&text).expect("JSON");
        let query = statement["query"].as_str().expect("a query").to_owned();
        let arguments = statement["describe"]["parameters"]["Left"].as_array().expect("types");
        (query, arguments.len())
    };
    fs::read_dir("../.sqlx").expect(".sqlx").map(statement).collect()
}

/// All nodes of a plan from `explain (format json)`.
pub fn plan_nodes(plan: &Value) -> Vec<&Value> {
    let below = plan["Plans"].as_array().into_iter().flatten().flat_map(plan_nodes);
    iter::once(plan).chain(below).collect()
}
