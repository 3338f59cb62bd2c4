//! A real kube-apiserver with etcd, and the controller-manager where a test needs it, from the folder that
//! `KUBEBUILDER_ASSETS` names. Everything listens on loopback.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures::StreamExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a server may take to be ready, on a machine that does other things.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that ends with the test.
struct Process(Child);

impl Process {
    /// Lets it end in order.
    fn stop(mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cluster without nodes.
pub struct Cluster {
    assets: PathBuf,
    dir: TempDir,
    port: u16,
    etcd_port: u16,
    apiserver: Option<Process>,
    etcd: Option<Process>,
    controllers: Option<Process>,
}

impl Drop for Cluster {
    /// Prints what the servers wrote last if the test fails.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["etcd", "kube-apiserver", "kube-controller-manager"] {
                let text = std::fs::read_to_string(self.log_path(name)).unwrap_or_default();
                let from = text.char_indices().rev().nth(8_000).map_or(0, |(at, _)| at);
                eprintln!("--- {name}:\n{}", &text[from..]);
            }
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Cluster {
    /// Starts one. `None`, with the reason printed, where there are no programs for it.
    pub async fn start() -> Option<Self> {
        let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS") else {
            eprintln!("skipped: KUBEBUILDER_ASSETS does not name a folder with kube-apiserver and etcd");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let port = free_port();
        write("sa.key", &key.serialize_pem());
        // kube-apiserver reads only public keys here.
        write("sa.pub", &key.public_key_pem());
        write("tokens.csv", "secret,tester,1,system:masters\n");
        write(
            "kubeconfig",
            &format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: it\nclusters:\n- name: it\n  cluster: {{server: \
                 'https://127.0.0.1:{port}', insecure-skip-tls-verify: true}}\nusers:\n- name: it\n  user: {{token: \
                 secret}}\ncontexts:\n- name: it\n  context: {{cluster: it, user: it}}\n"
            ),
        );
        let mut cluster = Self {
            assets: assets.into(),
            dir,
            port,
            etcd_port: free_port(),
            apiserver: None,
            etcd: None,
            controllers: None,
        };
        cluster.start_etcd();
        cluster.start_apiserver();
        cluster.ready().await;
        Some(cluster)
    }

    /// For `--kubeconfig`: an account that may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.path(name).with_extension("log")
    }

    /// Starts a program; a second start of it appends to its log.
    fn spawn(&self, name: &str, arguments: &[String]) -> Process {
        let log = std::fs::File::options().create(true).append(true).open(self.log_path(name)).unwrap();
        let mut command = Command::new(self.assets.join(name));
        command.args(arguments).stdout(Stdio::null()).stderr(log);
        Process(command.spawn().unwrap_or_else(|error| panic!("{name}: {error}")))
    }

    fn start_etcd(&mut self) {
        let client = format!("http://127.0.0.1:{}", self.etcd_port);
        let peer = format!("http://127.0.0.1:{}", free_port());
        let data = self.path("etcd").to_str().unwrap().to_owned();
        let arguments = ["--data-dir", &data, "--listen-client-urls", &client, "--advertise-client-urls", &client]
            .into_iter()
            .chain(["--listen-peer-urls", &peer]);
        self.etcd = Some(self.spawn("etcd", &arguments.map(str::to_owned).collect::<Vec<_>>()));
    }

    pub fn start_apiserver(&mut self) {
        let file = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let arguments = [
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            format!("--secure-port={}", self.port),
            format!("--cert-dir={}", file("certs")),
            format!("--token-auth-file={}", file("tokens.csv")),
            format!("--service-account-key-file={}", file("sa.pub")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
            "--service-account-issuer=https://127.0.0.1".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            // Loopback is no address it would find by itself, nor one it may publish.
            "--advertise-address=127.0.0.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ];
        self.apiserver = Some(self.spawn("kube-apiserver", &arguments));
    }

    /// Kills it.
    pub fn kill_apiserver(&mut self) {
        self.apiserver = None;
    }

    /// Deletes what is in namespaces that end, as in every cluster. `false`, with the reason printed, where the program is missing.
    pub fn start_namespace_controller(&mut self) -> bool {
        if !self.assets.join("kube-controller-manager").exists() {
            eprintln!("skipped: {} has no kube-controller-manager", self.assets.display());
            return false;
        }
        let kubeconfig = format!("--kubeconfig={}", self.kubeconfig().display());
        let arguments =
            [kubeconfig.as_str(), "--controllers=namespace-controller", "--leader-elect=false", "--secure-port=0"];
        self.controllers = Some(self.spawn("kube-controller-manager", &arguments.map(str::to_owned)));
        true
    }

    /// A copy of etcd's data, made while etcd is down for a moment.
    pub async fn backup(&mut self) -> TempDir {
        self.etcd.take().expect("it runs").stop();
        let backup = tempfile::tempdir().unwrap();
        copy_all(&self.path("etcd"), backup.path());
        self.start_etcd();
        self.ready().await;
        backup
    }

    /// Puts etcd's data back to what they were, as people do: with everything stopped.
    pub async fn restore(&mut self, backup: &Path) {
        self.kill_apiserver();
        self.etcd.take().expect("it runs").stop();
        std::fs::remove_dir_all(self.path("etcd")).unwrap();
        copy_all(backup, &self.path("etcd"));
        self.start_etcd();
        self.start_apiserver();
        self.ready().await;
    }

    /// Waits until the apiserver says that it is ready. Nothing but asking tells.
    async fn ready(&self) {
        let asked = async {
            while self.send("GET", "/readyz", "application/json", Vec::new()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("the apiserver is ready in time");
    }

    async fn send(&self, method: &str, path: &str, kind: &str, body: Vec<u8>) -> Result<String, kube::Error> {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.kubeconfig()).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        // A client of its own: a connection from before a restart is not reused.
        let client = kube::Client::try_from(config).unwrap();
        let request =
            http::Request::builder().method(method).uri(path).header("content-type", kind).body(body).unwrap();
        client.request_text(request).await
    }

    /// Creates an object or changes it.
    pub async fn put(&self, object: &Value) {
        let (metadata, kind) = (&object["metadata"], object["kind"].as_str().unwrap());
        let (namespace, name) = (metadata["namespace"].as_str(), metadata["name"].as_str().unwrap());
        let path = format!("{}/{name}?fieldManager=it&force=true", collection(kind, namespace.unwrap_or_default()));
        let kind = "application/apply-patch+yaml";
        self.send("PATCH", &path, kind, object.to_string().into_bytes())
            .await
            .unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Would it be created as it stands? The apiserver's objection if not; a field that it does not know is one.
    pub async fn would_create(&self, object: &Value) -> Result<(), String> {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let path = collection(object["kind"].as_str().unwrap(), namespace);
        let path = format!("{path}?dryRun=All&fieldValidation=Strict");
        let created = self.send("POST", &path, "application/json", object.to_string().into_bytes()).await;
        created.map(drop).map_err(|error| error.to_string())
    }

    pub async fn delete(&self, kind: &str, namespace: &str, name: &str) {
        let path = format!("{}/{name}", collection(kind, namespace));
        self.send("DELETE", &path, "application/json", Vec::new())
            .await
            .unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Creates so many services in a new namespace.
    pub async fn fill(&self, namespace: &str, services: usize) {
        self.put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).await;
        let service = |n: usize| {
            let metadata = json!({"namespace": namespace, "name": format!("{namespace}-{n}")});
            let spec = json!({"ports": [{"name": "http", "port": 80}]});
            async move {
                self.put(&json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})).await;
            }
        };
        futures::stream::iter(0..services).for_each_concurrent(8, service).await;
    }
}

/// A copy of a directory with all that is in it.
fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (entry, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).unwrap();
        if entry.is_dir() {
            copy_all(&entry, &to);
        } else {
            std::fs::copy(&entry, &to).unwrap();
        }
    }
}

/// The path of all objects of a kind in a namespace, or in the cluster.
fn collection(kind: &str, namespace: &str) -> String {
    let (group, plural) = match kind {
        "Namespace" => ("/api/v1", "namespaces"),
        "Service" => ("/api/v1", "services"),
        "ServiceAccount" => ("/api/v1", "serviceaccounts"),
        "ConfigMap" => ("/api/v1", "configmaps"),
        "Pod" => ("/api/v1", "pods"),
        "DaemonSet" => ("/apis/apps/v1", "daemonsets"),
        "Deployment" => ("/apis/apps/v1", "deployments"),
        "PodDisruptionBudget" => ("/apis/policy/v1", "poddisruptionbudgets"),
        "NetworkPolicy" => ("/apis/networking.k8s.io/v1", "networkpolicies"),
        "Lease" => ("/apis/coordination.k8s.io/v1", "leases"),
        "Role" => ("/apis/rbac.authorization.k8s.io/v1", "roles"),
        "RoleBinding" => ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
        "ClusterRole" => ("/apis/rbac.authorization.k8s.io/v1", "clusterroles"),
        "ClusterRoleBinding" => ("/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings"),
        "EndpointSlice" => ("/apis/discovery.k8s.io/v1", "endpointslices"),
        other => panic!("{other}: not a kind these tests use"),
    };
    if namespace.is_empty() { format!("{group}/{plural}") } else { format!("{group}/namespaces/{namespace}/{plural}") }
}
