"""Compares triad's grader of mathematical answers with Math-Verify (PyPI: math-verify).

    python benches/graders.py tests DIR --grader CMD    the cases of a checkout of Math-Verify, in DIR/tests
    python benches/graders.py pairs --grader CMD        generated pairs, whose right verdict is known
    python benches/graders.py known --grader CMD        pairs of kinds that Math-Verify is known to get wrong

CMD reads {"gold", "answer"} as JSON lines and prints {"verdict": "equal" | "different" | "unknown"}
for each: `cargo bench --bench graders -- --lines` builds and runs it. Prints agreement, and each
disagreement as a line of JSON.
"""

import argparse
import collections
import importlib
import json
import logging
import random
import shlex
import subprocess
import sys
import types
from fractions import Fraction
from math import comb, factorial, gcd, isqrt


def tests(directory):
    """(gold, answer, expected) of each case with Math-Verify's default settings."""
    cases = []

    def parametrize(names, values):
        names = [name.strip() for name in names.split(",")]

        def collect(function):
            for value in values:
                case = dict(zip(names, value))
                plain = case.get("precision", 6) == 6 and case.get("strict", True) and not case.get("allow_set_relation_comp")
                if plain and "gold" in case and "pred" in case:
                    cases.append((function.__name__, case["gold"], case["pred"], bool(case.get("expected", case.get("result")))))
            return function

        return collect

    pytest = types.ModuleType("pytest")
    pytest.mark = types.SimpleNamespace(parametrize=parametrize)
    sys.modules["pytest"] = pytest
    sys.path.insert(0, directory)
    for name in ["test_all", "test_boxed", "test_numina_cases", "test_open_thoughts", "test_strict", "test_yujianll"]:
        importlib.import_module(f"tests.{name}")
    return cases


# Each kind draws (gold, answer, equal), as LaTeX without dollars.

def integer(r):
    n = r.choice([r.randint(-999, 999), r.randint(1000, 10**7), r.randint(10**7, 10**12)])
    m = n if r.random() < 0.6 else n + r.choice([-1, 1, 10, -n * 2 or 1, 1000])
    s = [str(m), f"{m:,}", f"{m:,}".replace(",", "{,}"), f"{m:,}".replace(",", ",\\!"), f"{m}.0", f"{m}.00", f"x = {m}", f"\\boxed{{{m}}}", f"\\left({m}\\right)", f"{m} "]
    return str(n), r.choice(s), n == m


def writings(r, q):
    a, b = abs(q.numerator), q.denominator
    minus = "-" if q < 0 else ""
    out = [f"{minus}\\frac{{{a}}}{{{b}}}", f"{minus}\\dfrac{{{a}}}{{{b}}}", f"\\tfrac{{{minus}{a}}}{{{b}}}", f"{minus}{a}/{b}", f"\\frac{{{minus}{a * 3}}}{{{b * 3}}}", f"{minus}{a} \\div {b}", f"\\frac{{{a}}}{{{minus}{b}}}"]
    if a < 10 and b < 10:
        out.append(f"{minus}\\frac{a}{b}")
    if a > b > 1 and q > 0:
        out.append(f"{a // b}\\frac{{{a % b}}}{{{b}}}")
    if 1000 % b == 0:
        out.append(minus + str(a / b))
    return out


def rational(r):
    q = Fraction(r.randint(-60, 60) or 7, r.randint(2, 40))
    p = q if r.random() < 0.6 else r.choice([1 / q, -q, q + 1, q + Fraction(1, 100), Fraction(q.numerator + 1, q.denominator)])
    return writings(r, q)[0], r.choice(writings(r, p)), p == q


def decimal(r):
    d = r.randint(1, 5)
    n = r.randint(1, 10**(d + 2))
    gold = f"{n / 10**d:.{d}f}"
    m = n if r.random() < 0.6 else n + r.choice([1, -1, 10])
    q = Fraction(m, 10**d)
    return gold, r.choice([f"{m / 10**d:.{d}f}", f"{m / 10**d:.{d}f}0", f"\\frac{{{q.numerator}}}{{{q.denominator}}}", f"{q.numerator}/{q.denominator}"]), m == n


def rounded(r):
    q = Fraction(r.randint(1, 40), r.choice([3, 7, 9, 11, 13, 17]))
    places = r.choice([2, 3, 6, 8, 10])
    answer = f"{float(q):.{places}f}"
    return f"\\frac{{{q.numerator}}}{{{q.denominator}}}", answer, Fraction(answer) == q or places >= 6


def square_free(n):
    out = 1
    for k in range(isqrt(n), 0, -1):
        if n % (k * k) == 0:
            return k, n // (k * k)
    return out, n


def surd(r):
    a, b, c = r.randint(1, 12), r.choice([2, 3, 5, 6, 7, 10, 11]), r.choice([1, 2, 3, 4, 5])
    gold = f"\\frac{{{a}\\sqrt{{{b}}}}}{{{c}}}" if c > 1 else f"{a}\\sqrt{{{b}}}"
    same = r.random() < 0.6
    x = a if same else a + r.choice([1, 2])
    over = f"\\frac{{\\sqrt{{{x * x * b}}}}}{{{c}}}"
    forms = [over, f"\\frac{{{x * b}}}{{{c}\\sqrt{{{b}}}}}", f"\\frac{{{x}}}{{{c}}}\\sqrt{b}" if b < 10 else over, f"{x} \\cdot {b}^{{1/2}} / {c}", f"\\sqrt{{\\frac{{{x * x * b}}}{{{c * c}}}}}"]
    return gold, r.choice(forms), same


def sum_of_surds(r):
    a, b, c = r.randint(1, 9), r.randint(1, 9), r.choice([2, 3, 5, 7])
    sign = r.choice("+-")
    gold = f"{a} {sign} {b}\\sqrt{{{c}}}"
    same = r.random() < 0.6
    other = sign if same else {"+": "-", "-": "+"}[sign]
    lead = "" if other == "+" else "-"
    forms = [f"{lead}{b}\\sqrt{{{c}}} + {a}", f"{a} {other} \\sqrt{{{b * b * c}}}", f"\\frac{{{2 * a} {other} {2 * b}\\sqrt{{{c}}}}}{{2}}"]
    return gold, r.choice(forms), same


def reciprocal_root(r):
    n = r.choice(["n", "x", "a"])
    k = r.randint(1, 5)
    same = r.random() < 0.6
    m = k if same else k + 1
    return f"\\sqrt{{\\frac{{{k}}}{{{n}}}}}", r.choice([f"\\frac{{\\sqrt{{{m}}}}}{{\\sqrt{{{n}}}}}", f"\\frac{{\\sqrt{{{m}{n}}}}}{{{n}}}"]), same


def plain_root(r):
    a, b, c = r.randint(1, 12), r.choice([2, 3, 5, 6, 7, 10, 11]), r.randint(2, 5)
    same = r.random() < 0.6
    return f"\\frac{{{a}\\sqrt{{{b}}}}}{{{c}}}", f"{a if same else a + 1}/{c} * sqrt({b})", same


def exponential_sign(r):
    a, b = r.randint(1, 9), r.randint(1, 9)
    s, t = r.sample("+-", 2)
    return f"{a} {s} \\frac{{{b}}}{{\\mathrm{{e}}}}", f"{a} {t} \\frac{{{b}}}{{\\mathrm{{e}}}}", False


def part(r):
    a, b, c = r.sample(range(1, 60), 3)
    return f"x = {a}, y = {b}, z = {c}", r.choice([f"x = {a}", f"x = {a}, y = {b}", f"{c}, {b}, {a}"]), False


def power(r):
    a, b = r.randint(2, 9), r.randint(2, 12)
    same = r.random() < 0.6
    m = a**b if same else a**b + r.choice([1, -1, a])
    forms = [str(m), f"{m:,}", f"{a} \\cdot {a}^{{{b - 1}}}" if same else str(m)]
    return f"{a}^{{{b}}}", r.choice(forms), same


def circle(r):
    q = Fraction(r.randint(1, 30), r.randint(1, 12))
    same = r.random() < 0.6
    p = q if same else q + r.choice([1, Fraction(1, 2)])
    a, b, c, d = q.numerator, q.denominator, p.numerator, p.denominator
    gold = f"\\frac{{{a}\\pi}}{{{b}}}" if b > 1 else f"{a}\\pi"
    forms = [f"\\frac{{{c}}}{{{d}}}\\pi", f"\\pi \\cdot \\frac{{{c}}}{{{d}}}", f"{c}\\pi/{d}", f"\\frac{{{2 * c}\\pi}}{{{2 * d}}}"]
    return gold, r.choice(forms), same


def constant_e(r):
    a, b = r.randint(1, 5), r.randint(1, 5)
    s = r.choice("+-")
    same = r.random() < 0.6
    t = s if same else {"+": "-", "-": "+"}[s]
    return f"{a} {s} \\frac{{{b}}}{{e}}", r.choice([f"{a} {t} {b}e^{{-1}}", f"\\frac{{{a}e {t} {b}}}{{e}}"]), same


def logarithm(r):
    a, b = r.randint(2, 9), r.randint(2, 9)
    same = r.random() < 0.6
    m = a * b if same else a * b + 1
    return f"\\ln {m}", r.choice([f"\\ln {a} + \\ln {b}", f"\\ln({a}) + \\ln({b})"]), same


def trigonometry(r):
    x = r.choice(["x", "\\theta", "a"])
    pairs = [
        (f"\\sin^2 {x}", f"1 - \\cos^2 {x}", True), (f"\\tan {x}", f"\\frac{{\\sin {x}}}{{\\cos {x}}}", True),
        (f"\\sin 2{x}", f"2\\sin {x} \\cos {x}", True), (f"\\cos 2{x}", f"1 - 2\\sin^2 {x}", True),
        (f"\\sec^2 {x}", f"1 + \\tan^2 {x}", True), (f"\\sin {x}", f"\\cos {x}", False),
        (f"\\cos 2{x}", f"2\\sin^2 {x} - 1", False), (f"\\sin 2{x}", f"2\\sin {x}", False),
    ]
    return r.choice(pairs)


def values(r):
    return r.choice([
        ("\\frac{1}{2}", "\\sin 30^\\circ", True), ("\\frac{\\sqrt{3}}{2}", "\\cos\\frac{\\pi}{6}", True),
        ("3", "\\log_2 8", True), ("2", "\\log_{10} 100", True), ("10", "\\binom{5}{2}", True),
        ("120", "5!", True), ("3", "|-3|", True), ("2", "\\lfloor 2.7 \\rfloor", True),
        ("3", "\\lceil 2.2 \\rceil", True), ("2", "\\sqrt[3]{8}", True), ("60", "5!", False),
        ("20", "\\binom{6}{2}", False), ("4", "\\log_2 8", False), ("1", "\\ln e", True), ("\\frac{\\pi}{2}", "\\arcsin 1", True),
    ])


def polynomial(r):
    x = r.choice("xyzn")
    a, b = r.randint(-9, 9) or 4, r.randint(-9, 9) or 5
    same = r.random() < 0.6
    c = a * b if same else a * b + 1
    term = lambda k, tail: "" if k == 0 else f"{'+' if k > 0 else '-'} {abs(k) if abs(k) != 1 or not tail else ''}{tail} "
    expanded = f"{x}^2 {term(a + b, x)}{term(c, '')}"
    mixed = f"{term(c, '').strip('+ ')} {term(a + b, x)}+ {x}^2" if c > 0 else expanded
    return f"({x} {'+' if a > 0 else '-'} {abs(a)})({x} {'+' if b > 0 else '-'} {abs(b)})", r.choice([expanded, mixed]), same


def fraction_of_polynomials(r):
    a, b = r.randint(1, 9), r.randint(2, 9)
    same = r.random() < 0.6
    c = a if same else a + 1
    return f"\\frac{{x+{a}}}{{{b}}}", r.choice([f"\\frac{{x}}{{{b}}} + \\frac{{{c}}}{{{b}}}", f"\\frac{{1}}{{{b}}}(x + {c})", f"\\frac{{{2 * c} + 2x}}{{{2 * b}}}"]), same


def several_variables(r):
    u, v = r.choice([("a", "b"), ("x", "y"), ("m", "n"), ("p", "q")])
    k = r.randint(2, 9)
    same = r.random() < 0.6
    m = k if same else k + 1
    return f"{k}{u}{v} + {u}^2", r.choice([f"{u}({m}{v} + {u})", f"{u}^2 + {m}{v}{u}", f"{u}^{{2}} + {m} {u} {v}"]), same


def members(r):
    n = r.randint(2, 5)
    return r.sample(range(-20, 40), n)


def finite_set(r):
    xs = members(r)
    ys = xs[:]
    r.shuffle(ys)
    kind = r.random()
    if kind > 0.8:
        ys = ys[:-1]
    elif kind > 0.6:
        ys[0] = 77
    ys_text = ", ".join(map(str, ys))
    wrap = r.choice(["\\{%s\\}", "%s", "\\left\\{ %s \\right\\}"]) if len(ys) > 1 else "\\{%s\\}"
    return "\\{" + ", ".join(map(str, xs)) + "\\}", wrap % ys_text, kind <= 0.6


def listing(r):
    xs = members(r)
    ys = xs[:]
    r.shuffle(ys)
    kind = r.random()
    if kind > 0.7:
        ys[-1] += 50
    last = f"{', '.join(map(str, ys[:-1]))} \\text{{ and }} {ys[-1]}"
    return ", ".join(map(str, xs)), r.choice([last, ", ".join(map(str, ys)), "\\{" + ",".join(map(str, ys)) + "\\}"]), kind <= 0.7


def point(r):
    xs = members(r)
    ys = xs[:]
    kind = r.random()
    if kind > 0.8:
        ys = ys[::-1]
    elif kind > 0.6:
        ys[-1] += 1
    spell = lambda n: r.choice([str(n), str(n), f"{n}.0", f"\\frac{{{2 * n}}}{{2}}"])
    return "(" + ", ".join(map(str, xs)) + ")", r.choice(["(%s)", "\\left(%s\\right)", "(x, y) = (%s)" if len(ys) == 2 else "(%s)"]) % ", ".join(map(spell, ys)), xs == ys


def interval(r):
    a = r.randint(-9, 5)
    b = a + r.randint(1, 9)
    left, right = r.choice("(["), r.choice(")]")
    kind = r.random()
    l, h, c = left, b, a
    if kind > 0.85:
        l = "[" if left == "(" else "("
    elif kind > 0.7:
        h += 1
    elif kind > 0.6:
        c -= 1
    return f"{left}{a}, {b}{right}", r.choice([f"{l}{c},{h}{right}", f"\\left{l}{c}, {h}\\right{right}", f"x \\in {l}{c}, {h}{right}"]), kind <= 0.6


def union(r):
    a = r.randint(-9, 5)
    b = a + r.randint(1, 5)
    kind = r.random()
    h = b if kind <= 0.6 else b + 1
    return f"(-\\infty, {a}) \\cup ({b}, \\infty)", r.choice([f"({h}, \\infty) \\cup (-\\infty, {a})", f"(-\\infty,{a})\\cup({h},+\\infty)"]), kind <= 0.6


def inequality(r):
    a = r.randint(-9, 9)
    less, more = r.choice([("<", ">"), ("\\le", "\\ge"), ("\\leq", "\\geq")])
    kind = r.random()
    forms = [f"{a} {more} x", f"x {less} {a}", f"-x {more} {-a}", f"x {less} \\frac{{{2 * a}}}{{2}}"]
    wrong = [f"x {more} {a}", f"x {less} {a + 1}", f"x {'<' if less != '<' else chr(92) + 'le'} {a}"]
    return f"x {less} {a}", r.choice(forms if kind < 0.6 else wrong), kind < 0.6


def chain(r):
    a = r.randint(-9, 5)
    b = a + r.randint(1, 9)
    kind = r.random()
    h = b if kind < 0.6 else b + 1
    return f"{a} < x \\le {b}", r.choice([f"({a}, {h}]", f"{a} < x \\leq {h}", f"x \\in ({a}, {h}]", f"{h} \\ge x > {a}"]), kind < 0.6


def equation(r):
    v = r.choice("xynkt")
    q = Fraction(r.randint(-20, 20), r.randint(1, 5))
    kind = r.random()
    p = q if kind < 0.6 else q + 1
    spell = lambda f: str(f.numerator) if f.denominator == 1 else f"\\frac{{{f.numerator}}}{{{f.denominator}}}"
    return f"{v} = {spell(q)}", r.choice([spell(p), f"{v} = {spell(p)}", f"{v} = 1 + {spell(p - 1)} = {spell(p)}"]), kind < 0.6


def line(r):
    a, b, c = r.randint(1, 9), r.randint(1, 9), r.randint(1, 20)
    kind = r.random()
    d = c if kind < 0.6 else c + 1
    return f"{a}x + {b}y = {c}", r.choice([f"{2 * a}x + {2 * b}y = {2 * d}", f"{b}y + {a}x - {d} = 0", f"y = \\frac{{{d} - {a}x}}{{{b}}}"]), kind < 0.6


def matrix(r):
    xs = [r.randint(-9, 9) for _ in range(4)]
    ys = xs[:]
    kind = r.random()
    if kind > 0.6:
        ys[r.randrange(4)] += 1
    form = lambda e, v: f"\\begin{{{e}}}{v[0]} & {v[1]} \\\\ {v[2]} & {v[3]}\\end{{{e}}}"
    return form("pmatrix", xs), r.choice([form("pmatrix", ys), form("bmatrix", ys), f"\\left[\\begin{{array}}{{cc}}{ys[0]} & {ys[1]} \\\\ {ys[2]} & {ys[3]}\\end{{array}}\\right]"]), kind <= 0.6


def complex_number(r):
    a, b = r.randint(-9, 9) or 2, r.randint(1, 9)
    kind = r.random()
    c = b if kind < 0.6 else b + 1
    return f"{a} + {b}i", r.choice([f"{c}i + {a}", f"{a} + {c}i", f"\\frac{{{2 * a} + {2 * c}i}}{{2}}", f"{a} - (-{c}i)"]), kind < 0.6


def unit(r):
    n = r.randint(1, 500)
    u = r.choice(["cm", "m", "km", "inches", "feet", "hours", "miles", "kg", "seconds", "units", "apples", "dollars"])
    kind = r.random()
    m = n if kind < 0.65 else n + 1
    square = r.choice(["", "^2"]) if u in ("cm", "m", "inches", "feet") else ""
    golds = [str(n), f"{n}\\text{{ {u}}}{square}", f"{n}\\mbox{{ {u}}}{square}"]
    answers = [str(m), f"{m}\\text{{ {u}}}{square}", f"{m}~\\text{{{u}}}{square}", f"{m}\\,\\mathrm{{{u}}}{square}"]
    return r.choice(golds), r.choice(answers), kind < 0.65


def percentage(r):
    n = r.randint(1, 99)
    kind = r.random()
    m = n if kind < 0.65 else n + 1
    return f"{n}\\%", r.choice([f"{m}\\%", f"{m}", f"{m}\\text{{ percent}}", f"{m}.0\\%", f"{m / 100}"]), kind < 0.65


def degrees(r):
    n = r.randint(1, 360)
    kind = r.random()
    m = n if kind < 0.65 else n + 5
    return f"{n}^\\circ", r.choice([f"{m}^\\circ", f"{m}^{{\\circ}}", str(m), f"{m}\\text{{ degrees}}"]), kind < 0.65


def money(r):
    n = r.randint(100, 99999)
    kind = r.random()
    m = n if kind < 0.65 else n + 1
    return f"\\${n / 100:.2f}", r.choice([f"\\${m / 100:.2f}", f"{m / 100:.2f}", f"\\$ {m / 100:.2f}"]), kind < 0.65


def word(r):
    words = ["Evelyn", "Monday", "east", "odd", "even", "yes", "no", "ellipse", "parabola", "increasing"]
    w = r.choice(words)
    v = w if r.random() < 0.65 else r.choice([x for x in words if x != w])
    return f"\\text{{{w}}}", r.choice([f"\\text{{{v}}}", f"\\textbf{{{v}}}", f"\\mathrm{{{v}}}", f"\\text{{ {v} }}"]), v == w


def letter(r):
    a = r.choice("ABCDE")
    b = a if r.random() < 0.65 else r.choice([c for c in "ABCDE" if c != a])
    return f"\\text{{({a})}}", r.choice([f"\\text{{({b})}}", f"({b})", b, f"\\text{{{b}}}", f"\\textbf{{({b})}}"]), a == b


def plus_minus(r):
    a, b = r.randint(1, 9), r.choice([2, 3, 5, 7])
    kind = r.random()
    c = b if kind < 0.6 else b + 6
    both = [f"{a} \\pm \\sqrt{{{c}}}", f"{a} + \\sqrt{{{c}}}, {a} - \\sqrt{{{c}}}", f"\\{{{a} - \\sqrt{{{c}}}, {a} + \\sqrt{{{c}}}\\}}"]
    return f"{a} \\pm \\sqrt{{{b}}}", r.choice(both), kind < 0.6


def partial(r):
    a, b = r.sample(range(1, 40), 2)
    return f"{a}, {b}", r.choice([str(a), str(b), f"x = {a}"]), False


def scientific(r):
    a, n = r.randint(11, 99), r.randint(2, 9)
    kind = r.random()
    m = n if kind < 0.6 else n + 1
    return f"{a / 10} \\times 10^{{{n}}}", r.choice([str(a * 10**(m - 1)), f"{a / 10} \\cdot 10^{{{m}}}", f"{a}\\times 10^{{{m - 1}}}"]), kind < 0.6


def ratio(r):
    a, b = r.randint(1, 9), r.randint(1, 9)
    kind = r.random()
    c = b if kind < 0.6 else b + 1
    return f"{a}:{b}", r.choice([f"{a}:{c}", f"\\frac{{{a}}}{{{c}}}", f"{a} : {c}"]), kind < 0.6


def huge(r):
    n = r.randint(15, 60)
    kind = r.random()
    m = n if kind < 0.6 else n + 1
    return f"{n}!", r.choice([f"{m} \\cdot {m - 1}!", str(factorial(m)), f"\\frac{{{m + 1}!}}{{{m + 1}}}"]), kind < 0.6


def points(r):
    xs = [(r.randint(-9, 9), r.randint(-9, 9)) for _ in range(r.randint(2, 3))]
    ys = xs[:]
    r.shuffle(ys)
    kind = r.random()
    if kind > 0.6:
        ys[0] = (ys[0][0] + 20, ys[0][1])
    show = lambda v: ", ".join(f"({a}, {b})" for a, b in v)
    return show(xs), r.choice([show(ys), "\\{" + show(ys) + "\\}", show(ys).replace(" ", "")]), set(xs) == set(ys)


KINDS = [integer, rational, decimal, rounded, surd, sum_of_surds, power, circle, constant_e, logarithm, trigonometry, values, polynomial, fraction_of_polynomials, several_variables, finite_set, listing, point, interval, union, inequality, chain, equation, line, matrix, complex_number, unit, percentage, degrees, money, word, letter, plus_minus, partial, scientific, ratio, huge, points]

# What Math-Verify is known to get wrong, not part of the agreement.
KNOWN = [reciprocal_root, plain_root, exponential_sign, part]


def pairs(count, seed, kinds=KINDS):
    r = random.Random(seed)
    out, seen = [], set()
    while len(out) < count:
        kind = kinds[len(out) % len(kinds)]
        for _ in range(50):
            gold, answer, equal = kind(r)
            if (gold, answer) not in seen:
                break
        seen.add((gold, answer))
        out.append((kind.__name__, f"${gold}$", f"${answer}$", equal))
    return out


def oracle(gold, answer):
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    config = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]
    return bool(verify(parse(gold, config), parse(answer, config)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tests", "pairs", "known"])
    parser.add_argument("directory", nargs="?")
    parser.add_argument("--grader", required=True)
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", help="JSON file that keeps Math-Verify's verdicts")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    kinds = KNOWN if args.what == "known" else KINDS
    cases = tests(args.directory) if args.what == "tests" else pairs(args.count, args.seed, kinds)
    lines = "\n".join(json.dumps({"gold": gold, "answer": answer}) for _, gold, answer, _ in cases)
    done = subprocess.run(shlex.split(args.grader), input=lines, capture_output=True, text=True, check=True)
    ours = [json.loads(line) for line in done.stdout.splitlines()]
    try:
        known = json.load(open(args.cache)) if args.cache else {}
    except FileNotFoundError:
        known = {}
    agreed = right = theirs_right = 0
    kinds = collections.defaultdict(lambda: [0, 0, 0, 0])
    for (kind, gold, answer, expected), our in zip(cases, ours, strict=True):
        key = json.dumps([gold, answer])
        if key not in known:
            known[key] = oracle(gold, answer)
        found, theirs = our["verdict"] == "equal", known[key]
        agreed += found == theirs
        right += found == expected
        theirs_right += theirs == expected
        tally = kinds[kind]
        tally[0] += 1
        tally[1] += found == theirs
        tally[2] += found == expected
        tally[3] += theirs == expected
        if not found == theirs == expected:
            print(json.dumps({"kind": kind, "gold": gold[-160:], "answer": answer[-300:], "ours": our, "math-verify": theirs, "expected": expected}))
    if args.cache:
        json.dump(known, open(args.cache, "w"))
    for kind, tally in kinds.items():
        print(f"{kind:28} {tally[0]:5} pairs, {tally[1]:5} agree, right: ours {tally[2]:5}, theirs {tally[3]:5}", file=sys.stderr)
    total = len(cases)
    print(f"{total} pairs: {agreed} agree ({agreed / total:.2%}); as expected: ours {right} ({right / total:.2%}), Math-Verify {theirs_right} ({theirs_right / total:.2%})", file=sys.stderr)


if __name__ == "__main__":
    main()
