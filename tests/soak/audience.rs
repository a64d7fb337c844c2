//! Those who watch the console, and what can happen to them.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::desk::{Desk, PATIENCE};
use crate::dice::Dice;
use crate::harness::{until, until_within};
use crate::seen::Role;
use crate::stage::Stage;
use crate::steps::{is_operated, types_something};

/// So many watch at most, but for operators who were taken over and stayed.
const MOST: usize = 4;
/// Who missed something is told within a second. The machine may be loaded.
const TOLD_WITHIN: Duration = Duration::from_secs(3);

pub(crate) fn has_room(stage: &Stage) -> bool {
    stage.audience.len() < MOST
}

pub(crate) fn is_there(stage: &Stage) -> bool {
    !stage.audience.is_empty()
}

/// Where nobody operates, one that is stopped would be the one who reads.
pub(crate) fn is_operated_for(stage: &Stage) -> bool {
    is_operated(stage) && stage.audience.iter().any(|viewer| !viewer.is_stopped)
}

pub(crate) fn is_stopped(stage: &Stage) -> bool {
    stage.audience.iter().any(|viewer| viewer.is_stopped)
}

pub(crate) fn can_operate(stage: &Stage) -> bool {
    stage.audience.iter().any(can_take_control)
}

/// The escape key is one of a terminal.
fn can_take_control(viewer: &Desk) -> bool {
    !viewer.is_in_pipes() && !viewer.is_stopped
}

/// The place of one of those who are so.
fn one_who(stage: &Stage, dice: &mut Dice, is_so: fn(&Desk) -> bool) -> usize {
    let audience = stage.audience.iter().enumerate();
    let all: Vec<usize> = audience.filter(|(_, it)| is_so(it)).map(|(at, _)| at).collect();
    dice.one_of(&all)
}

/// Somebody comes who watches; or reads, where nobody operates.
pub(crate) fn comes(stage: &mut Stage, dice: &mut Dice) {
    let program = stage.attach().arg("--read-only");
    // Most of them are to be able to operate.
    let viewer =
        if dice.below(3) == 0 { Desk::in_pipes(&program) } else { Desk::at_a_terminal(program) };
    let mut viewer = viewer.that_stays(true);
    until_within(PATIENCE, "it watches or reads", || {
        let ended = viewer.session().has_ended();
        assert!(!ended, "it ended: {}", viewer.notices());
        viewer.role() != Role::None
    });
    stage.audience.push(viewer);
}

pub(crate) fn leaves(stage: &mut Stage, dice: &mut Dice) {
    let mut viewer = stage.audience.remove(dice.below(stage.audience.len()));
    viewer.goes_on();
    if viewer.is_in_pipes() || viewer.role() == Role::None || dice.coin() {
        viewer.signal(Signal::TERM);
        stage.viewer_has_ended(viewer, Some(143));
    } else {
        viewer.types(b"\x1d.");
        stage.viewer_has_ended(viewer, Some(0));
    }
}

pub(crate) fn is_killed(stage: &mut Stage, dice: &mut Dice) {
    let viewer = stage.audience.remove(dice.below(stage.audience.len()));
    viewer.signal(Signal::KILL);
    stage.viewer_has_ended(viewer, None);
}

/// It is stopped until it is continued, or needed.
pub(crate) fn stops(stage: &mut Stage, dice: &mut Dice) {
    let one = one_who(stage, dice, |viewer| !viewer.is_stopped);
    stage.audience[one].stops();
}

pub(crate) fn goes_on(stage: &mut Stage, dice: &mut Dice) {
    let one = one_who(stage, dice, |viewer| viewer.is_stopped);
    stage.audience[one].goes_on();
}

/// A viewer operates, whoever does or reads now. What is typed behind the wish is for the console.
pub(crate) fn takes_control(stage: &mut Stage, dice: &mut Dice) {
    // It is sure to be at a place where it hears the key.
    stage.is_watched();
    if is_operated(stage) {
        types_something(stage, dice);
    }
    let one = one_who(stage, dice, can_take_control);
    let mut successor = stage.audience.remove(one);
    successor.types(b"\x1df");
    until_within(PATIENCE, "it operates", || {
        let ended = successor.session().has_ended();
        assert!(!ended, "it ended: {}", successor.notices());
        successor.role() == Role::Operates
    });
    let mut has_ended = false;
    if let Some(old) = stage.operator.take() {
        has_ended = !old.stays;
        stage.was_taken_over(old);
    }
    stage.has_control(successor, has_ended);
}

/// The guest prints nothing for a while: everybody sees all of it, but for what they are told they missed.
pub(crate) fn is_told_all(stage: &mut Stage, _: &mut Dice) {
    stage.flood.rests();
    stage.everybody_goes_on();
    stage.is_watched();
    let start = Instant::now();
    let untold = |viewer: &mut Desk| {
        viewer.role();
        viewer.told.untold(&viewer.seen)
    };
    until("what is missing is what was told, or nobody can tell it", || {
        let all = stage.audience.iter_mut().map(untold).sum::<u64>();
        all == 0 || start.elapsed() > TOLD_WITHIN
    });
    for viewer in &mut stage.audience {
        let missing = untold(viewer);
        let forgiven = viewer.told.forgives(missing);
        assert!(forgiven, "it misses {missing} bytes, and was not told:\n{}", viewer.notices());
    }
    stage.flood.pours_on();
}

impl Stage {
    /// A viewer has ended, with this status if it was not killed.
    #[track_caller]
    pub(crate) fn viewer_has_ended(&mut self, mut viewer: Desk, status: Option<i32>) {
        // As it was when all was looked at: it says that it leaves.
        let reads = self.operator.is_none() && viewer.told.role == Role::Reads;
        until_within(PATIENCE, "it ends", || viewer.session().has_ended());
        if let Some(status) = status {
            assert_eq!(viewer.session().wait(), status, "{}", viewer.notices());
        }
        viewer.last_words();
        viewer.is_as_it_was();
        if reads {
            self.shown.skips_to(viewer.seen.at().unwrap_or_default().max(self.shown.at()));
            if status.is_none() {
                self.shown.may_have_a_gap();
            }
        }
        let lost = viewer.notices().contains("bytes of output lost");
        assert!(!lost, "it did not show all that it read: {}", viewer.notices());
        viewer.role();
        self.watched.0 += viewer.seen.length;
        self.watched.1 += viewer.told.missed();
        self.gone.push(viewer);
    }

    fn everybody_goes_on(&mut self) {
        self.audience.iter_mut().for_each(Desk::goes_on);
    }

    /// Nobody operates, one of those who watch reads, and has every lock.
    #[track_caller]
    pub(crate) fn is_read(&mut self) {
        self.everybody_goes_on();
        self.is_watched();
        let reader = self.audience.iter_mut().find(|viewer| viewer.told.role == Role::Reads);
        let reader = reader.unwrap();
        self.shown.skips_to(reader.seen.at().unwrap());
        let pid = reader.session().pid();
        self.is_held_by(pid);
    }

    /// Everybody who watches and is not stopped watches who has the console, and sees what it prints.
    #[track_caller]
    pub(crate) fn is_watched(&mut self) {
        let target = self.flood.taken();
        let mut roles = Vec::new();
        let start = Instant::now();
        while !self.all_see(target, &mut roles) {
            let late = start.elapsed() > PATIENCE;
            let places: Vec<_> = self.audience.iter().map(|viewer| viewer.seen.at()).collect();
            let said = || self.audience.iter().map(Desk::notices).collect::<Vec<_>>().join("\n");
            assert!(!late, "{roles:?} at {places:?} and not {target}:\n{}", said());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether all have seen what comes before a place, and are where they are to be.
    #[track_caller]
    fn all_see(&mut self, target: u64, roles: &mut Vec<(i32, Role)>) -> bool {
        let awake = self.audience.iter_mut().filter(|viewer| !viewer.is_stopped);
        let mut there = true;
        roles.clear();
        for viewer in awake {
            viewer.shows();
            roles.push((viewer.session().pid(), viewer.role()));
            assert!(!viewer.session().has_ended(), "it ended: {}", viewer.notices());
            there &= viewer.seen.is_at(target);
        }
        let readers = roles.iter().filter(|(_, role)| *role == Role::Reads).map(|(pid, _)| *pid);
        let operators = self.operator.iter().map(|operator| operator.session().pid());
        let holders: Vec<i32> = readers.chain(operators).collect();
        let Some(holder) = holders.first().filter(|_| holders.len() == 1) else {
            return roles.is_empty();
        };
        there && roles.iter().all(|(pid, role)| pid == holder || *role == Role::Watches(*holder))
    }
}
