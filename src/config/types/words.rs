//! Settings that are one of a few words.

use std::path::PathBuf;

use super::super::value::Scalar;
use crate::{
    dns::forward::{FixedAnswer, Policy},
    source::EndpointsMode,
};

macro_rules! choice {
    ($(#[$meta:meta])* $name:ident = $kind:literal { $($(#[$doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant),+ }

        impl Scalar for $name {
            const KIND: &'static str = $kind;

            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("{text:?} is not one of {}", [$($word),+].join(", "))),
                }
            }

            fn text(&self) -> String {
                match self { $(Self::$variant => $word),+ }.into()
            }
        }
    };
}

choice! {
    /// Whether names that spell a pod's address are answered.
    Pods = "insecure, disabled" {
        /// Any address in an existing namespace is answered, pod or not.
        Insecure = "insecure",
        /// None is.
        Disabled = "disabled",
    }
}

choice! {
    /// Whose answers are given where the specification is silent or others differ from it.
    Compat = "none, coredns" {
        /// The specification's and the RFCs'.
        None = "none",
        /// CoreDNS's.
        CoreDns = "coredns",
    }
}

choice! {
    /// How log lines look.
    LogFormat = "text, json" {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

impl Scalar for EndpointsMode {
    const KIND: &'static str = "headless, all";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Scalar for FixedAnswer {
    const KIND: &'static str = "noerror, nxdomain, refused, servfail";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "noerror" => Ok(Self::NoError),
            "nxdomain" => Ok(Self::NxDomain),
            "refused" => Ok(Self::Refused),
            "servfail" => Ok(Self::ServFail),
            _ => Err(format!("{text:?} is not one of {}", Self::KIND)),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::NoError => "noerror",
            Self::NxDomain => "nxdomain",
            Self::Refused => "refused",
            Self::ServFail => "servfail",
        }
        .into()
    }
}

impl Scalar for Policy {
    const KIND: &'static str = "random, round_robin, sequential";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "random" => Ok(Self::Random),
            "round_robin" => Ok(Self::RoundRobin),
            "sequential" => Ok(Self::Sequential),
            _ => Err(format!("{text:?} is not one of {}", Self::KIND)),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Random => "random",
            Self::RoundRobin => "round_robin",
            Self::Sequential => "sequential",
        }
        .into()
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
