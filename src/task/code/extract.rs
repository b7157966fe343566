//! The program in a response.

/// The last fenced block that is closed; where `bare` allows it, all of an answer that has no
/// fence. `None` where that is blank, or no fence is closed: a response that was cut short has no
/// program.
pub fn program(answer: &str, bare: bool) -> Option<&str> {
    let mut open = None;
    let mut found = None;
    let mut fenced = false;
    let mut at = 0;
    for line in answer.split_inclusive('\n') {
        let here = at;
        at += line.len();
        if !line.trim_start().starts_with("```") {
            continue;
        }
        fenced = true;
        open = match open {
            None => Some(at),
            Some(begin) => {
                found = Some(&answer[begin..here]);
                None
            }
        };
    }
    let program = if bare && !fenced { answer } else { found? };
    (!program.trim().is_empty()).then_some(program)
}

/// The program that a prompt and what a model makes of it come to: a completion goes on where the
/// prompt ends, and gets back the indentation that its first line may have lost; an answer that defines the function stands behind what the prompt has before it
/// (imports, other functions).
pub fn complete(prompt: &str, entry: &str, answer: &str) -> String {
    let heads = [format!("def {entry}("), format!("def {entry} (")];
    let defines = |line: &str| heads.iter().any(|head| line.starts_with(head.as_str()));
    if !answer.lines().any(defines) {
        let indented = answer.starts_with(char::is_whitespace);
        return format!("{prompt}{}{answer}", if indented { "" } else { "    " });
    }
    let mut before: String =
        prompt.split_inclusive('\n').take_while(|line| !defines(line)).collect();
    if !before.is_empty() && !before.ends_with('\n') {
        before.push('\n');
    }
    before + answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_closed_block_is_the_program() {
        let cases = [
            ("x = 1", Some("x = 1")),
            (" \n", None),
            ("so:\n```python\nx = 1\n```\ndone", Some("x = 1\n")),
            ("```\nx = 1\n```\nbetter:\n```py\nx = 2\n```", Some("x = 2\n")),
            ("```\nx = 1\n```\nbetter:\n```py\nx = 2", Some("x = 1\n")),
            ("```python\nx = 1", None),
            ("```python\n\n```", None),
            ("```python\ns = '```'\n```", Some("s = '```'\n")),
        ];
        for (answer, expected) in cases {
            assert_eq!(program(answer, true), expected, "{answer}");
        }
        assert_eq!(program("x = 1", false), None);
    }

    #[test]
    fn a_completion_goes_on_and_a_definition_replaces() {
        let prompt = "import math\n\ndef area(r):\n    \"\"\"Of a circle.\"\"\"\n";
        let whole = format!("{prompt}    return r\n");
        assert_eq!(complete(prompt, "area", "    return r\n"), whole);
        assert_eq!(complete(prompt, "area", "return r\n"), whole);
        let answer = "def area(r):\n    return r\n";
        assert_eq!(complete(prompt, "area", answer), format!("import math\n\n{answer}"));
        assert_eq!(complete("def area(r):\n", "area", answer), answer);
    }
}
