//! Those who wait for the console, and what can happen to them.

use std::time::Duration;

use rustix::process::Signal;

use crate::desk::{Desk, PATIENCE};
use crate::dice::Dice;
use crate::harness::{contains, until_within};
use crate::stage::Stage;
use crate::steps::is_operated;

/// So many wait at most.
const MOST: usize = 2;
/// Who does not take a free console for so long is passed over.
const COURTESY: Duration = Duration::from_secs(2);

pub(crate) fn has_room(stage: &Stage) -> bool {
    is_operated(stage) && stage.queue.len() < MOST
}

pub(crate) fn is_there(stage: &Stage) -> bool {
    !stage.queue.is_empty()
}

/// Somebody comes who waits.
pub(crate) fn comes(stage: &mut Stage, dice: &mut Dice) {
    let limit = dice.one_of(&["--wait", "--wait=1h"]);
    let desk = Desk::somewhere(stage.attach().arg(limit), dice);
    until_within(PATIENCE, "it waits", || contains(desk.notices().as_bytes(), b"waiting for"));
    stage.queue.push(desk);
}

/// One who waits waits no longer.
pub(crate) fn one_gives_up(stage: &mut Stage, dice: &mut Dice) {
    let desk = stage.queue.remove(dice.below(stage.queue.len()));
    abandons(&desk);
}

#[track_caller]
pub(crate) fn abandons(desk: &Desk) {
    desk.signal(Signal::TERM);
    assert_eq!(desk.session().wait(), 143, "{}", desk.notices());
    desk.is_as_it_was();
}

/// Somebody waits in vain.
pub(crate) fn time_runs_out(stage: &mut Stage, dice: &mut Dice) {
    let limit = format!("--wait={}ms", dice.below(150));
    let output = stage.attach().arg(limit).output();
    assert_eq!(output.status, 124, "{output:?}");
}

impl Stage {
    /// The operator has left, and whoever waited longest operates.
    #[track_caller]
    pub(crate) fn one_who_waits_operates(&mut self) {
        until_within(PATIENCE, "one of those who wait operates", || {
            let ended = self.queue.iter().find(|desk| desk.session().has_ended());
            assert!(ended.is_none(), "it waits no more: {}", ended.unwrap().notices());
            self.queue.iter().any(Desk::is_connected)
        });
        let first = self.queue.iter().position(Desk::is_connected).unwrap();
        assert!(first == 0 || self.begun.elapsed() > COURTESY, "number {first} did not wait");
        let desk = self.queue.remove(first);
        if !self.audience.is_empty() {
            self.shown.may_be_elsewhere();
        }
        let absent = self.audience.iter_mut().filter(|viewer| viewer.is_stopped);
        absent.for_each(|viewer| viewer.told.was_absent());
        self.operates(desk);
    }

    /// One operates, and those who wait go on waiting.
    #[track_caller]
    pub(crate) fn the_others_wait(&self) {
        for desk in &self.queue {
            let waits = !desk.is_connected() && !desk.session().has_ended();
            assert!(waits, "it waits no more: {}", desk.notices());
        }
    }
}
