//! Everything random in a run comes from here, and all of it from the seed.

use fastrand::Rng;

/// A seeded source of decisions.
#[derive(Debug)]
pub struct Dice {
    rng: Rng,
}

impl Dice {
    /// Dice that fall the same way for the same seed.
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed) }
    }

    /// A number below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { self.rng.usize(..end) }
    }

    /// A number from `first` to `last`, both included.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        self.rng.u64(first..=last)
    }

    /// True once in `times`, on average.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// True `permille` times in 1,000, on average.
    pub fn permille(&mut self, permille: u32) -> bool {
        self.rng.u32(..1000) < permille
    }

    /// One of `choices`, which may not be empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A number from 1 to `last` whose order of magnitude is random: small ones are as likely as
    /// large ones.
    pub fn magnitude(&mut self, last: u64) -> u64 {
        let bits = 64 - last.max(1).leading_zeros();
        let top = 1u64 << self.rng.u32(1..=bits).min(63);
        self.between(1, top.min(last.max(1)))
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.rng.u64(..)
    }
}
