-- Examples to learn from: every response that the checker found correct.
-- Tables: rollouts, verdicts. Output: examples.
SELECT r.task_id, r.family, r.level, r.prompt, r.response
FROM rollouts r
JOIN verdicts v ON v.task_id = r.task_id AND v.step = r.step AND v.sample = r.sample
WHERE v.correct
ORDER BY r.step, r.task_id, r.sample
