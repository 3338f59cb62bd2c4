//! Kubeconfigs, certificates and credentials.

use std::fs;

use holdfast::source::apiserver::{self, Config};

use super::{Following, timing};
use crate::support::apiserver::{Apiserver, service};

#[tokio::test]
async fn client_certificates_open_a_server_that_asks_for_them() {
    let server = Apiserver::start_tls().await;
    server.put(service("prod", "a", "10.0.0.1"));
    let mut following = Following::start(server);
    following.until_names(&["a"]).await;
    following.server.put(service("prod", "b", "10.0.0.2"));
    following.until_names(&["a", "b"]).await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_named() {
    let server = Apiserver::start_tls().await;
    let other = Apiserver::start_tls().await;
    let elsewhere = tempfile::tempdir().unwrap();
    other.kubeconfig(elsewhere.path());
    let mut following = Following::start_with(server, |config| {
        let dir = config.kubeconfig.as_ref().unwrap().parent().unwrap();
        fs::copy(elsewhere.path().join("ca.crt"), dir.join("ca.crt")).unwrap();
    });
    let reason = following.until_lost("TLS handshake").await;
    assert!(reason.contains("invalid peer certificate") && reason.ends_with("this cluster's?)"), "{reason}");
}

#[tokio::test]
async fn every_request_says_that_it_is_holdfasts() {
    let server = Apiserver::start().await;
    server.put(service("prod", "a", "10.0.0.1"));
    let mut following = Following::start_with(server, |_| {});
    following.until_names(&["a"]).await;
    let agent = concat!("holdfast/", env!("CARGO_PKG_VERSION"));
    assert!(following.server.seen().iter().all(|seen| seen.user_agent == agent));
}

#[tokio::test]
async fn a_credential_plugin_is_run() {
    let server = Apiserver::start().await;
    server.put(service("prod", "a", "10.0.0.1"));
    let mut following = Following::start_with(server, |config| {
        let path = config.kubeconfig.as_ref().unwrap();
        let credential = r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"from-plugin"}}"#;
        let plugin = format!(
            "{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: echo, interactiveMode: Never, args: ['{credential}']}}}}"
        );
        let text = fs::read_to_string(path).unwrap().replace("{token: test}", &plugin);
        fs::write(path, text).unwrap();
    });
    following.until_names(&["a"]).await;
    assert!(following.server.seen().iter().all(|seen| seen.authorization == "Bearer from-plugin"));
}

#[tokio::test]
async fn kubeconfig_errors_are_one_line_and_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    let whole = "apiVersion: v1\nkind: Config\ncurrent-context: it\nclusters:\n- name: it\n  cluster: {server: 'http://127.0.0.1:1'}\n\
                 users: []\ncontexts:\n- name: it\n  context: {cluster: it, user: it}\n";
    let cases = [
        ("missing", None, "No such file"),
        ("not YAML", Some("{".to_owned()), "failed to parse kubeconfig YAML"),
        ("no context", Some(whole.replace("current-context: it\n", "")), "current context"),
        ("an unknown cluster", Some(whole.replace("cluster: it,", "cluster: that,")), "that"),
        ("no address", Some(whole.replace("http://127.0.0.1:1", "not a url")), "parse cluster url"),
        (
            "a missing authority",
            Some(whole.replace("{server:", "{certificate-authority: nowhere.crt, server:")),
            "nowhere.crt",
        ),
        ("a bad proxy", Some(whole.replace("{server:", "{proxy-url: 'ftp://127.0.0.1:1', server:")), "proxy"),
        (
            "a plugin that is not there",
            Some(whole.replace(
                "users: []",
                "users:\n- name: it\n  user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: /no/such/plugin, \
                 interactiveMode: Never}}",
            )),
            "No such file",
        ),
    ];
    for (name, text, expected) in cases {
        if let Some(text) = text {
            fs::write(&path, text).unwrap();
        }
        let config = Config { kubeconfig: Some(path.clone()), timing: timing(), ..Config::default() };
        let error = apiserver::check(&config).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("kubeconfig {}: ", path.display())), "{name}: {error}");
        assert!(error.contains(expected) && !error.contains('\n'), "{name}: {error}");
    }
    fs::write(&path, whole).unwrap();
    let config = Config { kubeconfig: Some(path), timing: timing(), ..Config::default() };
    assert!(apiserver::check(&config).await.is_ok(), "the server itself is not asked");
}

#[tokio::test]
async fn outside_of_a_cluster_the_remedy_is_told() {
    let config = Config { timing: timing(), ..Config::default() };
    let error = apiserver::check(&config).await.unwrap_err().to_string();
    assert!(error.starts_with("service account: ") && error.ends_with("name a kubeconfig)"), "{error}");
}

#[tokio::test]
async fn a_kubeconfig_that_is_missing_is_waited_for() {
    let server = Apiserver::start().await;
    server.put(service("prod", "a", "10.0.0.1"));
    let mut following = Following::start_with(server, |config| {
        let path = config.kubeconfig.as_ref().unwrap();
        fs::rename(path, path.with_extension("away")).unwrap();
    });
    following.until_lost("No such file").await;
    let path = following.kubeconfig();
    fs::rename(path.with_extension("away"), &path).unwrap();
    following.until_names(&["a"]).await;
}
