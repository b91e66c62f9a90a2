//! Generates the table of the API's routes from openapi.json.

use std::{collections::BTreeMap, env, fmt::Write, fs, path::Path};

use serde_json::Value;

const DOCUMENT: &str = "../../openapi.json";

fn main() {
    println!("cargo:rerun-if-changed={DOCUMENT}");
    let document = fs::read_to_string(DOCUMENT).expect("openapi.json");
    let document: Value = serde_json::from_str(&document).expect("JSON");
    // Sorted, so that a name comes before a parameter in the same place: in ASCII, `{` follows the
    // letters.
    let paths: BTreeMap<_, _> = document["paths"].as_object().expect("paths").iter().collect();
    let mut table = "&[\n".to_owned();
    for (path, operations) in paths {
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let methods = operations.as_object().expect("operations").keys();
        let mut methods: Vec<String> = methods.map(|method| method.to_uppercase()).collect();
        methods.sort();
        writeln!(table, "    (&{segments:?}, {:?}),", methods.join(", ")).expect("memory is writable");
    }
    table.push(']');
    let folder = env::var_os("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&folder).join("routes.rs"), table).expect("the folder is writable");
}
