//! A map over a slice on all cores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// How many items a thread takes at once. Fewer are not worth a thread.
const BATCH: usize = 32;

/// Applies a function to every item and its index, in any order, and returns the results in order.
pub(crate) fn map<T: Sync, U: Send>(items: &[T], function: impl Fn(usize, &T) -> U + Sync) -> Vec<U> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(items.len().div_ceil(BATCH));
    if threads < 2 {
        return items.iter().enumerate().map(|(index, item)| function(index, item)).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut batches = Vec::new();
        loop {
            let from = next.fetch_add(BATCH, Ordering::Relaxed);
            let Some(batch) = items.get(from..items.len().min(from + BATCH)).filter(|it| !it.is_empty())
            else {
                return batches;
            };
            let results: Vec<U> =
                batch.iter().enumerate().map(|(index, item)| function(from + index, item)).collect();
            batches.push((from, results));
        }
    };
    let mut batches = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut batches = work();
        for other in others {
            batches.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        batches
    });
    batches.sort_unstable_by_key(|(from, _)| *from);
    batches.into_iter().flat_map(|(_, results)| results).collect()
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
}
