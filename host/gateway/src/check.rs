//! `portcullis check`: opens the data of a stopped gateway and verifies it.

use portcullis_store::{Report, Store, StoreOptions};

use crate::cli::Check;
use crate::config::Config;
use crate::{Failure, damage, master_key, terminal};

/// The data is not as it should be.
#[derive(Debug, thiserror::Error)]
#[error("{0} findings")]
struct Findings(usize);

pub(crate) async fn check(arguments: Check) -> Result<(), Failure> {
    let data_dir = &arguments.data_dir;
    if !data_dir.is_dir() {
        return Err(format!("there is no data directory {}", data_dir.display()).into());
    }
    // Opening makes what is not there, which is for a gateway to do and not for a look.
    if !data_dir.join("portcullis.redb").is_file() {
        return Err(format!("there is no data in {}", data_dir.display()).into());
    }
    let keys = master_key::keys(&Config::of(data_dir, arguments.config)?.master_key).await?;
    let report = damage::looking(data_dir, || -> Result<_, Failure> {
        Ok(Store::open_under(data_dir, StoreOptions::default(), &keys)?.verify()?)
    })?;
    say(&report)
}

/// Says what verifying found; findings are a failure.
pub(crate) fn say(report: &Report) -> Result<(), Failure> {
    for finding in &report.findings {
        terminal::say(finding);
    }
    terminal::say(&format!("verified {} rows, {} findings", report.rows, report.findings.len()));
    if report.findings.is_empty() { Ok(()) } else { Err(Findings(report.findings.len()).into()) }
}
