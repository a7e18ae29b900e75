//! Regular expressions: accepted here only if Envoy's RE2 will accept them.

use super::re2;

/// The longest expression that is read.
const MAX_LENGTH: usize = 4096;

/// Checks that a regular expression is one that RE2 compiles: no look-around, no back references, bounded repeats.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn check(regex: &str) -> Result<(), String> {
    if regex.len() > MAX_LENGTH {
        return Err(format!("is longer than {MAX_LENGTH} bytes"));
    }
    re2::parse(regex).map(|_| ())
}

/// How many capture groups the expression has, 0 if it is none.
pub fn captures(regex: &str) -> usize {
    re2::parse(regex).unwrap_or_default()
}

/// The text as a regular expression that matches just it.
pub fn escape(text: &str) -> String {
    regex_syntax::escape(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each was tried with Envoy 1.40.
    #[test]
    fn only_what_re2_compiles() {
        for good in [
            "/foo(/|$)(.*)",
            "(?i)^a+$",
            "[a-z]{3}",
            "a{1000}",
            "a{1000,}",
            "((a{2}){2}){250}",
            "/v1/{id}",
            "a{,5}",
            "a{2",
            "{",
            "}",
            "]",
            "a{02}",
            "^*",
            "(?<n>a)",
            "(?P<n>a)",
            // Other engines refuse a name that is given twice.
            "(?P<n>a)(?P<n>b)",
            "(?<n>a)|(?P<n>b)",
            "(?P<1_n>a)",
            "(?U)a",
            "(?i:a)",
            "(?s-i)a",
            "(?)",
            "()",
            "(?:a|b|)",
            "a||b",
            "|",
            "(|)",
            "x{0}",
            "a??",
            "a{2}?",
            "(a*)*",
            "[a&&b]",
            "[]a]",
            "[^]a]",
            "[--a]",
            r"[\d-z]",
            "[[:alpha:]]",
            "[[:^word:]]",
            "[[:x]",
            "[a-]",
            "[~~]",
            "a(?i)*",
            r"\p{Greek}",
            r"\pL",
            r"\p{^Lu}",
            r"\PN",
            r"[\pL\d]",
            r"\b{start}",
            r"\<a",
            r"\x{41}",
            r"\x41",
            r"\07",
            r"\0",
            r"\12",
            r"\377",
            r"[\377]",
            r"\A\z\B",
            r"\Qa.(\E",
            r"\C",
            r"\-\/\ \%\@\_\`",
            r"\v\f\a",
            "é",
            "(?m)^a$",
            "(a{30}){33}",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "(",
            ")",
            "a)",
            "(?=a)",
            "(?<!a)b",
            "(?<=a>)",
            "(?P=n)",
            "(?P<a b>c)",
            "(?P<>a)",
            "(?P<n",
            "(?P<é>a)",
            "(?P>n)",
            "(?>a)",
            "(?|a)",
            "(?i-i-i)",
            "(?x)a",
            "(?u)a",
            "(?R)",
            "(?-u)a",
            "(?i-)a",
            "(?#c)a",
            "(?",
            "a{1001}",
            "a{2,1}",
            "a{1000,1001}",
            "((a{2}){2}){251}",
            "(a{100}){100}",
            "(a{32}){32}",
            "*a",
            "|*",
            "(*a)",
            "(?i)*",
            "a**",
            "a*+",
            "a++",
            "a?+",
            "a{2}+",
            "a{2}{3}",
            "a???",
            "[z-a]",
            "[a--b]",
            "[a",
            "[]",
            "[",
            r"[a-\d]",
            r"[\b]",
            "[[:nope:]]",
            r"(a)\1",
            r"\8",
            r"\400",
            r"[\400]",
            r"\777",
            r"\k<n>",
            r"\X",
            r"\R",
            r"\K",
            r"\G",
            r"\N",
            r"\u0041",
            r"\U00000041",
            r"\Z",
            r"\h",
            r"\e",
            r"\cA",
            r"\E",
            r"\Qa",
            r"\é",
            r"\x4",
            r"\x{}",
            r"\x{100}",
            r"\p{Alphabetic}",
            r"\p{Script=Greek}",
            r"\p{greek}",
            r"\p",
            r"\p{L",
            r"\",
            r"a\",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check(&"[^a]{1000}".repeat(3)).is_ok());
        assert!(check(&"[^a]{1000}".repeat(6)).is_err());
        assert_eq!(captures("/a(/|$)(.*)(?:x)(?<y>z)"), 3);
    }
}
