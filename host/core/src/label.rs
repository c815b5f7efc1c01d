//! Labels: key-value pairs on organisations and sessions, by which policies and selectors choose.

use std::collections::BTreeMap;

/// Label keys and values, sorted by key.
pub type Labels = BTreeMap<String, String>;

/// The most labels one thing may carry.
pub const MAX_LABELS: usize = 64;
/// The longest label key, in bytes.
pub const MAX_KEY: usize = 63;
/// The longest label value, in bytes.
pub const MAX_VALUE: usize = 255;

/// Why a set of labels was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// More than [`MAX_LABELS`] labels.
    #[error("at most {MAX_LABELS} labels are allowed, got {0}")]
    TooMany(usize),
    /// A key that is empty, too long or has other characters than `a-z A-Z 0-9 . _ - /`.
    #[error("label key {0:?} must be 1 to {MAX_KEY} characters of a-z, A-Z, 0-9, '.', '_', '-' and '/'")]
    Key(String),
    /// A value that is too long or has control characters.
    #[error("the value of label {0:?} must be at most {MAX_VALUE} bytes without control characters")]
    Value(String),
}

/// Checks a whole set of labels.
///
/// # Errors
/// The first rule that is broken, naming the label.
pub fn check(labels: &Labels) -> Result<(), LabelError> {
    if labels.len() > MAX_LABELS {
        return Err(LabelError::TooMany(labels.len()));
    }
    for (key, value) in labels {
        check_one(key, value)?;
    }
    Ok(())
}

/// Checks one label.
///
/// # Errors
/// The rule that is broken; the key in the error is cut to [`MAX_KEY`] characters.
pub fn check_one(key: &str, value: &str) -> Result<(), LabelError> {
    let in_alphabet = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    let shown = || key.chars().take(MAX_KEY).collect::<String>();
    if key.is_empty() || key.len() > MAX_KEY || !key.chars().all(in_alphabet) {
        return Err(LabelError::Key(shown()));
    }
    if value.len() > MAX_VALUE || value.chars().any(char::is_control) {
        return Err(LabelError::Value(shown()));
    }
    Ok(())
}
