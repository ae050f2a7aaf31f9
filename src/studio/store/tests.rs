//! What a folder keeps whatever happens to its clock, its table and its files.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use bytes::Bytes;

use super::super::{AudioId, Params, SessionId};
use super::*;

const DAY: i64 = 24 * 3600;

/// Clocks that are set by hand.
#[derive(Clone)]
struct Hands(Arc<Mutex<Moment>>);

impl Hands {
    fn at(wall: i64) -> Self {
        Self(Arc::new(Mutex::new(Moment { wall, ran: Duration::ZERO })))
    }

    fn moments(&self) -> Moments {
        let hands = self.clone();
        Arc::new(move || *hands.0.lock().unwrap())
    }

    /// Somebody sets the wall clock.
    fn set(&self, by: i64) {
        self.0.lock().unwrap().wall += by;
    }

    /// Time passes on both.
    fn pass(&self, seconds: i64) {
        let mut now = self.0.lock().unwrap();
        now.wall += seconds;
        now.ran += Duration::from_secs(seconds as u64);
    }
}

fn id(name: &str) -> SessionId {
    SessionId::parse(name).unwrap()
}

/// A session with a sound of so many bytes.
async fn put(store: &Store, name: &str, bytes: usize) {
    let sound = store.keep(Bytes::from(vec![7; bytes]), &id(name)).await.unwrap();
    let mut session = SessionRecord::new(id(name), "upload", Params::default());
    session.current = Some(sound.id());
    store.accept(session, Some(sound), None).await.unwrap();
}

async fn has(store: &Store, name: &str) -> bool {
    match store.session(&id(name)).await {
        Ok(session) => store.read(session.current.unwrap()).await.is_ok(),
        Err(_) => false,
    }
}

fn count(folder: &Path, name: &str) -> usize {
    fs::read_dir(folder.join(name)).map_or(0, |entries| entries.count())
}

const WEEK: Retention = Retention { age: Some(Duration::from_secs(7 * DAY as u64)), bytes: None };

#[tokio::test]
async fn a_clock_that_is_set_makes_no_session_older() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::at(1_800_000_000);
    let store = Store::open_by(folder.path(), hands.moments()).unwrap();
    put(&store, "kept", 10).await;
    for by in [40, -3650, 3650, -40, 20_000, -40_000] {
        hands.pass(600);
        hands.set(by * DAY);
        assert_eq!(store.sweep(WEEK).await.unwrap(), 0, "after a jump of {by} days");
        let session = store.session(&id("kept")).await.unwrap();
        let age = hands.0.lock().unwrap().wall - session.updated;
        assert!((0..4000).contains(&age), "it is told as {age} s old");
    }
    // Time that passes counts: seven days less an hour, then the rest.
    for hours in [167, 2] {
        assert!(has(&store, "kept").await);
        for _ in 0..hours {
            hands.pass(3600);
            store.sweep(WEEK).await.unwrap();
        }
    }
    assert!(!has(&store, "kept").await);
}

#[tokio::test]
async fn a_server_that_starts_with_a_wrong_clock_removes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::at(1_800_000_000);
    for days in [0, 40, -4000, 4000] {
        hands.set(days * DAY);
        let store = Store::open_by(folder.path(), hands.moments()).unwrap();
        if days == 0 {
            put(&store, "kept", 10).await;
        }
        assert_eq!(store.sweep(WEEK).await.unwrap(), 0, "a start {days} days later");
        // The clock is put right after the start.
        hands.set(-days * DAY);
        assert_eq!(store.sweep(WEEK).await.unwrap(), 0);
        assert!(has(&store, "kept").await);
        hands.pass(600);
    }
    // What was touched long before the server last ran is old, whatever happened since.
    let table = Connection::open(folder.path().join("studio.db")).unwrap();
    table.execute("UPDATE sessions SET updated = updated - ?1", [8 * DAY]).unwrap();
    drop(table);
    let store = Store::open_by(folder.path(), hands.moments()).unwrap();
    assert_eq!(store.sweep(WEEK).await.unwrap(), 1);
}

#[tokio::test]
async fn a_folder_of_an_older_version_keeps_its_sessions_whatever_the_clock_said_then() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::at(1_800_000_000);
    let store = Store::open_by(folder.path(), hands.moments()).unwrap();
    for name in ["past", "future"] {
        put(&store, name, 10).await;
    }
    close(store, folder.path());
    let table = Connection::open(folder.path().join("studio.db")).unwrap();
    table
        .execute_batch(
            "DROP TABLE clock; DROP TRIGGER audio_gone; DROP TABLE gone; ALTER TABLE clips DROP COLUMN attempts;
             ALTER TABLE clips DROP COLUMN name; ALTER TABLE clips DROP COLUMN parent;
             ALTER TABLE sessions DROP COLUMN generation;
             UPDATE sessions SET updated = updated - 4000000 WHERE id = 'past';
             UPDATE sessions SET updated = updated + 4000000 WHERE id = 'future'; PRAGMA user_version = 2;",
        )
        .unwrap();
    drop(table);
    let store = Store::open_by(folder.path(), hands.moments()).unwrap();
    assert_eq!(store.sweep(WEEK).await.unwrap(), 0);
    assert!(has(&store, "past").await && has(&store, "future").await);
}

#[tokio::test]
async fn what_is_kept_without_limit_stays() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::at(1_800_000_000);
    let store = Store::open_by(folder.path(), hands.moments()).unwrap();
    store.keep_at_most(None);
    put(&store, "kept", 100_000).await;
    for _ in 0..1000 {
        hands.pass(3600);
        assert_eq!(store.sweep(Retention { age: None, bytes: None }).await.unwrap(), 0);
    }
    assert!(has(&store, "kept").await);
}

#[tokio::test]
async fn sounds_never_take_more_than_is_allowed_and_what_is_pinned_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.keep_at_most(Some(350));
    for name in ["a", "b", "c", "d", "e"] {
        put(&store, name, 100).await;
        let disk: u64 =
            fs::read_dir(folder.path().join("audio")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(disk <= 350 && store.bytes().await.unwrap() == disk, "{disk}");
    }
    assert!(!has(&store, "a").await && !has(&store, "b").await && has(&store, "c").await);
    for name in ["c", "d", "e"] {
        let mut session = store.session(&id(name)).await.unwrap();
        session.pinned = true;
        store.accept(session, None, None).await.unwrap();
    }
    let refused = store.keep(Bytes::from(vec![0; 100]), &id("f")).await.err().unwrap();
    assert!(matches!(&refused, StudioError::NoRoom(_)) && refused.to_string().contains("--keep-gb"), "{refused}");
    assert_eq!(count(folder.path(), "audio"), 3);
    // Two that are being written count both, and one that is given up counts no more.
    store.keep_at_most(Some(400));
    let first = store.keep(Bytes::from(vec![0; 100]), &id("f")).await.unwrap();
    assert!(store.keep(Bytes::from(vec![0; 1]), &id("g")).await.is_err());
    drop(first);
    assert!(store.keep(Bytes::from(vec![0; 100]), &id("g")).await.is_ok());
    assert_eq!(count(folder.path(), "audio"), 3, "what no row names is gone");
}

#[tokio::test]
async fn a_table_that_does_not_fit_its_sounds_stops_the_start_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (path, table) = (folder.path(), folder.path().join("studio.db"));
    let store = Store::open(path).unwrap();
    for name in ["a", "b", "c", "d"] {
        put(&store, name, 3000).await;
    }
    store.rest().await;
    let whole = fs::read(&table).unwrap();
    close(store, path);
    assert_eq!(fs::read(&table).unwrap(), whole, "all of it is in one file");
    let other = tempfile::tempdir().unwrap();
    let elsewhere = Store::open(other.path()).unwrap();
    put(&elsewhere, "x", 10).await;
    close(elsewhere, other.path());
    let noise: Vec<u8> = (0..20_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut flipped = whole.clone();
    (4096..flipped.len()).step_by(97).for_each(|n| flipped[n] ^= 0x55);
    let foreign = other.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE songs (name TEXT)").unwrap();
    let cases: [(&str, Option<Vec<u8>>); 8] = [
        ("missing", None),
        ("empty", Some(Vec::new())),
        ("cut in half", Some(whole[..whole.len() / 2].to_vec())),
        ("cut in the first page", Some(whole[..300].to_vec())),
        ("noise", Some(noise)),
        ("flipped", Some(flipped)),
        ("of another folder", Some(fs::read(other.path().join("studio.db")).unwrap())),
        ("of another program", Some(fs::read(foreign).unwrap())),
    ];
    for (name, bytes) in cases {
        fs::remove_file(&table).unwrap();
        match bytes {
            Some(bytes) => fs::write(&table, bytes).unwrap(),
            None => {
                // A table that is a folder is none either.
                fs::create_dir(&table).unwrap();
                assert!(Store::open(path).is_err());
                fs::remove_dir(&table).unwrap();
            }
        }
        let sentence = Store::open(path).err().expect(name).to_string();
        assert!(sentence.contains("studio.db") && sentence.contains("--data"), "{name}: {sentence}");
        assert_eq!((count(path, "audio"), count(path, "aside")), (4, 0), "{name}");
        for end in ["-wal", "-shm"] {
            // SQLite may leave them when it looked in vain.
            let _ = fs::remove_file(path.join(format!("studio.db{end}")));
        }
        fs::write(&table, &whole).unwrap();
        let store = Store::open(path).unwrap_or_else(|error| panic!("after {name}: {error}"));
        assert!(has(&store, "a").await && has(&store, "d").await, "after {name}");
        close(store, path);
    }
    // The disk with the sounds is not there.
    fs::rename(path.join("audio"), path.join("away")).unwrap();
    let sentence = Store::open(path).err().unwrap().to_string();
    assert!(sentence.contains("4 are missing"), "{sentence}");
    fs::remove_dir(path.join("audio")).unwrap();
    fs::rename(path.join("away"), path.join("audio")).unwrap();
    // One sound that somebody removed is no reason.
    let store = Store::open(path).unwrap();
    let lost = store.session(&id("b")).await.unwrap().current.unwrap();
    close(store, path);
    fs::remove_file(path.join("audio").join(lost.to_string())).unwrap();
    let store = Store::open(path).unwrap();
    assert!(has(&store, "a").await && !has(&store, "b").await);
}

/// Closes a store, so that its table is one file and its lock is free.
fn close(store: Store, path: &Path) {
    drop(store);
    while File::open(path.join("lock")).unwrap().try_lock().is_err() || path.join("studio.db-wal").exists() {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn files_that_nobody_knows_go_aside_and_what_was_half_done_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let (path, audio) = (folder.path(), folder.path().join("audio"));
    let store = Store::open(path).unwrap();
    put(&store, "a", 10).await;
    put(&store, "b", 10).await;
    put(&store, "gone", 10).await;
    let named = store.session(&id("a")).await.unwrap().current.unwrap();
    let gone = store.session(&id("gone")).await.unwrap().current.unwrap();
    store.remove_session(&id("gone")).await.unwrap();
    close(store, path);
    // Killed between the row and the name, before the row, and between a removal and its file's.
    fs::rename(audio.join(named.to_string()), audio.join(format!("{named}.part"))).unwrap();
    fs::write(audio.join(format!("{}.part", AudioId::random())), b"half").unwrap();
    fs::write(audio.join(gone.to_string()), b"whole").unwrap();
    let table = Connection::open(path.join("studio.db")).unwrap();
    table.execute("INSERT INTO gone (id) VALUES (?1)", [gone.to_string()]).unwrap();
    table.execute("INSERT INTO gone (id) VALUES ('../studio.db')", []).unwrap();
    drop(table);
    // And what is not ours.
    for name in ["holiday.wav", "0123.part", &AudioId::random().to_string()] {
        fs::write(audio.join(name), b"x").unwrap();
    }
    fs::create_dir(audio.join("old")).unwrap();
    for _ in 0..2 {
        let store = Store::open(path).unwrap();
        assert!(has(&store, "a").await && has(&store, "b").await);
        assert_eq!((count(path, "audio"), count(path, "aside")), (2, 4));
        close(store, path);
    }
    fs::write(audio.join("holiday.wav"), b"another").unwrap();
    drop(Store::open(path).unwrap());
    assert_eq!(fs::read(path.join("aside/holiday.wav")).unwrap(), b"x");
    assert_eq!(fs::read(path.join("aside/holiday.wav.1")).unwrap(), b"another");
}

#[tokio::test]
async fn a_row_that_is_not_understood_costs_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    put(&store, "a", 10).await;
    put(&store, "b", 10).await;
    close(store, folder.path());
    let table = Connection::open(folder.path().join("studio.db")).unwrap();
    table.pragma_update(None, "foreign_keys", false).unwrap();
    table.execute("UPDATE sessions SET id = 'not / a name' WHERE id = 'a'", []).unwrap();
    drop(table);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.sessions(10).await.unwrap().len(), 1);
    assert!(has(&store, "b").await);
    assert_eq!(count(folder.path(), "audio"), 2);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_goes_wrong_with_a_file_is_told_without_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    put(&store, "a", 10).await;
    let sound = store.session(&id("a")).await.unwrap().current.unwrap();
    fs::rename(folder.path().join("audio"), folder.path().join("away")).unwrap();
    let place = folder.path().to_string_lossy().into_owned();
    for error in [
        store.read(sound).await.err().unwrap().to_string(),
        store.keep(Bytes::from_static(b"x"), &id("b")).await.err().unwrap().to_string(),
    ] {
        assert!(!error.contains(&place) && !error.contains("audio"), "{error}");
    }
    fs::rename(folder.path().join("away"), folder.path().join("audio")).unwrap();
    assert!(has(&store, "a").await);
}

#[test]
fn a_store_says_when_its_folder_is_gone_or_another() {
    let place = tempfile::tempdir().unwrap();
    let (folder, away) = (place.path().join("data"), place.path().join("away"));
    let store = Store::open(&folder).unwrap();
    let is_gone = || store.trouble().is_some_and(|trouble| trouble.contains("is gone"));
    assert_eq!(store.trouble(), None);
    fs::rename(&folder, &away).unwrap();
    assert!(is_gone());
    drop(Store::open(&folder).unwrap());
    assert!(is_gone(), "another store lies in its place");
    fs::remove_dir_all(&folder).unwrap();
    fs::rename(&away, &folder).unwrap();
    assert_eq!(store.trouble(), None);
    fs::remove_dir(folder.join("audio")).unwrap();
    assert!(is_gone());
}

#[cfg(unix)]
#[test]
fn a_store_says_when_its_folder_cannot_be_written() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let allow = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
    allow(0o500);
    // Nothing is forbidden to an administrator.
    let is_forbidden = File::create(folder.path().join("x")).is_err();
    let trouble = store.trouble();
    allow(0o700);
    assert_eq!(trouble.is_some_and(|trouble| trouble.contains("cannot be written")), is_forbidden);
    assert_eq!(store.trouble(), None);
}

#[test]
fn without_a_place_for_temporary_files_another_is_taken_or_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent");
    let store = Store::ephemeral_in(&[absent.clone(), folder.path().to_owned()]).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    drop(store);
    let sentence = Store::ephemeral_in(&[absent]).err().unwrap().to_string();
    assert!(sentence.contains("TMPDIR"), "{sentence}");
}
