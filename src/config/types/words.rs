//! Settings that are one of a few words.

use std::{path::PathBuf, time::Duration};

use super::super::value::Scalar;
use crate::{
    dns::{
        cache::{Denials, HOLD},
        forward::{AnswerClass, DohMethod, FixedAnswer, Policy, Verdict},
    },
    source::EndpointsMode,
    sys::labels,
    zone::{Compat, Pods},
};

labels! {
    /// The form of log lines.
    pub enum LogFormat {
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

scalars!(AnswerClass, Pods, Compat, LogFormat, EndpointsMode, DohMethod, FixedAnswer, Policy, Verdict);

impl Scalar for Denials {
    const KIND: &'static str = "auto, believe, confirm, hold or hold DURATION";

    fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["auto"] => Ok(Self::Auto),
            ["believe"] => Ok(Self::Believe),
            ["confirm"] => Ok(Self::Confirm),
            ["hold"] => Ok(Self::Hold(HOLD)),
            ["hold", length] => Duration::parse(length).map(Self::Hold),
            _ => Err(format!("{text:?} is not one of {}", Self::KIND)),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Auto => "auto".into(),
            Self::Believe => "believe".into(),
            Self::Confirm => "confirm".into(),
            Self::Hold(length) => format!("hold {}", length.text()),
        }
    }

    fn measure(&self) -> Option<u128> {
        if let Self::Hold(length) = self { length.measure() } else { None }
    }
}

/// Where the certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// No TLS, which only loopback addresses may do.
    Insecure,
    /// `ca.crt`, `tls.crt` and `tls.key` in this directory.
    Dir(PathBuf),
}

impl Scalar for Tls {
    const KIND: &'static str = "directory or insecure";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("a directory cannot be empty".into()),
            "insecure" => Ok(Self::Insecure),
            _ => Ok(Self::Dir(text.into())),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Insecure => "insecure".into(),
            Self::Dir(path) => path.display().to_string(),
        }
    }
}
