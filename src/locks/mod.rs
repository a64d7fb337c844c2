//! UUCP lock files: names, directories, contents, staleness, and the journal of changes.

pub(crate) mod directory;
pub(crate) mod file;
pub(crate) mod flock;
pub(crate) mod journal;
pub(crate) mod names;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod properties;
pub(crate) mod staleness;
