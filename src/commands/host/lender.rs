//! A client's own descriptor of the console, for where it lets nobody else open it.

use std::fs;
use std::os::fd::{OwnedFd, RawFd};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::console::Device;
use crate::process::Openers;

/// A process that has the console open and lends us its descriptor: one of the same user, as far as
/// `ptrace(2)` would be allowed.
pub(super) struct Lender {
    pidfd: OwnedFd,
    number: RawFd,
    device: Device,
}

impl Lender {
    /// Somebody who has `device` open. It walks over all processes.
    pub(super) fn of(device: Device) -> Option<Self> {
        let clients = Openers::of(device).processes;
        let mut lenders = clients.iter().filter_map(|client| {
            let pidfd = pidfd_open(Pid::from_raw(client.pid)?, PidfdFlags::empty()).ok()?;
            let number = client.descriptor_of(device)?;
            Some(Self { pidfd, number, device })
        });
        lenders.find(|lender| lender.lend().is_some())
    }

    /// The descriptor, to be given back at once: while we have it nobody can be seen to leave.
    pub(super) fn lend(&self) -> Option<OwnedFd> {
        let lent = pidfd_getfd(&self.pidfd, self.number, PidfdGetfdFlags::empty()).ok()?;
        // It may be something else by now.
        let found = fs::File::from(lent);
        let same = Device::of(&found.metadata().ok()?) == Some(self.device);
        same.then(|| found.into())
    }
}
