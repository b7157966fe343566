//! `merge-search`: the settings of a merge, chosen by accuracy on validation tasks.
//!
//! It runs in parts. `merge-try` merges a candidate and `evaluate` scores it; `merge-choose` compares
//! the scores, and `merge-best` merges the best again, which costs less than copying it. A grid
//! knows its candidates beforehand. A coordinate search knows what it varies, and takes the rest
//! from the choice before: the artifact that a candidate is made from.

mod trial;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::evaluate::Evaluate;
use super::{Arity, Context, From, Job, Part, Port, parse};
use crate::merge::Recipe;
use crate::{Error, Result};
use trial::Candidate;
pub use trial::{Best, Choose, Try};

/// Values by setting: `MODEL.PARAMETER`, or `PARAMETER` of the whole.
type Settings = BTreeMap<String, f64>;

/// Most candidates of one search.
const CANDIDATES: usize = 1000;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    /// What is merged, as in job `merge`.
    recipe: Recipe,
    /// The values to try of each setting, in place of the recipe's.
    over: BTreeMap<String, Vec<f64>>,
    #[serde(default)]
    search: Search,
    /// How candidates answer, as in job `evaluate`.
    evaluate: Value,
    #[serde(default)]
    mode: Mode,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Search {
    /// Every combination.
    #[default]
    Grid,
    /// One setting after the other, the others as they are best so far. It begins at the recipe's
    /// values.
    Coordinate {
        /// How often all settings are gone through.
        passes: u32,
    },
}

/// Whose accuracy counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Greedy,
    #[default]
    Sampled,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Greedy => "greedy",
            Self::Sampled => "sampled",
        }
    }
}

/// The recipe's parameters among which `setting` is, and its name there.
fn place<'a>(
    recipe: &'a mut Recipe,
    setting: &'a str,
) -> Result<(&'a mut BTreeMap<String, Value>, &'a str)> {
    let Some((model, name)) = setting.rsplit_once('.') else {
        return Ok((&mut recipe.parameters, setting));
    };
    let names: Vec<_> = recipe.models.iter().map(|m| format!("`{}`", m.model)).collect();
    match recipe.models.iter_mut().find(|entry| entry.model == model) {
        Some(entry) => Ok((&mut entry.parameters, name)),
        None => Err(Error::usage(format!(
            "over: `{setting}`: the recipe's `models` are {}",
            names.join(", ")
        ))),
    }
}

fn with_settings(mut recipe: Recipe, settings: &Settings) -> Result<Recipe> {
    for (setting, value) in settings {
        let (parameters, name) = place(&mut recipe, setting)?;
        parameters.insert(name.into(), json!(value));
    }
    Ok(recipe)
}

impl Spec {
    /// Every combination of the values, the last setting's changing fastest.
    fn grid(&self) -> Vec<Settings> {
        let mut all = vec![Settings::new()];
        for (setting, values) in &self.over {
            let with = |before: &Settings| {
                let before = before.clone();
                values.iter().map(move |&value| {
                    before.clone().into_iter().chain([(setting.clone(), value)]).collect()
                })
            };
            all = all.iter().flat_map(with).collect();
        }
        all
    }

    /// The recipe's own values of the settings.
    fn start(&self) -> Result<Settings> {
        let mut recipe = self.recipe.clone();
        let value = |setting: &String| {
            let (parameters, name) = place(&mut recipe, setting)?;
            let value = parameters.get(name).and_then(Value::as_f64).ok_or_else(|| {
                Error::usage(format!(
                    "over: `{setting}`: a coordinate search begins at the recipe's value, which \
                     is no number there"
                ))
            });
            Ok((setting.clone(), value?))
        };
        self.over.keys().map(value).collect()
    }

    fn check(&self) -> Result<()> {
        self.recipe.check().map_err(|e| e.at("recipe"))?;
        Evaluate.resolve(&self.evaluate).map_err(|e| e.at("evaluate"))?;
        if self.over.is_empty() {
            return Err(Error::usage("over: no settings, so nothing to search"));
        }
        if let Some((setting, _)) = self.over.iter().find(|(_, values)| values.is_empty()) {
            return Err(Error::usage(format!("over: `{setting}` has no values")));
        }
        if self.mode == Mode::Sampled && self.evaluate["samples"] == 0 {
            return Err(Error::usage("mode sampled: `evaluate` draws no samples"));
        }
        let per_pass: usize = self.over.values().map(Vec::len).sum();
        let candidates = match self.search {
            Search::Grid => self.over.values().map(Vec::len).fold(1, usize::saturating_mul),
            Search::Coordinate { passes } => {
                self.start()?;
                per_pass.saturating_mul(passes as usize)
            }
        };
        if !(1..=CANDIDATES).contains(&candidates) {
            return Err(Error::usage(format!(
                "over: {candidates} candidates; 1 to {CANDIDATES} can be tried"
            )));
        }
        // The recipe with any of the values must be one.
        let first = self.over.iter().map(|(setting, values)| (setting.clone(), values[0]));
        with_settings(self.recipe.clone(), &first.collect())?.check()
    }
}

/// The search's parts, as they are made.
struct Parts {
    all: Vec<Part>,
    evaluate: Value,
    mode: Mode,
    /// The choice before.
    chosen: Option<From>,
    tried: usize,
}

impl Parts {
    fn add(&mut self, part: Part) -> From {
        self.all.push(part);
        From::Part(self.all.len() - 1)
    }

    /// Candidates, their scores, and the choice among them and those before.
    fn round(&mut self, candidates: Vec<Candidate>) -> Result<()> {
        let chosen = self.chosen.map(|from| ("chosen", "chosen".to_string(), from));
        let mut inputs: Vec<_> = chosen.clone().into_iter().collect();
        for candidate in candidates {
            self.tried += 1;
            let number = format!("{:04}", self.tried);
            let tried = self.add(Part {
                name: format!("{}.merge", self.tried),
                job: &Try,
                params: serde_json::to_value(candidate).map_err(Error::defect)?,
                inputs: [("models", String::new(), From::Ports("models"))]
                    .into_iter()
                    .chain(chosen.clone())
                    .collect(),
                shards: 1,
                device: false,
            });
            let scores = self.add(Part {
                name: format!("{}.evaluate", self.tried),
                job: &Evaluate,
                params: self.evaluate.clone(),
                inputs: vec![
                    ("checkpoint", "checkpoint".into(), tried),
                    ("tasks", String::new(), From::Ports("tasks")),
                ],
                shards: 1,
                device: true,
            });
            inputs.push(("candidates", number.clone(), tried));
            inputs.push(("scores", number, scores));
        }
        let name = format!("{}.choose", self.tried);
        let params = json!({"mode": self.mode});
        let choice = Part { name, job: &Choose, params, inputs, shards: 1, device: false };
        self.chosen = Some(self.add(choice));
        Ok(())
    }
}

pub struct MergeSearch;

impl Job for MergeSearch {
    fn name(&self) -> &'static str {
        "merge-search"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[
            Port { name: "models", accepts: &["checkpoint"], arity: Arity::Many },
            Port { name: "tasks", accepts: &["tasks"], arity: Arity::Many },
        ]
    }
    fn output(&self) -> &'static str {
        "checkpoint"
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        let mut spec: Spec = parse(raw)?;
        spec.check()?;
        spec.evaluate = Evaluate.resolve(&spec.evaluate)?;
        serde_json::to_value(spec).map_err(Error::defect)
    }
    fn has_parts(&self) -> bool {
        true
    }
    fn rounds(&self, params: &Value, shards: u32, _: &[&str]) -> Result<Vec<Part>> {
        let spec: Spec = parse(params)?;
        if shards > 1 {
            return Err(Error::usage(
                "merge-search has no shards: its candidates run side by side as they are",
            ));
        }
        let (all, evaluate) = (Vec::new(), spec.evaluate.clone());
        let mut parts = Parts { all, evaluate, mode: spec.mode, chosen: None, tried: 0 };
        let candidate =
            |settings: Settings, vary| Candidate { recipe: spec.recipe.clone(), settings, vary };
        match spec.search {
            Search::Grid => {
                let all = spec.grid().into_iter();
                parts.round(all.map(|settings| candidate(settings, Settings::new())).collect())?;
            }
            Search::Coordinate { passes } => {
                let start = spec.start()?;
                for (setting, values) in (0..passes).flat_map(|_| &spec.over) {
                    let one = |&value: &f64| {
                        candidate(start.clone(), Settings::from([(setting.clone(), value)]))
                    };
                    parts.round(values.iter().map(one).collect())?;
                }
            }
        }
        let models = ("models", String::new(), From::Ports("models"));
        let chosen = parts.chosen.map(|from| ("chosen", "chosen".to_string(), from));
        parts.add(Part {
            name: "best".into(),
            job: &Best,
            params: json!({"recipe": spec.recipe}),
            inputs: [models].into_iter().chain(chosen).collect(),
            shards: 1,
            device: false,
        });
        Ok(parts.all)
    }
    fn run(&self, _: &mut Context) -> Result<()> {
        Err(Error::defect("merge-search runs in parts"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(search: Value) -> Value {
        json!({
            "recipe": {"merge_method": "task_arithmetic", "base_model": "base", "parameters":
                {"lambda": 1.0}, "models": [{"model": "a", "parameters": {"weight": 0.5}},
                {"model": "b", "parameters": {"weight": 0.3}}]},
            "over": {"a.weight": [0.0, 1.0], "b.weight": [0.1, 0.2, 0.3], "lambda": [0.5, 1.0]},
            "search": search,
            "evaluate": {"samples": 2, "max_new_tokens": 8},
        })
    }

    #[test]
    fn a_grid_tries_every_combination_once_and_merges_the_best() {
        let params = MergeSearch.resolve(&spec(json!("grid"))).unwrap();
        let parts = MergeSearch.rounds(&params, 1, &[]).unwrap();
        let tried: Vec<&Part> = parts.iter().filter(|p| p.job.name() == "merge-try").collect();
        let settings: std::collections::BTreeSet<String> =
            tried.iter().map(|part| part.params["settings"].to_string()).collect();
        assert_eq!((tried.len(), settings.len()), (12, 12));
        assert_eq!(
            tried[1].params["settings"],
            json!({"a.weight": 0.0, "b.weight": 0.1, "lambda": 1.0})
        );
        // What a smaller grid has tried is tried there as well, so it is found.
        let mut smaller = spec(json!("grid"));
        smaller["over"]["b.weight"] = json!([0.1, 0.3]);
        let smaller = MergeSearch.resolve(&smaller).unwrap();
        for part in MergeSearch.rounds(&smaller, 1, &[]).unwrap() {
            let is_candidate = part.job.name() == "merge-try";
            assert!(!is_candidate || tried.iter().any(|other| other.params == part.params));
        }
        // Each with its scores, one choice, the best.
        assert_eq!(parts.len(), 12 * 2 + 2);
        assert_eq!(parts[25].job.name(), "merge-best");
    }

    #[test]
    fn a_coordinate_search_goes_on_from_each_choice() {
        let params = MergeSearch.resolve(&spec(json!({"coordinate": {"passes": 2}}))).unwrap();
        let parts = MergeSearch.rounds(&params, 1, &[]).unwrap();
        let count = |name: &str| parts.iter().filter(|part| part.job.name() == name).count();
        assert_eq!((count("merge-try"), count("merge-choose"), count("merge-best")), (14, 6, 1));
        let first = &parts[0];
        assert_eq!(
            first.params["settings"],
            json!({"a.weight": 0.5, "b.weight": 0.3, "lambda": 1.0})
        );
        assert_eq!(first.params["vary"], json!({"a.weight": 0.0}));
        assert_eq!(first.inputs.len(), 1, "nothing was chosen before");
        let second_round = parts.iter().filter(|part| part.job.name() == "merge-try").nth(2);
        assert!(second_round.unwrap().inputs.iter().any(|(port, ..)| *port == "chosen"));
    }

    #[test]
    fn what_cannot_be_searched_is_refused() {
        let refused = |edit: &dyn Fn(&mut Value)| {
            let mut params = spec(json!("grid"));
            edit(&mut params);
            let error = MergeSearch.resolve(&params).unwrap_err();
            assert_eq!(error.exit_code(), 64);
            error.to_string()
        };
        assert!(refused(&|p| p["over"] = json!({})).contains("nothing to search"));
        assert!(
            refused(&|p| p["over"]["a.weight"] = json!([])).contains("`a.weight` has no values")
        );
        assert!(refused(&|p| p["over"] = json!({"c.weight": [1.0]})).contains("`a`, `b`"));
        assert!(refused(&|p| p["over"] = json!({"a.wait": [1.0]})).contains("wait"));
        assert!(refused(&|p| p["evaluate"]["samples"] = json!(0)).contains("no samples"));
        let many: Vec<u32> = (0..400).collect();
        assert!(refused(&|p| p["over"]["a.weight"] = json!(many)).contains("2400 candidates"));
        let start = refused(&|p| {
            p["search"] = json!({"coordinate": {"passes": 1}});
            p["recipe"]["models"][0]["parameters"]["weight"] = json!([0.0, 1.0]);
        });
        assert!(start.contains("no number there"), "{start}");
    }
}
