//! Tests of the release builds that are deployed to AWS: their sizes (`budgets`) and instruction
//! counts (`instructions`).

use ::support;

mod budgets;
mod instructions;
