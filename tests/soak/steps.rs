//! What can happen.

use std::time::Duration;

use rustix::process::Signal;

use crate::desk::Desk;
use crate::dice::Dice;
use crate::harness::{Bystander, Program, Terminal, until};
use crate::stage::Stage;
use crate::{audience, queue};

/// Something that can happen.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    /// Whether it can happen now.
    may: fn(&Stage) -> bool,
    pub(crate) run: fn(&mut Stage, &mut Dice),
}

const ALL: [Step; 28] = [
    Step { name: "attached", may: nobody_operates, run: attaches },
    Step { name: "evicted clients", may: is_free, run: evicts_a_client },
    Step { name: "evicted daemons", may: is_free_for_root, run: evicts_a_daemon },
    Step { name: "refused", may: is_operated, run: is_refused },
    Step { name: "takeovers", may: is_operated, run: takes_over },
    Step { name: "takeovers", may: is_operated, run: takes_over },
    Step { name: "takeovers from the stopped", may: is_operated, run: takes_over_from_the_stopped },
    Step { name: "takeovers in which one was killed", may: two_alone, run: one_of_two_is_killed },
    Step { name: "detached", may: is_at_a_terminal, run: detaches },
    Step { name: "ended by a signal", may: is_operated, run: is_ended_by_a_signal },
    Step { name: "killed", may: is_operated, run: is_killed },
    Step { name: "terminals vanished", may: is_at_a_terminal, run: terminal_vanishes },
    Step { name: "stopped and continued", may: is_in_pipes, run: stops_and_goes_on },
    Step { name: "guards killed", may: has_its_first_guard, run: guard_is_killed },
    Step { name: "guards stopped and continued", may: is_operated, run: guard_stops_and_goes_on },
    Step {
        name: "guests that read nothing",
        may: is_operated,
        run: guest_reads_nothing_for_a_while,
    },
    Step { name: "guests faster or slower", may: always, run: guest_changes_its_pace },
    Step { name: "guests silent", may: audience::is_there, run: audience::is_told_all },
    Step { name: "viewers came", may: audience::has_room, run: audience::comes },
    Step { name: "viewers left", may: audience::is_there, run: audience::leaves },
    Step { name: "viewers killed", may: audience::is_there, run: audience::is_killed },
    Step { name: "viewers stopped", may: audience::is_operated_for, run: audience::stops },
    Step { name: "viewers continued", may: audience::is_stopped, run: audience::goes_on },
    Step { name: "control taken", may: audience::can_operate, run: audience::takes_control },
    Step { name: "control taken", may: audience::can_operate, run: audience::takes_control },
    Step { name: "waiters came", may: queue::has_room, run: queue::comes },
    Step { name: "waiters gave up", may: queue::is_there, run: queue::one_gives_up },
    Step { name: "waiters' time ran out", may: is_operated, run: queue::time_runs_out },
];

/// What happens next.
pub(crate) fn choose(stage: &Stage, dice: &mut Dice) -> Step {
    let possible: Vec<Step> = ALL.into_iter().filter(|step| (step.may)(stage)).collect();
    dice.one_of(&possible)
}

fn always(_: &Stage) -> bool {
    true
}

fn nobody_operates(stage: &Stage) -> bool {
    stage.operator.is_none()
}

fn is_free(stage: &Stage) -> bool {
    nobody_operates(stage) && stage.audience.is_empty()
}

fn is_free_for_root(stage: &Stage) -> bool {
    is_free(stage) && rustix::process::geteuid().is_root()
}

pub(crate) fn is_operated(stage: &Stage) -> bool {
    stage.operator.is_some()
}

/// Nobody else goes on where the operator ends, and the operator ends.
fn two_alone(stage: &Stage) -> bool {
    stage.queue.is_empty() && stage.operator.as_ref().is_some_and(|operator| !operator.stays)
}

fn is_in_pipes(stage: &Stage) -> bool {
    stage.operator.as_ref().is_some_and(Desk::is_in_pipes)
}

fn is_at_a_terminal(stage: &Stage) -> bool {
    stage.operator.as_ref().is_some_and(|operator| !operator.is_in_pipes())
}

fn has_its_first_guard(stage: &Stage) -> bool {
    stage.operator.as_ref().is_some_and(|operator| !operator.guard_was_killed)
}

/// Starts `program`, which attaches. Some stay when they are taken over.
fn is_started(program: Program, dice: &mut Dice) -> Desk {
    let stays = dice.below(3) == 0;
    let program = if stays { program.arg("--stay") } else { program };
    Desk::somewhere(program, dice).that_stays(stays)
}

fn attaches(stage: &mut Stage, dice: &mut Dice) {
    let desk = is_started(stage.attach(), dice);
    desk.connects();
    if !stage.audience.is_empty() {
        stage.shown.may_be_elsewhere();
    }
    stage.operates(desk);
}

fn is_forced(stage: &mut Stage, dice: &mut Dice) {
    let desk = Desk::somewhere(stage.attach().arg("--force"), dice);
    desk.connects();
    stage.operates(desk);
}

/// Somebody at a terminal has the console open, and reads nothing.
fn evicts_a_client(stage: &mut Stage, dice: &mut Dice) {
    let desk = Terminal::new();
    let redirection = format!("<'{}'", stage.guest.path().display());
    let client = Program::new("sleep").arg("1000").redirected(redirection).on(&desk);
    let path = stage.guest.path().to_path_buf();
    until("the client has the console open", || client.open_files().contains(&path));
    is_forced(stage, dice);
    until("the client is evicted", || client.has_ended());
}

/// A daemon has it open: it is hung up, and what nobody had read is dropped.
fn evicts_a_daemon(stage: &mut Stage, dice: &mut Dice) {
    let _daemon = Bystander::daemon_with_open(stage.guest.path());
    stage.was_disturbed();
    is_forced(stage, dice);
}

fn is_refused(stage: &mut Stage, _: &mut Dice) {
    let refused = stage.attach().output();
    assert_eq!(refused.status, 3, "{refused:?}");
}

pub(crate) fn types_something(stage: &mut Stage, dice: &mut Dice) {
    // No more than a terminal holds, should nobody read it.
    let most = if is_in_pipes(stage) { 30_000 } else { 2000 };
    stage.types(dice.below(most));
}

fn takes_over(stage: &mut Stage, dice: &mut Dice) {
    types_something(stage, dice);
    let desk = is_started(stage.attach().arg("--force"), dice);
    desk.connects();
    let old = stage.operator.take().unwrap();
    stage.was_taken_over(old);
    stage.operates(desk);
}

fn takes_over_from_the_stopped(stage: &mut Stage, dice: &mut Dice) {
    types_something(stage, dice);
    let mut old = stage.operator.take().unwrap();
    let guard = old.guard().filter(|_| dice.coin());
    old.stops();
    if let Some(guard) = &guard {
        guard.signal(Signal::STOP);
    }
    let desk = is_started(stage.attach().arg("--force"), dice);
    desk.connects();
    stage.was_taken_over(old);
    stage.operates(desk);
    if let Some(guard) = guard {
        guard.signal(Signal::CONT);
    }
}

/// A kill in the middle leaves one operator or none.
fn one_of_two_is_killed(stage: &mut Stage, dice: &mut Dice) {
    types_something(stage, dice);
    let old = stage.operator.take().unwrap();
    let new = Desk::in_pipes(&stage.attach().arg("--force"));
    std::thread::sleep(dice.moment(Duration::from_millis(60)));
    if dice.coin() {
        new.signal(Signal::KILL);
        stage.newcomer_was_killed(old, new);
    } else {
        old.signal(Signal::KILL);
        stage.was_killed(old);
        new.connects();
        stage.operates(new);
    }
}

fn detaches(stage: &mut Stage, dice: &mut Dice) {
    types_something(stage, dice);
    let operator = stage.operator.take().unwrap();
    operator.types(b"\x1d.");
    stage.has_ended(operator, 0);
}

fn is_ended_by_a_signal(stage: &mut Stage, dice: &mut Dice) {
    types_something(stage, dice);
    let operator = stage.operator.take().unwrap();
    let (signal, status) =
        dice.one_of(&[(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130)]);
    operator.signal(signal);
    stage.has_ended(operator, status);
}

fn is_killed(stage: &mut Stage, dice: &mut Dice) {
    types_something(stage, dice);
    let operator = stage.operator.take().unwrap();
    // One that is stopped is not killed sooner or later.
    if operator.is_in_pipes() && dice.coin() {
        operator.signal(Signal::STOP);
    }
    operator.signal(Signal::KILL);
    stage.was_killed(operator);
}

fn terminal_vanishes(stage: &mut Stage, dice: &mut Dice) {
    types_something(stage, dice);
    let mut operator = stage.operator.take().unwrap();
    let words = operator.vanishes();
    assert_eq!(operator.session().wait(), 129);
    stage.has_no_terminal(operator, &words);
}

fn stops_and_goes_on(stage: &mut Stage, dice: &mut Dice) {
    types_something(stage, dice);
    let operator = stage.operator.as_ref().unwrap();
    operator.signal(Signal::STOP);
    std::thread::sleep(dice.moment(Duration::from_millis(100)));
    operator.signal(Signal::CONT);
}

fn guard_is_killed(stage: &mut Stage, _: &mut Dice) {
    let operator = stage.operator.as_mut().unwrap();
    until("it has a guard", || operator.guard().is_some());
    let guard = operator.guard().unwrap();
    guard.signal(Signal::KILL);
    operator.guard_was_killed = true;
    until("there is a new guard", || operator.guard().is_some_and(|new| new.pid() != guard.pid()));
}

fn guard_stops_and_goes_on(stage: &mut Stage, dice: &mut Dice) {
    types_something(stage, dice);
    let Some(guard) = stage.operator.as_ref().unwrap().guard() else { return };
    guard.signal(Signal::STOP);
    std::thread::sleep(dice.moment(Duration::from_millis(100)));
    guard.signal(Signal::CONT);
}

fn guest_reads_nothing_for_a_while(stage: &mut Stage, dice: &mut Dice) {
    stage.guest.stops_reading();
    types_something(stage, dice);
    std::thread::sleep(dice.moment(Duration::from_millis(100)));
    stage.guest.reads_on();
}

/// As fast as a viewer is given it, or faster, or so slowly that nobody misses anything.
fn guest_changes_its_pace(stage: &mut Stage, dice: &mut Dice) {
    stage.flood.pauses(Duration::from_millis(dice.one_of(&[2, 5, 50])));
}
