//! Saves a stack before an incident, and restores it afterwards, whatever was done to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xtask::{
    stack::{Stack, migrations::migrate, start},
    tools::{files, process, terminal::Step},
};

use super::{
    State, grade,
    live::{Db, Live},
    spec::Scene,
    traffic,
};

/// What the emulator keeps when it is stopped: queues with their messages, functions, mappings.
const OF_EMULATOR: [&str; 3] = ["state", "s3", "deployments"];

/// Every object of the schema, with its definition.
const SCHEMA: &str = "
    select format('column %s.%s', attrelid::regclass, attname) as name,
           format('%s %s %s', format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid)) as definition
    from pg_attribute join pg_class on pg_class.oid = attrelid
        left join pg_attrdef on adrelid = attrelid and adnum = attnum
    where relnamespace = 'public'::regnamespace and relkind = 'r' and attnum > 0 and not attisdropped
    union all
    select format('index %s', indexrelid::regclass), pg_get_indexdef(indexrelid)
    from pg_index join pg_class on pg_class.oid = indexrelid where relnamespace = 'public'::regnamespace
    union all
    select format('constraint %s of %s', conname, conrelid::regclass), pg_get_constraintdef(oid)
    from pg_constraint where connamespace = 'public'::regnamespace
    union all
    select format('trigger %s of %s', tgname, tgrelid::regclass), pg_get_triggerdef(oid) || ' ' || tgenabled::text
    from pg_trigger where not tgisinternal
    union all
    select format('function %s', oid::regprocedure), pg_get_functiondef(oid)
    from pg_proc where pronamespace = 'public'::regnamespace and prokind = 'f'
        and not exists (select from pg_depend where objid = pg_proc.oid and deptype = 'e')";

/// The settings of `alter system`.
const SETTINGS: &str = "
    select name, setting as definition from pg_file_settings where sourcefile like '%postgresql.auto.conf'";

/// The log of what becomes of the incident's tasks, and a copy of all others.
const LOG: &str = "
    create schema incident;
    revoke all on schema incident from public;
    create table incident.tasks as select * from public.tasks;
    create table incident.log (
        at timestamptz not null default clock_timestamp(),
        task_id bigint not null,
        event text not null,
        detail text
    );
    -- As its owner: the functions' roles have no privileges on the log.
    create function incident.log() returns trigger language plpgsql security definer as $$
    declare
        event text;
        detail text;
    begin
        if coalesce(new.title, '') not like '{titles}' and coalesce(old.title, '') not like '{titles}' then
            return null;
        end if;
        if tg_op = 'DELETE' then
            insert into incident.log (task_id, event) values (old.id, 'deleted');
            return null;
        end if;
        event := case
            when tg_op = 'INSERT' then 'created'
            when new.fencing_token > old.fencing_token then 'claimed'
            when old.status = new.status and old.lease_expires_at is not null and new.lease_expires_at is null
                then 'released'
            when old.status <> new.status and new.status = 'pending' then 'requested'
            when old.status <> new.status and new.status = 'cancelled' then 'cancelled'
            when (old.title, old.description) is distinct from (new.title, new.description) then 'changed'
        end;
        detail := 'attempt ' || new.attempts;
        if new.status in ('completed', 'failed') and (tg_op = 'INSERT' or old.status <> new.status) then
            event := new.status;
            detail := new.result;
        end if;
        if event is not null then
            insert into incident.log (task_id, event, detail) values (new.id, event, detail);
        end if;
        return null;
    end $$;
    create trigger incident_log after insert or update or delete on public.tasks
        for each row execute function incident.log()";

/// What is compared afterwards. The emulator's files and the tasks are beside it.
#[derive(Deserialize, Serialize)]
pub struct Before {
    schema: BTreeMap<String, String>,
    settings: BTreeMap<String, String>,
}

fn definitions(database: &mut Db, query: &str) -> Result<BTreeMap<String, String>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = database.rows(query)?;
    Ok(rows
        .iter()
        .map(|row| (text(&row["name"]), text(&row["definition"])))
        .collect())
}

impl Before {
    /// Saves everything that an incident or a candidate may change, and installs the log.
    pub fn save(stack: &Stack, scene: &Scene) -> Result<Self> {
        let mut database = scene.live.database()?;
        // An incident that was killed while it began has left its log.
        database.execute("drop schema if exists incident cascade")?;
        let before = Self {
            schema: definitions(&mut database, SCHEMA)?,
            settings: definitions(&mut database, SETTINGS)?,
        };
        // It saves its state only when it is stopped.
        stack.emulator.stop()?;
        let saved = copy_all(&stack.folder, &scene.folder.join("before"));
        stack.emulator.start(&stack.tools)?;
        saved?;
        database.execute(&LOG.replace("{titles}", &scene.titles()))?;
        Ok(before)
    }
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for folder in OF_EMULATOR {
        files::remove_if_exists(fs::remove_dir_all(to.join(folder)))?;
        if from.join(folder).exists() {
            process::output(Command::new("cp").arg("-Rp").arg(from.join(folder)).arg(to))?;
        }
    }
    Ok(())
}

/// Restores the stack, deletes what the incident created, and processes a task. Returns what could
/// not be restored.
pub fn restore(stack: &Stack, state: &State) -> Result<Vec<String>> {
    let step = Step::start("reset", "stopping the incident");
    let scene = &state.scene;
    state.daemon().stop()?;
    step.show("restoring queues, mapping and functions");
    let saved = scene.folder.join("before");
    ensure!(
        saved.exists(),
        "the copy of the stack from before the incident, {}, is gone: its queues and functions cannot be restored. \
         To continue with the stack as it is: rm -r {}",
        saved.display(),
        scene.folder.display()
    );
    stack.emulator.stop()?;
    copy_all(&saved, &stack.folder)?;
    // Postgres may have been stopped.
    start::postgres_and_aws(stack)?;
    step.show("restoring the database");
    let mut remarks = database(state)?;
    migrate(stack, &scene.live.database)?;
    let mut database = scene.live.database()?;
    remarks.extend(differences(&state.before.schema, &definitions(&mut database, SCHEMA)?));
    step.show("processing a task");
    let live = Live::of(stack)?;
    grade::probe(&live, &format!("After the incident {}", state.name))
        .context("the stack is restored, but does not process a task; restart it: make down, then make up")?;
    // First what says that an incident is in progress: a reset that is killed here is complete.
    fs::remove_file(State::file(&scene.folder))?;
    fs::remove_dir_all(&scene.folder)?;
    step.done("the stack is restored");
    Ok(remarks)
}

/// Restores settings, roles and tasks. Returns what could not be restored.
fn database(state: &State) -> Result<Vec<String>> {
    let scene = &state.scene;
    let mut database = scene.live.database()?;
    // Sessions of the incident, of the candidate, and of functions, which reconnect.
    let all = "select pg_terminate_backend(pid) as ended from pg_stat_activity
               where backend_type = 'client backend' and pid <> pg_backend_pid()";
    database.rows(all)?;
    let settings = definitions(&mut database, SETTINGS)?;
    for name in settings
        .keys()
        .chain(state.before.settings.keys())
        .collect::<BTreeSet<_>>()
    {
        match state.before.settings.get(name) {
            value if value == settings.get(name) => {}
            Some(value) => database.execute(&format!("alter system set {name} = '{}'", value.replace('\'', "''")))?,
            None => database.execute(&format!("alter system reset {name}"))?,
        }
    }
    database.execute("select pg_reload_conf()")?;
    for role in ["reader", "writer", "processor"] {
        let exists = database.rows(&format!("select from pg_roles where rolname = '{role}'"))?;
        if !exists.is_empty() {
            // The settings of roles.sql follow with the migrations.
            database.execute(&format!(
                "alter role {role} login nosuperuser nocreaterole nocreatedb connection limit -1 valid until 'infinity';
                 alter role {role} reset all;
                 alter role {role} in database tasks reset all"
            ))?;
        }
    }
    let mut remarks = Vec::new();
    for statement in &state.incident.undo {
        if let Err(error) = database.execute(statement) {
            remarks.push(format!("left of the incident: {error:#}"));
        }
    }
    delete_own_tasks(&mut database, scene)?;
    database.execute(&format!(
        "delete from operator_actions where at >= to_timestamp({}::numeric / 1000)",
        state.began
    ))?;
    match restore_tasks(&mut database) {
        Ok(0) => {}
        Ok(count) => remarks.push(format!("{count} of your tasks had been deleted, and are back")),
        Err(error) => remarks.push(format!("tasks that were deleted could not be restored: {error:#}")),
    }
    database.execute("drop schema if exists incident cascade")?;
    Ok(remarks)
}

fn delete_own_tasks(database: &mut Db, scene: &Scene) -> Result<()> {
    let accepted = traffic::accepted(&scene.folder)?;
    let ids: Vec<String> = accepted.iter().map(|task| task.id.to_string()).collect();
    let keys = scene.titles().replace(' ', "-").to_lowercase();
    database.execute(&format!(
        "delete from tasks where title like '{}' or id = any ('{{{}}}'::bigint[]);
         delete from idempotency_keys where key like '%{keys}'",
        scene.titles(),
        ids.join(",")
    ))
}

/// Inserts the tasks from before that are missing, and returns their number.
fn restore_tasks(database: &mut Db) -> Result<usize> {
    let columns = "select string_agg(quote_ident(column_name), ', ') as names from information_schema.columns
                   where table_schema = 'public' and table_name = 'tasks' and is_generated = 'NEVER'";
    let columns = database.rows(columns)?;
    let columns = columns[0]["names"].as_str().context("tasks has columns")?.to_owned();
    let missing = "select id from incident.tasks where id not in (select id from tasks)";
    let missing = database.rows(missing)?.len();
    if missing > 0 {
        database.execute(&format!(
            "insert into tasks ({columns}) overriding system value
             select {columns} from incident.tasks where id not in (select id from tasks)"
        ))?;
    }
    Ok(missing)
}

/// What differs between two schemas, in words.
fn differences(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| match (before.get(name), now.get(name)) {
            (Some(before), None) => Some(format!("the {name} was dropped; it was: {before}")),
            (None, Some(_)) => Some(format!("the {name} is new, and was left: drop it if it is not yours")),
            (Some(before), Some(now)) if before != now => Some(format!("the {name} was changed; it was: {before}")),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_differences_are_described() {
        let of = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
            pairs.collect::<BTreeMap<_, _>>()
        };
        let before = of(&[("index a", "A"), ("index b", "B"), ("index c", "C")]);
        assert_eq!(differences(&before, &before), [""; 0]);
        let now = of(&[("index b", "other"), ("index c", "C"), ("index d", "D")]);
        assert_eq!(
            differences(&before, &now),
            [
                "the index a was dropped; it was: A",
                "the index b was changed; it was: B",
                "the index d is new, and was left: drop it if it is not yours",
            ]
        );
    }
}
