//! Messages of vconsole on stderr, written without ever blocking.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};
use std::{fmt::Display, io};

use rustix::event::PollFlags;

use crate::endpoint::{EndpointKind, Sink};
use crate::{poll, ring_buffer::Buffer, terminal};

/// Messages that do not fit are lost.
const QUEUE: usize = 16 * 1024;
/// The limit for the last messages on a terminal that accepts nothing.
pub(crate) const GOODBYE_TIME: Duration = Duration::from_millis(200);

/// Messages for the user, a line each, written as far as stderr accepts them: a stuck terminal
/// blocks nothing. Text chosen by others must be made [`Printable`](crate::Printable) first.
#[derive(Debug)]
pub(crate) struct Messages {
    sink: Option<Sink>,
    queue: Buffer,
    quiet: bool,
    midline: bool,
}

impl Messages {
    /// `quiet` drops mere information.
    pub(crate) fn new(quiet: bool) -> Self {
        Self::to(Sink::new(io::stderr().as_fd()).ok(), quiet)
    }

    /// The cursor of the terminal may be anywhere.
    pub(crate) fn on(terminal: impl AsFd) -> Self {
        let messages = Self::to(Sink::new(terminal.as_fd()).ok(), false);
        Self { midline: true, ..messages }
    }

    fn to(sink: Option<Sink>, quiet: bool) -> Self {
        Self { sink, queue: Buffer::new(QUEUE), quiet, midline: false }
    }

    pub(crate) fn info(&mut self, text: impl Display) {
        if !self.quiet {
            self.important(text);
        }
    }

    /// For what the user asked for, or has to know in any case.
    pub(crate) fn important(&mut self, text: impl Display) {
        let new_line = match &self.sink {
            Some(sink) if sink.kind() == EndpointKind::Terminal && terminal::is_raw() => "\r\n",
            Some(_) => "\n",
            None => return,
        };
        for line in text.to_string().lines() {
            let begin = if std::mem::take(&mut self.midline) { new_line } else { "" };
            self.queue(&format!("{begin}vconsole: {line}{new_line}"));
        }
        self.write();
    }

    pub(crate) fn ask(&mut self, question: impl Display) {
        let begin = if std::mem::replace(&mut self.midline, true) { "\n" } else { "" };
        self.queue(&format!("{begin}vconsole: {question} "));
        self.write();
    }

    pub(crate) fn end_line(&mut self) {
        if std::mem::take(&mut self.midline) {
            self.queue("\n");
        }
        self.write();
    }

    /// A line is written whole or not at all.
    fn queue(&mut self, line: &str) {
        if self.sink.is_some() && line.len() <= self.queue.room() {
            self.queue.push(line.as_bytes());
        }
    }

    pub(crate) fn flush(&mut self, time_limit: Duration) {
        let deadline = Instant::now() + time_limit;
        self.write();
        while let Some(stderr) = self.waiting_for()
            && Instant::now() < deadline
        {
            let _ = poll::wait(&mut [poll::entry(stderr, PollFlags::OUT)], Some(deadline));
            self.write();
        }
    }

    /// The descriptor to poll while messages wait.
    pub(crate) fn waiting_for(&self) -> Option<BorrowedFd<'_>> {
        self.sink.as_ref().filter(|_| !self.queue.is_empty()).map(Sink::as_fd)
    }

    pub(crate) fn write(&mut self) {
        let Some(sink) = &mut self.sink else { return };
        while !self.queue.is_empty() {
            match sink.write(self.queue.oldest()) {
                Ok(Some(count)) => self.queue.consume(count),
                Ok(None) => return,
                Err(_) => {
                    self.sink = None;
                    self.queue.clear();
                    return;
                }
            }
        }
    }

    /// The console's output ended with `byte`: the next message begins a new line.
    pub(crate) fn shown(&mut self, byte: u8) {
        self.midline = byte != b'\n';
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read as _, pipe};

    use super::*;

    fn on_a_pipe(quiet: bool) -> (Messages, PipeReader) {
        let (read_end, write_end) = pipe().unwrap();
        (Messages::to(Some(Sink::new(write_end.as_fd()).unwrap()), quiet), read_end)
    }

    fn said(messages: Messages, mut stderr: PipeReader) -> String {
        drop(messages);
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn each_line_says_who_speaks_and_begins_a_line_unless_quiet_drops_it() {
        let (mut messages, stderr) = on_a_pipe(false);
        messages.info("one\ntwo");
        messages.shown(b'$');
        messages.info("three");
        messages.shown(b'\n');
        messages.info("four");
        let expected = "vconsole: one\nvconsole: two\n\nvconsole: three\nvconsole: four\n";
        assert_eq!(said(messages, stderr), expected);
        // Quiet drops information, and no answer.
        let (mut messages, stderr) = on_a_pipe(true);
        messages.info("notice");
        messages.important("answer");
        assert_eq!(said(messages, stderr), "vconsole: answer\n");
    }

    #[test]
    fn a_stderr_that_nobody_reads_is_no_error_and_costs_neither_time_nor_memory() {
        let (mut messages, stderr) = on_a_pipe(false);
        for _ in 0..10_000 {
            messages.info("the same thing over and over again");
        }
        assert!(messages.queue.len() <= QUEUE && messages.waiting_for().is_some());
        let start = Instant::now();
        messages.flush(Duration::from_millis(50));
        assert!(start.elapsed() < Duration::from_secs(5));
        // A reader that left is no error.
        drop(stderr);
        messages.info("hello?");
        assert!(messages.waiting_for().is_none());
    }
}
