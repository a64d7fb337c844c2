//! The master side of a PTY, seen in another process: of which slave is it the other end?

use std::fs;
use std::path::{Path, PathBuf};

use crate::console::Device;

/// `/dev/ptmx`: device 5:2 in the kernel's `Documentation/admin-guide/devices.txt`.
const PTMX: (u32, u32) = (5, 2);

/// What a devpts filesystem calls itself (`DEVPTS_SUPER_MAGIC` in the kernel's linux/magic.h).
const DEVPTS: u32 = 0x1cd1;

/// A descriptor that is the master side of a PTY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Master {
    /// The number of its slave, as in `/dev/pts/5`.
    pub(super) index: u32,
    /// The devpts instance that its slave is in (`st_dev`), where that can be seen: each has a number
    /// 5 of its own.
    pub(super) instance: Option<u64>,
}

/// Whether `device` is the one through which masters are opened.
pub(super) fn is_ptmx(device: Device) -> bool {
    (rustix::fs::major(device.number), rustix::fs::minor(device.number)) == PTMX
}

impl Master {
    /// Reads what the descriptor `number` of process `pid`, which is open on `ptmx`, is the master of.
    pub(super) fn read(pid: i32, number: i32, ptmx: Device) -> Option<Self> {
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
        let index = index_in(&info)?;
        Some(Self { index, instance: instance(pid, number, ptmx, index) })
    }

    /// Whether it is the master of the slave `device`. Nothing where its devpts instance is unknown.
    pub(super) fn is_of(self, device: Device) -> Option<bool> {
        if !is_slave(device) || rustix::fs::minor(device.number) != self.index {
            return Some(false);
        }
        self.instance.map(|instance| instance == device.filesystem)
    }
}

/// The slave's number in what `/proc` says of a descriptor.
pub(super) fn index_in(info: &str) -> Option<u32> {
    let index = info.lines().find_map(|line| line.strip_prefix("tty-index:"))?;
    index.trim().parse().ok()
}

/// Whether `device` is a slave in a devpts instance (`UNIX98_PTY_SLAVE_MAJOR` and the seven behind it).
fn is_slave(device: Device) -> bool {
    (136..=143).contains(&rustix::fs::major(device.number))
}

/// The devpts instance of a master. The `ptmx` that lies in an instance opens masters of that one. Any
/// other node of this device takes the instance that is mounted on `pts` beside it (`devpts_acquire`
/// in the kernel's fs/devpts/inode.c), which is looked up as the process sees it.
fn instance(pid: i32, number: i32, ptmx: Device, index: u32) -> Option<u64> {
    let descriptor = format!("/proc/{pid}/fd/{number}");
    // Asked by path, which opens nothing.
    let filesystem = rustix::fs::statfs(&*descriptor).ok()?;
    if u32::try_from(filesystem.f_type) == Ok(DEVPTS) {
        return Some(ptmx.filesystem);
    }
    let node = fs::read_link(&descriptor).ok()?;
    let beside = node.parent()?.strip_prefix("/").ok()?;
    let slave = Path::new("/proc").join(pid.to_string()).join("root").join(beside);
    let slave: PathBuf = slave.join("pts").join(index.to_string());
    let device = Device::of(&fs::metadata(slave).ok()?)?;
    (is_slave(device) && rustix::fs::minor(device.number) == index).then_some(device.filesystem)
}
