//! Tests of what is deployed to AWS, the release builds: how large they are (`budgets`), and how much they compute
//! (`instructions`).

use ::support;

mod budgets;
mod instructions;
