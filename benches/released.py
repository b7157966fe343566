"""Puzzles per second of the paper's released rules for deduction (arXiv 2505.10554), as they are
described: random nested formulas, kept when exactly one assignment satisfies all, found by trying
all assignments. Plain Python, one core: python3 benches/released.py"""

import itertools
import operator
import random
import time

BINARY = [
    lambda a, b: not a or b,
    operator.and_,
    operator.or_,
    operator.eq,
    operator.xor,
]


def formula(depth, variables, rng):
    """A function from an assignment to a truth value."""
    if depth == 0:
        v, negated = rng.randrange(variables), rng.random() < 0.4
        return lambda values: values[v] != negated
    if rng.random() < 0.2:
        inner = formula(depth - 1, variables, rng)
        return lambda values: not inner(values)
    op = rng.choice(BINARY)
    left, right = (formula(depth - 1, variables, rng) for _ in range(2))
    return lambda values: bool(op(left(values), right(values)))


def unique(variables, depth, rng):
    formulas = [formula(depth, variables, rng) for _ in range(rng.randint(3, 6))]
    found = 0
    for values in itertools.product([False, True], repeat=variables):
        if all(f(values) for f in formulas):
            found += 1
            if found > 1:
                return False
    return found == 1


for level, seconds in [(1, 5), (2, 20), (3, 60)]:
    rng, start, kept = random.Random(1), time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        kept += unique(2 + 2 * level, level, rng)
    print(f"deduction level {level}: {kept / (time.perf_counter() - start):.1f} puzzles/s")
