//! `holdfast import-corefile` on the Corefiles people run.

use std::{fs, path::PathBuf};

use crate::support::process::run;

fn corefile(name: &str) -> String {
    format!("{}/tests/it/dropin/corefiles/{name}.Corefile", env!("CARGO_MANIFEST_DIR"))
}

/// What is printed for a Corefile, and the exit code; what it comes to is a configuration that the agent takes.
fn imported(name: &str, more: &[&str]) -> (String, Option<i32>) {
    let path = corefile(name);
    let output = run(&[&["import-corefile", &path, "--cluster-dns", "10.96.0.99"], more].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("agent.yaml");
    fs::write(&file, &text).unwrap();
    let file = file.to_str().unwrap();
    let hub: &[&str] = if more.contains(&"--hub") { &["--hub", "127.0.0.1:7443", "--tls", "insecure"] } else { &[] };
    let checked = run(&[&["check-config", "--config", file], hub].concat());
    assert!(checked.status.success(), "{name}: {}\n{text}", String::from_utf8_lossy(&checked.stderr));
    (text, output.status.code())
}

#[test]
fn the_corefiles_of_the_addon_are_honoured_to_the_letter() {
    for name in ["addon", "ipvs"] {
        let (text, code) = imported(name, &["--localip", "169.254.20.10,10.96.0.10"]);
        assert_eq!(code, Some(0), "{text}");
        let comments: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
        assert_eq!(comments, ["# `reload`: SIGHUP makes the agent read its configuration again."], "{name}");
        assert_eq!(text.matches("  - zone: ").count(), 4, "{name}: {text}");
    }
    let (text, _) = imported("addon", &["--localip", "169.254.20.10,10.96.0.10"]);
    assert!(text.contains("listen: [169.254.20.10:53, 10.96.0.10:53]\n"), "{text}");
    assert!(text.contains("http: 169.254.20.10:8080\nmetrics: 0.0.0.0:9253\n"), "{text}");
}

#[test]
fn with_a_hub_the_clusters_zone_is_answered_from_records() {
    let (text, code) = imported("addon", &["--hub"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("zone: cluster.local\ncluster_fallback: [10.96.0.99]\n"), "{text}");
    assert!(!text.contains("source:"), "{text}");
}

#[test]
fn options_of_the_clouds_are_told_of_where_they_differ() {
    let (text, code) = imported("gke", &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("# Done otherwise, with the same answers:\n"), "{text}");
    assert!(text.contains("gke.Corefile:7:9: cache prefetch: "), "{text}");
    assert!(text.contains("probe_interval: "), "{text}");

    let (text, code) = imported("aks", &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("template: [") && text.contains("rcode NXDOMAIN fallthrough"), "{text}");
    assert!(text.contains("zone: reddog.microsoft.com\n    answer: nxdomain\n"), "{text}");
    assert!(text.contains("views:\n  - listen: [169.254.10.11:53]\n"), "{text}");
    assert!(text.contains("http: 169.254.10.10:8181\nhttp_more: [169.254.10.11:8181]\n"), "{text}");
}

#[test]
fn a_corefile_that_is_wrong_is_named_by_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Corefile");
    let path = path.to_str().unwrap();
    for (text, expect) in [
        (".:53 {\n  forward . 1.1.1.1\n", "6: this brace is not closed"),
        (".:53 {\n  forwrd . 1.1.1.1\n}\n", "3: unknown directive \"forwrd\", did you mean \"forward\"?"),
        ("forward . __PILLAR__CLUSTER__DNS__\n", "give --cluster-dns IP"),
    ] {
        fs::write(path, text).unwrap();
        let output = run(&["import-corefile", path]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.starts_with(path) && errors.trim_end().ends_with(expect), "{errors}");
        assert!(output.stdout.is_empty());
    }
    assert_eq!(run(&["import-corefile", "/nonexistent/Corefile"]).status.code(), Some(3));
}
