//! How long tests take that could take any time: short in `cargo xtask test`, long in `cargo xtask soak`.

/// `long` when `LB_SOAK=1` is in the environment, else `short`.
pub fn rounds(short: u64, long: u64) -> u64 {
    if std::env::var_os("LB_SOAK").is_some_and(|value| value == "1") { long } else { short }
}
