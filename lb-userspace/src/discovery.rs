//! Backends that the configuration does not tell by their addresses: by DNS names, and by files of a directory.
//!
//! The configuration has templates. [`expand()`] makes concrete backends of them from what was found last; everything else
//! knows those only. What is found comes from tasks (`resolver`, `watch`), which neither keep nor decide anything: what
//! counts while nothing good is found is in [`answers`] and [`files`].

pub mod answers;
pub mod expand;
pub mod files;
pub mod resolver;
pub mod watch;

pub use self::{
    answers::{Answers, Found, Question},
    expand::{Expanded, expand, questions},
    files::{Directory, Scan},
};
