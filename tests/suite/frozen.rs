//! Programs in a frozen control group, as `docker pause` leaves them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::guard::awaited_guard_of;
use crate::harness::{
    Guest, Locks, Program, SOMEBODY, Terminal, Vconsole, in_time, not_root, skip, took_less_than,
    until,
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

/// A client that a user sits at, which would get SIGHUP.
#[test]
fn another_program_that_is_frozen_gets_no_signal() {
    in_time(|| {
        if not_root() {
            return;
        }
        for (owner, user) in
            [(None, None), (Some(SOMEBODY), None), (Some(SOMEBODY), Some(SOMEBODY))]
        {
            for group in Group::all() {
                let (guest, locks) = (Guest::new(), Locks::new().mode(0o777));
                let desk = Terminal::new();
                let run_by = |program: Program, user: Option<u32>| match user {
                    Some(user) => program.as_user(user, user),
                    None => program,
                };
                guest.chown(owner.unwrap_or_default());
                let holder = run_by(Program::new("cat").arg(&guest), owner).on(&desk);
                guest.say("it reads");
                desk.shows("it reads");
                group.add(holder.pid());
                group.freezes();
                let forced = Vconsole::attach(&guest).arg("--force").locks(&locks);
                let start = Instant::now();
                let refused = run_by(forced, user).output();
                took_less_than(Duration::from_secs(4), start);
                assert!(is_untouched(holder.pid()), "{refused:?}");
                if user.is_some() {
                    assert_eq!(refused.status, 3, "{refused:?}");
                    assert!(refused.stderr().contains("is frozen"), "{refused:?}");
                }
                group.thaws();
            }
        }
    });
}

/// Whether no signal waits for the process to go on.
fn is_untouched(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let pending =
        status.lines().filter(|line| line.starts_with("SigPnd:") || line.starts_with("ShdPnd:"));
    pending.into_iter().all(|line| line.ends_with("0000000000000000"))
}
