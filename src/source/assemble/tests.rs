//! Case tables: objects, and the records the assembler makes of them.

use serde_json::{Value, json};

use super::*;
use crate::{
    record::{Snapshot, Version},
    source::convert,
};

fn service(name: &str, spec: &Value) -> Object {
    let object = json!({"metadata": {"namespace": "prod", "name": name}, "spec": spec});
    convert::service(serde_json::from_value(object).unwrap()).unwrap()
}

fn headless(name: &str) -> Object {
    service(name, &json!({"clusterIP": "None", "ports": [{"name": "pg", "port": 5432}]}))
}

fn slice_with(name: &str, of: Option<&str>, address_type: &str, endpoints: &Value) -> Object {
    let labels = of.map(|of| json!({"kubernetes.io/service-name": of}));
    let object = json!({
        "metadata": {"namespace": "prod", "name": name, "labels": labels},
        "addressType": address_type,
        "endpoints": endpoints,
        "ports": [{"name": "pg", "protocol": "TCP", "port": 5432}],
    });
    convert::slice(serde_json::from_value(object).unwrap()).unwrap()
}

fn slice(name: &str, of: &str, ips: &[&str]) -> Object {
    let endpoints: Vec<Value> = ips.iter().map(|ip| json!({"addresses": [ip]})).collect();
    slice_with(name, Some(of), "IPv4", &Value::Array(endpoints))
}

fn namespace(name: &str, uid: &str) -> Object {
    let object = json!({"metadata": {"name": name, "uid": uid}});
    convert::namespace_object(serde_json::from_value(object).unwrap()).unwrap()
}

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("prod", name)
}

/// One line for each service: its addresses, `!` before those that are not ready.
fn shown(records: &Records) -> Vec<String> {
    let mut lines: Vec<String> = records.services.values().map(|service| line(service)).collect();
    lines.sort();
    lines
}

fn line(service: &Service) -> String {
    let kind = match service.kind() {
        Kind::ClusterIp(ips) => ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        Kind::Headless => "headless".to_owned(),
        Kind::ExternalName(target) => format!("-> {target}"),
    };
    let endpoints: Vec<String> = service
        .endpoints()
        .iter()
        .map(|endpoint| {
            let hostname = endpoint.hostname.as_deref().map(|name| format!("{name}=")).unwrap_or_default();
            format!("{}{hostname}{}", if endpoint.ready { "" } else { "!" }, endpoint.ip)
        })
        .collect();
    format!("{} {kind} [{}]", service.key(), endpoints.join(" "))
}

fn assemble(mode: EndpointsMode, objects: Vec<Object>) -> Vec<String> {
    let mut assembler = Assembler::new(mode);
    for object in objects {
        let part = match &object {
            Object::Service(_) => Part::Services,
            Object::Slice(_) => Part::Slices,
            Object::Namespace(_) => Part::Namespaces,
        };
        assembler.put(part, object, &mut Vec::new());
    }
    shown(&assembler.records())
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn services_of_each_kind_come_out_as_dns_needs_them() {
    let headless_mode = EndpointsMode::Headless;
    let cases: Vec<(&str, EndpointsMode, Vec<Object>, Vec<&str>)> = vec![
        (
            "slices of one service are merged and an endpoint in two of them is one",
            headless_mode,
            vec![
                slice("db-b", "db", &["10.1.0.2", "10.1.0.3"]),
                headless("db"),
                slice("db-a", "db", &["10.1.0.1", "10.1.0.2"]),
            ],
            vec!["prod/db headless [10.1.0.1 10.1.0.2 10.1.0.3]"],
        ),
        (
            "a slice whose service does not exist gives nothing",
            headless_mode,
            vec![slice("db-a", "db", &["10.1.0.1"])],
            vec![],
        ),
        (
            "a slice without the label is ignored",
            headless_mode,
            vec![headless("db"), slice_with("db-a", None, "IPv4", &json!([{"addresses": ["10.1.0.1"]}]))],
            vec!["prod/db headless []"],
        ),
        (
            "a slice of host names is ignored",
            headless_mode,
            vec![headless("db"), slice_with("db-a", Some("db"), "FQDN", &json!([{"addresses": ["a.example"]}]))],
            vec!["prod/db headless []"],
        ),
        (
            "endpoints of ClusterIP services are kept only where asked for",
            headless_mode,
            vec![service("web", &json!({"clusterIP": "10.0.0.1"})), slice("web-a", "web", &["10.1.0.1"])],
            vec!["prod/web 10.0.0.1 []"],
        ),
        (
            "endpoints: all keeps them",
            EndpointsMode::All,
            vec![service("web", &json!({"clusterIP": "10.0.0.1"})), slice("web-a", "web", &["10.1.0.1"])],
            vec!["prod/web 10.0.0.1 [10.1.0.1]"],
        ),
        (
            "dual stack services have both addresses, in order",
            headless_mode,
            vec![service("web", &json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1", "10.0.0.1"]}))],
            vec!["prod/web fd00::1,10.0.0.1 []"],
        ),
        (
            "an external name has neither addresses nor endpoints",
            EndpointsMode::All,
            vec![
                service("ext", &json!({"type": "ExternalName", "externalName": "Db.Example.", "clusterIP": ""})),
                slice("ext-a", "ext", &["10.1.0.1"]),
            ],
            vec!["prod/ext -> db.example []"],
        ),
        (
            "unset ready means ready; not ready and terminating are kept as such",
            headless_mode,
            vec![
                headless("db"),
                slice_with(
                    "db-a",
                    Some("db"),
                    "IPv4",
                    &json!([
                        {"addresses": ["10.1.0.1"]},
                        {"addresses": ["10.1.0.2"], "conditions": {"ready": null, "serving": null}},
                        {"addresses": ["10.1.0.3"], "conditions": {"ready": false, "serving": false}},
                        {"addresses": ["10.1.0.4"], "conditions": {"ready": true, "terminating": true}},
                        {"addresses": ["10.1.0.5"], "conditions": {"ready": true}, "hostname": "db-0"},
                        {"addresses": [], "conditions": {"ready": true}},
                    ]),
                ),
            ],
            vec!["prod/db headless [10.1.0.1 10.1.0.2 !10.1.0.3 !10.1.0.4 db-0=10.1.0.5]"],
        ),
        (
            "publishNotReadyAddresses makes every endpoint ready",
            headless_mode,
            vec![
                service("db", &json!({"clusterIP": "None", "publishNotReadyAddresses": true})),
                slice_with(
                    "db-a",
                    Some("db"),
                    "IPv6",
                    &json!([{"addresses": ["fd01::3"], "conditions": {"ready": false, "terminating": true}}]),
                ),
            ],
            vec!["prod/db headless [fd01::3]"],
        ),
        (
            "a slice may have no endpoints at all",
            headless_mode,
            vec![headless("db"), slice_with("db-a", Some("db"), "IPv4", &Value::Null)],
            vec!["prod/db headless []"],
        ),
    ];
    for (name, mode, objects, expected) in cases {
        assert_eq!(assemble(mode, objects), expected, "{name}");
    }
}

#[test]
fn the_endpoints_of_a_slice_share_their_ports() {
    let mut assembler = Assembler::new(EndpointsMode::Headless);
    assembler.replace(Part::Services, vec![headless("db")], vec![]);
    assembler.replace(Part::Slices, vec![slice("db-a", "db", &["10.1.0.1", "10.1.0.2"])], vec![]);
    let records = assembler.records();
    let [first, second] = records.services[&key("db")].endpoints() else { panic!("two endpoints") };
    assert!(Arc::ptr_eq(&first.ports, &second.ports));
}

#[test]
fn events_change_only_what_dns_sees_differ() {
    let mut assembler = Assembler::new(EndpointsMode::Headless);
    let mut changes = |act: &mut dyn FnMut(&mut Assembler, &mut Vec<Change>)| {
        let mut changes = Vec::new();
        act(&mut assembler, &mut changes);
        changes
            .iter()
            .map(|change| match change {
                Change::Put(service) => format!("put {}", line(service)),
                Change::Remove(key) => format!("remove {key}"),
                Change::PutNamespace(name) => format!("put {name}"),
                Change::RemoveNamespace(name) => format!("remove {name}"),
                Change::Hold(..) | Change::Release(_) => unreachable!("no source holds"),
            })
            .collect::<Vec<_>>()
    };
    let none: [&str; 0] = [];
    let put = |part, object: Object| {
        move |assembler: &mut Assembler, changes: &mut Vec<Change>| assembler.put(part, object.clone(), changes)
    };
    let delete = |part, key: ServiceKey| {
        move |assembler: &mut Assembler, changes: &mut Vec<Change>| assembler.delete(part, &key, changes)
    };
    assert_eq!(changes(&mut put(Part::Slices, slice("db-a", "db", &["10.1.0.1"]))), none, "no service yet");
    assert_eq!(changes(&mut put(Part::Services, headless("db"))), ["put prod/db headless [10.1.0.1]"]);
    assert_eq!(changes(&mut put(Part::Services, headless("db"))), none, "nothing DNS sees changed");
    assert_eq!(
        changes(&mut put(Part::Slices, slice("db-a", "other", &["10.1.0.1"]))),
        ["put prod/db headless []"],
        "the slice went to another service"
    );
    assert_eq!(
        changes(&mut put(Part::OtherSlices, slice("db-b", "db", &["10.1.0.9"]))),
        ["put prod/db headless [10.1.0.9]"]
    );
    assert_eq!(changes(&mut put(Part::Slices, slice("db-b", "db", &["10.1.0.9"]))), none, "it moves between lists");
    assert_eq!(changes(&mut delete(Part::OtherSlices, key("db-b"))), none, "and is still there");
    assert_eq!(changes(&mut delete(Part::Slices, key("never-seen"))), none);
    assert_eq!(changes(&mut delete(Part::Services, key("never-seen"))), none);
    assert_eq!(changes(&mut delete(Part::Services, key("db"))), ["remove prod/db"]);
    assert_eq!(changes(&mut put(Part::Services, headless("db"))), ["put prod/db headless [10.1.0.9]"]);
    assert_eq!(changes(&mut put(Part::Namespaces, namespace("prod", "1"))), ["put prod"]);
    assert_eq!(changes(&mut put(Part::Namespaces, namespace("prod", "1"))), none);
    assert_eq!(changes(&mut delete(Part::Namespaces, ServiceKey::new("", "prod"))), ["remove prod"]);
}

#[test]
fn a_broken_version_is_named_and_the_last_good_one_stands() {
    let mut assembler = Assembler::new(EndpointsMode::Headless);
    assembler.replace(Part::Services, vec![headless("db"), headless("web")], vec![]);
    let broken = |name: &str| Broken { key: Some(key(name)), reason: "spec.ports[0].port 0 is bad".into() };
    assembler.reject(Part::Services, broken("db"));
    assert_eq!(shown(&assembler.records()), ["prod/db headless []", "prod/web headless []"]);
    assert_eq!(
        assembler.rejections(),
        Rejections {
            total: 1,
            objects: vec![Rejection {
                kind: "Service".into(),
                name: "prod/db".into(),
                reason: "spec.ports[0].port 0 is bad".into()
            }]
        }
    );
    assembler.replace(Part::Services, vec![headless("web")], vec![broken("db")]);
    assert_eq!(shown(&assembler.records()).len(), 2, "still listed, still broken");
    assembler.put(Part::Services, headless("db"), &mut Vec::new());
    assert_eq!(assembler.rejections().total, 0, "mended");
    assembler.reject(Part::Services, broken("db"));
    assembler.replace(Part::Services, vec![headless("web")], vec![]);
    assert_eq!(shown(&assembler.records()), ["prod/web headless []"], "gone for good");
    assert_eq!(assembler.rejections().total, 0);
}

#[test]
fn many_broken_objects_are_counted_and_the_first_hundred_named() {
    let mut assembler = Assembler::new(EndpointsMode::Headless);
    for index in 0..REJECTED_MAX + 50 {
        let broken = Broken { key: Some(key(&format!("s{index}"))), reason: "bad".into() };
        assembler.reject(Part::Services, broken);
    }
    assembler.reject(Part::Services, Broken { key: None, reason: "nameless".into() });
    let rejections = assembler.rejections();
    assert_eq!(rejections.total, REJECTED_MAX as u64 + 51);
    assert_eq!(rejections.objects.len(), Rejections::NAMED_MAX);
}

#[test]
fn the_cluster_is_named_by_the_uid_of_kube_system() {
    let mut assembler = Assembler::new(EndpointsMode::Headless);
    assembler.replace(Part::Namespaces, vec![namespace("prod", "1")], vec![]);
    assert_eq!(assembler.cluster(), None);
    assembler.replace(Part::Namespaces, vec![namespace("prod", "1"), namespace("kube-system", "uid-2")], vec![]);
    assert_eq!(assembler.cluster(), Some("uid-2"));
}

#[test]
fn events_in_any_order_give_what_a_list_gives() {
    let objects = [
        (Part::Services, headless("db")),
        (Part::Services, service("web", &json!({"clusterIP": "10.0.0.1"}))),
        (Part::Slices, slice("db-a", "db", &["10.1.0.1"])),
        (Part::OtherSlices, slice("db-b", "db", &["10.1.0.2"])),
        (Part::Namespaces, namespace("prod", "1")),
    ];
    let listed = {
        let mut assembler = Assembler::new(EndpointsMode::Headless);
        for part in [Part::Services, Part::Slices, Part::OtherSlices, Part::Namespaces] {
            let of_part = objects.iter().filter(|(of, _)| *of == part).map(|(_, object)| object.clone()).collect();
            assembler.replace(part, of_part, vec![]);
        }
        Snapshot::default().apply(changes_of(assembler.records()), Version::default()).root()
    };
    for start in 0..objects.len() {
        let mut assembler = Assembler::new(EndpointsMode::Headless);
        let mut changes = Vec::new();
        for (part, object) in objects.iter().cycle().skip(start).take(objects.len()) {
            assembler.put(*part, object.clone(), &mut changes);
        }
        assert_eq!(Snapshot::default().apply(changes, Version::default()).root(), listed, "starting at {start}");
    }
}

fn changes_of(records: Records) -> Vec<Change> {
    let services = records.services.into_values().map(Change::Put);
    services.chain(records.namespaces.into_iter().map(Change::PutNamespace)).collect()
}
