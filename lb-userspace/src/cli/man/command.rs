//! The page of a command: clap's view of it, with the headings of manual pages.

use clap_mangen::{
    Man,
    roff::{Inline, Roff, bold, roman},
};

use super::Page;

/// The page of `command`, which is `root` or one of its verbs.
pub(super) fn page(command: &clap::Command, root: &clap::Command) -> anyhow::Result<Page> {
    let is_root = command.get_name() == root.get_name();
    let name = match is_root {
        true => root.get_name().to_owned(),
        false => format!("{}-{}", root.get_name(), command.get_name()),
    };
    let version = root.get_version().unwrap_or_default();
    let man = Man::new(command.clone().display_name(&name))
        .title(name.to_uppercase())
        .source(format!("lb {version}"))
        .manual("lb's commands");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    let after = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let mut rest = Roff::new();
    if is_root {
        verbs(&mut rest, root);
        rest.control("SH", ["EXIT STATUS"]);
        preformatted(&mut rest, after.trim_start_matches("Exit codes:\n"));
    } else if let Some((_, examples)) = after.split_once("Examples:\n") {
        rest.control("SH", ["EXAMPLES"]);
        preformatted(&mut rest, examples);
    }
    if !is_root {
        rest.control("SH", ["EXIT STATUS"]);
        rest.text([roman(match command.get_name() {
            "health" => "Its own, described above.",
            _ => "0 if it is done; what other numbers mean is said in lb(1).",
        })]);
    }
    see_also(&mut rest, root, is_root);
    rest.to_writer(&mut text)?;
    let text = super::dated(&String::from_utf8(text)?)
        // clap's empty line between the help of an option and its values, as manual pages have it.
        .replace(".br\n\n.br\n", ".sp\n");
    Ok(Page { name, section: '1', text })
}

fn verbs(roff: &mut Roff, root: &clap::Command) {
    roff.control("SH", ["COMMANDS"]);
    for verb in root.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        roff.control("TP", []);
        roff.text([bold(format!("lb-{}(1)", verb.get_name()))]);
        roff.text([roman(verb.get_about().map(ToString::to_string).unwrap_or_default())]);
    }
}

/// Lines as they are.
fn preformatted(roff: &mut Roff, text: &str) {
    roff.control("nf", []);
    for line in text.lines() {
        match line.trim().is_empty() {
            true => roff.control("sp", []),
            false => roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]),
        };
    }
    roff.control("fi", []);
}

fn see_also(roff: &mut Roff, root: &clap::Command, is_root: bool) {
    roff.control("SH", ["SEE ALSO"]);
    let mut line: Vec<Inline> = Vec::new();
    if !is_root {
        line.extend([bold(root.get_name()), roman("(1), ")]);
    }
    line.extend([bold("lb.yaml"), roman("(5)")]);
    roff.text(line);
}
