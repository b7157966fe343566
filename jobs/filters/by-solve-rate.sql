-- A curriculum by what a model can do: `level` becomes 1 for tasks it solved three times in four or
-- more, then 2 down to half, 3 down to a quarter, 4. What it always or never solved is left out: a
-- group without differences teaches nothing.
-- Tables: tasks, verdicts (of several samples of each task). Output: tasks.
SELECT t.* REPLACE (
  CASE
    WHEN 4 * r.solved >= 3 * r.samples THEN 1
    WHEN 2 * r.solved >= r.samples THEN 2
    WHEN 4 * r.solved >= r.samples THEN 3
    ELSE 4
  END AS level
)
FROM tasks t
JOIN (
  SELECT
    task_id,
    count(*) AS samples,
    sum(CASE WHEN correct THEN 1 ELSE 0 END) AS solved
  FROM verdicts
  GROUP BY task_id
) r ON r.task_id = t.task_id
WHERE 0 < r.solved AND r.solved < r.samples
ORDER BY CAST(r.solved AS DOUBLE) / r.samples DESC, t.task_id
