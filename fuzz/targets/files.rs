//! Any bytes as a file that is read at a start or when it changes: a hosts file, resolv.conf, pins, certificates, a revocation list, the
//! cache of the process before. No panic, and DNS is served with it or without.

#![no_main]

use std::{fs, path::PathBuf, sync::LazyLock};

use holdfast::{
    dns::{
        cache::{self, Cache},
        forward::{Config, UpstreamSource, ZoneConfig},
        pins::Pins,
    },
    sys::UnixMillis,
    tls,
};
use holdfast_fuzz::world::{NOW, World, no_cluster};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tokio::runtime::Builder;
use xxhash_rust::xxh3::xxh3_64;

/// Where the files are, among good certificates.
static HOME: LazyLock<TempDir> = LazyLock::new(|| {
    let home = TempDir::new().expect("a folder");
    tls::issue(home.path(), "test", 30, UnixMillis(1_733_941_800_000)).expect("it can be written to");
    home
});

fn put(name: &str, bytes: &[u8]) -> PathBuf {
    let path = HOME.path().join(name);
    fs::write(&path, bytes).expect("it can be written to");
    path
}

/// A forwarder reads these files, and answers if it `asks` nobody.
fn forwards(zone: ZoneConfig, asks: bool) {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let world = World::build(&Config { zones: vec![zone], ..Config::default() }, no_cluster());
        if !asks {
            let _ = world.ask("www.example", hickory_proto::rr::RecordType::A).await;
        }
        let _ = world.forwarder.status();
    });
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which % 6 {
        0 => {
            let (upstreams, hosts_file) =
                (vec![UpstreamSource::ResolvConf(HOME.path().join("none"))], Some(put("hosts", bytes)));
            forwards(ZoneConfig { upstreams, hosts_file, ..ZoneConfig::default() }, false);
        }
        1 => {
            let upstreams = vec![UpstreamSource::ResolvConf(put("resolv.conf", bytes))];
            forwards(ZoneConfig { upstreams, ..ZoneConfig::default() }, true);
        }
        2 => {
            put("pins.json", bytes);
            let pins = Pins::open(Some(HOME.path()), NOW);
            let _ = pins.load().list(NOW);
        }
        3 => {
            put("hub/ca.crl", bytes);
            let _ = tls::check(&HOME.path().join("hub"));
        }
        4 => {
            put("agent/tls.crt", bytes);
            let _ = tls::check(&HOME.path().join("agent"));
        }
        _ => {
            let summed = [bytes, &xxh3_64(bytes).to_be_bytes()].concat();
            let path = put("cache", &zstd::bulk::compress(&summed, 1).expect("bytes can be packed"));
            let metrics = cache::Metrics::register(&prometheus::Registry::new()).expect("a fresh registry");
            let cache = Cache::new(&cache::Config::default(), metrics);
            if cache::load(&cache, &path, NOW, 0).is_ok() {
                let _ = cache::save(&cache, &path, 0);
            }
        }
    }
});
