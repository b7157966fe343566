use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::task::{FaultKind, Panel};

fn puzzle(json: Value) -> Abduction {
    serde_json::from_value(json).unwrap()
}

fn drawn(level: u32, mode: Mode, index: u64) -> Option<Abduction> {
    let parameters = Parameters { mode, ..Abduction::parameters(level) };
    Abduction::source(&parameters)(&mut Stream::new(7, "abduction", index))
}

fn explanation() -> Abduction {
    (0..).find_map(|index| drawn(1, Mode::Explanation, index)).unwrap()
}

/// The quickstart's two levels, and its letters.
fn quickstart(index: u64) -> Abduction {
    let parameters = Parameters {
        depth: [2, 3],
        goals: 2,
        decoys: true,
        distractors: [1, 3],
        and_share: 0.3,
        or_share: 0.3,
        cycle_share: 0.1,
        ..Abduction::parameters(2)
    };
    let mut source = Abduction::source(&parameters);
    let draw = |i| source(&mut Stream::new(i, "quickstart", index));
    (0..).find_map(draw).unwrap()
}

fn samples(count: u64) -> impl Iterator<Item = Abduction> {
    (0..count).filter_map(|i| {
        let mode = if i % 3 == 0 { Mode::Explanation } else { Mode::Reachability };
        drawn(1 + (i % 5) as u32, mode, i)
    })
}

fn form(puzzle: &Abduction) -> Vec<u8> {
    let mut out = Vec::new();
    puzzle.canonical(&mut out);
    out
}

fn kind(puzzle: &Abduction) -> FaultKind {
    puzzle.certify().unwrap_err().kind
}

#[test]
fn the_compact_style_is_what_the_small_model_learnt() {
    let puzzle = puzzle(json!({
        "rules": [
            "(D) => B", "((H AND E)) => A", "(B) => C", "(A) => G", "(X) => G", "(G) => X"
        ],
        "known": ["E", "H"], "goals": ["C", "G"], "depth": 2,
    }));
    assert_eq!(puzzle.text(Style::Compact), "A:BD;AHE;CB;GA;GX;XG;DF;ET;HT;?C,G");
    assert_eq!(puzzle.trace(Style::Compact), "CB BD DF=0;GA AHE HT ET=1");
    assert_eq!(puzzle.answer(Style::Compact), "01");
    for (answer, verdict) in [
        ("01", Verdict::Correct),
        ("G=1, C=0", Verdict::Correct),
        ("11", Verdict::Wrong("goal C".into())),
        ("1", Verdict::Unparsed),
        ("011", Verdict::Unparsed),
        ("C=0", Verdict::Unparsed),
        ("C=0,C=0", Verdict::Unparsed),
        ("(1) C is unreachable\n(2) G is reachable", Verdict::Correct),
        ("  g IS reachable ;\n\n 2. c is  UNREACHABLE.", Verdict::Correct),
        ("C is not reachable, G reachable", Verdict::Correct),
        ("C is reachable\nG is reachable", Verdict::Wrong("goal C".into())),
        ("C is unreachable\nG is reachable\nG is reachable", Verdict::Unparsed),
        ("C is unreachable\nX is reachable", Verdict::Unparsed),
        ("C is not unreachable\nG is reachable", Verdict::Unparsed),
        ("", Verdict::Unparsed),
    ] {
        assert_eq!(puzzle.check(answer), verdict, "{answer}");
    }
    let certificate = puzzle.certify().unwrap();
    assert_eq!((certificate.kind, certificate.size, certificate.depth), ("reachability", 7, 2));
}

/// The search as it was when today's checkpoints were trained: rules in order, no memory.
fn plain_trace(puzzle: &Abduction) -> String {
    fn search(puzzle: &Abduction, a: u8, path: &mut Vec<u8>, steps: &mut Vec<String>) -> bool {
        let name = puzzle.name(a);
        if puzzle.known.contains(&a) {
            steps.push(format!("{name}T"));
            return true;
        }
        if path.contains(&a) {
            steps.push(format!("{name}@"));
            return false;
        }
        if puzzle.graph.rules_for(a).is_empty() {
            steps.push(format!("{name}F"));
            return false;
        }
        path.push(a);
        let mut reached = false;
        for &rule in puzzle.graph.rules_for(a) {
            let mut text = String::new();
            puzzle.write_rule_compact(rule.into(), &mut text);
            steps.push(text);
            let body = puzzle.graph.rules[rule as usize].body;
            reached = puzzle.graph.literals(body).all(|b| search(puzzle, b as u8, path, steps));
            if reached {
                break;
            }
        }
        path.pop();
        reached
    }
    let goals = puzzle.goals.iter().map(|&goal| {
        let mut steps = Vec::new();
        let reached = search(puzzle, goal, &mut Vec::new(), &mut steps);
        format!("{}={}", steps.join(" "), u8::from(reached))
    });
    goals.collect::<Vec<_>>().join(";")
}

#[test]
fn traces_of_plain_puzzles_are_those_of_the_search_without_memory() {
    for i in 0..500 {
        let puzzle = quickstart(i);
        assert!(puzzle.names.iter().all(Name::is_letter));
        assert_eq!(puzzle.trace(Style::Compact), plain_trace(&puzzle));
    }
}

#[test]
fn or_and_negation_have_a_compact_form() {
    let puzzle = puzzle(json!({
        "rules": ["((A AND (NOT B)) OR C) => D", "((B OR E) AND (NOT D)) => H"],
        "known": ["A"], "goals": ["D", "H"],
    }));
    assert_eq!(puzzle.text(Style::Compact), "A:DA~B|C;H(B|E)~D;AT;BF;CF;EF;?D,H");
    assert_eq!(puzzle.trace(Style::Compact), "DA~B|C AT BF=1;H(B|E)~D BF EF=0");
}

#[test]
fn names_beyond_letters_stand_apart() {
    let puzzle = puzzle(json!({
        "rules": ["((KB AND k) AND t) => NO"], "known": ["KB", "K", "T"], "goals": ["no"],
    }));
    assert_eq!(puzzle.text(Style::Compact), "A:NoKbKTt;KT;KbT;TtT;?No");
    assert_eq!(puzzle.check("no is reachable"), Verdict::Correct);
}

#[test]
fn explanations_are_smallest_and_consistent() {
    let puzzle = puzzle(json!({
        "mode": "explanation",
        "rules": [
            "(A) => G", "((X AND Y)) => A", "((X AND Z)) => A", "((W AND V)) => A", "(X) => B",
            "(Y) => C", "((B AND C)) => BAD", "(P) => Q", "(Q) => R", "(R) => S", "(S) => T",
        ],
        "known": ["P"], "goals": ["G"], "abducibles": ["V", "W", "X", "Y", "Z"],
        "constraints": ["BAD"], "depth": 2,
    }));
    let certificate = puzzle.certify().unwrap();
    assert_eq!((certificate.kind, certificate.depth), ("explanation", 2));
    assert_eq!(certificate.proof["smallest_sets"], 2);
    assert_eq!(certificate.proof["size"], 2);
    assert_eq!(certificate.proof["sets_tried"], 1 + 5 + 10);
    for (answer, verdict) in [
        ("X,Z", Verdict::Correct),
        ("zx", Verdict::Correct),
        ("{V, W}", Verdict::Correct),
        ("(1) assume W\n(2) assume V", Verdict::Correct),
        ("assume x and z.", Verdict::Correct),
        ("X,Y", Verdict::Wrong("constraint 1".into())),
        ("X", Verdict::Wrong("goal G".into())),
        ("X,Z,V", Verdict::Wrong("3 hypotheses where 2 do".into())),
        ("X,Z,B", Verdict::Wrong("B may not be assumed".into())),
        ("X,Z,maybe", Verdict::Unparsed),
        ("", Verdict::Unparsed),
    ] {
        assert_eq!(puzzle.check(answer), verdict, "{answer}");
    }
    assert_eq!(
        puzzle.text(Style::Compact),
        "A:GA;AXY;AXZ;AWV;BX;CY;BadBC;QP;RQ;SR;TtS;#Bad;PT;V*;W*;X*;Y*;Z*;?G"
    );
    assert_eq!(puzzle.trace(Style::Compact), "GA AXY X* Y* AXZ X* Z* AWV W* V*;X,Y#=V,W");
    assert!(puzzle.trace(Style::Paper).contains("X and Y: every goal follows, but this breaks"));
}

#[test]
fn hypotheses_are_read_as_they_are_written() {
    let puzzle = puzzle(json!({
        "mode": "explanation",
        "rules": [
            "(F AND LONG_NAME_OF_X) => G", "(G) => A", "(A) => C", "(P) => Q", "(Q) => R",
            "(P AND ASSUME) => R",
        ],
        "known": ["P"], "goals": ["C"], "abducibles": ["F", "LONG_NAME_OF_X", "ASSUME"],
    }));
    assert_eq!(puzzle.answer(Style::Compact), "Ff,Long_name_of_x");
    assert_eq!(puzzle.answer(Style::Paper), "(1) assume F\n(2) assume LONG_NAME_OF_X");
    for style in [Style::Compact, Style::Paper] {
        assert_eq!(puzzle.check(&puzzle.answer(style)), Verdict::Correct);
    }
    assert_eq!(puzzle.check("assume ASSUME"), Verdict::Wrong("goal C".into()));
    // Long names have an order, too.
    assert!(puzzle.shortcuts().iter().any(|probe| probe.0 == "first by name"));
}

#[test]
fn hypotheses_are_a_fault_that_is_stored() {
    let json = json!({
        "rules": ["(A) => B", "(B) => C"], "known": ["A"], "goals": ["C"], "abducibles": ["D"],
    });
    let first = puzzle(json);
    assert_eq!(kind(&first), FaultKind::Malformed);
    let stored = serde_json::to_value(&first).unwrap();
    assert_eq!(stored["abducibles"], json!(["D"]));
    assert_eq!(form(&puzzle(stored)), form(&first));
}

#[test]
fn assuming_less_may_explain_more() {
    // With X, A fails, so the goal follows from Y alone; {X, Y} is no explanation.
    let puzzle = puzzle(json!({
        "mode": "explanation",
        "rules": ["(A AND Y) => G", "(NOT X) => A", "(X) => U", "(U) => W", "(W) => Z"],
        "known": [], "goals": ["G"], "abducibles": ["X", "Y"],
    }));
    assert_eq!(puzzle.answer(Style::Paper), "(1) assume Y");
    assert_eq!(puzzle.check("X,Y"), Verdict::Wrong("goal G".into()));
}

#[test]
fn faults_name_the_atom() {
    let fault = |rules: Value, known: Value, goals: Value, depth: u32| {
        let json = json!({"rules": rules, "known": known, "goals": goals, "depth": depth});
        let fault = puzzle(json).certify().unwrap_err();
        (fault.kind, fault.detail)
    };
    let rules = json!(["A => B", "B => C", "C => D", "E => F", "F => H"]);
    let (kind, detail) = fault(rules.clone(), json!(["A", "B"]), json!(["B"]), 1);
    assert_eq!((kind, detail.as_str()), (FaultKind::Leak, "goal B is a known atom"));
    let (kind, detail) = fault(rules.clone(), json!(["A"]), json!(["E"]), 1);
    assert_eq!((kind, detail.as_str()), (FaultKind::Leak, "no rule makes goal E"));
    let (kind, _) = fault(rules.clone(), json!(["A"]), json!(["D", "D"]), 1);
    assert_eq!(kind, FaultKind::Malformed);
    let (kind, detail) = fault(rules, json!(["A"]), json!(["B"]), 2);
    assert_eq!(kind, FaultKind::Shallow);
    assert_eq!(detail, "a goal is decided 1 rules away, 2 are promised");
    let loops = json!(["NOT B => A", "C => B", "A => C", "A => D"]);
    let (kind, detail) = fault(loops, json!(["E"]), json!(["D"]), 0);
    assert_eq!(kind, FaultKind::Malformed);
    assert!(detail.contains("A → B → C hang"), "{detail}");
}

#[test]
fn explanations_that_are_none_are_faults() {
    let fault = |rules: Value, known: Value, abducibles: Value| {
        kind(&puzzle(json!({
            "mode": "explanation", "rules": rules, "known": known, "goals": ["G"],
            "abducibles": abducibles,
        })))
    };
    assert_eq!(fault(json!(["A => G"]), json!(["A"]), json!(["X"])), FaultKind::Leak);
    assert_eq!(fault(json!(["A => G"]), json!([]), json!(["X"])), FaultKind::Unsolvable);
    assert_eq!(fault(json!(["A => G"]), json!([]), json!(["G"])), FaultKind::Leak);
    assert_eq!(fault(json!(["A => G"]), json!([]), json!([])), FaultKind::Malformed);
    let many: Vec<String> = (0..30).map(|i| format!("X{i}")).collect();
    assert_eq!(fault(json!(["A => G"]), json!([]), json!(many)), FaultKind::Unproven);
}

#[test]
fn the_released_texts_are_read() {
    let text = "premises: ['(C) => I', '(((A OR (NOT I)) OR (L OR NO))) => I', '((N OR C)) => O', \
                '((NOT I)) => A', '(((N OR N) OR (NOT A))) => NO']\n\
                known_atoms: ['N', 'NO', 'L']\ngoals: ['FI', 'KB', 'NO']\nFor each goal, first \
                assume it is true: and so on";
    let puzzle = Abduction::read(text).unwrap();
    let (own, _) = text.rsplit_once('\n').unwrap();
    assert_eq!(puzzle.text(Style::Paper), own);
    assert_eq!(
        puzzle.answer(Style::Paper),
        "(1) FI is unreachable\n(2) KB is unreachable\n(3) NO is reachable"
    );
    assert_eq!(kind(&puzzle), FaultKind::Leak);
    let known = puzzle.shortcuts().into_iter().find(|(name, _)| *name == "known atom");
    assert_eq!(known, Some(("known atom", 1.0)));
    for (text, what) in [
        ("goals: ['A']", "no line `premises: [...]`"),
        ("premises: ['A = B']\nknown_atoms: []\ngoals: ['A']", "premises: item 1: no `=>`"),
        (
            "premises: ['(A => B']\nknown_atoms: []\ngoals: ['A']",
            "premises: item 1: a `(` stays open",
        ),
        ("premises: ['A B => C']\nknown_atoms: []\ngoals: ['A']", "premises: item 1: `B` behind"),
        ("premises: []\nknown_atoms: []\ngoals: []", "goals: 0, must be"),
        ("premises: ['A => B' 'B => C']\nknown_atoms: []\ngoals: []", "premises: no comma"),
    ] {
        let found = Abduction::read(text).unwrap_err();
        assert!(found.starts_with(what), "{found}");
    }
}

/// Reachability by definition: strata by trial, each rule tried again and again.
fn reference(puzzle: &Abduction) -> Vec<bool> {
    // The alternating fixed point with sets and recursion, one atom at a time.
    fn body(tokens: &mut std::slice::Iter<'_, u16>, set: &[bool], not: &[bool]) -> bool {
        let &token = tokens.next().unwrap();
        if graph::is_literal(token) {
            let a = token as u8 as usize;
            return if token >= graph::NOT { !not[a] } else { set[a] };
        }
        let (a, b) = (body(tokens, set, not), body(tokens, set, not));
        if token == graph::AND { a && b } else { a || b }
    }
    let least = |not: &[bool]| {
        let mut set = vec![false; puzzle.graph.atoms];
        puzzle.known.iter().for_each(|&a| set[a as usize] = true);
        for _ in 0..=puzzle.graph.atoms {
            for rule in &puzzle.graph.rules {
                if body(&mut puzzle.graph.tokens(rule.body).iter(), &set, not) {
                    set[rule.head as usize] = true;
                }
            }
        }
        set
    };
    let mut certain = vec![false; puzzle.graph.atoms];
    for _ in 0..=puzzle.graph.atoms {
        certain = least(&least(&certain));
    }
    puzzle.goals.iter().map(|&goal| certain[goal as usize]).collect()
}

/// Any small puzzle, stratified or not.
fn any_puzzle() -> impl Strategy<Value = Abduction> {
    let literal = (0..7u8, any::<bool>()).prop_map(|(a, not)| {
        let name = char::from(b'A' + a);
        if not { format!("(NOT {name})") } else { name.to_string() }
    });
    let body = literal.prop_recursive(3, 6, 2, |inner| {
        (inner.clone(), any::<bool>(), inner)
            .prop_map(|(a, and, b)| format!("({a} {} {b})", if and { "AND" } else { "OR" }))
    });
    let rule =
        (body, 0..7u8).prop_map(|(body, head)| format!("{body} => {}", char::from(b'A' + head)));
    let atoms = |most| {
        prop::collection::vec((0..7u8).prop_map(|a| char::from(b'A' + a).to_string()), 0..most)
    };
    (prop::collection::vec(rule, 1..8), atoms(3), atoms(3)).prop_map(|(rules, known, mut goals)| {
        goals.push("A".into());
        puzzle(json!({"rules": rules, "known": known, "goals": goals}))
    })
}

/// The same with other names and another order, operands of AND and OR swapped too.
fn disguised(puzzle: &Abduction, stream: &mut Stream) -> Abduction {
    fn body(tokens: &mut std::slice::Iter<'_, u16>, map: &[u8], stream: &mut Stream) -> Vec<u16> {
        let &token = tokens.next().unwrap();
        if graph::is_literal(token) {
            return vec![token & graph::NOT | u16::from(map[token as u8 as usize])];
        }
        let (a, b) = (body(tokens, map, stream), body(tokens, map, stream));
        let (a, b) = if stream.chance(0.5) { (a, b) } else { (b, a) };
        // (x o y) o z as x o (y o z).
        if b[0] == token && stream.chance(0.5) {
            let mut rest = b[1..].iter();
            let identity: Vec<u8> = (0..=255).collect();
            let y = body(&mut rest, &identity, stream);
            return [vec![token, token], a, y, rest.copied().collect()].concat();
        }
        [vec![token], a, b].concat()
    }
    let mut other = puzzle.clone();
    let atoms = puzzle.graph.atoms;
    let mut map: Vec<u8> = (0..atoms).map(|a| a as u8).collect();
    stream.shuffle(&mut map);
    let mut rules = puzzle.graph.rules.clone();
    let mut constraints = puzzle.graph.constraints.clone();
    stream.shuffle(&mut rules);
    stream.shuffle(&mut constraints);
    other.graph = Graph::default();
    other.graph.atoms = atoms;
    for rule in rules {
        let tokens = body(&mut puzzle.graph.tokens(rule.body).iter(), &map, stream);
        let head = map[rule.head as usize];
        let body = other.graph.add_body(&tokens).unwrap();
        other.graph.rules.push(graph::Rule { head, body });
    }
    for constraint in constraints {
        let tokens = body(&mut puzzle.graph.tokens(constraint).iter(), &map, stream);
        let body = other.graph.add_body(&tokens).unwrap();
        other.graph.constraints.push(body);
    }
    other.graph.index();
    for (list, source) in [
        (&mut other.known, &puzzle.known),
        (&mut other.goals, &puzzle.goals),
        (&mut other.abducibles, &puzzle.abducibles),
    ] {
        *list = source.iter().map(|&a| map[a as usize]).collect();
        stream.shuffle(list);
    }
    stream.shuffle(&mut other.names);
    other.solved = OnceCell::new();
    other
}

/// Rules, marks and goals under one naming, in an order of their own.
fn spelled(puzzle: &Abduction, map: &[u8]) -> Vec<Vec<u8>> {
    fn body(tokens: &mut std::slice::Iter<'_, u16>, map: &[u8], outer: u16) -> Vec<Vec<u8>> {
        let &token = tokens.next().unwrap();
        if graph::is_literal(token) {
            return vec![vec![(token >> 8) as u8, map[token as u8 as usize]]];
        }
        let mut all = body(tokens, map, token);
        all.extend(body(tokens, map, token));
        all.sort();
        all.dedup();
        if token == outer || all.len() == 1 {
            return all;
        }
        let mut whole = vec![(token >> 8) as u8 + 10, all.len() as u8];
        whole.extend(all.concat());
        vec![whole]
    }
    let mut all: Vec<Vec<u8>> = puzzle
        .graph
        .rules
        .iter()
        .map(|rule| {
            let tokens = &mut puzzle.graph.tokens(rule.body).iter();
            [vec![0, map[rule.head as usize]], body(tokens, map, 0).concat()].concat()
        })
        .collect();
    all.sort();
    all.dedup();
    let mut known: Vec<Vec<u8>> = puzzle.known.iter().map(|&a| vec![1, map[a as usize]]).collect();
    known.sort();
    known.dedup();
    let mut goals: Vec<Vec<u8>> = puzzle.goals.iter().map(|&a| vec![2, map[a as usize]]).collect();
    goals.sort();
    [all, known, goals, vec![vec![map.len() as u8]]].concat()
}

fn permutations(count: usize) -> Vec<Vec<u8>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(count - 1);
    shorter
        .iter()
        .flat_map(|rest| {
            (0..count).map(move |place| {
                let mut whole = rest.clone();
                whole.insert(place, count as u8 - 1);
                whole
            })
        })
        .collect()
}

#[test]
fn forms_are_equal_exactly_for_isomorphic_puzzles() {
    // Puzzles of few atoms and rules, so that many are isomorphic; brute force tries all names.
    let mut stream = Stream::new(3, "forms", 0);
    let mut by_form: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
    let mut by_brute: HashMap<Vec<Vec<u8>>, Vec<u8>> = HashMap::new();
    let mut met_again = 0;
    for _ in 0..6000 {
        let atoms = 3 + stream.below(3);
        let mut name = || char::from(b'A' + stream.below(atoms) as u8);
        let (a, b) = (name(), name());
        let rules = (0..2 + a as usize % 3).map(|i| match (i + b as usize) % 4 {
            0 => format!("{} => {}", name(), name()),
            1 => format!("{} AND {} => {}", name(), name(), name()),
            2 => format!("{} OR (NOT {}) => {}", name(), name(), name()),
            _ => format!("({} AND {}) OR {} => {}", name(), name(), name(), name()),
        });
        let rules: Vec<String> = rules.collect();
        let puzzle = puzzle(
            json!({"rules": rules, "known": [name().to_string()], "goals": [name().to_string()]}),
        );
        let brute =
            permutations(puzzle.graph.atoms).iter().map(|map| spelled(&puzzle, map)).min().unwrap();
        let form = form(&puzzle);
        if let Some(other) = by_form.get(&form) {
            assert_eq!(*other, brute, "{rules:?}");
            met_again += 1;
        }
        if let Some(other) = by_brute.get(&brute) {
            assert_eq!(*other, form, "{rules:?}");
        }
        by_form.insert(form.clone(), brute.clone());
        by_brute.insert(brute, form);
    }
    assert!(met_again > 300, "{met_again}");
}

#[test]
fn forms_ignore_names_and_order() {
    let mut stream = Stream::new(4, "disguises", 0);
    for puzzle in samples(300) {
        let other = disguised(&puzzle, &mut stream);
        assert_eq!(form(&puzzle), form(&other), "{}", puzzle.text(Style::Paper));
    }
}

#[test]
fn forms_see_through_regular_graphs() {
    // Two cycles of three against one of six: colours alone do not tell them apart.
    let cycles = |parts: &[usize]| {
        let mut rules = Vec::new();
        let mut start = 0;
        for &part in parts {
            for i in 0..part {
                let name = |i: usize| char::from(b'A' + (start + i % part) as u8);
                rules.push(format!("{} => {}", name(i), name(i + 1)));
            }
            start += part;
        }
        rules.extend((0..start).map(|i| format!("{} => Z", char::from(b'A' + i as u8))));
        puzzle(json!({"rules": rules, "known": [], "goals": ["Z"]}))
    };
    assert_ne!(form(&cycles(&[3, 3])), form(&cycles(&[6])));
    assert_eq!(form(&cycles(&[2, 3])), form(&cycles(&[3, 2])));
    let mut stream = Stream::new(5, "cycles", 0);
    for parts in [&[3, 3][..], &[6], &[4, 4, 4], &[5, 5], &[12]] {
        let puzzle = cycles(parts);
        assert_eq!(form(&puzzle), form(&disguised(&puzzle, &mut stream)));
    }
}

#[test]
fn what_is_no_real_difference() {
    let of = |rules: Value| form(&puzzle(json!({"rules": rules, "known": ["B"], "goals": ["A"]})));
    let plain = of(json!(["B AND C => A"]));
    assert_eq!(plain, of(json!(["C AND (B AND B) => A", "B AND C => A"])));
    assert_eq!(plain, of(json!(["(C OR C) AND ((B OR B) AND C) => A"])));
    assert_ne!(plain, of(json!(["B OR C => A"])));
    assert_ne!(plain, of(json!(["B AND (NOT C) => A"])));
    assert_ne!(plain, of(json!(["B => A", "C => A"])));
}

#[test]
fn every_draw_is_proven_and_its_answer_right_in_both_styles() {
    let mut proven = 0;
    for puzzle in samples(400) {
        let Ok(certificate) = puzzle.certify() else { continue };
        proven += 1;
        assert!(certificate.depth >= puzzle.depth);
        for style in [Style::Compact, Style::Paper] {
            assert_eq!(puzzle.check(&puzzle.answer(style)), Verdict::Correct);
            assert_eq!(puzzle.check(&puzzle.answer(style).to_lowercase()), Verdict::Correct);
            assert!(!puzzle.trace(style).is_empty());
        }
        let json = serde_json::to_string(&puzzle).unwrap();
        let again: Abduction = serde_json::from_str(&json).unwrap();
        assert_eq!(again.certify(), Ok(certificate));
        assert_eq!(serde_json::to_string(&again).unwrap(), json);
        assert_eq!(form(&again), form(&puzzle));
        let read = Abduction::read(&puzzle.text(Style::Paper)).unwrap();
        assert_eq!(read.text(Style::Paper), puzzle.text(Style::Paper));
        assert_eq!(form(&read), form(&puzzle));
    }
    assert!(proven > 300, "{proven}");
}

/// The depth of a certificate by its definition: farther rules are left out, and what they make is
/// taken as reachable or not in every way that matters.
#[test]
fn nothing_nearer_than_the_certified_depth_decides() {
    for i in 0..40 {
        let puzzle = drawn(1, Mode::Reachability, i).unwrap();
        let least = puzzle.solved().depths[0];
        let cone = puzzle.graph.cone([puzzle.goals[0]]);
        let mut answers = Vec::new();
        for cut in [least - 1, least] {
            let mut seen = Vec::new();
            for grant in [false, true] {
                let mut other = puzzle.clone();
                other.solved = OnceCell::new();
                let near = |a: u8| u32::from(cone.distance[a as usize]) < cut;
                let border: Vec<u8> = (0..puzzle.graph.atoms as u8)
                    .filter(|&a| u32::from(cone.distance[a as usize]) == cut)
                    .filter(|&a| !puzzle.graph.rules_for(a).is_empty())
                    .collect();
                other.graph.rules.retain(|rule| near(rule.head));
                other.graph.index();
                if grant {
                    other.known.extend(border);
                }
                seen.push(reference(&other)[0]);
            }
            answers.push(seen[0] == seen[1]);
        }
        assert_eq!(answers, [false, true]);
    }
}

#[test]
fn no_shortcut_beats_chance_and_both_answers_are_as_frequent() {
    let mut panel = Panel::default();
    for i in 0..3000 {
        for level in 1..=5 {
            let puzzle = drawn(level, Mode::Reachability, i).unwrap();
            panel.add(&level.to_string(), &[puzzle.blind(), puzzle.shortcuts()]);
        }
        let puzzle = quickstart(i);
        panel.add("quickstart", &[puzzle.blind(), puzzle.shortcuts()]);
    }
    for finding in panel.findings() {
        assert!(!finding.beats_chance() && finding.chance < 0.54, "{finding:?}");
    }
}

#[test]
fn parameters_are_checked() {
    let of = |key: &str, value: Value| {
        let mut all = serde_json::to_value(Abduction::parameters(1)).unwrap();
        all[key] = value;
        Abduction::validate(&serde_json::from_value(all).unwrap())
    };
    assert!((1..=5).all(|level| Abduction::validate(&Abduction::parameters(level)).is_ok()));
    for (key, value) in [
        ("depth", json!([3, 2])),
        ("depth", json!([0, 2])),
        ("goals", json!(0)),
        ("goals", json!(20)),
        ("and_share", json!(1.5)),
        ("negation_share", json!(-0.1)),
        ("abducibles", json!([1, 4])),
    ] {
        assert!(of(key, value).unwrap_err().contains(&format!("`{key}`")));
    }
}

#[test]
fn hostile_puzzles_are_bounded() {
    let chain: Vec<String> = (0..255).map(|i| format!("A{i} => A{}", i + 1)).collect();
    let long = puzzle(json!({"rules": chain, "known": ["A0"], "goals": ["A255", "A40"]}));
    assert_eq!(long.solved().reached, [true, true]);
    assert_eq!(long.solved().depths, [63, 40]);
    assert!(long.trace(Style::Paper).len() < 100_000);
    // Everything hangs on everything.
    let name = |i: usize| format!("B{i}");
    let full: Vec<String> =
        (0..30).flat_map(|i| (0..30).map(move |j| format!("{} => {}", name(i), name(j)))).collect();
    let negated: Vec<String> = full.iter().map(|rule| format!("NOT {rule}")).collect();
    let negated = puzzle(json!({"rules": negated, "known": ["C"], "goals": ["B0", "B7"]}));
    assert_eq!(
        (negated.answer(Style::Compact).as_str(), negated.trace(Style::Paper).as_str()),
        ("00", "")
    );
    form(&negated);
    let full = puzzle(json!({"rules": full, "known": ["C"], "goals": ["B0", "B7"]}));
    assert_eq!(full.answer(Style::Compact), "00");
    assert!(full.trace(Style::Compact).len() < 200_000);
    form(&full);
    // More hypotheses than a set has bits for.
    let many: Vec<String> = (0..100).map(|i| format!("X{i}")).collect();
    let many = puzzle(json!({
        "mode": "explanation", "rules": ["(X99 AND X1) => A", "A => B"], "known": [],
        "goals": ["B"], "abducibles": many,
    }));
    assert_eq!(many.check("X1"), Verdict::Wrong("goal B".into()));
    assert_eq!(many.check("X99"), Verdict::Wrong("X99 may not be assumed".into()));
    many.shortcuts();
    let deep = format!("{}A{} => B", "(".repeat(100_000), ")".repeat(100_000));
    assert!(
        serde_json::from_value::<Abduction>(json!({"rules": [deep], "known": [], "goals": ["A"]}))
            .is_err()
    );
    for rule in [vec!["A => B".to_string(); 5000], vec![vec!["A"; 9000].join(" AND ") + " => B"]] {
        let json = json!({"rules": rule, "known": [], "goals": ["A"]});
        assert!(serde_json::from_value::<Abduction>(json).is_err());
    }
}

proptest! {
    #[test]
    fn search_model_and_definition_agree(puzzle in any_puzzle()) {
        let expected = reference(&puzzle);
        prop_assert_eq!(&puzzle.solved().reached, &expected);
        if puzzle.graph.negative_cycle().is_none() {
            prop_assert_eq!(&Search::of(&puzzle).reached, &expected);
        }
        prop_assert_eq!(puzzle.check(&puzzle.answer(Style::Paper)), Verdict::Correct);
        puzzle.certify().ok();
        puzzle.shortcuts();
        puzzle.blind();
    }

    #[test]
    fn texts_are_read_back(puzzle in any_puzzle(), seed in any::<u64>()) {
        let read = Abduction::read(&puzzle.text(Style::Paper)).unwrap();
        prop_assert_eq!(read.text(Style::Paper), puzzle.text(Style::Paper));
        prop_assert_eq!(form(&read), form(&puzzle));
        let other = disguised(&puzzle, &mut Stream::new(seed, "any", 0));
        prop_assert_eq!(form(&other), form(&puzzle));
    }

    #[test]
    fn no_text_panics(text in "(premises|known_atoms|goals|abducibles|constraints)?(: ?)?[\\[\\]'(),A-C=> NOTARD\n]{0,80}") {
        Abduction::read(&text).ok();
        let whole = format!("premises: ['{text}']\nknown_atoms: []\ngoals: ['A']");
        Abduction::read(&whole).ok();
        for puzzle in [quickstart(1), explanation()] {
            puzzle.check(&text);
        }
    }

    #[test]
    fn no_answer_panics(answer in "\\PC*") {
        for puzzle in [quickstart(1), explanation()] {
            prop_assert_ne!(puzzle.check(&answer), Verdict::Correct);
        }
        Abduction::read(&answer).ok();
    }
}
