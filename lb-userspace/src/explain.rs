//! Words for what the packet path did: a dropped packet in one line, and what an operator can do about a reason. Pure.

pub mod capture_file;
pub mod frame;
pub mod packet;
pub mod remedy;
pub mod verdict;
