//! The kind of a line, found out without opening it: opening a serial port may raise DTR.

use std::fs;

use crate::device::Device;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The slave side of a pseudo-terminal.
    Pty,
    /// A serial port, or another terminal line of the kernel.
    Serial,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum DeviceClass {
    Terminal(Kind),
    PtyMaster,
    /// `/dev/tty`: the terminal of the process that opens it.
    OwnTerminal,
    Other,
}

impl DeviceClass {
    pub(super) fn of(device: Device) -> Self {
        let (major, minor) = (device.major(), device.minor());
        match (major, minor) {
            // TTYAUX_MAJOR in the kernel's Documentation/admin-guide/devices.txt.
            (5, 0) => return Self::OwnTerminal,
            (5, 2) => return Self::PtyMaster,
            _ if device.is_pty() => return Self::Terminal(Kind::Pty),
            _ => {}
        }
        match fs::read_to_string("/proc/tty/drivers") {
            Ok(table) => Self::in_table(&table, major, minor),
            // Unknown: opening it will tell.
            Err(_) => Self::Terminal(Kind::Serial),
        }
    }

    /// Looks a device up in the kernel's table of terminal drivers: each line has a name, a path,
    /// the major number, the minor numbers and the type (`proc_tty_drivers(5)`).
    fn in_table(table: &str, major: u32, minor: u32) -> Self {
        let kind = table.lines().find_map(|line| {
            let mut fields = line.split_ascii_whitespace().rev();
            let (kind, minors, its_major) = (fields.next()?, fields.next()?, fields.next()?);
            let (first, last) = minors.split_once('-').unwrap_or((minors, minors));
            let minors = first.parse::<u32>().ok()?..=last.parse().ok()?;
            (its_major.parse() == Ok(major) && minors.contains(&minor)).then_some(kind)
        });
        match kind {
            None => Self::Other,
            Some("pty:master") => Self::PtyMaster,
            Some("pty:slave") => Self::Terminal(Kind::Pty),
            Some(_) => Self::Terminal(Kind::Serial),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
/dev/tty             /dev/tty        5       0 system:/dev/tty
serial               /dev/ttyS       4 64-67 serial
pty_slave            /dev/ttyp       3 0-255 pty:slave
pty_master           /dev/ptyp       2 0-255 pty:master
unknown              /dev/tty        4 1-63 console
half a line
";

    #[test]
    fn the_kernel_s_table_tells_lines_from_masters_and_the_rest() {
        let kind = |major, minor| DeviceClass::in_table(TABLE, major, minor);
        assert_eq!(kind(4, 64), DeviceClass::Terminal(Kind::Serial));
        assert_eq!(kind(4, 68), DeviceClass::Other);
        assert_eq!(kind(3, 255), DeviceClass::Terminal(Kind::Pty));
        assert_eq!(kind(2, 0), DeviceClass::PtyMaster);
        assert_eq!(kind(1, 3), DeviceClass::Other);
    }
}
