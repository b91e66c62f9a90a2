//! Tests of files: the template (`template`), the OpenAPI document (`openapi`), the written ones (`documents`), and what the
//! sandbox needs of an account (`account`).

use ::support;

mod account;
mod documents;
mod openapi;
mod template;
