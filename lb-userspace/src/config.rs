//! YAML as written -> a checked model that cannot be invalid.

pub mod model;
