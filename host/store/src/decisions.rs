//! Decisions inside the writer's transaction: forgetting the oldest.

use portcullis_core::{DecisionId, DecisionRecord, OrgId, Timestamp};

use crate::apply::Batch;
use crate::error::StoreFault;
use crate::keyfile::Owner;
use crate::seal::Envelope;
use crate::tables::{self, Prefix, Tables, key, session_part};

/// Forgets at most so many of an organisation's decisions that were made before a point in time, the oldest first.
pub(crate) fn forget(
    tables: &mut Tables<'_>,
    batch: &Batch<'_>,
    org: OrgId,
    before: Timestamp,
    at_most: usize,
) -> Result<(), StoreFault> {
    let own = org.to_bytes();
    let end = key(&[&own, &DecisionId::new(before, 0).to_bytes()]);
    let mut old = Vec::new();
    for row in tables.decisions.range(Prefix::new(&[&own]).before(Some(&end)))?.take(at_most) {
        let (row, value) = row?;
        old.push((row.value().to_vec(), record_row(batch, org, row.value(), value.value())));
    }
    for (row, record) in old {
        tables.decisions.remove(&row[..])?;
        if let Some(record) = record {
            tables.decision_records.remove(&record[..])?;
        }
    }
    Ok(())
}

/// Where the full record of a decision lies. Its session stands under the skeleton's seal; a skeleton that does not open
/// leads nowhere, and its record stays where it is until its session goes.
fn record_row(batch: &Batch<'_>, org: OrgId, row: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    let envelope = Envelope::parse(value)?;
    let plain = batch.living(Owner::org(org))?.open(tables::name(tables::DECISIONS), row, &envelope)?;
    let skeleton: DecisionRecord = serde_json::from_slice(&plain).ok()?;
    Some(key(&[&org.to_bytes(), &session_part(skeleton.session), row.get(16..)?]))
}
