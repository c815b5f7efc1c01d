//! `portcullis-manifest`: what `plugins/build` asks of the manifest. Run in the root of a checkout.
//!
//! ```text
//! portcullis-manifest list                         the plugins that ship, one a line
//! portcullis-manifest flags                        the compiler flags, one a line, with placeholders for directories
//! portcullis-manifest write <toolchain>            writes plugins/dist/manifest.json for the components beside it
//! portcullis-manifest check <built> <toolchain>    compares plugins/dist with its sources, and with a new build where it can
//! ```

use std::error::Error;
use std::io::{Write, stderr, stdout};
use std::path::Path;
use std::process::ExitCode;

use portcullis_manifest::{FLAGS, Manifest, SHIPPED, check_bytes, check_dist, dist_folder};

fn main() -> ExitCode {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(code) => code,
        Err(error) => {
            // Nothing is left to do about a message that nobody can read.
            let _ = writeln!(stderr(), "portcullis-manifest: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<ExitCode, Box<dyn Error>> {
    let root = Path::new(".");
    let mut out = stdout().lock();
    match arguments {
        ["list"] => SHIPPED.iter().try_for_each(|name| writeln!(out, "{name}"))?,
        ["flags"] => FLAGS.iter().try_for_each(|flag| writeln!(out, "{flag}"))?,
        ["write", toolchain] => {
            let dist = dist_folder(root);
            let manifest = Manifest::describe(root, &dist, toolchain)?;
            manifest.store(&dist)?;
            for component in &manifest.plugins {
                writeln!(out, "{}  {:>7} bytes  {}", component.digest, component.size, component.file)?;
            }
        }
        ["check", built, toolchain] => {
            let mut mismatches = check_dist(root)?;
            match check_bytes(root, Path::new(built), toolchain)? {
                Some(found) => mismatches.extend(found),
                None => writeln!(out, "bytes were not compared: the manifest's toolchain is not {toolchain}")?,
            }
            for mismatch in &mismatches {
                writeln!(out, "{mismatch}")?;
            }
            if !mismatches.is_empty() {
                writeln!(out, "run plugins/build and commit plugins/dist")?;
                return Ok(ExitCode::FAILURE);
            }
            writeln!(out, "plugins/dist matches its sources")?;
        }
        _ => {
            return Err(
                "usage: portcullis-manifest list | flags | write <toolchain> | check <built> <toolchain>".into()
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// An error and all its causes.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
