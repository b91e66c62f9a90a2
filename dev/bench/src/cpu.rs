//! CPU time of processes, from /proc.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// The fields of `/proc/<pid>/stat` after the name (proc(5)), which may contain spaces.
struct Stat {
    parent: i32,
    own: u64,
    /// Of its children that have exited.
    children: u64,
}

fn stat(pid: i32) -> Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = text.rsplit_once(") ").context("a name in parentheses")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |field: usize| fields[field].parse::<u64>();
    Ok(Stat {
        parent: fields[1].parse()?,
        own: ticks(11)? + ticks(12)?,
        children: ticks(13)? + ticks(14)?,
    })
}

fn duration(ticks: u64) -> Result<Duration> {
    let hertz = sysconf(SysconfVar::CLK_TCK)?.context("clock ticks a second")?;
    Ok(Duration::from_secs_f64(ticks as f64 / hertz as f64))
}

/// Of a process and of all its children: those that run and those that have exited.
pub fn with_children(pid: i32) -> Result<Duration> {
    loop {
        let parent = stat(pid)?;
        let running = of_children(pid)?;
        // If one exited in between, it was counted twice, or not at all.
        if stat(pid)?.children == parent.children {
            return duration(parent.own + parent.children + running);
        }
    }
}

fn of_children(pid: i32) -> Result<u64> {
    let mut ticks = 0;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(child) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may have exited in the meantime.
        if let Ok(child) = stat(child)
            && child.parent == pid
        {
            ticks += child.own;
        }
    }
    Ok(ticks)
}

/// Of a process without its children, in nanoseconds.
pub fn exact(pid: i32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let (time, _) = text.split_once(' ').context("the time on a CPU comes first")?;
    Ok(Duration::from_nanos(time.parse()?))
}

/// The parent of a process.
pub fn parent(pid: i32) -> Result<i32> {
    Ok(stat(pid)
        .with_context(|| format!("process {pid} is not on this machine"))?
        .parent)
}
