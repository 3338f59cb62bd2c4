//! Where log lines go and how they look: standard error, as `log.filter` and `log.format` say.

use std::{
    io::{self, IsTerminal as _},
    sync::LazyLock,
    time::Duration,
};

use tracing_subscriber::{
    EnvFilter, Layer as _, Registry,
    filter::{FilterExt as _, LevelFilter, ParseError, combinator::Or},
    fmt,
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

use crate::{
    config::{Settings, types::LogFormat},
    sys::LogQueue,
};

/// Longest wait for the last lines at the end of the process.
const FLUSH: Duration = Duration::from_secs(1);

static QUEUE: LazyLock<LogQueue> = LazyLock::new(LogQueue::default);

/// Writes each event to the queue: a reader of standard error that stands still must not stop DNS.
struct Lines;

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        QUEUE.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes log lines on a thread of its own from now on, which begins with `on_start`.
pub fn start_thread(on_start: impl FnOnce() + Send + 'static) {
    if let Err(error) = QUEUE.start(on_start) {
        tracing::warn!(%error, "cannot start the log thread: each line is written by the thread that logs it");
    }
}

/// Writes the lines that wait, for [`FLUSH`] at most.
pub fn flush() {
    QUEUE.flush(FLUSH);
}

/// Changes what is logged while the process runs.
#[derive(Clone, Debug)]
pub struct Filter(reload::Handle<OrErrors, Registry>);

/// Errors are logged whatever the filter says.
type OrErrors = Or<EnvFilter, LevelFilter, Registry>;

fn with_errors(filter: &str) -> Result<OrErrors, ParseError> {
    Ok(EnvFilter::builder().parse(filter)?.or(LevelFilter::ERROR))
}

impl Filter {
    /// Logs what this filter says from now on.
    ///
    /// # Errors
    /// If it is no filter; the one before stays. Settings that were checked never fail here.
    pub fn set(&self, filter: &str) -> Result<(), ParseError> {
        let filter = with_errors(filter)?;
        // The subscriber lives as long as the process, so there is always one to reload.
        let _ = self.0.reload(filter);
        Ok(())
    }
}

/// Starts logging for the process, once.
///
/// # Errors
/// If `log.filter` is no filter, or something else took the process's log already.
pub fn init(settings: &Settings) -> anyhow::Result<Filter> {
    let (filter, handle) = reload::Layer::new(with_errors(&settings.log_filter)?);
    let layer = match settings.log_format {
        LogFormat::Text => fmt::layer().with_writer(|| Lines).with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => fmt::layer().with_writer(|| Lines).json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
    Ok(Filter(handle))
}
