//! Files that are not what was written: whatever is done to one, what comes back was once stored, or nothing does.

use std::fs;

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;
use crate::store::disk::{DiskState, Start, load, read};

const PAGE: usize = 4096;

/// The pages that are not all zeros.
fn used_pages(bytes: &[u8]) -> Vec<usize> {
    (0..bytes.len() / PAGE).filter(|page| bytes[page * PAGE..][..PAGE].iter().any(|byte| *byte != 0)).collect()
}

/// Asserts that `bytes` load as one of `states` or not at all.
fn assert_verified_or_refused(bytes: &[u8], states: &[Arc<Snapshot>], what: &str) -> bool {
    match load::from_bytes(bytes.to_vec()) {
        Ok((loaded, _)) => {
            let known = states.iter().any(|state| state.root() == loaded.root() && state.version() == loaded.version());
            assert!(known, "{what}: a state that never was, version {}", loaded.version());
            true
        }
        Err(reason) => {
            assert!(!reason.contains("gave up"), "{what}: {reason}");
            false
        }
    }
}

/// A file that was written to a few times and not closed, and the states it went through.
async fn dirty_file() -> (Vec<u8>, Vec<Arc<Snapshot>>) {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, reader) = memory(60, 1);
    let follower = follow(&config(directory.path()), &reader);
    let mut states = Vec::new();
    for rev in 2..6 {
        follower.flush(LONG).await.unwrap();
        states.push(reader.snapshot());
        writer.apply(list(60 - rev, rev)).unwrap();
    }
    follower.flush(LONG).await.unwrap();
    states.push(reader.snapshot());
    (fs::read(directory.path().join("records-1.redb")).unwrap(), states)
}

#[tokio::test]
async fn a_cut_file_is_verified_or_refused() {
    quiet_panics();
    let (bytes, states) = dirty_file().await;
    let step = (bytes.len() / 150).max(1);
    for end in (0..bytes.len()).step_by(step) {
        assert_verified_or_refused(&bytes[..end], &states, &format!("cut at {end}"));
    }
}

#[tokio::test]
async fn a_flipped_bit_in_the_header_is_harmless_or_refused() {
    quiet_panics();
    let (bytes, states) = dirty_file().await;
    for at in 0..320 {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        assert_verified_or_refused(&flipped, &states, &format!("bit {} of byte {at}", at % 8));
    }
}

#[tokio::test]
async fn damage_anywhere_is_harmless_or_refused() {
    quiet_panics();
    let (dirty, mut states) = dirty_file().await;
    let clean = stored_bytes(60).await;
    states.push(memory(60, 1).1.snapshot());
    let mut rng = SmallRng::seed_from_u64(20_241_211);
    let (mut loaded, mut refused) = (0, 0);
    for case in 0..300 {
        let mut bytes = if case % 2 == 0 { dirty.clone() } else { clean.clone() };
        let used = used_pages(&bytes);
        for _ in 0..rng.random_range(1..6) {
            let page = used[rng.random_range(0..used.len())];
            bytes[page * PAGE + rng.random_range(0..PAGE)] = rng.random();
        }
        if assert_verified_or_refused(&bytes, &states, &format!("case {case}")) {
            loaded += 1;
        } else {
            refused += 1;
        }
    }
    assert!(loaded > 0 && refused > 0, "{loaded} loaded, {refused} refused: the damage must meet both");
}

#[tokio::test]
async fn zeroed_and_swapped_pages_are_verified_or_refused() {
    quiet_panics();
    let (bytes, states) = dirty_file().await;
    let used = used_pages(&bytes);
    for (index, &page) in used.iter().enumerate() {
        let mut zeroed = bytes.clone();
        zeroed[page * PAGE..][..PAGE].fill(0);
        assert_verified_or_refused(&zeroed, &states, &format!("page {page} zeroed"));
        let other = used[(index + 1) % used.len()];
        let mut swapped = bytes.clone();
        swapped[page * PAGE..][..PAGE].copy_from_slice(&bytes[other * PAGE..][..PAGE]);
        assert_verified_or_refused(&swapped, &states, &format!("page {page} replaced by {other}"));
    }
}

#[tokio::test]
async fn a_corrupt_file_is_set_aside_and_the_store_starts_empty() {
    quiet_panics();
    let mut bytes = stored_bytes(60).await;
    let middle = bytes.windows(4).position(|window| window == b"svc-").unwrap();
    bytes[middle] ^= 0x20;
    let directory = directory_with(&bytes);
    let config = config(directory.path());
    let (disk, loaded) = try_open(&config).unwrap();
    assert!(loaded.is_none());
    let Start::SetAside { to, reason } = disk.status().start.clone() else { panic!("{:?}", disk.status()) };
    assert!(!reason.is_empty());
    assert_eq!(disk.status().state, DiskState::Ok, "an empty store works");
    assert_eq!(fs::read(&to).unwrap(), bytes, "set aside as it was");
    assert!(to.to_str().unwrap().ends_with("records-1.redb.corrupt-20241211T183000.250Z"), "{to:?}");

    let (_writer, reader) = memory(10, 1);
    disk.follow(&reader).unwrap().release(LONG).await.unwrap();
    assert_same(&read(directory.path()).unwrap().snapshot, &reader.load());
    assert_eq!(fs::read(&to).unwrap(), bytes);
}

#[tokio::test]
async fn a_file_that_goes_bad_while_nobody_writes_is_set_aside_and_written_anew() {
    quiet_panics();
    let directory = directory_with(&stored_bytes(60).await);
    let config = config(directory.path());
    let (disk, loaded) = try_open(&config).unwrap();
    let loaded = loaded.unwrap();
    let (mut writer, reader) = store::open();
    writer.restore(loaded.snapshot, loaded.as_of);
    let follower = disk.follow(&reader).unwrap();
    follower.flush(LONG).await.unwrap();
    fs::write(directory.path().join("records-1.redb"), "bad").unwrap();
    writer.apply(list(61, 2)).unwrap();
    follower.flush(LONG).await.unwrap();
    assert_same(&read(directory.path()).unwrap().snapshot, &reader.load());
    let aside = directory.path().join("records-1.redb.corrupt-20241211T183000.250Z");
    assert_eq!(fs::read(aside).unwrap(), b"bad");
}

#[tokio::test]
async fn records_that_do_not_add_up_are_corrupt_however_well_formed() {
    // What a bug of ours could write: a database in perfect order whose digests are of other records.
    let directory = tempfile::tempdir().unwrap();
    let (_writer, reader) = memory(20, 1);
    follow(&config(directory.path()), &reader).release(LONG).await.unwrap();
    let file = directory.path().join("records-1.redb");
    let database = redb::Database::open(&file).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(super::super::layout::SERVICES).unwrap().remove("ns-1/svc-1").unwrap();
    write.commit().unwrap();
    drop(database);
    let error = read(directory.path()).unwrap_err().to_string();
    assert!(error.contains("has digest"), "{error}");
}
