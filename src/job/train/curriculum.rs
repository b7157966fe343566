//! Which tasks each RL iteration takes: the levels in order, each in shuffled epochs.

use crate::dataset::Task;
use crate::entropy::Stream;
use crate::job::rl::Lesson;
use crate::{Error, Result};

pub struct Curriculum {
    seed: u64,
    /// Tasks in an iteration.
    prompts: usize,
    lessons: Vec<(Lesson, Vec<usize>)>,
}

/// One RL iteration.
pub struct Iteration {
    pub level: u32,
    /// The first iteration of its lesson: the optimizer starts afresh.
    pub fresh: bool,
    /// Indices into the dataset.
    pub tasks: Vec<usize>,
}

impl Curriculum {
    pub fn new(seed: u64, prompts: usize, lessons: &[Lesson], tasks: &[Task]) -> Result<Self> {
        let lessons = lessons
            .iter()
            .map(|lesson| {
                let pool: Vec<usize> =
                    (0..tasks.len()).filter(|&i| tasks[i].level == lesson.level).collect();
                if pool.is_empty() {
                    return Err(Error::usage(format!(
                        "curriculum: level {} has no task in port `tasks`",
                        lesson.level
                    )));
                }
                Ok((lesson.clone(), pool))
            })
            .collect::<Result<_>>()?;
        Ok(Self { seed, prompts, lessons })
    }

    /// Iterations over all lessons.
    pub fn len(&self) -> usize {
        self.lessons.iter().map(|(lesson, _)| lesson.steps).sum()
    }

    /// Iteration `index`, from 0: a function of the index alone.
    pub fn iteration(&self, index: usize) -> Option<Iteration> {
        let mut nth = index;
        for (number, (lesson, pool)) in self.lessons.iter().enumerate() {
            if nth >= lesson.steps {
                nth -= lesson.steps;
                continue;
            }
            let mut tasks = Vec::with_capacity(self.prompts);
            let (mut epoch, mut order) = (usize::MAX, Vec::new());
            for position in nth * self.prompts..(nth + 1) * self.prompts {
                if position / pool.len() != epoch {
                    epoch = position / pool.len();
                    order = self.order(number, pool, epoch);
                }
                tasks.push(order[position % pool.len()]);
            }
            return Some(Iteration { level: lesson.level, fresh: nth == 0, tasks });
        }
        None
    }

    fn order(&self, lesson: usize, pool: &[usize], epoch: usize) -> Vec<usize> {
        let mut order = pool.to_vec();
        Stream::new(self.seed, &format!("rl/lesson-{lesson}"), epoch as u64).shuffle(&mut order);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(level: u32) -> Task {
        Task { level, ..Task::default() }
    }

    #[test]
    fn levels_come_in_order_and_epochs_see_every_task_once() {
        let tasks: Vec<Task> = (0..20).map(|i| task(1 + i % 2)).collect();
        let lessons = [Lesson { level: 2, steps: 4 }, Lesson { level: 1, steps: 2 }];
        let curriculum = Curriculum::new(7, 5, &lessons, &tasks).unwrap();
        assert_eq!(curriculum.len(), 6);
        let all: Vec<Iteration> = (0..6).map(|i| curriculum.iteration(i).unwrap()).collect();
        assert!(curriculum.iteration(6).is_none());
        assert_eq!(all.iter().map(|i| i.level).collect::<Vec<_>>(), [2, 2, 2, 2, 1, 1]);
        assert_eq!(
            all.iter().map(|i| i.fresh).collect::<Vec<_>>(),
            [true, false, false, false, true, false]
        );
        let mut epoch: Vec<usize> = all[..2].iter().flat_map(|i| i.tasks.clone()).collect();
        epoch.sort_unstable();
        assert_eq!(epoch, (0..20).filter(|i| i % 2 == 1).collect::<Vec<_>>());
        assert_ne!(all[0].tasks, all[2].tasks);
        assert!(Curriculum::new(7, 5, &[Lesson { level: 3, steps: 1 }], &tasks).is_err());
    }
}
