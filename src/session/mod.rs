//! The sockets of running sessions: where they are, who may connect, and what is said over them.

pub(crate) mod broadcast;
pub(crate) mod client;
pub(crate) mod handoff;
pub(crate) mod listener;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod properties;
pub(crate) mod protocol;
pub(crate) mod registry;
pub(crate) mod scrollback;
pub(crate) mod subscription;
pub(crate) mod wait_queue;
