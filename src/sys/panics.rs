//! Panics: each ends the process, but for those of code that is known to give up that way and is called where its state can
//! be thrown away.
//!
//! A thread that is gone while the rest goes on is worse than a restart: its share of the queries would reach a socket that
//! no thread reads. A library that panics over a damaged file, on the other hand, is no reason to stop answering.

use std::{
    any::Any,
    backtrace::Backtrace,
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    process, thread,
};

use super::{
    fdstore::{FdStore, Kind},
    write_stderr,
};

thread_local! {
    /// How many calls of [`contained`] this thread is in.
    static CONTAINED: Cell<usize> = const { Cell::new(0) };
}

/// Makes every panic outside [`contained`] say where it was and abort the process, on whatever thread or task. To be called
/// once, when the process starts.
pub fn abort_on_panic() {
    panic::set_hook(Box::new(move |panic| {
        if CONTAINED.get() > 0 {
            tracing::warn!(%panic, "a library panicked: the panic was caught");
            return;
        }
        // Not through the usual hook, which waits for whatever reads standard error.
        let thread = thread::current();
        let name = thread.name().unwrap_or("unnamed").to_owned();
        write_stderr(&format!("thread '{name}' {panic}\n{}\n", Backtrace::capture()));
        if let Some(store) = FdStore::inherited() {
            store.tell(Kind::Failed, &panic.to_string());
        }
        process::abort();
    }));
}

/// Runs `work`, and gives the message of its panic if it ends in one. What it worked on is not to be trusted then, not even
/// to be dropped.
///
/// # Errors
/// The message.
pub fn contained<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    struct Inside;
    impl Drop for Inside {
        fn drop(&mut self) {
            CONTAINED.set(CONTAINED.get() - 1);
        }
    }
    CONTAINED.set(CONTAINED.get() + 1);
    let _inside = Inside;
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|panic| message(&*panic).to_owned())
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no reason given")
}
