//! Work on a slice on all cores.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender, TryRecvError};
use std::thread;

/// How many items a thread takes at once. Fewer are not worth a thread.
const BATCH: usize = 32;

/// Applies a function to every item and its index, in any order, and returns the results in order.
pub(crate) fn map<T: Sync, U: Send>(items: &[T], function: impl Fn(usize, &T) -> U + Sync) -> Vec<U> {
    let mut results = Vec::with_capacity(items.len());
    map_then(items, function, |_, result| results.push(result));
    results
}

/// Applies a function to every item and its index, in any order, and hands each result over in order, on this thread
/// and as soon as may be: only a few batches wait for it.
pub(crate) fn map_then<T: Sync, U: Send>(
    items: &[T],
    function: impl Fn(usize, &T) -> U + Sync,
    mut then: impl FnMut(&T, U),
) {
    let batches = Batches { items, next: AtomicUsize::new(0) };
    let run = |range: Range<usize>| -> Vec<U> { range.map(|index| function(index, &items[index])).collect() };
    let mut take = |from: usize, results: Vec<U>| {
        items[from..].iter().zip(results).for_each(|(item, result)| then(item, result));
    };
    let others = cores().min(items.len().div_ceil(BATCH)).saturating_sub(1);
    thread::scope(|scope| {
        // In here, so that a panic of this thread ends those that wait for it.
        let (sender, receiver) = mpsc::sync_channel(others);
        for _ in 0..others {
            let sender = sender.clone();
            scope.spawn(|| batches.run_all(&run, sender));
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut taken = 0;
        while taken < items.len() {
            if let Some(results) = early.remove(&taken) {
                take(taken, results);
                taken = items.len().min(taken + BATCH);
                continue;
            }
            let arrived = match receiver.try_recv() {
                Ok(batch) => Some(batch),
                // Better to work than to wait.
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => match batches.claim() {
                    Some(range) => Some((range.start, run(range))),
                    None => receiver.recv().ok(),
                },
            };
            // Nothing more arrives if a thread panicked, which the scope passes on.
            let Some((from, results)) = arrived else { break };
            early.insert(from, results);
        }
    });
}

fn cores() -> usize {
    static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));
    *CORES
}

/// Items, and which of them are not yet worked on.
struct Batches<'a, T> {
    items: &'a [T],
    next: AtomicUsize,
}

impl<T> Batches<'_, T> {
    fn claim(&self) -> Option<Range<usize>> {
        let from = self.next.fetch_add(BATCH, Ordering::Relaxed);
        (from < self.items.len()).then(|| from..self.items.len().min(from + BATCH))
    }

    fn run_all<U>(&self, run: &impl Fn(Range<usize>) -> Vec<U>, sender: SyncSender<(usize, Vec<U>)>) {
        while let Some(range) = self.claim() {
            if sender.send((range.start, run(range))).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_are_in_order() {
        for len in [0, 1, 31, 32, 33, 1000] {
            let items: Vec<usize> = (0..len).collect();
            assert_eq!(
                super::map(&items, |index, item| (index, *item)),
                items.iter().map(|i| (*i, *i)).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn results_are_handed_over_in_order() {
        let items: Vec<usize> = (0..1000).collect();
        let mut seen = Vec::new();
        super::map_then(&items, |index, item| (index, item * 2), |item, result| seen.push((*item, result)));
        assert_eq!(seen, items.iter().map(|item| (*item, (*item, item * 2))).collect::<Vec<_>>());
    }

    /// Whichever thread it is on.
    #[test]
    fn a_panic_is_passed_on() {
        let items: Vec<usize> = (0..1000).collect();
        for bad in [0, 500, 999] {
            let run = || super::map(&items, |index, _| assert_ne!(index, bad));
            assert!(std::panic::catch_unwind(run).is_err());
        }
    }
}
