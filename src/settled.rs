//! When what is read again and again may be taken: once it was read twice alike, nobody is writing it.

/// What was read last, and what was taken. `T` is whole: of several files all that they hold.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Settled<T> {
    last: T,
    taken: T,
}

/// Never the content: it may be a private key.
impl<T> std::fmt::Debug for Settled<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Settled(…)")
    }
}

impl<T: Clone + PartialEq> Settled<T> {
    /// With something that was taken.
    pub(crate) fn new(taken: T) -> Self {
        Self { last: taken.clone(), taken }
    }

    /// What is to be taken now: what is read as it was read before, and not as it was taken.
    pub(crate) fn read(&mut self, read: T) -> Option<&T> {
        let whole = read == self.last;
        self.last = read;
        if !whole || self.last == self.taken {
            return None;
        }
        self.taken.clone_from(&self.last);
        Some(&self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_twice_alike_is_taken_once() {
        let mut settled = Settled::new(1);
        let taken: Vec<_> =
            [1, 2, 3, 3, 3, 1, 3, 1, 1].map(|read| settled.read(read).copied()).into_iter().collect();
        assert_eq!(taken, [None, None, None, Some(3), None, None, None, None, Some(1)]);
    }
}
