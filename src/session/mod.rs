//! Sessions that can be talked to: where their sockets are, what is said there, who may come.

pub mod door;
mod gallery;
pub mod handover;
pub mod place;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod properties;
pub mod protocol;
pub mod seat;
mod seatings;
pub mod tape;
mod visitor;

pub use door::{Call, Door};
pub use gallery::Gallery;
pub use seat::Seat;
pub use seatings::Seatings;
pub use tape::Tape;
pub use visitor::Visitor;
