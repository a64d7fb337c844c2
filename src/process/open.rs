//! What one process has open.

use std::fs;
use std::path::PathBuf;

use super::master::{Master, is_ptmx};
use super::walk::Descriptors;
use super::{PROC_IS_OURS, Process};
use crate::console::Device;

impl Process {
    /// Whether it has `device` open as one of the descriptors `wanted`; nothing is said where `/proc`
    /// hides its descriptors from us.
    fn has_open_as(&self, device: Device, wanted: impl Fn(i32) -> bool) -> Option<bool> {
        let mut found = false;
        let all = self.each_device(|number, its| found |= its == device && wanted(number))?;
        (found || all).then_some(found)
    }

    /// Whether it is at the other end of the PTY slave `device`: it has the master open. Many who
    /// offer a PTY keep its slave open as well, so that it never hangs up; that makes them no client.
    #[must_use]
    pub fn has_master_of(&self, device: Device) -> bool {
        let mut found = false;
        self.each_device(|number, its| {
            let master = is_ptmx(its).then(|| Master::read(self.pid, number, its)).flatten();
            // Where its devpts instance cannot be seen, the number has to do.
            found |= master.is_some_and(|master| master.is_of(device).unwrap_or(true));
        });
        found
    }

    /// Whether it has `device` open; nothing is said where `/proc` hides its descriptors from us.
    #[must_use]
    pub fn has_open(&self, device: Device) -> Option<bool> {
        self.has_open_as(device, |_| true)
    }

    /// Whether it has `device` as standard input, output or error.
    #[must_use]
    pub fn has_as_standard(&self, device: Device) -> bool {
        self.has_open_as(device, |number| number <= 2) == Some(true)
    }

    /// The character devices that it has open, with the path under which it opened each.
    #[must_use]
    pub fn open_devices(&self) -> Vec<(PathBuf, Device)> {
        let mut found = Vec::new();
        self.each_device(|number, device| {
            let path = fs::read_link(format!("/proc/{}/fd/{number}", self.pid));
            found.extend(path.ok().map(|path| (path, device)));
        });
        found
    }

    /// The number of a descriptor that it has of `device`.
    #[must_use]
    pub fn descriptor_of(&self, device: Device) -> Option<i32> {
        let mut found = None;
        self.each_device(|number, its| found = found.or((its == device).then_some(number)));
        found
    }

    /// Shows each character device that it has open, with the descriptor's number. Gives whether these
    /// are all; nothing where none can be seen.
    fn each_device(&self, show: impl FnMut(i32, Device)) -> Option<bool> {
        if !*PROC_IS_OURS {
            return None;
        }
        Some(Descriptors::of(self.pid).ok()?.each_device(show))
    }
}
