//! How many requests registries still allow. The one label that is not of a closed set: few registries say it, and at
//! most [`MAX_HOSTS`] are told.

use larder_registry::Budget;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};

const MAX_HOSTS: usize = 32;

/// Asks for the budgets whenever metrics are read, so that a registry that is forgotten disappears.
pub(super) struct Collector<F> {
    budgets: F,
    remaining: IntGaugeVec,
}

impl<F: Fn() -> Vec<(String, Budget)>> Collector<F> {
    pub(super) fn new(budgets: F) -> Result<Self, prometheus::Error> {
        let remaining = IntGaugeVec::new(
            Opts::new(
                "larder_registry_requests_remaining",
                "Requests that a registry still allows, as it said last.",
            ),
            &["registry"],
        )?;
        Ok(Self { budgets, remaining })
    }
}

impl<F: Fn() -> Vec<(String, Budget)> + Send + Sync> prometheus::core::Collector for Collector<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.remaining.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut budgets = (self.budgets)();
        // Those with least left matter most.
        budgets.sort_by(|(a, left), (b, right)| (left.remaining, a).cmp(&(right.remaining, b)));
        self.remaining.reset();
        for (host, budget) in budgets.iter().take(MAX_HOSTS).rev() {
            let remaining = i64::try_from(budget.remaining).unwrap_or(i64::MAX);
            self.remaining.with_label_values(&[host.as_str()]).set(remaining);
        }
        self.remaining.collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use prometheus::core::Collector as _;

    use super::*;

    #[test]
    fn the_registries_with_least_left_are_told() {
        let budget = |i: usize| Budget {
            remaining: i as u64,
            limit: None,
            reset: None,
        };
        let all: Vec<_> = (0..100).map(|i| (format!("r{i}.io"), budget(i))).collect();
        let collector = Collector::new(move || all.clone()).unwrap();
        let families = collector.collect();
        assert_eq!(families.len(), 1);
        let mut values: Vec<_> = families[0]
            .get_metric()
            .iter()
            .map(|m| m.get_gauge().get_value() as usize)
            .collect();
        values.sort_unstable();
        assert_eq!(values, (0..MAX_HOSTS).collect::<Vec<_>>());
    }
}
