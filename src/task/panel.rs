//! The shortcut panel: how far solvers get that do not reason.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Probe;
#[cfg(doc)]
use super::Puzzle;

/// How much better than chance a shortcut may be over a dataset.
pub const TOLERANCE: f64 = 0.03;

/// Sums over the puzzles of a dataset, by group (a level).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Panel {
    groups: BTreeMap<String, Group>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Group {
    blind: BTreeMap<&'static str, Sum>,
    shortcuts: BTreeMap<&'static str, Sum>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sum {
    right: f64,
    puzzles: u64,
}

/// One shortcut's accuracy over the puzzles of a group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    pub group: String,
    pub shortcut: &'static str,
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

impl Panel {
    /// Counts one puzzle's [`Puzzle::blind`] and [`Puzzle::shortcuts`] in.
    pub fn add(&mut self, group: &str, [blind, shortcuts]: &[Vec<Probe>; 2]) {
        if !self.groups.contains_key(group) {
            self.groups.insert(group.into(), Group::default());
        }
        let Some(sums) = self.groups.get_mut(group) else { return };
        for (sums, probes) in [(&mut sums.blind, blind), (&mut sums.shortcuts, shortcuts)] {
            for (name, right) in probes {
                let sum = sums.entry(name).or_default();
                sum.right += right;
                sum.puzzles += 1;
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
                    shortcut,
                    puzzles: sum.puzzles,
                    accuracy: mean(sum),
                    chance,
                })
            })
            .collect()
    }
}
