//! The shortcut panel: how far solvers get that do not reason.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Probe;
#[cfg(doc)]
use super::Puzzle;

/// How much better than chance a shortcut may be over a dataset.
pub const TOLERANCE: f64 = 0.03;

/// Sums over the puzzles of a dataset, by group (a level).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Panel {
    groups: BTreeMap<String, Group>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Group {
    blind: Sums,
    shortcuts: Sums,
}

type Sums = BTreeMap<String, Sum>;

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Sum {
    right: f64,
    puzzles: u64,
}

/// One shortcut's accuracy over the puzzles of a group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    pub group: String,
    pub shortcut: String,
    /// Puzzles it was tried on.
    pub puzzles: u64,
    /// Share of statements it gets right.
    pub accuracy: f64,
    /// The same for the best blind strategy over all puzzles of the group.
    pub chance: f64,
}

impl Finding {
    /// Whether the shortcut beats chance by more than 3 points and by more than three standard
    /// errors of chance, so that a small dataset is not blamed for its size.
    pub fn beats_chance(&self) -> bool {
        let n = self.puzzles.max(1) as f64;
        let error = ((self.chance * (1.0 - self.chance)).max(1.0 / n) / n).sqrt();
        self.accuracy - self.chance > TOLERANCE.max(3.0 * error)
    }
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.right += other.right;
        self.puzzles += other.puzzles;
    }
}

/// Changes the value of `name`, a new one where there is none. Copies a name only then.
fn at<V: Default>(map: &mut BTreeMap<String, V>, name: &str, change: impl FnOnce(&mut V)) {
    match map.get_mut(name) {
        Some(value) => change(value),
        None => change(map.entry(name.into()).or_default()),
    }
}

impl Panel {
    /// Counts one puzzle's [`Puzzle::blind`] and [`Puzzle::shortcuts`] in.
    pub fn add(&mut self, group: &str, [blind, shortcuts]: &[Vec<Probe>; 2]) {
        at(&mut self.groups, group, |group| {
            for (sums, probes) in [(&mut group.blind, blind), (&mut group.shortcuts, shortcuts)] {
                for (name, right) in probes {
                    at(sums, name, |sum| sum.add(Sum { right: *right, puzzles: 1 }));
                }
            }
        });
    }

    /// Takes in the panel over other puzzles.
    pub fn merge(&mut self, other: Self) {
        for (name, theirs) in other.groups {
            let ours = self.groups.entry(name).or_default();
            for (ours, theirs) in
                [(&mut ours.blind, theirs.blind), (&mut ours.shortcuts, theirs.shortcuts)]
            {
                theirs.into_iter().for_each(|(name, sum)| ours.entry(name).or_default().add(sum));
            }
        }
    }

    /// Every shortcut's accuracy against chance, by group.
    pub fn findings(&self) -> Vec<Finding> {
        let mean = |sum: &Sum| sum.right / sum.puzzles as f64;
        self.groups
            .iter()
            .flat_map(|(group, sums)| {
                let chance = sums.blind.values().map(mean).fold(0.0, f64::max);
                sums.shortcuts.iter().map(move |(shortcut, sum)| Finding {
                    group: group.clone(),
                    shortcut: shortcut.clone(),
                    puzzles: sum.puzzles,
                    accuracy: mean(sum),
                    chance,
                })
            })
            .collect()
    }
}
