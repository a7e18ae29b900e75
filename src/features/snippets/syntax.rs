//! The syntax of nginx's configuration: words, `;` and blocks.

/// One directive, with what stands in its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    /// Its name and its parameters, without quotes.
    pub(super) words: Vec<String>,
    /// What stands in its block, if it has one.
    pub(super) block: Option<Vec<Directive>>,
    /// The line in which it begins, from 1.
    pub(super) line: usize,
}

/// The longest text that is read.
const MAX_LENGTH: usize = 64 * 1024;
/// How deep blocks may stand in each other.
const MAX_DEPTH: usize = 4;

/// Reads directives.
///
/// # Errors
/// What nginx would not read, and in which line.
pub(super) fn parse(text: &str) -> Result<Vec<Directive>, String> {
    if text.len() > MAX_LENGTH {
        return Err(format!("is longer than {MAX_LENGTH} bytes"));
    }
    let mut tokens = Tokens { characters: text.chars().peekable(), line: 1 };
    let directives = block(&mut tokens, 0)?;
    Ok(directives)
}

fn block(tokens: &mut Tokens<'_>, depth: usize) -> Result<Vec<Directive>, String> {
    let mut directives = Vec::new();
    let mut words = Vec::new();
    let mut line = tokens.line;
    loop {
        let token = tokens.next()?;
        if words.is_empty() {
            line = tokens.line;
        }
        match token {
            Some(Token::Word(word)) => words.push(word),
            Some(Token::End) if !words.is_empty() => {
                directives.push(Directive { words: std::mem::take(&mut words), block: None, line });
            }
            Some(Token::Open) if !words.is_empty() && depth < MAX_DEPTH => {
                let inner = block(tokens, depth + 1)?;
                directives.push(Directive { words: std::mem::take(&mut words), block: Some(inner), line });
            }
            Some(Token::Close) if words.is_empty() && depth > 0 => return Ok(directives),
            None if words.is_empty() && depth == 0 => return Ok(directives),
            None => return Err(format!("line {line}: ends before a directive or a block does")),
            Some(_) => {
                return Err(format!("line {}: a brace or a semicolon stands where none can", tokens.line));
            }
        }
    }
}

enum Token {
    Word(String),
    End,
    Open,
    Close,
}

struct Tokens<'t> {
    characters: std::iter::Peekable<std::str::Chars<'t>>,
    line: usize,
}

impl Tokens<'_> {
    fn advance(&mut self) -> Option<char> {
        let character = self.characters.next();
        self.line += usize::from(character == Some('\n'));
        character
    }

    fn next(&mut self) -> Result<Option<Token>, String> {
        loop {
            let Some(character) = self.advance() else { return Ok(None) };
            return Ok(Some(match character {
                _ if character.is_whitespace() => continue,
                '#' => {
                    while self.advance().is_some_and(|inner| inner != '\n') {}
                    continue;
                }
                ';' => Token::End,
                '{' => Token::Open,
                '}' => Token::Close,
                '"' | '\'' => Token::Word(self.quoted(character)?),
                _ => Token::Word(self.plain(character)?),
            }));
        }
    }

    /// After a quoted word comes a space, the end of the directive, a block, or the bracket that ends a condition.
    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let line = self.line;
        let unfinished = || format!("line {line}: a quote is not closed");
        let mut word = String::new();
        loop {
            match self.advance().ok_or_else(unfinished)? {
                '\\' => escaped(&mut word, self.advance().ok_or_else(unfinished)?),
                end if end == quote => break,
                other => word.push(other),
            }
        }
        match self.characters.peek() {
            Some(next) if !next.is_whitespace() && !";{)".contains(*next) => {
                Err(format!("line {}: something stands right behind a quote", self.line))
            }
            _ => Ok(word),
        }
    }

    fn plain(&mut self, first: char) -> Result<String, String> {
        let mut word = String::new();
        let mut character = first;
        loop {
            match character {
                '\\' => {
                    let line = self.line;
                    escaped(&mut word, self.advance().ok_or_else(|| format!("line {line}: ends in a \\"))?);
                }
                other => word.push(other),
            }
            match self.characters.peek() {
                None => return Ok(word),
                Some(next) if next.is_whitespace() || ";{".contains(*next) => return Ok(word),
                Some(_) => character = self.advance().unwrap_or_default(),
            }
        }
    }
}

/// nginx takes the backslash away before these alone.
fn escaped(word: &mut String, character: char) {
    match character {
        '"' | '\'' | '\\' => word.push(character),
        't' => word.push('\t'),
        'r' => word.push('\r'),
        'n' => word.push('\n'),
        other => word.extend(['\\', other]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<Vec<String>> {
        parse(text).unwrap().into_iter().map(|directive| directive.words).collect()
    }

    #[test]
    fn words_are_nginxs() {
        for (text, expected) in [
            ("a b c;", vec![vec!["a", "b", "c"]]),
            ("a 'b c' \"d'e\";f;", vec![vec!["a", "b c", "d'e"], vec!["f"]]),
            ("# a;\na # b\n c;", vec![vec!["a", "c"]]),
            ("a#b c;", vec![vec!["a#b", "c"]]),
            (r#"a "b\"c\d\\";"#, vec![vec!["a", r#"b"c\d\"#]]),
            (r#"return 401 '{"error": "x"}';"#, vec![vec!["return", "401", r#"{"error": "x"}"#]]),
            ("a b}c;", vec![vec!["a", "b}c"]]),
            ("", vec![]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
        let condition = parse("if ($a = \"\") {\n b;\n}\nc;").unwrap();
        assert_eq!(condition[0].words, ["if", "($a", "=", "", ")"]);
        assert_eq!(
            condition[0].block.as_ref().unwrap()[0],
            Directive { words: vec!["b".into()], block: None, line: 2 }
        );
        assert_eq!(condition[1].line, 4);
    }

    #[test]
    fn what_nginx_refuses_is_refused() {
        for text in [
            "a",
            "a {",
            "a { b; ",
            "}",
            ";",
            "{}",
            "a 'b",
            "a 'b'c;",
            "a { { } }",
            "a\\",
            "a{b{c{d{e{f;}}}}}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[ -~\n]{0,40}|[ab;{}'\"\\\\# \n]{0,40}|\\PC{0,20}") {
            let _ = parse(&text);
        }
    }
}
