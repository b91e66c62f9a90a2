//! Prints the tables of docs/scaling.md.

fn main() {
    print!("{}", scaling::tables());
}
