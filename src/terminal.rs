//! Raw mode on the user's own terminal, and restoring it exactly.
//!
//! The settings belong to the terminal: they outlive us, and the shell that waits for us has to
//! work with what we leave. So there is one way in, [`RawMode::enter`], and every way out restores
//! the settings: dropping the value, a panic, being stopped.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossterm::terminal::{disable_raw_mode, enable_raw_mode, is_raw_mode_enabled};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use nix::unistd::{getpgrp, tcgetpgrp};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios,
    isatty, tcgetattr, tcsetattr,
};
use serde::{Deserialize, Serialize};

use crate::{jobs::JobInfo, poll};

/// The raw settings as we left them on the terminal, and those before; `None` while it is not raw.
/// A static, because the panic hook needs them.
static RAW: Mutex<Option<(Modes, Modes)>> = Mutex::new(None);

/// Raw mode on the terminal that is our standard input, for as long as this lives. Every byte typed
/// reaches the console, Ctrl-C and Ctrl-Z too.
#[derive(Debug)]
#[must_use = "dropping it gives the terminal back"]
pub(crate) struct RawMode<'a> {
    observer: &'a dyn RawModeObserver,
}

/// Is told what happens to the terminal, so that it can be restored when we are killed.
pub(crate) trait RawModeObserver: fmt::Debug {
    /// The terminal is about to become raw, and has the settings `before` now.
    fn will_be_raw(&self, terminal: BorrowedFd<'_>, before: &Modes);
    /// The terminal was restored.
    fn is_back(&self);
}

/// The settings of a terminal that raw mode changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Modes {
    input: u32,
    output: u32,
    control: u32,
    local: u32,
    /// How many bytes a read waits for, and how long: `VMIN` and `VTIME` (`termios(3)`).
    wait: [u8; 2],
}

impl<'a> RawMode<'a> {
    /// Makes the terminal raw. `None` if standard input is no terminal. What was typed ahead stays
    /// to be read: crossterm sets with `TCSANOW`. In the background the kernel stops us here
    /// ([`in_foreground`] tells beforehand).
    pub(crate) fn enter(observer: &'a dyn RawModeObserver) -> io::Result<Option<Self>> {
        if !isatty(io::stdin()) {
            return Ok(None);
        }
        let raw = Self { observer };
        raw.make_raw()?;
        Ok(Some(raw))
    }

    /// Leaves the terminal raw for another thread or another observer.
    pub(crate) fn detach(self) -> DetachedRawMode {
        std::mem::forget(self);
        DetachedRawMode(())
    }

    fn make_raw(&self) -> io::Result<()> {
        if !in_foreground() {
            // Before we read the settings: a shell in the foreground sets them for its line editor.
            stop_as_a_reader();
        }
        let before = Modes::of(&tcgetattr(io::stdin())?);
        self.observer.will_be_raw(io::stdin().as_fd(), &before);
        make_raw(before)
    }

    /// Tells a new observer the state.
    pub(crate) fn tell_again(&self) {
        if let Some((_, before)) = &*raw_settings() {
            self.observer.will_be_raw(io::stdin().as_fd(), before);
        }
    }

    /// Restores the terminal for a while: we are about to be stopped.
    pub(crate) fn suspend(&self) {
        restore();
        self.observer.is_back();
    }

    /// Makes the terminal raw again, if it is not. `EIO` when it is gone.
    pub(crate) fn resume(&self) -> io::Result<()> {
        if is_still_raw() {
            return Ok(());
        }
        if !in_foreground() {
            // Another job uses it by now, usually a shell's line editor.
            stop_as_a_reader();
        }
        // After a SIGSTOP, before which nothing can be restored, crossterm believes that the
        // terminal is still raw, and enabling would do nothing: disabling first makes it set the
        // terminal.
        undo_raw()?;
        self.make_raw()
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        restore();
        self.observer.is_back();
    }
}

/// A terminal left raw for [`DetachedRawMode::attach`]: what is typed meanwhile is not echoed or
/// edited.
#[derive(Debug)]
#[must_use = "dropping it gives the terminal back"]
pub(crate) struct DetachedRawMode(());

impl DetachedRawMode {
    pub(crate) fn attach(self, observer: &dyn RawModeObserver) -> RawMode<'_> {
        std::mem::forget(self);
        let raw = RawMode { observer };
        raw.tell_again();
        raw
    }
}

impl Drop for DetachedRawMode {
    fn drop(&mut self) {
        restore();
    }
}

impl Modes {
    fn of(settings: &Termios) -> Self {
        let code = |index| settings.special_codes[index];
        Self {
            input: settings.input_modes.bits(),
            output: settings.output_modes.bits(),
            control: settings.control_modes.bits(),
            local: settings.local_modes.bits(),
            wait: [code(SpecialCodeIndex::VMIN), code(SpecialCodeIndex::VTIME)],
        }
    }

    fn put_into(&self, settings: &mut Termios) {
        settings.input_modes = InputModes::from_bits_retain(self.input);
        settings.output_modes = OutputModes::from_bits_retain(self.output);
        settings.control_modes = ControlModes::from_bits_retain(self.control);
        settings.local_modes = LocalModes::from_bits_retain(self.local);
        settings.special_codes[SpecialCodeIndex::VMIN] = self.wait[0];
        settings.special_codes[SpecialCodeIndex::VTIME] = self.wait[1];
    }
}

/// Restores a terminal that a killed session left raw, but only if it still has exactly the
/// settings of that session. Otherwise somebody else uses it, such as a shell's line editor.
pub(crate) fn put_back_if_raw(terminal: impl AsFd, before: &Modes) -> io::Result<()> {
    let now = tcgetattr(&terminal)?;
    let mut raw = now.clone();
    before.put_into(&mut raw);
    raw.make_raw();
    if Modes::of(&now) != Modes::of(&raw) {
        return Ok(());
    }
    let mut back = now;
    before.put_into(&mut back);
    Ok(tcsetattr(terminal, OptionalActions::Now, &back)?)
}

/// Makes a panic restore the terminal before it is reported.
pub(crate) fn restore_on_panic() {
    let say = panic::take_hook();
    panic::set_hook(Box::new(move |what| {
        restore();
        say(what);
    }));
}

/// Forgets the terminal, in a copy of this process, which has none.
pub(crate) fn forget() {
    *raw_settings() = None;
}

/// Whether the terminal is raw now: then a line ends with CR LF.
pub(crate) fn is_raw() -> bool {
    raw_settings().is_some()
}

/// Whether we may use the terminal on standard input: we are in its foreground, or there is no job
/// control on it (it is no terminal, or not our controlling one: `ENOTTY`, tcgetpgrp(3)).
pub(crate) fn in_foreground() -> bool {
    tcgetpgrp(io::stdin()).map_or(true, |foreground| foreground == getpgrp())
}

/// Whether the other end of a terminal line is gone. Then every question fails with `EIO`
/// (`hung_up_tty_ioctl` in `drivers/tty/tty_io.c`), or because the device was unplugged.
pub(crate) fn is_hung_up(line: impl AsFd) -> bool {
    poll::events_now(&line, PollFlags::empty()).is_ok_and(|events| events.intersects(poll::GONE))
        || matches!(tcgetattr(line), Err(Errno::IO | Errno::NXIO | Errno::NODEV))
}

/// While this lives, reading the terminal in the background fails with `EIO` (`__tty_check_change`
/// in `drivers/tty/tty_jobctrl.c`). Otherwise the kernel would stop us, restart the read whenever
/// somebody continues us, and stop us again before we can see why.
pub(crate) struct BlockSigttin(Option<SigSet>);

impl BlockSigttin {
    pub(crate) fn new() -> Self {
        let stops = SigSet::from(Signal::SIGTTIN);
        Self(stops.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok())
    }
}

impl Drop for BlockSigttin {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            let _ = before.thread_set_mask();
        }
    }
}

/// Stops us as the kernel stops a process that reads the terminal in the background, until somebody
/// continues us. Does nothing in a job without a shell, which nobody would continue.
pub(crate) fn stop_as_a_reader() {
    let stops = SigSet::from(Signal::SIGTTIN);
    let Ok(before) = stops.thread_swap_mask(SigmaskHow::SIG_UNBLOCK) else { return };
    let _ = raise(Signal::SIGTTIN);
    let _ = before.thread_set_mask();
}

fn raw_settings() -> MutexGuard<'static, Option<(Modes, Modes)>> {
    // It is only ever assigned as a whole, so a panic cannot leave it half-written.
    RAW.lock().unwrap_or_else(PoisonError::into_inner)
}

fn make_raw(before: Modes) -> io::Result<()> {
    forget_what_was_raw()?;
    enable_raw_mode()?;
    let settings = tcgetattr(io::stdin())?;
    // tcsetattr succeeds if any one of the changes was made (tcsetattr(3), POSIX).
    if settings.local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG) {
        undo_raw()?;
        return Err(io::Error::other("the terminal does not take raw mode"));
    }
    *raw_settings() = Some((Modes::of(&settings), before));
    Ok(())
}

/// Makes crossterm forget a raw mode that somebody else, usually a shell, has undone already: or
/// enabling it would do nothing. The settings stay as they are now.
fn forget_what_was_raw() -> io::Result<()> {
    if is_raw_mode_enabled()? {
        let now = tcgetattr(io::stdin())?;
        undo_raw()?;
        tcsetattr(io::stdin(), OptionalActions::Now, &now)?;
    }
    Ok(())
}

/// Restores the terminal, if it is raw by our doing.
///
/// In the background another job uses the terminal, usually a shell, which may have set it for its
/// line editor: then only settings that are still exactly ours are undone, and not if another job
/// has the same. Errors are ignored: a terminal that is gone has nothing to restore.
fn restore() {
    let still_ours = || is_still_raw() && !JobInfo::ours().gave_way();
    let ours = is_raw() && (in_foreground() || still_ours());
    *raw_settings() = None;
    if ours {
        let _ = undo_raw();
    }
}

/// Whether the terminal has exactly the settings that we gave it.
fn is_still_raw() -> bool {
    let now = tcgetattr(io::stdin());
    raw_settings().as_ref().is_some_and(|(ours, _)| now.is_ok_and(|now| Modes::of(&now) == *ours))
}

/// Lets crossterm restore the settings. SIGTTOU is blocked, or the kernel would stop a process in
/// the background that changes them (`tty_check_change` in `drivers/tty/tty_jobctrl.c`). Only while
/// standard input is a terminal: when it is gone, crossterm uses `/dev/tty` instead, which may be
/// another one.
fn undo_raw() -> io::Result<()> {
    if !isatty(io::stdin()) {
        return Err(Errno::IO.into());
    }
    let before = SigSet::from(Signal::SIGTTOU).thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let done = disable_raw_mode();
    before.thread_set_mask()?;
    done
}
