-- Tasks that are in no other dataset: neither there nor twice here, however they are named or
-- ordered.
-- Tables: tasks, heldout (tasks too). Output: tasks.
SELECT t.*
FROM tasks t
WHERE NOT EXISTS (SELECT 1 FROM heldout h WHERE h.canonical = t.canonical)
QUALIFY row_number() OVER (PARTITION BY t.canonical ORDER BY t.task_id) = 1
ORDER BY t.task_id
