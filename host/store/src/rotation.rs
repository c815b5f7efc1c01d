//! Changing the master key while everything goes on.
//!
//! Whoever changes it begins by finding out whether it can be changed, says in the audit that it is, and only then has it done: so who
//! asked is known whatever happens. A change that a crash cuts short is ended when the store is opened, which nobody has asked for
//! then; [`Snapshot::settled_rotation`] says so until the audit does.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::error::{ReadError, RotateError};
use crate::keyfile::Wrapping;
use crate::master::{self, MasterKey};
use crate::migrations::SETTLED_ROW;
use crate::snapshot::Snapshot;
use crate::tables::{self, number};
use crate::{Shared, Store};

/// A change of the master key that can be made. Nobody else makes one until it is dropped.
pub struct Rotation {
    shared: Arc<Shared>,
    next: Next,
    _alone: OwnedSemaphorePermit,
}

enum Next {
    /// Somebody brings it.
    Given(Wrapping),
    /// The store makes it, in its directory.
    Own(PathBuf),
}

/// How a change of the master key that was cut short was ended when the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It went on to the next key.
    WentOn,
    /// It went back to the key before: the next one was not at hand.
    WentBack,
}

impl Rotation {
    /// Makes the change, and seals every slot of the key file anew. Everything goes on as before during that, and the key before
    /// opens nothing afterwards. Answers how many slots there were. It blocks, and is not for async workers.
    ///
    /// # Errors
    /// See [`RotateError`].
    pub fn run(self) -> Result<usize, RotateError> {
        let file = &self.shared.ring.file;
        match &self.next {
            Next::Given(next) => Ok(file.rotate(next)?),
            Next::Own(dir) => {
                let kept = |error| RotateError::Keep(Box::new(error));
                let is_in_use = |key: &MasterKey| file.is_under(&Wrapping::of(key));
                let next = Wrapping::of(&master::next(dir, is_in_use).map_err(kept)?);
                let slots = file.rotate(&next)?;
                master::settle(dir, is_in_use).map_err(kept)?;
                Ok(slots)
            }
        }
    }
}

impl Store {
    /// Whether the store keeps its master key itself.
    #[must_use]
    pub fn has_own_master_key(&self) -> bool {
        self.0.own_keys.is_some()
    }

    /// A change of the master key to `next`, or to a new one of the store's own. Nothing is changed by this yet.
    ///
    /// # Errors
    /// If the change cannot be made: see [`RotateError`].
    pub fn begin_rotation(&self, next: Option<&MasterKey>) -> Result<Rotation, RotateError> {
        let alone = Arc::clone(&self.0.rotating).try_acquire_owned().map_err(|_| RotateError::UnderWay)?;
        let file = &self.shared().ring.file;
        let next = match (next, &self.0.own_keys) {
            (Some(_), Some(_)) => return Err(RotateError::Own),
            (None, None) => return Err(RotateError::NotOwn),
            (Some(next), None) => {
                let next = Wrapping::of(next);
                if file.is_under(&next) && file.is_settled() {
                    return Err(RotateError::SameKey);
                }
                Next::Given(next)
            }
            (None, Some(dir)) => Next::Own(dir.clone()),
        };
        Ok(Rotation { shared: Arc::clone(self.shared()), next, _alone: alone })
    }

    /// Both at once.
    ///
    /// # Errors
    /// See [`RotateError`].
    pub fn rotate_master_key(&self, next: Option<&MasterKey>) -> Result<usize, RotateError> {
        self.begin_rotation(next)?.run()
    }
}

impl Snapshot {
    /// How a change of the master key was ended that was cut short, if the audit does not say so yet.
    /// It does once somebody has committed [`crate::Write::RotationIsTold`] with a line about it.
    pub fn settled_rotation(&self) -> Result<Option<Settled>, ReadError> {
        let row = self.table(tables::META)?.get(SETTLED_ROW)?;
        Ok(row.and_then(|row| number(row.value(), 0)).map(|ends| match ends {
            1 => Settled::WentOn,
            _ => Settled::WentBack,
        }))
    }
}
