//! The `lb` command: one verb a file.
