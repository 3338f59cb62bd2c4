//! The guard's knowledge of outside names after a restart.

use std::path::PathBuf;

use holdfast::{
    dns::{
        cache::{self, Denials},
        forward::{Config, Released},
    },
    sys::ManualClock,
};
use tempfile::TempDir;

use super::{
    bulk::{deny_many, use_names},
    denials::{GOOD, HOUR, SERVED, config, pass, used},
    world::{NOW, World, no_cluster, secs},
};
use crate::support::upstream::Upstream;

/// A configuration, a clock and a cache file that several processes have one after the other.
struct Disk {
    folder: TempDir,
    config: Config,
    clock: ManualClock,
}

impl Disk {
    fn new(upstream: &Upstream, denials: Denials) -> Self {
        let config = Config { zones: vec![config(&[upstream], denials)], ..Config::default() };
        Self { folder: tempfile::tempdir().unwrap(), config, clock: ManualClock::new(NOW) }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("cache.zst")
    }

    /// Starts, and waits until the cache is loaded.
    async fn start(&self) -> World {
        World::on_disk(&self.config, &self.file(), &self.clock).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_survives_a_restart_and_ends_when_it_would_have() {
    let upstream = Upstream::with_a(60, GOOD).await;
    let disk = Disk::new(&upstream, Denials::Auto);
    let world = disk.start().await;
    used(&world, "www.example", secs(660)).await;
    upstream.now(|asked| vec![asked.nxdomain("example")]);
    assert_eq!(world.a("www.example").await, SERVED);
    let before = world.forwarder.held();
    world.forwarder.save().await;
    drop(world);

    let world = disk.start().await;
    assert_eq!(world.forwarder.held(), before);
    pass(&world, 1_800).await;
    assert_eq!(world.a("www.example").await, SERVED);
    world.forwarder.save().await;
    drop(world);
    // The hold ends while the process is away, and the denial that comes then is believed.
    disk.clock.advance(secs(1_801));
    let world = disk.start().await;
    assert_eq!((world.forwarder.held(), world.a("www.example").await), (Vec::new(), "NXDomain".into()));
}

/// The time that a name was good counts over a restart.
#[tokio::test(start_paused = true)]
async fn the_state_that_earns_a_hold_survives_a_restart() {
    let upstream = Upstream::with_a(60, GOOD).await;
    let disk = Disk::new(&upstream, Denials::Auto);
    let start =
        || World::start(&disk.config, cache::Config::default(), no_cluster(), Some(disk.file()), disk.clock.clone());
    let world = start();
    used(&world, "www.example", secs(660)).await;
    world.forwarder.save().await;
    drop(world);
    upstream.now(|asked| vec![asked.nxdomain("example")]);
    disk.clock.advance(secs(60));
    let world = start();
    assert_eq!(world.a("www.example").await, SERVED);
    assert_eq!(world.forwarder.held().len(), 1);
}

/// Waits for a save that is asked for before its time.
async fn saved(world: &World) {
    let saves = world.cache_metrics.saves.get();
    world.elapse(secs(1)).await;
    // On a thread of its own, while the clock stands still: the interval does not come to its end.
    let end = std::time::Instant::now() + secs(60);
    while world.cache_metrics.saves.get() == saves {
        assert!(std::time::Instant::now() < end, "not saved");
        tokio::task::yield_now().await;
    }
}

/// An operator releases a name, and the process is killed before the cache is due to be saved.
#[tokio::test(start_paused = true)]
async fn a_release_survives_a_process_that_is_killed_after_it() {
    let upstream = Upstream::with_a(60, GOOD).await;
    let disk = Disk::new(&upstream, Denials::Hold(HOUR));
    let world = disk.start().await;
    for owner in ["gone.example", "held.example"] {
        assert_eq!(world.a(owner).await, "NoError 192.0.2.1");
    }
    upstream.now(|asked| vec![asked.nxdomain("example")]);
    pass(&world, 61).await;
    for owner in ["gone.example", "held.example"] {
        assert_eq!(world.a(owner).await, SERVED);
    }
    world.forwarder.save().await;
    assert_eq!(world.forwarder.release(&Released::Name("gone.example".parse().unwrap()), false).len(), 1);
    saved(&world).await;
    drop(world);

    let world = disk.start().await;
    let held: Vec<String> = world.forwarder.held().into_iter().map(|hold| hold.name).collect();
    assert_eq!(held, ["held.example."]);
    assert_eq!(world.a("gone.example").await, "NXDomain");
    assert_eq!(world.a("held.example").await, SERVED);
}

/// The upstream begins to lie, and the process is killed before the cache is due to be saved.
#[tokio::test(start_paused = true)]
async fn an_upstream_that_lies_is_not_believed_after_a_kill_either() {
    for denials in [Denials::Confirm, Denials::Auto, Denials::Hold(HOUR)] {
        let upstream = Upstream::with_a(30, GOOD).await;
        let disk = Disk::new(&upstream, denials);
        let world = disk.start().await;
        deny_many(&world, &upstream).await;
        assert!(world.upstream_status(0).lying);
        saved(&world).await;
        drop(world);

        let world = disk.start().await;
        let view = world.view(&disk.config);
        assert!(world.upstream_status(0).lying, "{denials:?}");
        assert!(!view.upstream_status(0).lying, "{denials:?}: a view has zones of its own");
        for nth in 12..30 {
            assert_eq!(world.a(&format!("n{nth}.example")).await, SERVED, "{denials:?}");
            // Twice, and so late that a denial would be confirmed.
            pass(&world, 3).await;
        }
        for nth in 12..30 {
            assert_eq!(world.a(&format!("n{nth}.example")).await, SERVED, "{denials:?}");
        }
        pass(&world, 700).await;
        assert!(!world.upstream_status(0).lying, "{denials:?}: it is forgiven after ten minutes");
    }
}

/// The listeners of a view forward in a way of their own, and the first forwarder has the file.
#[tokio::test(start_paused = true)]
async fn an_upstream_of_a_view_that_lies_is_not_believed_after_a_kill_either() {
    let upstream = Upstream::with_a(30, GOOD).await;
    let disk = Disk::new(&upstream, Denials::Confirm);
    let world = disk.start().await;
    let view = world.view(&disk.config);
    deny_many(&view, &upstream).await;
    saved(&world).await;
    drop((view, world));
    let world = disk.start().await;
    let view = world.view(&disk.config);
    assert!(view.upstream_status(0).lying && !world.upstream_status(0).lying);
    assert_eq!(view.a("n20.example").await, SERVED);
}

/// The process is restarted while the first of many names are denied.
#[tokio::test(start_paused = true)]
async fn names_asked_often_before_a_restart_count_after_it() {
    let upstream = Upstream::with_a(30, GOOD).await;
    let disk = Disk::new(&upstream, Denials::Confirm);
    let world = disk.start().await;
    use_names(&world).await;
    // Their answers are renewed once.
    pass(&world, 31).await;
    for nth in 0..30 {
        world.a(&format!("n{nth}.example")).await;
    }
    world.forwarder.save().await;
    drop(world);
    disk.clock.advance(secs(31));
    upstream.now(|asked| vec![asked.nxdomain("example")]);
    let world = disk.start().await;
    for nth in 0..12 {
        assert_eq!(world.a(&format!("n{nth}.example")).await, SERVED);
    }
    assert!(world.upstream_status(0).lying);
}
