//! The answer in a response, as the text that says it.

use super::parse::parse;
use super::token::Commas;

/// Bytes of a response, at its end, in which an answer is looked for.
const WINDOW: usize = 1 << 20;
/// Boxes that make one answer.
const BOXES: usize = 32;
/// Bytes of a response that is nothing but an answer.
const SHORT: usize = 200;

/// A `\boxed{...}` from its backslash to its brace, and what is in it.
pub struct Boxed<'a> {
    pub start: usize,
    pub end: usize,
    pub inside: &'a str,
}

/// The answer that `response` gives. The first of these that is there counts:
///
/// 1. the last `<answer>`: what is in it, by the rules below;
/// 2. a `final answer is` or `final answer:` behind the last box, by rule 5;
/// 3. the last box (`\boxed{}`, `\fbox{}`, `\boxed 7`). Boxes that follow one another within ten
///    characters, or within seventy with `and`, `or`, a comma or a semicolon, are one answer: the
///    text from the first to the last;
/// 4. what follows the last `####`;
/// 5. what follows the last `final answer is` or `final answer:`, else the last `answer is`,
///    `answer:` or `answer`: the sentence's last formula in dollars, unless a
///    value follows it, else what follows `is` or `=` when that can be read, else its last number;
/// 6. the whole response, when it is short and can be read;
/// 7. the last formula in dollars, bold text with a digit, or number.
///
/// Takes time linear in the response's length.
pub fn extract(response: &str) -> Option<&str> {
    let mut from = response.len().saturating_sub(WINDOW);
    while !response.is_char_boundary(from) {
        from += 1;
    }
    let text = &response[from..];
    let text = tagged(text).unwrap_or(text);
    let found = concluded(text)
        .or_else(|| boxed(text))
        .or_else(|| text.rfind("####").and_then(|at| line(&text[at + 4..])))
        .or_else(|| stated(text).map(|(_, found)| found))
        .or_else(|| whole(text))
        .or_else(|| last(text));
    found.map(str::trim).filter(|found| !found.is_empty())
}

/// What is in the last `<answer>`.
pub fn tagged(text: &str) -> Option<&str> {
    let inside = &text[text.rfind("<answer>")? + "<answer>".len()..];
    Some(inside.split("</answer>").next().unwrap_or(inside))
}

/// A final answer that is stated after the last box.
fn concluded(text: &str) -> Option<&str> {
    let last = boxes(text).pop()?;
    let (rank, found) = stated(&text[last.end..])?;
    (rank == 3).then_some(found)
}

fn boxed(text: &str) -> Option<&str> {
    let boxes = boxes(text);
    match &boxes[..] {
        [] => None,
        [one] => Some(one.inside),
        [first, .., last] => Some(&text[first.start..last.end]),
    }
}

/// The last boxes of `text` that belong together.
pub fn boxes(text: &str) -> Vec<Boxed<'_>> {
    let mut found: Vec<Boxed> = Vec::new();
    let mut end = text.len();
    while found.len() < BOXES {
        let before = &text[..end];
        let Some(start) = before.rfind("\\boxed").max(before.rfind("\\fbox")) else { break };
        let length = if text[start..].starts_with("\\boxed") { 6 } else { 5 };
        let limit = found.last().map_or(text.len(), |next| next.start);
        end = start;
        let Some((inside, to)) = contents(&text[..limit], start + length) else { continue };
        if let Some(next) = found.last() {
            let between = &text[to..next.start];
            let mut words = between.split(|c: char| !c.is_alphabetic());
            let listed = between.contains([',', ';']) || words.any(|w| w == "and" || w == "or");
            let prose = |word: &&str| !word.starts_with('\\') && word.contains(char::is_alphabetic);
            let listed = listed && between.split_whitespace().filter(prose).count() < 6;
            let near = between.chars().count();
            if !(near < 10 || (near < 70 && listed && next.inside != inside)) {
                break;
            }
            if next.inside == inside {
                continue;
            }
        }
        found.push(Boxed { start, end: to, inside });
    }
    found.reverse();
    found
}

/// What stands in a box whose command ends at `from`, and where the box ends.
fn contents(text: &str, from: usize) -> Option<(&str, usize)> {
    let rest = &text[from..];
    let open = rest.trim_start();
    let skipped = from + rest.len() - open.len();
    let Some(inside) = open.strip_prefix('{') else {
        let end = open.find(|c: char| c.is_whitespace() || c == '$').unwrap_or(open.len());
        return (end > 0).then(|| (open[..end].trim_end_matches(['.', ',']), skipped + end));
    };
    let mut depth = 1_u32;
    let mut escaped = false;
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            b'{' if !escaped => depth += 1,
            b'}' if !escaped => depth -= 1,
            _ => {}
        }
        escaped = byte == b'\\' && !escaped;
        if depth == 0 {
            return Some((inside[..at].trim(), skipped + at + 2));
        }
    }
    // Never closed: to the end of its line.
    let end = inside.find('\n').unwrap_or(inside.len());
    Some((inside[..end].trim(), skipped + 1 + end))
}

/// The first line of `text` that says anything.
fn line(text: &str) -> Option<&str> {
    let line = text.trim_start().lines().next()?.trim();
    Some(line.trim_matches('*').trim_end_matches('.')).filter(|line| !line.is_empty())
}

/// What follows the last `answer`, and how much says that it is one: 3 for a final answer, 0 for
/// mere words.
fn stated(text: &str) -> Option<(u8, &str)> {
    let lower = text.to_ascii_lowercase();
    let mut best: Option<(u8, &str)> = None;
    for (at, _) in lower.match_indices("answer") {
        let from = at + "answer".len();
        let after = &lower[from..];
        let bare = after.trim_start_matches(|c: char| c.is_whitespace() || c == '*');
        let last = lower[..at].trim_end().ends_with("final");
        let (rank, skip) = if let Some(rest) = bare.strip_prefix(':') {
            (if last { 3 } else { 2 }, after.len() - rest.len())
        } else if let Some(rest) =
            bare.strip_prefix("is").filter(|rest| !rest.starts_with(char::is_alphabetic))
        {
            (if last { 3 } else { 2 }, after.len() - rest.len())
        } else {
            (u8::from(last), 0)
        };
        if best.as_ref().is_none_or(|(known, _)| *known <= rank)
            && let Some(found) = pick(sentence(&text[from + skip..]))
        {
            let value = |c: char| c.is_ascii_digit() || c == '$' || c == '\\';
            let rank = if found.contains(value) || found.len() == 1 { rank } else { 0 };
            best = Some((rank, found))
                .filter(|(rank, _)| best.is_none_or(|(known, _)| known <= *rank))
                .or(best);
        }
    }
    best
}

/// Up to the end of the line or sentence, after colons and stars; a displayed formula may come on
/// the next line.
fn sentence(text: &str) -> &str {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == ':' || c == '*');
    let limit = text.char_indices().nth(600).map_or(text.len(), |(at, _)| at);
    let text = &text[..limit];
    let displayed = ["\\[", "$$"].iter().any(|open| text.starts_with(open));
    let end = match text.find('\n') {
        Some(end) if !displayed => end,
        _ => text.len(),
    };
    let text = &text[..end];
    // A point with a space and a capital behind it ends a sentence, outside of formulas.
    let mut dollars = 0;
    for (at, byte) in text.bytes().enumerate() {
        dollars += usize::from(byte == b'$');
        if byte == b'.' && dollars % 2 == 0 {
            let mut rest = text[at + 1..].chars();
            let goes_on = |c: char| c.is_lowercase() || c.is_ascii_digit() || "$\\(".contains(c);
            if rest.next() == Some(' ') && !rest.next().is_some_and(goes_on) {
                return &text[..at];
            }
        }
    }
    text
}

/// The formula, value or number that a sentence names.
fn pick(sentence: &str) -> Option<&str> {
    let sentence = sentence.trim().trim_end_matches(['.', '*', ' ']);
    let formula = formula(sentence);
    // Behind the formula: `the largest $n$ is 34`.
    let from = formula.map_or(0, |found| end(found) - sentence.as_ptr() as usize);
    let rest = &sentence[from..];
    let tail = |word: &str| rest.rfind(word).map(|at| &rest[at + word.len()..]);
    let bare = (from == 0).then_some(rest);
    [tail(" is "), tail(" are "), tail(" = "), bare]
        .into_iter()
        .flatten()
        .map(|part| part.trim().trim_matches('*').trim_end_matches('.').trim())
        .find(|part| readable(part))
        .or_else(|| number(rest).filter(|_| from == 0 || rest.contains(" is ")))
        .or(formula)
}

/// Where in memory `part` ends, to order parts of one text.
fn end(part: &str) -> usize {
    part.as_ptr() as usize + part.len()
}

/// Whether `text` is nothing but a value: no prose.
fn readable(text: &str) -> bool {
    let prose =
        |word: &&str| word.len() > 1 && word.chars().all(|c| c.is_alphabetic() || c == '\'');
    let words = text.split_whitespace().filter(prose);
    // `increases by 100%`
    let sentence = text.split_whitespace().next().is_some_and(|word| prose(&word))
        && text.contains(|c: char| c.is_ascii_digit());
    !text.is_empty()
        && !sentence
        && text.len() <= SHORT
        && words.count() < 3
        && parse(text, Commas::Thousands).is_ok()
}

fn whole(text: &str) -> Option<&str> {
    let text = text.trim();
    let text = text.trim_end_matches('.').trim();
    (text.lines().count() == 1 && formulas(text) == 0 && readable(text)).then_some(text)
}

fn formulas(text: &str) -> usize {
    text.matches('$').count() + text.matches("\\(").count() + text.matches("\\[").count()
}

/// The last formula within dollars or their like, with those before it that are listed with it.
fn formula(text: &str) -> Option<&str> {
    let mut spans: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find(['$', '\\']) {
        let start = at + found;
        let rest = &text[start..];
        let closing = [("$$", "$$"), ("$", "$"), ("\\[", "\\]"), ("\\(", "\\)")]
            .into_iter()
            .find(|(open, _)| rest.starts_with(open));
        let Some((open, close)) = closing else {
            at = start + 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
            continue;
        };
        let inside = &rest[open.len()..];
        let end = match close {
            "$" => dollar(inside),
            _ => inside.find(close),
        };
        let Some(end) = end else {
            at = start + open.len();
            continue;
        };
        let to = start + open.len() + end + close.len();
        if !inside[..end].trim().is_empty() {
            spans.push((start, to));
        }
        at = to;
    }
    let (mut start, mut end) = *spans.last()?;
    // `28 %` may have its sign behind the formula.
    let behind = text[end..].trim_start();
    for sign in ["%", "\\%", "percent", "pct"] {
        if behind.starts_with(sign) {
            end = text.len() - behind.len() + sign.len();
        }
    }
    for pair in spans.windows(2).rev() {
        let between = text[pair[0].1..pair[1].0].trim();
        if !matches!(between, "," | "and" | "or" | ", and" | ", or" | ";") {
            break;
        }
        start = pair[0].0;
    }
    Some(&text[start..end])
}

/// Where the next dollar is that no backslash escapes.
fn dollar(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    (0..bytes.len()).find(|&at| bytes[at] == b'$' && (at == 0 || bytes[at - 1] != b'\\'))
}

/// The rightmost of formula, bold text and number.
fn last(text: &str) -> Option<&str> {
    let bold = text.rmatch_indices("**").nth(1).and_then(|(open, _)| {
        let inside = &text[open + 2..];
        let inside = &inside[..inside.find("**")?];
        (inside.bytes().any(|b| b.is_ascii_digit()) && readable(inside)).then_some(inside)
    });
    let mut best: Option<&str> = None;
    for found in [number(text), bold, formula(text)].into_iter().flatten() {
        if best.is_none_or(|known| end(found) >= end(known)) {
            best = Some(found);
        }
    }
    best
}

/// The last number or arithmetic of numbers that no letter stands before.
fn number(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let part = |byte: u8| byte.is_ascii_digit() || b".,".contains(&byte);
    let operator = |byte: u8| b"+-*/^(".contains(&byte);
    let mut end = bytes.len();
    loop {
        end = 1 + bytes[..end].iter().rposition(u8::is_ascii_digit)?;
        let mut start = end;
        loop {
            while start > 0 && part(bytes[start - 1]) {
                start -= 1;
            }
            // An operator with a number before it, spaces between them or not.
            let mut left = start;
            let mut operators = 0;
            while left > 0
                && (bytes[left - 1] == b' ' || operator(bytes[left - 1]) || bytes[left - 1] == b')')
            {
                operators += usize::from(bytes[left - 1] != b' ');
                left -= 1;
            }
            if operators == 0 || left == 0 || !bytes[left - 1].is_ascii_digit() {
                break;
            }
            start = left;
        }
        while start < end
            && b".,".contains(&bytes[start])
            && !(bytes[start] == b'.' && start + 1 < end)
        {
            start += 1;
        }
        let before = text[..start].chars().next_back();
        if before.is_some_and(|c| c.is_alphabetic() || c == '_') {
            end = start;
            continue;
        }
        // `1 000`: a group of three with one to three digits before it.
        let grouped = |at: usize| {
            let head = text[..at].strip_suffix(' ')?;
            let digits = head.bytes().rev().take_while(u8::is_ascii_digit).count();
            let three = bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count() == 3;
            ((1..=3).contains(&digits) && three).then_some(at - 1 - digits)
        };
        while let Some(at) = grouped(start) {
            start = at;
        }
        let signed = start > 0
            && bytes[start - 1] == b'-'
            && !text[..start - 1].ends_with(|c: char| c.is_alphanumeric() || c == ')');
        start -= usize::from(signed);
        let opened = text[start..end].matches('(').count();
        let closed = text[start..end].matches(')').count();
        if opened > closed && bytes.get(end) == Some(&b')') {
            end += 1;
        }
        let behind = text[end..].trim_start();
        for sign in ["%", "\\%", "percent"] {
            if behind.starts_with(sign) {
                end = text.len() - behind.len() + sign.len();
            }
        }
        return Some(&text[start..end]);
    }
}
