//! Migrations: numbered steps from one format of the data to the next, each in a transaction of its own.
//!
//! The format's number stands in the meta table. A step sees the number that it leads from, and either skips itself,
//! because it is done, or executes. A crash between two steps leaves a format that has a number.
//! Every step first makes the tables that are not there, so a new table needs a step, if only an empty one.
//! To add one: write the step, append it to [`STEPS`]; a golden of the old format goes with its test.

use std::collections::BTreeMap;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableError, WriteTransaction};

use crate::counts::Counts;
use crate::error::{OpenError, StoreFault};
use crate::keyfile::CutShort;
use crate::keyring::Keyring;
use crate::kv;
use crate::tables::{self, Definition, Tables, number};
use crate::writer::{CommitMode, begin};

/// The newest format; one for each step.
pub(crate) const FORMAT: u64 = STEPS.len() as u64;

/// The row of the meta table that holds the format's number.
pub(crate) const FORMAT_ROW: &[u8] = b"format";

/// The row of the meta table that says how a change of the master key ended which was cut short: 1 if it went on, 2 if it went
/// back. It is there until the audit says so.
pub(crate) const SETTLED_ROW: &[u8] = b"master key settled";

/// A step sees the transaction, for tables that the schema no longer has, those that it has, opened, and the keys.
type Step = fn(&WriteTransaction, &mut Tables<'_>, &Keyring) -> Result<(), StoreFault>;

/// Step n leads from format n to n + 1.
const STEPS: &[Step] = &[make_tables, count_webhooks_and_messages, take_stock_of_plugins, name_rows_of_devices];

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
    format_of(&database.begin_read()?)
}

/// Remembers how a change of the master key ends that was cut short.
pub(crate) fn note_settled(database: &Database, mode: CommitMode, ends: CutShort) -> Result<(), StoreFault> {
    let transaction = begin(database, mode)?;
    let ends: u64 = match ends {
        CutShort::GoesOn => 1,
        CutShort::GoesBack => 2,
    };
    Tables::of(&transaction).meta.insert(SETTLED_ROW, &ends.to_be_bytes())?;
    Ok(transaction.commit()?)
}

/// The same as of one point in time.
pub(crate) fn format_of(transaction: &ReadTransaction) -> Result<u64, StoreFault> {
    let meta = match transaction.open_table(tables::META) {
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
pub(crate) fn run(database: &Database, ring: &Keyring, mode: CommitMode) -> Result<(), StoreFault> {
    for (from, step) in (0..).zip(STEPS) {
        if execute(database, ring, mode, from, *step)? == Outcome::Execute {
            tracing::info!(format = from + 1, "the data was brought to a newer format");
        }
    }
    Ok(())
}

fn execute(
    database: &Database,
    ring: &Keyring,
    mode: CommitMode,
    from: u64,
    step: Step,
) -> Result<Outcome, StoreFault> {
    if format(database)? > from {
        return Ok(Outcome::Skip);
    }
    let transaction = begin(database, mode)?;
    {
        let mut tables = Tables::of(&transaction);
        tables.make()?;
        step(&transaction, &mut tables, ring)?;
        tables.meta.insert(FORMAT_ROW, &(from + 1).to_be_bytes()[..])?;
    }
    transaction.commit()?;
    Ok(Outcome::Execute)
}

/// Format 1. The tables have been made.
fn make_tables(_: &WriteTransaction, _: &mut Tables<'_>, _: &Keyring) -> Result<(), StoreFault> {
    Ok(())
}

/// Format 2. Webhooks and open messages are counted too; there are none yet, so what was counted goes on as it was.
/// Idempotency keys lead to messages and no longer to whole answers; no answer was ever kept in the old table.
fn count_webhooks_and_messages(
    transaction: &WriteTransaction,
    tables: &mut Tables<'_>,
    _: &Keyring,
) -> Result<(), StoreFault> {
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

/// Format 3. Timers are counted, and what plugins keep for a session comes under the session's key.
/// All else that is new has tables of its own, which have been made.
fn take_stock_of_plugins(_: &WriteTransaction, tables: &mut Tables<'_>, ring: &Keyring) -> Result<(), StoreFault> {
    let mut counts = BTreeMap::<Vec<u8>, u32>::new();
    for row in tables.timers.range(..)? {
        let (row, _) = row?;
        if let Some(owner) = row.value().get(..32) {
            *counts.entry(owner.to_vec()).or_default() += 1;
        }
    }
    for (owner, count) in counts {
        tables.timer_counts.insert(&owner[..], &count.to_be_bytes()[..])?;
    }
    kv::give_to_sessions(tables, ring)
}

/// Format 4. Rows of devices have kinds, and hold their names. Those from before do not say what they are called, and are of
/// simulated devices only; they go, and such a session has to be linked again.
fn name_rows_of_devices(transaction: &WriteTransaction, _: &mut Tables<'_>, _: &Keyring) -> Result<(), StoreFault> {
    const OLD_DEVICES: Definition = Definition::new("devices-1");
    transaction.delete_table(OLD_DEVICES)?;
    Ok(())
}

#[cfg(test)]
mod test {
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::seal::Hashes;

    fn database() -> Database {
        Database::builder().create_with_backend(InMemoryBackend::new()).expect("a database in memory")
    }

    fn ring() -> Keyring {
        let file = crate::keyfile::in_memory(1);
        let hashes = Hashes::new(&file.root());
        Keyring::load(file, hashes).expect("an empty file").0
    }

    #[test]
    fn steps_run_once_and_in_order() {
        let database = database();
        assert_eq!(format(&database).expect("readable"), 0);
        let mode = CommitMode::default();
        assert_eq!(execute(&database, &ring(), mode, 0, make_tables).expect("migrated"), Outcome::Execute);
        assert_eq!(execute(&database, &ring(), mode, 0, make_tables).expect("migrated"), Outcome::Skip);
        run(&database, &ring(), mode).expect("migrated");
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
