//! `portcullis plugin`: everything a plugin's author does, from an empty folder to a policy that is enforced.
//!
//! ```text
//! new ─▶ build ─▶ test ─▶ inspect ─▶ keygen, sign ─▶ push
//! └────────────── offline ──────────────────────┘   └ a running gateway
//! ```
//!
//! What is offline asks the same runtime with the same bounds as the gateway, so that nothing is found out only at an upload.

mod args;
mod build;
mod diff;
mod fixture;
mod inspect;
mod new;
mod offline;
mod push;
mod sign;
mod template;
#[cfg(test)]
mod test;
mod trial;
mod world;

use crate::Failure;
use crate::cli::Remote;

pub(crate) use args::{Plugin, Publisher};
pub(crate) use push::publisher;

/// Carries out one command.
pub(crate) async fn plugin(remote: Remote, command: Plugin) -> Result<(), Failure> {
    match command {
        Plugin::New(arguments) => new::new(&arguments),
        Plugin::Build(arguments) => build::build(&arguments).await,
        Plugin::Test(arguments) => trial::test(&arguments).await,
        Plugin::Inspect(arguments) => inspect::inspect(&arguments).await,
        Plugin::Keygen(arguments) => sign::keygen(&arguments),
        Plugin::Sign(arguments) => sign::sign(&arguments),
        Plugin::Push(arguments) => push::push(&remote, &arguments).await,
        Plugin::List { org } => push::list(&remote, org.as_deref()).await,
    }
}

/// The bytes of a component.
fn read(file: &std::path::Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| {
        let hint = if file.is_dir() { "; name the component in it, a file that ends in .wasm" } else { "" };
        format!("cannot read {}: {error}{hint}", file.display()).into()
    })
}

/// The SHA-256 of `bytes` in hexadecimal digits.
fn digest(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
