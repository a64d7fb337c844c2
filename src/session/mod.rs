//! Sessions that can be talked to: where their sockets are, what is said there, who may come.

pub mod door;
pub mod handover;
pub mod place;
pub mod protocol;
mod visitor;

pub use door::{Call, Door};
pub use visitor::Visitor;
