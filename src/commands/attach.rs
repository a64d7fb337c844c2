//! `vconsole attach`: one console, one driver.

mod ask;
mod gain;
mod takeover;
mod visitors;
mod wait;
mod watch;

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};

use crate::audit::{self, Event};
use crate::claim::guard::Guard;
use crate::claim::{Claim, Refusal};
use crate::cli;
use crate::console::{Kind, OtherEnd, Target};
use crate::exit_status::ExitStatus;
use crate::printable::{Printable, local_time};
use crate::process::{Census, Openers, Process};
use crate::relay::{self, Ending, Notices, Settings, Signals, Traffic, Undelivered, Watcher};
use crate::session::Visitor;
use crate::terminal::{self, RawMode};
use crate::test_point;
use gain::{Gained, gain};
use visitors::Visitors;
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
    let waited = gain(options, &target, &openers, &mut notices, &mut signals);
    if let Err(error) = &waited {
        if let (Some(Refusal::GivenUp { .. }), Some(signal)) =
            (error.downcast_ref(), signals.ending())
        {
            return Ok(ExitStatus::Signal(signal));
        }
        audit::record(&target.to_string(), &Event::Refused { why: &error.to_string() });
    }
    let gained = match waited? {
        Waited::Claimed(gained) => *gained,
        Waited::Ended(status) => return Ok(status),
    };
    record_gain(options, &target, &gained);
    test_point::reached("claimed");
    if let Some(signal) = signals.ending() {
        say_lost(&gained.left, &mut notices);
        return Ok(ExitStatus::Signal(signal));
    }
    say_what_is_hidden(&openers, &mut notices);
    let Gained { claim, guard, left, from, .. } = gained;
    if let Some(from) = from {
        notices.say(format_args!("took {target} over from {from}"));
    }
    let traffic = Traffic::default();
    let ours = (claim, left, &traffic);
    let ended = drive(options, &target, ours, &guard, &mut notices, &mut signals);

    drop(guard);
    let (status, why) = match &ended {
        Ok((ending, successor)) => {
            (exit_status(*ending), last_words(*ending, successor.as_ref(), &target))
        }
        Err(error) => (ExitStatus::Failed, error.to_string()),
    };
    match &ended {
        Ok((_, Some(successor))) => {
            let (received, sent) = (traffic.received(), traffic.sent());
            let by = successor.to_string();
            audit::record(&target.to_string(), &Event::TakenOver { by: &by, received, sent });
        }
        Ok(_) | Err(_) => record_end(&target, &why, &traffic),
    }
    ended?;
    notices.say(why);
    notices.flush(LAST_WORDS);
    Ok(status)
}

fn record_gain(options: &cli::Attach, target: &Target, gained: &Gained) {
    let reason = options.reason.as_deref();
    let event = match &gained.from {
        Some(from) => Event::TookOver { from, reason },
        None => Event::Attached { how: gained.how, reason },
    };
    audit::record(&target.to_string(), &event);
}

fn record_end(target: &Target, why: &str, traffic: &Traffic) {
    let (received, sent) = (traffic.received(), traffic.sent());
    audit::record(&target.to_string(), &Event::Ended { why, received, sent });
}

/// Relays between the terminal and a console that is ours, until there is a reason to end; then gives
/// back the terminal, and after it the claim.
fn drive(
    options: &cli::Attach,
    target: &Target,
    (mut claim, left, traffic): (Claim, Undelivered, &Traffic),
    guard: &Guard,
    notices: &mut Notices,
    signals: &mut Signals,
) -> anyhow::Result<(Ending, Option<Visitor>)> {
    let intruders = claim.take_intruders();
    let claim = claim;
    // Who finds the claim finds the session.
    let mut visitors = Visitors::admit(&claim, guard, notices);
    let mut intruder_watch = IntruderWatch { intruders, claim: &claim, guard };
    let raw = match make_raw(&claim, guard) {
        Ok(raw) => raw,
        Err(error) => {
            say_lost(&left, notices);
            return Err(error);
        }
    };

    claim.remarks().iter().for_each(|remark| notices.say(remark));
    notices.say(connected(target, raw.as_ref(), options));
    let since = SystemTime::now();
    let settings = Settings {
        escape: options.escape,
        linger: options.linger,
        linger_max: options.linger_max,
        status_line: &|| state(target, &claim, since),
        traffic,
    };
    let side_door = visitors.side_door();
    let mut guard_watch = GuardWatch::new(guard, &claim, raw.as_ref(), side_door);
    guard_watch.see_that_it_is_up(notices);
    let watchers: [&mut dyn Watcher; 3] = [&mut guard_watch, &mut intruder_watch, &mut visitors];
    let ending =
        relay::run(claim.console(), raw.as_ref(), notices, signals, watchers, &settings, &left)?;
    Ok((ending, visitors.successor().cloned()))
}

/// Makes both ends raw.
fn make_raw<'a>(claim: &Claim, guard: &'a Guard) -> anyhow::Result<Option<RawMode<'a>>> {
    let console = claim.console();
    console.set_raw().with_context(|| format!("cannot set {console} raw"))?;
    RawMode::enter(guard).context("cannot set the terminal raw")
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

fn connected(target: &Target, raw: Option<&RawMode<'_>>, options: &cli::Attach) -> String {
    match (raw, options.escape.byte()) {
        (Some(_), Some(_)) => {
            let key = options.escape;
            format!("connected to {target}; {key} then . leaves, {key} then ? helps")
        }
        _ => format!("connected to {target}"),
    }
}

/// What the escape key's `s` answers.
fn state(target: &Target, claim: &Claim, since: SystemTime) -> String {
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
    format!("{console}, {kind}, driven by pid {pid} since {since}{other_end}\nheld by {held}")
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
        Ending::Signal(number) => format!("ended by {}, left {target}", name_of(number)),
    }
}

fn name_of(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string())
}

fn exit_status(ending: Ending) -> ExitStatus {
    match ending {
        Ending::Detached | Ending::InputEnded => ExitStatus::Done,
        Ending::HandedOver => ExitStatus::TakenOver,
        Ending::HungUp => ExitStatus::HungUp,
        Ending::ReaderGone => ExitStatus::Signal(libc::SIGPIPE),
        Ending::TerminalGone => ExitStatus::Signal(libc::SIGHUP),
        Ending::TimeLimit => ExitStatus::TimeLimit,
        Ending::Signal(number) => ExitStatus::Signal(number),
    }
}
