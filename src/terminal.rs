//! The user's own terminal: raw mode, and its exact way back.
//!
//! The settings are the terminal's, not ours: they outlive us, and the shell that waits for us has to
//! live with what we leave. So there is one way in, [`RawMode::enter`], and every way out gives back
//! what was there before: dropping the value, a panic, being stopped.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossterm::terminal::{disable_raw_mode, enable_raw_mode, is_raw_mode_enabled};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use nix::unistd::{getpgrp, tcgetpgrp};
use rustix::io::Errno;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios,
    isatty, tcgetattr, tcsetattr,
};
use serde::{Deserialize, Serialize};

use crate::process::Jobs;

/// The raw settings as we left them on the terminal, and what was there before; `None` while it is not
/// raw. It belongs to the process, as the terminal does: the panic hook has no value to look at.
static RAW: Mutex<Option<(Modes, Modes)>> = Mutex::new(None);

/// Raw mode on the terminal that is our standard input, for as long as this lives: a proof that there
/// is a terminal, and that it is raw. Every byte typed reaches the console, Ctrl-C and Ctrl-Z too.
#[derive(Debug)]
#[must_use = "dropping it gives the terminal back"]
pub struct RawMode<'a> {
    witness: &'a dyn Witness,
}

/// Who is told what happens to the terminal, so as to put it back when we are killed.
pub trait Witness: fmt::Debug {
    /// The terminal is about to become raw, and has these settings now.
    fn will_be_raw(&self, terminal: BorrowedFd<'_>, before: &Modes);
    /// It is back as it was.
    fn is_back(&self);
}

/// What raw mode changes of a terminal's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modes {
    input: u32,
    output: u32,
    control: u32,
    local: u32,
    /// How many bytes a read waits for, and how long: `VMIN` and `VTIME` (`termios(3)`).
    wait: [u8; 2],
}

impl<'a> RawMode<'a> {
    /// Makes the terminal raw. `None` where standard input is no terminal: then there is nothing to do
    /// and nothing to give back. What was typed ahead stays to be read: crossterm sets with `TCSANOW`.
    ///
    /// In the background the kernel stops us here ([`in_foreground`] tells beforehand).
    pub fn enter(witness: &'a dyn Witness) -> io::Result<Option<Self>> {
        if !isatty(io::stdin()) {
            return Ok(None);
        }
        let raw = Self { witness };
        raw.make_raw()?;
        Ok(Some(raw))
    }

    /// Leaves the terminal raw, for who takes it up: another thread, or with another witness.
    pub fn leave(self) -> LeftRaw {
        std::mem::forget(self);
        LeftRaw(())
    }

    fn make_raw(&self) -> io::Result<()> {
        if !in_foreground() {
            // Before we look: a shell that uses it sets it for its line editor.
            stop_as_a_reader();
        }
        let before = Modes::of(&tcgetattr(io::stdin())?);
        self.witness.will_be_raw(io::stdin().as_fd(), &before);
        make_raw(before)
    }

    /// Tells a new witness how things stand.
    pub fn tell_again(&self) {
        if let Some((_, before)) = &*raw_settings() {
            self.witness.will_be_raw(io::stdin().as_fd(), before);
        }
    }

    /// Gives the terminal back for a while: we are about to be stopped.
    pub fn suspend(&self) {
        restore();
        self.witness.is_back();
    }

    /// Makes the terminal raw again, whatever became of it meanwhile. `EIO` when it is gone.
    pub fn resume(&self) -> io::Result<()> {
        if is_still_raw() {
            return Ok(());
        }
        if !in_foreground() {
            // It is somebody else's by now, usually a shell's line editor.
            stop_as_a_reader();
        }
        // After a SIGSTOP, which lets nobody give anything back, crossterm still believes in its raw
        // mode, and enabling that would do nothing: disabling it first makes it set the terminal.
        undo_raw()?;
        self.make_raw()
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        restore();
        self.witness.is_back();
    }
}

/// A terminal that was left raw, to be taken up again: nothing that is typed meanwhile is echoed or edited.
#[derive(Debug)]
#[must_use = "dropping it gives the terminal back"]
pub struct LeftRaw(());

impl LeftRaw {
    /// Takes it up. The witness is told how things stand.
    pub fn take_up(self, witness: &dyn Witness) -> RawMode<'_> {
        std::mem::forget(self);
        let raw = RawMode { witness };
        raw.tell_again();
        raw
    }
}

impl Drop for LeftRaw {
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

/// Puts a terminal back that a session left raw when it was killed: only if it still has exactly the
/// settings that the session gave it. Anything else is already somebody's, such as a shell's line
/// editor.
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

/// Makes a panic give the terminal back before it says what happened.
pub fn restore_on_panic() {
    let say = panic::take_hook();
    panic::set_hook(Box::new(move |what| {
        restore();
        say(what);
    }));
}

/// Forgets the terminal, for a process that has none: a copy of one that had.
pub fn forget() {
    *raw_settings() = None;
}

/// Whether the terminal is raw now: then a line ends with CR LF.
#[must_use]
pub fn is_raw() -> bool {
    raw_settings().is_some()
}

/// Whether we may use the terminal on standard input: we are in its foreground, or there is no job
/// control on it (it is no terminal, or not the one that controls us: `ENOTTY`, tcgetpgrp(3)).
#[must_use]
pub fn in_foreground() -> bool {
    tcgetpgrp(io::stdin()).map_or(true, |foreground| foreground == getpgrp())
}

/// While it lives, who reads the terminal in the background is not stopped by it, but told (`EIO`,
/// `__tty_check_change` in `drivers/tty/tty_jobctrl.c`): the kernel would begin the read again whenever
/// somebody continues us, and stop us again before we can see why.
#[derive(Debug)]
pub struct Unstopped(Option<SigSet>);

impl Unstopped {
    /// From now on.
    #[must_use]
    pub fn new() -> Self {
        let stops = SigSet::from(Signal::SIGTTIN);
        Self(stops.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok())
    }
}

impl Default for Unstopped {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Unstopped {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            let _ = before.thread_set_mask();
        }
    }
}

/// Stops us as the kernel stops who reads the terminal in the background, until somebody continues us.
/// Does nothing where nobody would: our job has no shell any more.
pub fn stop_as_a_reader() {
    let stops = SigSet::from(Signal::SIGTTIN);
    let Ok(before) = stops.thread_swap_mask(SigmaskHow::SIG_UNBLOCK) else { return };
    let _ = raise(Signal::SIGTTIN);
    let _ = before.thread_set_mask();
}

fn raw_settings() -> MutexGuard<'static, Option<(Modes, Modes)>> {
    // Nobody can have left it half-written: it is only ever assigned.
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

/// Makes crossterm forget a raw mode that was not ours to undo, since somebody else, usually a shell, had
/// undone it already: enabling it would do nothing. The settings stay as they are now.
fn forget_what_was_raw() -> io::Result<()> {
    if is_raw_mode_enabled()? {
        let now = tcgetattr(io::stdin())?;
        undo_raw()?;
        tcsetattr(io::stdin(), OptionalActions::Now, &now)?;
    }
    Ok(())
}

/// Puts the terminal back as it was, if it is raw by our doing.
///
/// Where we are in the background somebody else uses the terminal, usually a shell, which may have set
/// it for its line editor: then only settings that are still exactly ours are undone, and not where they
/// are another job's as well. A terminal that is gone has nothing to restore, so errors say nothing new
/// here.
fn restore() {
    let still_ours = || is_still_raw() && !Jobs::ours().gave_way();
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

/// Lets crossterm put back what it found.
///
/// With SIGTTOU blocked: then the kernel lets a process in the background change the settings, and
/// else it would stop us on our way out (`tty_check_change` in `drivers/tty/tty_jobctrl.c`). And only
/// while standard input is a terminal: when it is gone, crossterm takes `/dev/tty` instead, which may
/// be another one.
fn undo_raw() -> io::Result<()> {
    if !isatty(io::stdin()) {
        return Err(Errno::IO.into());
    }
    let before = SigSet::from(Signal::SIGTTOU).thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let done = disable_raw_mode();
    before.thread_set_mask()?;
    done
}
