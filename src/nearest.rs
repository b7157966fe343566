//! The known name nearest to a misspelt one.

/// `; did you mean …?` when one of `known` is near `name`, otherwise `; there are …`.
pub fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(name, known.iter().copied()) {
        Some(at) => format!("; did you mean `{}`?", known[at]),
        None if known.is_empty() => "; there are none".into(),
        None => format!("; there are {}", known.join(", ")),
    }
}

/// The place of the one of `known` that is nearest to `name`, when it is near enough to be meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<usize> {
    let near = known.into_iter().enumerate().filter_map(|(at, candidate)| {
        let most = 1.max(name.chars().count().min(candidate.chars().count()) / 3);
        let distance = distance(name, candidate);
        (distance <= most).then_some((distance, candidate, at))
    });
    near.min().map(|(.., at)| at)
}

/// Optimal string alignment: insertions, deletions, replacements and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(rows[i - 2][j - 2] + 1);
            }
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_offered_and_far_ones_listed() {
        let known = ["generate", "rollout", "verify"];
        assert_eq!(hint("genrate", known), "; did you mean `generate`?");
        assert_eq!(hint("veirfy", known), "; did you mean `verify`?");
        assert_eq!(hint("train", known), "; there are generate, rollout, verify");
        assert_eq!(hint("x", []), "; there are none");
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
