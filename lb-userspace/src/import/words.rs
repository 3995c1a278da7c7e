//! Lines and words of other programs' files.

/// A line with something on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// From 1.
    pub number: usize,
    /// At least one.
    pub words: Vec<String>,
}

/// Splits a text into lines and words: blanks separate, quotes join, a backslash takes the next character as it is, and what
/// follows a character of `comments` is not read.
pub fn lines(text: &str, comments: &[char]) -> Vec<Line> {
    let numbered = text.lines().enumerate();
    numbered
        .map(|(index, line)| Line { number: index + 1, words: words(line, comments) })
        .filter(|line| !line.words.is_empty())
        .collect()
}

fn words(line: &str, comments: &[char]) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(letters.next()),
            (letter, Some(open)) if letter == open => quote = None,
            (letter, Some(_)) => word.get_or_insert_default().push(letter),
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (letter, None) if comments.contains(&letter) => break,
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, None) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_escapes_and_comments_are_understood() {
        for (text, expected) in [
            (
                "server web1 10.0.0.1:80 check # the first",
                vec!["server", "web1", "10.0.0.1:80", "check"],
            ),
            ("http-check send hdr Host \"a b\"", vec!["http-check", "send", "hdr", "Host", "a b"]),
            ("option httpchk GET /x\\ y", vec!["option", "httpchk", "GET", "/x y"]),
            ("a 'b # c' d", vec!["a", "b # c", "d"]),
            ("a \"\"", vec!["a", ""]),
            ("   # nothing", vec![]),
            ("open \"quote", vec!["open", "quote"]),
        ] {
            assert_eq!(words(text, &['#']), expected, "{text}");
        }
    }
}
