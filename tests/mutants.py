#!/usr/bin/env python3
"""mutants.py HUMAN_EVAL_JSONL[.gz]: references with one operator or constant changed.

For each reference the sites are numbered in the order of its text, and one mutant is made of each
of the first, the middle and the last. Prints a JSON line for each: the task, the site, what was
changed, the whole program.
"""
import ast, copy, gzip, json, sys

SWAP = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult,
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.And: ast.Or, ast.Or: ast.And, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.BitXor: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}


def other(value):
    """Another constant of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    return 1


def sites(function):
    """Paths to what can be changed: fields and positions from the function's node."""
    found = []

    def visit(node, path):
        for name, value in ast.iter_fields(node):
            values = value if isinstance(value, list) else [value]
            for i, item in enumerate(values):
                here = path + [(name, i if isinstance(value, list) else None)]
                if type(item) in SWAP or isinstance(item, ast.Constant):
                    found.append(here)
                elif isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant):
                    continue  # A docstring.
                elif isinstance(item, ast.AST) and name not in ("annotation", "returns"):
                    visit(item, here)

    visit(function, [])
    return found


def mutant(function, path):
    function = copy.deepcopy(function)
    node = function
    for name, i in path[:-1]:
        node = getattr(node, name) if i is None else getattr(node, name)[i]
    name, i = path[-1]
    item = getattr(node, name) if i is None else getattr(node, name)[i]
    if isinstance(item, ast.Constant):
        new = ast.Constant(other(item.value))
        what = f"{item.value!r} -> {new.value!r}"
    else:
        new = SWAP[type(item)]()
        what = f"{type(item).__name__} -> {type(new).__name__}"
    if i is None:
        setattr(node, name, new)
    else:
        getattr(node, name)[i] = new
    return function, what


def main(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rt") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    for row in rows:
        tree = ast.parse(row["prompt"] + row["canonical_solution"])
        (at,) = [
            i for i, node in enumerate(tree.body)
            if isinstance(node, ast.FunctionDef) and node.name == row["entry_point"]
        ]
        places = sites(tree.body[at])
        for site in sorted({0, len(places) // 2, len(places) - 1}) if places else []:
            changed = copy.copy(tree)
            changed.body = list(tree.body)
            changed.body[at], what = mutant(tree.body[at], places[site])
            program = ast.unparse(ast.fix_missing_locations(changed))
            print(json.dumps(
                {"task": row["task_id"], "site": site, "change": what, "program": program}))


main(*sys.argv[1:])
