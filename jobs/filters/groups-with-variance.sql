-- The rollouts of groups whose rewards differ: the others have no advantage and teach nothing
-- (dynamic sampling of DAPO, arXiv 2503.14476).
-- Tables: rollouts, verdicts. Output: rollouts.
SELECT r.*
FROM rollouts r
JOIN (
  SELECT task_id, step
  FROM verdicts
  GROUP BY task_id, step
  HAVING min(reward) < max(reward)
) g ON g.task_id = r.task_id AND g.step = r.step
ORDER BY r.step, r.task_id, r.sample
