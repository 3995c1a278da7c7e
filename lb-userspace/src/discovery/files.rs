//! The files of one directory: what each said when it was last good. Pure.
//!
//! Other tools write these files, and some of them do it badly: truncate and write, remove and write anew. A file that is
//! invalid counts with its last good content for as long as it is so; one that is gone, for [`GRACE`]; and all of them
//! while the directory cannot be read.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::config::{
    Source,
    list::{self, Listed},
};

/// A file that is gone for so long is meant to be gone.
pub const GRACE: Duration = Duration::from_secs(5);

/// What was found in a directory: each file's text, or why it cannot be read; or why the directory cannot be.
pub type Scan = Result<BTreeMap<PathBuf, Result<String, String>>, String>;

/// One directory.
#[derive(Debug, Default)]
pub struct Directory {
    files: BTreeMap<PathBuf, File>,
    /// Why it cannot be read.
    problem: Option<String>,
}

#[derive(Debug, Default)]
struct File {
    /// The last good text; `None` = it never was good.
    text: Option<String>,
    listed: Listed,
    /// Why its text now is not the good one.
    problem: Option<String>,
    /// When it was first found gone.
    gone_at: Option<Duration>,
}

/// What a look has shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Other backends than before.
    pub changed: bool,
    /// What is in order again, or new, or gone for good.
    pub good: Vec<String>,
    /// What is not in order.
    pub bad: Vec<String>,
}

impl Directory {
    /// As a daemon before this one had it: the last good texts.
    pub fn restore(texts: &BTreeMap<PathBuf, String>) -> Self {
        let mut directory = Self::default();
        for (path, text) in texts {
            let source = Source { path: path.clone(), text: text.clone() };
            if let Ok(listed) = list::parse(&source) {
                let file = File { text: Some(text.clone()), listed, ..File::default() };
                directory.files.insert(path.clone(), file);
            }
        }
        directory
    }

    /// The last good texts.
    pub fn texts(&self) -> BTreeMap<PathBuf, String> {
        let good = |(path, file): (&PathBuf, &File)| Some((path.clone(), file.text.clone()?));
        self.files.iter().filter_map(good).collect()
    }

    /// The files in the order of their names, with what counts of each.
    pub fn lists(&self) -> impl Iterator<Item = (&Path, &Listed)> {
        self.files.iter().map(|(path, file)| (path.as_path(), &file.listed))
    }

    /// What is not in order, with file, line and remedy.
    pub fn problems(&self, directory: &Path) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(problem) = &self.problem {
            let stay = match self.files.is_empty() {
                true => "it gives no backends until it can be",
                false => "its last good files stay in force",
            };
            problems.push(format!("{} cannot be read: {problem}; {stay}", directory.display()));
        }
        for file in self.files.values() {
            if let Some(problem) = &file.problem {
                let stay = match file.text {
                    None => "it gives no backends until it is corrected",
                    Some(_) => "its last good content stays in force until it is corrected",
                };
                problems.push(format!("{problem}\n{stay}"));
            }
        }
        problems
    }

    /// Takes in what was found at a time of any clock that only goes forward.
    pub fn take(&mut self, scan: &Scan, now: Duration) -> News {
        let mut news = News::default();
        let found = match scan {
            Ok(found) => found,
            Err(problem) => {
                if self.problem.as_ref() != Some(problem) {
                    news.bad.push(problem.clone());
                }
                self.problem = Some(problem.clone());
                return news;
            }
        };
        if self.problem.take().is_some() {
            news.good.push("the directory can be read again".to_owned());
        }
        for (path, text) in found {
            self.files.entry(path.clone()).or_default().take(path, text, &mut news);
        }
        self.files.retain(|path, file| {
            if found.contains_key(path) {
                return true;
            }
            // A file that never was good has nothing to keep.
            let gone_at = *file.gone_at.get_or_insert(now);
            let keep = file.text.is_some() && now.saturating_sub(gone_at) < GRACE;
            if keep {
                let seconds = GRACE.as_secs();
                let path = path.display();
                file.problem = Some(format!(
                    "{path}: the file is gone: put it back within {seconds} s, or its backends drain"
                ));
            } else {
                news.changed |= !file.listed.is_empty();
                news.good.push(format!("{} is gone", path.display()));
            }
            keep
        });
        news
    }

    /// Whether a file is gone, and its time runs.
    pub fn is_waiting(&self) -> bool {
        self.files.values().any(|file| file.gone_at.is_some())
    }
}

impl File {
    fn take(&mut self, path: &Path, text: &Result<String, String>, news: &mut News) {
        self.gone_at = None;
        let text = match text {
            Ok(text) if self.text.as_ref() == Some(text) => {
                if self.problem.take().is_some() {
                    news.good.push(format!("{} is as it was", path.display()));
                }
                return;
            }
            Ok(text) => text,
            Err(problem) => return self.refuse(problem.clone(), news),
        };
        match list::parse(&Source { path: path.to_owned(), text: text.clone() }) {
            Ok(listed) => {
                news.changed = true;
                news.good.push(format!("{} has {} backends", path.display(), listed.len()));
                *self = Self { text: Some(text.clone()), listed, ..Self::default() };
            }
            Err(errors) => self.refuse(errors.to_string(), news),
        }
    }

    fn refuse(&mut self, problem: String, news: &mut News) {
        if self.problem.as_ref() != Some(&problem) {
            news.bad.push(problem.clone());
        }
        self.problem = Some(problem);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "- {name: a, address: 10.0.0.1}\n";

    fn scan(files: &[(&str, &str)]) -> Scan {
        let file = |(name, text): &(&str, &str)| (PathBuf::from(name), Ok((*text).to_owned()));
        Ok(files.iter().map(file).collect())
    }

    fn names(directory: &Directory) -> Vec<String> {
        directory.lists().map(|(path, list)| format!("{} {}", path.display(), list.len())).collect()
    }

    #[test]
    fn a_bad_file_counts_as_it_was_last_good() {
        let mut directory = Directory::default();
        let at = Duration::from_secs;
        assert!(directory.take(&scan(&[("a.yaml", GOOD), ("b.yaml", "")]), at(0)).changed);
        assert_eq!(names(&directory), ["a.yaml 1", "b.yaml 0"]);
        for half in ["", "- {name: a, addr", "- {name: a, address: 10.0.0.1}\n- {nam"] {
            let news = directory.take(&scan(&[("a.yaml", half)]), at(1));
            assert!(!news.changed && !news.bad.is_empty(), "{half:?}: {news:?}");
            assert_eq!(names(&directory), ["a.yaml 1"], "b never was good");
            let problems = directory.problems(Path::new("/d"));
            assert!(
                problems[0].starts_with("a.yaml:") && problems[0].contains("last good"),
                "{problems:?}"
            );
            // Said once.
            assert_eq!(directory.take(&scan(&[("a.yaml", half)]), at(2)), News::default());
        }
        let news = directory.take(&scan(&[("a.yaml", GOOD)]), at(3));
        assert!(!news.changed && news.good.len() == 1, "{news:?}");
        assert_eq!(directory.problems(Path::new("/d")), [""; 0]);
        assert!(directory.take(&scan(&[("a.yaml", "[]")]), at(4)).changed, "none is meant");
        assert_eq!(names(&directory), ["a.yaml 0"]);
    }

    #[test]
    fn a_file_that_is_gone_for_a_moment_is_not_missed() {
        let mut directory = Directory::default();
        let at = Duration::from_millis;
        directory.take(&scan(&[("a.yaml", GOOD)]), at(0));
        let news = directory.take(&scan(&[]), at(1_000));
        assert!(!news.changed && directory.is_waiting(), "{news:?}");
        assert!(directory.problems(Path::new("/d"))[0].contains("a.yaml: the file is gone"));
        directory.take(&scan(&[]), at(5_999));
        assert_eq!(names(&directory), ["a.yaml 1"]);
        let news = directory.take(&scan(&[("a.yaml", GOOD)]), at(5_999));
        assert!(!news.changed && !directory.is_waiting() && news.good.len() == 1, "{news:?}");
        directory.take(&scan(&[]), at(10_000));
        let news = directory.take(&scan(&[]), at(15_000));
        assert!(news.changed && names(&directory).is_empty(), "{news:?}");
    }

    #[test]
    fn a_directory_that_cannot_be_read_keeps_all() {
        let mut directory = Directory::default();
        directory.take(&scan(&[("a.yaml", GOOD)]), Duration::ZERO);
        let gone: Scan = Err("No such file".into());
        let news = directory.take(&gone, Duration::from_secs(9));
        assert!(!news.changed && news.bad.len() == 1);
        directory.take(&gone, Duration::from_secs(99));
        assert_eq!(names(&directory), ["a.yaml 1"]);
        assert!(directory.problems(Path::new("/d"))[0].contains("last good files stay"));
        let again = Directory::restore(&directory.texts());
        assert_eq!(names(&again), ["a.yaml 1"]);
        // Back, but empty: its files have their time.
        directory.take(&scan(&[]), Duration::from_secs(100));
        assert_eq!(names(&directory), ["a.yaml 1"]);
    }
}
