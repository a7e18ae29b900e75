//! The Python client, in a program such as platforms for models have.

use std::process::Command;

use crate::cluster::tools::{built_by, run};
use crate::models;
use crate::world::{PUBLISHED, World};

/// Who serves which deployment.
const MODELS: [(&str, &str); 5] = [
    ("sentiment", "198.18.20.1"),
    ("translate", "198.18.20.2"),
    ("summarize", "198.18.20.3"),
    ("sentiment-next", "198.18.20.4"),
    ("translate-next", "198.18.20.5"),
];

pub(crate) fn test() {
    let client = built_by("scripts/install-kubernetes-client");
    let world = World::start();
    let mut python = world.cluster.administered(Command::new("python3"));
    python.env("PYTHONPATH", client).env("PYTHONDONTWRITEBYTECODE", "1");
    python.args(["tests/clients/model_platform.py", &world.http.to_string(), PUBLISHED]);
    for (name, address) in MODELS {
        models::serve(name, address);
        python.arg(format!("{name}={address}:{}", models::PORT));
    }
    print!("{}", run(&mut python, ""));
}
