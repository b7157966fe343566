//! Every model's share of right answers to every task, by set and mode.

use std::collections::{BTreeMap, BTreeSet};

use super::data::Model;
use super::summary::Mode;
use crate::statistics::oracle;
use crate::{Error, Result};

/// Sampled where a set is, else greedy: how the paper's table mixes its benchmarks.
pub const MIXED: &str = "mixed";

/// A model's share of right samples by task id, for one set in one mode.
pub type Share<'a> = BTreeMap<&'a str, f64>;

pub struct Shares<'a> {
    /// By (model, set, mode).
    shares: BTreeMap<[String; 3], Share<'a>>,
    sets: BTreeSet<String>,
    modes: Vec<Mode>,
}

impl<'a> Shares<'a> {
    /// # Errors
    /// `Data` for a task that stands twice in a set.
    pub fn new(models: &[&'a Model]) -> Result<Self> {
        let mut shares: BTreeMap<[String; 3], Share> = BTreeMap::new();
        let mut sets = BTreeSet::new();
        // How many samples, at which temperature and top-p.
        let mut modes: BTreeMap<&str, BTreeSet<(u32, String)>> = BTreeMap::new();
        for model in models {
            for score in &model.scores {
                let (set, mode) = (score.set.as_str(), score.mode.as_str());
                sets.insert(set.to_string());
                let mut settings = format!(" at temperature {}", score.temperature);
                if let Some(top_p) = score.top_p.filter(|top_p| *top_p < 1.0) {
                    settings += &format!(", top-p {top_p}");
                }
                modes.entry(mode).or_default().insert((score.samples, settings));
                let share = f64::from(score.correct) / f64::from(score.samples.max(1));
                let tasks = shares.entry([&model.name, set, mode].map(String::from)).or_default();
                if tasks.insert(&score.task_id, share).is_some() {
                    return Err(Error::data(format!(
                        "scores of `{}`: task {} stands twice in set `{set}`",
                        model.name, score.task_id
                    )));
                }
            }
        }
        let label = |mode: &str, settings: &BTreeSet<(u32, String)>| {
            let all: Vec<_> = settings
                .iter()
                .map(|(samples, settings)| match (mode, samples) {
                    ("greedy", 1) => "pass@1, greedy".to_string(),
                    _ => format!("avg@{samples}{settings}"),
                })
                .collect();
            all.join(" or ")
        };
        let mut named: Vec<Mode> = modes
            .iter()
            .map(|(mode, settings)| Mode { name: mode.to_string(), label: label(mode, settings) })
            .collect();
        // `sampled` leads, as it says more.
        named.reverse();
        let of_mode = |[.., mode]: &&[String; 3]| mode == "sampled";
        let sampled: BTreeSet<String> =
            shares.keys().filter(of_mode).map(|[_, set, _]| set.clone()).collect();
        if !sampled.is_empty() && sampled.len() < sets.len() {
            let of = |[_, set, mode]: &[String; 3]| (mode == "sampled") == sampled.contains(set);
            let mixed: Vec<_> = shares
                .iter()
                .filter(|(key, _)| of(key))
                .map(|([model, set, _], share)| {
                    ([model, set, MIXED].map(String::from), share.clone())
                })
                .collect();
            let on: Vec<_> = sampled.into_iter().collect();
            let by: Vec<_> =
                named.iter().filter(|m| m.name == "sampled").map(|m| &m.label[..]).collect();
            let label = format!("pass@1, greedy; on {} {}", on.join(", "), by.concat());
            named.insert(0, Mode { name: MIXED.into(), label });
            shares.extend(mixed);
        }
        Ok(Self { shares, sets, modes: named })
    }

    pub fn sets(&self) -> &BTreeSet<String> {
        &self.sets
    }

    pub fn modes(&self) -> Vec<Mode> {
        self.modes.clone()
    }

    pub fn of(&self, model: &str, set: &str, mode: &str) -> Option<&Share<'a>> {
        self.shares.get(&[model, set, mode].map(String::from))
    }

    /// Each set's shares, `None` when one has none.
    pub fn strata(&self, model: &str, sets: &[String], mode: &str) -> Option<Vec<Vec<f64>>> {
        let of = |set: &String| Some(self.of(model, set, mode)?.values().copied().collect());
        sets.iter().map(of).collect()
    }

    /// Pairs of the shares of `a` and `b` in each set; `None` when one was not scored on a set.
    ///
    /// # Errors
    /// `Data` when they were scored on other tasks.
    pub fn pairs(
        &self,
        a: &str,
        b: &str,
        sets: &[String],
        mode: &str,
    ) -> Result<Option<Vec<Vec<(f64, f64)>>>> {
        let mut all = Vec::new();
        for set in sets {
            let (Some(of_a), Some(of_b)) = (self.of(a, set, mode), self.of(b, set, mode)) else {
                return Ok(None);
            };
            same_tasks(of_a, of_b, set, a, b)?;
            all.push(of_a.values().copied().zip(of_b.values().copied()).collect());
        }
        Ok(Some(all))
    }

    /// What each of `models` scores on the tasks of `set`, task by task; `None` when one was not
    /// scored on it.
    ///
    /// # Errors
    /// As [`Self::pairs`].
    pub fn beside(
        &self,
        models: &[String],
        set: &str,
        mode: &str,
    ) -> Result<Option<Vec<Vec<f64>>>> {
        let all: Option<Vec<_>> = models.iter().map(|name| self.of(name, set, mode)).collect();
        let Some(all) = all else { return Ok(None) };
        for (share, name) in all.iter().zip(models).skip(1) {
            same_tasks(all[0], share, set, &models[0], name)?;
        }
        let Some(first) = all.first() else { return Ok(None) };
        let task = |task: &&str| all.iter().map(|share| share[*task]).collect();
        Ok(Some(first.keys().map(task).collect()))
    }

    /// The oracle's score on every task of each set; `None` when a specialist was not scored on one.
    ///
    /// # Errors
    /// As [`Self::pairs`].
    pub fn ensemble(
        &self,
        specialists: &[String],
        sets: &[String],
        mode: &str,
    ) -> Result<Option<Vec<Vec<f64>>>> {
        let mut all = Vec::new();
        for set in sets {
            let Some(tasks) = self.beside(specialists, set, mode)? else { return Ok(None) };
            all.push(tasks.iter().map(|shares| oracle(shares)).collect());
        }
        Ok(Some(all))
    }
}

fn same_tasks(a: &Share, b: &Share, set: &str, name_a: &str, name_b: &str) -> Result<()> {
    if a.keys().eq(b.keys()) {
        return Ok(());
    }
    Err(Error::data(format!(
        "set `{set}`: `{name_a}` was scored on {} tasks and `{name_b}` on {} that are not the \
         same; evaluate both on the same artifact",
        a.len(),
        b.len()
    )))
}
