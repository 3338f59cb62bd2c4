//! What kubectl prints, read as manifests.

use std::path::Path;

use holdfast::{
    record::{Change, Kind, Service, Snapshot, Version},
    source::{EndpointsMode, manifests},
};

/// The output of `kubectl get ns,svc,endpointslices -A --show-managed-fields -o yaml` (and `json`) of kubectl 1.32.
fn cluster(name: &str, endpoints: EndpointsMode) -> Snapshot {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data").join(name);
    let reading = manifests::read(&path, endpoints).unwrap();
    assert_eq!((reading.rejections.total, reading.incomplete), (0, None), "{name}");
    let changes = reading.records.services.into_values().map(Change::Put);
    let changes = changes.chain(reading.records.namespaces.into_iter().map(Change::PutNamespace));
    Snapshot::default().apply(changes, Version { cluster: reading.cluster, epoch: 1, rev: 1 })
}

fn shown(service: &Service) -> String {
    let kind = match service.kind() {
        Kind::ClusterIp(ips) => format!("{ips:?}"),
        Kind::Headless => "headless".to_owned(),
        Kind::ExternalName(target) => format!("-> {target}"),
    };
    let ports: Vec<String> = service
        .ports()
        .iter()
        .map(|port| format!("{}/{}/{}", port.name, port.protocol.as_str().to_ascii_lowercase(), port.port))
        .collect();
    let endpoints: Vec<String> = service
        .endpoints()
        .iter()
        .map(|endpoint| {
            let not = if endpoint.ready { "" } else { "!" };
            format!("{not}{} {:?}", endpoint.ip, endpoint.hostname.as_deref().unwrap_or_default())
        })
        .collect();
    format!("{} {kind} [{}] [{}]", service.key(), ports.join(" "), endpoints.join(" "))
}

#[test]
fn kubectl_output_reads_as_the_cluster_it_was_printed_from() {
    let yaml = cluster("kubectl.yaml", EndpointsMode::Headless);
    let mut services: Vec<String> = yaml.services().map(|service| shown(service)).collect();
    services.sort();
    assert_eq!(
        services,
        [
            r#"default/kubernetes [10.96.0.1] [https/tcp/443] [172.18.0.2 ""]"#,
            "kube-system/kube-dns [10.96.0.10] [dns/udp/53 dns-tcp/tcp/53 metrics/tcp/9153] []",
            "shop/frontend [10.96.77.3, fd00:10:96::4d03] [http/tcp/80] []",
            "shop/gossip headless [gossip/udp/7946] [10.244.1.30 \"\"]",
            "shop/payments -> payments.example.com [] []",
            "shop/postgres headless [pg/tcp/5432] \
             [10.244.1.20 \"postgres-0\" !10.244.2.21 \"postgres-1\" !10.244.2.22 \"postgres-2\"]",
        ]
    );
    assert!(yaml.has_namespace(b"empty"));
    assert_eq!(&*yaml.version().cluster, "3f8e7b9a-5d1c-4f7e-9a53-0c5f5d1f2b10");
    assert_eq!(cluster("kubectl.json", EndpointsMode::Headless).root(), yaml.root());
}

#[test]
fn all_endpoints_are_read_where_asked_for() {
    let all = cluster("kubectl.yaml", EndpointsMode::All);
    assert_eq!(all.counts().endpoints, 4 + 1 + 2, "those of kubernetes and frontend too");
}
