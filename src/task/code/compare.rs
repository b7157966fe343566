//! Whether two outputs are the same, as LiveCodeBench has it.

/// Lines without the blanks around them, of outputs without the blanks around those, are equal as
/// text, or in each word as decimal numbers: `1.0` and `1`, not `0.33` and `0.333`.
pub fn same(found: &str, wanted: &str) -> bool {
    let (mut found, mut wanted) = (lines(found), lines(wanted));
    loop {
        match (found.next(), wanted.next()) {
            (None, None) => return true,
            (Some(found), Some(wanted)) if found == wanted || equal(found, wanted) => {}
            _ => return false,
        }
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    strip(text).split('\n').map(strip)
}

/// Without what Python calls white space: four separators more than Unicode has.
fn strip(text: &str) -> &str {
    text.trim_matches(space)
}

fn space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn equal(found: &str, wanted: &str) -> bool {
    let words = |text| str::split(text, space).filter(|word| !word.is_empty());
    let (mut found, mut wanted) = (words(found), words(wanted));
    loop {
        match (found.next().map(Decimal::read), wanted.next().map(Decimal::read)) {
            (None, None) => return true,
            (Some(Some(found)), Some(Some(wanted))) if found == wanted => {}
            _ => return false,
        }
    }
}

/// A number of Python's `decimal`, in the one form that equal numbers share. `NaN` equals nothing.
#[derive(Debug, PartialEq)]
enum Decimal {
    Infinite { negative: bool },
    Finite { negative: bool, digits: String, exponent: i64 },
}

impl Decimal {
    /// Digits, one point, an exponent; underscores anywhere; `inf`. `None`: no number.
    fn read(word: &str) -> Option<Self> {
        let word = word.replace('_', "");
        let (negative, rest) = match word.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, word.strip_prefix('+').unwrap_or(&word)),
        };
        if ["inf", "infinity"].iter().any(|name| rest.eq_ignore_ascii_case(name)) {
            return Some(Self::Infinite { negative });
        }
        let (number, exponent) = match rest.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, exponent.parse::<i64>().ok()?),
            None => (rest, 0),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = [whole, fraction].concat();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let end = digits.trim_end_matches('0');
        let trailing = i64::try_from(digits.len() - end.len()).ok()?;
        let places = i64::try_from(fraction.len()).ok()?;
        let exponent = exponent.checked_sub(places)?.checked_add(trailing)?;
        let digits = end.trim_start_matches('0').to_string();
        if digits.is_empty() {
            return Some(Self::Finite { negative: false, digits, exponent: 0 });
        }
        Some(Self::Finite { negative, digits, exponent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_compared_by_line_and_number() {
        let pairs = [
            ("1 2\n3\n", "1 2\n3", true),
            ("  1 2 \n 3", "1 2\n3", true),
            ("1  2", "1 2", true),
            ("a  b", "a b", false),
            ("1\n\n2", "1\n2", false),
            ("1 2", "1\n2", false),
            ("1.0 2.50", "1 2.5", true),
            ("1e3 -0", "1000 0", true),
            ("0.33", "0.333", false),
            ("50000000000000000", "50000000000000001", false),
            ("1e-3", "0.001", true),
            ("1_0", "10", true),
            ("inf", "Infinity", true),
            ("inf", "-inf", false),
            ("nan 1", "NaN 1", false),
            ("YES", "yes", false),
            ("1 x", "1.0 x", false),
            ("", "", true),
            ("", "1", false),
            ("1 2", "1", false),
            (".5", "0.5", true),
            ("5.", "5", true),
            (".", "0", false),
            ("1e99999999999999999999", "1", false),
        ];
        for (found, wanted, expected) in pairs {
            assert_eq!(same(found, wanted), expected, "{found:?} {wanted:?}");
            assert_eq!(same(wanted, found), expected, "{wanted:?} {found:?}");
        }
    }
}
