//! A thread that reads a descriptor all the time, so that nobody is ever stuck because a test looks
//! elsewhere; and the ways to wait for what it hears.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use vconsole::Printable;

use super::DEADLINE;

/// How much of what was heard a failure shows.
const SHOWN: usize = 1500;

/// How long a wait may last when something comes all the time.
const LONGEST: Duration = Duration::from_secs(120);

/// What was heard on one descriptor since it was opened, or since [`Ear::forget`].
pub(crate) struct Ear {
    what: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    heard: Mutex<Heard>,
    changed: Condvar,
    notify: OwnedFd,
}

#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    paused: bool,
    ended: bool,
    closing: bool,
}

/// Why what was waited for did not come.
enum Missed {
    End,
    Deadline,
}

/// When the stream is over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// At its end: a pipe, a slave, a socket.
    AtHangUp,
    /// Never: a PTY's master says that it was hung up whenever no slave is open, and goes on when the
    /// next one is.
    Never,
}

impl Ear {
    /// Starts to listen on `descriptor`, which failures call `what`.
    pub(super) fn on(descriptor: Arc<OwnedFd>, what: impl Into<String>, ends: Ends) -> Self {
        let ear = Self::asleep(descriptor, what, ends);
        ear.resume();
        ear
    }

    /// The same, but paused.
    pub(super) fn asleep(descriptor: Arc<OwnedFd>, what: impl Into<String>, ends: Ends) -> Self {
        let notify = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let heard = Mutex::new(Heard { paused: true, ..Heard::default() });
        let shared = Arc::new(Shared { heard, changed: Condvar::new(), notify });
        let listener = Arc::clone(&shared);
        let thread = std::thread::spawn(move || listener.listen(&descriptor, ends));
        Self { what: what.into(), shared, thread: Some(thread) }
    }

    /// Waits until `bytes` were heard, anywhere.
    #[track_caller]
    pub(crate) fn receives(&self, bytes: impl AsRef<[u8]>) {
        let wanted = bytes.as_ref();
        let mut searched = 0;
        self.wait_for(&format!("\"{}\"", Printable::bytes(wanted)), |heard| {
            let from = searched;
            searched = heard.len().saturating_sub(wanted.len());
            contains(&heard[from.min(heard.len())..], wanted).then_some(())
        });
    }

    /// Waits until as many bytes were heard as `bytes` has, and asserts that they are these.
    #[track_caller]
    pub(crate) fn receives_exactly(&self, bytes: impl AsRef<[u8]>) {
        let wanted = bytes.as_ref();
        self.receives_at_least(wanted.len());
        let heard = self.so_far();
        assert!(
            heard == wanted,
            "{}: the first byte that is not as it should be is {:?}; of {}",
            self.what,
            heard.iter().zip(wanted).position(|(one, other)| one != other),
            shown(&heard),
        );
    }

    /// Waits until `count` bytes were heard.
    #[track_caller]
    pub(crate) fn receives_at_least(&self, count: usize) {
        self.wait_for(&format!("{count} bytes"), |heard| (heard.len() >= count).then_some(()));
    }

    /// Waits until `find` finds in the bytes so far what it looks for; `wanted` says what that is. As
    /// long as bytes come the deadline is not near.
    #[track_caller]
    pub(crate) fn wait_for<T>(&self, wanted: &str, find: impl FnMut(&[u8]) -> Option<T>) -> T {
        match self.search(find) {
            Ok(found) => found,
            Err(Missed::End) => self.fail("the end", wanted),
            Err(Missed::Deadline) => self.fail("the deadline", wanted),
        }
    }

    /// The same, but the stream may also end before: then `None`.
    #[track_caller]
    pub(crate) fn wait_for_or_end<T>(
        &self,
        wanted: &str,
        find: impl FnMut(&[u8]) -> Option<T>,
    ) -> Option<T> {
        match self.search(find) {
            Ok(found) => Some(found),
            Err(Missed::End) => None,
            Err(Missed::Deadline) => self.fail("the deadline", wanted),
        }
    }

    /// Waits until the stream is over, and gives all of it.
    #[track_caller]
    pub(crate) fn to_the_end(&self) -> Vec<u8> {
        self.wait_for_or_end("the end", |_| None::<()>);
        self.so_far()
    }

    /// What was heard so far.
    pub(crate) fn so_far(&self) -> Vec<u8> {
        self.shared.lock().bytes.clone()
    }

    /// Whether the stream is over.
    pub(crate) fn has_ended(&self) -> bool {
        self.shared.lock().ended
    }

    /// Forgets what was heard so far, and gives it.
    pub(crate) fn forget(&self) -> Vec<u8> {
        std::mem::take(&mut self.shared.lock().bytes)
    }

    /// Listens no more, and gives what was heard to the last.
    pub(super) fn ends(mut self) -> Vec<u8> {
        self.close();
        self.forget()
    }

    fn close(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
        self.shared.notify();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }

    /// Stops reading: whoever writes gets stuck.
    pub(crate) fn pause(&self) {
        self.shared.lock().paused = true;
        self.shared.notify();
    }

    /// Reads on.
    pub(crate) fn resume(&self) {
        self.shared.lock().paused = false;
        self.shared.changed.notify_all();
    }

    fn search<T>(&self, mut find: impl FnMut(&[u8]) -> Option<T>) -> Result<T, Missed> {
        let start = Instant::now();
        let mut heard = self.shared.lock();
        loop {
            if let Some(found) = find(&heard.bytes) {
                return Ok(found);
            }
            if heard.ended {
                return Err(Missed::End);
            }
            let before = heard.bytes.len();
            heard = self.shared.wait(heard, before);
            let nothing_new = heard.bytes.len() == before && !heard.ended;
            if nothing_new || start.elapsed() > LONGEST {
                return Err(Missed::Deadline);
            }
        }
    }

    #[track_caller]
    fn fail(&self, came: &str, wanted: &str) -> ! {
        let heard = self.so_far();
        panic!("{}: {came} came before {wanted}; of {}", self.what, shown(&heard))
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Waits until there are not `before` bytes any more, or the end, or the deadline.
    fn wait<'a>(&self, heard: MutexGuard<'a, Heard>, before: usize) -> MutexGuard<'a, Heard> {
        let same = |heard: &mut Heard| heard.bytes.len() == before && !heard.ended;
        self.changed.wait_timeout_while(heard, DEADLINE, same).unwrap().0
    }

    fn notify(&self) {
        rustix::io::write(&self.notify, &1_u64.to_ne_bytes()).unwrap();
    }

    fn listen(&self, descriptor: &OwnedFd, ends: Ends) {
        let mut buffer = vec![0; 64 * 1024];
        while self.may_read() {
            match self.read(descriptor, &mut buffer, ends) {
                Ok(0) => break,
                Ok(count) => self.lock().bytes.extend_from_slice(&buffer[..count]),
                Err(Errno::AGAIN | Errno::INTR) => continue,
                Err(_) => break,
            }
            self.changed.notify_all();
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Waits as long as reading is paused; false when there is nobody left to hear.
    fn may_read(&self) -> bool {
        let heard = self.lock();
        let idle = |heard: &mut Heard| heard.paused && !heard.closing;
        !self.changed.wait_while(heard, idle).unwrap().closing
    }

    /// Waits for bytes or for [`Shared::notify`] (then [`Errno::AGAIN`]), and reads.
    fn read(&self, from: &OwnedFd, buffer: &mut [u8], ends: Ends) -> Result<usize, Errno> {
        let mut set = [PollFd::new(from, PollFlags::IN), PollFd::new(&self.notify, PollFlags::IN)];
        poll(&mut set, None)?;
        let (found, woken) = (set[0].revents(), !set[1].revents().is_empty());
        if woken {
            rustix::io::read(&self.notify, &mut [0; 8])?;
            return Err(Errno::AGAIN);
        }
        if ends == Ends::Never && !found.contains(PollFlags::IN) {
            self.nap();
            return Err(Errno::AGAIN);
        }
        match rustix::io::read(from, buffer) {
            // The slave was closed between poll and read.
            Err(Errno::IO) if ends == Ends::Never => Err(Errno::AGAIN),
            other => other,
        }
    }

    /// Nothing tells the holder of a master that a slave was opened again: look in a moment.
    fn nap(&self) {
        let moment = Timespec::try_from(Duration::from_millis(2)).unwrap();
        let _ = poll(&mut [PollFd::new(&self.notify, PollFlags::IN)], Some(&moment));
    }
}

/// Whether `wanted` is somewhere in `bytes`.
pub(crate) fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn shown(bytes: &[u8]) -> String {
    let from = bytes.len().saturating_sub(SHOWN);
    let dots = if from > 0 { "..." } else { "" };
    format!("{} bytes heard: {dots}{}", bytes.len(), Printable::bytes(&bytes[from..]))
}

/// Waits for a moment that must stay silent: only for proving that something does not come.
pub(crate) fn silence(ear: &Ear, length: Duration) {
    let (start, before) = (Instant::now(), ear.so_far().len());
    while start.elapsed() < length {
        std::thread::sleep(super::GLANCE);
        let heard = ear.so_far();
        assert!(heard.len() == before, "{} was not silent; {}", ear.what, shown(&heard[before..]));
    }
}
