//! The same against a real kube-apiserver and etcd, where `KUBEBUILDER_ASSETS` names a folder that has them.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use holdfast::source::apiserver::Config;

use super::{Feed, timing};

const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.1.1, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: default}
spec: {clusterIP: None, ports: [{name: pg, port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: db-by-hand
  namespace: default
  labels: {kubernetes.io/service-name: db}
addressType: IPv4
endpoints: [{addresses: [10.244.0.7]}]
ports: [{name: pg, port: 5432}]
";

/// A process that dies with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Prints what the servers wrote last if the test fails.
struct Logs(PathBuf);

impl Drop for Logs {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["etcd", "kube-apiserver"] {
                let text = std::fs::read_to_string(self.0.join(name).with_extension("log")).unwrap_or_default();
                let from = text.char_indices().rev().nth(8_000).map_or(0, |(at, _)| at);
                eprintln!("--- {name}:\n{}", &text[from..]);
            }
        }
    }
}

/// A file for what a server writes; a second start of it appends.
fn log(dir: &Path, name: &str) -> std::fs::File {
    let path = dir.join(name).with_extension("log");
    std::fs::File::options().create(true).append(true).open(path).unwrap()
}

struct Cluster {
    assets: PathBuf,
    dir: PathBuf,
    port: u16,
    etcd_port: u16,
    _etcd: Process,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Cluster {
    fn start(assets: PathBuf, dir: &Path) -> Self {
        let (port, etcd_port, peer_port) = (free_port(), free_port(), free_port());
        let client = format!("http://127.0.0.1:{etcd_port}");
        let peer = format!("http://127.0.0.1:{peer_port}");
        let etcd = Command::new(assets.join("etcd"))
            .args(["--data-dir", dir.join("etcd").to_str().unwrap(), "--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client, "--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(log(dir, "etcd"))
            .spawn()
            .unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(dir.join("sa.key"), key.serialize_pem()).unwrap();
        // kube-apiserver reads only public keys here.
        std::fs::write(dir.join("sa.pub"), key.public_key_pem()).unwrap();
        std::fs::write(dir.join("tokens.csv"), "secret,tester,1,system:masters\n").unwrap();
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: it\nclusters:\n- name: it\n  cluster: {{server: 'https://127.0.0.1:{port}', \
             insecure-skip-tls-verify: true}}\nusers:\n- name: it\n  user: {{token: secret}}\ncontexts:\n- name: it\n  \
             context: {{cluster: it, user: it}}\n"
        );
        std::fs::write(dir.join("kubeconfig"), kubeconfig).unwrap();
        std::fs::write(dir.join("objects.yaml"), OBJECTS).unwrap();
        Self { assets, dir: dir.to_owned(), port, etcd_port, _etcd: Process(etcd) }
    }

    fn apiserver(&self) -> Process {
        let file = |name: &str| self.dir.join(name).to_str().unwrap().to_owned();
        let child = Command::new(self.assets.join("kube-apiserver"))
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port))
            .arg(format!("--secure-port={}", self.port))
            .arg(format!("--cert-dir={}", file("certs")))
            .arg(format!("--token-auth-file={}", file("tokens.csv")))
            .arg(format!("--service-account-key-file={}", file("sa.pub")))
            .arg(format!("--service-account-signing-key-file={}", file("sa.key")))
            .args(["--service-account-issuer=https://127.0.0.1", "--service-cluster-ip-range=10.96.0.0/16"])
            .args([
                "--bind-address=127.0.0.1",
                // Loopback is no address it would find by itself, nor one it may publish.
                "--advertise-address=127.0.0.1",
                "--endpoint-reconciler-type=none",
                "--authorization-mode=RBAC",
                "--disable-admission-plugins=ServiceAccount",
            ])
            .stdout(Stdio::null())
            .stderr(log(&self.dir, "kube-apiserver"))
            .spawn()
            .unwrap();
        Process(child)
    }

    fn kubectl(&self, args: &[&str]) {
        let status = Command::new(self.assets.join("kubectl"))
            .arg("--kubeconfig")
            .arg(self.dir.join("kubeconfig"))
            .args(args)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "kubectl {args:?}");
    }
}

#[tokio::test]
async fn a_real_apiserver_is_followed_through_its_restart() {
    let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS") else {
        eprintln!("skipped: KUBEBUILDER_ASSETS does not name a folder with kube-apiserver, etcd and kubectl");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let _logs = Logs(dir.path().to_owned());
    let cluster = Cluster::start(assets.into(), dir.path());
    let apiserver = cluster.apiserver();
    let mut timing = timing();
    timing.answer = Duration::from_secs(15);
    let kubeconfig = Some(dir.path().join("kubeconfig"));
    let mut feed = Feed::start(Config { kubeconfig, timing, ..Config::default() });
    feed.until("the first list, with the service of the apiserver itself", |reader| {
        reader.load().service(b"default", b"kubernetes").is_some()
    })
    .await;
    let objects = dir.path().join("objects.yaml");
    cluster.kubectl(&["apply", "-f", objects.to_str().unwrap()]);
    feed.until_names(&["db=10.244.0.7", "kubernetes", "web"]).await;
    cluster.kubectl(&["delete", "service", "web"]);
    feed.until_names(&["db=10.244.0.7", "kubernetes"]).await;

    drop(apiserver);
    feed.until_lost("connect: ").await;
    let _apiserver = cluster.apiserver();
    feed.until_up().await;
    cluster.kubectl(&["apply", "-f", objects.to_str().unwrap()]);
    feed.until_names(&["db=10.244.0.7", "kubernetes", "web"]).await;
    assert!(!feed.reader.load().version().cluster.is_empty());
}
