//! Recompiles the crate when a migration is added, which `sqlx::migrate!` cannot detect.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
