//! `make sam-local`: the routes in containers of AWS's own Lambda image, behind `sam local start-api`.

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
    let stack = Stack::in_containers(&settings.root, StackSettings::of_the_local_stack(&settings.root)?)?;
    stack.tools.install(&[Tool::Sam])?;
    start::database(&stack)?;
    // AWS's image has an older libc than this machine may have.
    functions::build(&stack.tools, &stack.root, Profile::Release, &stack.log("build"))?;

    let port = settings.sam_port.to_string();
    println!(
        "
Serving http://127.0.0.1:{port} once the containers have started; Ctrl-C ends it.
There is no queue: a created task stays pending, and its row keeps enqueued_at null. Postgres goes on running:

  make down AWS=localstack    stop it (the data stays)
"
    );
    let mut command = deploy::sam(&stack.tools, &stack.root, "local")?;
    command.args(["start-api", "--template-file", "template.yaml"]);
    command.args(["--host", "127.0.0.1", "--port", &port]);
    command.args(["--docker-network", NETWORK, "--warm-containers", "EAGER"]);
    // SAM can set only variables that template.yaml names, so that the SQS client in there would look for AWS. It finds
    // its own container, where nothing listens.
    command.args(["--add-host", &format!("sqs.{}.amazonaws.com:127.0.0.1", REGION)]);
    // What SAM does not resolve in template.yaml, where a value for the cloud stands beside it.
    let variables = stack.folder.join("sam-local.json");
    let values = json!({"DATABASE_URL": containers::DATABASE_URL, "METRICS_NAMESPACE": deploy::STACK_NAME});
    fs::write(&variables, json!({"Parameters": values}).to_string())?;
    command.arg("--env-vars").arg(&variables);
    if stack.settings.auth == Auth::Open {
        // SAM answers 401 to a request without a token before it asks an authorizer; here none is asked.
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
    ensure!(status.success(), "sam local ended with {status}");
    Ok(())
}
