//! Prints the OpenAPI document.

fn main() {
    print!("{}", openapi::document());
}
