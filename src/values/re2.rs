//! RE2's grammar, as far as it takes to know whether Envoy will accept an expression.
//!
//! Other engines come near and are not enough: they take `a**`, `\u0041` or `(?x)`, which RE2 refuses, and refuse
//! `/v1/{id}` or `\Q…\E`, which RE2 takes. A refused expression costs the whole RouteConfiguration.

/// The most that a counted repetition may come to, nested ones multiplied.
const MAX_REPEAT: u64 = 1000;
/// How deep groups nest. RE2 goes to 1000.
const MAX_DEPTH: usize = 250;
/// The largest program in RE2's instructions, by estimate. RE2's memory for one holds some 300,000.
const MAX_SIZE: u64 = 50_000;

/// Instructions for a large class, by estimate: Envoy has RE2 compare bytes, so that no class is very large.
const WIDE_CLASS: u64 = 10;
/// The largest code in an escape, since bytes are compared.
const MAX_CODE: u32 = 0xFF;

/// Scripts in use today, of those that `\p` knows.
const SCRIPTS: &str = "Arabic Armenian Bengali Bopomofo Cherokee Common Cyrillic Devanagari Ethiopic Georgian Greek \
    Gujarati Gurmukhi Han Hangul Hebrew Hiragana Inherited Kannada Katakana Khmer Lao Latin Malayalam \
    Mongolian Myanmar Oriya Sinhala Syriac Tamil Telugu Thaana Thai Tibetan";
const CATEGORIES: &str = "Any C Cc Cf Co Cs L Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm So Z Zl \
    Zp Zs";
const POSIX_CLASSES: &str =
    "alnum alpha ascii blank cntrl digit graph lower print punct space upper word xdigit";

type Parsed<T> = Result<T, String>;

/// How many capture groups an expression has.
///
/// # Errors
/// Why RE2 refuses it, in one clause.
pub(super) fn parse(text: &str) -> Parsed<usize> {
    let mut parser = Parser { rest: text, groups: vec![Group::default()], captures: 0 };
    let mut repeated = false;
    while let Some(next) = parser.next() {
        repeated = parser.step(next, repeated)?;
    }
    match &parser.groups[..] {
        [all] if all.size + all.last.map_or(0, |last| last.size) > MAX_SIZE => {
            Err("it is too large when it is compiled".to_owned())
        }
        [_] => Ok(parser.captures),
        _ => Err("a parenthesis is not closed".to_owned()),
    }
}

/// What a repetition can be applied to.
#[derive(Clone, Copy)]
struct Atom {
    /// Instructions, by estimate.
    size: u64,
    /// The product of counted repetitions along its worst branch.
    repeats: u64,
}

/// An open parenthesis and what came behind it.
#[derive(Default)]
struct Group {
    size: u64,
    repeats: u64,
    last: Option<Atom>,
}

impl Group {
    fn push(&mut self, atom: Atom) {
        self.settle();
        self.last = Some(atom);
    }

    /// Nothing that follows can repeat the last atom.
    fn settle(&mut self) {
        if let Some(last) = self.last.take() {
            self.size = self.size.saturating_add(last.size);
            self.repeats = self.repeats.max(last.repeats);
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    groups: Vec<Group>,
    captures: usize,
}

impl Parser<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    fn take(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn group(&mut self) -> &mut Group {
        // The outermost group is never closed.
        let index = self.groups.len() - 1;
        &mut self.groups[index]
    }

    fn push(&mut self, size: u64) {
        self.group().push(Atom { size, repeats: 1 });
    }

    /// Reads what begins with a character; answers whether it was a repetition, which must not be repeated itself.
    fn step(&mut self, next: char, repeated: bool) -> Parsed<bool> {
        match next {
            '(' => self.open()?,
            ')' => self.close()?,
            '|' => {
                self.group().settle();
                self.group().size += 1;
            }
            '[' => self.class()?,
            '\\' => self.escape()?,
            '*' | '+' | '?' => return self.repeat(0, None, repeated).map(|()| true),
            '{' => match counted(self.rest) {
                Some((least, most, rest)) => {
                    self.rest = rest;
                    return self.repeat(least, Some(most), repeated).map(|()| true);
                }
                None => self.push(1),
            },
            '.' => self.push(3),
            literal => self.push(literal.len_utf8() as u64),
        }
        Ok(false)
    }

    /// `*`, `+`, `?`, or a counted repetition with its upper bound, if it has one.
    fn repeat(&mut self, least: u64, counted: Option<Option<u64>>, repeated: bool) -> Parsed<()> {
        self.take("?");
        if repeated {
            return Err("a repetition is repeated without a group around it".to_owned());
        }
        let last = self.group().last.as_mut().ok_or("a repetition has nothing to repeat")?;
        let Some(most) = counted else {
            last.size += 1;
            return Ok(());
        };
        if least > MAX_REPEAT || most.is_some_and(|most| most < least || most > MAX_REPEAT) {
            return Err(format!("a repetition counts backwards or beyond {MAX_REPEAT}"));
        }
        let times = most.unwrap_or(least);
        last.repeats *= times.max(1);
        last.size = last.size.saturating_add(1).saturating_mul(times.max(1));
        if times >= 2 && last.repeats > MAX_REPEAT {
            return Err(format!("nested repetitions come to more than {MAX_REPEAT}"));
        }
        Ok(())
    }

    fn open(&mut self) -> Parsed<()> {
        if !self.take("?") {
            self.captures += 1;
            return self.nest();
        }
        if self.take("P<") || self.take("<") {
            let (name, rest) = self.rest.split_once('>').ok_or("a group's name does not end")?;
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(
                    "look-around is not supported, nor is a group's name other than letters and digits"
                        .to_owned(),
                );
            }
            self.rest = rest;
            self.captures += 1;
            return self.nest();
        }
        let (mut negated, mut flags) = (false, false);
        loop {
            match self.next() {
                Some('i' | 'm' | 's' | 'U') => flags = true,
                Some('-') if !negated => (negated, flags) = (true, false),
                Some(':') if flags || !negated => return self.nest(),
                Some(')') if flags || !negated => return Ok(()),
                _ => {
                    return Err("look-around and flags other than i, m, s and U are not supported".to_owned());
                }
            }
        }
    }

    fn nest(&mut self) -> Parsed<()> {
        if self.groups.len() > MAX_DEPTH {
            return Err(format!("groups nest deeper than {MAX_DEPTH}"));
        }
        self.groups.push(Group { repeats: 1, ..Group::default() });
        Ok(())
    }

    fn close(&mut self) -> Parsed<()> {
        if self.groups.len() < 2 {
            return Err("a parenthesis was not opened".to_owned());
        }
        if let Some(mut group) = self.groups.pop() {
            group.settle();
            self.group().push(Atom { size: group.size + 2, repeats: group.repeats });
        }
        Ok(())
    }

    /// Behind a backslash, outside of a class.
    fn escape(&mut self) -> Parsed<()> {
        if self.take("Q") {
            let (quoted, rest) = self.rest.split_once("\\E").ok_or("\\Q has no \\E")?;
            self.rest = rest;
            quoted.chars().for_each(|literal| self.push(literal.len_utf8() as u64));
        } else if let Some(size) = self.escaped_class()? {
            self.push(size);
        } else if ["A", "z", "b", "B", "C"].iter().any(|escape| self.take(escape)) {
            self.push(1);
        } else {
            self.literal()?;
            self.push(1);
        }
        Ok(())
    }

    /// `\d`, `\pL`, `\p{Greek}` and their like, and how large they are.
    fn escaped_class(&mut self) -> Parsed<Option<u64>> {
        if ["d", "s", "w"].iter().any(|class| self.take(class)) {
            return Ok(Some(4));
        }
        if ["D", "S", "W"].iter().any(|class| self.take(class)) {
            return Ok(Some(WIDE_CLASS));
        }
        if !self.take("p") && !self.take("P") {
            return Ok(None);
        }
        let name = if self.take("{") {
            let (name, rest) = self.rest.split_once('}').ok_or("\\p{ is not closed")?;
            self.rest = rest;
            name.strip_prefix('^').unwrap_or(name).to_owned()
        } else {
            self.next().map(String::from).unwrap_or_default()
        };
        if is_word_of(CATEGORIES, &name) || is_word_of(SCRIPTS, &name) {
            Ok(Some(WIDE_CLASS))
        } else {
            Err(format!("{name:?} is not a Unicode category or script"))
        }
    }

    /// The character that an escape stands for.
    fn literal(&mut self) -> Parsed<u32> {
        let rest = self.rest;
        let literal = match self.next() {
            None => return Err("it ends in a backslash".to_owned()),
            Some('0') => Some(self.octal(0)),
            // A single digit would be a back reference.
            Some(digit @ '1'..='7') if self.rest.starts_with(|next: char| ('0'..='7').contains(&next)) => {
                digit.to_digit(8).map(|first| self.octal(first)).filter(|code| *code <= MAX_CODE)
            }
            Some('x') => self.hexadecimal(),
            Some('a') => Some(7),
            Some('f') => Some(12),
            Some('n') => Some(10),
            Some('r') => Some(13),
            Some('t') => Some(9),
            Some('v') => Some(11),
            Some(mark) if mark.is_ascii() && !mark.is_ascii_alphanumeric() => Some(mark.into()),
            Some(_) => None,
        };
        literal.ok_or_else(|| {
            let escape: String = rest.chars().take(1).collect();
            format!("\\{escape} is not an escape; back references and codes above \\xff are not supported")
        })
    }

    /// Up to two octal digits more.
    fn octal(&mut self, mut value: u32) -> u32 {
        for _ in 0..2 {
            let Some(digit) = self.rest.chars().next().and_then(|next| next.to_digit(8)) else { break };
            value = value * 8 + digit;
            self.next();
        }
        value
    }

    /// Two digits, or any number of them in braces.
    fn hexadecimal(&mut self) -> Option<u32> {
        let digits = if self.take("{") {
            let (digits, rest) = self.rest.split_once('}')?;
            self.rest = rest;
            digits
        } else {
            let digits = self.rest.get(..2)?;
            self.rest = &self.rest[2..];
            digits
        };
        let digits = Some(digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u32::from_str_radix(digits, 16).ok().filter(|code| *code <= MAX_CODE)
    }

    /// Behind `[`.
    fn class(&mut self) -> Parsed<()> {
        const OPEN: &str = "a class is not closed";
        let mut size = if self.take("^") { WIDE_CLASS } else { 1 };
        let mut first = true;
        while first || !self.rest.starts_with(']') {
            if self.rest.is_empty() {
                return Err(OPEN.to_owned());
            }
            first = false;
            if let Some(name) = self.posix_class() {
                if !is_word_of(POSIX_CLASSES, name.strip_prefix('^').unwrap_or(&name)) {
                    return Err(format!("[:{name}:] is not a class"));
                }
                size += WIDE_CLASS;
            } else if let Some(class) = self.class_in_class()? {
                size += class;
            } else {
                let low = self.member()?;
                let mut high = low;
                if self.rest.starts_with('-') && !self.rest.starts_with("-]") && self.rest.len() > 1 {
                    self.next();
                    high = self.member()?;
                }
                if high < low {
                    return Err("a range of a class runs backwards".to_owned());
                }
                size += if high < 0x80 { 1 } else { WIDE_CLASS };
            }
        }
        self.next();
        self.push(size);
        Ok(())
    }

    /// The name in `[:name:]`.
    fn posix_class(&mut self) -> Option<String> {
        let (name, rest) = self.rest.strip_prefix("[:")?.split_once(":]")?;
        let name = name.to_owned();
        self.rest = rest;
        Some(name)
    }

    fn class_in_class(&mut self) -> Parsed<Option<u64>> {
        let before = self.rest;
        if self.take("\\")
            && let Some(size) = self.escaped_class()?
        {
            return Ok(Some(size));
        }
        self.rest = before;
        Ok(None)
    }

    /// One character of a class.
    fn member(&mut self) -> Parsed<u32> {
        match self.next() {
            Some('\\') => self.literal(),
            Some(literal) => Ok(literal.into()),
            None => Err("a class is not closed".to_owned()),
        }
    }
}

fn is_word_of(words: &str, name: &str) -> bool {
    words.split(' ').any(|word| word == name)
}

/// `n}`, `n,}` or `n,m}`, and what follows. RE2 reads anything else as text.
fn counted(text: &str) -> Option<(u64, Option<u64>, &str)> {
    let (least, rest) = number(text)?;
    if let Some(rest) = rest.strip_prefix('}') {
        return Some((least, Some(least), rest));
    }
    let rest = rest.strip_prefix(',')?;
    if let Some(rest) = rest.strip_prefix('}') {
        return Some((least, None, rest));
    }
    let (most, rest) = number(rest)?;
    Some((least, Some(most), rest.strip_prefix('}')?))
}

fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(end);
    let plain = !digits.is_empty() && (digits.len() == 1 || !digits.starts_with('0'));
    // Whatever does not fit is too much anyway.
    plain.then(|| (digits.parse().unwrap_or(u64::MAX), rest))
}
