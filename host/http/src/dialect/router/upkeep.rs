//! Backups, and another master key: what is about the store as a whole, and the operator's alone.

use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::{BodyExt, StreamBody};
use hyper::StatusCode;
use hyper::body::Frame;
use schemars::JsonSchema;
use serde::Serialize;

use super::mismatch;
use crate::asked::{Answer, Asked};
use crate::dialect::Problem;
use crate::exchange::{Incoming, Reply};
use crate::live::while_taken;
use crate::routes::EncodeContext;

const BYTES: &str = "application/octet-stream";

/// What came of another master key.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RotatedMasterKey")]
pub(super) struct RotatedView {
    /// How many keys of organisations and sessions were sealed anew.
    keys: usize,
}

#[expect(clippy::unnecessary_wraps, reason = "a decoder of the table may refuse")]
pub(super) fn back_up(_incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Backup)
}

#[expect(clippy::unnecessary_wraps, reason = "a decoder of the table may refuse")]
pub(super) fn back_up_keys(_incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::BackupKeys)
}

#[expect(clippy::unnecessary_wraps, reason = "a decoder of the table may refuse")]
pub(super) fn rotate(_incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::RotateMasterKey)
}

/// The backup, piece by piece as the client takes it, and for no longer than it may take.
pub(super) fn backed_up(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Backup(backup, until) = answer else { return mismatch() };
    let pieces = unfold(backup, |mut backup| async {
        let piece = backup.next().await?;
        Some((Ok(Frame::data(Bytes::from(piece))), backup))
    });
    Reply::streaming(StatusCode::OK, StreamBody::new(while_taken(pieces, Some(until))).boxed_unsync())
        .with("content-type", BYTES)
        .with("cache-control", "no-store")
        .with("x-content-type-options", "nosniff")
}

pub(super) fn backed_up_keys(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::BackupKeys(keys) = answer else { return mismatch() };
    Reply::text(StatusCode::OK, BYTES, keys).with("cache-control", "no-store").with("x-content-type-options", "nosniff")
}

#[expect(clippy::needless_pass_by_value, reason = "an encoder of the table takes its answer")]
pub(super) fn rotated(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::MasterKeyRotated(keys) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &RotatedView { keys })
}
