//! Finding the terminal lines of this machine, without opening one.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::console::kind::Kind;
use crate::console::target::{Target, add_aliases};
use crate::device::Device;

/// The PTYs of our devpts instance.
const PTYS: &str = "/dev/pts";
/// The kernel's list of terminal lines (`sysfs(5)`).
const LINES: &str = "/sys/class/tty";

impl Target {
    /// The PTYs and real serial ports of this machine with their owners, by number and name.
    pub(crate) fn every_line() -> Vec<(Self, u32)> {
        [ptys(), serial_ports()].concat()
    }

    fn of_node(path: PathBuf, kind: Kind) -> Option<(Self, u32)> {
        let node = fs::metadata(&path).ok()?;
        let device = Device::of(&node).filter(|&device| device.is_pty() == (kind == Kind::Pty))?;
        let mut names = vec![path];
        if kind == Kind::Serial {
            add_aliases(&mut names, device);
        }
        Some((Self { names, device, kind, node: None }, node.uid()))
    }
}

fn ptys() -> Vec<(Target, u32)> {
    let entries = fs::read_dir(PTYS).into_iter().flatten().flatten();
    // `ptmx` is there too.
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

/// Whether there is hardware behind a line. Virtual consoles have no device. The serial driver
/// keeps places for ports that do not exist: those have the type 0 (`PORT_UNKNOWN` in the kernel's
/// linux/serial.h). Lines of other drivers, such as USB adapters, have no type.
fn is_real(line: &Path) -> bool {
    line.join("device").exists()
        && fs::read_to_string(line.join("type")).map_or(true, |kind| kind.trim() != "0")
}
