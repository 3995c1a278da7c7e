//! `lb completions`

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, Exit, output};

/// Print a shell's completions for lb
///
/// For bash: `lb completions bash > /etc/bash_completion.d/lb`. For zsh: into a directory of `$fpath`, as `_lb`. For
/// fish: `lb completions fish > ~/.config/fish/completions/lb.fish`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb completions bash > /etc/bash_completion.d/lb
  lb completions fish > ~/.config/fish/completions/lb.fish")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Does it.
    pub fn execute(self) -> anyhow::Result<Exit> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "lb", &mut script);
        output::print(&String::from_utf8(script)?)?;
        Ok(Exit::Ok)
    }
}
