//! Properties of what we read from `/proc`, whatever it says.

#![allow(clippy::missing_panics_doc, reason = "a property that is broken panics")]

use crate::proc_stat::{ProcessState, Stat};
use crate::process::master::index_in;

/// A name may be anything, also a copy of the fields behind it; and half a line is no process.
pub fn stat(bytes: &[u8]) {
    if let Some(stat) = Stat::parse(bytes) {
        let whole = String::from_utf8_lossy(bytes);
        assert!(whole.contains(&format!("({})", stat.program)), "{stat:?}");
    }
    let fields = "S 1 7 8 34823 9 4194304 1 2 3 4 5 6 7 8 20 0 1 0 1234 0\n";
    let line = [b"42 (", bytes, b") ", fields.as_bytes()].concat();
    let stat = Stat::parse(&line);
    let stat = stat.as_ref().map(|it| {
        (it.parent, it.group, it.session, it.terminal, it.foreground, it.start, &it.state)
    });
    assert_eq!(stat, Some((1, 7, 8, 34823, 9, 1234, &ProcessState::Living)));
    assert!(
        Stat::parse(&line[..line.len().min(bytes.len() + 40)]).is_none() || bytes.contains(&b')')
    );
}

/// The number of a slave is read from the one line that has it.
pub fn descriptor(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(index) = index_in(&text) {
        assert!(text.contains("tty-index:") && text.contains(&index.to_string()), "{index}");
    }
    assert_eq!(index_in(&format!("pos:\t0\ntty-index:\t7\n{text}")), Some(7));
}
