//! The kernel's table of flock(2) holders.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::console::target::Target;

/// The processes that hold flocks by file, as major:minor:inode.
pub(crate) struct Flocks(HashMap<String, Vec<i32>>);

impl Flocks {
    pub(crate) fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/locks").unwrap_or_default())
    }

    /// Fields: number, kind, advisory or mandatory, access, pid, and file as major:minor:inode with
    /// the first two hexadecimal (`proc_locks(5)`).
    pub(crate) fn parse(table: &str) -> Self {
        let mut flocks: HashMap<String, Vec<i32>> = HashMap::new();
        for line in table.lines() {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            // A process that waits for the lock has an arrow in the second field.
            if let [_, "FLOCK", _, _, pid, file, ..] = fields[..]
                && let Ok(pid) = pid.parse()
            {
                flocks.entry(file.to_owned()).or_default().push(pid);
            }
        }
        Self(flocks)
    }

    pub(crate) fn of(&self, target: &Target) -> Vec<i32> {
        // Most machines have few flocks: then no file needs to be looked up.
        if self.0.is_empty() {
            return Vec::new();
        }
        let nodes = target.nodes().filter_map(|node| fs::metadata(node).ok());
        nodes.flat_map(|node| self.named(node.dev(), node.ino())).copied().collect()
    }

    pub(crate) fn named(&self, device: u64, inode: u64) -> &[i32] {
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let file = format!("{major:02x}:{minor:02x}:{inode}");
        self.0.get(&file).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::Flocks;

    #[test]
    fn the_kernel_s_table_names_who_holds_and_not_who_waits() {
        let table = "\
1: FLOCK  ADVISORY  WRITE 812 00:18:53 0 EOF
1: -> FLOCK  ADVISORY  WRITE 813 00:18:53 0 EOF
2: POSIX  ADVISORY  WRITE 814 00:18:53 0 EOF
3: FLOCK  ADVISORY  WRITE 815 00:18:54 0 EOF
4: FLOCK  ADVISORY  WRITE -1 00:18:53 0 EOF
half a line
";
        let flocks = Flocks::parse(table);
        assert_eq!(flocks.named(rustix::fs::makedev(0, 0x18), 53), [812, -1]);
        assert_eq!(flocks.named(rustix::fs::makedev(0, 0x18), 55), [0; 0]);
    }
}
