//! `vconsole attach`: one console, one driver.

mod watch;

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};

use crate::claim::guard::Guard;
use crate::claim::{Asker, Claim, Refusal, Request};
use crate::cli;
use crate::console::{Kind, OtherEnd, Target};
use crate::exit_status::ExitStatus;
use crate::printable::{Printable, local_time};
use crate::process::{Census, Openers, Process};
use crate::relay::{self, Ending, Notices, Settings, Signals, Watcher};
use crate::terminal::{self, RawMode};
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
    let guard = start_guard(&mut notices);
    let asker = User { notices: (&mut notices).into(), signals: (&mut signals).into() };
    let request = Request {
        target: &target,
        mode: options.locks.mode,
        place: &options.locks.place.directory,
        force: options.force,
        guard: &guard,
        asker: &asker,
    };
    let claim = match Claim::acquire(&request, &openers) {
        Err(gave_up @ Refusal::GivenUp { .. }) => {
            let signal = signals.ending().context(gave_up)?;
            return Ok(ExitStatus::Signal(signal));
        }
        claimed => claimed?,
    };
    if let Some(signal) = signals.ending() {
        return Ok(ExitStatus::Signal(signal));
    }
    say_what_is_hidden(&openers, &mut notices);
    let ended = drive(options, &target, claim, &guard, &mut notices, &mut signals);

    drop(guard);
    if let Ok(ending) = &ended {
        notices.say(last_words(*ending, &target));
    }
    notices.flush(LAST_WORDS);
    Ok(exit_status(ended?))
}

/// Relays between the terminal and a console that is ours, until there is a reason to end; then gives
/// back the terminal, and after it the claim.
fn drive(
    options: &cli::Attach,
    target: &Target,
    mut claim: Claim,
    guard: &Guard,
    notices: &mut Notices,
    signals: &mut Signals,
) -> anyhow::Result<Ending> {
    let intruders = claim.take_intruders();
    let claim = claim;
    let mut intruder_watch = IntruderWatch { intruders, claim: &claim, guard };
    claim.console().set_raw().with_context(|| format!("cannot set {target} raw"))?;
    let raw = RawMode::enter(guard).context("cannot set the terminal raw")?;

    claim.remarks().iter().for_each(|remark| notices.say(remark));
    notices.say(connected(target, raw.as_ref(), options));
    let since = SystemTime::now();
    let settings = Settings {
        escape: options.escape,
        linger: options.linger,
        linger_max: options.linger_max,
        status_line: &|| state(target, &claim, since),
    };
    let mut guard_watch = GuardWatch::new(guard, &claim, raw.as_ref());
    guard_watch.see_that_it_is_up(notices);
    let watchers: [&mut dyn Watcher; 2] = [&mut guard_watch, &mut intruder_watch];
    Ok(relay::run(claim.console(), raw.as_ref(), notices, signals, watchers, &settings)?)
}

/// The user, who learns what is done for the claim, and ends us by a signal.
#[derive(Debug)]
struct User<'a> {
    notices: RefCell<&'a mut Notices>,
    signals: RefCell<&'a mut Signals>,
}

impl Asker for User<'_> {
    fn hears(&self, line: &str) {
        self.notices.borrow_mut().say(line);
    }

    fn gives_up(&self) -> bool {
        self.signals.borrow_mut().ending().is_some()
    }
}

fn start_guard(notices: &mut Notices) -> Guard {
    let (guard, started) = Guard::start();
    if let Err(error) = started {
        notices.say(format_args!(
            "no guard can be started ({error}): going on without the exclusive flag, and if this \
             session is killed, nobody gives the terminal and the locks back"
        ));
    }
    guard
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

fn last_words(ending: Ending, target: &Target) -> String {
    match ending {
        Ending::Detached => format!("detached from {target}"),
        Ending::InputEnded => format!("end of input, left {target}"),
        Ending::HungUp => format!("{target} hung up"),
        Ending::ReaderGone => format!("nobody reads the output any more, left {target}"),
        Ending::TerminalGone => format!("the terminal is gone, left {target}"),
        Ending::TimeLimit => format!("the time limit passed, left {target}"),
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
        Ending::HungUp => ExitStatus::HungUp,
        Ending::ReaderGone => ExitStatus::Signal(libc::SIGPIPE),
        Ending::TerminalGone => ExitStatus::Signal(libc::SIGHUP),
        Ending::TimeLimit => ExitStatus::TimeLimit,
        Ending::Signal(number) => ExitStatus::Signal(number),
    }
}
