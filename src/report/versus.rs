//! Two runs side by side.

use std::collections::BTreeMap;

use serde_json::Value;

use super::course::{Course, duration};
use super::curves::{Figure, marks};
use super::data::Data;
use super::shares::Shares;
use super::table::{Cell, Column, Row, Table, points};
use crate::Result;
use crate::statistics::{Estimate, bootstrap_difference, bootstrap_mean, bootstrap_unpaired};

/// One model of both runs on one set.
#[derive(Debug, Clone)]
pub struct Pair {
    pub model: String,
    pub set: String,
    pub mode: String,
    pub this: Estimate,
    pub other: Estimate,
    /// This minus the other.
    pub difference: Estimate,
    /// Whether both were scored on the same problems.
    pub paired: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Versus {
    pub this: String,
    pub other: String,
    pub pairs: Vec<Pair>,
    /// Stage, parameter, and its value in both.
    pub changes: Vec<(String, String, [String; 2])>,
    /// Stage, and seconds in both.
    times: Vec<(String, [Option<f64>; 2], bool)>,
    rewards: Vec<(String, [Vec<(f64, f64)>; 2])>,
}

/// A run as far as it is compared.
pub struct Side<'a> {
    pub name: &'a str,
    pub data: &'a Data,
    pub course: &'a Course,
    /// Resolved parameters by stage.
    pub params: &'a BTreeMap<String, Value>,
}

impl Versus {
    /// # Errors
    /// `Data` for a task that stands twice in a set.
    pub fn new(this: &Side, other: &Side) -> Result<Self> {
        let [of_this, of_other] =
            [this, other].map(|side| side.data.models.iter().collect::<Vec<_>>());
        let (a, b) = (Shares::new(&of_this)?, Shares::new(&of_other)?);
        let mut pairs = Vec::new();
        for mode in a.modes() {
            let models = of_this.iter().map(|model| &model.name);
            for (model, set) in models.flat_map(|m| a.sets().iter().map(move |s| (m, s))) {
                let shares = (a.of(model, set, &mode.name), b.of(model, set, &mode.name));
                let (Some(x), Some(y)) = shares else { continue };
                let values = |share: &super::shares::Share| vec![share.values().copied().collect()];
                let (xs, ys): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (values(x), values(y));
                let paired = x.keys().eq(y.keys());
                let difference = match paired {
                    true => {
                        let both = xs[0].iter().copied().zip(ys[0].iter().copied()).collect();
                        bootstrap_difference(&[both], "report/versus")
                    }
                    false => bootstrap_unpaired(&xs, &ys, "report/versus"),
                };
                let estimates = (
                    bootstrap_mean(&xs, "report/accuracy"),
                    bootstrap_mean(&ys, "report/accuracy"),
                    difference,
                );
                let (Some(this), Some(other), Some(difference)) = estimates else { continue };
                let (model, set, mode) = (model.clone(), set.clone(), mode.name.clone());
                pairs.push(Pair { model, set, mode, this, other, difference, paired });
            }
        }
        Ok(Self {
            this: this.name.into(),
            other: other.name.into(),
            pairs,
            changes: changes(this.params, other.params),
            times: times(this.course, other.course),
            rewards: rewards(this.data, other.data),
        })
    }

    pub fn note(&self) -> String {
        let unpaired = self.pairs.iter().filter(|pair| !pair.paired).count();
        let mut note = format!(
            "{} minus {}, model by model, in percentage points with the 95% bootstrap interval, \
             paired over the same problems.",
            self.this, self.other
        );
        if unpaired > 0 {
            note += &format!(
                " {unpaired} of {} were scored on different problems: there both are resampled on \
                 their own.",
                self.pairs.len()
            );
        }
        note
    }

    pub fn tables(&self) -> Vec<Table> {
        let row = |pair: &Pair| {
            let Estimate { mean, low, high, .. } = pair.difference;
            let verdict = match pair.difference.sign() {
                Some(true) => "better",
                Some(false) => "worse",
                None => "no difference shown",
            };
            Row {
                under: format!("{}, {}", pair.set, pair.mode),
                ..Row::new(
                    &pair.model,
                    vec![
                        Cell::share(Some(pair.this)),
                        Cell::share(Some(pair.other)),
                        Cell::new(points(mean)),
                        Cell::new(format!("{} to {}", points(low), points(high))),
                        Cell { mark: pair.difference.sign(), ..Cell::new(verdict) },
                    ],
                )
            }
        };
        let sides = || [Column::number(&self.this), Column::number(&self.other)];
        let mut columns = vec![Column::text("model")];
        columns.extend(sides());
        columns.extend(["points", "95% interval"].map(Column::number));
        columns.push(Column::text("verdict"));
        let mut tables = vec![Table {
            title: "Accuracy of both runs".into(),
            note: "The verdict: whether the interval excludes 0.".into(),
            columns,
            rows: self.pairs.iter().map(row).collect(),
        }];
        if !self.changes.is_empty() {
            let row = |(stage, path, [a, b]): &(String, String, [String; 2])| {
                Row::new(stage, [path, a, b].map(Cell::new).to_vec())
            };
            tables.push(Table {
                title: "What differs".into(),
                note: "Parameters that are not the same in both.".into(),
                columns: [
                    Column::text("stage"),
                    Column::text("parameter"),
                    Column::text(&self.this),
                    Column::text(&self.other),
                ]
                .into(),
                rows: self.changes.iter().map(row).collect(),
            });
        }
        let time = |seconds: &Option<f64>| Cell::new(seconds.map_or("–".into(), duration));
        let row = |(stage, [a, b], same): &(String, [Option<f64>; 2], bool)| {
            let same = if *same { "the same artifact" } else { "" };
            Row::new(stage, vec![time(a), time(b), Cell::new(same)])
        };
        let mut columns = vec![Column::text("stage")];
        columns.extend(sides());
        columns.push(Column::text(""));
        tables.push(Table {
            title: "Times of both runs".into(),
            note: String::new(),
            columns,
            rows: self.times.iter().map(row).collect(),
        });
        tables
    }

    /// A figure for each training run that both have.
    ///
    /// # Errors
    /// `Defect` when drawing fails.
    pub fn figures(&self) -> Result<Vec<Figure>> {
        let figure = |(name, [a, b]): &(String, [Vec<(f64, f64)>; 2])| {
            let lines = [(0, a.clone()), (1, b.clone())];
            Ok(Figure { title: name.clone(), svg: marks(name, &lines, 0)? })
        };
        self.rewards.iter().map(figure).collect()
    }
}

fn rewards(this: &Data, other: &Data) -> Vec<(String, [Vec<(f64, f64)>; 2])> {
    let of = |data: &Data, name: &str| -> Vec<(f64, f64)> {
        let runs = data.runs.iter().filter(|run| run.name == name);
        let metrics = runs.flat_map(|run| &run.metrics);
        let whole = metrics.filter(|m| m.level == 0 && m.name == "reward" && m.value.is_finite());
        whole.map(|m| (f64::from(m.step), m.value)).collect()
    };
    let both = |name: &String| (name.clone(), [of(this, name), of(other, name)]);
    let names = this.runs.iter().map(|run| &run.name);
    names.map(both).filter(|(_, [a, b])| !a.is_empty() && !b.is_empty()).collect()
}

fn times(this: &Course, other: &Course) -> Vec<(String, [Option<f64>; 2], bool)> {
    let of = |course: &Course, name: &str| course.stages.iter().find(|s| s.name == name).cloned();
    let mut names: Vec<&String> = this.stages.iter().map(|stage| &stage.name).collect();
    names.extend(other.stages.iter().map(|stage| &stage.name));
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    let both = |name: &String| {
        let (a, b) = (of(this, name), of(other, name));
        let same = a.as_ref().zip(b.as_ref()).is_some_and(|(a, b)| a.id == b.id);
        (name.clone(), [a.map(|s| s.seconds), b.map(|s| s.seconds)], same)
    };
    names.into_iter().map(both).collect()
}

/// The parameters, down to single values, that differ between stages of the same name.
fn changes(
    this: &BTreeMap<String, Value>,
    other: &BTreeMap<String, Value>,
) -> Vec<(String, String, [String; 2])> {
    let mut changes = Vec::new();
    for (stage, a) in this {
        let Some(b) = other.get(stage) else { continue };
        let (mut flat_a, mut flat_b) = (BTreeMap::new(), BTreeMap::new());
        flatten("", a, &mut flat_a);
        flatten("", b, &mut flat_b);
        let paths: std::collections::BTreeSet<_> = flat_a.keys().chain(flat_b.keys()).collect();
        for path in paths.into_iter().filter(|path| flat_a.get(*path) != flat_b.get(*path)) {
            let value = |of: &BTreeMap<String, String>| of.get(path).cloned().unwrap_or("–".into());
            changes.push((stage.clone(), path.clone(), [value(&flat_a), value(&flat_b)]));
        }
    }
    changes
}

fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    let below = |key: &str| if path.is_empty() { key.into() } else { format!("{path}.{key}") };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, v)| flatten(&below(key), v, into)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, v)| flatten(&below(&i.to_string()), v, into));
        }
        Value::String(text) => {
            into.insert(path.into(), text.chars().take(80).collect());
        }
        other => {
            into.insert(path.into(), other.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differing_parameters_are_named_by_their_path() {
        let of = |rate: f64, steps: &[u32]| {
            let params = json!({"learning_rate": rate, "curriculum": steps, "seed": 1});
            BTreeMap::from([("rl".to_string(), params)])
        };
        let found = changes(&of(0.5, &[1, 2]), &of(0.25, &[1]));
        let of_rl = |path: &str, a: &str, b: &str| ("rl".into(), path.into(), [a.into(), b.into()]);
        assert_eq!(found, [of_rl("curriculum.1", "2", "–"), of_rl("learning_rate", "0.5", "0.25")]);
    }
}
