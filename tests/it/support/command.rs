//! The `holdfast` binary, run to its end.

use std::{
    ffi::OsStr,
    process::{Command, Output},
};

/// What a run left behind.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs `holdfast` with these arguments and an environment that names no cluster, so that names without a namespace are in `default`.
pub fn holdfast<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(args)
        .env_remove("KUBERNETES_SERVICE_HOST")
        .env_remove("HOLDFAST_HUB_SERVICE_HOST")
        .env("KUBECONFIG", "/nonexistent")
        .output()
        .unwrap();
    Ran {
        code: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}
