//! `translate`: what Envoy would be sent for manifests.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Map, Value};

use super::{Compiled, output, settings};
use crate::admin::dump;
use crate::settings::Settings;
use crate::xds::{Audience, Snapshot, TypeUrl};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files and folders of manifests
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// How resources are printed
    #[arg(long, short, value_enum, value_name = "FORMAT", default_value_t = Output::Yaml)]
    output: Output,
    #[command(flatten)]
    settings: settings::Args,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Output {
    Yaml,
    Json,
}

/// Exits with 1 where something could not be read; the rest is printed all the same.
pub(super) fn execute(
    args: Args,
    compile: fn(Settings, &[PathBuf]) -> anyhow::Result<Compiled>,
) -> anyhow::Result<ExitCode> {
    let compiled = compile(args.settings.settings(), &args.paths)?;
    let resources = resources(&compiled.snapshot)?;
    output::print(&match args.output {
        Output::Yaml => yaml(&resources)?,
        Output::Json => serde_json::to_string_pretty(&resources)? + "\n",
    })?;
    for finding in &compiled.unreadable {
        output::warn(finding);
    }
    Ok(if compiled.unreadable.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Type → name → resource, private keys left out.
fn resources(snapshot: &Snapshot) -> anyhow::Result<Value> {
    let mut types = Map::new();
    for type_url in TypeUrl::ALL.into_iter().filter(|type_url| type_url.audience() == Audience::Envoy) {
        let mut of_type = Map::new();
        for resource in snapshot.iter(type_url) {
            of_type.insert(resource.name().to_string(), dump::resource(resource)?);
        }
        if !of_type.is_empty() {
            types.insert(type_url.short().to_owned(), Value::Object(of_type));
        }
    }
    Ok(Value::Object(types))
}

fn yaml(value: &Value) -> anyhow::Result<String> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false, compact_list_indent: true };
    Ok(serde_saphyr::to_string_with_options(value, options)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::Compiler;
    use crate::model::Certificate;
    use crate::store::Change;
    use serde_json::json;

    #[test]
    fn every_type_that_is_sent_can_be_printed() {
        let certificate = Certificate { chain: b"chain".into(), private_key: b"secret".into() };
        let mut compiler = Compiler::new(Settings::default(), certificate).unwrap();
        let snapshot = compiler.apply(vec![Change::Ready]).snapshot.clone();
        let resources = resources(&snapshot).unwrap();
        assert_eq!(resources["Listener"]["http"]["name"], "http");
        assert_eq!(resources["Secret"]["*"]["tls_certificate"]["private_key"], "[redacted]");
        let read: Value = serde_saphyr::from_str(&yaml(&resources).unwrap()).unwrap();
        assert_eq!(read, resources);
    }

    #[test]
    fn yaml_keeps_what_text_is() {
        let long = "word ".repeat(100);
        let texts = [
            "yes", "1.0", "0123", "null", "~", "", " a", "a: b", "# a", "l1\nl2\n", "- a", "\ttab", "'", "é",
            &long,
        ];
        let value = json!({"texts": texts, "number": 1, "flag": true, "none": [], "empty": {}});
        let read: Value = serde_saphyr::from_str(&yaml(&value).unwrap()).unwrap();
        assert_eq!(read, value);
    }
}
