//! The report's numbers: accuracy with intervals, paired differences, accuracy by level.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::compare::{self, Difference};
use super::complement::{self, Complement};
use super::data::{Comparison, Data, Group, Model};
use super::shares::Shares;
use crate::dataset::Score;
use crate::statistics::{Estimate, bootstrap_mean, mean, pass_at_k};
use crate::{Error, Result};

/// The row of the oracle ensemble in the accuracy table.
pub const ORACLE: &str = "oracle ensemble";

/// Everything in numbers, as in `summary.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub title: String,
    /// Task sets, the families first.
    pub sets: Vec<String>,
    pub families: Vec<String>,
    pub columns: Vec<Column>,
    /// The headline mode first.
    pub modes: Vec<Mode>,
    pub tables: Vec<Group>,
    /// By mode and model, the values in the order of the columns.
    pub accuracy: Vec<Accuracy>,
    pub comparisons: Vec<Difference>,
    pub levels: Vec<Levels>,
    pub responses: Vec<Responses>,
    pub complement: Vec<Complement>,
}

/// A column of accuracies: of one set, or a mean of several.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Column {
    pub label: String,
    pub sets: Vec<String>,
    pub mean: bool,
}

/// A way of answering.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mode {
    /// `greedy` or `sampled`, as in the scores, or `mixed`: sampled on the sets that are.
    pub name: String,
    /// `pass@1, greedy` or `avg@8 at temperature 1`.
    pub label: String,
}

/// One model's accuracy in one mode, by column.
#[derive(Debug, Clone, Serialize)]
pub struct Accuracy {
    pub model: String,
    pub mode: String,
    pub values: Vec<Option<Estimate>>,
    /// Whether it differs from the baseline: better (true), worse (false), or not shown.
    pub marks: Vec<Option<bool>>,
}

/// One model's accuracy on one set by level, in the headline mode.
#[derive(Debug, Clone, Serialize)]
pub struct Levels {
    pub model: String,
    pub set: String,
    /// (level, problems, accuracy).
    pub levels: Vec<(u32, usize, f64)>,
}

/// How one model's sampled responses are, as means over the families that were sampled.
#[derive(Debug, Clone, Serialize)]
pub struct Responses {
    pub model: String,
    pub sets: Vec<String>,
    /// (k, pass@k).
    pub pass: Vec<(u32, Estimate)>,
    /// (k, maj@k), where the scores have it.
    pub majority: Option<(u32, Estimate)>,
    /// Share of well-formed responses.
    pub well_formed: f64,
    /// Share of responses that reached the limit of new tokens.
    pub cut_off: Option<f64>,
    /// Mean response length in tokens.
    pub length: f64,
}

impl Summary {
    /// # Errors
    /// `Usage` for a name in the settings that no input has; `Data` when two compared models were
    /// scored on different tasks.
    pub fn new(data: &Data) -> Result<Self> {
        let spec = &data.spec;
        let models = order(data)?;
        let shares = Shares::new(&models)?;
        let families = families(data, shares.sets())?;
        let mut sets = families.clone();
        sets.extend(shares.sets().iter().filter(|set| !families.contains(set)).cloned());
        let columns = columns(data, &sets, &families)?;
        let modes = shares.modes();
        let accuracy = accuracy(data, &models, &shares, &columns, &modes)?;
        let comparisons = comparisons(data, &shares, &sets, &families, &modes)?;
        let headline = modes.first().map_or("", |mode| mode.name.as_str());
        Ok(Self {
            title: spec.title.clone(),
            tables: tables(data, &accuracy)?,
            levels: levels(&models, &shares, &sets, headline),
            responses: responses(&models, &families),
            complement: complement::complement(&shares, &spec.specialists, &sets, headline)?,
            sets,
            families,
            columns,
            modes,
            accuracy,
            comparisons,
        })
    }

    /// The models in the table's order, without the ensemble.
    pub fn models(&self) -> Vec<&str> {
        let mut models: Vec<&str> = Vec::new();
        for row in self.accuracy.iter().filter(|row| row.model != ORACLE) {
            if !models.contains(&&row.model[..]) {
                models.push(&row.model);
            }
        }
        models
    }
}

/// The models in the order of the table: baseline, specialists, then as compared, then by name.
fn order(data: &Data) -> Result<Vec<&Model>> {
    let spec = &data.spec;
    let known = || data.models.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut models: Vec<&Model> = Vec::new();
    let tables = spec.tables.iter().flat_map(|group| &group.models);
    let named = spec
        .baseline
        .iter()
        .chain(&spec.specialists)
        .chain(spec.comparisons.iter().flat_map(|c| [&c.against, &c.model]))
        .chain(tables.filter(|name| *name != ORACLE));
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

fn columns(data: &Data, sets: &[String], families: &[String]) -> Result<Vec<Column>> {
    let one = |set: &String| Column { label: set.clone(), sets: vec![set.clone()], mean: false };
    let mut columns: Vec<Column> = sets.iter().map(one).collect();
    let mean = |label: &str, sets: &[String]| Column {
        label: label.into(),
        sets: sets.to_vec(),
        mean: true,
    };
    for (label, over) in &data.spec.means {
        check_sets(over, sets.iter())?;
        columns.push(mean(label, over));
    }
    if data.spec.means.is_empty() {
        if families.len() > 1 && families.len() != sets.len() {
            columns.push(mean("family mean", families));
        }
        if sets.len() > 1 {
            columns.push(mean("mean", sets));
        }
    }
    Ok(columns)
}

fn tables(data: &Data, accuracy: &[Accuracy]) -> Result<Vec<Group>> {
    let mut all: Vec<String> = Vec::new();
    for row in accuracy {
        if !all.contains(&row.model) {
            all.push(row.model.clone());
        }
    }
    if data.spec.tables.is_empty() {
        return Ok(vec![Group { title: String::new(), models: all }]);
    }
    for name in data.spec.tables.iter().flat_map(|group| &group.models) {
        if !all.contains(name) {
            return Err(Error::usage(format!(
                "report: a table has a row `{name}`; the ensemble is that of two `specialists` or more"
            )));
        }
    }
    Ok(data.spec.tables.clone())
}

fn accuracy(
    data: &Data,
    models: &[&Model],
    shares: &Shares,
    columns: &[Column],
    modes: &[Mode],
) -> Result<Vec<Accuracy>> {
    let specialists = &data.spec.specialists;
    let last = models.iter().rposition(|model| specialists.contains(&model.name));
    let mut rows = Vec::new();
    for mode in modes {
        let baseline = data.spec.baseline.as_deref();
        let marks = compare::marks(shares, models, baseline, columns, &mode.name);
        for (index, (model, marks)) in models.iter().zip(marks).enumerate() {
            let values = |column: &Column| {
                let strata = shares.strata(&model.name, &column.sets, &mode.name)?;
                bootstrap_mean(&strata, "report/accuracy")
            };
            rows.push(Accuracy {
                model: model.name.clone(),
                mode: mode.name.clone(),
                values: columns.iter().map(values).collect(),
                marks,
            });
            if specialists.len() > 1 && Some(index) == last {
                let mut values = Vec::new();
                for column in columns {
                    let solved = shares.ensemble(specialists, &column.sets, &mode.name)?;
                    values.push(solved.and_then(|s| bootstrap_mean(&s, "report/accuracy")));
                }
                let marks = vec![None; columns.len()];
                let (model, mode) = (ORACLE.into(), mode.name.clone());
                rows.push(Accuracy { model, mode, values, marks });
            }
        }
    }
    Ok(rows)
}

/// The specialists on their own families, then those that the settings ask for.
fn comparisons(
    data: &Data,
    shares: &Shares,
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
    for comparison in &spec.comparisons {
        check_sets(&comparison.sets, sets.iter())?;
        let mut comparison = comparison.clone();
        if comparison.sets.is_empty() {
            comparison.sets = families.to_vec();
        }
        wanted.push(comparison);
    }
    let mut differences = Vec::new();
    for mode in modes {
        differences.extend(compare::differences(shares, &wanted, &mode.name)?);
    }
    Ok(differences)
}

fn levels(models: &[&Model], shares: &Shares, sets: &[String], mode: &str) -> Vec<Levels> {
    let mut rows = Vec::new();
    for set in sets {
        for model in models {
            let Some(share) = shares.of(&model.name, set, mode) else { continue };
            let mut levels: BTreeMap<u32, BTreeMap<&str, f64>> = BTreeMap::new();
            for score in model.scores.iter().filter(|score| score.set == *set) {
                let of_level = levels.entry(score.level).or_default();
                of_level.extend(share.get_key_value(&score.task_id[..]).map(|(k, v)| (*k, *v)));
            }
            let of_level = |(level, tasks): (u32, BTreeMap<&str, f64>)| {
                let values: Vec<f64> = tasks.into_values().collect();
                (level, values.len(), mean(&values))
            };
            let levels = levels.into_iter().map(of_level).collect();
            rows.push(Levels { model: model.name.clone(), set: set.clone(), levels });
        }
    }
    rows
}

fn responses(models: &[&Model], families: &[String]) -> Vec<Responses> {
    let mut rows = Vec::new();
    for model in models {
        let sampled = |set: &String| {
            let of = move |score: &&Score| score.set == *set && score.mode == "sampled";
            model.scores.iter().filter(of).collect::<Vec<_>>()
        };
        let sets: Vec<String> =
            families.iter().filter(|set| !sampled(set).is_empty()).cloned().collect();
        let strata = |value: &dyn Fn(&Score) -> f64| -> Vec<Vec<f64>> {
            sets.iter().map(|set| sampled(set).into_iter().map(value).collect()).collect()
        };
        let over = |value: &dyn Fn(&Score) -> f64| {
            mean(&strata(value).iter().map(|values| mean(values)).collect::<Vec<_>>())
        };
        let estimate =
            |value: &dyn Fn(&Score) -> f64| bootstrap_mean(&strata(value), "report/pass");
        let all: Vec<&Score> = sets.iter().flat_map(sampled).collect();
        let Some(samples) = all.iter().map(|score| score.samples).min() else { continue };
        let share = |count: u32, score: &Score| f64::from(count) / f64::from(score.samples.max(1));
        let doubling = std::iter::successors(Some(1), |k| Some(k * 2));
        let pass = doubling.take_while(|k| *k <= samples);
        let whole = all.iter().all(|score| score.majority.is_some());
        let cut = all.iter().all(|score| score.cut_off.is_some());
        rows.push(Responses {
            model: model.name.clone(),
            pass: pass
                .filter_map(|k| Some((k, estimate(&|s| pass_at_k(s.samples, s.correct, k))?)))
                .collect(),
            majority: whole
                .then(|| Some((samples, estimate(&|s| s.majority.unwrap_or(0.0))?)))
                .flatten(),
            well_formed: over(&|s| share(s.format_ok, s)),
            cut_off: cut.then(|| over(&|s| share(s.cut_off.unwrap_or(0), s))),
            length: over(&|s| f64::from(s.length)),
            sets,
        });
    }
    rows
}
