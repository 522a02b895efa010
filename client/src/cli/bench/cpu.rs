//! Processor time of processes, from `/proc/<pid>/stat` (proc(5)).

use std::time::Duration;

use arca_client::local::{LocalCluster, Process};

/// The processes of a local cluster; none of a remote one.
pub(super) struct Processes {
    hosts: Vec<i32>,
    enclaves: Vec<i32>,
}

/// Processor time since the processes started.
#[derive(Clone, Copy)]
pub(super) struct Used {
    pub client: Duration,
    pub hosts: Duration,
    pub enclaves: Duration,
}

/// Linux counts in hundredths of a second towards programs, on every architecture (USER_HZ).
const TICK: Duration = Duration::from_millis(10);

impl Processes {
    pub fn none() -> Self {
        Self {
            hosts: Vec::new(),
            enclaves: Vec::new(),
        }
    }

    pub fn of(cluster: &LocalCluster) -> Self {
        Self {
            hosts: cluster
                .parties()
                .filter_map(|party| party.host().and_then(Process::pid))
                .collect(),
            enclaves: cluster
                .parties()
                .filter_map(|party| party.enclave().and_then(Process::pid))
                .collect(),
        }
    }

    /// None for a remote cluster.
    pub fn used(&self) -> Option<Used> {
        if self.enclaves.is_empty() {
            return None;
        }
        let sum = |pids: &[i32]| {
            pids.iter()
                .map(|pid| of_process(&pid.to_string()))
                .sum::<Option<Duration>>()
        };
        Some(Used {
            client: of_process("self")?,
            hosts: sum(&self.hosts)?,
            enclaves: sum(&self.enclaves)?,
        })
    }
}

fn of_process(pid: &str) -> Option<Duration> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// utime and stime, fields 14 and 15; the name before them, field 2, may hold anything but ends with the last `)`.
fn parse(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    TICK.checked_mul(user.checked_add(system)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_fields_14_and_15() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 1 0 100 1 1";
        assert_eq!(parse(stat), Some(Duration::from_secs(2)));
        assert_eq!(parse("42 (x) S 1"), None);
    }
}
