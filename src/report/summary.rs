//! The report's numbers: accuracy with intervals, paired differences, accuracy by level.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::data::{Comparison, Data, Model};
use crate::statistics::{Estimate, bootstrap_difference, bootstrap_mean, mean, oracle, pass_at_k};
use crate::{Error, Result};

/// The row of the oracle ensemble in the accuracy table.
pub const ORACLE: &str = "oracle ensemble";

/// Everything in numbers, as in `summary.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Summary {
    pub title: String,
    /// Task sets, the families first.
    pub sets: Vec<String>,
    pub families: Vec<String>,
    pub modes: Vec<Mode>,
    pub accuracy: Vec<Accuracy>,
    pub comparisons: Vec<Difference>,
    pub levels: Vec<Levels>,
    pub responses: Vec<Responses>,
}

/// A way of answering.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mode {
    /// `greedy` or `sampled`, as in the scores.
    pub name: String,
    /// `pass@1, greedy` or `avg@8 at temperature 1`.
    pub label: String,
    pub samples: u32,
}

/// One model's accuracy in one mode.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Accuracy {
    pub model: String,
    pub mode: String,
    /// One for each set.
    pub sets: Vec<Option<Estimate>>,
    /// Mean of the families' accuracies.
    pub families: Option<Estimate>,
    /// Mean of all sets' accuracies.
    pub overall: Option<Estimate>,
}

/// A paired difference in accuracy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Difference {
    pub model: String,
    pub against: String,
    pub sets: Vec<String>,
    pub mode: String,
    pub difference: Estimate,
    /// `better`, `worse` or `no difference shown`: whether the interval excludes 0.
    pub verdict: String,
}

/// One model's accuracy on one set by level, in the sampled mode where there is one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Levels {
    pub model: String,
    pub set: String,
    /// (level, problems, accuracy).
    pub levels: Vec<(u32, usize, f64)>,
}

/// How one model's sampled responses are, as means over the families.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Responses {
    pub model: String,
    /// (k, pass@k).
    pub pass: Vec<(u32, f64)>,
    /// Share of well-formed responses.
    pub well_formed: f64,
    /// Mean response length in tokens.
    pub length: f64,
}

/// One model's share of right samples by task id, for one (set, mode).
type Shares<'a> = BTreeMap<&'a str, f64>;

struct Table<'a> {
    models: Vec<&'a Model>,
    /// By (model, set, mode).
    shares: BTreeMap<[String; 3], Shares<'a>>,
}

impl<'a> Table<'a> {
    fn of(&self, model: &str, set: &str, mode: &str) -> Option<&Shares<'a>> {
        self.shares.get(&[model, set, mode].map(String::from))
    }

    /// Each set's shares, `None` when one has none.
    fn strata(&self, model: &str, sets: &[String], mode: &str) -> Option<Vec<Vec<f64>>> {
        sets.iter()
            .map(|set| Some(self.of(model, set, mode)?.values().copied().collect()))
            .collect()
    }

    fn names(&self) -> String {
        self.models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl Summary {
    /// # Errors
    /// `Usage` for a name in the settings that no input has; `Data` when two compared models were
    /// scored on different tasks.
    pub fn new(data: &Data) -> Result<Self> {
        let spec = &data.spec;
        let models = order(data)?;
        let mut table = Table { models, shares: BTreeMap::new() };
        let (mut all_sets, mut modes) = (BTreeSet::new(), BTreeMap::new());
        for model in &table.models {
            for score in &model.scores {
                let (set, mode) = (score.set.as_str(), score.mode.as_str());
                all_sets.insert(set.to_string());
                modes.entry(mode).or_insert((score.samples, score.temperature));
                let share = f64::from(score.correct) / f64::from(score.samples.max(1));
                let shares =
                    table.shares.entry([&model.name, set, mode].map(String::from)).or_default();
                if shares.insert(&score.task_id, share).is_some() {
                    return Err(Error::data(format!(
                        "scores of `{}`: task {} stands twice in set `{set}`",
                        model.name, score.task_id
                    )));
                }
            }
        }
        let families = families(data, &all_sets)?;
        let mut sets = families.clone();
        sets.extend(all_sets.into_iter().filter(|set| !families.contains(set)));
        let modes: Vec<Mode> = modes
            .into_iter()
            .map(|(name, (samples, temperature))| Mode {
                name: name.into(),
                label: match (name, samples) {
                    ("greedy", 1) => "pass@1, greedy".into(),
                    _ => format!("avg@{samples} at temperature {temperature}"),
                },
                samples,
            })
            .collect();
        Ok(Self {
            title: spec.title.clone(),
            accuracy: accuracy(data, &table, &sets, &families, &modes)?,
            comparisons: comparisons(data, &table, &sets, &families, &modes)?,
            levels: levels(&table, &sets, &modes),
            responses: responses(&table, &families),
            sets,
            families,
            modes,
        })
    }
}

/// The models in the order of the table: baseline, specialists, then as compared, then by name.
fn order(data: &Data) -> Result<Vec<&Model>> {
    let spec = &data.spec;
    let known = || data.models.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut models: Vec<&Model> = Vec::new();
    let named = spec
        .baseline
        .iter()
        .chain(&spec.specialists)
        .chain(spec.comparisons.iter().flat_map(|c| [&c.against, &c.model]));
    for name in named {
        let found = data.models.iter().find(|model| model.name == *name).ok_or_else(|| {
            Error::usage(format!("report: no scores of a model `{name}`; there are {}", known()))
        })?;
        if !models.iter().any(|model| model.name == *name) {
            models.push(found);
        }
    }
    let rest: Vec<_> =
        data.models.iter().filter(|m| !models.iter().any(|known| known.name == m.name)).collect();
    models.extend(rest);
    Ok(models)
}

fn families(data: &Data, sets: &BTreeSet<String>) -> Result<Vec<String>> {
    let spec = &data.spec;
    let wanted = if !spec.families.is_empty() {
        spec.families.clone()
    } else if !spec.specialists.is_empty() && spec.specialists.iter().all(|s| sets.contains(s)) {
        spec.specialists.clone()
    } else {
        sets.iter().cloned().collect()
    };
    check_sets(&wanted, sets.iter())?;
    Ok(wanted)
}

fn check_sets<'a>(
    wanted: &[String],
    known: impl Iterator<Item = &'a String> + Clone,
) -> Result<()> {
    let missing = wanted.iter().find(|set| !known.clone().any(|known| known == *set));
    missing.map_or(Ok(()), |set| {
        let known: Vec<_> = known.cloned().collect();
        Err(Error::usage(format!("report: no task set `{set}`; there are {}", known.join(", "))))
    })
}

fn accuracy(
    data: &Data,
    table: &Table,
    sets: &[String],
    families: &[String],
    modes: &[Mode],
) -> Result<Vec<Accuracy>> {
    let specialists = &data.spec.specialists;
    let oracle_after = specialists.iter().filter_map(|s| place(table, s)).max();
    let mut rows = Vec::new();
    for mode in modes {
        for (index, model) in table.models.iter().enumerate() {
            let strata = |sets: &[String]| table.strata(&model.name, sets, &mode.name);
            rows.push(row(&model.name, mode, sets, families, &strata));
            if specialists.len() > 1 && Some(index) == oracle_after {
                let mut solved: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
                for set in sets {
                    if let Some(shares) = ensemble(table, specialists, set, &mode.name)? {
                        solved.insert(set, shares);
                    }
                }
                let strata = |sets: &[String]| {
                    sets.iter().map(|set| solved.get(set.as_str()).cloned()).collect()
                };
                rows.push(row(ORACLE, mode, sets, families, &strata));
            }
        }
    }
    Ok(rows)
}

fn place(table: &Table, name: &str) -> Option<usize> {
    table.models.iter().position(|model| model.name == name)
}

fn row(
    model: &str,
    mode: &Mode,
    sets: &[String],
    families: &[String],
    strata: &dyn Fn(&[String]) -> Option<Vec<Vec<f64>>>,
) -> Accuracy {
    let estimate = |sets: &[String]| bootstrap_mean(&strata(sets)?, "report/accuracy");
    Accuracy {
        model: model.into(),
        mode: mode.name.clone(),
        sets: sets.iter().map(|set| estimate(std::slice::from_ref(set))).collect(),
        families: estimate(families),
        overall: estimate(sets),
    }
}

/// The oracle's score on every task of `set`; `None` when a specialist was not scored on it.
fn ensemble(
    table: &Table,
    specialists: &[String],
    set: &str,
    mode: &str,
) -> Result<Option<Vec<f64>>> {
    let Some(all) =
        specialists.iter().map(|name| table.of(name, set, mode)).collect::<Option<Vec<_>>>()
    else {
        return Ok(None);
    };
    for (shares, name) in all.iter().zip(specialists).skip(1) {
        same_tasks(all[0], shares, set, &specialists[0], name)?;
    }
    let tasks = all[0].keys();
    Ok(Some(
        tasks
            .map(|task| oracle(&all.iter().map(|shares| shares[task]).collect::<Vec<_>>()))
            .collect(),
    ))
}

fn same_tasks(a: &Shares, b: &Shares, set: &str, name_a: &str, name_b: &str) -> Result<()> {
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

fn comparisons(
    data: &Data,
    table: &Table,
    sets: &[String],
    families: &[String],
    modes: &[Mode],
) -> Result<Vec<Difference>> {
    let spec = &data.spec;
    let mut wanted = Vec::new();
    if let Some(baseline) = &spec.baseline {
        for (specialist, family) in spec.specialists.iter().zip(families) {
            let sets = vec![family.clone()];
            wanted.push(Comparison { model: specialist.clone(), against: baseline.clone(), sets });
        }
    }
    wanted.extend(spec.comparisons.iter().cloned());
    let mut differences = Vec::new();
    for Comparison { model, against, sets: over } in wanted {
        check_sets(&over, sets.iter())?;
        let over = if over.is_empty() { families.to_vec() } else { over };
        for mode in modes {
            let mut strata = Vec::new();
            for set in &over {
                let (Some(a), Some(b)) =
                    (table.of(&model, set, &mode.name), table.of(&against, set, &mode.name))
                else {
                    return Err(Error::usage(format!(
                        "report: `{model}` and `{against}` were not both scored on `{set}` \
                         ({}); models are {}",
                        mode.name,
                        table.names()
                    )));
                };
                same_tasks(a, b, set, &model, &against)?;
                strata.push(a.iter().map(|(task, share)| (*share, b[task])).collect());
            }
            let Some(difference) = bootstrap_difference(&strata, "report/difference") else {
                continue;
            };
            differences.push(Difference {
                model: model.clone(),
                against: against.clone(),
                sets: over.clone(),
                mode: mode.name.clone(),
                difference,
                verdict: match difference.sign() {
                    Some(true) => "better",
                    Some(false) => "worse",
                    None => "no difference shown",
                }
                .into(),
            });
        }
    }
    Ok(differences)
}

fn levels(table: &Table, sets: &[String], modes: &[Mode]) -> Vec<Levels> {
    let mode = modes.iter().find(|mode| mode.name == "sampled").or(modes.first());
    let Some(mode) = mode else { return Vec::new() };
    let mut rows = Vec::new();
    for set in sets {
        for model in &table.models {
            let mut levels: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
            for score in model.scores.iter().filter(|s| s.set == *set && s.mode == mode.name) {
                let share = f64::from(score.correct) / f64::from(score.samples.max(1));
                levels.entry(score.level).or_default().push(share);
            }
            if !levels.is_empty() {
                let levels = levels.iter().map(|(level, v)| (*level, v.len(), mean(v))).collect();
                rows.push(Levels { model: model.name.clone(), set: set.clone(), levels });
            }
        }
    }
    rows
}

fn responses(table: &Table, families: &[String]) -> Vec<Responses> {
    let mut rows = Vec::new();
    for model in &table.models {
        let of = |set: &String, value: &dyn Fn(&crate::dataset::Score) -> f64| {
            let values: Vec<f64> = model
                .scores
                .iter()
                .filter(|s| s.set == *set && s.mode == "sampled")
                .map(value)
                .collect();
            mean(&values)
        };
        let over = |value: &dyn Fn(&crate::dataset::Score) -> f64| {
            mean(&families.iter().map(|set| of(set, value)).collect::<Vec<_>>())
        };
        let samples = model.scores.iter().filter(|s| s.mode == "sampled").map(|s| s.samples).min();
        let Some(samples) = samples else { continue };
        let doubling = std::iter::successors(Some(1), |k| Some(k * 2));
        rows.push(Responses {
            model: model.name.clone(),
            pass: doubling
                .take_while(|k| *k <= samples)
                .map(|k| (k, over(&|s| pass_at_k(s.samples, s.correct, k))))
                .collect(),
            well_formed: over(&|s| f64::from(s.format_ok) / f64::from(s.samples.max(1))),
            length: over(&|s| f64::from(s.length)),
        });
    }
    rows
}
