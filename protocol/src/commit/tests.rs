//! One process; death at every step is in `tests/kill.rs`.

use std::sync::Arc;

use super::*;
use crate::shm::Map;

fn words() -> ViewMut {
    ViewMut::new(Arc::new(Map::anonymous(COMMIT_SIZE as u64).unwrap()))
}

#[test]
fn an_empty_store_has_nothing() {
    let store = CommitStore::open(words());
    assert_eq!(store.number(), 0);
    assert_eq!(store.load_global::<u32>(), Ok(None));
    assert_eq!(store.load_bytes(0), None);
}

#[test]
fn a_successor_finds_the_last_commit_whole() {
    let w = words();
    let mut store = CommitStore::open(w.clone());
    store.stage(3, &(1u8, "first")).unwrap();
    store.stage(63, &9u64).unwrap();
    assert_eq!(store.commit(&100u32), Ok(1));
    store.stage(3, &(2u8, "second")).unwrap();
    assert_eq!(store.commit(&200u32), Ok(2));
    let next = CommitStore::open(w);
    assert_eq!(next.number(), 2);
    assert_eq!(next.load_global(), Ok(Some(200u32)));
    assert_eq!(next.load(3), Ok(Some((2u8, "second".to_owned()))));
    assert_eq!(next.load(63), Ok(Some(9u64)));
    assert_eq!(next.load::<u8>(4), Ok(None));
}

#[test]
fn what_was_staged_but_not_committed_never_counts_even_under_a_later_commit() {
    let w = words();
    let mut store = CommitStore::open(w.clone());
    store.stage(0, &1u32).unwrap();
    store.commit(&()).unwrap();
    store.stage(0, &2u32).unwrap();
    store.stage(1, &2u32).unwrap();
    drop(store);
    let mut next = CommitStore::open(w.clone());
    assert_eq!(next.load(0), Ok(Some(1u32)));
    assert_eq!(next.load::<u32>(1), Ok(None));
    // The commit with the very number that the dead one had staged for.
    assert_eq!(next.commit(&()), Ok(2));
    let third = CommitStore::open(w);
    assert_eq!(third.load(0), Ok(Some(1u32)));
    assert_eq!(third.load::<u32>(1), Ok(None));
}

#[test]
fn staging_twice_keeps_the_second_and_the_committed_one() {
    let w = words();
    let mut store = CommitStore::open(w.clone());
    for n in 1..=5u32 {
        store.stage(7, &(n * 10)).unwrap();
        store.stage(7, &n).unwrap();
        assert_eq!(CommitStoreView(&w).newest(), n - 1, "before commit {n}");
        store.commit(&n).unwrap();
        assert_eq!(CommitStoreView(&w).newest(), n);
    }
}

/// What a successor would load, without emptying anything: on a copy.
struct CommitStoreView<'a>(&'a ViewMut);

impl CommitStoreView<'_> {
    fn newest(&self) -> u32 {
        let mut bytes = vec![0; COMMIT_SIZE];
        self.0.read_bytes(0, &mut bytes);
        let copy = words();
        copy.write_bytes(0, &bytes);
        CommitStore::open(copy).load(7).unwrap().unwrap_or(0)
    }
}

#[test]
fn a_damaged_newest_state_falls_back_to_the_one_before() {
    let w = words();
    let mut store = CommitStore::open(w.clone());
    store.stage(0, &0x1111_1111u32).unwrap();
    store.commit(&()).unwrap();
    store.stage(0, &0x2222_2222u32).unwrap();
    store.commit(&()).unwrap();
    w.store_u32(slot_at(0, 1) + SLOT_HEADER, 0, Ordering::Relaxed);
    assert_eq!(CommitStore::open(w.clone()).load(0), Ok(Some(0x1111_1111u32)));
    w.store_u32(slot_at(0, 0) + 8, u32::MAX, Ordering::Relaxed);
    assert_eq!(CommitStore::open(w).load::<u32>(0), Ok(None));
}

#[test]
fn a_damaged_global_record_is_an_error() {
    let w = words();
    let mut store = CommitStore::open(w.clone());
    store.commit(&7u32).unwrap();
    w.store_u32(global_at(1) + 12, 0, Ordering::Relaxed);
    assert_eq!(
        CommitStore::open(w.clone()).load_global::<u32>(),
        Err(CommitError::Damaged(1))
    );
    w.store_u64(0, u64::MAX - 1, Ordering::Relaxed);
    assert!(CommitStore::open(w).load_global::<u32>().is_err());
}

#[test]
fn a_state_of_another_type_or_with_bytes_left_over_is_an_error() {
    let w = words();
    let mut store = CommitStore::open(w);
    store.stage(0, &(1u8, 2u8)).unwrap();
    store.commit(&()).unwrap();
    assert!(matches!(store.load::<u8>(0), Err(CommitError::Decode { .. })));
    assert!(matches!(
        store.load::<(u8, u8, u8)>(0),
        Err(CommitError::Decode { .. })
    ));
}

#[test]
fn a_state_that_does_not_fit_is_refused_and_the_committed_one_stands() {
    let w = words();
    let mut store = CommitStore::open(w.clone());
    store.stage_bytes(0, b"good").unwrap();
    store.commit(&()).unwrap();
    let e = store.stage_bytes(0, &vec![0; MAX_STATE + 1]).unwrap_err();
    assert_eq!(
        e,
        CommitError::TooLarge {
            who: Who::Device(0),
            len: MAX_STATE + 1
        }
    );
    store.commit(&()).unwrap();
    assert_eq!(CommitStore::open(w.clone()).load_bytes(0).unwrap(), b"good");
    store.stage_bytes(0, &vec![5; MAX_STATE]).unwrap();
    store.commit(&()).unwrap();
    assert_eq!(CommitStore::open(w).load_bytes(0).unwrap(), vec![5; MAX_STATE]);
}

#[test]
fn any_rubbish_in_the_store_is_survived() {
    use proptest::prelude::*;
    let w = words();
    let mut store = CommitStore::open(w.clone());
    for n in 0..3u32 {
        store.stage(0, &n).unwrap();
        store.stage(63, &vec![n; 100]).unwrap();
        store.commit(&n).unwrap();
    }
    proptest!(ProptestConfig::with_cases(64), |(word in any::<u64>(), which in 0usize..6, at in 0usize..16)| {
        let base = [0, GLOBAL_AT, GLOBAL_AT + SLOT_SIZE, slot_at(0, 0), slot_at(0, 1), slot_at(63, 1)][which];
        w.store_u64(base + at * 8, word, Ordering::Relaxed);
        let store = CommitStore::open(w.clone());
        let _ = store.load_global::<u32>();
        let _ = store.load::<u32>(0);
        let _ = store.load::<Vec<u32>>(63);
    });
}
