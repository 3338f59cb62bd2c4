//! `holdfast import-corefile`: a Corefile in holdfast's own words, and what of it is lost on the way.

use std::{cell::RefCell, fmt::Write as _, fs, net::IpAddr, path::PathBuf};

use anyhow::Context as _;
use clap::Args;

use crate::{
    config,
    corefile::{self, Imports, KubeDns, Options, Surroundings, TemplateValues, Weight},
    ctl::{Exit, Failed, print},
    node,
};

/// What to import.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// The Corefile, or a template of NodeLocal DNSCache with its `__PILLAR__` variables
    pub file: PathBuf,
    /// Listen addresses, used for `__PILLAR__LOCAL__DNS__`
    #[arg(long, value_name = "IP", value_delimiter = ',', default_value = "169.254.20.10")]
    pub localip: Vec<IpAddr>,
    /// Address of the cluster's DNS service, used for `__PILLAR__CLUSTER__DNS__`
    #[arg(long, value_name = "IP")]
    pub cluster_dns: Option<IpAddr>,
    /// Answer names of the cluster from hubs; add their addresses to the configuration afterwards
    #[arg(long)]
    pub hub: bool,
}

/// Prints the configuration, and what is not honoured as comments in front of it.
///
/// # Errors
/// If the file cannot be read.
pub fn run(args: &ImportArgs) -> anyhow::Result<Exit> {
    let path = args.file.display();
    let text = fs::read(&args.file).with_context(|| format!("read {path}"))?;
    let text = String::from_utf8_lossy(&text);
    let values = TemplateValues { local: args.localip.clone(), cluster_dns: args.cluster_dns, port: 53 };
    let text = corefile::fill(&text, &values, &KubeDns::default())
        .map_err(|error| Failed::Faults(format!("{path}: {error}: give --cluster-dns IP")))?;
    let options =
        Options { hub: args.hub, cluster_dns: args.cluster_dns, interface: node::addresses_of, ..Options::default() };
    let imports = RefCell::new(Imports::default());
    let surroundings = Surroundings {
        environment: &|name| config::environment(name),
        import: &|folder, pattern| imports.borrow_mut().read(folder, pattern),
    };
    let translation = corefile::parse(&args.file, &text, &surroundings)
        .map_err(|error| vec![error])
        .and_then(|file| corefile::translate(&file, &options))
        .map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(|error| error.shown(&args.file)).collect();
            Failed::Faults(lines.join("\n"))
        })?;
    let lost = translation.notes.iter().any(|note| note.weight == Weight::Answers);
    let mut out = String::new();
    for (weight, title) in [
        (Weight::Answers, "Not honoured, and some answers differ for it:"),
        (Weight::Manner, "Done otherwise, with the same answers:"),
    ] {
        let notes: Vec<String> = translation
            .notes
            .iter()
            .filter(|note| note.weight == weight)
            .map(|note| format!("#   {}\n", note.shown(&args.file)))
            .collect();
        if !notes.is_empty() {
            let _ = write!(out, "# {title}\n{}", notes.concat());
        }
    }
    if translation.reload.is_some() {
        out.push_str("# `reload`: SIGHUP makes the agent read its configuration again.\n");
    }
    out.push_str(&translation.yaml);
    print(out)?;
    Ok(if lost { Exit::No } else { Exit::Ok })
}
