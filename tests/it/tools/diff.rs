//! `holdfast diff`: two sets of records compared.

use std::{process::Command, time::Duration};

use super::{EXAMPLE, stored, text};
use crate::support::{
    apiserver::{Apiserver, namespace, service},
    command::holdfast,
};

#[test]
fn a_diff_names_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    stored(&store, Duration::ZERO);
    let changed = std::fs::read_to_string(EXAMPLE).unwrap().replace("10.96.130.4", "10.96.130.6");
    let changed = changed.replace("name: payments-gateway", "name: payments");
    let file = dir.path().join("changed.yaml");
    std::fs::write(&file, changed).unwrap();
    let ran = holdfast(["diff", text(&store), text(&file)]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    let expect = "\
~ default/frontend
    ClusterIP 10.96.130.4 -> ClusterIP 10.96.130.6
+ default/payments  ExternalName gateway.payments.example.com
- default/payments-gateway  ExternalName gateway.payments.example.com

3 differences: - 1 only in A, + 1 only in B, ~ 1 differ (A -> B); equal: 16 services
";
    let (head, differences) = ran.out.split_once("\n\n").unwrap();
    assert_eq!(differences, expect);
    let head: Vec<&str> = head.lines().collect();
    let stored = format!("A {}: a store on disk, records confirmed ", store.display());
    assert!(head[0].starts_with(&stored) && head[0].ends_with(" UTC)"), "{head:?}");
    assert_eq!(head[1], format!("B {}: manifests", file.display()));
    let one = holdfast(["diff", "-n", "data", text(&store), text(&file)]);
    assert_eq!((one.code, one.out.lines().last()), (0, Some("equal: 2 services")), "{}", one.out);
    assert!(one.out.contains("\nonly namespace data\n"), "{}", one.out);
    let json = holdfast(["diff", text(&store), text(&file), "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&json["equal"], &json["differences"][1]["side"]), (&false.into(), &"only_b".into()));
    assert_eq!(
        (&json["a"]["kind"], &json["b"]["kind"], &json["services_equal"]),
        (&"store".into(), &"manifests".into(), &16.into())
    );
    // Beside its records a process keeps what it was started with.
    std::fs::write(store.join("settings.yaml"), "zone: cluster.local\n").unwrap();
    assert!(holdfast(["diff", text(&store), EXAMPLE]).out.ends_with("\nequal: 18 services\n"));
    std::fs::rename(store.join("records-1.redb"), store.join("records-1.redb.corrupt-1")).unwrap();
    let ran = holdfast(["diff", text(&store), EXAMPLE]);
    assert_eq!((ran.code, ran.err), (3, format!("holdfast: no store in {}\n", store.display())));
}

#[test]
fn a_diff_reads_pipes() {
    let script = "\"$0\" diff <(cat \"$1\") - < <(cat \"$1\") && ! \"$0\" diff \"$1\" - < /dev/null";
    let ran = Command::new("bash").args(["-c", script, env!("CARGO_BIN_EXE_holdfast"), EXAMPLE]).output().unwrap();
    let err = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(err, "holdfast: manifests /dev/stdin: is empty: taken for half-written\n");
    let out = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(ran.status.code(), Some(0), "{out}");
    assert!(out.contains("\nB -: manifests\n") && out.ends_with("\nequal: 18 services\n"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_takes_a_kubeconfig() {
    let dir = tempfile::tempdir().unwrap();
    let server = Apiserver::start().await;
    server.put_all([namespace("kube-system"), namespace("prod"), service("prod", "web", "10.96.0.7")]);
    let kubeconfig = server.kubeconfig(dir.path());
    let manifest = dir.path().join("cluster.yaml");
    let list = serde_json::json!({"kind": "List", "items": [
        namespace("default"), namespace("kube-system"), namespace("prod"), service("prod", "web", "10.96.0.8"),
    ]});
    std::fs::write(&manifest, list.to_string()).unwrap();
    let (a, b) = (text(&kubeconfig).to_owned(), text(&manifest).to_owned());
    let ran = tokio::task::spawn_blocking(move || holdfast(["diff", &a, &b])).await.unwrap();
    assert_eq!((ran.code, ran.err.as_str()), (1, ""), "{}", ran.out);
    let listed = format!("A {}: the cluster, listed now\n", kubeconfig.display());
    let differs = "\n~ prod/web\n    ClusterIP 10.96.0.7 -> ClusterIP 10.96.0.8\n";
    assert!(ran.out.starts_with(&listed) && ran.out.contains(differs), "{}", ran.out);
    server.stop();
    let (a, b) = (text(&kubeconfig).to_owned(), text(&manifest).to_owned());
    let ran = tokio::task::spawn_blocking(move || holdfast(["diff", &a, &b])).await.unwrap();
    assert_eq!((ran.code, ran.out.as_str()), (3, ""));
    assert!(ran.err.starts_with(&format!("holdfast: kubeconfig {}: ", kubeconfig.display())), "{}", ran.err);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
}
