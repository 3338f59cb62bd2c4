//! Reading from outside: by tools, while an agent runs or with none, on directories that cannot be written to.

use std::fs;

use super::*;
use crate::store::disk::{ReadError, owner, read};

#[tokio::test]
async fn a_store_is_read_while_its_owner_has_it_open() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, reader) = memory(100, 1);
    let follower = follow(&config(directory.path()), &reader);
    follower.flush(LONG).await.unwrap();
    for rev in 2..8 {
        writer.apply(list(100 + rev, rev)).unwrap();
        follower.flush(LONG).await.unwrap();
        assert_same(&read(directory.path()).unwrap().snapshot, &reader.load());
    }
    let owner = owner(directory.path()).unwrap();
    assert_eq!((owner.pid, owner.admin.as_deref()), (std::process::id(), Some(Path::new("/run/agent.sock"))));
}

#[tokio::test]
async fn a_store_left_open_by_a_killed_process_is_read_and_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, reader) = memory(100, 1);
    let follower = follow(&config(directory.path()), &reader);
    follower.flush(LONG).await.unwrap();
    writer.apply(list(90, 2)).unwrap();
    follower.flush(LONG).await.unwrap();
    // What a kill at this moment leaves: the file as it is, not closed.
    let left = directory_with(&fs::read(directory.path().join("records-1.redb")).unwrap());
    let file = left.path().join("records-1.redb");
    let before = fs::read(&file).unwrap();
    assert_same(&read(left.path()).unwrap().snapshot, &reader.load());
    assert_same(&read(&file).unwrap().snapshot, &reader.load());
    assert_eq!(fs::read(&file).unwrap(), before);
    assert_eq!(fs::read_dir(left.path()).unwrap().count(), 1, "no lock, no copy beside it");
}

#[tokio::test]
async fn a_directory_nobody_may_write_to_is_read_and_served_from() {
    use std::os::unix::fs::PermissionsExt;
    let directory = directory_with(&stored_bytes(30).await);
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o500)).unwrap();
    assert_eq!(read(directory.path()).unwrap().snapshot.counts().services, 30);
    let (disk, loaded) = try_open(&config(directory.path())).unwrap();
    assert_eq!(loaded.unwrap().snapshot.counts().services, 30);
    drop(disk);
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn a_directory_that_is_no_store_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    assert_eq!(read(&missing).unwrap_err().to_string(), format!("no store in {}", missing.display()));
    assert!(matches!(read(directory.path()).unwrap_err(), ReadError::Missing { .. }));
    let corrupt = directory_with(b"not a database, but longer than the header of one would have to be");
    let error = read(corrupt.path()).unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("records-1.redb is corrupt: "), "{error}");
}

#[tokio::test]
async fn a_store_that_never_holds_still_is_left_to_its_owner() {
    let directory = directory_with(b"half of a write");
    let _owned = super::super::Ownership::claim(directory.path(), None).unwrap();
    let error = read(directory.path()).unwrap_err();
    assert!(matches!(&error, ReadError::Busy { owner, .. } if owner.pid == std::process::id()), "{error}");
}
