//! What is in `deploy/`: rendered as its tools would, held to the schemas of the API, to our own configuration, command line, metrics
//! and runbook, and the chart to the kustomization.

mod alerts;
mod chart;
mod dry_run;
mod helm;
mod kustomize;
mod monitor;
mod observed;
mod scheduler;
mod schema;
pub mod yaml;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use clap::Parser as _;
use holdfast::cli::Cli;
use serde_json::{Value, json};
use yaml::{text, title};

use crate::support::command::holdfast;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn deploy(path: &str) -> PathBuf {
    repository().join("deploy").join(path)
}

const OVERLAYS: [&str; 4] = ["iptables", "ipvs", "cilium-lrp", "drop-in"];

/// Every folder and file of manifests, with its objects.
fn everything() -> Vec<(String, Vec<Value>)> {
    let overlays = OVERLAYS.map(|name| (name.to_owned(), kustomize::build(&deploy("kustomize/overlays").join(name))));
    let mut all = Vec::from(overlays);
    for component in ["cert-manager", "monitoring"] {
        all.push((component.into(), kustomize::build(&deploy("kustomize/components").join(component))));
    }
    all.push(("base".into(), kustomize::build(&deploy("kustomize/base"))));
    all.push(("hub".into(), kustomize::build(&deploy("kustomize/hub"))));
    all.push(("static-pod".into(), yaml::file(&deploy("static-pod/holdfast-agent.yaml"))));
    all.push(("examples".into(), yaml::file(&deploy("examples/online-boutique.yaml"))));
    all.push(("helm".into(), helm::template(&deploy("helm/holdfast"), &json!({ "monitoring": { "enabled": true } }))));
    all
}

fn objects(of: &str) -> Vec<Value> {
    everything().into_iter().find(|(name, _)| name == of).expect("it is there").1
}

fn object<'a>(objects: &'a [Value], wanted: &str) -> &'a Value {
    objects.iter().find(|object| title(object) == wanted).unwrap_or_else(|| panic!("no {wanted}"))
}

/// The groups of rules, as Prometheus reads them from a file.
pub fn alert_rules() -> Value {
    object(&objects("monitoring"), "PrometheusRule/holdfast")["spec"].clone()
}

fn alerts() -> Vec<Value> {
    alert_rules()["groups"][0]["rules"].as_array().unwrap().clone()
}

#[test]
fn every_manifest_fits_the_schemas_of_the_api() {
    let all = everything();
    assert!(all.iter().all(|(_, objects)| !objects.is_empty()), "every place has objects");
    let problems = |(place, objects): &(String, Vec<Value>)| -> Vec<String> {
        objects.iter().flat_map(schema::problems).map(|problem| format!("{place}: {problem}")).collect()
    };
    assert_eq!(all.iter().flat_map(problems).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn a_field_that_does_not_exist_is_found() {
    let base = objects("base");
    let mut agent = object(&base, "DaemonSet/holdfast-agent").clone();
    agent["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = json!({});
    let problem = "DaemonSet/holdfast-agent.spec.template.spec.containers[0]: there is no field readynessProbe";
    assert_eq!(schema::problems(&agent), [problem]);
    let mut monitor = object(&objects("monitoring"), "PodMonitor/holdfast").clone();
    monitor["spec"]["podMetricsEndpoints"][0]["prot"] = "metrics".into();
    assert_eq!(schema::problems(&monitor), ["PodMonitor/holdfast: there is no field spec.podMetricsEndpoints.prot"]);
}

/// The configuration files in an overlay's or the chart's `ConfigMap`.
fn agent_config(objects: &[Value]) -> Value {
    let text = text(object(objects, "ConfigMap/holdfast-agent"), "/data/agent.yaml");
    yaml::documents(text).remove(0)
}

#[test]
fn the_configuration_of_every_agent_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut configs: Vec<(String, String)> = everything()
        .into_iter()
        .flat_map(|(place, objects)| objects.into_iter().map(move |object| (place.clone(), object)))
        .filter_map(|(place, object)| Some((place, object.pointer("/data/agent.yaml")?.as_str()?.to_owned())))
        .collect();
    configs.push(("systemd".into(), yaml::read(&deploy("systemd/agent.yaml"))));
    assert_eq!(configs.len(), 6, "base, three overlays, the chart, systemd");
    for (place, config) in configs {
        let file = dir.path().join("agent.yaml");
        std::fs::write(&file, config).unwrap();
        // As in a pod of the hub's namespace, where the Service is in the environment.
        let file = file.to_str().unwrap();
        let ran = holdfast(["check-config", "--offline", "--config", file, "--hub", "10.96.0.11:7443"]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{place}");
    }
}

fn containers(objects: &[Value]) -> impl Iterator<Item = &Value> {
    objects
        .iter()
        .filter_map(|object| {
            let spec = object.pointer("/spec/template/spec").or_else(|| object.get("spec"))?;
            spec["containers"].as_array()
        })
        .flatten()
}

#[test]
fn the_arguments_of_every_container_are_ours() {
    let mut seen = 0;
    for place in ["base", "iptables", "ipvs", "cilium-lrp", "static-pod", "helm"] {
        for container in containers(&objects(place)) {
            let args = container["args"].as_array().expect("arguments").iter().map(|arg| arg.as_str().expect("text"));
            if let Err(error) = Cli::try_parse_from(std::iter::once("holdfast").chain(args)) {
                panic!("{place}: {error}");
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 16, "hubs, agents and those who watch over them");
    for unit in ["systemd/holdfast@.service", "systemd/holdfast-watch.service"] {
        let unit = yaml::read(&deploy(unit));
        let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
        assert!(Cli::try_parse_from(command.split(' ')).is_ok(), "{command}");
    }
}

#[test]
fn an_agent_comes_first_stays_last_and_is_replaced_without_a_gap() {
    for place in ["base", "iptables", "ipvs", "helm", "drop-in"] {
        let objects = objects(place);
        let name = if place == "drop-in" { "DaemonSet/node-local-dns" } else { "DaemonSet/holdfast-agent" };
        let spec = &object(&objects, name)["spec"];
        let rolling = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } });
        assert_eq!(spec["updateStrategy"], rolling, "{place}");
        let pod = &spec["template"]["spec"];
        assert_eq!((&pod["hostNetwork"], &pod["dnsPolicy"]), (&json!(true), &json!("Default")), "{place}");
        assert_eq!(pod["priorityClassName"], "system-node-critical", "{place}");
        assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]), "{place}");
        let container = &pod["containers"][0];
        assert!(container.get("ports").is_none(), "{place}: ports of the node keep a second pod from starting");
        assert_eq!(text(container, "/readinessProbe/httpGet/path"), "/ready", "{place}");
        assert_eq!(text(container, "/livenessProbe/httpGet/path"), "/health", "{place}");
        assert!(container["resources"].get("limits").is_none(), "{place}");
        let of_the_node = pod["volumes"].as_array().unwrap().iter().filter_map(|volume| volume.get("hostPath"));
        let of_the_node: BTreeSet<&str> = of_the_node.map(|path| text(path, "/path")).collect();
        let wanted = BTreeSet::from(["/run/holdfast", "/var/lib/holdfast", "/var/lib/holdfast-tools"]);
        assert_eq!(of_the_node, wanted, "{place}");
    }
}

#[test]
fn whoever_sets_up_a_node_is_watched_over() {
    for place in ["base", "iptables", "ipvs", "cilium-lrp", "helm"] {
        let objects = objects(place);
        let sets_up = agent_config(&objects)["node"]["setup_interface"] == true;
        let agent = object(&objects, "DaemonSet/holdfast-agent");
        let names: Vec<&str> = agent["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| text(c, "/name"))
            .collect();
        assert_eq!(names, if sets_up { vec!["agent", "watch"] } else { vec!["agent"] }, "{place}");
    }
    // The drop-in's is told by flags what the Corefile tells the process beside it.
    let drop_in = objects("drop-in");
    let pod = &object(&drop_in, "DaemonSet/node-local-dns")["spec"]["template"]["spec"];
    let watch = &pod["containers"][1];
    assert_eq!((text(watch, "/name"), &watch["command"]), ("watch", &json!(["/holdfast"])));
    assert_eq!(watch["image"], pod["containers"][0]["image"]);
    let words: Vec<&str> = watch["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let words = [&["holdfast"][..], &words].concat();
    let filled = words.iter().map(|word| {
        let pillars =
            [("LOCAL__DNS", "169.254.20.10"), ("DNS__SERVER", "10.96.0.10"), ("DNS__DOMAIN", "cluster.local")];
        pillars
            .iter()
            .fold((*word).to_owned(), |word, (name, value)| word.replace(&format!("__PILLAR__{name}__"), value))
    });
    let parsed = Cli::try_parse_from(filled);
    assert!(parsed.is_ok(), "{words:?}: {:?}", parsed.err());
    let local = text(&pod["containers"][0], "/args/1");
    assert!(words.contains(&format!("--listen={local}").as_str()), "{local} in {words:?}");
}

#[test]
fn a_unit_outlives_the_answering_process() {
    let unit = yaml::read(&deploy("systemd/holdfast@.service"));
    // Killed for want of memory, it is its parent's to start again; systemd would end the parent too.
    assert!(unit.contains("\nOOMPolicy=continue\n"));
    // The parent passes the end on, and the watch is ended by its agent.
    assert!(unit.contains("\nKillMode=mixed\n") && unit.contains("\nNotifyAccess=all\n"));
}

#[test]
fn probes_go_where_the_agent_listens() {
    for place in ["base", "iptables", "ipvs", "cilium-lrp", "helm"] {
        let objects = objects(place);
        // Which of two agents on a node is asked at a port nobody knows; the container's own is asked by this.
        let agent = object(&objects, "DaemonSet/holdfast-agent");
        let probe =
            agent.pointer("/spec/template/spec/containers/0/startupProbe/exec/command").expect("a startup probe");
        let words = probe.as_array().unwrap().iter().map(|word| word.as_str().unwrap());
        assert!(Cli::try_parse_from(words).is_ok(), "{place}: {probe}");
        let http = agent_config(&objects)["http"].as_str().unwrap().to_owned();
        let (host, port) = http.rsplit_once(':').unwrap();
        let agent = object(&objects, "DaemonSet/holdfast-agent");
        for probe in ["readinessProbe", "livenessProbe"] {
            let get = agent.pointer(&format!("/spec/template/spec/containers/0/{probe}/httpGet")).unwrap();
            assert_eq!(get["port"].to_string(), port, "{place}");
            // Without a host the pod's own address is asked, which only a wildcard answers.
            assert_eq!(get["host"].as_str().unwrap_or("0.0.0.0"), host, "{place}");
        }
    }
}

#[test]
fn the_hub_may_do_no_more_than_it_does() {
    for place in ["base", "helm"] {
        let objects = objects(place);
        let allowed = |kind: &str| -> Vec<(String, String, String)> {
            let rules = object(&objects, kind)["rules"].as_array().unwrap().clone();
            let words = |value: &Value| serde_json::to_string(value).unwrap();
            rules
                .iter()
                .map(|rule| (words(&rule["resources"]), words(&rule["verbs"]), words(&rule["resourceNames"])))
                .collect()
        };
        let row =
            |resources: &str, verbs: &str, names: &str| (resources.to_owned(), verbs.to_owned(), names.to_owned());
        assert_eq!(
            allowed("ClusterRole/holdfast-hub"),
            [
                row(r#"["services","namespaces"]"#, r#"["list","watch"]"#, "null"),
                row(r#"["endpointslices"]"#, r#"["list","watch"]"#, "null"),
            ]
        );
        let lease = row(r#"["leases"]"#, r#"["get","update"]"#, r#"["holdfast-hub"]"#);
        let made_again = row(r#"["leases"]"#, r#"["create"]"#, "null");
        assert_eq!(allowed("Role/holdfast-hub"), [lease, made_again]);
        let bound: Vec<&Value> =
            objects.iter().filter(|object| text(object, "/kind").ends_with("RoleBinding")).collect();
        assert_eq!(bound.len(), 2);
        for binding in bound {
            assert_eq!(
                binding["subjects"],
                json!([{ "kind": "ServiceAccount", "name": "holdfast-hub", "namespace": "kube-system" }])
            );
        }
        let hub = &object(&objects, "Deployment/holdfast-hub")["spec"];
        assert_eq!(hub["replicas"], 2);
        assert!(
            hub.pointer("/template/spec/nodeSelector").is_none() && hub.pointer("/template/spec/tolerations").is_none()
        );
        let apart = hub.pointer("/template/spec/affinity/podAntiAffinity").expect("replicas on several nodes");
        assert!(
            apart.get("requiredDuringSchedulingIgnoredDuringExecution").is_none(),
            "with as many replicas as nodes an upgrade would not end"
        );
        let rolling = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } });
        assert_eq!(hub["strategy"], rolling, "a third pod has a place on one node as well: no port is the node's");
        let budget = &object(&objects, "PodDisruptionBudget/holdfast-hub")["spec"];
        assert_eq!(budget["maxUnavailable"], "100%", "a drain of the only node ends");
        assert!(budget.get("minAvailable").is_none());
        object(&objects, "NetworkPolicy/holdfast-hub");
    }
}

/// The pods of everything that is ours, each with its place.
fn pods() -> Vec<(String, Value)> {
    let ours = everything().into_iter().filter(|(place, _)| place != "examples");
    let in_place = |(place, objects): (String, Vec<Value>)| {
        objects.into_iter().filter_map(move |object| {
            let spec = object.pointer("/spec/template/spec").or_else(|| object.get("spec"))?;
            spec.get("containers")?;
            Some((format!("{place} {}", title(&object)), spec.clone()))
        })
    };
    ours.flat_map(in_place).collect()
}

#[test]
fn every_pod_runs_as_a_kubelet_and_a_restricted_cluster_want_it() {
    let pods = pods();
    assert_eq!(pods.len(), 13, "hubs and agents of base, three overlays and the chart; hub; drop-in; static pod");
    for (place, pod) in pods {
        assert_eq!(pod["dnsPolicy"], "Default", "{place}: DNS must not need itself");
        // Draining takes 5 s, and the watch as long again to leave the node.
        assert!(pod["terminationGracePeriodSeconds"].as_u64() >= Some(10), "{place}");
        assert!(pod.get("hostPID").is_none() && pod.get("hostIPC").is_none(), "{place}");
        let empty = Vec::new();
        let volumes = pod["volumes"].as_array().unwrap_or(&empty);
        let of_the_node = |name: &Value| volumes.iter().any(|v| v["name"] == *name && v.get("hostPath").is_some());
        for path in volumes.iter().filter_map(|volume| volume.get("hostPath")) {
            // With another type the pod waits for somebody to make it, and with none it may be made as it likes.
            let kinds = ["DirectoryOrCreate", "Directory"];
            assert!(kinds.contains(&text(path, "/type")), "{place}: {path}");
        }
        for container in pod["containers"].as_array().unwrap() {
            let place = format!("{place} {}", text(container, "/name"));
            let context = |field: &str| {
                let of_pod = pod.pointer(&format!("/securityContext/{field}"));
                container.pointer(&format!("/securityContext/{field}")).or(of_pod).cloned().unwrap_or_default()
            };
            assert_eq!(context("seccompProfile")["type"], "RuntimeDefault", "{place}");
            assert_eq!(context("readOnlyRootFilesystem"), true, "{place}");
            assert_eq!(context("allowPrivilegeEscalation"), false, "{place}");
            assert_eq!(context("capabilities")["drop"], json!(["ALL"]), "{place}");
            let added = context("capabilities")["add"].as_array().cloned().unwrap_or_default();
            let known = ["NET_ADMIN", "NET_BIND_SERVICE"];
            assert!(added.iter().all(|added| known.iter().any(|known| added == known)), "{place}: {added:?}");
            let mounts = container["volumeMounts"].as_array().unwrap_or(&empty).iter();
            let writes_to_node = mounts.clone().any(|m| m.get("readOnly").is_none() && of_the_node(&m["name"]));
            // A directory that the kubelet makes belongs to root, and nothing may change its owner.
            assert_eq!(context("runAsUser") == 0, pod.get("hostNetwork").is_some() || writes_to_node, "{place}");
            let ports = container["ports"].as_array().unwrap_or(&empty);
            assert!(ports.iter().all(|port| port.get("hostPort").is_none()), "{place}");
            assert!(pod.get("hostNetwork") != Some(&json!(true)) || ports.is_empty(), "{place}: ports of the node");
            // The image has no shell, and an orderly end needs no hook: SIGTERM is enough.
            assert!(container.get("lifecycle").is_none(), "{place}");
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                let program = container.pointer(&format!("/{probe}/exec/command/0"));
                assert!(program.is_none_or(|program| program == "/holdfast"), "{place} {probe}");
            }
            if let Some(live) = container.get("livenessProbe") {
                let of = |field: &str, usual| live[field].as_u64().unwrap_or(usual);
                assert!(
                    of("periodSeconds", 10) * of("failureThreshold", 3) >= 30,
                    "{place}: killed while it is only slow"
                );
            }
        }
    }
}

#[test]
fn a_static_pod_needs_nothing_of_the_apiserver() {
    let pods = objects("static-pod");
    let spec = &pods[0]["spec"];
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert!(spec.get("serviceAccountName").is_none());
    for volume in spec["volumes"].as_array().unwrap() {
        assert!(volume.get("hostPath").is_some(), "{volume}");
    }
}

#[test]
fn tools_are_on_the_path_of_every_image() {
    let file = yaml::read(&deploy("Containerfile"));
    let stages = file.split("\nFROM ").filter(|stage| stage.starts_with("scratch ")).collect::<Vec<_>>();
    assert_eq!(stages.len(), 2, "the image, and the one in the place of node-cache");
    for stage in stages {
        // `crictl exec CONTAINER holdfast status`, and the probes of the manifests.
        assert!(
            stage.contains(" /usr/local/bin/holdfast\n") && stage.contains("\nENV PATH=/usr/local/bin\n"),
            "{stage}"
        );
        assert!(stage.contains(" /holdfast\n"), "{stage}");
    }
}
