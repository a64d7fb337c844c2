//! `vconsole attach`: one console, one driver.

mod ask;
mod candidates;
mod gain;
mod look_on;
mod takeover;
mod view;
mod visitors;
mod wait;
mod watch;

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};

use crate::audit::{self, Event};
use crate::claim::guard::Guard;
use crate::claim::{Claim, Refusal};
use crate::cli;
use crate::console::{Kind, OtherEnd, Target, unless_hung_up};
use crate::exit_status::ExitStatus;
use crate::printable::{Printable, local_time};
use crate::process::{Census, Openers, Process};
use crate::relay::{self, Ending, Line, Notices, Settings, Signals, Traffic, Undelivered, Watcher};
use crate::session::protocol::{Leave, Place};
use crate::session::{Gallery, Tape, Visitor};
use crate::terminal::{self, LeftRaw, RawMode};
use crate::test_point;
use gain::{Gained, gain};
use look_on::{follow, look_on, look_on_after};
use view::{View, watch};
use visitors::{Rules, Visitors};
use wait::Waited;
use watch::{GuardWatch, IntruderWatch};

/// How long the last words may take on a terminal that takes none.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Runs `vconsole attach`.
pub fn run(options: &cli::Attach) -> anyhow::Result<ExitStatus> {
    // From here on a signal waits until what it would leave behind can be given back.
    let mut signals = Signals::new().context("cannot watch for signals")?;
    let mut notices = Notices::new(options.quiet);
    if !terminal::in_foreground() {
        bail!(
            "started in the background of a terminal that it would have to read: use fg, or `< /dev/null`"
        );
    }

    let target = Target::find(&options.console)?;
    let openers = Openers::of(target.device());
    target.check_that_it_may_be_driven(&openers)?;
    let mut next = if options.watching.read_only {
        look_on(options, &target, None, &mut notices, &mut signals)
    } else {
        gain(options, &target, &openers, &mut notices, &mut signals).map(Role::from)
    };
    if let Ok(Role::Drive { .. }) = next {
        say_what_is_hidden(&openers, &mut notices);
    }
    loop {
        if let Err(error) = &next {
            if let (Some(Refusal::GivenUp { .. }), Some(signal)) =
                (error.downcast_ref(), signals.ending())
            {
                return Ok(ExitStatus::Signal(signal));
            }
            audit::record(&target.to_string(), &Event::Refused { why: &error.to_string() });
        }
        next = match next? {
            Role::Out(status) => return Ok(status),
            Role::Watch(view) => watch(options, &target, *view, &mut notices, &mut signals),
            Role::Drive { gained, typing } => {
                Ok(take_the_seat(options, &target, *gained, typing, &mut notices, &mut signals)?)
            }
        };
    }
}

/// What we do next.
#[derive(Debug)]
enum Role {
    /// Drive a console that is ours; or without typing read it, until somebody comes who drives.
    Drive { gained: Box<Gained>, typing: bool },
    /// Watch what another session drives.
    Watch(Box<View>),
    /// Leave.
    Out(ExitStatus),
}

impl From<Waited> for Role {
    fn from(waited: Waited) -> Self {
        match waited {
            Waited::Claimed(gained) => Self::Drive { gained, typing: true },
            Waited::Ended(status) => Self::Out(status),
        }
    }
}

/// Drives, gives everything back, and says how it ended.
fn take_the_seat(
    options: &cli::Attach,
    target: &Target,
    gained: Gained,
    typing: bool,
    notices: &mut Notices,
    signals: &mut Signals,
) -> anyhow::Result<Role> {
    record_gain(options, target, &gained);
    test_point::reached("claimed");
    if let Some(signal) = signals.ending() {
        say_lost(&gained.left, notices);
        drop(gained);
        return Ok(leave(target, Ending::Signal(signal), &Traffic::default(), notices));
    }
    let Gained { claim, guard, left, tape, from, terminal, .. } = gained;
    if let Some(from) = from {
        notices.say(format_args!("took {target} over from {from}"));
    }
    let (typing, traffic) = (Cell::new(typing), Traffic::default());
    let (ours, doings) = ((claim, left, tape, terminal), (&typing, &traffic));
    let ended = drive(options, target, ours, doings, &guard, notices, signals);

    drop(guard);
    let (status, why) = match &ended {
        Ok(Driven { ending, successor, .. }) => {
            (exit_status(*ending), last_words(*ending, successor.as_ref(), target))
        }
        Err(error) => (ExitStatus::Failed, error.to_string()),
    };
    match &ended {
        Ok(Driven { successor: Some(successor), .. }) => {
            let (received, sent) = (traffic.received(), traffic.sent());
            let by = successor.to_string();
            audit::record(&target.to_string(), &Event::TakenOver { by: &by, received, sent });
        }
        Ok(_) | Err(_) => record_end(target, &why, &traffic),
    }
    let Driven { successor, seen, gallery, .. } = ended?;
    test_point::reached("closing");
    if let Some((gallery, leave)) = gallery {
        gallery.close(leave);
    }
    match successor {
        // Whoever is sent away has to know by whom.
        Some(_) => notices.answer(why),
        None => notices.say(why),
    }
    notices.flush(LAST_WORDS);
    match successor {
        Some(heir) if options.watching.stay || options.watching.read_only => {
            Ok(stay_on(options, target, &heir, seen, notices, signals))
        }
        _ => Ok(Role::Out(status)),
    }
}

/// Watches on, where another drives now. Where that is not to be, leaves.
fn stay_on(
    options: &cli::Attach,
    target: &Target,
    heir: &Visitor,
    seen: Option<Place>,
    notices: &mut Notices,
    signals: &mut Signals,
) -> Role {
    let heir = (heir.process.pid, heir.process.uid.unwrap_or_default());
    let view = follow(options, target, heir, seen, notices, signals).map_err(anyhow::Error::new);
    let next = view.and_then(|view| match view {
        Some(view) => Ok(Role::Watch(Box::new(view))),
        // It has passed on from there.
        None => look_on_after(Some(heir.0), options, target, seen, notices, signals),
    });
    next.unwrap_or_else(|error| {
        if let Some(signal) = signals.ending() {
            return Role::Out(ExitStatus::Signal(signal));
        }
        notices.say(format_args!("{error:#}"));
        notices.flush(LAST_WORDS);
        Role::Out(ExitStatus::TakenOver)
    })
}

fn record_gain(options: &cli::Attach, target: &Target, gained: &Gained) {
    let reason = options.reason.as_deref();
    let event = match &gained.from {
        Some(from) => Event::TookOver { from, reason },
        None => Event::Attached { how: gained.how, reason },
    };
    audit::record(&target.to_string(), &event);
}

/// Says and records how a session ended that has nothing to give back any more.
fn leave(target: &Target, ending: Ending, traffic: &Traffic, notices: &mut Notices) -> Role {
    let why = last_words(ending, None, target);
    record_end(target, &why, traffic);
    notices.say(why);
    notices.flush(LAST_WORDS);
    Role::Out(exit_status(ending))
}

fn record_end(target: &Target, why: &str, traffic: &Traffic) {
    let (received, sent) = (traffic.received(), traffic.sent());
    audit::record(&target.to_string(), &Event::Ended { why, received, sent });
}

/// How driving ended.
struct Driven {
    ending: Ending,
    /// Who drives instead, if we handed the console over.
    successor: Option<Visitor>,
    /// The place of the first byte that was not shown.
    seen: Option<Place>,
    /// Those who watch: they are told when everything was given back, and they may claim it.
    gallery: Option<(Gallery, Leave)>,
}

/// Relays between the terminal and a console that is ours, until there is a reason to end; then gives
/// back the terminal, and after it the claim.
fn drive(
    options: &cli::Attach,
    target: &Target,
    (mut claim, left, tape, terminal): (Claim, Undelivered, Tape, Option<LeftRaw>),
    (typing, traffic): (&Cell<bool>, &Traffic),
    guard: &Guard,
    notices: &mut Notices,
    signals: &mut Signals,
) -> anyhow::Result<Driven> {
    let intruders = claim.take_intruders();
    let claim = claim;
    // Who finds the claim finds the session.
    let rules = Rules { private: options.watching.private, typing };
    let mut visitors = Visitors::admit(&claim, guard, rules, tape, notices);
    let mut intruder_watch = IntruderWatch::new(intruders, &claim, guard);
    let raw = match make_raw(&claim, guard, terminal) {
        Ok(raw) => raw,
        Err(error) => {
            say_lost(&left, notices);
            return Err(error);
        }
    };

    claim.remarks().iter().for_each(|remark| notices.say(remark));
    notices.say(connected(target, raw.as_ref(), typing.get(), options));
    let since = SystemTime::now();
    let settings = Settings {
        escape: options.escape,
        linger: options.linger,
        linger_max: options.linger_max,
        typing,
        status_line: &|| state(target, &claim, since, typing.get()),
        traffic,
    };
    let side_door = visitors.side_door();
    let mut guard_watch = GuardWatch::new(guard, Some(&claim), raw.as_ref(), side_door);
    guard_watch.see_that_it_is_up(notices);
    let watchers: [&mut dyn Watcher; 3] = [&mut guard_watch, &mut intruder_watch, &mut visitors];
    let line = Line::Console(claim.console());
    let (ending, _) = relay::run(line, raw.as_ref(), notices, signals, watchers, &settings, &left)?;
    if ending == Ending::HungUp {
        claim.flag_after_hang_up(target).iter().for_each(|line| notices.answer(line));
    }
    let (successor, seen) = (visitors.successor().cloned(), visitors.seen());
    Ok(Driven { ending, successor, seen, gallery: visitors.take_gallery(ending) })
}

/// Makes both ends raw: ours only where it was not `left` so.
fn make_raw<'a>(
    claim: &Claim,
    guard: &'a Guard,
    left: Option<LeftRaw>,
) -> anyhow::Result<Option<RawMode<'a>>> {
    let console = claim.console();
    let raw = console.set_raw().or_else(unless_hung_up);
    raw.with_context(|| format!("cannot set {console} raw"))?;
    match left {
        Some(terminal) => {
            let raw = terminal.take_up(guard);
            raw.resume().map(|()| Some(raw))
        }
        None => RawMode::enter(guard),
    }
    .context("cannot set the terminal raw")
}

/// What the driver before us left is lost, where we end before we relay.
fn say_lost(left: &Undelivered, notices: &mut Notices) {
    let (typed, printed) = (left.typed.len(), left.printed.len());
    if typed + printed > 0 {
        notices.answer(format_args!(
            "{typed} bytes of input and {printed} bytes of output lost, which the driver before us left"
        ));
        notices.flush(LAST_WORDS);
    }
}

/// Who has the console without a lock is known only as far as `/proc` shows it.
fn say_what_is_hidden(openers: &Openers, notices: &mut Notices) {
    let hidden = openers.hidden.len();
    if openers.blind {
        notices.say("without /proc nobody can be seen who has the console open");
    } else if hidden > 0 {
        let processes = if hidden == 1 { "process has" } else { "processes have" };
        notices.say(format_args!("/proc hides from you what {hidden} other {processes} open"));
    }
}

fn connected(
    target: &Target,
    raw: Option<&RawMode<'_>>,
    typing: bool,
    options: &cli::Attach,
) -> String {
    let how = if typing { "" } else { ", read-only: nobody drives it" };
    let helps = if typing { "? helps" } else { "f takes the wheel" };
    match (raw, options.escape.byte()) {
        (Some(_), Some(_)) => {
            let key = options.escape;
            format!("connected to {target}{how}; {key} then . leaves, {key} then {helps}")
        }
        _ => format!("connected to {target}{how}"),
    }
}

/// What the escape key's `s` answers.
fn state(target: &Target, claim: &Claim, since: SystemTime, typing: bool) -> String {
    let census = Census::take();
    let kind = match claim.console().kind() {
        Kind::Pty => "a PTY",
        Kind::Serial => "a serial port",
    };
    let files = claim.lock_files();
    let mut held: Vec<_> = files.iter().map(|file| Printable::new(file).to_string()).collect();
    held.push("flock".to_owned());
    if claim.console().has_own_flag() {
        held.push("the exclusive flag".to_owned());
    }
    let held = held.join(", ");
    let (console, pid) = (claim.console(), Process::own_pid());
    let others = census.masters(target.device()).processes;
    let other_end = others.first().map_or_else(String::new, |process| {
        format!("\nat its other end: {}", OtherEnd::of((*process).clone()))
    });
    let since = local_time(since);
    let driven = if typing { "driven" } else { "read" };
    format!("{console}, {kind}, {driven} by pid {pid} since {since}{other_end}\nheld by {held}")
}

fn last_words(ending: Ending, successor: Option<&Visitor>, target: &Target) -> String {
    match ending {
        Ending::Detached => format!("detached from {target}"),
        Ending::InputEnded => format!("end of input, left {target}"),
        Ending::HungUp => format!("{target} hung up"),
        Ending::ReaderGone => format!("nobody reads the output any more, left {target}"),
        Ending::TerminalGone => format!("the terminal is gone, left {target}"),
        Ending::TimeLimit => format!("the time limit passed, left {target}"),
        Ending::HandedOver => match successor {
            Some(visitor) => format!("{target} was taken over by {visitor}"),
            None => format!("left {target}"),
        },
        // It is not an end.
        Ending::Wheel => format!("{target} is to be driven from here"),
        Ending::Signal(number) => format!("ended by {}, left {target}", name_of(number)),
    }
}

fn name_of(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string())
}

fn exit_status(ending: Ending) -> ExitStatus {
    match ending {
        Ending::Detached | Ending::InputEnded | Ending::Wheel => ExitStatus::Done,
        Ending::HandedOver => ExitStatus::TakenOver,
        Ending::HungUp => ExitStatus::HungUp,
        Ending::ReaderGone => ExitStatus::Signal(libc::SIGPIPE),
        Ending::TerminalGone => ExitStatus::Signal(libc::SIGHUP),
        Ending::TimeLimit => ExitStatus::TimeLimit,
        Ending::Signal(number) => ExitStatus::Signal(number),
    }
}
