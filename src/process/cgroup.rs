//! Frozen control groups: their processes run no instruction, and a signal waits until they thaw
//! (cgroups(7)).

use std::fs;

use crate::process::Process;

/// Where the hierarchies are mounted: version 2, alone or beside version 1, and the freezer of
/// version 1.
const UNIFIED: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
const FREEZER: &str = "/sys/fs/cgroup/freezer";

impl Process {
    /// The control group that keeps it frozen, as `docker pause` does.
    pub(crate) fn frozen_cgroup(&self) -> Option<String> {
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", self.pid)).ok()?;
        groups.lines().find_map(frozen).map(str::to_owned)
    }
}

/// The group of a line of `/proc/PID/cgroup`, `number:controllers:path`, if it is frozen.
fn frozen(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let says = |file: String, words: &[&str]| {
        let state = fs::read_to_string(file).unwrap_or_default();
        state.lines().any(|line| words.contains(&line))
    };
    // Both files say it also of a group below the one that was frozen.
    let is_frozen = if controllers.is_empty() {
        UNIFIED.iter().any(|at| says(format!("{at}{path}/cgroup.events"), &["frozen 1"]))
    } else {
        controllers.split(',').any(|controller| controller == "freezer")
            && says(format!("{FREEZER}{path}/freezer.state"), &["FROZEN", "FREEZING"])
    };
    is_frozen.then_some(path)
}
