//! Compiles the descriptor sets of the messages that are printed as JSON or written as such, and of the rate limit
//! service; and the code of our own messages.
//!
//! Envoy's sources are those that the `envoy-types` package ships, so they always fit the generated code. Ours are below
//! `proto`. `protox` reads them: no `protoc` is needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use prost_reflect::prost::Message as _;

/// Our own files.
const OURS: [&str; 1] = ["chancery/ratelimit/v1/limit_set.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=Cargo.lock");
    let roots = std::fs::read_to_string("proto/roots.txt")?;
    let roots = roots.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let sources = envoy_types()?.join("proto");
    let includes = [
        "data-plane-api",
        "xds",
        "googleapis",
        "protoc-gen-validate",
        "opentelemetry-proto",
        "cel-spec/proto",
        "client_model",
        "ratelimit/api",
    ];
    let includes = includes.map(|folder| sources.join(folder)).into_iter().filter(|folder| folder.is_dir());
    let includes: Vec<_> = includes.chain([PathBuf::from("proto")]).collect();
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let set = protox::compile(roots, &includes)?;
    std::fs::write(out.join("envoy.descriptors"), set.encode_to_vec())?;
    let set = protox::compile(["envoy/service/ratelimit/v3/rls.proto"], &includes)?;
    std::fs::write(out.join("ratelimit.descriptors"), set.encode_to_vec())?;
    prost_build::compile_fds(protox::compile(OURS, ["proto"])?)?;
    quota()?;
    Ok(())
}

/// Our own messages and service, which are JSON as well.
fn quota() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/chancery/quota");
    let set = protox::compile(["chancery/quota/v1/quota.proto"], ["proto"])?;
    let json = "#[derive(serde::Serialize, serde::Deserialize)]\n\
                #[serde(rename_all = \"camelCase\", default, deny_unknown_fields)]";
    tonic_prost_build::configure().type_attribute(".chancery.quota.v1", json).compile_fds(set)?;
    Ok(())
}

/// Where cargo has unpacked the `envoy-types` package that this build uses. On a machine that is new to cargo it may fetch
/// dependencies of tests first, which a build leaves out and this list does not.
fn envoy_types() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let output = Command::new(std::env::var("CARGO")?)
        .args(["metadata", "--locked", "--format-version", "1"])
        // Else it fetches those of every platform.
        .args(["--filter-platform", &std::env::var("TARGET")?])
        .output()?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let package = packages
        .iter()
        .find(|package| package["name"] == "envoy-types")
        .ok_or("envoy-types is not a dependency")?;
    let manifest = package["manifest_path"].as_str().ok_or("envoy-types has no manifest")?;
    Ok(Path::new(manifest).parent().ok_or("envoy-types has no folder")?.to_owned())
}
