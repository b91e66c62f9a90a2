//! .sqlx, against which a build without a database checks every statement, matches the schema of
//! migrations/.

use std::fs;

use serde_json::{Value, json};
use sqlx::{Column, Either, Executor, PgPool, TypeInfo};

/// The Postgres name of a type in .sqlx: `Int8Array` is `int8[]`, and a type that a migration has
/// created is an object with a name.
fn name_of(described: &Value) -> Value {
    let name = described.pointer("/Custom/name").unwrap_or(described);
    let name = name.as_str().expect("a name");
    match name.strip_suffix("Array") {
        Some(element) => json!(format!("{element}[]")),
        None => json!(name),
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn sqlx_metadata_matches_postgres(pool: PgPool) {
    let files = fs::read_dir("../.sqlx").expect(".sqlx");
    let mut statements = 0;
    for file in files {
        let text = fs::read_to_string(file.expect("an entry").path()).expect("text");
        let committed: Value = serde_json::from_str(&text).expect("JSON");
        let query = committed["query"].as_str().expect("a statement");
        let described = pool
            .describe(query)
            .await
            .unwrap_or_else(|error| panic!("{query}\n{error}"));

        let nullable = |column| described.nullable(column);
        let columns = described
            .columns()
            .iter()
            .enumerate()
            .map(|(ordinal, column)| json!([column.name(), column.type_info().name(), nullable(ordinal)]));
        let expected = committed["describe"]["columns"]
            .as_array()
            .expect("columns")
            .iter()
            .enumerate();
        let expected = expected.map(|(ordinal, column)| {
            let nullable = &committed["describe"]["nullable"][ordinal];
            json!([column["name"], name_of(&column["type_info"]), nullable])
        });
        let lower = |values: Vec<Value>| json!(values).to_string().to_lowercase();
        assert_eq!(lower(columns.collect()), lower(expected.collect()), "{query}");

        let Some(Either::Left(parameters)) = described.parameters() else {
            panic!("Postgres reports no parameter types: {query}");
        };
        let parameters: Vec<Value> = parameters.iter().map(|parameter| json!(parameter.name())).collect();
        let expected = committed["describe"]["parameters"]["Left"]
            .as_array()
            .expect("parameters");
        let expected: Vec<Value> = expected.iter().map(name_of).collect();
        assert_eq!(lower(parameters), lower(expected), "{query}");
        statements += 1;
    }
    assert!(statements > 20, "{statements}");
}
