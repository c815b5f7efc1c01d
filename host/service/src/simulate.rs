//! The simulator's controls, for sessions of the simulated engine only.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::Permit;
use portcullis_engine::simulated::{RECONNECT, SimulatorError};

use crate::{Call, Service, ServiceError};

/// What the simulated phone or network does.
#[derive(Debug, Clone)]
pub enum SimulatorAct {
    /// The phone scans the QR code, or types the pairing code.
    Scan {
        /// The phone's number, digits only; one is made up otherwise.
        phone: Option<String>,
    },
    /// The phone unlinks the device.
    Unlink,
    /// The connection is lost for a time.
    Disconnect {
        /// For how long.
        outage: Option<Duration>,
    },
    /// Somebody writes to the account.
    Receive {
        /// The sender's JID.
        from: String,
        /// The text.
        text: String,
    },
    /// WhatsApp limits the account.
    Limit {
        /// WhatsApp's code for the limit.
        code: String,
    },
}

impl Service {
    /// Whether the engine is the simulated one.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        self.engine.simulator().is_some()
    }

    /// Acts as the phone or the network of a simulated session.
    ///
    /// # Errors
    /// If the engine is not simulated, there is no such session, or it is not in a state in which this could happen.
    pub async fn simulate(
        self: &Arc<Self>,
        permit: &Permit,
        act: SimulatorAct,
        call: &Call,
    ) -> Result<(), ServiceError> {
        let session = self.session(permit)?;
        if !self.is_simulated() {
            return Err(ServiceError::NotFound("simulator"));
        }
        if call.dry_run {
            return Err(ServiceError::DryRun);
        }
        let (engine, now) = (Arc::clone(&self.engine), self.now());
        let acted = tokio::task::spawn_blocking(move || {
            let Some(simulator) = engine.simulator() else { return Ok(false) };
            match act {
                SimulatorAct::Scan { phone } => simulator.scan(session.id, phone.as_deref(), now),
                SimulatorAct::Unlink => simulator.unlink(session.id),
                SimulatorAct::Disconnect { outage } => {
                    simulator.disconnect(session.id, outage.unwrap_or(RECONNECT), now)
                }
                SimulatorAct::Receive { from, text } => simulator.receive_text(session.id, &from, &text, now),
                SimulatorAct::Limit { code } => simulator.limit(session.id, &code, now),
            }
            .map(|()| true)
        });
        match acted.await {
            Ok(Ok(true)) => {
                self.stirred.notify_one();
                Ok(())
            }
            Ok(Ok(false)) => Err(ServiceError::NotFound("simulator")),
            Ok(Err(SimulatorError::Store(cause))) => Err(ServiceError::Simulator(cause.to_string())),
            Ok(Err(error)) => Err(ServiceError::Simulator(error.to_string())),
            Err(_panicked) => Err(ServiceError::Simulator("the simulated engine failed".to_owned())),
        }
    }
}
