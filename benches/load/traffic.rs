//! The cluster that is served, and what is asked of it.

use std::fmt::Write;

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{Name, RecordType},
};

const SERVICES: usize = 10_000;
const NAMESPACES: usize = 100;
const HEADLESS: usize = 500;
const ENDPOINTS: usize = 20;

/// Names outside the cluster that the cache is filled with, and addresses of each.
pub const EXTERNAL: usize = 1_000_000;
pub const EXTERNAL_ADDRESSES: u16 = 2;

/// 10,000 ClusterIP services, and 500 headless ones with 20 endpoints each: names and addresses.
pub struct Cluster {
    pub services: Vec<(String, String)>,
    pub headless: Vec<(String, Vec<String>)>,
}

/// One query, and what a server that knows the cluster says to it.
pub struct Asked {
    pub query: Vec<u8>,
    pub rcode: u8,
    pub answers: u16,
}

pub struct Case {
    pub title: &'static str,
    /// Needs a cache with [`EXTERNAL`] names in it.
    pub cached: bool,
    /// How many different ones are asked.
    names: usize,
    make: fn(&Cluster, usize) -> Asked,
}

impl Cluster {
    pub fn new() -> Self {
        let name = |kind: &str, number: usize| format!("{kind}-{number}.ns-{}", number % NAMESPACES);
        let ip = |net: usize, number: usize| format!("10.{net}.{}.{}", number >> 8, number & 0xFF);
        Self {
            services: (0..SERVICES).map(|number| (name("svc", number), ip(96, number))).collect(),
            headless: (0..HEADLESS)
                .map(|number| (name("db", number), (0..ENDPOINTS).map(|nth| ip(1, number * ENDPOINTS + nth)).collect()))
                .collect(),
        }
    }

    /// As `kubectl get -o json` gives it.
    pub fn manifests(&self) -> String {
        let mut text = String::from(r#"{"apiVersion":"v1","kind":"List","items":["#);
        for (name, ip) in &self.services {
            let (name, namespace) = name.split_once('.').unwrap();
            write!(
                text,
                r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"{name}","namespace":"{namespace}"}},"spec":{{"clusterIP":"{ip}","clusterIPs":["{ip}"],"ports":[{{"name":"http","port":80,"protocol":"TCP"}}]}}}},"#
            )
            .unwrap();
        }
        for (name, ips) in &self.headless {
            let (name, namespace) = name.split_once('.').unwrap();
            write!(
                text,
                r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"{name}","namespace":"{namespace}"}},"spec":{{"clusterIP":"None","clusterIPs":["None"]}}}},"#
            )
            .unwrap();
            let endpoints: Vec<String> =
                ips.iter().map(|ip| format!(r#"{{"addresses":["{ip}"],"conditions":{{"ready":true}}}}"#)).collect();
            write!(
                text,
                r#"{{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4","metadata":{{"name":"{name}-1","namespace":"{namespace}","labels":{{"kubernetes.io/service-name":"{name}"}}}},"endpoints":[{}]}},"#,
                endpoints.join(",")
            )
            .unwrap();
        }
        text.pop();
        text.push_str("]}");
        text
    }

    pub fn zone_file(&self) -> String {
        let mut text = String::from(
            "$ORIGIN cluster.local.\n$TTL 5\n@ SOA ns.dns hostmaster 1 7200 1800 86400 5\n@ NS ns.dns\nns.dns A 127.0.0.1\n",
        );
        for (name, ip) in &self.services {
            writeln!(text, "{name}.svc A {ip}").unwrap();
        }
        for (name, ips) in &self.headless {
            for ip in ips {
                writeln!(text, "{name}.svc A {ip}").unwrap();
            }
        }
        text
    }

    /// A query that only a server with the records answers with NOERROR.
    pub fn probe(&self) -> Vec<u8> {
        query(&format!("{}.svc.cluster.local.", self.headless.last().unwrap().0))
    }
}

pub const CLUSTER_IP: Case = Case { title: "ClusterIP hit", cached: false, names: SERVICES, make: cluster_ip };

impl Case {
    pub fn all() -> [Self; 6] {
        [
            CLUSTER_IP,
            Self { title: "search-path NXDOMAIN", cached: false, names: SERVICES, make: search_path },
            Self { title: "headless 20", cached: false, names: SERVICES, make: headless },
            Self { title: "cached external hit, 1 M entries", cached: true, names: SERVICES, make: external },
            Self { title: "70/20/10 mix", cached: true, names: SERVICES, make: mix },
            // None of them is in the processor's caches when it is asked for again.
            Self { title: "external, 100,000 names of 1 M", cached: true, names: 100_000, make: external },
        ]
    }

    /// Questions in an order without pattern.
    pub fn queries(&self, cluster: &Cluster) -> Vec<Asked> {
        // A prime that has no factor in common with the numbers of records.
        (0..self.names).map(|number| (self.make)(cluster, number * 7_919)).collect()
    }
}

fn cluster_ip(cluster: &Cluster, number: usize) -> Asked {
    let (name, _) = &cluster.services[number % SERVICES];
    Asked { query: query(&format!("{name}.svc.cluster.local.")), rcode: 0, answers: 1 }
}

/// What a pod in a namespace asks first when it wants a name outside.
fn search_path(_: &Cluster, number: usize) -> Asked {
    let name = format!("www{}.example.com.ns-{}.svc.cluster.local.", number % SERVICES, number % NAMESPACES);
    Asked { query: query(&name), rcode: 3, answers: 0 }
}

fn headless(cluster: &Cluster, number: usize) -> Asked {
    let (name, ips) = &cluster.headless[number % HEADLESS];
    let answers = u16::try_from(ips.len()).unwrap();
    Asked { query: query(&format!("{name}.svc.cluster.local.")), rcode: 0, answers }
}

/// A name that only the cache knows. The step spreads the names asked over all that are held.
fn external(_: &Cluster, number: usize) -> Asked {
    Asked { query: query(&external_name(number * 13 % EXTERNAL)), rcode: 0, answers: EXTERNAL_ADDRESSES }
}

/// 70 in 100 ClusterIP hits, 20 names of the search path that are not there, 10 cached external names.
fn mix(cluster: &Cluster, number: usize) -> Asked {
    match number % 10 {
        0..7 => cluster_ip(cluster, number),
        7..9 => search_path(cluster, number),
        _ => external(cluster, number),
    }
}

/// One of the names in the cache.
pub fn external_name(number: usize) -> String {
    format!("host-{number:07}.example.org.")
}

fn query(name: &str) -> Vec<u8> {
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}
