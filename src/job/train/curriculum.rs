//! Which tasks each RL iteration takes: the levels in order, each in shuffled epochs.

use crate::dataset::Task;
use crate::entropy::Stream;
use crate::job::rl::Lesson;
use crate::{Error, Result};

pub struct Curriculum {
    seed: u64,
    /// Tasks in an iteration.
    prompts: usize,
    lessons: Vec<Plan>,
}

/// A lesson and its tasks, as indices into the dataset.
struct Plan {
    lesson: Lesson,
    own: Vec<usize>,
    /// Of the levels before, and how many of them an iteration takes.
    earlier: Vec<usize>,
    review: usize,
}

/// One RL iteration.
pub struct Iteration {
    pub level: u32,
    /// The first iteration of its lesson: the optimizer starts afresh.
    pub fresh: bool,
    /// Its place in its lesson, from 0, and the lesson's iterations.
    pub nth: usize,
    pub steps: usize,
    /// Indices into the dataset.
    pub tasks: Vec<usize>,
}

impl Curriculum {
    pub fn new(seed: u64, prompts: usize, lessons: &[Lesson], tasks: &[Task]) -> Result<Self> {
        let of = |wanted: &dyn Fn(u32) -> bool| -> Vec<usize> {
            (0..tasks.len()).filter(|&i| wanted(tasks[i].level)).collect()
        };
        let plan = |(number, lesson): (usize, &Lesson)| {
            let own = of(&|level| level == lesson.level);
            if own.is_empty() {
                return Err(Error::usage(format!(
                    "curriculum: level {} has no task in port `tasks`",
                    lesson.level
                )));
            }
            let before = &lessons[..number];
            let earlier = of(&|level| {
                level != lesson.level && before.iter().any(|lesson| lesson.level == level)
            });
            let share = if earlier.is_empty() { 0.0 } else { lesson.review };
            let review = (share * prompts as f64).round() as usize;
            Ok(Plan { lesson: lesson.clone(), own, earlier, review })
        };
        let lessons = lessons.iter().enumerate().map(plan).collect::<Result<_>>()?;
        Ok(Self { seed, prompts, lessons })
    }

    /// Iterations over all lessons.
    pub fn len(&self) -> usize {
        self.lessons.iter().map(|plan| plan.lesson.steps).sum()
    }

    /// The lesson that iteration `index` belongs to, by number, and the iteration's place in it.
    fn lesson(&self, index: usize) -> Option<(usize, &Plan, usize)> {
        let mut nth = index;
        for (number, plan) in self.lessons.iter().enumerate() {
            if nth < plan.lesson.steps {
                return Some((number, plan, nth));
            }
            nth -= plan.lesson.steps;
        }
        None
    }

    /// Iteration `index`, from 0: a function of the index alone.
    pub fn iteration(&self, index: usize) -> Option<Iteration> {
        let (number, plan, nth) = self.lesson(index)?;
        let name = format!("rl/lesson-{number}");
        let mut tasks = self.take(&name, &plan.own, nth, self.prompts - plan.review);
        tasks.extend(self.take(&format!("{name}/review"), &plan.earlier, nth, plan.review));
        let Lesson { level, steps, .. } = plan.lesson;
        Some(Iteration { level, fresh: nth == 0, nth, steps, tasks })
    }

    /// `count` more tasks of the lesson that iteration `index` belongs to, for its refill `refill`.
    pub fn refill(&self, index: usize, refill: usize, count: usize) -> Vec<usize> {
        let Some((number, plan, _)) = self.lesson(index) else { return Vec::new() };
        self.take(&format!("rl/lesson-{number}/refill-{index}-{refill}"), &plan.own, 0, count)
    }

    /// The `nth` handful of `count` tasks of a pool in shuffled epochs.
    fn take(&self, name: &str, pool: &[usize], nth: usize, count: usize) -> Vec<usize> {
        let mut tasks = Vec::with_capacity(count);
        let (mut epoch, mut order) = (usize::MAX, Vec::new());
        for position in nth * count..(nth + 1) * count {
            if position / pool.len() != epoch {
                epoch = position / pool.len();
                order = pool.to_vec();
                Stream::new(self.seed, name, epoch as u64).shuffle(&mut order);
            }
            tasks.push(order[position % pool.len()]);
        }
        tasks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(level: u32) -> Task {
        Task { level, ..Task::default() }
    }

    fn lesson(level: u32, steps: usize, review: f64) -> Lesson {
        Lesson { level, steps, review }
    }

    #[test]
    fn a_review_takes_its_share_from_the_levels_before() {
        let tasks: Vec<Task> = (0..30).map(|i| task(1 + i % 3)).collect();
        let lessons = [lesson(1, 2, 0.4), lesson(3, 2, 0.4), lesson(2, 3, 0.4)];
        let curriculum = Curriculum::new(7, 5, &lessons, &tasks).unwrap();
        let levels = |index| {
            let tasks = curriculum.iteration(index).unwrap().tasks;
            tasks.into_iter().map(|i| 1 + i as u32 % 3).collect::<Vec<_>>()
        };
        assert_eq!(levels(0), [1; 5]);
        assert_eq!(levels(2), [3, 3, 3, 1, 1]);
        let last: Vec<u32> = (4..7).flat_map(levels).collect();
        assert_eq!(last.iter().filter(|&&level| level == 2).count(), 9);
        assert!(last.contains(&1) && last.contains(&3), "{last:?}");
    }

    #[test]
    fn levels_come_in_order_and_epochs_see_every_task_once() {
        let tasks: Vec<Task> = (0..20).map(|i| task(1 + i % 2)).collect();
        let lessons = [lesson(2, 4, 0.0), lesson(1, 2, 0.0)];
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
        assert!(Curriculum::new(7, 5, &[lesson(3, 1, 0.0)], &tasks).is_err());
    }
}
