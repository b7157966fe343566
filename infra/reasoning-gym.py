"""reasoning-gym.py FILE: math problems of PyPI's reasoning-gym as JSON lines (question, answer, name,
level), for `import-tasks` with a mapping. Their answers are numbers."""
import json
import sys

import reasoning_gym

# What is asked, and its parameters at each level.
SETS = {
    "chain_sum": [dict(min_terms=2, max_terms=3, max_digits=2), dict(min_terms=3, max_terms=5, max_digits=3)],
    "products": [dict(max_terms=2, max_digits=1), dict(max_terms=2, max_digits=2)],
    "gcd": [dict(max_value=100), dict(max_value=1000)],
    "lcm": [dict(max_value=30), dict(max_value=100)],
    "simple_equations": [dict(max_terms=2, max_value=20), dict(max_terms=3, max_value=100)],
}
EACH = 1000

with open(sys.argv[1], "w") as out:
    for name, levels in SETS.items():
        for level, parameters in enumerate(levels, 1):
            for row in reasoning_gym.create_dataset(name, seed=level, size=EACH, **parameters):
                problem = {"question": row["question"], "answer": row["answer"], "name": name, "level": level}
                out.write(json.dumps(problem) + "\n")
