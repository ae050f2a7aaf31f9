//! Programs of others that tests start.

use std::process::{Command, Output};

use tokio::task::spawn_blocking;

/// A program; the test fails with the package's name where it is missing.
pub fn tool(name: &str, package: &str) -> Command {
    let found =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()));
    assert!(found, "`{name}` is not installed; `apt-get install {package}` brings it");
    Command::new(name)
}

/// Runs a program to its end.
pub async fn run(mut command: Command) -> Output {
    spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// What a program that succeeded has said.
pub fn text(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
