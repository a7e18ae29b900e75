//! YAML to JSON values, as `kubectl` reads it.
//!
//! The parser is `serde-saphyr`'s; its events are made into values here, which takes half the time of going through
//! serde, says where a duplicate key stands, and keeps the words that YAML 1.1 has for booleans (`yes`, `off`), since
//! manifests are read like that everywhere else.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::{Map, Number, Value};
use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, Span, Tag, options};

/// How deep collections may be nested. Values are dropped and read recursively.
const MAX_DEPTH: usize = 100;

/// How many values aliases may repeat in all. More is an attack (or a mistake), not a manifest.
const MAX_REPEATED: usize = 1_000_000;

/// Why a text is not YAML, or not such that JSON can say it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct YamlError {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// The documents of a text. Empty ones are left out.
///
/// # Errors
/// When the text is not YAML, a key stands twice, or a value has no counterpart in JSON.
pub fn parse(text: &str) -> Result<Vec<Value>, YamlError> {
    let mut documents = Vec::new();
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(text, parser_options()) {
        let (event, span) = event.map_err(|error| {
            let marker = error.marker();
            YamlError { line: marker.line(), column: marker.col() + 1, message: error.info() }
        })?;
        match builder.event(event).map_err(|message| located(&span, message)) {
            Ok(Some(document)) if !document.is_null() => documents.push(document),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(documents)
}

fn parser_options() -> Options {
    options! { emit_comments: false }
}

fn located(span: &Span, message: String) -> YamlError {
    YamlError { line: span.start.line(), column: span.start.col() + 1, message }
}

#[derive(Default)]
struct Builder {
    stack: Vec<Frame>,
    /// Anchored values and how many values they hold.
    anchors: HashMap<usize, (Value, usize)>,
    repeated: usize,
}

/// A collection that is not closed yet. An anchor is 0 where there is none.
enum Frame {
    Sequence { items: Vec<Value>, anchor: usize },
    Mapping { fields: Map<String, Value>, key: Option<String>, merged: Vec<Value>, anchor: usize },
}

impl Builder {
    /// Takes an event in; a document when that ends one.
    fn event(&mut self, event: Event<'_>) -> Result<Option<Value>, String> {
        match event {
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                if let Some(Frame::Mapping { key: key @ None, fields, .. }) = self.stack.last_mut() {
                    if anchor != 0 {
                        return Err(format!("the key `{text}` has an anchor; give it to a value"));
                    }
                    if fields.contains_key(text.as_ref()) {
                        return Err(format!("the key `{text}` stands twice"));
                    }
                    *key = Some(text.into_owned());
                    return Ok(None);
                }
                let value = scalar(text, style, tag.as_deref())?;
                return self.close(value, anchor);
            }
            Event::SequenceStart(_, anchor, tag) => {
                collection_tag(tag.as_deref())?;
                self.open(Frame::Sequence { items: Vec::new(), anchor })?;
            }
            Event::MappingStart(_, anchor, tag) => {
                collection_tag(tag.as_deref())?;
                let frame = Frame::Mapping { fields: Map::new(), key: None, merged: Vec::new(), anchor };
                self.open(frame)?;
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(Frame::Sequence { items, anchor }) => return self.close(Value::Array(items), anchor),
                Some(Frame::Mapping { mut fields, merged, anchor, .. }) => {
                    merge(&mut fields, merged);
                    return self.close(Value::Object(fields), anchor);
                }
                None => {}
            },
            Event::Alias(anchor) => {
                let Some((value, count)) = self.anchors.get(&anchor) else {
                    return Err("an alias stands within the value that it repeats".into());
                };
                self.repeated += count;
                if self.repeated > MAX_REPEATED {
                    return Err(format!("aliases repeat more than {MAX_REPEATED} values"));
                }
                let value = value.clone();
                return self.close(value, 0);
            }
            _ => {}
        }
        Ok(None)
    }

    fn open(&mut self, frame: Frame) -> Result<(), String> {
        if let Some(Frame::Mapping { key: None, .. }) = self.stack.last() {
            return Err("a key must be text".into());
        }
        if self.stack.len() == MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} collections are nested"));
        }
        self.stack.push(frame);
        Ok(())
    }

    /// Puts a whole value where it belongs.
    fn close(&mut self, value: Value, anchor: usize) -> Result<Option<Value>, String> {
        if anchor != 0 {
            self.anchors.insert(anchor, (value.clone(), count(&value)));
        }
        match self.stack.last_mut() {
            None => return Ok(Some(value)),
            Some(Frame::Sequence { items, .. }) => items.push(value),
            Some(Frame::Mapping { fields, key, merged, .. }) => match key.take() {
                Some(key) if key == "<<" => match value {
                    Value::Object(_) => merged.push(value),
                    Value::Array(sources) if sources.iter().all(Value::is_object) => merged.extend(sources),
                    _ => return Err("`<<` takes a mapping, or a list of mappings".into()),
                },
                Some(key) => drop(fields.insert(key, value)),
                None => return Err("a key must be text".into()),
            },
        }
        Ok(None)
    }
}

/// Fills in the fields of other mappings (`<<`); a mapping's own come first, then those of mappings that are named
/// first.
fn merge(fields: &mut Map<String, Value>, sources: Vec<Value>) {
    for source in sources {
        if let Value::Object(source) = source {
            for (key, value) in source {
                fields.entry(key).or_insert(value);
            }
        }
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

fn collection_tag(tag: Option<&Tag>) -> Result<(), String> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() => Err(unknown_tag(tag)),
        _ => Ok(()),
    }
}

fn unknown_tag(tag: &Tag) -> String {
    format!("the tag `{}{}` is not known", tag.original_handle(), tag.suffix())
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let plain = style == ScalarStyle::Plain;
    match tag {
        None if plain => Ok(plain_scalar(text)),
        None => Ok(Value::String(text.into_owned())),
        // `!` alone, and the tag of text.
        Some(tag) if matches!(tag.suffix(), "" | "!") || tag.is_yaml_core_schema_tag("str") => {
            Ok(Value::String(text.into_owned()))
        }
        Some(tag) if tag.suffix_in_namespace("tag:yaml.org,2002:").as_deref() == Some("binary") => {
            Ok(Value::String(text.split_ascii_whitespace().collect()))
        }
        Some(tag) => {
            let value = plain_scalar(text);
            let fits = match &value {
                Value::Null => tag.is_yaml_core_schema_tag("null"),
                Value::Bool(_) => tag.is_yaml_core_schema_tag("bool"),
                Value::Number(number) => {
                    tag.is_yaml_core_schema_tag("float")
                        || (!number.is_f64() && tag.is_yaml_core_schema_tag("int"))
                }
                _ => false,
            };
            match fits {
                true => Ok(value),
                false if tag.is_yaml_core_schema() => {
                    Err(format!("{value} is no `{}{}`", tag.original_handle(), tag.suffix()))
                }
                false => Err(unknown_tag(tag)),
            }
        }
    }
}

/// What a word without quotes means.
fn plain_scalar(text: Cow<'_, str>) -> Value {
    let word = match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => Some(Value::Null),
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(Value::Bool(true)),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(Value::Bool(false)),
        text if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) => {
            number(text)
        }
        _ => None,
    };
    word.unwrap_or_else(|| Value::String(text.into_owned()))
}

fn number(text: &str) -> Option<Value> {
    let (sign, digits) = match text.as_bytes()[0] {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    let integer = |radix: u32, digits: &str| {
        let all = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
        let signed = || i64::from_str_radix(&format!("{sign}{digits}"), radix).ok().map(Number::from);
        let unsigned =
            || u64::from_str_radix(digits, radix).ok().filter(|_| sign.is_empty()).map(Number::from);
        if all { signed().or_else(unsigned).map(Value::Number) } else { None }
    };
    let prefixed = [("0x", 16), ("0o", 8), ("0b", 2)];
    if let Some((prefix, radix)) = prefixed.into_iter().find(|(prefix, _)| digits.starts_with(prefix)) {
        return integer(radix, &digits[prefix.len()..]);
    }
    // YAML 1.1 has it that a number with a leading zero is octal.
    let radix = if digits.len() > 1 && digits.starts_with('0') { 8 } else { 10 };
    if let Some(integer) = integer(radix, digits) {
        return Some(integer);
    }
    let decimal = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    if !digits.bytes().all(decimal) || !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    Number::from_f64(text.parse().ok()?).map(Value::Number)
}

#[cfg(test)]
#[path = "yaml_tests.rs"]
mod tests;
