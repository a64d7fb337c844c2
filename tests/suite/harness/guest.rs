//! The two ends of a console: a guest, as a VMM has it, and a bare client.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{Gid, Mode, OFlags, Uid, chown};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetwinsize};

use super::ear::{Ear, Ends};
use super::pty::Pty;
use super::{GLANCE, until, write_all};

/// A guest's serial line: a PTY whose master the test holds, as a VMM does. Like QEMU it makes the
/// slave raw and then does not keep it open.
pub(crate) struct Guest {
    path: PathBuf,
    pty: Option<Pty>,
}

impl Guest {
    /// A guest on a raw line, as QEMU makes it.
    pub(crate) fn new() -> Self {
        let guest = Self::cooked();
        guest.sets(Termios::make_raw);
        guest
    }

    /// A guest on a line that is as the kernel makes it: cooked, and with echo.
    pub(crate) fn cooked() -> Self {
        let (pty, _slave) = Pty::open("the guest on");
        Self { path: pty.path.clone(), pty: Some(pty) }
    }

    /// The console's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The guest prints `bytes`: all of them were taken when this returns.
    #[track_caller]
    pub(crate) fn say(&self, bytes: impl AsRef<[u8]>) {
        write_all(&self.pty().master, bytes.as_ref(), "the guest's console");
    }

    /// Waits until the guest has read `bytes`, anywhere in its input.
    #[track_caller]
    pub(crate) fn receives(&self, bytes: impl AsRef<[u8]>) {
        self.ear().receives(bytes);
    }

    /// Waits until the guest has read as many bytes, and asserts that they are these.
    #[track_caller]
    pub(crate) fn receives_exactly(&self, bytes: impl AsRef<[u8]>) {
        self.ear().receives_exactly(bytes);
    }

    /// What the guest reads.
    pub(crate) fn ear(&self) -> &Ear {
        &self.pty().ear
    }

    /// The guest is stuck: it reads no more, until [`Guest::reads_on`].
    pub(crate) fn stops_reading(&self) {
        self.ear().pause();
    }

    /// The guest reads again.
    pub(crate) fn reads_on(&self) {
        self.ear().resume();
    }

    /// The guest prints without end, until the flood is dropped.
    pub(crate) fn floods(&self) -> Flood {
        let line = b"all work and no play\r\n".repeat(100);
        Flood::into(Arc::clone(&self.pty().master), Duration::ZERO, move |_| line.clone())
    }

    /// The guest counts without end: 2 MB a second of [`counting_from`], until the flood is dropped.
    pub(crate) fn counts(&self) -> Flood {
        let pause = Duration::from_millis(2);
        Flood::into(Arc::clone(&self.pty().master), pause, |at| counting_from(at, 4096))
    }

    /// The guest ends: its VMM closes the master.
    pub(crate) fn hang_up(&mut self) {
        self.pty = None;
    }

    /// The VMM changes the settings of the line.
    pub(crate) fn sets(&self, change: impl FnOnce(&mut Termios)) {
        self.pty().sets(change);
    }

    /// Whether what the guest says would come back to it.
    pub(crate) fn echoes(&self) -> bool {
        tcgetattr(&self.pty().master).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    /// Rows and columns, as the guest can ask for them.
    pub(crate) fn size(&self) -> (u16, u16) {
        let size = tcgetwinsize(&self.pty().master).unwrap();
        (size.ws_row, size.ws_col)
    }

    /// Gives the console to another user.
    pub(crate) fn chown(&self, user: u32) {
        chown(&self.path, Some(Uid::from_raw(user)), None::<Gid>).unwrap();
    }

    fn pty(&self) -> &Pty {
        self.pty.as_ref().expect("the guest hung up")
    }
}

/// `length` bytes of the stream in which a guest counts, from its byte number `at` on: each sixteen of them
/// are a number and a blank.
pub(crate) fn counting_from(at: u64, length: usize) -> Vec<u8> {
    let mut line = format!("{:015} ", at / 16).into_bytes();
    let skip = usize::try_from(at % 16).unwrap();
    let mut text = Vec::with_capacity(skip + length + line.len());
    while text.len() < skip + length {
        text.extend_from_slice(&line);
        count_on(&mut line);
    }
    text.truncate(skip + length);
    text.drain(..skip);
    text
}

/// Makes a line the next one. All that is shown is compared with these: it has to be fast.
fn count_on(line: &mut [u8]) {
    for digit in line[..15].iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
}

impl AsRef<OsStr> for Guest {
    fn as_ref(&self) -> &OsStr {
        self.path.as_os_str()
    }
}

/// A guest that prints without end. Dropping it ends the flood.
pub(crate) struct Flood {
    shared: Arc<Taken>,
    thread: Option<JoinHandle<()>>,
}

/// What was taken of a flood so far.
struct Taken {
    bytes: AtomicU64,
    last: Mutex<Instant>,
    /// How long it pauses after each piece, in microseconds.
    pause: AtomicU64,
    /// Whether it is to rest, and whether it does.
    rest: AtomicBool,
    rests: AtomicBool,
    over: AtomicBool,
}

/// A flood of which nothing was taken for so long is stuck.
const STUCK: Duration = Duration::from_millis(200);

impl Flood {
    fn into(
        console: Arc<OwnedFd>,
        pause: Duration,
        text: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> Self {
        let last = Mutex::new(Instant::now());
        let flag = || AtomicBool::new(false);
        let (bytes, pause) = (AtomicU64::new(0), AtomicU64::new(micros(pause)));
        let taken = Taken { bytes, last, pause, rest: flag(), rests: flag(), over: flag() };
        let shared = Arc::new(taken);
        let pouring = Arc::clone(&shared);
        let thread = std::thread::spawn(move || pouring.pour(&console, text));
        Self { shared, thread: Some(thread) }
    }

    /// From now on it pauses so long after each piece.
    pub(crate) fn pauses(&self, pause: Duration) {
        self.shared.pause.store(micros(pause), Ordering::Relaxed);
    }

    /// It stops, until [`Flood::pours_on`].
    #[track_caller]
    pub(crate) fn rests(&self) {
        self.shared.rest.store(true, Ordering::SeqCst);
        until("the flood rests", || self.shared.rests.load(Ordering::SeqCst));
    }

    /// It goes on.
    #[track_caller]
    pub(crate) fn pours_on(&self) {
        self.shared.rest.store(false, Ordering::SeqCst);
        until("the flood goes on", || !self.shared.rests.load(Ordering::SeqCst));
    }

    /// Waits until `count` bytes of it were taken.
    #[track_caller]
    pub(crate) fn pours(&self, count: u64) {
        until("the flood is taken", || self.shared.bytes.load(Ordering::Relaxed) >= count);
    }

    /// How many bytes of it were taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Waits until nothing more of it is taken.
    #[track_caller]
    pub(crate) fn gets_stuck(&self) {
        until("the flood is stuck", || self.shared.last.lock().unwrap().elapsed() > STUCK);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap()
}

impl Taken {
    fn pour(&self, console: &OwnedFd, text: impl Fn(u64) -> Vec<u8>) {
        while !self.over.load(Ordering::Relaxed) {
            let rest = self.rest.load(Ordering::SeqCst);
            self.rests.store(rest, Ordering::SeqCst);
            if rest {
                std::thread::sleep(GLANCE);
                continue;
            }
            // Where it takes nothing more, or not all: poll would not wait once the slave is closed.
            let text = text(self.bytes.load(Ordering::Relaxed));
            let Ok(count) = rustix::io::write(console, &text) else {
                std::thread::sleep(GLANCE);
                continue;
            };
            self.bytes.fetch_add(count as u64, Ordering::SeqCst);
            *self.last.lock().unwrap() = Instant::now();
            let pause = self.pause.load(Ordering::Relaxed);
            if pause > 0 {
                std::thread::sleep(Duration::from_micros(pause));
            }
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// A client that knows nothing of locks: it has a console open, reads it and writes to it.
pub(crate) struct Client {
    ear: Ear,
    line: Arc<OwnedFd>,
}

impl Client {
    /// Opens `console`, and reads it at once.
    #[track_caller]
    pub(crate) fn of(console: impl AsRef<Path>) -> Self {
        let client = Self::asleep(console);
        client.ear.resume();
        client
    }

    /// Opens `console`, but reads nothing yet.
    #[track_caller]
    pub(crate) fn asleep(console: impl AsRef<Path>) -> Self {
        let path = console.as_ref();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let line = Arc::new(rustix::fs::open(path, flags, Mode::empty()).unwrap());
        let what = format!("the client of {}", path.display());
        let ear = Ear::asleep(Arc::clone(&line), what, Ends::AtHangUp);
        Self { ear, line }
    }

    /// Types `bytes`: all of them were taken when this returns.
    #[track_caller]
    pub(crate) fn types(&self, bytes: impl AsRef<[u8]>) {
        write_all(&self.line, bytes.as_ref(), "the console");
    }

    /// Waits until `text` was printed.
    #[track_caller]
    pub(crate) fn shows(&self, text: impl AsRef<[u8]>) {
        self.ear.receives(text);
    }

    /// What it reads.
    pub(crate) fn ear(&self) -> &Ear {
        &self.ear
    }

    /// How many bytes wait for it to read them, as far as the kernel counts them.
    pub(crate) fn unread(&self) -> u64 {
        rustix::io::ioctl_fionread(&self.line).unwrap()
    }

    /// The console itself.
    pub(crate) fn line(&self) -> &OwnedFd {
        &self.line
    }

    /// Says how large the window is.
    pub(crate) fn set_size(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.line, size).unwrap();
    }
}
