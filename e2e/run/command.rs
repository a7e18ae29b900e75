//! Runs the product's command line.

use super::world::World;
use crate::case::step::Expect;
use crate::case::values::Contained;
use crate::process::output;
use std::time::Duration;
use tokio::process::Command;

/// No subcommand that a case runs takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn run(world: &World, args: &[String], expect: &Expect) -> Result<(), String> {
    let mut command = Command::new(&world.chancery);
    command.current_dir(&world.folder);
    for arg in args {
        command.arg(filled(world, arg)?);
    }
    let ended = tokio::time::timeout(PATIENCE, output(command)).await;
    let ended = ended.map_err(|_| format!("the command has not ended after {PATIENCE:?}"))?;
    let ended = ended.map_err(|error| format!("{error:#}"))?;
    let (stdout, stderr) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    check(expect, ended.status.code(), &stdout, &stderr)
        .map_err(|problem| format!("{problem}\n  stdout: {}\n  stderr: {}", cut(&stdout), cut(&stderr)))
}

fn filled(world: &World, arg: &str) -> Result<String, String> {
    let kubeconfig = match world.cluster.kubeconfig() {
        Some(path) => path.to_string_lossy(),
        None if arg.contains("{kubeconfig}") => {
            return Err("{kubeconfig} is a file in kubernetes mode only".to_owned());
        }
        None => Default::default(),
    };
    let edge = &world.edge;
    Ok(arg
        .replace("{kubeconfig}", &kubeconfig)
        .replace("{manifests}", &world.cluster.folder().to_string_lossy())
        .replace("{admin}", &world.ports.admin().to_string())
        .replace("{http}", &format!("{}:{}", edge.ip, edge.http_port))
        .replace("{https}", &format!("{}:{}", edge.ip, edge.https_port)))
}

fn check(expect: &Expect, exit: Option<i32>, stdout: &str, stderr: &str) -> Result<(), String> {
    if let Some(expected) = expect.exit
        && exit != Some(expected)
    {
        return Err(format!(
            "exit: expected {expected}, seen {}",
            exit.map_or("a signal".to_owned(), |code| code.to_string())
        ));
    }
    check_text("stdout", expect.stdout.as_ref(), stdout)?;
    check_text("stderr", expect.stderr.as_ref(), stderr)
}

fn check_text(key: &str, expected: Option<&Contained>, seen: &str) -> Result<(), String> {
    match expected {
        Some(expected) if !expected.matches(seen) => Err(format!("{key}: expected {} in it", expected.0)),
        _ => Ok(()),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(4000).collect()
}
