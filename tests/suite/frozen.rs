//! Programs in a frozen control group, as `docker pause` leaves them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::guard::awaited_guard_of;
use crate::harness::{
    Bystander, Guest, Locks, Vconsole, in_time, not_root, skip, took_less_than, until,
};

/// A control group of our own, in either version of the hierarchy.
struct Group {
    directory: PathBuf,
    /// The file and the words that freeze and thaw it, and what another file then says.
    state: [&'static str; 3],
    shows: [&'static str; 2],
}

impl Group {
    fn all() -> Vec<Self> {
        let name =
            format!("vconsole-test-{}-{:?}", std::process::id(), std::thread::current().id());
        let make = |at: &str, state, shows| {
            let directory = Path::new(at).join(&name);
            let hierarchy = Path::new(at).join("cgroup.procs").exists();
            let made = hierarchy && fs::create_dir(&directory).is_ok();
            made.then(|| Self { directory, state, shows })
        };
        let old = ["freezer.state", "FROZEN", "THAWED"];
        let new = ["cgroup.freeze", "1", "0"];
        let mut groups =
            Vec::from_iter(make("/sys/fs/cgroup/freezer", old, ["freezer.state", "FROZEN"]));
        for at in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
            groups.extend(make(at, new, ["cgroup.events", "frozen 1"]));
        }
        groups
    }

    fn add(&self, pid: impl std::fmt::Display) {
        fs::write(self.directory.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    fn freezes(&self) {
        fs::write(self.directory.join(self.state[0]), self.state[1]).unwrap();
        let file = self.directory.join(self.shows[0]);
        until("the group is frozen", || fs::read_to_string(&file).unwrap().contains(self.shows[1]));
    }

    fn thaws(&self) {
        fs::write(self.directory.join(self.state[0]), self.state[2]).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.thaws();
        let processes = fs::read_to_string(self.directory.join("cgroup.procs")).unwrap();
        let parent = self.directory.parent().unwrap().join("cgroup.procs");
        for pid in processes.lines() {
            drop(fs::write(&parent, pid));
        }
        until("the group can go", || fs::remove_dir(&self.directory).is_ok());
    }
}

#[test]
fn a_frozen_session_is_named_and_left_as_it_is() {
    in_time(|| {
        if not_root() {
            return;
        }
        let groups = Group::all();
        if groups.is_empty() {
            skip("there is no hierarchy of control groups that can freeze");
        }
        for group in groups {
            let (guest, locks) = (Guest::new(), Locks::new());
            let old = Vconsole::attach(&guest).locks(&locks).attached_to_pipes();
            old.reads_no_more();
            guest.say("p".repeat(40_000));
            until("it has read that", || old.bytes_read() >= 40_000);
            group.add(old.pid());
            group.add(awaited_guard_of(&old));
            group.freezes();
            let start = Instant::now();
            let refused = Vconsole::attach(&guest).arg("--force").locks(&locks).output();
            took_less_than(Duration::from_secs(2), start);
            assert_eq!(refused.status, 3, "{refused:?}");
            let name = group.directory.file_name().unwrap().to_str().unwrap();
            assert!(refused.stderr().contains(&format!("{name} is frozen")), "{refused:?}");
            group.thaws();
            old.stdout().receives("p".repeat(40_000));
            guest.say("still mine");
            old.stdout().receives("still mine");
        }
    });
}

#[test]
fn another_program_that_is_frozen_gets_no_signal() {
    in_time(|| {
        if not_root() {
            return;
        }
        for group in Group::all() {
            let (guest, locks) = (Guest::new(), Locks::new());
            let holder = Bystander::with_open(guest.path());
            group.add(holder.pid());
            group.freezes();
            let start = Instant::now();
            let forced = Vconsole::attach(&guest).arg("--force").locks(&locks).piped();
            until("it is settled", || {
                forced.has_ended()
                    || String::from_utf8_lossy(&forced.stderr().so_far()).contains("connected to")
            });
            took_less_than(Duration::from_secs(4), start);
            let pending = fs::read_to_string(format!("/proc/{}/status", holder.pid())).unwrap();
            for field in ["SigPnd:", "ShdPnd:"] {
                let line = pending.lines().find(|line| line.starts_with(field)).unwrap();
                assert!(line.ends_with("0000000000000000"), "{line}");
            }
            drop(forced);
            group.thaws();
        }
    });
}
