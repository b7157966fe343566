//! Which tasks each RL iteration takes: the levels in order, each in shuffled epochs.

use crate::{Error, Result};
use triad::dataset::Task;
use triad::entropy::Stream;
use triad::job::rl::Lesson;

pub struct Curriculum<'a> {
    seed: u64,
    /// Tasks in an iteration.
    prompts: usize,
    lessons: &'a [Lesson],
    pools: Vec<Pool>,
}

/// A lesson's tasks, as indices into the dataset.
struct Pool {
    own: Vec<usize>,
    /// Of the levels before, and how many of them an iteration takes.
    earlier: Vec<usize>,
    review: usize,
}

/// An RL iteration's place in a curriculum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// From 0, over all lessons.
    pub index: usize,
    /// Number of its lesson, from 0.
    pub lesson: usize,
    pub level: u32,
    /// Its place in its lesson, from 0, and the lesson's iterations.
    pub nth: usize,
    pub steps: usize,
}

impl Place {
    /// Of iteration `index`; none beyond the last lesson.
    pub fn of(lessons: &[Lesson], index: usize) -> Option<Self> {
        let mut nth = index;
        for (lesson, &Lesson { level, steps, .. }) in lessons.iter().enumerate() {
            if nth < steps {
                return Some(Self { index, lesson, level, nth, steps });
            }
            nth -= steps;
        }
        None
    }

    /// The number that rows and metrics carry, from 1.
    pub fn step(&self) -> usize {
        self.index + 1
    }

    /// Whether a lesson before it has ended: the optimizer starts afresh.
    pub fn fresh(&self) -> bool {
        self.nth == 0 && self.index > 0
    }
}

impl<'a> Curriculum<'a> {
    pub fn new(seed: u64, prompts: usize, lessons: &'a [Lesson], tasks: &[Task]) -> Result<Self> {
        let of = |wanted: &dyn Fn(u32) -> bool| -> Vec<usize> {
            (0..tasks.len()).filter(|&i| wanted(tasks[i].level)).collect()
        };
        let pool = |(number, lesson): (usize, &Lesson)| {
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
            Ok(Pool { own, earlier, review })
        };
        let pools = lessons.iter().enumerate().map(pool).collect::<Result<_>>()?;
        Ok(Self { seed, prompts, lessons, pools })
    }

    /// Iterations over all lessons.
    pub fn len(&self) -> usize {
        self.lessons.iter().map(|lesson| lesson.steps).sum()
    }

    /// Where iteration `index` stands and its tasks, as indices into the dataset: a function of the
    /// index alone.
    pub fn iteration(&self, index: usize) -> Option<(Place, Vec<usize>)> {
        let place = Place::of(self.lessons, index)?;
        let pool = &self.pools[place.lesson];
        let name = format!("rl/lesson-{}", place.lesson);
        let mut tasks = self.take(&name, &pool.own, place.nth, self.prompts - pool.review);
        tasks.extend(self.take(&format!("{name}/review"), &pool.earlier, place.nth, pool.review));
        Some((place, tasks))
    }

    /// `count` more tasks of the iteration's lesson, for its refill `refill`.
    pub fn refill(&self, place: &Place, refill: usize, count: usize) -> Vec<usize> {
        let Place { index, lesson, .. } = place;
        let name = format!("rl/lesson-{lesson}/refill-{index}-{refill}");
        self.take(&name, &self.pools[*lesson].own, 0, count)
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
            let (_, tasks) = curriculum.iteration(index).unwrap();
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
        let all: Vec<_> = (0..6).map(|i| curriculum.iteration(i).unwrap()).collect();
        assert!(curriculum.iteration(6).is_none());
        let places = || all.iter().map(|(place, _)| place);
        assert_eq!(places().map(|place| place.level).collect::<Vec<_>>(), [2, 2, 2, 2, 1, 1]);
        assert_eq!(places().position(Place::fresh), Some(4));
        let mut epoch: Vec<usize> = all[..2].iter().flat_map(|(_, tasks)| tasks.clone()).collect();
        epoch.sort_unstable();
        assert_eq!(epoch, (0..20).filter(|i| i % 2 == 1).collect::<Vec<_>>());
        assert_ne!(all[0].1, all[2].1);
        assert!(Curriculum::new(7, 5, &[lesson(3, 1, 0.0)], &tasks).is_err());
    }
}
