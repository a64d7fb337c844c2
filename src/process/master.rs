//! The master side of a PTY, seen in another process: of which slave is it the other end?

use std::fs;
use std::path::Path;

use crate::device::Device;

/// The type of a devpts filesystem (`DEVPTS_SUPER_MAGIC` in the kernel's linux/magic.h).
const DEVPTS: u32 = 0x1cd1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Master {
    /// The number of its slave, as in `/dev/pts/5`.
    pub(super) index: u32,
    /// The devpts instance (`st_dev`) of its slave, if visible: each has its own number 5.
    pub(super) instance: Option<u64>,
}

impl Master {
    /// Reads the descriptor `number` of process `pid`, which is open on `ptmx`.
    pub(super) fn read(pid: i32, number: i32, ptmx: Device) -> Option<Self> {
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
        let index = index_in(&info)?;
        Some(Self { index, instance: instance(pid, number, ptmx, index) })
    }

    /// `None` where the devpts instance is unknown.
    pub(super) fn is_of(self, device: Device) -> Option<bool> {
        if !device.is_pty() || device.minor() != self.index {
            return Some(false);
        }
        self.instance.map(|instance| instance == device.filesystem)
    }
}

pub(super) fn index_in(info: &str) -> Option<u32> {
    let index = info.lines().find_map(|line| line.strip_prefix("tty-index:"))?;
    index.trim().parse().ok()
}

/// A `ptmx` in a devpts instance opens masters of that instance. Any other node uses the instance
/// at `pts` beside it (`devpts_acquire` in the kernel's fs/devpts/inode.c), as the process sees it.
fn instance(pid: i32, number: i32, ptmx: Device, index: u32) -> Option<u64> {
    let descriptor = format!("/proc/{pid}/fd/{number}");
    // Asked by path, which opens nothing.
    let filesystem = rustix::fs::statfs(&*descriptor).ok()?;
    if u32::try_from(filesystem.f_type) == Ok(DEVPTS) {
        return Some(ptmx.filesystem);
    }
    let node = fs::read_link(&descriptor).ok()?;
    let beside = node.parent()?.strip_prefix("/").ok()?;
    let slave = Path::new(&format!("/proc/{pid}/root")).join(beside).join(format!("pts/{index}"));
    let device = Device::of(&fs::metadata(slave).ok()?)?;
    (device.is_pty() && device.minor() == index).then_some(device.filesystem)
}
