//! The command line. The man pages and completions are generated from it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::claim::request::LockMode;
use crate::commands::attach::options::AttachOptions;
use crate::commands::host::HostOptions;
use crate::commands::status::StatusOptions;
use crate::locks::directory::LockPlace;
use crate::relay;
use crate::relay::actions::KEY_BINDINGS;
use crate::relay::escape::EscapeKey;
use crate::relay::linger::Linger;

/// A build with test points says so: `cargo build` leaves one where a release may be looked for.
const VERSION: &str = if cfg!(debug_assertions) {
    concat!(env!("CARGO_PKG_VERSION"), " (with test points: not for use)")
} else {
    env!("CARGO_PKG_VERSION")
};

/// The terminal client that makes a console have exactly one operator
#[derive(Debug, Parser)]
#[command(name = "vconsole", version = VERSION, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Attach to a console: take it for yourself alone, and relay it to this terminal
    #[command(long_about = ABOUT_ATTACH, after_help = after_attach())]
    Attach(AttachArgs),
    /// Show who has which console, without touching any
    #[command(long_about = ABOUT_STATUS, after_help = AFTER_STATUS)]
    Status(StatusArgs),
    /// Run a command and offer it as a console on a new PTY
    #[command(long_about = ABOUT_HOST, after_help = AFTER_HOST)]
    Host(HostArgs),
}

const ABOUT_ATTACH: &str = "\
Attach to a console: claim it for yourself alone, under the lock conventions of all the programs that \
have one, and relay it to this terminal, or to whatever standard input and output are. Every byte \
passes unchanged. However the session ends, the terminal is set back and every lock given back.";

const ABOUT_STATUS: &str = "\
Show who has which console: by lock file, by flock or by having it open, and what is at its other end. \
No console is opened and no lock is taken. Without arguments: the consoles of this machine, as far as \
they can be found, and every lock file there is. Login terminals, and PTYs with neither a known guest \
nor a holder, are left out: --all shows those PTYs as well.";

const ABOUT_HOST: &str = "\
Run a command on a terminal of its own, and offer that as a console: on a new PTY, whose path is \
printed, as QEMU's `-serial pty` does, or with --attach to your terminal at once. What the command \
prints while nobody is attached is kept, up to 64 KiB.";

/// The end of the help of `attach`, with the commands of the escape key.
fn after_attach() -> String {
    let mut help = "After the escape key: ".to_owned();
    for binding in KEY_BINDINGS {
        // A string accepts everything.
        let _ = write!(help, "{}: {}; ", binding.key_names(), binding.summary);
    }
    help + "the escape key again sends itself.

Exit status: 0 detached or end of input, 1 failure, 2 wrong usage, 3 busy, 4 taken over by somebody \
else, 5 the console hung up, 6 no such console, 101 a bug (panic), 124 time limit, 128+N ended by signal N.

Opening a serial port may raise DTR and RTS, which no program can avoid; until the lock files say \
that it is free, vconsole does not open it. Its speed stays as it is: `stty -F CONSOLE 115200` sets it, \
before you attach."
}

const AFTER_STATUS: &str = "\
Exit status, of the gravest console named: 0 free or a dead lock, 3 held or suspect, 6 no such \
console.";

const AFTER_HOST: &str = "\
Exit status: that of COMMAND, or 128+N where signal N ended it or host; 127 where there is no such \
command, 126 where it cannot be run. With --attach, where COMMAND still runs: that of \
`vconsole attach`.";

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct AttachArgs {
    /// The console: the slave side of a PTY or a serial port, by its path or a symlink's; a bare name
    /// is looked for in /dev as well
    #[arg(value_name = "CONSOLE", value_hint = ValueHint::AnyPath)]
    console: PathBuf,

    /// Take the console over: from a vconsole that holds it (your own, or as root anybody's; its user
    /// is told who came), from other programs that have it (evicted by SIGHUP, then SIGTERM; as root
    /// also by hanging it up), or from a lock of an unknown owner; as root clear an exclusive flag
    /// that somebody left behind
    #[arg(short, long)]
    force: bool,

    /// Why: told to the user of the vconsole that is taken over, and recorded in the system's log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    /// Watch and never type: what the operator sees, beginning with the last 64 KiB. If there is no
    /// operator, read the console until one comes, who needs no --force. The end of input is ignored
    #[arg(
        short,
        long,
        conflicts_with_all = ["force", "private", "stay", "wait", "ask", "linger", "linger_max"]
    )]
    read_only: bool,

    /// Let nobody watch
    #[arg(long)]
    private: bool,

    /// When somebody takes the console over, stay on and watch
    #[arg(long)]
    stay: bool,

    /// If it is busy, wait until it is free: for ever, or for TIME (90s, 5m), then exit status 124. Waiters
    /// are served first come, first served. With --force: take it over from holders that can be evicted,
    /// and wait for the others
    #[arg(short, long, value_name = "TIME", num_args = 0..=1, require_equals = true, value_parser = duration)]
    #[allow(
        clippy::option_option,
        reason = "how clap reads an option whose value may be left out"
    )]
    wait: Option<Option<Duration>>,

    /// If it is busy, ask what to do: wait as with --wait, take it over as with --force, or quit.
    /// Without a terminal on standard input and standard error nothing is asked
    #[arg(long, conflicts_with_all = ["force", "wait"])]
    ask: bool,

    /// The key that begins a command to vconsole: ^] or any other ^X, or none
    #[arg(short, long, value_name = "KEY", default_value = "^]", allow_hyphen_values = true)]
    escape: EscapeKey,

    /// After the end of input, stay until the console was quiet for TIME (500ms, 90s, 5m), or
    /// `forever`. Without this: up to 3 s for a first byte, then until 1 s of quiet
    #[arg(long, value_name = "TIME", value_parser = linger)]
    linger: Option<Linger>,

    /// Exit no later than TIME after the end of input, with exit status 124
    #[arg(long, value_name = "TIME", value_parser = duration)]
    linger_max: Option<Duration>,

    /// No messages but errors
    #[arg(short, long)]
    quiet: bool,

    /// What to do about lock files: `auto` takes them, and where an ordinary user may not write to
    /// the lock directory checks them; `require` insists on taking them; `check` only ever checks
    /// them; `off` does without
    #[arg(long = "locks", value_name = "MODE", env = "VCONSOLE_LOCKS", default_value = "auto")]
    lock_mode: LockModeArg,

    #[command(flatten)]
    lock_place: LockDirectory,
}

impl From<AttachArgs> for AttachOptions {
    fn from(args: AttachArgs) -> Self {
        Self {
            console: args.console,
            force: args.force,
            reason: args.reason,
            read_only: args.read_only,
            private: args.private,
            stay: args.stay,
            wait: args.wait,
            ask: args.ask,
            relay: relay::Options {
                escape: args.escape,
                linger: args.linger,
                linger_max: args.linger_max,
            },
            quiet: args.quiet,
            lock_mode: args.lock_mode.into(),
            lock_place: args.lock_place.directory,
        }
    }
}

/// The values of `--locks`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum LockModeArg {
    /// Take them; an ordinary user who may not write to the lock directory checks them
    Auto,
    /// Take them, or fail
    Require,
    /// Check them, make none
    Check,
    /// Do without
    Off,
}

impl From<LockModeArg> for LockMode {
    fn from(mode: LockModeArg) -> Self {
        match mode {
            LockModeArg::Auto => Self::Auto,
            LockModeArg::Require => Self::Require,
            LockModeArg::Check => Self::Check,
            LockModeArg::Off => Self::Off,
        }
    }
}

#[derive(Debug, Args)]
struct LockDirectory {
    /// The lock directory, or `auto`: the system's (/var/lock, else /run/lock). A directory named
    /// lockdev in it is used as well
    #[arg(
        long = "lock-dir",
        value_name = "DIR",
        env = "VCONSOLE_LOCK_DIR",
        default_value = "auto",
        value_parser = OsStringValueParser::new().map(LockPlace::from),
        value_hint = ValueHint::DirPath
    )]
    directory: LockPlace,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The consoles to look at; without any, all that can be found
    #[arg(value_name = "CONSOLE", value_hint = ValueHint::AnyPath)]
    consoles: Vec<PathBuf>,

    /// Also show PTYs whose other end is not known to offer a console, and that nobody holds
    #[arg(short, long)]
    all: bool,

    /// Print one JSON document; vconsole-status(1) describes it
    #[arg(long)]
    json: bool,

    /// Look again and again, every second or every TIME (500ms, 5s, 1m), until q or Ctrl-C: on a
    /// terminal in place, else one table, or one line of JSON, after the other
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1s",
        value_parser = duration
    )]
    watch: Option<Duration>,

    /// Print nothing but the paths of the consoles found: for the shells' completions
    #[arg(long, hide = true, conflicts_with_all = ["consoles", "json", "watch"])]
    names: bool,

    #[command(flatten)]
    lock_place: LockDirectory,
}

impl From<StatusArgs> for StatusOptions {
    fn from(args: StatusArgs) -> Self {
        Self {
            consoles: args.consoles,
            all: args.all,
            json: args.json,
            watch: args.watch,
            names: args.names,
            lock_place: args.lock_place.directory,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// Also make this symlink to the PTY, and remove it at the end. Nothing is replaced but a symlink of
    /// yours that leads to a PTY which is gone
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    link: Option<PathBuf>,

    /// Attach to it at once; leaving ends the command
    #[arg(long)]
    attach: bool,

    /// The command and its arguments; without one, your shell
    #[arg(value_name = "COMMAND", last = true, value_hint = ValueHint::CommandWithArguments)]
    command: Vec<std::ffi::OsString>,
}

impl From<HostArgs> for HostOptions {
    fn from(args: HostArgs) -> Self {
        Self { link: args.link, attach: args.attach, command: args.command }
    }
}

/// The longest time: a century, so that a time added to a moment is a moment.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// Parses a time: `500ms`, `90s`, `5m`, `1h30m`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "not a length of time: try 500ms, 90s or 5m".to_owned();
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()).min(LONGEST));
    }
    let signed = jiff::SignedDuration::from_str(text).map_err(|_| wrong())?;
    Duration::try_from(signed).map(|time| time.min(LONGEST)).map_err(|_| wrong())
}

/// Parses the value of `--linger`: a time, or `forever`.
pub(crate) fn linger(text: &str) -> Result<Linger, String> {
    if text == "forever" {
        return Ok(Linger::Forever);
    }
    duration(text).map(Linger::Quiet).map_err(|wrong| wrong + ", or forever")
}

#[cfg(any(test, feature = "fuzzing"))]
/// Property: a time on the command line can be waited for, and is what people mean by it.
pub fn time(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = duration(text);
    let linger = linger(text);
    if text == "forever" {
        assert!(read.is_err() && linger == Ok(Linger::Forever));
        return;
    }
    assert_eq!(linger.ok(), read.clone().ok().map(Linger::Quiet));
    if let Ok(time) = &read {
        assert!(
            std::time::Instant::now().checked_add(*time).is_some(),
            "{time:?} is beyond every clock"
        );
    }
    if let Ok(number) = text.parse::<u16>() {
        let seconds = Duration::from_secs(number.into());
        assert_eq!(read, Ok(seconds));
        assert_eq!(duration(&format!("{number}s")), Ok(seconds));
        assert_eq!(duration(&format!("{number}m")), Ok(60 * seconds));
        assert_eq!(duration(&format!("{number}ms")), Ok(seconds / 1000));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn lengths_of_time_are_read_as_people_write_them() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        assert_eq!(duration("9223372036854775807s"), Ok(LONGEST));
        for wrong in ["", "-1s", "1x", "s", "5 parsecs", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
