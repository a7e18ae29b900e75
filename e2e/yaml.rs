//! YAML as a tree that keeps the text of every scalar.
//!
//! A case says `headers: {x-version: 1.10, x-canary: yes}` and means the text; a manifest says `port: 80` and means the
//! number. So a scalar stays text until somebody asks for another type.

use anyhow::{Context as _, Result, bail};
use granit_parser::{Event, Parser, ScalarStyle};
use serde_json::Value;
use std::collections::HashMap;

/// One node of a YAML document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    /// A scalar: its text, and whether it was written plain (only then can it be null, a number or a boolean).
    Scalar {
        text: String,
        plain: bool,
    },
    Seq(Vec<Node>),
    /// In the order of the document; keys are scalars.
    Map(Vec<(Node, Node)>),
}

impl Node {
    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Node::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The value by YAML 1.2's core schema (`yes` and `0123` are text and a decimal number there).
    pub(crate) fn to_json(&self) -> Value {
        match self {
            Node::Scalar { text, plain: false } => Value::String(text.clone()),
            Node::Scalar { text, .. } => plain_to_json(text),
            Node::Seq(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Node::Map(entries) => {
                let entry = |(key, value): &(Node, Node)| (key.text().to_owned(), value.to_json());
                Value::Object(entries.iter().map(entry).collect())
            }
        }
    }

    fn text(&self) -> &str {
        match self {
            Node::Scalar { text, .. } => text,
            _ => "",
        }
    }
}

fn plain_to_json(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if let Ok(number) = text.parse::<i64>() {
        return number.into();
    }
    if let Some(number) = text.strip_prefix("0x").and_then(|digits| i64::from_str_radix(digits, 16).ok()) {
        return number.into();
    }
    if let Some(number) = text.strip_prefix("0o").and_then(|digits| i64::from_str_radix(digits, 8).ok()) {
        return number.into();
    }
    // `inf` and `nan` parse as f64 and are text in YAML.
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    match text.parse::<f64>() {
        Ok(number) if numeric && number.is_finite() => number.into(),
        _ => Value::String(text.to_owned()),
    }
}

/// The only document of `text`.
pub(crate) fn parse(text: &str) -> Result<Node> {
    let mut builder = Builder::default();
    let mut documents = Vec::new();
    for next in Parser::new_from_str(text) {
        let (event, span) = next?;
        builder.take(event, &mut documents).with_context(|| format!("line {}", span.start.line()))?;
    }
    match documents.len() {
        0 => Ok(Node::Scalar { text: String::new(), plain: true }),
        1 => Ok(documents.remove(0)),
        more => bail!("{more} documents where one is expected"),
    }
}

/// An open collection while the events come in.
enum Open {
    Seq(Vec<Node>),
    Map { entries: Vec<(Node, Node)>, key: Option<Node> },
}

#[derive(Default)]
struct Builder {
    open: Vec<(Open, usize)>,
    anchors: HashMap<usize, Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, documents: &mut Vec<Node>) -> Result<()> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                let node =
                    Node::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain && !is_text };
                self.close(node, anchor, documents)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open.push((Open::Seq(Vec::new()), anchor));
                Ok(())
            }
            Event::MappingStart(_, anchor, _) => {
                self.open.push((Open::Map { entries: Vec::new(), key: None }, anchor));
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some((Open::Seq(items), anchor)) => self.close(Node::Seq(items), anchor, documents),
                Some((Open::Map { entries, .. }, anchor)) => {
                    self.close(Node::Map(merged(entries)), anchor, documents)
                }
                None => bail!("a collection ends that never began"),
            },
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned().context("an alias without its anchor")?;
                self.close(node, 0, documents)
            }
            _ => Ok(()),
        }
    }

    fn close(&mut self, node: Node, anchor: usize, documents: &mut Vec<Node>) -> Result<()> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => documents.push(node),
            Some((Open::Seq(items), _)) => items.push(node),
            Some((Open::Map { entries, key }, _)) => match key.take() {
                Some(name) => entries.push((name, node)),
                None => {
                    if !matches!(node, Node::Scalar { .. }) {
                        bail!("a key that is not a scalar");
                    }
                    if entries.iter().any(|(known, _)| known.text() == node.text()) {
                        bail!("key `{}` stands twice", node.text());
                    }
                    *key = Some(node);
                }
            },
        }
        Ok(())
    }
}

/// Resolves the merge key `<<`: keys of the merged map that the map itself lacks.
fn merged(mut entries: Vec<(Node, Node)>) -> Vec<(Node, Node)> {
    let Some(at) =
        entries.iter().position(|(key, _)| matches!(key, Node::Scalar { text, plain: true } if text == "<<"))
    else {
        return entries;
    };
    let sources = match entries.remove(at).1 {
        Node::Seq(items) => items,
        single => vec![single],
    };
    for source in sources {
        if let Node::Map(additions) = source {
            for (key, value) in additions {
                if !entries.iter().any(|(known, _)| known.text() == key.text()) {
                    entries.push((key, value));
                }
            }
        }
    }
    entries
}
