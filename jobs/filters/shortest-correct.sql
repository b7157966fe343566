-- For each task its shortest correct response, in tokens; the earliest of equally short ones.
-- Tables: rollouts, verdicts. Output: examples.
SELECT task_id, family, level, prompt, response
FROM (
  SELECT
    r.*,
    row_number() OVER (
      PARTITION BY r.task_id
      ORDER BY array_length(r.tokens), r.step, r.sample
    ) AS place
  FROM rollouts r
  JOIN verdicts v ON v.task_id = r.task_id AND v.step = r.step AND v.sample = r.sample
  WHERE v.correct
)
WHERE place = 1
ORDER BY task_id
