//! Reads this sandbox's own OOM-kill counter, where it is visible.
//!
//! A hint only: the guest could have mounted something else there. Hosts
//! decide by their own view of the cgroup.

use std::fs;

const COUNTERS: [&str; 2] = [
    "/sys/fs/cgroup/memory.events",             // v2, private cgroup namespace
    "/sys/fs/cgroup/memory/memory.oom_control", // v1
];

/// How many processes the kernel's OOM killer has ended here so far.
pub fn oom_kills() -> Option<u64> {
    COUNTERS.iter().find_map(|path| parse(&fs::read_to_string(path).ok()?))
}

fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_cgroup_versions_are_read() {
        assert_eq!(parse("low 0\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"), Some(5));
        assert_eq!(parse("anything"), None);
    }
}
