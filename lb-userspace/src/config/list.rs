//! Files of backends: a list as under `backends:`, which other tools write into a directory.

use std::path::Path;

use super::{
    Diagnostic, Errors, Source, check,
    diagnostic::Findings,
    document::Document,
    file,
    model::{Backend, Origin},
    resolve, rules, spec,
};

/// A valid file.
#[derive(Debug, Default)]
pub struct Listed {
    backends: Vec<spec::Backend>,
    /// Line and column of each.
    places: Vec<(u32, u32)>,
}

impl Listed {
    /// Its backends, each with the line that it begins in. What they do not say is as in `defaults`.
    pub fn backends<'a>(
        &'a self,
        path: &'a Path,
        defaults: &'a Backend,
    ) -> impl Iterator<Item = (Backend, u32)> + 'a {
        self.backends.iter().zip(&self.places).map(move |(written, (line, _))| {
            let origin = Origin::File(path.to_owned());
            (Backend { origin, ..resolve::listed(written, defaults) }, *line)
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.backends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.backends.is_empty()
    }
}

/// Reads a file's text. One that everybody may write is refused.
pub fn read(path: &Path) -> Result<String, Errors> {
    file::read_own(path).map(|(source, _)| source.text)
}

/// Checks a text.
pub fn parse(source: &Source) -> Result<Listed, Errors> {
    let fail = |diagnostics| Err(Errors::new(source.clone(), diagnostics));
    let document = match Document::read(&source.text) {
        Ok(document) => document,
        Err(diagnostic) => return fail(vec![diagnostic]),
    };
    let (value, errors) = check::check_backends(&document);
    // Unknown keys leave a value.
    let Some(value) = value.filter(|_| errors.is_empty()) else { return fail(errors) };
    let backends: Vec<spec::Backend> = match serde_yaml::from_value(value) {
        Ok(backends) => backends,
        Err(error) => {
            let message = format!("the list cannot be read: {error}");
            return fail(vec![Diagnostic::of_file(message, "")]);
        }
    };
    let mut findings = Findings::new(&document);
    rules::listed(&backends, &mut findings);
    if !findings.errors.is_empty() {
        return fail(findings.errors);
    }
    let place = |index: usize| {
        let at = document.locate(&format!("[{index}]"));
        (at.line, at.column)
    };
    let places = (0..backends.len()).map(place).collect();
    Ok(Listed { backends, places })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Listed, String> {
        let source = Source { path: "a.yaml".into(), text: text.to_owned() };
        parse(&source).map_err(|errors| errors.to_string())
    }

    #[test]
    fn yaml_and_json_are_read_with_their_places() {
        for text in [
            "- {name: a, address: 10.0.0.1}\n- name: b\n  address: 10.0.0.2:81\n  weight: 7\n",
            "[{\"name\": \"a\", \"address\": \"10.0.0.1\"},\n {\"name\": \"b\", \"address\": \"10.0.0.2:81\", \"weight\": 7}]",
        ] {
            let listed = parsed(text).unwrap();
            let source = Source {
                path: "lb.yaml".into(),
                text: include_str!("../../../configs/minimal.yaml").into(),
            };
            let mut defaults =
                super::super::parse(&source).unwrap().config.services[0].backends[0].clone();
            let one = std::sync::Arc::make_mut(&mut defaults);
            (one.weight, one.port) = (33, 80);
            let backends: Vec<_> = listed.backends(Path::new("a.yaml"), &defaults).collect();
            let told: Vec<_> = backends
                .iter()
                .map(|(b, line)| (b.name.as_str(), b.address.to_string(), b.port, b.weight, *line))
                .collect();
            assert_eq!(
                told,
                [("a", "10.0.0.1".to_owned(), 80, 33, 1), ("b", "10.0.0.2".to_owned(), 81, 7, 2)]
            );
            assert_eq!(backends[0].0.origin, Origin::File("a.yaml".into()));
        }
        assert!(parsed("[]").unwrap().is_empty(), "none is a possible number");
    }

    #[test]
    fn what_is_wrong_is_told_with_file_line_and_remedy() {
        for (text, expected) in [
            ("", "a.yaml: the file is empty"),
            (
                "backends: []",
                "a.yaml:1:1: the file is a mapping, not a list: begin each item with `- `",
            ),
            (
                "- {name: a, addres: 10.0.0.1}",
                "a.yaml:1:13: unknown key `addres` in [0]: did you mean `address`?",
            ),
            (
                "- {name: a, address: 10.0.0.1}\n- {name: a, address: 10.0.0.2}",
                "a.yaml:2:10: the name `a` is taken: first in line 1",
            ),
            (
                "- {name: a, address: 10.0.0.1}\n- {name: b, address: 10.0.0.1}",
                "a.yaml:2:22: 10.0.0.1 is a backend already",
            ),
            ("- {name: a, address: app.internal}", "a.yaml:1:22: `app.internal` is a DNS name"),
            ("- {name: a}", "a.yaml:1:3: [0] lacks the key `address`: add `address:`"),
            (
                "- {name: a, address: 10.0.0.1, inter: 1ms}",
                "a.yaml:1:39: 1ms in [0].inter is out of bounds",
            ),
            (
                "- {name: a, address: 10.0.0.1, track: web/web1}",
                "a.yaml:1:39: `track` is not possible",
            ),
            ("- {name: a, address: 10.0.", "a.yaml:"),
            ("[{\"name\": \"a\", \"addr", "a.yaml:"),
        ] {
            let wrong = parsed(text).map(drop).expect_err(text);
            assert!(wrong.starts_with(expected), "{text:?}: {wrong}");
        }
    }
}
