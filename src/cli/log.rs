//! Where log lines go and how they look: standard error, as `log.filter` and `log.format` say.

use std::io::IsTerminal as _;

use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, filter::ParseError, fmt, layer::SubscriberExt as _, reload,
    util::SubscriberInitExt as _,
};

use crate::config::{Settings, types::LogFormat};

/// Changes what is logged while the process runs.
#[derive(Clone, Debug)]
pub struct Filter(reload::Handle<EnvFilter, Registry>);

impl Filter {
    /// Logs what this filter says from now on.
    ///
    /// # Errors
    /// If it is no filter; the one before stays. Settings that were checked never fail here.
    pub fn set(&self, filter: &str) -> Result<(), ParseError> {
        let filter = EnvFilter::builder().parse(filter)?;
        // The subscriber lives as long as the process, so there is always one to reload.
        let _ = self.0.reload(filter);
        Ok(())
    }
}

/// Starts logging for the process. Called once, by whoever starts a daemon.
///
/// # Errors
/// If `log.filter` is no filter, or something else took the process's log already.
pub fn init(settings: &Settings) -> anyhow::Result<Filter> {
    let (filter, handle) = reload::Layer::new(EnvFilter::builder().parse(&settings.log_filter)?);
    let layer = match settings.log_format {
        LogFormat::Text => fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => fmt::layer().with_writer(std::io::stderr).json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(layer).try_init()?;
    Ok(Filter(handle))
}
