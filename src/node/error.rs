//! Errors of the node's setup, each with its remedy. Decides nothing.

use std::{io, net::IpAddr};

use crate::sys::labels;

labels! {
    /// The kinds of setup errors, as the counter tells them apart.
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum ErrorType {
        /// The interface could not be made or brought up.
        InterfaceAdd = "interface_add",
        /// The interface or its addresses could not be looked at, or another program's interface has the name.
        InterfaceCheck = "interface_check",
        /// An address could not be put on the interface.
        Address = "address",
        /// The rules could not be written or looked at.
        Nftables = "nftables",
        /// The process lacks a capability.
        Privilege = "privilege",
        /// The process that watches over interface and rules could not be started, or ended.
        Watch = "watch",
        /// A sandbox the kernel has could not be entered.
        Sandbox = "sandbox",
        /// A `ConfigMap` or Corefile of the drop-in mode could not be used.
        Configmap = "configmap",
        /// The unix socket of the tools could not be made.
        AdminSocket = "admin_socket",
    }
}

/// Why a part of the node could not be set up. The other parts are, and DNS is served all the same.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The kernel has no netlink for us.
    #[error("open a netlink socket ({family}): {error}")]
    Netlink { family: &'static str, error: io::Error },
    #[error(
        "{step}: not permitted; grant the capability CAP_NET_ADMIN, or let `holdfast node setup` do it as root before"
    )]
    NotPermitted { step: String },
    #[error("interface {name} exists and is {found}, not one of ours; remove it, or give node.interface another name")]
    InterfaceTaken {
        name: String,
        /// The kind of the interface, as in `a veth`.
        found: String,
    },
    /// Neither kind of interface could be made.
    #[error("make interface {name}: {error}")]
    InterfaceAdd { name: String, error: io::Error },
    /// It could not be looked at.
    #[error("look at interface {name}: {error}")]
    InterfaceCheck { name: String, error: io::Error },
    /// Another interface has an address.
    #[error("address {address} is on interface {interface} already; it is served there and left alone, without rules")]
    AddressElsewhere { address: IpAddr, interface: String },
    /// An address could not be added or removed.
    #[error("{step} {address} on interface {interface}: {error}")]
    Address { step: &'static str, address: IpAddr, interface: String, error: io::Error },
    /// The kernel has no nftables.
    #[error("the kernel has no nftables (nf_tables, nft_ct): connections to DNS are tracked; load the modules")]
    NoNftables,
    /// The rules could not be written or read.
    #[error("{step} nftables table {table}: {error}")]
    Nftables { step: &'static str, table: &'static str, error: io::Error },
}

impl SetupError {
    /// Its kind, for the counter.
    #[must_use]
    pub fn kind(&self) -> ErrorType {
        match self {
            Self::Netlink { family: "netfilter", .. } | Self::NoNftables | Self::Nftables { .. } => ErrorType::Nftables,
            Self::Netlink { .. } | Self::InterfaceCheck { .. } | Self::InterfaceTaken { .. } => {
                ErrorType::InterfaceCheck
            }
            Self::NotPermitted { .. } => ErrorType::Privilege,
            Self::InterfaceAdd { .. } => ErrorType::InterfaceAdd,
            Self::AddressElsewhere { .. } | Self::Address { .. } => ErrorType::Address,
        }
    }
}
