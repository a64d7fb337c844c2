//! The bytes between the command and the client.

use std::{collections::VecDeque, io};

use rustix::{event::PollFlags, termios::Winsize};

use crate::commands::host::backlog::Backlog;
use crate::commands::host::line::{CommandLine, OfferedLine};

/// The most input that waits for the command.
const INPUT: usize = 64 * 1024;
const PIECE: usize = 16 * 1024;
/// Pieces moved before signals are handled: polling costs little, and a flood delays nothing.
const PIECES: usize = 16;

/// Moves bytes between the two lines, with a bounded buffer each way.
pub(super) struct Exchange {
    command: CommandLine,
    pub(super) offered: OfferedLine,
    output: Backlog,
    input: VecDeque<u8>,
    size: Option<Winsize>,
    /// How much of the command's output may still be read.
    left_to_read: usize,
    /// Whether output was moved since [`Exchange::made_progress`] was called.
    moved: bool,
}

impl Exchange {
    pub(super) fn between(command: CommandLine, offered: OfferedLine) -> Self {
        let (output, input) = (Backlog::default(), VecDeque::new());
        Self { command, offered, output, input, size: None, left_to_read: usize::MAX, moved: false }
    }

    /// The command's terminal, and what to wait for there.
    pub(super) fn command(&self) -> (&CommandLine, PollFlags) {
        let mut interest = PollFlags::empty();
        interest.set(PollFlags::IN, self.readable() > 0);
        interest.set(PollFlags::OUT, !self.input.is_empty());
        (&self.command, interest)
    }

    /// The offered console, and what to wait for there, if anything.
    pub(super) fn offered(&self) -> (&OfferedLine, Option<PollFlags>) {
        let interest = self.offered.interest(self.input.len() < INPUT, !self.output.is_empty());
        (&self.offered, interest)
    }

    /// Looks for a client. Returns how many bytes a new one will never see.
    pub(super) fn look(&mut self) -> io::Result<u64> {
        let known = self.offered.is_attached();
        self.offered.look()?;
        Ok(if self.offered.is_attached() && !known { self.output.dropped } else { 0 })
    }

    /// From now on reads only what the kernel may hold: the command's children could print for ever.
    pub(super) fn command_ended(&mut self) -> io::Result<()> {
        self.left_to_read = Backlog::CAPACITY;
        self.offered.watch_reading()
    }

    pub(super) fn move_bytes(&mut self) -> io::Result<()> {
        for _ in 0..PIECES {
            let output = self.read_command()? + self.deliver()?;
            self.moved |= output > 0;
            let input = self.read_client()? + self.pass_input()?;
            if output + input == 0 {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn pass_size(&mut self) -> io::Result<()> {
        let size = self.offered.size()?;
        if self.size != Some(size) {
            self.command.set_size(size)?;
            self.size = Some(size);
        }
        Ok(())
    }

    /// Whether output was moved, or read by the client, since the last call.
    pub(super) fn made_progress(&mut self) -> bool {
        std::mem::take(&mut self.moved) | self.offered.was_read()
    }

    /// Whether the client has not read all output; `None` if that cannot be seen.
    pub(super) fn has_unread(&mut self) -> io::Result<Option<bool>> {
        if self.output.is_empty() { self.offered.has_unread() } else { Ok(Some(true)) }
    }

    /// The command has to wait while the client does not read.
    fn readable(&self) -> usize {
        let room = if self.offered.is_attached() { self.output.room() } else { PIECE };
        room.min(PIECE).min(self.left_to_read)
    }

    fn read_command(&mut self) -> io::Result<usize> {
        let most = self.readable();
        if most == 0 {
            return Ok(0);
        }
        let mut piece = [0; PIECE];
        let count = self.command.read(&mut piece[..most])?;
        self.output.push(&piece[..count]);
        if self.left_to_read != usize::MAX {
            self.left_to_read -= count;
        }
        Ok(count)
    }

    fn deliver(&mut self) -> io::Result<usize> {
        if !self.offered.is_attached() {
            return Ok(0);
        }
        let count = self.offered.write(self.output.next())?;
        self.output.delivered(count);
        Ok(count)
    }

    fn read_client(&mut self) -> io::Result<usize> {
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
