//! What the operator does about the store as a whole: backups, and another master key.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use portcullis_core::{AuditEntry, AuditId, AuditOutcome, OperationKind, OrgId, Permit, PrincipalKind};
use portcullis_store::{Backup, Commit, MasterKey, ReadError, RotateError, Settled, Write};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;

use crate::orgs::{admin_audit, admin_error};
use crate::queries::expect;
use crate::{Call, Service, ServiceError, StoreFailure, mint};

/// How many backups are made at once: each keeps old pages of the data alive.
pub(crate) const BACKUPS_AT_ONCE: usize = 1;

/// What comes of asking for a master key: the key, or a sentence about why there is none.
type Asked = Pin<Box<dyn Future<Output = Result<MasterKey, String>> + Send>>;

/// Where the next master key comes from, if the store does not make it itself.
#[derive(Clone)]
pub struct NextMasterKey(Arc<dyn Fn() -> Asked + Send + Sync>);

impl NextMasterKey {
    /// The key is what `ask` gives when the key is to be changed.
    pub fn new<F>(ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<MasterKey, String>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(ask())))
    }
}

impl fmt::Debug for NextMasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NextMasterKey(…)")
    }
}

/// A backup that is being made. Nobody else makes one until it is dropped.
pub struct BackupStream {
    backup: Option<Backup>,
    _place: OwnedSemaphorePermit,
}

impl fmt::Debug for BackupStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackupStream(…)")
    }
}

impl BackupStream {
    /// The next piece; none after the last, and none if the store cannot be read: then what was taken is no whole backup, and
    /// says so by its end, which is missing.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        let mut backup = self.backup.take()?;
        let read = spawn_blocking(move || (backup.next_piece(), backup)).await;
        match read {
            Ok((Ok(Some(piece)), backup)) => {
                self.backup = Some(backup);
                return Some(piece);
            }
            Ok((Ok(None), _)) => {}
            Ok((Err(error), _)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a backup could not be read to its end");
            }
            Err(error) => tracing::error!(%error, "a backup could not be read to its end"),
        }
        None
    }
}

impl Service {
    /// Begins a backup of everything as it is now.
    ///
    /// # Errors
    /// If one is being made already, or the store fails.
    pub async fn back_up(&self, permit: &Permit, call: &Call) -> Result<BackupStream, ServiceError> {
        expect(permit, OperationKind::BackupRead)?;
        let place = Arc::clone(&self.backing_up).try_acquire_owned();
        let place = place.map_err(|_| ServiceError::UnderWay("a backup is being made already"))?;
        // Whoever takes everything away leaves a line about it, in the backup as well.
        self.note(permit, call, AuditOutcome::Done, "data".to_owned()).await?;
        Ok(BackupStream { backup: Some(self.store.backup(self.now())?), _place: place })
    }

    /// The key file as it is now. It has to be taken after the backup that it is for.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn back_up_keys(&self, permit: &Permit, call: &Call) -> Result<Vec<u8>, ServiceError> {
        expect(permit, OperationKind::BackupRead)?;
        self.note(permit, call, AuditOutcome::Done, "keys".to_owned()).await?;
        let store = self.store.clone();
        let read = spawn_blocking(move || store.backup_keys()).await;
        let failed = |fault| ServiceError::Store(StoreFailure::Read(ReadError::Store(fault)));
        read.map_err(|_panicked| ServiceError::Contention)?.map_err(failed)
    }

    /// Changes the master key while everything goes on; how many keys were sealed anew. That it is begun and who asked is in the audit
    /// before anything is changed, and takes the request's key; another line says how it ended.
    ///
    /// # Errors
    /// If there is no other key, or it is being changed already, or the store fails.
    pub async fn rotate_master_key(&self, permit: &Permit, call: &Call) -> Result<usize, ServiceError> {
        expect(permit, OperationKind::MasterKeyRotate)?;
        if call.dry_run {
            return Err(ServiceError::DryRun);
        }
        let next = match &self.next_master_key {
            Some(NextMasterKey(ask)) if !self.store.has_own_master_key() => {
                Some(ask().await.map_err(ServiceError::MasterKey)?)
            }
            _ => None,
        };
        let rotation = self.store.begin_rotation(next.as_ref()).map_err(not_rotated)?;
        self.note(permit, call, AuditOutcome::Begun, "keys".to_owned()).await?;
        let rotated = spawn_blocking(move || rotation.run()).await;
        match rotated.map_err(|_panicked| ServiceError::Contention).and_then(|rotated| rotated.map_err(not_rotated)) {
            Ok(slots) => {
                tracing::info!(slots, "the master key was changed");
                self.note(permit, call, AuditOutcome::Done, format!("{slots} keys")).await?;
                Ok(slots)
            }
            Err(error) => {
                let refused = AuditOutcome::Refused { code: error.code().to_owned() };
                self.note(permit, call, refused, "keys".to_owned()).await?;
                Err(error)
            }
        }
    }

    /// Says in the audit how a change of the master key was ended that was cut short, if one was.
    pub(crate) async fn tell_settled_rotation(&self) {
        let told = self.try_tell_settled_rotation().await;
        if let Err(error) = told {
            let error = &error as &dyn std::error::Error;
            tracing::error!(
                error,
                "the audit does not say that the master key was changed; the next start tries again"
            );
        }
    }

    async fn try_tell_settled_rotation(&self) -> Result<(), ServiceError> {
        let Some(settled) = self.store.snapshot()?.settled_rotation()? else { return Ok(()) };
        let (outcome, how) = match settled {
            Settled::WentOn => (AuditOutcome::Done, "a change that was cut short went on to the next key"),
            Settled::WentBack => (AuditOutcome::Unchanged, "a change that was cut short went back to the key before"),
        };
        tracing::info!("{how}");
        let now = self.now();
        let mut commit = Commit::new(OrgId::PLATFORM, now);
        commit.writes.push(Write::RotationIsTold);
        commit.audit.push(AuditEntry {
            id: mint::id(AuditId::new, now),
            org: OrgId::PLATFORM,
            at: now,
            actor: PrincipalKind::System,
            request: None,
            operation: OperationKind::MasterKeyRotate,
            session: None,
            subject: Some(how.to_owned()),
            outcome,
            decision: None,
        });
        self.store.commit(commit).await.map_err(admin_error).map(drop)
    }

    /// Leaves a line in the platform's audit.
    async fn note(
        &self,
        permit: &Permit,
        call: &Call,
        outcome: AuditOutcome,
        subject: String,
    ) -> Result<(), ServiceError> {
        let now = self.now();
        let mut commit = Commit::new(OrgId::PLATFORM, now);
        let line = admin_audit(permit, OrgId::PLATFORM, permit.kind(), subject, call.request, now);
        commit.audit.push(AuditEntry { outcome, ..line });
        self.carry_out(&Call { dry_run: false, ..call.clone() }, commit).await
    }
}

fn not_rotated(error: RotateError) -> ServiceError {
    match error {
        RotateError::SameKey => ServiceError::SameMasterKey,
        RotateError::UnderWay => ServiceError::UnderWay("the master key is being changed already"),
        RotateError::Store(fault) => ServiceError::Store(StoreFailure::Read(ReadError::Store(fault))),
        error @ (RotateError::Own | RotateError::NotOwn | RotateError::Keep(_)) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the master key was not changed");
            ServiceError::MasterKey(error.to_string())
        }
    }
}
