//! Sixteen at once want one console: one gets it, whatever they find there.
//!
//! `VCONSOLE_ROUNDS=200 cargo test races` plays as many rounds of each.

use super::harness::{Guest, Locks, Piped, Program, SOMEBODY, not_root, rounds, until};
use super::locks::{NOBODY, all_names, path_name};

const RACERS: usize = 16;

/// What the racers find, and who they are.
struct Race<'a> {
    options: &'a [&'a str],
    user: Option<u32>,
    locks: Locks,
}

impl Race<'_> {
    /// Plays one round: each racer is a shell that waits at the gate, and becomes vconsole when it
    /// opens.
    #[track_caller]
    fn run(&self, guest: &Guest) {
        let place = tempfile::tempdir().unwrap();
        rustix::fs::chmod(place.path(), rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
        let gate = place.path().join("gate");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o644));
        rustix::fs::mknodat(rustix::fs::CWD, &gate, kind, mode, 0).unwrap();
        let binary = place.path().join("vconsole");
        let copied = std::process::Command::new("cp")
            .args([env!("CARGO_BIN_EXE_vconsole").as_ref(), binary.as_os_str()])
            .status();
        assert!(copied.unwrap().success());

        let script = "gate=$1; shift; echo ready >&2; read -r _ < \"$gate\"; exec \"$@\"";
        let mut racer = Program::new("sh").args(["-c", script, "sh"]).arg(&gate).arg(&binary);
        racer = racer.args(["attach", "--linger", "0"]).arg(guest).locks(&self.locks);
        racer = racer.args(self.options);
        if let Some(user) = self.user {
            racer = racer.as_user(user, user);
        }
        let mut racers: Vec<Piped> = (0..RACERS).map(|_| racer.piped()).collect();
        for racer in &racers {
            racer.stderr().receives("ready\n");
        }
        let open = std::fs::File::options().read(true).write(true).open(&gate).unwrap();
        rustix::io::write(&open, &[b'\n'; RACERS]).unwrap();

        until("fifteen have lost", || {
            racers.iter().filter(|racer| racer.has_ended()).count() >= RACERS - 1
        });
        let winner = racers.iter().position(|racer| !racer.has_ended());
        let mut winner = racers.swap_remove(winner.expect("one of them is left"));
        winner.stderr().receives("connected to");
        for loser in racers {
            let output = loser.output();
            assert_eq!(output.status, 3, "{}", output.stderr());
            assert!(!output.stderr().contains("connected"), "{}", output.stderr());
            assert_eq!(output.stdout, b"");
        }
        // In session mode there are none.
        if self.user.is_none() {
            let ours = format!("{:>10}\n", winner.pid());
            for name in all_names(guest) {
                assert_eq!(self.locks.read(&name), Some(ours.clone().into_bytes()), "{name}");
            }
        }
        guest.say("for the winner alone");
        winner.stdout().receives("for the winner alone");
        winner.closes_stdin();
        assert_eq!(winner.output().status, 0);
    }
}

#[test]
fn a_free_console_is_had_by_exactly_one_of_sixteen() {
    for _ in 0..rounds(2) {
        let race = Race { options: &[], user: None, locks: Locks::new() };
        race.run(&Guest::new());
        race.locks.assert_empty();
    }
}

#[test]
fn a_dead_lock_is_reclaimed_by_exactly_one_of_sixteen() {
    for round in 0..rounds(5) {
        let (guest, race) = (Guest::new(), Race { options: &[], user: None, locks: Locks::new() });
        // One dead lock, under each of the names in turn; then under all of them, as one file, which is
        // what a killed session leaves.
        let names = all_names(&guest);
        let one = names.get(round % (names.len() + 1)).unwrap_or(&names[0]);
        let file = race.locks.write(one, NOBODY);
        if round % (names.len() + 1) == names.len() {
            for name in &names[1..] {
                std::fs::hard_link(&file, race.locks.path().join(name)).unwrap();
            }
        }
        race.run(&guest);
        race.locks.assert_empty();
    }
}

#[test]
fn a_suspect_lock_is_broken_by_exactly_one_of_sixteen() {
    for _ in 0..rounds(2) {
        let (guest, race) =
            (Guest::new(), Race { options: &["--force"], user: None, locks: Locks::new() });
        race.locks.write(&path_name(&guest), "");
        race.run(&guest);
        race.locks.assert_empty();
    }
}

#[test]
fn in_session_mode_a_console_is_had_by_exactly_one_of_sixteen() {
    if not_root() {
        return;
    }
    for _ in 0..rounds(2) {
        let guest = Guest::new();
        guest.chown(SOMEBODY);
        let locks = Locks::new().mode(0o755);
        locks.write(&path_name(&guest), NOBODY);
        let race = Race { options: &[], user: Some(SOMEBODY), locks };
        race.run(&guest);
        assert_eq!(race.locks.names(), [path_name(&guest)]);
    }
}
