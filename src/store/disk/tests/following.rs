//! When the store is written, and its behaviour when the disk fails.

use std::fs;

use super::{super::layout, *};
use crate::store::disk::{DiskState, FlushError, Start, read};

#[tokio::test]
async fn records_in_memory_are_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory.path().join("made/on/demand"));
    let (disk, loaded) = try_open(&config).unwrap();
    assert!(loaded.is_none());
    assert_eq!(disk.status().start, Start::Empty);
    let (mut writer, reader) = memory(50, 1);
    let follower = disk.follow(&reader).unwrap();
    follower.flush(LONG).await.unwrap();
    writer.apply(list(40, 2)).unwrap();
    follower.release(LONG).await.unwrap();

    let (disk, loaded) = try_open(&config).unwrap();
    let loaded = loaded.unwrap();
    assert_eq!(disk.status().start, Start::Loaded);
    assert_same(&loaded.snapshot, &reader.load());
    assert_eq!(loaded.as_of, UnixMillis(2_000));
    assert_eq!(loaded.format, 1);
    assert!(loaded.bytes > 0);
}

#[tokio::test]
async fn a_store_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let (_writer, reader) = memory(1, 1);
    follow(&config(&path), &reader).flush(LONG).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path) & 0o027, 0, "no access for others, no writing for the group");
    assert_eq!(mode(&path.join("records-1.redb")), 0o600);
    assert_eq!(mode(&path.join("owner")), 0o600);
}

#[tokio::test]
async fn nothing_is_written_before_there_was_a_list() {
    let directory = tempfile::tempdir().unwrap();
    let (_writer, reader) = store::open();
    follow(&config(directory.path()), &reader).release(LONG).await.unwrap();
    assert!(!directory.path().join("records-1.redb").exists());
}

#[tokio::test]
async fn a_restart_that_changes_nothing_writes_nothing() {
    let directory = directory_with(&stored_bytes(30).await);
    let config = config(directory.path());
    let (disk, loaded) = try_open(&config).unwrap();
    let loaded = loaded.unwrap();
    let (mut writer, reader) = store::open();
    writer.restore(loaded.snapshot, loaded.as_of);
    disk.follow(&reader).unwrap().release(LONG).await.unwrap();
    assert_eq!(config.faults.syncs(), 0);
    let _ = writer;
}

#[tokio::test]
async fn a_second_process_is_refused_until_the_first_lets_go() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let (_writer, reader) = memory(5, 1);
    let follower = follow(&config, &reader);
    let error = try_open(&config).unwrap_err().to_string();
    let pid = std::process::id();
    let expected = format!("is in use by pid {pid} (admin socket /run/agent.sock): stop it, or give this one another");
    assert!(error.contains(&expected), "{error}");

    follower.release(LONG).await.unwrap();
    assert_eq!(follower.status().state, DiskState::Off);
    assert!(try_open(&config).unwrap().1.is_some());
    assert_eq!(follower.flush(LONG).await, Err(FlushError::Released));
}

#[tokio::test]
async fn a_newer_format_is_refused_and_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("records-2.redb"), "of tomorrow").unwrap();
    fs::write(directory.path().join("records-1.redb"), "left behind by the migration").unwrap();
    let error = try_open(&config(directory.path())).unwrap_err().to_string();
    assert!(error.contains("has format 2, this holdfast reads up to 1: run the holdfast that wrote it"), "{error}");
    assert!(read(directory.path()).unwrap_err().to_string().contains("has format 2"));
    let mut names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["records-1.redb", "records-2.redb"]);
}

#[tokio::test]
async fn a_full_disk_degrades_and_recovers_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let (mut writer, reader) = memory(20, 1);
    let follower = follow(&config, &reader);
    follower.flush(LONG).await.unwrap();

    config.faults.set_full(true);
    writer.apply(list(30, 2)).unwrap();
    let error = follower.flush(LONG).await.unwrap_err().to_string();
    assert!(error.contains("records-1.redb") && error.contains("No space left on device"), "{error}");
    let status = follower.status();
    assert_eq!(status.state, DiskState::Degraded);
    assert!(status.errors > 0 && status.reason.is_some());
    assert_eq!(read(directory.path()).unwrap().as_of, UnixMillis(1_000), "the state before stands");

    config.faults.set_full(false);
    // Without being asked: the thread tries again half a second after the failure.
    while follower.status().state != DiskState::Ok {
        tokio::task::yield_now().await;
    }
    assert_same(&read(directory.path()).unwrap().snapshot, &reader.load());
}

#[tokio::test]
async fn a_disk_that_is_full_from_the_start_keeps_nothing_half_written() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    config.faults.set_full(true);
    let (_writer, reader) = memory(20, 1);
    let follower = follow(&config, &reader);
    follower.flush(LONG).await.unwrap_err();
    assert!(!directory.path().join("records-1.redb").exists());
    assert!(!directory.path().join("records-1.redb.new").exists());
    config.faults.set_full(false);
    follower.flush(LONG).await.unwrap();
    assert_same(&read(directory.path()).unwrap().snapshot, &reader.load());
}

#[tokio::test]
async fn after_a_failed_sync_the_store_holds_one_state_or_the_other_and_then_the_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let (mut writer, reader) = memory(20, 1);
    let follower = follow(&config, &reader);
    follower.flush(LONG).await.unwrap();
    config.faults.fail_next_sync();
    writer.apply(list(20, 2)).unwrap();
    assert!(follower.flush(LONG).await.unwrap_err().to_string().contains("Input/output error"));
    let between = read(directory.path()).unwrap().as_of;
    assert!([UnixMillis(1_000), UnixMillis(2_000)].contains(&between), "{between}");
    follower.flush(LONG).await.unwrap();
    assert_same(&read(directory.path()).unwrap().snapshot, &reader.load());
    let set_aside = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(set_aside, 2, "the records and the owner, nothing set aside");
}

#[tokio::test]
async fn a_panic_of_the_database_is_one_more_failure() {
    quiet_panics();
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let (mut writer, reader) = memory(20, 1);
    let follower = follow(&config, &reader);
    follower.flush(LONG).await.unwrap();
    config.faults.panic_at_next_write();
    writer.apply(list(20, 2)).unwrap();
    assert!(follower.flush(LONG).await.unwrap_err().to_string().contains("redb panicked"));
    follower.flush(LONG).await.unwrap();
    assert_same(&read(directory.path()).unwrap().snapshot, &reader.load());
}

#[tokio::test]
async fn a_store_removed_from_under_the_agent_is_written_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let (mut writer, reader) = memory(20, 1);
    let follower = follow(&config(&path), &reader);
    follower.flush(LONG).await.unwrap();
    fs::remove_file(path.join("records-1.redb")).unwrap();
    writer.apply(list(20, 2)).unwrap();
    follower.flush(LONG).await.unwrap();
    assert_same(&read(&path).unwrap().snapshot, &reader.load());
}

#[tokio::test]
async fn a_place_that_cannot_be_a_directory_degrades_and_is_used_once_it_can() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    fs::write(&path, "a file").unwrap();
    let (disk, loaded) = try_open(&config(&path)).unwrap();
    assert!(loaded.is_none());
    assert_eq!(disk.status().state, DiskState::Degraded);
    assert!(disk.status().reason.as_ref().unwrap().contains("store: it is a file"), "{:?}", disk.status());
    let (_writer, reader) = memory(20, 1);
    let follower = disk.follow(&reader).unwrap();
    follower.flush(LONG).await.unwrap_err();
    fs::remove_file(&path).unwrap();
    follower.flush(LONG).await.unwrap();
    assert_eq!(follower.status().state, DiskState::Ok);
    assert_same(&read(&path).unwrap().snapshot, &reader.load());
}

#[tokio::test]
async fn a_store_that_cannot_be_claimed_does_not_work_though_it_holds_everything() {
    let directory = directory_with(&stored_bytes(30).await);
    let in_the_way = directory.path().join("owner");
    fs::create_dir(&in_the_way).unwrap();
    let (disk, loaded) = try_open(&config(directory.path())).unwrap();
    let loaded = loaded.unwrap();
    let (mut writer, reader) = store::open();
    writer.restore(loaded.snapshot, loaded.as_of);
    let follower = disk.follow(&reader).unwrap();
    follower.flush(LONG).await.unwrap();
    assert_eq!(follower.status().state, DiskState::Degraded, "nothing was to be written");
    fs::remove_dir(&in_the_way).unwrap();
    writer.apply(list(30, 2)).unwrap();
    follower.flush(LONG).await.unwrap();
    assert_eq!((follower.status().state, follower.status().reason), (DiskState::Ok, None));
}

#[tokio::test]
async fn age_alone_is_written_by_a_flush_and_never_younger_than_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, reader) = memory(20, 1);
    let follower = follow(&config(directory.path()), &reader);
    follower.flush(LONG).await.unwrap();
    writer.apply(What::Fresh { as_of: UnixMillis(9_000) }).unwrap();
    assert!(read(directory.path()).unwrap().as_of <= UnixMillis(9_000));
    follower.flush(LONG).await.unwrap();
    let loaded = read(directory.path()).unwrap();
    assert_eq!(loaded.as_of, UnixMillis(9_000));
    assert_same(&loaded.snapshot, &reader.load());
}

#[tokio::test]
async fn the_last_handle_dropped_flushes_and_frees_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let (mut writer, reader) = memory(20, 1);
    let follower = follow(&config, &reader);
    follower.flush(LONG).await.unwrap();
    writer.apply(list(25, 2)).unwrap();
    drop(follower);
    while store::disk::owner(directory.path()).is_some() {
        tokio::task::yield_now().await;
    }
    assert_same(&try_open(&config).unwrap().1.unwrap().snapshot, &reader.load());
}

#[tokio::test]
async fn holds_and_epochs_outlive_a_restart_and_a_visit_of_a_release_that_knows_none() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let (writer, reader) = store::open();
    let mut writer = writer.guarded(store::guard::Config::default(), clock());
    writer.begin_epoch(7);
    writer.apply(list(100, 1)).unwrap();
    let follower = follow(&config, &reader);
    writer.apply(list(0, 2)).unwrap();
    assert_eq!(reader.held().counts().services, 100);
    follower.release(LONG).await.unwrap();
    let (disk, loaded) = try_open(&config).unwrap();
    let loaded = loaded.unwrap().snapshot;
    assert_same(&loaded, &reader.load());
    assert_eq!(loaded.held().digest(), reader.held().digest());
    assert_eq!(loaded.lineage(), reader.load().lineage());
    drop(disk);

    // The release before writes its state without a word of holds, and leaves their table as it is.
    let database = redb::Database::open(directory.path().join("records-1.redb")).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut state = write.open_table(layout::STATE).unwrap();
        let of = layout::State::of(&loaded, UnixMillis(5));
        let old = layout::State { held: vec![], epochs: vec![], ..of };
        state.insert("state", prost::Message::encode_to_vec(&old).as_slice()).unwrap();
    }
    write.commit().unwrap();
    drop(database);
    let (disk, back) = try_open(&config).unwrap();
    let back = back.unwrap().snapshot;
    assert_same(&back, &loaded);
    assert!(back.held().is_empty(), "these holds may be of other records by now");

    let (mut writer, reader) = store::open();
    writer.restore(back, UnixMillis(5));
    let follower = disk.follow(&reader).unwrap();
    writer.apply(list(100, 3)).unwrap();
    follower.release(LONG).await.unwrap();
    let (_, again) = try_open(&config).unwrap();
    assert!(again.unwrap().snapshot.held().is_empty(), "and no row of them is left");
}
