//! Migrations: numbered steps from one format of the data to the next, each in a transaction of its own.
//!
//! The format's number stands in the meta table. A step sees the number that it leads from, and either skips itself,
//! because it is done, or executes. A crash between two steps leaves a format that has a number.
//! To add one: write the step, append it to [`STEPS`]; a golden of the old format goes with its test.

use redb::{Database, ReadableDatabase, ReadableTable, TableError, WriteTransaction};

use crate::counts::Counts;
use crate::error::{OpenError, StoreFault};
use crate::tables::{self, Definition, Tables, number};
use crate::writer::{CommitMode, begin};

/// The newest format; one for each step.
pub(crate) const FORMAT: u64 = STEPS.len() as u64;

/// The row of the meta table that holds the format's number.
pub(crate) const FORMAT_ROW: &[u8] = b"format";

/// A step sees the tables of the schema, opened, and the transaction for those that the schema no longer has.
type Step = fn(&WriteTransaction, &mut Tables<'_>) -> Result<(), StoreFault>;

/// Step n leads from format n to n + 1.
const STEPS: &[Step] = &[make_tables, count_webhooks_and_messages];

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It was done before.
    Skip,
    /// It is done now.
    Execute,
}

/// The format of the data; 0 if there is none.
pub(crate) fn format(database: &Database) -> Result<u64, StoreFault> {
    let meta = match database.begin_read()?.open_table(tables::META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    Ok(meta.get(FORMAT_ROW)?.and_then(|row| number(row.value(), 0)).unwrap_or_default())
}

/// Refuses data of a format that this version does not know.
pub(crate) fn check(database: &Database) -> Result<(), OpenError> {
    match format(database)? {
        found if found > FORMAT => Err(OpenError::NewerFormat { found, known: FORMAT }),
        _ => Ok(()),
    }
}

/// Brings the data to the newest format.
pub(crate) fn run(database: &Database, mode: CommitMode) -> Result<(), StoreFault> {
    for (from, step) in (0..).zip(STEPS) {
        if execute(database, mode, from, *step)? == Outcome::Execute {
            tracing::info!(format = from + 1, "the data was brought to a newer format");
        }
    }
    Ok(())
}

fn execute(database: &Database, mode: CommitMode, from: u64, step: Step) -> Result<Outcome, StoreFault> {
    if format(database)? > from {
        return Ok(Outcome::Skip);
    }
    let transaction = begin(database, mode)?;
    {
        let mut tables = Tables::open(&transaction)?;
        step(&transaction, &mut tables)?;
        tables.meta.insert(FORMAT_ROW, &(from + 1).to_be_bytes()[..])?;
    }
    transaction.commit()?;
    Ok(Outcome::Execute)
}

/// Format 1. Opening the tables has made them.
fn make_tables(_: &WriteTransaction, _: &mut Tables<'_>) -> Result<(), StoreFault> {
    Ok(())
}

/// Format 2. Webhooks and open messages are counted too; there are none yet, so what was counted goes on as it was.
/// Idempotency keys lead to messages and no longer to whole answers; no answer was ever kept in the old table.
fn count_webhooks_and_messages(transaction: &WriteTransaction, tables: &mut Tables<'_>) -> Result<(), StoreFault> {
    const OLD_COUNTS: Definition = Definition::new("counts-1");
    const OLD_IDEMPOTENCY: Definition = Definition::new("idempotency-1");
    // On a first boot this makes the old table, empty, to take it out again.
    for row in transaction.open_table(OLD_COUNTS)?.range::<&[u8]>(..)? {
        let (org, counts) = row?;
        tables.counts.insert(org.value(), &Counts::parse(counts.value()).bytes()[..])?;
    }
    transaction.delete_table(OLD_COUNTS)?;
    transaction.delete_table(OLD_IDEMPOTENCY)?;
    Ok(())
}

#[cfg(test)]
mod test {
    use redb::backends::InMemoryBackend;

    use super::*;

    fn database() -> Database {
        Database::builder().create_with_backend(InMemoryBackend::new()).expect("a database in memory")
    }

    #[test]
    fn steps_run_once_and_in_order() {
        let database = database();
        assert_eq!(format(&database).expect("readable"), 0);
        let mode = CommitMode::default();
        assert_eq!(execute(&database, mode, 0, make_tables).expect("migrated"), Outcome::Execute);
        assert_eq!(execute(&database, mode, 0, make_tables).expect("migrated"), Outcome::Skip);
        run(&database, mode).expect("migrated");
        assert_eq!(format(&database).expect("readable"), FORMAT);
    }

    #[test]
    fn a_newer_format_is_refused() {
        let database = database();
        let transaction = begin(&database, CommitMode::default()).expect("begun");
        transaction
            .open_table(tables::META)
            .expect("opened")
            .insert(FORMAT_ROW, &(FORMAT + 1).to_be_bytes()[..])
            .expect("written");
        transaction.commit().expect("committed");
        let refused = check(&database);
        assert!(matches!(refused, Err(OpenError::NewerFormat { found, known: FORMAT }) if found == FORMAT + 1));
    }
}
