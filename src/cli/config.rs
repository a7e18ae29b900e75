//! The file of `--config`: values for flags, below the command line and the environment, above the defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::{Arg, Command};
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

/// Flags that make no sense in the file.
const NOT_KEYS: [&str; 3] = ["config", "help", "version"];

/// Puts the file's values in the place of defaults, for one subcommand.
///
/// One file serves all subcommands: keys of another one are taken and have no effect on this one.
///
/// # Errors
/// When the file cannot be read, is no map of flags, or has a key or a value that no flag takes.
pub(super) fn apply(command: Command, subcommand: &str, path: &Path) -> anyhow::Result<Command> {
    let read = || -> anyhow::Result<Command> {
        let text = std::fs::read_to_string(path)?;
        let values = parse(&text)?;
        for key in values.keys() {
            known(&command, key)?;
        }
        check(&command, subcommand, &values)?;
        Ok(with_defaults(command, subcommand, &values))
    };
    read().with_context(|| format!("cannot take flags from {}", path.display()))
}

fn parse(text: &str) -> anyhow::Result<BTreeMap<String, Values>> {
    let values: Option<BTreeMap<String, Values>> = serde_saphyr::from_str(text)?;
    Ok(values.unwrap_or_default())
}

fn flags(command: &Command) -> impl Iterator<Item = &str> {
    command.get_arguments().filter_map(Arg::get_long).filter(|long| !NOT_KEYS.contains(long))
}

fn known(command: &Command, key: &str) -> anyhow::Result<()> {
    let all: Vec<&str> = flags(command).chain(command.get_subcommands().flat_map(flags)).collect();
    if all.contains(&key) {
        return Ok(());
    }
    let nearest = all.iter().max_by(|a, b| strsim::jaro(a, key).total_cmp(&strsim::jaro(b, key)));
    match nearest.filter(|nearest| strsim::jaro(nearest, key) > 0.7) {
        Some(nearest) => bail!("unknown key `{key}`; did you mean `{nearest}`?"),
        None => bail!("unknown key `{key}`; keys are the names of flags, such as `http-port`"),
    }
}

/// Reads the values as if they stood on the command line.
fn check(command: &Command, subcommand: &str, values: &BTreeMap<String, Values>) -> anyhow::Result<()> {
    let active = command.find_subcommand(subcommand);
    let here: Vec<&str> = flags(command).chain(active.into_iter().flat_map(flags)).collect();
    let mut line = vec![command.get_name().to_owned(), subcommand.to_owned()];
    for (key, values) in values.iter().filter(|(key, _)| here.contains(&key.as_str())) {
        line.extend(values.0.iter().map(|value| format!("--{key}={value}")));
    }
    match super::lenient(command.clone()).try_get_matches_from(line) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.render().to_string();
            bail!("{}", text.lines().next().unwrap_or_default().trim_start_matches("error: "))
        }
    }
}

/// Puts values in the place of defaults.
pub(super) fn with_defaults(
    command: Command,
    subcommand: &str,
    values: &BTreeMap<String, Values>,
) -> Command {
    let set = |arg: Arg| match arg.get_long().and_then(|long| values.get(long)) {
        Some(values) if !values.0.is_empty() => arg.required(false).default_values(values.0.clone()),
        _ => arg,
    };
    command.mut_args(set).mut_subcommand(subcommand, |subcommand| subcommand.mut_args(set))
}

/// One value or several, as text for a flag's own parser.
pub(super) struct Values(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValuesVisitor)
    }
}

struct ValuesVisitor;

impl<'de> Visitor<'de> for ValuesVisitor {
    type Value = Values;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or a list of values")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Values, E> {
        Ok(Values(vec![value.to_string()]))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Values, E> {
        Ok(Values(vec![value.to_string()]))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Values, E> {
        Ok(Values(vec![value.to_string()]))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Values, E> {
        Ok(Values(vec![value.to_string()]))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Values, E> {
        Ok(Values(vec![value.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Values, A::Error> {
        let mut all = Vec::new();
        while let Some(Values(values)) = list.next_element()? {
            all.extend(values);
        }
        Ok(Values(all))
    }
}
