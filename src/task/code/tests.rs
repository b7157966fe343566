//! Programs against tests, in the sandbox.

use serde_json::json;

use super::*;
use crate::sandbox::{Crowd, Sandbox, Worker};

fn judge(code: &Code, answers: &[&str]) -> Vec<String> {
    let sandbox = Sandbox::open().unwrap();
    let work = |worker: &mut Worker, answer: &&str| {
        let response = format!("so</think>\n<answer>{answer}</answer>");
        let found = code.find(&response).unwrap_or_else(|| panic!("no program: {answer}"));
        code.judge(found, |request, limits| worker.run(request, limits))
    };
    let outcomes = Crowd::new(&sandbox, None).map(answers, work, |_| Ok(())).unwrap();
    outcomes.iter().map(Outcome::to_string).collect()
}

fn problem(row: serde_json::Value) -> Code {
    let row = row.as_object().unwrap();
    let row = match row.contains_key("entry_point") {
        true => Row::humaneval(row),
        false => Row::livecodebench(row),
    };
    row.unwrap().code
}

#[test]
fn whole_programs_are_judged_by_what_they_print() {
    let public = json!([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]);
    // [{"input": "10\n-4\n", "output": "6.0", "testtype": "stdin"}], pickled and deflated.
    let code = problem(json!({
        "question_id": "sum", "question_content": "Add.", "difficulty": "easy",
        "starter_code": "", "metadata": "{}",
        "public_test_cases": public.to_string(), "private_test_cases": PACKED,
    }));
    let answers = [
        ("print(sum(map(int, open(0).read().split())))", "passed"),
        ("```python\nprint(sum(map(int, sys.stdin.read().split())))\n```", "passed"),
        (
            "import os\nos.write(1, b'%d' % sum(map(int, os.read(0, 99).split())))\nos._exit(0)",
            "passed",
        ),
        (
            "import atexit\natexit.register(lambda: print(sum(map(int, stdin.read().split()))))",
            "passed",
        ),
        (
            "def main():\n    print(sum(map(int, sys.stdin.buffer.read().split())))\n\
          if __name__ == '__main__':\n    main()\n    exit(3)",
            "passed",
        ),
        (
            "import threading\nt = threading.Thread(target=lambda: \
          print(sum(map(int, open(0).read().split()))))\nt.start()",
            "passed",
        ),
        ("print(3)", "test 2: wrong answer"),
        ("print(sum(map(int, input().split())))", "test 2: wrong answer"),
        ("a, b = map(int, input().split())\nprint(a + b)", "test 2: exception ValueError"),
        ("print(1 +)", "syntax error"),
        ("raise KeyboardInterrupt", "test 1: exception KeyboardInterrupt"),
        ("class Odd(Exception): pass\nraise Odd('?')", "test 1: exception Odd"),
    ];
    let (programs, expected): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
    assert_eq!(judge(&code, &programs), expected);
}

const PACKED: &str = "eJxrYJnqyAABPbbR1UqZeQWlJUpWCkqGBjF5uiYxeUo6Ckr5pSVQUTM9A5BASWpxSUllQSpIqLgkJTNPqTZ2ih4A7CQVQw==";

#[test]
fn functions_are_judged_by_what_they_return() {
    let tests = json!([
        {"input": "[1, 2]\n3", "output": "[4, 5]", "testtype": "functional"},
        {"input": "[]\n0", "output": "[]", "testtype": "functional"},
        {"input": "[1e3, 36893488147419103232]\n1", "output": "[1001, 36893488147419103233]",
         "testtype": "functional"},
    ]);
    let code = problem(json!({
        "question_id": "add", "question_content": "Add.", "difficulty": "hard",
        "starter_code": "class Solution:\n    def shift(self, a: List[int], b: int) -> List[int]:\n",
        "metadata": "{\"func_name\": \"shift\"}", "public_test_cases": tests.to_string(),
        "private_test_cases": "",
    }));
    let method = |body: &str| {
        format!(
            "class Solution:\n    def shift(self, a: List[int], b: int) -> List[int]:\n        {body}"
        )
    };
    let answers = [
        (method("return [x + b for x in a]"), "passed"),
        (method("return tuple(x + b for x in a)"), "passed"),
        ("def shift(a, b):\n    return [x + b for x in a]".into(), "passed"),
        (method("return a and [4, 5]"), "test 3: wrong answer"),
        (method("return [4, 5]"), "test 2: wrong answer"),
        (method("return str(a)"), "test 1: wrong answer"),
        (method("return [(x + b,) for x in a]"), "test 1: wrong answer"),
        (method("a.append(a)\n        return a"), "test 1: exception RecursionError"),
        (method("return range(3)"), "test 1: returned a range, no plain value"),
        (method("raise ValueError"), "test 1: exception ValueError"),
        (method("exit()"), "test 1: exception SystemExit"),
        (method("import os; os._exit(0)"), "test 1: ended itself"),
        ("class Solution:\n    pass".into(), "no such function"),
        ("import os\nos._exit(0)".into(), "test 1: ended itself"),
        // An object that equals all: it does not leave the program's process.
        (
            method("class All:\n            __eq__ = lambda a, b: True\n        return All()"),
            "test 1: returned a All, no plain value",
        ),
        (
            method(
                "class All(list):\n            __eq__ = lambda a, b: True\n        return All()",
            ),
            "test 1: wrong answer",
        ),
    ];
    let (programs, expected): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
    let programs: Vec<&str> = programs.iter().map(String::as_str).collect();
    assert_eq!(judge(&code, &programs), expected);
}

#[test]
fn a_check_is_out_of_the_programs_reach() {
    let check = "def check(candidate):\n    assert candidate(2) == 4\n    \
                 assert candidate(-3) == twice(-3)\n    \
                 try:\n        candidate('x')\n    except TypeError:\n        pass\n    \
                 else:\n        assert False\n    \
                 assert abs(candidate(0.5) - 1) < 1e-6\n";
    let prompt = "def twice(x):\n    return 2 * x\n\ndef double(x):\n    \"\"\"Twice x.\"\"\"\n";
    let code = problem(json!({
        "task_id": "T/0", "prompt": prompt, "entry_point": "double", "test": check,
        "canonical_solution": "    return x + 0 + x\n",
    }));
    let answers = [
        ("    return x + 0 + x\n", "passed"),
        ("return x + 0 + x\n", "passed"),
        ("```python\ndef double(x):\n    return x + 0 + x\n```", "passed"),
        ("    pass", "test 1: wrong answer"),
        ("    return 4", "test 2: wrong answer"),
        ("    return 2 * x", "test 3: wrong answer"),
        ("    return x + 0 + x if x != .5 else None", "test 4: wrong answer"),
        ("    raise AssertionError", "test 1: exception AssertionError"),
        ("    import sys; sys.exit(0)", "test 1: exception SystemExit"),
        ("    import os; os._exit(0)", "test 1: ended itself"),
        // The report of a check that passed, written where the harness writes its own.
        (
            "    import os\n    for fd in range(256):\n        try: os.write(fd, b'D\\0009')\n        \
          except OSError: pass\n    os._exit(0)",
            "test 1: ended itself",
        ),
        // What the harness in this process has within reach.
        (
            "    import sys, gc\n    f = sys._getframe()\n    while f:\n        \
          f.f_globals['packed'] = lambda v: b'T'\n        f = f.f_back\n    return 0",
            "test 1: wrong answer",
        ),
        (
            "    import builtins\n    builtins.AssertionError = ValueError\n    return 0",
            "test 1: wrong answer",
        ),
    ];
    let (programs, expected): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
    assert_eq!(judge(&code, &programs), expected);
}

#[test]
fn a_check_is_not_ended_by_what_the_program_raises() {
    let check =
        "def check(f):\n    for x, y in zip(map(f, [1, 2]), [1, 2]):\n        assert x == y\n";
    let tests = Tests::Humaneval { entry: "f".into(), check: check.into() };
    let code = Code { problem: "def f(x):".into(), ..with(tests) };
    let answers = ["def f(x): return x", "def f(x): raise StopIteration", "def f(x): return 1"];
    let expected = ["passed", "test 1: exception StopIteration", "test 2: wrong answer"];
    assert_eq!(judge(&code, &answers), expected);
}

#[test]
fn every_call_has_the_time_of_one() {
    let cases = ["0", "1", "2", "3"].map(|n| Case { input: n.into(), output: n.into() });
    let tests = Tests::Call { entry: "f".into(), cases: cases.into() };
    let limits = Limits { cpu_seconds: 1, wall_seconds: 30, ..Limits::default() };
    let mut code = Code { limits, ..with(tests) };
    let busy = "    import time\n    t = time.process_time()\n    while time.process_time() < t +";
    let answers = [
        (format!("def f(n):\n{busy} .5: pass\n    return n"), "passed"),
        (format!("def f(n):\n{busy} n / 1.5: pass\n    return n"), "test 3: time limit"),
        (
            "def f(n):\n    import time, signal\n    signal.signal(24, signal.SIG_IGN)\n    \
          while n: pass\n    return n"
                .into(),
            "test 2: time limit",
        ),
        ("def f(n):\n    return n if n < 3 else 'x' * (1 << 23)".into(), "test 4: output limit"),
        ("def f(n):\n    return n if n < 3 else [0] * (1 << 28)".into(), "test 4: memory limit"),
        ("seen = []\ndef f(n):\n    seen.append(n)\n    return len(seen) - 1".into(), "passed"),
    ];
    let (programs, expected): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
    let programs: Vec<&str> = programs.iter().map(String::as_str).collect();
    assert_eq!(judge(&code, &programs), expected);
    code.limits.wall_seconds = 1;
    let waits = "import time\ndef f(n):\n    time.sleep(n * 9)\n    return n";
    assert_eq!(judge(&code, &[waits]), ["test 2: wall-clock limit"]);
}

#[test]
fn rows_that_are_wrong_say_what_is() {
    let fault = |row: serde_json::Value| {
        let row = row.as_object().unwrap().clone();
        Row::livecodebench(&row).map(|_| ()).unwrap_err()
    };
    let row = |metadata: &str, public: &str, private: &str| {
        json!({"question_id": "q", "question_content": "?", "starter_code": "",
               "metadata": metadata, "public_test_cases": public, "private_test_cases": private})
    };
    let stdin = r#"[{"input": "1", "output": "1", "testtype": "stdin"}]"#;
    let called = r#"[{"input": "1", "output": "x", "testtype": "functional"}]"#;
    let cases = [
        (row("{}", "[]", ""), "no test"),
        (row("{}", "[1]", ""), "column public_test_cases: "),
        (row("{}", stdin, "gASVBg=="), "column private_test_cases: zlib"),
        (row(r#"{"func_name": "f"}"#, stdin, ""), "func_name is there"),
        (row("{}", called, ""), "func_name is missing"),
        (row(r#"{"func_name": "f"}"#, called, ""), "test 1: `x` is no JSON"),
        (json!({"question_id": "q"}), "no test"),
    ];
    for (row, part) in cases {
        let message = fault(row);
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_stored_problem_is_read_back() {
    let cases = vec![Case { input: "1".into(), output: "2".into() }];
    let code = with(Tests::Stdin { cases });
    let text = serde_json::to_string(&code).unwrap();
    let tests = r#"{"layout":"stdin","cases":[{"input":"1","output":"2"}]}"#;
    assert!(text.contains(&format!(r#""problem":"?","tests":{tests},"limits":"#)), "{text}");
    assert_eq!(serde_json::from_str::<Code>(&text).unwrap(), code);
}

fn with(tests: Tests) -> Code {
    Code { problem: "?".into(), tests, solution: String::new(), limits: Limits::default() }
}

#[test]
fn the_program_is_looked_for_behind_the_reasoning() {
    let stdin = with(Tests::Stdin { cases: vec![] });
    let function = with(Tests::Humaneval { entry: "f".into(), check: "?".into() });
    let cases = [
        ("```\nx = 1\n```", Some("x = 1\n")),
        ("<think>```\nx = 1\n```</think> none", None),
        ("<think>```\nx = 1\n```</think>```py\nx = 2\n```", Some("x = 2\n")),
        ("x</think><answer>x = 3</answer>", Some("x = 3")),
        ("x</think><answer>so\n```\nx = 4\n```\n</answer>", Some("x = 4\n")),
        ("x</think>```\nx = 5\n```<answer>x = 5", Some("x = 5\n")),
        ("I give up", None),
    ];
    for (response, expected) in cases {
        assert_eq!(stdin.find(response), expected, "{response}");
    }
    assert_eq!(function.find("    return 1\n"), Some("    return 1\n"));
    assert_eq!(function.check("    return 1\n").as_str(), "unparsed");
}

#[test]
fn what_has_no_test_is_malformed() {
    let fault = |code: Code| code.certify().map(|certificate| certificate.proof).unwrap_err();
    assert_eq!(fault(with(Tests::Stdin { cases: vec![] })).detail, "there is no test");
    let nameless = Tests::Call { entry: " ".into(), cases: vec![] };
    assert_eq!(fault(with(nameless)).detail, "the function's name is empty");
    let check = Tests::Humaneval { entry: "f".into(), check: "def check(f): pass".into() };
    let certificate = with(check).certify().unwrap();
    assert_eq!((certificate.kind, &certificate.proof["tests"]), ("reference", &json!(1)));
}
