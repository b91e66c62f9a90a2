//! `make sam-local`: the routes in containers of AWS's Lambda image, behind `sam local start-api`.

use anyhow::{Result, ensure};

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
    // Not the default environment, whose `disable_authorizer` no option can revert.
    command.args(["start-api", "--config-env", "local", "--template-file", "template.yaml"]);
    command.args(["--host", "127.0.0.1", "--port", &port]);
    command.args(["--docker-network", NETWORK, "--warm-containers", "EAGER"]);
    // See samconfig.toml.
    command.args(["--add-host", &format!("sqs.{REGION}.amazonaws.com:127.0.0.1")]);
    // Variables whose values in template.yaml SAM cannot resolve.
    command.args(["--env-vars", "localstack/sam-local.json"]);
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
