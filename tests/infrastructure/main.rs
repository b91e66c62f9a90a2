//! Tests of files: the template (`template`), the OpenAPI document (`openapi`), the documents
//! (`documents`), and the script that looks into a sandbox's account and cleans it up (`account`).

use ::support;

mod account;
mod documents;
mod openapi;
mod template;
