//! The functions' settings. A test that depends on another value overrides it.

pub const CREATE_TASK: create_task::Settings = create_task::Settings {
    idempotency_key_seconds: 60,
};

pub const TASK_PROCESSOR: task_processor::Settings = task_processor::Settings {
    max_receive_count: 5,
    retry_delay_seconds: 2,
};

pub const TASK_RECONCILER: task_reconciler::Settings = task_reconciler::Settings {
    lost_after_seconds: 3600,
    max_attempts: 10,
    task_retention_days: 0,
};

/// Settings of functions that run as processes: those without a default.
pub const ENVIRONMENT: [(&str, &str); 2] = [("MAX_RECEIVE_COUNT", "5"), ("RETRY_DELAY_SECONDS", "20")];
