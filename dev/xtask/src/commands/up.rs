//! The local stack: `make up`, `down`, `clean-data`, `url`, `logs`, `token`.

use std::{path::Path, process::Stdio};

use anyhow::Result;

use crate::{
    stack::{
        Stack, TOKEN_LIFETIME,
        deploy::{STACK_NAME, into_emulator, sam_logs},
        functions::{self, Profile},
        start::{self, Deployed, start_and_deploy},
    },
    tools::{python::Tools, terminal::Step},
};

/// `make up`
pub fn up(stack: &Stack, profile: Profile) -> Result<()> {
    let lock = stack.lock()?;
    let (deployed, _) = start_and_deploy(stack, profile)?;
    drop(lock);
    announce(&deployed);
    Ok(())
}

/// `make build`
pub fn build(root: &Path) -> Result<()> {
    let log = root.join(".local/logs/build.log");
    functions::build(&Tools::new(root), root, Profile::Release, &log).map(drop)
}

/// Prints the URLs and the next commands.
fn announce(deployed: &Deployed) {
    let Deployed {
        api_url, database_url, ..
    } = deployed;
    println!(
        "
The task API is running.

  API        {api_url}
  Docs       {api_url}/docs
  Dashboard  {api_url}/admin/dashboard
  Database   {database_url}

Create a task, and see it completed a moment later:

  export API=$(make url)
  curl -i $API/tasks -H 'content-type: application/json' \\
    -d '{{\"title\":\"Process user data\",\"description\":\"Count the words of this\"}}'
  curl $API/tasks

  make dev     rebuild and swap functions on each change
  make logs    follow the functions' logs
  make down    stop everything and keep the data
"
    );
}

/// `make down`
pub fn down(stack: &Stack) -> Result<()> {
    let _lock = stack.lock()?;
    let step = Step::start("down", "stopping the functions, the emulator and Postgres");
    stack.stop()?;
    step.done("stopped; the data is kept");
    Ok(())
}

/// `make clean-data`
pub fn clean_data(stack: &Stack) -> Result<()> {
    let _lock = stack.lock()?;
    let step = Step::start("clean-data", "stopping everything and deleting the data");
    stack.clean()?;
    step.done("stopped; the data is deleted");
    Ok(())
}

/// `make url`
pub fn url(stack: &Stack) -> Result<()> {
    println!("{}", start::deployed(stack)?.api_url);
    Ok(())
}

/// `make logs`
pub fn logs(stack: &Stack) -> Result<()> {
    let mut command = sam_logs(&stack.tools, &stack.root)?;
    command.args(["--stack-name", STACK_NAME, "--tail"]);
    into_emulator(&mut command, stack);
    command.stdout(Stdio::inherit()).stderr(Stdio::inherit()).status()?;
    Ok(())
}

/// `make token`
pub fn token(stack: &Stack, subject: &str, scope: &str) -> Result<()> {
    println!("{}", stack.issuer()?.token(subject, scope, TOKEN_LIFETIME));
    Ok(())
}
