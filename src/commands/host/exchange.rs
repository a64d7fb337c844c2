//! The bytes between the command and whoever is attached.

use std::collections::VecDeque;
use std::io;

use rustix::event::PollFlags;
use rustix::termios::Winsize;

use super::backlog::Backlog;
use super::line::{CommandLine, OfferedLine};

/// How much input waits for the command at most; more stays with whoever types it.
const INPUT: usize = 64 * 1024;

/// How much is read at once.
const PIECE: usize = 16 * 1024;

/// How many pieces are moved before signals are looked at again. Enough that polling costs little
/// beside copying, and a flood still holds up nothing.
const PIECES: usize = 16;

/// Moves bytes between the two lines, with a bounded buffer each way.
pub(super) struct Exchange {
    command: CommandLine,
    offered: OfferedLine,
    output: Backlog,
    input: VecDeque<u8>,
    size: Option<Winsize>,
    /// How much of what the command prints may still be read.
    unheard: usize,
    /// Whether output was moved since that was asked for.
    moved: bool,
}

/// How far the last words of a command have got.
pub(super) struct LastWords {
    /// Whether some of them were heard, delivered or read since the last time.
    pub(super) moved: bool,
    /// Whether some are still to be read; `None` where that cannot be seen.
    pub(super) unread: Option<bool>,
}

impl Exchange {
    pub(super) fn between(command: CommandLine, offered: OfferedLine) -> Self {
        let (output, input) = (Backlog::default(), VecDeque::new());
        Self { command, offered, output, input, size: None, unheard: usize::MAX, moved: false }
    }

    /// The command's terminal, and what to wait for there.
    pub(super) fn command(&self) -> (&CommandLine, PollFlags) {
        let mut interest = PollFlags::empty();
        interest.set(PollFlags::IN, self.may_hear() > 0);
        interest.set(PollFlags::OUT, !self.input.is_empty());
        (&self.command, interest)
    }

    /// The offered console, and what to wait for there, if anything.
    pub(super) fn offered(&self) -> (&OfferedLine, Option<PollFlags>) {
        let interest = self.offered.interest(self.input.len() < INPUT, !self.output.is_empty());
        (&self.offered, interest)
    }

    /// Notes what was found on the offered console.
    pub(super) fn found_on_offered(&mut self, events: PollFlags) {
        self.offered.found(events);
    }

    /// Looks who is there now. Gives how many bytes they will never see, if they are new.
    pub(super) fn look(&mut self) -> io::Result<u64> {
        let known = self.is_attached();
        self.offered.look()?;
        Ok(if self.is_attached() && !known { self.output.dropped() } else { 0 })
    }

    /// Notes that the command ended: what it has printed is all that is still to be heard. Whoever it
    /// left behind on its terminal could go on for ever, and the kernel holds less than this.
    pub(super) fn command_ended(&mut self) -> io::Result<()> {
        self.unheard = Backlog::CAPACITY;
        self.offered.watch_reading()
    }

    /// Whether somebody is attached.
    pub(super) fn is_attached(&self) -> bool {
        self.offered.is_attached()
    }

    /// Moves what can be moved at once, both ways.
    pub(super) fn move_bytes(&mut self) -> io::Result<()> {
        for _ in 0..PIECES {
            let output = self.hear_command()? + self.deliver()?;
            self.moved |= output > 0;
            let input = self.hear_client()? + self.pass_input()?;
            if output + input == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Gives the command's terminal the size of the client's window.
    pub(super) fn pass_size(&mut self) -> io::Result<()> {
        let size = self.offered.size()?;
        if self.size != Some(size) {
            self.command.set_size(size)?;
            self.size = Some(size);
        }
        Ok(())
    }

    /// How far the last words of a command that ended have got.
    pub(super) fn last_words(&mut self) -> io::Result<LastWords> {
        let moved = std::mem::take(&mut self.moved) | self.offered.was_read();
        let unread = if self.output.is_empty() { self.offered.has_unread()? } else { Some(true) };
        Ok(LastWords { moved, unread })
    }

    /// How much may be read from the command now: when whoever is attached does not read on it has to
    /// wait.
    fn may_hear(&self) -> usize {
        let room = if self.is_attached() { self.output.room() } else { PIECE };
        room.min(PIECE).min(self.unheard)
    }

    fn hear_command(&mut self) -> io::Result<usize> {
        let most = self.may_hear();
        if most == 0 {
            return Ok(0);
        }
        let mut piece = [0; PIECE];
        let count = self.command.read(&mut piece[..most])?;
        self.output.push(&piece[..count]);
        if self.unheard != usize::MAX {
            self.unheard -= count;
        }
        Ok(count)
    }

    fn deliver(&mut self) -> io::Result<usize> {
        if !self.is_attached() {
            return Ok(0);
        }
        let count = self.offered.write(self.output.next())?;
        self.output.delivered(count);
        Ok(count)
    }

    fn hear_client(&mut self) -> io::Result<usize> {
        let mut piece = [0; PIECE];
        let most = (INPUT - self.input.len()).min(PIECE);
        if most == 0 {
            return Ok(0);
        }
        let count = self.offered.read(&mut piece[..most])?;
        self.input.extend(&piece[..count]);
        Ok(count)
    }

    fn pass_input(&mut self) -> io::Result<usize> {
        if self.input.is_empty() {
            return Ok(0);
        }
        let count = self.command.write(self.input.as_slices().0)?;
        self.input.drain(..count);
        Ok(count)
    }
}
