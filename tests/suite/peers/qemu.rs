//! A real virtual machine at the other end.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::harness::{DEADLINE, Locks, Terminal, Vconsole, missing};

/// A boot sector that echoes what its serial line says, for x86 in real mode.
#[rustfmt::skip]
const ECHO: [u8; 34] = [
    0x31, 0xc0,             //       xor ax, ax
    0x8e, 0xd8,             //       mov ds, ax
    0xba, 0xfd, 0x03,       // next: mov dx, 0x3fd     the line status register of the first port
    0xec,                   // wait: in al, dx
    0xa8, 0x01,             //       test al, 0x01     a byte has come
    0x74, 0xfb,             //       jz wait
    0xba, 0xf8, 0x03,       //       mov dx, 0x3f8     its data register
    0xec,                   //       in al, dx
    0x88, 0xc3,             //       mov bl, al
    0xba, 0xfd, 0x03,       //       mov dx, 0x3fd
    0xec,                   // full: in al, dx
    0xa8, 0x20,             //       test al, 0x20     a byte can be sent
    0x74, 0xfb,             //       jz full
    0x88, 0xd8,             //       mov al, bl
    0xba, 0xf8, 0x03,       //       mov dx, 0x3f8
    0xee,                   //       out dx, al
    0xeb, 0xe2,             //       jmp next
];

/// Makes a floppy in `directory` that boots [`ECHO`].
pub(super) fn boot_image(directory: &Path) -> PathBuf {
    let image = directory.join("boot.img");
    let mut sector = ECHO.to_vec();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    // A floppy's size, so that nobody has to guess its geometry.
    sector.resize(1_474_560, 0);
    fs::write(&image, sector).unwrap();
    image
}

/// A real virtual machine that runs [`ECHO`].
struct Qemu {
    child: Child,
    console: PathBuf,
    _disk: TempDir,
}

impl Qemu {
    fn boot() -> Self {
        let disk = tempfile::tempdir().unwrap();
        let image = boot_image(disk.path());
        let (output, theirs) = std::io::pipe().unwrap();
        let child = Command::new("qemu-system-x86_64")
            .args(["-display", "none", "-monitor", "none", "-nic", "none", "-serial", "pty"])
            .args(["-boot", "a", "-drive"])
            .arg(format!("if=floppy,format=raw,file={}", image.display()))
            .stdin(Stdio::null())
            .stdout(theirs.try_clone().unwrap())
            .stderr(theirs)
            .spawn()
            .unwrap();
        let console = console_path(output.into());
        Self { child, console, _disk: disk }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads QEMU's `char device redirected to /dev/pts/5 (label serial0)`.
fn console_path(output: OwnedFd) -> PathBuf {
    use std::io::BufRead as _;
    let lines = std::io::BufReader::new(fs::File::from(output)).lines();
    let path = lines.map_while(Result::ok).find_map(|line| {
        let (_, path) = line.split_once("redirected to ")?;
        Some(Path::new(path.split(' ').next()?).to_path_buf())
    });
    path.expect("QEMU says where its serial line is")
}

/// Types `bytes` until the guest has echoed them: it takes QEMU up to a second to see that somebody is
/// there, and its firmware a while to start the guest.
#[track_caller]
fn type_until_echoed(terminal: &Terminal, bytes: &str) {
    let start = Instant::now();
    while !terminal.screen_so_far().contains(bytes) {
        assert!(start.elapsed() < 3 * DEADLINE, "no echo: {:?}", terminal.screen_so_far());
        terminal.types(bytes);
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_qemu_guest_answers_and_leaves_no_trace() {
    if missing("qemu-system-x86_64") {
        return;
    }
    let (qemu, locks, terminal) = (Qemu::boot(), Locks::new(), Terminal::new());
    let before = terminal.settings();
    let session = Vconsole::attach(&qemu.console).locks(&locks).on(&terminal);
    terminal.shows("connected to");
    assert_ne!(terminal.settings(), before);
    terminal.clear();
    type_until_echoed(&terminal, "?");
    let line = "the quick brown fox jumps over the lazy dog 0123456789";
    terminal.types(line);
    terminal.shows(line);
    terminal.types("\x1d.");
    assert_eq!(session.wait(), 0);
    assert_eq!(terminal.settings(), before);
    locks.assert_empty();

    // And once more: the guest did not notice.
    terminal.clear();
    let again = Vconsole::attach(&qemu.console).locks(&locks).on(&terminal);
    terminal.shows("connected to");
    terminal.clear();
    type_until_echoed(&terminal, "!");
    terminal.types("\x1dq");
    assert_eq!(again.wait(), 0);
}

#[test]
fn a_qemu_guest_that_is_killed_hangs_up() {
    if missing("qemu-system-x86_64") {
        return;
    }
    let (mut qemu, locks, terminal) = (Qemu::boot(), Locks::new(), Terminal::new());
    let before = terminal.settings();
    let session = Vconsole::attach(&qemu.console).locks(&locks).on(&terminal);
    terminal.shows("connected to");
    qemu.child.kill().unwrap();
    assert_eq!(session.wait(), 5);
    terminal.shows("hung up");
    assert!(session.cpu_time() < Duration::from_millis(50), "{:?}", session.cpu_time());
    assert_eq!(terminal.settings(), before);
    locks.assert_empty();
}
