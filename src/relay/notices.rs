//! What vconsole itself says, on stderr, without ever waiting for it.

use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::buffer::Buffer;
use super::endpoint::{Kind, Sink};
use super::timeout;
use crate::terminal;

/// So many bytes wait at most; what is said beyond that is lost.
const QUEUE: usize = 16 * 1024;

/// Lines for the user, on stderr. They are queued, and written as far as stderr takes them: a stuck
/// terminal keeps nobody from leaving. What others chose must be made printable beforehand.
#[derive(Debug)]
pub struct Notices {
    /// `None` when nobody can read it any more.
    sink: Option<Sink>,
    queue: Buffer,
    quiet: bool,
    /// The console left the cursor in the middle of a line.
    midline: bool,
}

impl Notices {
    /// Notices on stderr; `quiet`: only errors, and answers to what the user asks.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        Self::to(Sink::new(io::stderr().as_fd()).ok(), quiet)
    }

    /// Notices on a terminal whose cursor may be anywhere.
    #[must_use]
    pub fn on(terminal: impl AsFd) -> Self {
        let notices = Self::to(Sink::new(terminal.as_fd()).ok(), false);
        Self { midline: true, ..notices }
    }

    fn to(sink: Option<Sink>, quiet: bool) -> Self {
        Self { sink, queue: Buffer::new(QUEUE), quiet, midline: false }
    }

    /// Says `notice`, unless the user wants quiet.
    pub fn say(&mut self, notice: impl Display) {
        if !self.quiet {
            self.answer(notice);
        }
    }

    /// Says what the user asked for, or has to know in any case. Each line of it becomes a line.
    pub fn answer(&mut self, answer: impl Display) {
        let new_line = match &self.sink {
            Some(sink) if sink.kind() == Kind::Terminal && terminal::is_raw() => "\r\n",
            Some(_) => "\n",
            None => return,
        };
        for line in answer.to_string().lines() {
            let begin = if std::mem::take(&mut self.midline) { new_line } else { "" };
            let line = format!("{begin}vconsole: {line}{new_line}");
            // A line comes whole or not at all.
            if line.len() <= self.queue.room() {
                self.queue.push(line.as_bytes());
            }
        }
        self.write();
    }

    /// Asks, on a line that the answer is to end.
    pub fn ask(&mut self, question: impl Display) {
        let begin = if std::mem::replace(&mut self.midline, true) { "\n" } else { "" };
        let line = format!("{begin}vconsole: {question} ");
        if self.sink.is_some() && line.len() <= self.queue.room() {
            self.queue.push(line.as_bytes());
        }
        self.write();
    }

    /// Ends the line of a question, unless the answer did.
    pub fn end_line(&mut self) {
        if std::mem::take(&mut self.midline) && self.sink.is_some() && self.queue.room() > 0 {
            self.queue.push(b"\n");
        }
        self.write();
    }

    /// Waits until all is written, but no longer than `patience`.
    pub fn flush(&mut self, patience: Duration) {
        let until = Instant::now() + patience;
        self.write();
        while let Some(stderr) = self.waiting_for() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let mut fds = [PollFd::from_borrowed_fd(stderr, PollFlags::OUT)];
            // An interruption, which is all that can go wrong here, is no reason to wait longer.
            let _ = poll(&mut fds, Some(&timeout(left)));
            self.write();
        }
    }

    /// What to wait for until more can be written, if there is more.
    pub(crate) fn waiting_for(&self) -> Option<BorrowedFd<'_>> {
        self.sink.as_ref().filter(|_| !self.queue.is_empty()).map(Sink::as_fd)
    }

    /// Writes as much as stderr takes now.
    pub(super) fn write(&mut self) {
        let Some(sink) = &mut self.sink else { return };
        while !self.queue.is_empty() {
            match sink.write(self.queue.oldest()) {
                Ok(Some(count)) => self.queue.consume(count),
                Ok(None) => return,
                Err(_) => {
                    // Nobody is left to be told of it.
                    self.sink = None;
                    self.queue.clear();
                    return;
                }
            }
        }
    }

    /// The console's output on the user's terminal now ends with `byte`: the next notice begins a line.
    pub fn shown(&mut self, byte: u8) {
        self.midline = byte != b'\n';
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read as _, pipe};

    use super::*;

    fn on_a_pipe(quiet: bool) -> (Notices, PipeReader) {
        let (read_end, write_end) = pipe().unwrap();
        (Notices::to(Some(Sink::new(write_end.as_fd()).unwrap()), quiet), read_end)
    }

    fn said(notices: Notices, mut stderr: PipeReader) -> String {
        drop(notices);
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn each_line_says_who_speaks_and_begins_a_line() {
        let (mut notices, stderr) = on_a_pipe(false);
        notices.say("one\ntwo");
        notices.shown(b'$');
        notices.say("three");
        notices.shown(b'\n');
        notices.say("four");
        let expected = "vconsole: one\nvconsole: two\n\nvconsole: three\nvconsole: four\n";
        assert_eq!(said(notices, stderr), expected);
    }

    #[test]
    fn quiet_mutes_notices_and_no_answers() {
        let (mut notices, stderr) = on_a_pipe(true);
        notices.say("notice");
        notices.answer("answer");
        assert_eq!(said(notices, stderr), "vconsole: answer\n");
    }

    #[test]
    fn a_stderr_that_nobody_reads_costs_neither_time_nor_memory() {
        let (mut notices, _stderr) = on_a_pipe(false);
        for _ in 0..10_000 {
            notices.say("the same thing over and over again");
        }
        assert!(notices.queue.len() <= QUEUE && notices.waiting_for().is_some());
        let start = Instant::now();
        notices.flush(Duration::from_millis(50));
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_stderr_whose_reader_left_is_no_error() {
        let (mut notices, stderr) = on_a_pipe(false);
        drop(stderr);
        notices.say("hello?");
        assert!(notices.waiting_for().is_none());
    }
}
