//! Whoever is killed in the middle of a takeover, at whatever step: there is one operator or none, and no
//! wreck.
//!
//! `VCONSOLE_ROUNDS=2 cargo test takeover::killed` kills in all combinations.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal};

use super::{Runtime, forced, is_as_new};
use crate::guard::{awaited_guard_of, is_done};
use crate::harness::{
    Guest, Locks, Pause, Piped, Process, Vconsole, contains, is_alive, rounds, until,
};

/// The processes that take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Holder,
    Newcomer,
    HoldersGuard,
    NewcomersGuard,
}

use Part::{Holder, HoldersGuard, Newcomer, NewcomersGuard};

const PARTS: [Part; 4] = [Holder, Newcomer, HoldersGuard, NewcomersGuard];

/// Where a takeover is stopped: the point, and whether the holder hangs, so that its guard hands over.
const POINTS: [(&str, bool); 15] = [
    ("asked", false),
    ("handing-over", false),
    ("given", false),
    ("given-to-us", false),
    ("taken", false),
    ("signing", false),
    ("signed", false),
    ("settled", false),
    ("one-socket", false),
    ("guard-giving", true),
    ("guard-given", true),
    ("given-to-us", true),
    ("taken", true),
    ("signed", true),
    // Its own end is the next that a guard sees to.
    ("guard-alone", true),
];

/// Every choice of those who are killed.
fn all_choices() -> Vec<Vec<Part>> {
    let chosen =
        |mask: usize| PARTS.into_iter().enumerate().filter(move |(bit, _)| mask >> bit & 1 == 1);
    (1..1 << PARTS.len()).map(|mask| chosen(mask).map(|(_, part)| part).collect()).collect()
}

/// A few of them: each session alone, both, and the guards.
fn some_choices() -> Vec<Vec<Part>> {
    vec![
        vec![Holder],
        vec![Newcomer],
        vec![Holder, Newcomer],
        vec![HoldersGuard, NewcomersGuard],
        PARTS.to_vec(),
    ]
}

#[test]
fn whoever_is_killed_in_the_middle_leaves_one_operator_or_none_and_no_wreck() {
    let choices = if rounds(1) > 1 { all_choices() } else { some_choices() };
    let all = POINTS.iter().flat_map(|point| choices.iter().map(move |choice| (*point, choice)));
    let cases = Mutex::new(all);
    std::thread::scope(|threads| {
        for _ in 0..6 {
            threads.spawn(|| {
                let next = || cases.lock().unwrap_or_else(PoisonError::into_inner).next();
                while let Some(((point, hangs), victims)) = next() {
                    let scene = Scene::at(point, hangs);
                    println!("{}: {point}, hangs: {hangs}, {victims:?}", scene.old.pid());
                    scene.kills(victims);
                }
            });
        }
    });
}

/// A takeover that stands still.
struct Scene {
    guest: Guest,
    locks: Locks,
    pause: Pause,
    runtime: Runtime,
    old: Piped,
    new: Piped,
    guards: [Process; 2],
    hangs: bool,
}

impl Scene {
    fn at(point: &'static str, hangs: bool) -> Self {
        let (guest, locks, pause) = (Guest::new(), Locks::new(), Pause::held_at(point));
        let runtime = Runtime::new();
        let mut old = runtime.of(Vconsole::attach(&guest).locks(&locks));
        // Which is on its way to being an operator, not to another.
        if point != "one-socket" {
            old = pause.of(old);
        }
        if hangs {
            old = old.env("VCONSOLE_TEST_HANG", "relay");
        }
        let old = old.attached_to_pipes();
        let guard = |session: &Piped| {
            Process::find(Pid::from_raw(awaited_guard_of(session)).unwrap()).unwrap()
        };
        let olds = guard(&old);
        let new = runtime.of(pause.of(forced(&guest, &locks))).piped();
        pause.reached();
        let guards = [olds, guard(&new)];
        Self { guest, locks, pause, runtime, old, new, guards, hangs }
    }

    fn process(&self, part: Part) -> &Process {
        match part {
            Holder => &self.old,
            Newcomer => &self.new,
            HoldersGuard => &self.guards[0],
            NewcomersGuard => &self.guards[1],
        }
    }

    fn kills(&self, victims: &[Part]) {
        for victim in victims {
            self.process(*victim).signal(Signal::KILL);
        }
        until("they are dead", || {
            victims.iter().all(|victim| !is_alive(self.process(*victim).pid()))
        });
        self.pause.is_over(&PARTS.map(|part| self.process(part)));
        let new_operates = self.newcomer_operates();
        // What hangs without a guard to end it is for its user to end.
        if self.hangs && !new_operates && victims.contains(&HoldersGuard) {
            self.old.signal(Signal::KILL);
        }
        until("at most one is left", || {
            self.old.has_ended() || (!new_operates && self.new.has_ended())
        });
        for session in [&self.old, &self.new].into_iter().filter(|session| !session.has_ended()) {
            self.guest.say("who operates?");
            let asked = |heard: &[u8]| contains(heard, b"who operates?").then_some(());
            // Or it has given the console away, and is just leaving; or it hung, and was killed by its guard.
            if session.stdout().wait_for_or_end("who operates?", asked).is_none() {
                let was_hung = self.hangs && session.pid() == self.old.pid();
                assert_eq!(session.wait(), if was_hung { 137 } else { 4 });
                continue;
            }
            session.types("it is me");
            self.guest.receives("it is me");
            session.signal(Signal::TERM);
            assert_eq!(session.wait(), 143);
        }
        self.wakes_all();
        self.guards.iter().for_each(|guard| is_done(guard.pid()));
        // Nobody could put right what a session left that was killed together with its own guard: its
        // locks are dead, for the next one to reclaim, and the flag may stay, which `--force` clears. A
        // private name that it was just about to change into a lock's or a socket's stays, and is in
        // nobody's way.
        let killed = |pair: [Part; 2]| pair.iter().all(|part| victims.contains(part));
        let wreck = killed([Holder, HoldersGuard]) || killed([Newcomer, NewcomersGuard]);
        let hung = self.hangs && victims.contains(&HoldersGuard);
        if wreck || hung {
            let next = self.runtime.of(forced(&self.guest, &self.locks)).attached_to_pipes();
            next.signal(Signal::TERM);
            assert_eq!(next.wait(), 143);
            for directory in [self.locks.path(), &self.runtime.directory()] {
                remove_private_names(directory);
            }
        }
        until("the sockets are gone", || {
            std::fs::read_dir(self.runtime.directory()).is_ok_and(|left| left.count() == 0)
        });
        is_as_new(&self.guest, &self.locks);
    }

    /// Continues who came to the point just when the pause was over.
    fn wakes_all(&self) {
        let all = PARTS.map(|part| self.process(part));
        for process in all.into_iter().filter(|process| process.is_stopped_now()) {
            process.signal(Signal::CONT);
        }
    }

    /// Waits until the newcomer operates, or has ended.
    fn newcomer_operates(&self) -> bool {
        let mut operates = false;
        until("the newcomer operates, or has ended", || {
            self.wakes_all();
            operates = String::from_utf8_lossy(&self.new.stderr().so_far()).contains("connected");
            operates || self.new.has_ended()
        });
        operates && !self.new.has_ended()
    }
}

fn remove_private_names(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

impl Drop for Scene {
    /// Which case failed, and how far it came.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for session in [&self.old, &self.new] {
                let said = session.stderr().so_far();
                println!("{} said: {}", session.pid(), String::from_utf8_lossy(&said));
            }
            let sockets = std::fs::read_dir(self.runtime.directory()).unwrap();
            let sockets: Vec<_> = sockets.map(|it| it.unwrap().file_name()).collect();
            println!("left: {:?} {sockets:?}", self.locks.names());
            for part in PARTS {
                println!(
                    "{part:?} {} {}",
                    self.process(part).pid(),
                    is_alive(self.process(part).pid())
                );
            }
        }
    }
}
