//! Settings of bindings: JSON that fits the plugin's schema and that the plugin itself accepts. The schema is asked first.

use portcullis_core::{OrgId, PluginFailure, PluginVersion};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Runtime;
use crate::bindings::portcullis::policy::settings::Problem;
use crate::call::{Asked, Budget, Reply};
use crate::schema::{self, Unjudged};

/// The most bytes of a settings document.
const SETTINGS_BYTES: usize = 64 << 10;

/// Why settings were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// They are larger than is kept.
    #[error("the settings have {size} bytes and {SETTINGS_BYTES} are allowed")]
    TooLarge {
        /// What came.
        size: usize,
    },
    /// They are not JSON.
    #[error("the settings are not a JSON document: {why}")]
    NotJson {
        /// Where and how.
        why: String,
    },
    /// They do not fit the plugin's schema, or the plugin refused them.
    #[error("the plugin refused the settings, for {} reasons", .problems.len())]
    Refused {
        /// Why, by field.
        problems: Vec<SettingsProblem>,
    },
    /// The plugin's schema could not judge them.
    #[error("the plugin's schema of its settings could not judge them: {why}")]
    Unjudged {
        /// Why.
        why: String,
    },
    /// The plugin failed over them.
    #[error("the plugin failed to validate the settings")]
    Failed(#[source] PluginFailure),
}

/// What is wrong with a field of settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsProblem {
    /// Where, as a JSON Pointer; empty for the document as a whole.
    pub field: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl From<Problem> for SettingsProblem {
    fn from(problem: Problem) -> Self {
        Self { field: problem.field, message: problem.message }
    }
}

impl Runtime {
    /// Checks settings for a plugin version: a JSON document of bounded size that fits its schema and that the plugin, if it validates settings, accepts.
    ///
    /// # Errors
    /// What is wrong with them, by field; or how the plugin failed, which is [`PluginFailure::Unavailable`] if it was not loaded.
    pub async fn validate_settings(
        &self,
        version: &PluginVersion,
        settings: &str,
        org: OrgId,
    ) -> Result<(), SettingsError> {
        self.check_schema(version.settings_schema.as_deref(), settings, org).await?;
        let plugin = self.at_hand(&version.digest).ok_or(SettingsError::Failed(PluginFailure::Unavailable))?;
        if plugin.validate.is_none() {
            return Ok(());
        }
        let permit = self.permits().take(org).await;
        let permit = permit.ok_or(SettingsError::Failed(PluginFailure::Overloaded))?;
        let budget = Budget::background(&self.config().bounds(version.class));
        match self
            .call(&permit, &plugin, self.bare_state(version.class), budget, Asked::Validate(settings))
            .await
            .result
        {
            Ok(Reply::Validated(Ok(()))) => Ok(()),
            Ok(Reply::Validated(Err(problems))) => {
                Err(SettingsError::Refused { problems: problems.into_iter().map(Into::into).collect() })
            }
            Ok(_) => Err(SettingsError::Failed(PluginFailure::BadOutput)),
            Err(failure) => Err(SettingsError::Failed(failure)),
        }
    }

    /// Checks settings for a schema alone: JSON of bounded size that fits it. An organisation has one judged at a time.
    ///
    /// # Errors
    /// What is wrong with them, by field; [`PluginFailure::Overloaded`] if too many are being judged.
    pub async fn check_schema(&self, schema: Option<&str>, settings: &str, org: OrgId) -> Result<(), SettingsError> {
        if settings.len() > SETTINGS_BYTES {
            return Err(SettingsError::TooLarge { size: settings.len() });
        }
        serde_json::from_str::<Value>(settings).map_err(|error| SettingsError::NotJson { why: error.to_string() })?;
        let Some(schema) = schema else { return Ok(()) };
        let permit = self.judging().take(org).await;
        let _permit = permit.ok_or(SettingsError::Failed(PluginFailure::Overloaded))?;
        match schema::judge(&self.config().compiler, schema, Some(settings)).await {
            Ok(problems) if problems.is_empty() => Ok(()),
            Ok(problems) => Err(SettingsError::Refused { problems }),
            Err(Unjudged(why)) => Err(SettingsError::Unjudged { why }),
        }
    }
}
