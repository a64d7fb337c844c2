//! Finding the terminal lines of this machine, without opening one.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::kind::is_pty;
use super::{Device, Kind, Target};

/// Where the PTYs of our devpts instance are.
const PTYS: &str = "/dev/pts";

/// Where the kernel lists its terminal lines (`sysfs(5)`).
const LINES: &str = "/sys/class/tty";

impl Target {
    /// The PTYs and the real serial ports of this machine, each with the user that it belongs to, the
    /// PTYs first and all in the order of their numbers and names.
    #[must_use]
    pub fn every_line() -> Vec<(Self, u32)> {
        let mut lines = ptys();
        lines.extend(serial_ports());
        lines
    }

    fn of_node(path: PathBuf, kind: Kind) -> Option<(Self, u32)> {
        let node = fs::metadata(&path).ok()?;
        let device = Device::of(&node).filter(|&device| is_pty(device) == (kind == Kind::Pty))?;
        Some((Self { names: vec![path], device, kind, changed: changed(&node) }, node.uid()))
    }
}

/// When a node was made or last changed, in seconds and nanoseconds.
pub(super) fn changed(node: &Metadata) -> (i64, i64) {
    (node.ctime(), node.ctime_nsec())
}

fn ptys() -> Vec<(Target, u32)> {
    let entries = fs::read_dir(PTYS).into_iter().flatten().flatten();
    // `ptmx` is there as well, which opens a new one.
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable();
    let paths = numbers.into_iter().map(|number| Path::new(PTYS).join(number.to_string()));
    paths.filter_map(|path| Target::of_node(path, Kind::Pty)).collect()
}

fn serial_ports() -> Vec<(Target, u32)> {
    let entries = fs::read_dir(LINES).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.filter(|entry| is_real(&entry.path())).map(|entry| entry.file_name()).collect();
    names.sort();
    let paths = names.into_iter().map(|name| Path::new("/dev").join(name));
    paths.filter_map(|path| Target::of_node(path, Kind::Serial)).collect()
}

/// Whether there is hardware behind a line: virtual consoles have no device, and of the ports for which
/// the serial driver keeps a place those that do not exist have the type 0 (`PORT_UNKNOWN` in the
/// kernel's linux/serial.h). Lines of other drivers, such as USB adapters, have no type.
fn is_real(line: &Path) -> bool {
    line.join("device").exists()
        && fs::read_to_string(line.join("type")).map_or(true, |kind| kind.trim() != "0")
}
