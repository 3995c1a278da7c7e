//! Running other programs: what runs is shown, what it prints goes to standard error (standard output belongs to the
//! results of our own commands), and a failure names the command.

use std::{
    ffi::OsStr,
    io,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// Says on standard error what begins now.
pub fn step(text: impl AsRef<str>) {
    eprintln!("==> {}", text.as_ref());
}

/// Runs a command to its end with its output on standard error; an error if it fails.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .status()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// The standard output of a command, or `None` if it cannot be started or fails.
pub fn output_of(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command as one would type it.
pub fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c exit 3") && error.contains('3'), "{error}");
    }

    #[test]
    fn output_of_a_failing_or_missing_program_is_none() {
        assert_eq!(output_of("false", &[]), None);
        assert_eq!(output_of("/nonexistent/program", &[]), None);
        assert_eq!(output_of("echo", &["yes"]).as_deref(), Some("yes\n"));
    }
}
