//! The audit: pages of it, all of it as JSON lines, what of it is about one session, and receipts.
//!
//! What is long is told bit by bit: lines are read as the client takes them, and none is held for longer than that.

use std::convert::Infallible;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::{BodyExt, StreamBody};
use hyper::StatusCode;
use hyper::body::Frame;
use portcullis_core::{OrgId, SessionId};
use portcullis_service::{AuditExport, SignedEnd};
use serde::Serialize;
use serde_json::{Value, json};

use super::view::{self, AuditView, ReceiptView, SessionView, WebhookView};
use super::{decode, mismatch};
use crate::asked::{Answer, Asked};
use crate::dialect::Problem;
use crate::exchange::{Incoming, Reply};
use crate::routes::EncodeContext;

pub(super) fn list(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::Audit { before: decode::cursor(incoming)?, limit: decode::limit(incoming) })
}

pub(super) fn listed(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Audit(page) = answer else { return mismatch() };
    let next = page.entries.last().filter(|_| page.more).map(|line| line.number.to_string());
    Reply::json(StatusCode::OK, &view::list(page.entries.iter().map(AuditView::of), next))
}

pub(super) fn export(incoming: &Incoming) -> Result<Asked, Problem> {
    let number = |name: &str| {
        let given = incoming.query(name).filter(|text| !text.is_empty()).map(str::parse::<u64>).transpose();
        given.map_err(|_| Problem::invalid(format!("{name} must be a whole number")))
    };
    let limit = number("limit")?;
    if limit == Some(0) {
        return Err(Problem::invalid("limit must be at least 1"));
    }
    Ok(Asked::ExportAudit { after: number("after")?.unwrap_or_default(), limit })
}

pub(super) fn exported(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::AuditExport(export) = answer else { return mismatch() };
    let pieces = unfold(Some(export), |export| async move {
        let (piece, export) = piece(export?)?;
        Some((Ok::<_, Infallible>(Frame::data(piece)), export))
    });
    streamed(StreamBody::new(pieces).boxed_unsync(), "application/x-ndjson")
}

pub(super) fn receipt(incoming: &Incoming) -> Result<Asked, Problem> {
    let id = incoming.param("id");
    if let Ok(org) = id.parse::<OrgId>() {
        return Ok(Asked::ReceiptOfOrg { org });
    }
    Ok(Asked::Receipt { session: decode::path_id(incoming, "id", "receipt")? })
}

pub(super) fn receipt_of(_context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::Receipt(signed) = answer else { return mismatch() };
    Reply::json(StatusCode::OK, &ReceiptView::of(&signed))
}

pub(super) fn export_session(incoming: &Incoming) -> Result<Asked, Problem> {
    Ok(Asked::ExportSession { session: decode::path_id::<SessionId>(incoming, "id", "session")? })
}

/// Everything of a session that its owner may want to keep, and none of its credentials.
pub(super) fn session_exported(context: &EncodeContext<'_>, answer: Answer) -> Reply {
    let Answer::SessionExport { session, webhooks, export } = answer else { return mismatch() };
    let webhooks: Vec<_> = webhooks.iter().map(|webhook| WebhookView::of(webhook, context.now)).collect();
    let known = json!({
        "exportedAt": context.now,
        "session": SessionView::of(&session, context),
        "labels": session.labels,
        "settings": view::SettingsView::of(&session.settings),
        "webhooks": webhooks,
    });
    let mut head = known.to_string();
    head.pop();
    head.push_str(",\"audit\":[");
    let pieces = unfold((Some(head), Some(export), true), |(head, export, is_first)| async move {
        if let Some(head) = head {
            return Some((Ok::<_, Infallible>(Frame::data(Bytes::from(head))), (None, export, true)));
        }
        let mut export = export?;
        let mut text = String::new();
        let mut is_first = is_first;
        // What cannot be read ends the document in the middle, and so it is no document.
        let Some(lines) = export.more().ok()? else {
            return Some((Ok(Frame::data(Bytes::from_static(b"]}"))), (None, None, is_first)));
        };
        for line in &lines {
            if !std::mem::take(&mut is_first) {
                text.push(',');
            }
            text.push_str(&document(&AuditView::of(line)).to_string());
        }
        Some((Ok(Frame::data(Bytes::from(text))), (None, Some(export), is_first)))
    });
    let name = format!("attachment; filename=\"{}.json\"", session.id);
    streamed(StreamBody::new(pieces).boxed_unsync(), "application/json").with("content-disposition", &name)
}

fn streamed(body: http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>, kind: &'static str) -> Reply {
    Reply::streaming(StatusCode::OK, body).with("content-type", kind).with("cache-control", "no-store")
}

/// One line of an export.
#[derive(Serialize)]
struct LineView<'a> {
    /// Whose audit it is of.
    org: OrgId,
    /// What it says.
    entry: AuditView<'a>,
    /// The entry as it is sealed, in base64; the line's hash covers this.
    sealed: String,
}

/// The next piece, and the rest unless that was the last; nothing at all if it cannot be read, so that the end is missing.
fn piece(mut export: Box<AuditExport>) -> Option<(Bytes, Option<Box<AuditExport>>)> {
    match export.more() {
        Ok(Some(lines)) => {
            let mut text = Vec::new();
            for line in &lines {
                let view = LineView {
                    org: line.entry.org,
                    entry: AuditView::of(line),
                    sealed: BASE64_STANDARD.encode(&line.envelope),
                };
                text.extend(document(&view).to_string().bytes());
                text.push(b'\n');
            }
            export.told(&text);
            Some((Bytes::from(text), Some(export)))
        }
        Ok(None) => {
            let SignedEnd { end, signature, public_key } = export.end();
            let mut last = document(&end);
            last["signature"] = json!(signature);
            last["publicKey"] = json!(public_key);
            Some((Bytes::from(format!("{}\n", json!({ "end": last }))), None))
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "an audit could not be read to its end");
            None
        }
    }
}

fn document(view: &impl Serialize) -> Value {
    // Every view serialises: string keys, finite numbers.
    serde_json::to_value(view).unwrap_or_default()
}
