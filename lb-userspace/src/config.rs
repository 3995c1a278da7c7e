//! YAML as written -> a checked model that cannot be invalid.
//!
//! `document` reads the text into a tree that knows its lines and columns; `check` compares the tree with the shape of
//! the file (`shape`, from the JSON Schema, from the types in `spec`); serde makes a `spec::File` of it; `resolve` fills
//! in defaults; `rules` judges what no type can say. Errors of all steps come together, each with its place.
//!
//! What depends on the host (does the NIC exist, whose address is the VIP) is not judged here: a file that is valid on
//! one node is valid on every node. [`Parsed::locate`] lends the places to those who judge it.

mod check;
#[cfg(test)]
mod corpus;
pub mod diagnostic;
mod document;
#[cfg(test)]
mod effects;
mod example;
mod file;
pub mod model;
mod resolve;
mod rules;
mod schema;
mod shape;
mod spec;
mod value;
mod words;

use self::{
    diagnostic::Findings,
    document::{Document, Position},
    rules::Context,
};
pub use self::{
    diagnostic::{Diagnostic, Errors},
    example::every_option_yaml,
    file::load,
    model::{Config, Source},
    schema::schema,
};

/// A valid file.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What it says.
    pub config: Config,
    /// What is doubtful about it.
    pub warnings: Vec<Diagnostic>,
    source: Source,
    document: Document,
}

impl Parsed {
    /// Line and column (from 1) of what `path` names, such as `services[0].listen.address`; of the nearest thing
    /// around it where that is not written.
    pub fn locate(&self, path: &str) -> (u32, u32) {
        let Position { line, column } = self.document.locate(path);
        (line, column)
    }

    /// A diagnostic about `path`, for what can only be judged on the host.
    pub fn diagnostic(&self, path: &str, message: &str, help: &str) -> Diagnostic {
        Diagnostic::at(self.document.locate(path), path, message, help)
    }

    /// Errors found on the host, displayed like those of [`parse`].
    pub fn errors(&self, diagnostics: Vec<Diagnostic>) -> Errors {
        Errors::new(self.source.clone(), diagnostics)
    }

    /// Each warning with its place and line, as errors are displayed.
    pub fn rendered_warnings(&self) -> impl Iterator<Item = String> {
        self.warnings.iter().map(|warning| diagnostic::render(&self.source, warning))
    }

    /// The file.
    pub fn source(&self) -> &Source {
        &self.source
    }
}

/// Reads and checks a text.
pub fn parse(source: &Source) -> Result<Parsed, Errors> {
    let fail = |diagnostics| Err(Errors::new(source.clone(), diagnostics));
    let document = match Document::read(&source.text) {
        Ok(document) => document,
        Err(diagnostic) => return fail(vec![diagnostic]),
    };
    let mut checked = check::check(&document);
    let mut findings = Findings::new(&document);
    findings.errors = std::mem::take(&mut checked.errors);
    let config = match spec::File::from_checked(&checked) {
        Ok((file, indices)) => {
            let config = resolve::config(&file);
            let context =
                Context { file: &file, config: &config, indices: &indices, wrong: &checked.wrong };
            rules::judge(&context, &mut findings);
            config
        }
        Err(diagnostic) => {
            findings.errors.push(diagnostic);
            return fail(findings.errors);
        }
    };
    let Findings { errors, mut warnings, .. } = findings;
    if !errors.is_empty() {
        return fail(errors);
    }
    warnings.sort_by_key(|warning| (warning.line, warning.column));
    Ok(Parsed { config, warnings, source: source.clone(), document })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_valid_and_leave_no_doubt() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
        let mut found = 0;
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let parsed = parse(&Source { path, text }).unwrap_or_else(|errors| panic!("{errors}"));
            let every_option = parsed.source().path.ends_with("every-option.yaml");
            let warnings: Vec<_> = match every_option {
                true => Vec::new(), // `example` looks at these
                false => parsed.rendered_warnings().collect(),
            };
            assert!(warnings.is_empty(), "{}", warnings.join("\n"));
            found += 1;
        }
        assert!(found >= 5, "only {found} examples in {}", directory.display());
    }
}
