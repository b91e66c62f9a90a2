//! The functions behind API Gateway, one module each.

mod admin;
mod admin_bulk;
mod admin_processing;
mod api_docs;
mod api_info;
mod authentication;
mod authorizer;
mod cancel_task;
mod create_task;
mod database_failures;
mod delete_task;
mod events;
mod get_task;
mod headers;
mod health;
mod list_tasks;
mod newer_version;
mod ownership;
mod process_task;
mod round_trips;
mod update_task;
