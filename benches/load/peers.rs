//! Other name servers with the same names, as far as they are installed.

use std::{fmt::Write, fs, net::SocketAddr, path::Path, process::Command};

use crate::{
    subject::{Subject, free_address},
    traffic::Cluster,
};

/// The configuration and the arguments, for files in a folder, a port, a number of workers and a server to ask.
type Configure = fn(&Path, &str, usize, SocketAddr) -> (String, Vec<String>);

/// Every peer that is installed; says which are not.
///
/// Those that have no records of their own ask `behind`, and answer from their cache.
pub fn all(cluster: &Cluster, processors: &[usize], behind: SocketAddr) -> Vec<Subject> {
    let peers: [(&str, Configure); 4] = [("knotd", knot), ("nsd", nsd), ("unbound", unbound), ("dnsdist", dnsdist)];
    let mut subjects = Vec::new();
    for (program, configure) in peers {
        if Command::new(program).arg("-h").output().is_err() {
            println!("{program} is not installed, and left out");
            continue;
        }
        let (home, address) = (tempfile::tempdir().unwrap(), free_address());
        fs::write(home.path().join("cluster.zone"), cluster.zone_file()).unwrap();
        let mut local = String::new();
        for line in cluster.zone_file().lines().skip(5) {
            let (name, rest) = line.split_once(' ').unwrap();
            writeln!(local, "local-data: \"{name}.cluster.local. 5 IN {rest}\"").unwrap();
        }
        fs::write(home.path().join("local.conf"), local).unwrap();
        let (config, arguments) = configure(home.path(), &address.port().to_string(), processors.len(), behind);
        fs::write(home.path().join("server.conf"), config).unwrap();
        let command: Vec<String> = std::iter::once(program.to_owned()).chain(arguments).collect();
        subjects.push(Subject::start(program, &command, address, processors, home, &cluster.probe()));
    }
    subjects
}

fn knot(home: &Path, port: &str, workers: usize, _: SocketAddr) -> (String, Vec<String>) {
    let home = home.display();
    let config = format!(
        "server:\n  listen: 127.0.0.1@{port}\n  udp-workers: {workers}\n  rundir: {home}\n\
         database:\n  storage: {home}/db\n\
         zone:\n  - domain: cluster.local\n    storage: {home}\n    file: cluster.zone\n    journal-content: none\n"
    );
    (config, vec!["-c".into(), format!("{home}/server.conf")])
}

fn nsd(home: &Path, port: &str, workers: usize, _: SocketAddr) -> (String, Vec<String>) {
    let home = home.display();
    let config = format!(
        "server:\n  ip-address: 127.0.0.1@{port}\n  server-count: {workers}\n  reuseport: yes\n  username: \"\"\n  chroot: \"\"\n  \
         zonesdir: {home}\n  pidfile: {home}/nsd.pid\n  xfrdfile: {home}/xfrd\n  zonelistfile: {home}/zones\n  \
         rrl-ratelimit: 0\nremote-control:\n  control-enable: no\n\
         zone:\n  name: cluster.local\n  zonefile: cluster.zone\n"
    );
    (config, vec!["-d".into(), "-c".into(), format!("{home}/server.conf")])
}

fn unbound(home: &Path, port: &str, workers: usize, _: SocketAddr) -> (String, Vec<String>) {
    let home = home.display();
    let config = format!(
        "server:\n  interface: 127.0.0.1@{port}\n  num-threads: {workers}\n  so-reuseport: yes\n  username: \"\"\n  \
         chroot: \"\"\n  directory: {home}\n  pidfile: {home}/unbound.pid\n  use-syslog: no\n  do-daemonize: no\n  \
         module-config: \"iterator\"\n  local-zone: \"cluster.local.\" static\n  include: {home}/local.conf\n\
         remote-control:\n  control-enable: no\n"
    );
    (config, vec!["-d".into(), "-c".into(), format!("{home}/server.conf")])
}

fn dnsdist(home: &Path, port: &str, workers: usize, behind: SocketAddr) -> (String, Vec<String>) {
    let listen = format!("addLocal(\"127.0.0.1:{port}\", {{reusePort=true}})\n");
    let config = format!(
        "setACL(\"127.0.0.0/8\")\n{}newServer(\"{behind}\"):setUp()\n\
         getPool(\"\"):setCache(newPacketCache(100000, {{minTTL=0}}))\nsetSecurityPollSuffix(\"\")\n",
        listen.replace("addLocal", "setLocal") + &listen.repeat(workers - 1)
    );
    (
        config,
        vec!["--supervised".into(), "--disable-syslog".into(), "-C".into(), format!("{}/server.conf", home.display())],
    )
}
