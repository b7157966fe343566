-- As many tasks of each family and level as the rarest has. A task's id ends in digits of a hash, so
-- which ones stay is chance, and the same every time.
-- Tables: tasks. Output: tasks.
SELECT t.*
FROM tasks t
CROSS JOIN (
  SELECT min(n) AS least
  FROM (SELECT count(*) AS n FROM tasks GROUP BY family, level)
) l
QUALIFY row_number() OVER (
  PARTITION BY t.family, t.level
  ORDER BY right(t.task_id, 16), t.task_id
) <= l.least
ORDER BY t.family, t.level, t.task_id
