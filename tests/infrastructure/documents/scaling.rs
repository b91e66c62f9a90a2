//! The tables of docs/scaling.md, calculated by dev/scaling.

use support::documents::file;

#[test]
fn tables_of_scaling_are_those_of_model() {
    let document = file("docs/scaling.md").expect("the document");
    let tables = scaling::tables();
    let tables: Vec<&str> = tables.trim_end().split("\n\n").collect();
    assert_eq!(tables.len(), 3);
    for table in tables {
        assert!(
            document.contains(&format!("\n\n{table}\n\n")),
            "docs/scaling.md needs this table:\n\n{table}"
        );
    }
}
