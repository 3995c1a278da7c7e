//! `lb man`

mod command;
mod file_format;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};

use super::{Cli, Exit, output};
use crate::config;

/// Write the manual pages
///
/// Writes lb(1), a page for each verb (lb-run(1), ..) and lb.yaml(5), the configuration file, into a directory, which is
/// made if need be. They are generated from what this binary knows of itself, so they are always those of its version.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lb man /usr/local/share/man         then: man lb-run
  lb man out && man -l out/man5/lb.yaml.5")]
pub struct Man {
    /// Where to: pages go into its man1 and man5
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// One page.
struct Page {
    /// `lb-run`
    name: String,
    /// `1` or `5`
    section: char,
    text: String,
}

impl Man {
    /// Does it.
    pub fn execute(self) -> anyhow::Result<Exit> {
        let mut written = Vec::new();
        for page in pages()? {
            let directory = self.directory.join(format!("man{}", page.section));
            let fail = || format!("cannot write into {}", directory.display());
            std::fs::create_dir_all(&directory).with_context(fail)?;
            let path = directory.join(format!("{}.{}", page.name, page.section));
            std::fs::write(&path, &page.text).with_context(fail)?;
            written.push(path.display().to_string());
        }
        output::print(&output::lines(written))?;
        Ok(Exit::Ok)
    }
}

fn pages() -> anyhow::Result<Vec<Page>> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut pages = vec![command::page(&root, &root)?];
    for verb in root.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        pages.push(command::page(verb, &root)?);
    }
    let text = file_format::page(&config::schema());
    pages.push(Page { name: "lb.yaml".to_owned(), section: '5', text });
    Ok(pages)
}

/// The title's third argument is a date, which a build that can be repeated does not have: an empty one keeps the others
/// in their places.
fn dated(page: &str) -> String {
    page.replacen("  \"lb ", " \"\" \"lb ", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page_with_examples_and_exit_status() {
        let pages = pages().unwrap();
        for verb in Cli::command().get_subcommands() {
            let name = format!("lb-{}", verb.get_name());
            let page = pages.iter().find(|page| page.name == name);
            let page = page.unwrap_or_else(|| panic!("{name}"));
            for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "SEE ALSO"] {
                let heading = if section.contains(' ') {
                    format!(".SH \"{section}\"")
                } else {
                    format!(".SH {section}")
                };
                assert!(page.text.contains(&heading), "{name} has no {section}: {}", page.text);
            }
        }
        assert!(
            pages[0].name == "lb" && pages[0].text.contains("lb\\-run(1)"),
            "{}",
            pages[0].text
        );
        assert!(pages[0].text.contains(".SH \"EXIT STATUS\""), "{}", pages[0].text);
    }
}
