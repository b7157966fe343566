//! Answers: how they are written, read and judged.

use super::Abduction;
use super::notation::Name;
use crate::task::{Style, Verdict};

/// What stands before a puzzle of reachability in the paper's style.
pub const REACHABILITY: &str = "\
You are given premises of a rule graph, atoms that are known, and goals. A premise `(BODY) => X` \
gives X when its body holds. `(NOT X)` holds when X cannot be reached. A goal is reachable when it \
is given by premises from the known atoms, in any number of steps; otherwise it is unreachable. \
Start from each goal and ask what it needs. Reason inside <think> and </think>, then list every \
goal in the given order inside <answer> and </answer>, for example:
<answer>
(1) A is reachable
(2) B is unreachable
</answer>";

/// The same for a puzzle of explanation.
pub const EXPLANATION: &str = "\
You are given premises of a rule graph, atoms that are known, atoms that may be assumed \
(abducibles), constraints and goals. A premise `(BODY) => X` gives X when its body holds. `(NOT X)` \
holds when X cannot be reached. Find a smallest set of abducibles such that, assuming them, every \
goal is reachable and no constraint holds. Start from the goals and ask what they need. Reason \
inside <think> and </think>, then list the set inside <answer> and </answer>, for example:
<answer>
(1) assume A
(2) assume B
</answer>";

impl Abduction {
    /// `01`, or `(1) A is unreachable` and so on.
    pub(super) fn statements(&self, style: Style) -> String {
        let reached = &self.solved().reached;
        if style == Style::Compact {
            return reached.iter().map(|&reached| if reached { '1' } else { '0' }).collect();
        }
        let lines: Vec<String> = (1..)
            .zip(self.goals.iter().zip(reached))
            .map(|(number, (&goal, &reached))| {
                let word = if reached { "reachable" } else { "unreachable" };
                format!("({number}) {} is {word}", self.name(goal))
            })
            .collect();
        lines.join("\n")
    }

    /// `A,B`, or `(1) assume A` and so on.
    pub(super) fn hypotheses(&self, style: Style) -> String {
        let Some(&set) = self.solved().explanations.smallest.first() else {
            return String::new();
        };
        if style == Style::Compact {
            return self.set(set, ",", Name::write_compact);
        }
        let lines: Vec<String> = (1..)
            .zip(self.members(set))
            .map(|(number, a)| format!("({number}) assume {}", self.name(a)))
            .collect();
        lines.join("\n")
    }

    fn members(&self, set: u64) -> impl Iterator<Item = u8> {
        self.abducibles
            .iter()
            .take(64)
            .enumerate()
            .filter(move |&(i, _)| set >> i & 1 == 1)
            .map(|(_, &a)| a)
    }

    pub(super) fn set(&self, set: u64, between: &str, write: fn(&Name, &mut String)) -> String {
        let mut out = String::new();
        for a in self.members(set) {
            if !out.is_empty() {
                out.push_str(between);
            }
            write(&self.names[a as usize], &mut out);
        }
        out
    }

    pub(super) fn check_statements(&self, answer: &str) -> Verdict {
        let Some(claims) = self.claims(answer) else { return Verdict::Unparsed };
        let wrong =
            claims.iter().zip(&self.solved().reached).position(|(claim, truth)| claim != truth);
        match wrong {
            None => Verdict::Correct,
            Some(place) => Verdict::Wrong(format!("goal {}", self.name(self.goals[place]))),
        }
    }

    /// What is claimed of each goal: `01`; or `A=0, C=1` or `A is unreachable` and so on, in any
    /// order, one for each goal, with commas or lines between.
    fn claims(&self, answer: &str) -> Option<Vec<bool>> {
        let answer = answer.trim();
        if answer.starts_with(['0', '1']) {
            let mut digits = answer.bytes().filter(|b| !b.is_ascii_whitespace());
            let plain = answer.len() <= 4 * self.goals.len()
                && digits.clone().count() == self.goals.len()
                && digits.all(|b| b == b'0' || b == b'1');
            if plain {
                return Some(
                    answer.bytes().filter(|b| b.is_ascii_digit()).map(|b| b == b'1').collect(),
                );
            }
        }
        let mut claims: Vec<Option<bool>> = vec![None; self.goals.len()];
        let parts = answer.split([',', ';', '\n']).map(str::trim).filter(|part| !part.is_empty());
        let mut count = 0;
        for part in parts {
            count += 1;
            if count > self.goals.len() {
                return None;
            }
            let (name, claim) = statement(part)?;
            let name = Name::new(name)?;
            let named = |&goal: &u8| self.names[goal as usize] == name;
            // A goal that stands twice is claimed twice; the first free place takes the claim.
            let free = |place: &usize| named(&self.goals[*place]) && claims[*place].is_none();
            let place = (0..self.goals.len()).find(free)?;
            claims[place] = Some(claim);
        }
        claims.into_iter().collect()
    }

    pub(super) fn check_hypotheses(&self, answer: &str) -> Verdict {
        let set = match self.assumed(answer) {
            Ok(Some(set)) => set,
            Ok(None) => return Verdict::Unparsed,
            Err(what) => return Verdict::Wrong(what),
        };
        let smallest = &self.solved().explanations.smallest;
        if smallest.binary_search(&set).is_ok() {
            return Verdict::Correct;
        }
        if let Some(what) = self.refutation(set) {
            return Verdict::Wrong(what);
        }
        let size = smallest.first().map_or(0, |set| set.count_ones());
        Verdict::Wrong(format!("{} hypotheses where {size} do", set.count_ones()))
    }

    /// The set that an answer names: `A,B`, `AB` when all names are letters, `assume A and B`, with
    /// or without numbers and braces. An error names an atom that may not be assumed.
    fn assumed(&self, answer: &str) -> Result<Option<u64>, String> {
        let mut set = None;
        let mut rest = answer;
        let mut strange = None;
        while let Some(start) =
            rest.find(|c: char| !c.is_ascii_whitespace() && !"(){}[],;.*".contains(c))
        {
            rest = &rest[start..];
            let end =
                rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (word, tail) = rest.split_at(end);
            rest = tail;
            let words = ["assume", "assumed", "and", "is", "are"];
            if word.is_empty() {
                return Ok(None);
            }
            // Before a name it is no name itself, even where an atom has it.
            let follows = |c: char| c.is_ascii_alphabetic();
            if word.eq_ignore_ascii_case("assume")
                && rest.trim_start_matches(' ').starts_with(follows)
            {
                continue;
            }
            let filler = words.iter().any(|known| word.eq_ignore_ascii_case(known));
            let number = word.len() < 4 && word.bytes().all(|b| b.is_ascii_digit());
            let known = self.assume_word(word, filler || number, &mut set, &mut strange);
            if !known && !filler && !number {
                return Ok(None);
            }
        }
        match strange {
            Some(a) => Err(format!("{} may not be assumed", self.name(a))),
            None => Ok(set),
        }
    }

    /// Adds the atom that `word` names, or when it is not `whole` the atoms that its letters name.
    fn assume_word(
        &self,
        word: &str,
        whole: bool,
        set: &mut Option<u64>,
        strange: &mut Option<u8>,
    ) -> bool {
        let named = |word: &str| {
            let name = Name::new(word)?;
            self.names.iter().position(|known| *known == name).map(|a| a as u8)
        };
        // The compact style writes `Ff` for `F` and `Tt` for `T`.
        let doubled = |word: &str| {
            let letter =
                ["F", "T"].into_iter().find(|f| word.eq_ignore_ascii_case(&f.repeat(2)))?;
            named(letter)
        };
        let find = |word: &str| named(word).or_else(|| doubled(word));
        let mut add = |a: u8| match self.abducibles.iter().take(64).position(|&other| other == a) {
            Some(bit) => *set = Some(set.unwrap_or(0) | 1 << bit),
            None => *strange = strange.or(Some(a)),
        };
        if let Some(a) = find(word) {
            add(a);
            return true;
        }
        let is_letter = |&a: &u8| self.names[a as usize].is_letter();
        let letters =
            !whole && word.len() <= self.abducibles.len() && self.abducibles.iter().all(is_letter);
        let atoms: Option<Vec<u8>> =
            letters.then(|| word.split_inclusive(|_| true).map(find).collect()).flatten();
        atoms.is_some_and(|atoms| {
            atoms.into_iter().for_each(add);
            true
        })
    }
}

/// `(2) KB is unreachable`, `2. kb not reachable`, `KB=0`: the name and the claim.
fn statement(text: &str) -> Option<(&str, bool)> {
    let text = text.trim_end_matches('.');
    let text = match text.strip_prefix('(') {
        Some(rest) => rest
            .trim_start()
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .trim_start()
            .strip_prefix(')')?,
        None => match text.trim_start_matches(|c: char| c.is_ascii_digit()) {
            rest if rest.len() < text.len() => rest.trim_start_matches(['.', ')', ':']),
            rest => rest,
        },
    };
    if let Some((name, value)) = text.split_once('=') {
        return match value.trim() {
            "1" => Some((name.trim(), true)),
            "0" => Some((name.trim(), false)),
            _ => None,
        };
    }
    let mut words = text.split_whitespace();
    let name = words.next()?;
    let mut claim = true;
    for word in words.by_ref() {
        if word.eq_ignore_ascii_case("not") && claim {
            claim = false;
        } else if word.eq_ignore_ascii_case("reachable") {
            return words.next().is_none().then_some((name, claim));
        } else if word.eq_ignore_ascii_case("unreachable") && claim {
            return words.next().is_none().then_some((name, false));
        } else if !word.eq_ignore_ascii_case("is") {
            return None;
        }
    }
    None
}
