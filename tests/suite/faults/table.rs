//! The table of faults: each with its test, what is lost, and the exit status.

use std::collections::BTreeMap;
use std::process::Command;

/// A fault.
struct Fault {
    what: &'static str,
    /// What is lost where it cannot be otherwise.
    lost: &'static str,
    status: &'static str,
    /// The test that makes the fault, and proves the line. Some read here what they may accept.
    test: &'static str,
}

/// One a line: the fault, what is lost where it cannot be otherwise, the status, the test.
const FAULTS: &str = "\
EINTR from every third or second call | nothing | 0, taken over 4 | faults::syscalls::interrupted_system_calls_are_made_again
EINTR in the guard too, then SIGKILL | nothing | 137 | faults::syscalls::a_guard_whose_system_calls_are_interrupted_puts_everything_right
EAGAIN from every second call | nothing | 0 | faults::syscalls::what_is_never_ready_at_the_first_time_is_moved_at_the_next
short writes: a full console | nothing | 0 | pipes::a_slow_guest_slows_the_writer_down_and_loses_nothing
short writes: a full pipe on stdout | nothing | 0 | pipes::a_slow_reader_slows_the_guest_down_and_loses_nothing
EIO or ENODEV from the console | nothing | 5 | faults::syscalls::a_console_that_fails_has_hung_up
another error from the console at what is typed | what was typed | 1 | faults::syscalls::what_was_printed_is_shown_where_the_console_takes_nothing_any_more
a holder that ends while it is looked at | nothing | 0 | faults::syscalls::a_holder_that_ends_while_it_is_looked_at_is_gone
a holder that ends when its name was read | nothing | 0 | faults::syscalls::a_holder_that_ends_when_its_name_was_read_and_not_whose_it_is_is_gone
EIO from the terminal | nothing | 129 | faults::syscalls::a_terminal_that_fails_is_gone
EIO or ENOSPC from stdout | what was not written | 1 | faults::syscalls::an_output_that_fails_is_a_failure_that_says_so
a full disk behind stdout | what was not written, and it says so | 1 | pipes::a_full_disk_is_a_failure_that_says_so
ENOSPC, EDQUOT, EROFS or EIO for one lock file | nothing | 1 | faults::syscalls::lock_files_are_made_all_or_none
a full lock directory | nothing | 1 | session_mode::a_full_directory_is_an_error_for_everybody
a read-only lock directory | nothing | 0, root 1 | session_mode::a_read_only_directory_means_session_mode
no lock directory | nothing | 0, root 1 | session_mode::a_missing_directory_means_session_mode
EROFS when locks are given back | nothing | 0 | faults::syscalls::locks_that_cannot_be_removed_at_the_end_are_dead_for_the_next
no /proc | nothing | 0 | faults::surroundings::without_proc_it_works_and_says_what_it_cannot_see
/proc with hidepid | nothing | 0 | holders::an_intruder_that_proc_hides_is_told_of_all_the_same
no HOME, no XDG variables, no environment | nothing | 0 | faults::surroundings::without_any_environment_it_works
no real /dev/tty | nothing | 0 | faults::surroundings::without_a_real_dev_tty_it_works
RLIMIT_NOFILE of 3 to 32, on a terminal | nothing | 0, 1; the loader 127 | faults::surroundings::with_few_descriptors_it_works_or_says_so
RLIMIT_NOFILE of 6 to 19, on pipes | nothing | 0, 1 | guard::a_session_without_descriptors_to_spare_gives_its_locks_back
RLIMIT_NPROC: no guard | nothing | 0 | faults::surroundings::where_no_process_can_be_started_it_works_without_a_guard
no close_range: a kernel before 5.9 | nothing | 137 | faults::syscalls::on_a_kernel_without_close_range_a_guard_holds_no_more_and_puts_things_right
no inotify: too many instances or watches | nothing | 0 | faults::surroundings::where_nothing_can_be_watched_it_works_and_says_so
a lock directory that cannot be watched | nothing | 0 | faults::surroundings::where_a_lock_directory_cannot_be_watched_that_is_said_and_the_console_is_watched
RLIMIT_AS of 4 to 64 MB | nothing | 0, 1, 134; the loader 126, 127, 137, 139; without a stack 139 | faults::surroundings::with_little_memory_it_works_or_ends_well
RLIMIT_FSIZE | what was not written, and it says so | 1 | faults::surroundings::a_limit_to_files_is_a_failure_and_no_death
SIGCHLD ignored or blocked | nothing | 0 | faults::surroundings::with_children_that_nobody_waits_for_it_works
SIGHUP ignored | nothing | 0 | ways_out::a_signal_that_was_ignored_at_the_start_stays_ignored
SIGPIPE: stdout's reader leaves | what nobody reads | 141 | ways_out::without_a_reader_of_stdout_the_session_ends
stdin, stdout, stderr closed at exec, each and all | nothing | 0 | pipes::descriptors_that_were_closed_at_the_start_are_missed_by_nobody
another user's terminal (su) | nothing | 0 | users::su_on_a_terminal_takes_over_and_gives_the_terminal_back
a stopped terminal (^S) | nothing | 0 | escape::a_terminal_that_was_stuck_loses_nothing
leaving a stopped terminal | what it did not take | 0 | escape::a_frozen_terminal_keeps_nobody
a terminal that vanishes | what was typed after | 129 | ways_out::a_terminal_that_vanishes_ends_the_session
a terminal that vanishes under a flood | what nobody can see | 129 | ways_out::a_terminal_that_vanishes_under_a_flood_ends_the_session
suspend and resume | nothing | 0 | ways_out::stopped_it_gives_the_terminal_back_and_continued_it_goes_on
thousands of window changes | nothing | 0 | faults::lines::a_window_that_never_rests_loses_no_byte
a console that vanishes | what the kernel threw away | 5 | ways_out::a_guest_that_hangs_up_ends_the_session_at_once
a console whose number goes to a stranger | what the kernel threw away | 5 | faults::lines::nothing_goes_to_a_stranger_who_gets_the_consoles_number
the same before we attach | nothing | 6 | lock_traps::a_console_whose_number_was_given_to_another_is_not_attached_to
root hangs up root's console | what the kernel threw away | 5 | faults::lines::a_console_that_root_hangs_up_ends_roots_session_and_is_free
root hangs up a user's console | as before; root clears the flag | 5 | faults::lines::a_users_console_that_root_hangs_up_keeps_a_flag_that_only_root_can_clear
root hangs it up and takes it | what the kernel threw away | 5 | faults::lines::the_flag_of_who_took_the_console_by_a_hang_up_stays
locks of tomorrow or 1970, of a session | nothing | 4, others 3 | faults::clock::of_whatever_date_its_locks_are_a_session_refuses_others_and_is_taken_over_by_force
locks of tomorrow or 1970, of a killed session | nothing | 137 | faults::clock::of_whatever_date_its_locks_are_a_killed_session_gives_them_back
locks of tomorrow or 1970, left or a holder's | nothing | 0, held 3 | faults::clock::of_whatever_date_it_is_a_dead_lock_is_reclaimed_and_a_holders_is_not
other clocks than everybody's: a time namespace | nothing | 0, taken over 4, killed 137 | faults::clock::who_has_another_clock_is_a_session_like_any_other
locks removed | nothing | 0 | lock_traps::a_lock_that_somebody_removes_is_made_again
locks removed, on a filesystem without O_TMPFILE | nothing | 0 | faults::behind_our_back::a_lock_is_made_again_by_the_name_of_another_where_no_file_is_without_a_name
others' files made and removed beside the locks | nothing | 0 | faults::behind_our_back::what_others_do_in_the_lock_directory_costs_a_session_next_to_nothing
a lock overwritten | nothing, and it says so | 143 | faults::behind_our_back::an_overwritten_lock_is_reported_once_and_removed_at_the_end
a lock overwritten, then SIGKILL | that lock | 137 | faults::behind_our_back::an_overwritten_lock_of_a_killed_session_is_left
a lock overwritten by a living program | that lock, and it says so | 0 | faults::behind_our_back::a_lock_that_a_living_program_overwrites_is_theirs
a lock directory moved away or replaced | its locks, and it says so | 0 | faults::behind_our_back::a_lock_directory_that_is_moved_or_replaced_is_reported
a lock directory moved during an offer | its locks, and it says so | 0 | faults::behind_our_back::a_lock_directory_that_is_moved_while_a_newcomer_is_offered_the_console_is_reported
a lock directory removed | its locks, and it says so | 0 | faults::behind_our_back::the_locks_in_a_directory_that_is_removed_are_reported
SIGKILL at any moment | what was in its buffers | 137 | guard::a_session_killed_at_any_moment_leaves_nothing_behind
";

/// What the calling test may accept by its line of the table, of whom: `the loader`, or of vconsole
/// itself, which has no name there.
pub(super) fn statuses(whose: &str) -> Vec<i32> {
    let thread = std::thread::current();
    let test = thread.name().unwrap();
    let fault = faults().into_iter().find(|fault| fault.test == test).unwrap();
    let of_each = fault.status.split("; ").map(|part| {
        let numbers = part.find(|character: char| character.is_ascii_digit()).unwrap();
        part.split_at(numbers)
    });
    let mut ours = of_each.filter(|(who, _)| who.trim_end() == whose).map(|(_, statuses)| statuses);
    let statuses = ours.next().map(|statuses| statuses.split(", ")).into_iter().flatten();
    statuses.map(|status| status.parse().unwrap()).collect()
}

/// The lines of the table.
fn faults() -> Vec<Fault> {
    let fault = |line: &'static str| {
        let mut fields = line.split(" | ");
        let mut field = || fields.next().unwrap();
        Fault { what: field(), lost: field(), status: field(), test: field() }
    };
    FAULTS.lines().map(fault).collect()
}

/// This very program, with these arguments.
fn run(arguments: &[&str]) -> String {
    let output = Command::new(std::env::current_exe().unwrap()).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn every_fault_of_the_table_has_its_test() {
    let all = run(&["--list"]);
    for Fault { what, test, .. } in faults() {
        assert!(all.lines().any(|line| line == format!("{test}: test")), "{what}: no {test}");
    }
    let ours = all.lines().filter_map(|line| line.strip_suffix(": test"));
    for test in ours.filter(|test| test.starts_with("faults::") && !test.contains("::table::")) {
        assert!(
            faults().iter().any(|fault| fault.test == test),
            "{test} is in no line of the table"
        );
    }
}

#[test]
#[ignore = "runs each fault's test, which run anyway, and prints the table"]
fn prints_fault_by_fault_what_became_of_it() {
    let faults = faults();
    let tests: Vec<&str> = faults.iter().map(|fault| fault.test).collect();
    let report = run(&[&["--exact"], &tests[..]].concat());
    let results: BTreeMap<&str, &str> =
        report.lines().filter_map(|line| line.strip_prefix("test ")?.split_once(" ... ")).collect();
    let skipped = |test: &str| report.contains(&format!("skipped: {test}: "));
    println!("{:50} {:9} {:37} status", "fault", "survived", "lost");
    for fault in &faults {
        let survived = match results.get(fault.test) {
            _ if skipped(fault.test) => "skipped",
            Some(&"ok") => "yes",
            _ => "NO",
        };
        println!("{:50} {survived:9} {:37} {}", fault.what, fault.lost, fault.status);
    }
    assert!(faults.iter().all(|fault| results.get(fault.test) == Some(&"ok")), "{report}");
}
