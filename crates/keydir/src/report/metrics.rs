//! The same series through the facade `metrics` (feature `metrics`); nothing without the feature.

pub(crate) use imp::Emitted;

#[cfg(not(feature = "metrics"))]
mod imp {
    use crate::report::DirReport;

    #[derive(Default)]
    pub(crate) struct Emitted {}

    impl Emitted {
        pub(crate) fn emit(&self, _: impl FnOnce() -> DirReport) {}
    }
}

#[cfg(feature = "metrics")]
mod imp {
    use std::collections::HashMap;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::{Mutex, PoisonError, TryLockError};

    use ::metrics::{Key, Label, counter, describe_counter, describe_gauge, gauge};

    use crate::report::DirReport;
    use crate::report::series::{Kind, families};

    type Values = HashMap<Key, (Kind, u64)>;

    /// What was emitted of one directory, so that what is gone since can be taken back.
    #[derive(Default)]
    pub(crate) struct Emitted(Mutex<Values>);

    impl Emitted {
        /// Nothing while another thread is at it: a recorder that hangs must not hang whoever looks after the others.
        pub(crate) fn emit(&self, report: impl FnOnce() -> DirReport) {
            let mut values = match self.0.try_lock() {
                Ok(values) => values,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            guarded(|| update(&mut values, &report()));
        }
    }

    impl Drop for Emitted {
        fn drop(&mut self) {
            let values = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
            guarded(|| take_back(&*values));
        }
    }

    /// A recorder is somebody else's code: if it panics, nothing else shall.
    fn guarded(emit: impl FnOnce()) {
        let _ = catch_unwind(AssertUnwindSafe(emit));
    }

    fn update(values: &mut Values, report: &DirReport) {
        let mut now = Values::with_capacity(values.len());
        for (name, family) in families([report]) {
            if values.is_empty() {
                describe(name, family.kind, family.help);
            }
            for (labels, value) in family.samples {
                let labels = labels
                    .into_iter()
                    .map(|(name, value)| Label::new(name, value.to_owned()));
                let key = Key::from_parts(name, labels.collect::<Vec<_>>());
                let before = values.get(&key).map_or(0, |(_, value)| *value);
                set(&key, family.kind, before, value);
                now.insert(key, (family.kind, value));
            }
        }
        take_back(values.iter().filter(|(key, _)| !now.contains_key(key)));
        *values = now;
    }

    fn describe(name: &'static str, kind: Kind, help: &'static str) {
        match kind {
            Kind::Counter => describe_counter!(name, help),
            _ => describe_gauge!(name, help),
        }
    }

    /// Counters are told the difference: directories on one path, also one after the other, add up.
    fn set(key: &Key, kind: Kind, before: u64, value: u64) {
        let (name, labels) = key.clone().into_parts();
        match kind {
            Kind::Counter => counter!(name, labels).increment(value.saturating_sub(before)),
            #[allow(clippy::cast_precision_loss, reason = "exact up to 2^53")]
            _ => gauge!(name, labels).set(value as f64),
        }
    }

    /// The facade cannot forget a series. A time of something that is gone must not look like one of 1970.
    fn take_back<'a>(gone: impl IntoIterator<Item = (&'a Key, &'a (Kind, u64))>) {
        for (key, (kind, _)) in gone {
            let (name, labels) = key.clone().into_parts();
            match kind {
                Kind::Counter => {}
                Kind::Amount | Kind::Any => gauge!(name, labels).set(0.0),
                Kind::Least | Kind::Latest => gauge!(name, labels).set(f64::NAN),
            }
        }
    }
}
