//! `portcullis check`: opens the data of a stopped gateway and verifies it.

use portcullis_store::{Store, StoreOptions};

use crate::cli::Check;
use crate::{Failure, damage, terminal};

/// The data is not as it should be.
#[derive(Debug, thiserror::Error)]
#[error("{0} findings")]
struct Findings(usize);

pub(crate) fn check(arguments: &Check) -> Result<(), Failure> {
    if !arguments.data_dir.is_dir() {
        return Err(format!("there is no data directory {}", arguments.data_dir.display()).into());
    }
    // Opening makes what is not there, which is for a gateway to do and not for a look.
    if !arguments.data_dir.join("portcullis.redb").is_file() {
        return Err(format!("there is no data in {}", arguments.data_dir.display()).into());
    }
    let report = damage::looking(&arguments.data_dir, || -> Result<_, Failure> {
        Ok(Store::open(&arguments.data_dir, StoreOptions::default())?.verify()?)
    })?;
    for finding in &report.findings {
        terminal::say(finding);
    }
    terminal::say(&format!("verified {} rows, {} findings", report.rows, report.findings.len()));
    if report.findings.is_empty() { Ok(()) } else { Err(Findings(report.findings.len()).into()) }
}
