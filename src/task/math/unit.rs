//! Units of measurement behind an answer.

use super::number::Rational;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unit {
    Percent,
    Degree,
    /// Of a kind that is known, to a power, and its size: a minute is time, 1, 60.
    Known(&'static str, i64, Rational),
    /// Whatever else stands behind a number: apples.
    Word(String),
}

/// Names, kind, size as numerator and denominator.
const KNOWN: &[(&str, &str, i64, i64)] = &[
    ("mm millimeter millimetre", "length", 1, 1000),
    ("cm centimeter centimetre", "length", 1, 100),
    ("dm decimeter", "length", 1, 10),
    ("m meter metre", "length", 1, 1),
    ("km kilometer kilometre", "length", 1000, 1),
    ("in inch inches", "length", 254, 10_000),
    ("ft foot feet", "length", 3048, 10_000),
    ("yd yard", "length", 9144, 10_000),
    ("mi mile", "length", 1_609_344, 1000),
    ("mg milligram", "mass", 1, 1_000_000),
    ("g gram", "mass", 1, 1000),
    ("kg kilogram", "mass", 1, 1),
    ("lb lbs pound", "mass", 45_359_237, 100_000_000),
    ("oz ounce", "mass", 45_359_237, 1_600_000_000),
    ("ml milliliter", "litre", 1, 1000),
    ("l liter litre", "litre", 1, 1),
    ("s sec second", "time", 1, 1),
    ("min minute", "time", 60, 1),
    ("h hr hour", "time", 3600, 1),
    ("day", "time", 86400, 1),
    ("week", "time", 604_800, 1),
    ("month", "months", 1, 1),
    ("year yr", "months", 12, 1),
    ("dollar", "dollar", 1, 1),
    ("cent", "dollar", 1, 100),
    ("degree deg", "degree", 1, 1),
    ("radian rad", "radian", 1, 1),
];

impl Unit {
    /// What a word or words behind a number are, with the power they are raised to.
    pub fn read(text: &str, power: i64) -> Self {
        let mut words: Vec<String> = text
            .split(|c: char| !c.is_alphanumeric() && c != '/')
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect();
        let mut power = power;
        // `square feet`, `sq. ft`, `cubic cm`
        let prefix = match words.first().map_or("", String::as_str) {
            "square" | "sq" => 2,
            "cubic" | "cu" => 3,
            _ => 1,
        };
        if prefix > 1 && words.len() > 1 {
            words.remove(0);
            power *= prefix;
        }
        let joined = words.join(" ");
        if matches!(joined.as_str(), "percent" | "percentage" | "pct") {
            return Self::Percent;
        }
        let single = joined.strip_suffix('s').unwrap_or(&joined);
        let known = KNOWN.iter().find(|(names, ..)| {
            names.split(' ').any(|name| name == joined || (name.len() > 2 && name == single))
        });
        let known = known.and_then(|(_, kind, num, den)| {
            let size = Rational::new((*num).into(), (*den).into())?.pow(power)?;
            Some(Self::Known(kind, power, size))
        });
        match known {
            Some(Self::Known("degree", ..)) => Self::Degree,
            Some(unit) => unit,
            None => Self::Word(single.to_owned()),
        }
    }

    /// Whether a run of letters behind a number can only be a unit.
    pub fn is_name(text: &str) -> bool {
        let lower = text.to_lowercase();
        let single = lower.strip_suffix('s').unwrap_or(&lower);
        let percent = matches!(single, "percent" | "percentage" | "pct");
        percent
            || text.len() > 1
                && KNOWN.iter().any(|(names, ..)| {
                    names.split(' ').any(|name| name == lower || (name.len() > 2 && name == single))
                })
    }
}
