//! `make sam-local`: the routes in containers of AWS's Lambda image, behind `sam local start-api`.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{
    stack::{
        Stack,
        aws::REGION,
        containers::{self, NETWORK},
        deploy,
        functions::{self, Profile},
        parameters::{self, Local},
        settings::{Auth, Settings, StackSettings},
        start,
    },
    tools::{process, python::Tool},
};

/// Serves the routes until interrupted.
pub fn serve(settings: &Settings) -> Result<()> {
    containers::ensure_docker("make sam-local")?;
    process::ensure_free(settings.sam_port, "SAM_PORT", "sam local")?;
    let stack = Stack::in_containers(&settings.root, StackSettings::load(&settings.root)?)?;
    stack.tools.install(&[Tool::Sam])?;
    start::database(&stack)?;
    // AWS's image may have an older libc than this machine.
    functions::build(&stack.tools, &stack.root, Profile::Release, &stack.log("build"))?;

    let port = settings.sam_port.to_string();
    println!(
        "
Starting containers, then serving http://127.0.0.1:{port} until Ctrl-C.
There is no queue: created tasks stay pending. Postgres keeps running afterwards:

  make down AWS=localstack    stop it and keep the data
"
    );
    let mut command = deploy::sam(&stack.tools, &stack.root, "local")?;
    command.args(["start-api", "--template-file", "template.yaml"]);
    command.args(["--host", "127.0.0.1", "--port", &port]);
    command.args(["--docker-network", NETWORK, "--warm-containers", "EAGER"]);
    // SAM can set only the variables in template.yaml, so the SQS client would try to reach AWS.
    // This directs it to its own container, where nothing listens.
    command.args(["--add-host", &format!("sqs.{}.amazonaws.com:127.0.0.1", REGION)]);
    // Variables whose values in template.yaml SAM cannot resolve.
    let variables = stack.folder.join("sam-local.json");
    let values = json!({"DATABASE_URL": containers::DATABASE_URL, "METRICS_NAMESPACE": deploy::STACK_NAME});
    fs::write(&variables, json!({"Parameters": values}).to_string())?;
    command.arg("--env-vars").arg(&variables);
    if stack.settings.auth == Auth::Open {
        // With an authorizer, SAM responds with 401 to requests without a token.
        command.arg("--disable-authorizer");
    }
    let local = Local {
        database_url: containers::DATABASE_URL,
        auth: stack.settings.auth,
    };
    command
        .arg("--parameter-overrides")
        .args(parameters::local(&stack, &local)?);
    deploy::into_emulator(&mut command, &stack);
    let status = command.status()?;
    ensure!(status.success(), "sam local failed ({status}): see above");
    Ok(())
}
