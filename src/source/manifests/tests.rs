//! How files are followed, as a person or a tool writes them.

use std::fs;

use prometheus::Registry;
use tempfile::TempDir;

use super::*;
use crate::{
    record::{Service, ServiceKey, Snapshot, Version},
    store::{self, SourceState},
    sys::UnixMillis,
};

const EMPTY_LIST: &str = "apiVersion: v1\nkind: List\nitems: []\n";

fn service(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: prod}}\nspec: {{clusterIP: {ip}}}\n---\n"
    )
}

/// A source that runs over a directory, and the store it feeds.
struct Running {
    dir: TempDir,
    reader: Reader,
    published: tokio::sync::watch::Receiver<u64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Running {
    fn start(dir: TempDir, path: &Path, restored: Option<Snapshot>) -> Self {
        let (mut writer, reader) = store::open();
        if let Some(snapshot) = restored {
            writer.restore(snapshot, UnixMillis(1));
        }
        let config = Config { path: path.to_owned(), ..Config::default() };
        let metrics = Metrics::register(&Registry::new(), &reader, &Clock::System).unwrap();
        let (sender, mut updates) = mpsc::channel(8);
        let source = tokio::spawn(run(config, Clock::System, metrics, reader.clone(), sender));
        let apply = tokio::spawn(async move {
            while let Some(update) = updates.recv().await {
                writer.apply(update).unwrap();
            }
        });
        Self { dir, published: reader.subscribe(), reader, tasks: vec![source, apply] }
    }

    fn over(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let path = dir.path().to_owned();
        Self::start(dir, &path, None)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// Waits until the store is as wanted. The clock is paused, so the bound costs nothing where the wait is in vain.
    async fn until(&mut self, what: &str, holds: impl Fn(&Reader) -> bool) {
        let published = &mut self.published;
        let reader = &self.reader;
        let wait = async {
            while !holds(reader) {
                published.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        assert!(waited.is_ok(), "{what}: {:?} {:?}", names(&self.reader), self.reader.freshness());
    }

    async fn until_names(&mut self, expected: &[&str]) {
        self.until(&format!("{expected:?}"), |reader| names(reader) == expected).await;
    }

    async fn until_lost(&mut self, part: &str) {
        let lost = |reader: &Reader| matches!(reader.freshness().source, SourceState::Lost(why) if why.contains(part));
        self.until(&format!("lost with {part:?}"), lost).await;
    }

    async fn until_up(&mut self) {
        self.until("up", |reader| reader.freshness().source == SourceState::Up).await;
    }
}

fn names(reader: &Reader) -> Vec<String> {
    let mut names: Vec<String> = reader.snapshot().services().map(|service| service.name().to_owned()).collect();
    names.sort();
    names
}

#[tokio::test(start_paused = true)]
async fn files_of_a_directory_are_read_and_followed() {
    let mut running = Running::over(&[
        ("a.yaml", &service("a", "10.0.0.1")),
        ("b.json", r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"b"},"spec":{"clusterIP":"10.0.0.2"}}"#),
        (".hidden.yaml", &service("hidden", "10.0.0.3")),
        ("notes.txt", "not a manifest"),
    ]);
    fs::create_dir(running.dir.path().join("sub.yaml")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(running.dir.path().join("socket.yaml"));
    assert!(socket.is_ok(), "neither files nor followed");
    running.until_names(&["a", "b"]).await;
    assert_eq!(&*running.reader.load().version().cluster, "manifests");
    running.write("c.yml", &service("c", "10.0.0.4"));
    running.until_names(&["a", "b", "c"]).await;
    running.write("a.yaml", &(service("a", "10.0.0.1") + &service("a2", "10.0.0.9")));
    running.until_names(&["a", "a2", "b", "c"]).await;
    fs::remove_file(running.dir.path().join("a.yaml")).unwrap();
    running.until_names(&["b", "c"]).await;
    running.until_up().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_definition_of_an_object_counts() {
    let mut running = Running::over(&[("1.yaml", &service("a", "10.0.0.1")), ("2.yaml", &service("a", "10.0.0.2"))]);
    running.until_names(&["a"]).await;
    assert_eq!(running.reader.load().holders("10.0.0.2".parse().unwrap()).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_half_written_file_keeps_what_it_said_and_is_named() {
    let whole = service("a", "10.0.0.1") + &service("b", "10.0.0.2");
    let mut running = Running::over(&[("a.yaml", &whole), ("c.yaml", &service("c", "10.0.0.3"))]);
    running.until_names(&["a", "b", "c"]).await;
    let before = running.reader.as_of();

    running.write("a.yaml", "");
    running.until_lost("a.yaml: is empty: taken for half-written").await;
    assert_eq!(names(&running.reader), ["a", "b", "c"]);

    running.write("a.yaml", &format!("{}kind: Service\nmetadata: {{name: [", service("a", "10.0.0.1")));
    running.until_lost("a.yaml:7: ").await;
    assert_eq!(names(&running.reader), ["a", "b", "c"], "also what no longer stands in the readable half");
    assert_eq!(running.reader.rejections().total, 1);
    assert_eq!(running.reader.rejections().objects[0].kind, "file");

    running.write("c.yaml", &service("d", "10.0.0.4"));
    running.until_names(&["a", "b", "d"]).await;
    running.until_lost("a.yaml:7: ").await;

    running.write("a.yaml", &service("a", "10.0.0.1"));
    running.until_names(&["a", "d"]).await;
    running.until_up().await;
    assert_eq!(running.reader.rejections().total, 0);
    assert!(running.reader.as_of() >= before);
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_deletes_and_an_empty_file_does_not() {
    let mut running = Running::over(&[("a.yaml", &service("a", "10.0.0.1"))]);
    running.until_names(&["a"]).await;
    running.write("a.yaml", " \n");
    running.until_lost("is empty").await;
    assert_eq!(names(&running.reader), ["a"]);
    running.write("a.yaml", EMPTY_LIST);
    running.until_names(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_became_something_else_deletes_nothing() {
    let mut running = Running::over(&[("a.yaml", &service("a", "10.0.0.1"))]);
    running.until_names(&["a"]).await;
    running.write("a.yaml", "504 Gateway Time-out\n");
    running.until_lost("a.yaml: is not a Kubernetes manifest").await;
    assert_eq!(names(&running.reader), ["a"]);
    running.write("a.yaml", &service("b", "10.0.0.1"));
    running.until_names(&["b"]).await;
    running.until_up().await;
}

#[tokio::test(start_paused = true)]
async fn a_path_that_goes_away_is_lost_and_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cluster.yaml");
    fs::write(&file, service("a", "10.0.0.1")).unwrap();
    let mut running = Running::start(dir, &file, None);
    running.until_names(&["a"]).await;
    fs::rename(&file, file.with_extension("away")).unwrap();
    running.until_lost("No such file").await;
    assert_eq!(names(&running.reader), ["a"]);
    fs::rename(file.with_extension("away"), &file).unwrap();
    running.until_up().await;
    assert_eq!(names(&running.reader), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_loses_all_its_manifests_keeps_everything() {
    let mut running = Running::over(&[("a.yaml", &service("a", "10.0.0.1"))]);
    running.until_names(&["a"]).await;
    fs::remove_file(running.dir.path().join("a.yaml")).unwrap();
    running.until_lost("no *.yaml, *.yml or *.json file").await;
    assert_eq!(names(&running.reader), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_mounted_configmap_is_followed_over_its_swap() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_owned();
    let generation = |name: &str, text: String| {
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join(name).join("a.yaml"), text).unwrap();
    };
    generation("..1", service("a", "10.0.0.1"));
    symlink("..1", root.join("..data")).unwrap();
    symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
    let mut running = Running::start(dir, &root, None);
    running.until_names(&["a"]).await;
    generation("..2", service("b", "10.0.0.2"));
    symlink("..2", root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    fs::remove_dir_all(root.join("..1")).unwrap();
    running.until_names(&["b"]).await;
}

#[tokio::test(start_paused = true)]
async fn age_stays_young_while_the_files_can_be_read() {
    let mut running = Running::over(&[("a.yaml", &service("a", "10.0.0.1"))]);
    running.until_up().await;
    for _ in 0..3 {
        let count = *running.published.borrow_and_update();
        running.until("vouched again", |reader| *reader.subscribe().borrow() > count).await;
    }
    assert_eq!(running.reader.freshness().source, SourceState::Up);
}

fn restored(names: &[(&str, &str)]) -> Snapshot {
    let puts = names.iter().map(|(name, ip)| {
        let kind = crate::record::Kind::ClusterIp([ip.parse().unwrap()].into());
        Change::Put(Arc::new(Service::new(ServiceKey::new("prod", name), kind, vec![], vec![])))
    });
    Snapshot::default().apply(puts, Version { cluster: "manifests".into(), epoch: 1, rev: 7 })
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_a_file_that_does_not_read_deletes_nothing_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), service("a", "10.0.0.9")).unwrap();
    fs::write(dir.path().join("b.yaml"), "kind: [").unwrap();
    let path = dir.path().to_owned();
    let mut running = Running::start(dir, &path, Some(restored(&[("a", "10.0.0.1"), ("b", "10.0.0.2")])));
    running.until_lost("b.yaml:1: ").await;
    running
        .until("the readable file counts", |reader| reader.load().holders("10.0.0.9".parse().unwrap()).len() == 1)
        .await;
    assert_eq!(names(&running.reader), ["a", "b"]);
    running.write("b.yaml", &service("c", "10.0.0.3"));
    running.until_names(&["a", "c"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_path_at_start_is_lost_until_it_appears() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cluster.yaml");
    assert!(check(&file).unwrap_err().to_string().contains("cluster.yaml: No such file"));
    let mut running = Running::start(dir, &file, Some(restored(&[("a", "10.0.0.1")])));
    running.until_lost("cluster.yaml: No such file").await;
    assert_eq!(names(&running.reader), ["a"]);
    fs::write(&file, service("b", "10.0.0.1")).unwrap();
    running.until_names(&["b"]).await;
    assert!(check(&file).is_ok());
}

#[tokio::test(start_paused = true)]
async fn broken_objects_are_named_and_the_source_is_up() {
    let text = service("a", "10.0.0.1")
        + &service("pending", "\"\"")
        + &service("bad", "10.0.0.300")
        + &service("x_y", "10.0.0.2");
    let mut running = Running::over(&[("a.yaml", &text)]);
    running.until_names(&["a"]).await;
    running.until_up().await;
    let rejections = running.reader.rejections();
    let nameless = format!("? in {}", running.dir.path().join("a.yaml").display());
    let named: Vec<(&str, &str)> =
        rejections.objects.iter().map(|rejection| (rejection.name.as_str(), rejection.reason.as_str())).collect();
    assert_eq!(
        named,
        [
            ("prod/pending", "no clusterIP is assigned (spec.clusterIP)"),
            ("prod/bad", "spec.clusterIPs: \"10.0.0.300\" is not an IP address"),
            (&nameless, "metadata.name \"x_y\" is not a DNS label")
        ]
    );
}

#[test]
fn reading_once_fails_only_where_nothing_reads() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(read(dir.path(), EndpointsMode::Headless), Err(Error::NoFiles { .. })));
    fs::write(dir.path().join("a.yaml"), "kind: [").unwrap();
    assert!(matches!(read(dir.path(), EndpointsMode::Headless), Err(Error::Unreadable(_))));
    fs::write(dir.path().join("b.yaml"), service("b", "10.0.0.1")).unwrap();
    let reading = read(dir.path(), EndpointsMode::Headless).unwrap();
    assert_eq!(reading.records.services.len(), 1);
    assert!(reading.incomplete.unwrap().contains("a.yaml:1"));
}

#[test]
fn records_written_as_objects_read_back_to_the_same_digest() {
    let text = r#"{"apiVersion":"v1","kind":"List","items":[
        {"apiVersion":"v1","kind":"Namespace","metadata":{"name":"kube-system","uid":"uid-1"}},
        {"apiVersion":"v1","kind":"Namespace","metadata":{"name":"empty"}},
        {"apiVersion":"v1","kind":"Service","metadata":{"name":"web","namespace":"prod"},
         "spec":{"clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1","fd00::1"],
                 "ports":[{"port":80},{"name":"dns","port":53,"protocol":"UDP"},{"name":"s","port":9,"protocol":"SCTP"}]}},
        {"apiVersion":"v1","kind":"Service","metadata":{"name":"ext","namespace":"prod"},
         "spec":{"type":"ExternalName","externalName":"db.example"}},
        {"apiVersion":"v1","kind":"Service","metadata":{"name":"db","namespace":"prod"},
         "spec":{"clusterIP":"None","ports":[{"name":"pg","port":5432}]}},
        {"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4",
         "metadata":{"name":"db-a","namespace":"prod","labels":{"kubernetes.io/service-name":"db"}},
         "endpoints":[{"addresses":["10.1.0.1"],"hostname":"db-0"},{"addresses":["10.1.0.2"],"conditions":{"ready":false}}],
         "ports":[{"name":"pg","port":5432}]},
        {"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv6",
         "metadata":{"name":"db-b","namespace":"prod","labels":{"kubernetes.io/service-name":"db"}},
         "endpoints":[{"addresses":["fd01::1"],"hostname":"db-0"}],"ports":[{"name":"pg","port":5433}]},
        {"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4",
         "metadata":{"name":"web-a","namespace":"prod","labels":{"kubernetes.io/service-name":"web"}},
         "endpoints":[{"addresses":["10.1.0.9"]}],"ports":[]}
    ]}"#;
    let dir = tempfile::tempdir().unwrap();
    let snapshot_of = |name: &str, text: &str| {
        let file = dir.path().join(name);
        fs::write(&file, text).unwrap();
        let reading = read(&file, EndpointsMode::All).unwrap();
        assert_eq!(reading.rejections.total, 0, "{:?}", reading.rejections);
        let changes = reading.records.services.into_values().map(Change::Put);
        let changes = changes.chain(reading.records.namespaces.into_iter().map(Change::PutNamespace));
        Snapshot::default().apply(changes, Version { cluster: reading.cluster, epoch: 1, rev: 1 })
    };
    let first = snapshot_of("cluster.json", text);
    assert_eq!(first.counts().endpoints, 4);
    let list = serde_json::json!({
        "apiVersion": "v1", "kind": "List", "holdfast": {"version": "1.1"}, "items": crate::record::objects(&first, None),
    });
    for (name, text) in [("again.json", list.to_string()), ("again.yaml", serde_saphyr::to_string(&list).unwrap())] {
        let again = snapshot_of(name, &text);
        assert_eq!(again.root(), first.root(), "{name}");
        assert_eq!(again.version().cluster, first.version().cluster, "{name}");
    }
}

/// A dump of these services, whose records were confirmed at `as_of`, of one namespace if it is given.
fn dump(namespace: Option<&str>, as_of: &str, cluster: &str, services: &[(&str, &str)]) -> String {
    let items = services.iter().map(|(key, ip)| {
        let (namespace, name) = key.split_once('/').unwrap();
        serde_json::json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": ip},
        })
    });
    serde_json::json!({
        "apiVersion": "v1", "kind": "List",
        "holdfast": {
            "made_at": "2024-12-11T20:00:00.000Z", "namespace": namespace, "partial": namespace.is_some(),
            "version": {"cluster": cluster}, "source": {"as_of": as_of, "state": "up"},
        },
        "items": items.collect::<Vec<_>>(),
    })
    .to_string()
}

const DUMPED: &str = "2024-12-11T18:23:15.000Z";
const DUMPED_MILLIS: UnixMillis = UnixMillis(1_733_941_395_000);

#[tokio::test(start_paused = true)]
async fn a_dump_is_as_old_as_it_says_and_stays_so() {
    let mut running = Running::over(&[("dump.json", &dump(None, DUMPED, "uid-1", &[("prod/a", "10.0.0.1")]))]);
    running.until_names(&["a"]).await;
    running.until_up().await;
    assert_eq!(running.reader.as_of(), Some(DUMPED_MILLIS));
    assert_eq!(&*running.reader.load().version().cluster, "uid-1");
    assert!(!running.reader.load().is_partial());
    let count = *running.published.borrow_and_update();
    running.until("confirmed again", |reader| *reader.subscribe().borrow() > count).await;
    assert_eq!(running.reader.as_of(), Some(DUMPED_MILLIS), "reading the file again makes nothing younger");
    // The oldest dump says how old all is.
    running.write("b.json", &dump(None, "2024-12-10T00:00:00.000Z", "uid-1", &[("prod/b", "10.0.0.2")]));
    running.until_names(&["a", "b"]).await;
    assert!(running.reader.as_of() < Some(DUMPED_MILLIS));
    running.write("b.json", &dump(None, "2024-12-12T00:00:00.000Z", "uid-1", &[("prod/c", "10.0.0.2")]));
    running.until_names(&["a", "c"]).await;
    assert_eq!(running.reader.as_of(), Some(DUMPED_MILLIS));
}

#[tokio::test(start_paused = true)]
async fn manifests_that_are_no_dump_are_as_young_as_their_last_look() {
    let list = serde_json::json!({"kind": "List", "holdfast": {"version": "1.1"}, "items": []}).to_string();
    let mut running = Running::over(&[("a.yaml", &service("a", "10.0.0.1")), ("b.json", &list)]);
    running.until_up().await;
    assert!(running.reader.as_of() > Some(UnixMillis(DUMPED_MILLIS.0 + 1)));
}

#[tokio::test(start_paused = true)]
async fn a_dump_of_one_namespace_says_nothing_of_others() {
    let mut running = Running::over(&[("dump.json", &dump(Some("prod"), DUMPED, "uid-1", &[("prod/a", "10.0.0.1")]))]);
    running.until_names(&["a"]).await;
    let snapshot = running.reader.snapshot();
    assert!(snapshot.is_partial() && snapshot.knows_namespace(b"prod") && !snapshot.knows_namespace(b"data"));
    // Beside a dump of everything nothing is unknown.
    running.write("all.json", &dump(None, DUMPED, "uid-1", &[("data/b", "10.0.0.2")]));
    running.until_names(&["a", "b"]).await;
    assert!(!running.reader.snapshot().is_partial());
}

#[tokio::test(start_paused = true)]
async fn a_dump_of_one_namespace_leaves_the_records_of_others_of_its_cluster() {
    let puts = [("prod/a", "10.0.0.1"), ("prod/gone", "10.0.0.2"), ("data/b", "10.0.0.3")].map(|(key, ip)| {
        let (namespace, name) = key.split_once('/').unwrap();
        let kind = crate::record::Kind::ClusterIp([ip.parse().unwrap()].into());
        Change::Put(Arc::new(Service::new(ServiceKey::new(namespace, name), kind, vec![], vec![])))
    });
    let held = Snapshot::default().apply(puts, Version { cluster: "uid-1".into(), epoch: 1, rev: 7 });
    let start = |cluster: &str| {
        let dir = tempfile::tempdir().unwrap();
        let text = dump(Some("prod"), DUMPED, cluster, &[("prod/a", "10.0.0.9")]);
        fs::write(dir.path().join("dump.json"), text).unwrap();
        let path = dir.path().to_owned();
        Running::start(dir, &path, Some(held.clone()))
    };
    let mut same = start("uid-1");
    same.until_names(&["a", "b"]).await;
    assert!(!same.reader.snapshot().is_partial(), "all namespaces were known before");
    assert_eq!(same.reader.as_of(), Some(UnixMillis(1)), "as old as the oldest of both");
    let mut other = start("uid-2");
    other.until_names(&["a"]).await;
    assert!(other.reader.snapshot().is_partial());
    assert_eq!(other.reader.as_of(), Some(DUMPED_MILLIS));
}

#[tokio::test(start_paused = true)]
async fn a_dump_of_a_process_without_records_deletes_nothing() {
    let mut running = Running::over(&[("a.json", &dump(None, DUMPED, "uid-1", &[("prod/a", "10.0.0.1")]))]);
    running.until_names(&["a"]).await;
    let empty = dump(None, DUMPED, "", &[]).replace(&format!("\"{DUMPED}\""), "null");
    running.write("a.json", &empty);
    running.until_lost("a.json: is a dump of a process that had no records").await;
    assert_eq!(names(&running.reader), ["a"]);
}
