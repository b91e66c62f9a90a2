//! Compiles again when there is a new migration, which `sqlx::migrate!` cannot notice.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
