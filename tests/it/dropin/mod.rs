//! In the place of NodeLocal `DNSCache`: its Corefiles, its flags, its `ConfigMap`s.

mod import;
mod metrics;
mod migration;
mod options;
mod order;
mod plugins;
mod process;
mod reference;
mod served;
mod settled;
