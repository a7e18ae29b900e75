//! Commands, and where those are that the project's scripts build.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The project's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a command says; it must succeed. `input` is what it reads.
pub(crate) fn run(command: &mut Command, input: &str) -> String {
    match attempt(command, input) {
        Ok(output) => output,
        Err(error) => panic!("{command:?}: {error}"),
    }
}

/// What a command says, or why it failed.
pub(crate) fn attempt(command: &mut Command, input: &str) -> Result<String, String> {
    command.current_dir(root()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    child.stdin.take().unwrap().write_all(input.as_bytes()).map_err(|error| error.to_string())?;
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// The folder where a script has put what it builds.
pub(crate) fn built_by(script: &str) -> PathBuf {
    match attempt(Command::new(script).arg("--where"), "") {
        Ok(path) => PathBuf::from(path.trim()),
        Err(_) => panic!("there is nothing yet of what {script} builds: run it once"),
    }
}

/// The folder with kube-apiserver and etcd.
pub(crate) fn api_server() -> PathBuf {
    built_by("scripts/install-kube-apiserver")
}

pub(crate) fn kubectl() -> Command {
    Command::new(built_by("scripts/install-kubectl").join("kubectl"))
}
