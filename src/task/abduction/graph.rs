//! Rule graphs as flat lists of tokens, evaluated in 64 cases at a time.

/// Atoms of one puzzle at most: an atom's number is a byte.
pub const ATOMS: usize = 256;
/// Literals and operators of all bodies together, at most.
pub const TOKENS: usize = 4096;
pub const RULES: usize = 1024;
/// Operators one inside the other, at most.
pub const NESTING: usize = 32;

/// A body in prefix form, of binary operators: an atom's number, with [`NOT`] added when the
/// literal is negated, or [`AND`], or [`OR`]. Negation stands at atoms only.
pub type Token = u16;
pub const NOT: Token = 0x100;
pub const AND: Token = 0x200;
pub const OR: Token = 0x400;

pub fn is_literal(token: Token) -> bool {
    token < AND
}

/// The atom of a literal.
pub fn atom(token: Token) -> u8 {
    token as u8
}

/// One bit for each of 64 cases, for each atom.
pub type Lanes = [u64; ATOMS];

/// Where a body stands among the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body {
    start: u16,
    end: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub head: u8,
    pub body: Body,
}

/// The well-founded model (Van Gelder, Ross, Schlipf 1991) in 64 cases: what is true, and what is
/// not false. They are the same for stratified rules, where this is the perfect model.
pub struct Model {
    pub certain: Lanes,
    pub possible: Lanes,
}

/// The atoms that bear on some roots.
pub struct Cone {
    /// The roots and what some rule makes, nearest first.
    pub heads: Vec<u8>,
    /// Rules between a root and an atom; 255 outside of the cone.
    pub distance: [u8; ATOMS],
    /// Whether some premise is negated.
    negation: bool,
}

/// The heads that bear on some roots in the order in which they are best decided.
pub struct Program {
    /// Farthest first within a stratum: two rounds do for most graphs without cycles.
    heads: Vec<u8>,
    /// The places where strata end: in each, negated premises are of strata before. `None` when
    /// there are no strata, because of a cycle through a negation.
    strata: Option<Vec<usize>>,
}

impl Program {
    pub fn is_stratified(&self) -> bool {
        self.strata.is_some()
    }
}

#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub atoms: usize,
    pub rules: Vec<Rule>,
    /// Bodies that must not hold.
    pub constraints: Vec<Body>,
    tokens: Vec<Token>,
    /// The rules by their heads: those of atom `a` are `by_head[first[a]..first[a + 1]]`.
    by_head: Vec<u16>,
    first: Vec<u16>,
}

impl Graph {
    /// `None` when the graph has no room for it.
    pub fn add_body(&mut self, tokens: &[Token]) -> Option<Body> {
        let start = self.tokens.len();
        let end = start + tokens.len();
        if end > TOKENS || self.rules.len() + self.constraints.len() >= RULES {
            return None;
        }
        self.tokens.extend_from_slice(tokens);
        Some(Body { start: start as u16, end: end as u16 })
    }

    pub fn tokens(&self, body: Body) -> &[Token] {
        &self.tokens[body.start as usize..body.end as usize]
    }

    pub fn literals(&self, body: Body) -> impl Iterator<Item = Token> + '_ {
        self.tokens(body).iter().copied().filter(|&token| is_literal(token))
    }

    /// To be called when all rules are there, in their order.
    pub fn index(&mut self) {
        self.first.clear();
        self.first.resize(self.atoms + 2, 0);
        for rule in &self.rules {
            self.first[rule.head as usize + 2] += 1;
        }
        for a in 2..self.first.len() {
            self.first[a] += self.first[a - 1];
        }
        self.by_head.resize(self.rules.len(), 0);
        for (number, rule) in self.rules.iter().enumerate() {
            let place = &mut self.first[rule.head as usize + 1];
            self.by_head[*place as usize] = number as u16;
            *place += 1;
        }
    }

    /// The numbers of the rules that make `head`, in order.
    pub fn rules_for(&self, head: u8) -> &[u16] {
        let head = head as usize;
        &self.by_head[self.first[head] as usize..self.first[head + 1] as usize]
    }

    pub fn bodies_for(&self, head: u8) -> impl Iterator<Item = &[Token]> {
        self.rules_for(head).iter().map(|&rule| self.tokens(self.rules[rule as usize].body))
    }

    /// Literals of all rules and constraints.
    pub fn size(&self) -> usize {
        self.tokens.iter().filter(|&&token| is_literal(token)).count()
    }

    /// Breadth first, from the heads to the premises.
    pub fn cone(&self, roots: impl IntoIterator<Item = u8>) -> Cone {
        let heads = Vec::with_capacity(self.atoms);
        let mut cone = Cone { heads, distance: [255; ATOMS], negation: false };
        for root in roots {
            if cone.distance[root as usize] == 255 {
                cone.distance[root as usize] = 0;
                cone.heads.push(root);
            }
        }
        let mut next = 0;
        while let Some(&head) = cone.heads.get(next) {
            let distance = cone.distance[head as usize].saturating_add(1).min(254);
            for body in self.bodies_for(head) {
                for &token in body.iter().filter(|&&token| is_literal(token)) {
                    cone.negation |= token >= NOT;
                    let seen = &mut cone.distance[atom(token) as usize];
                    if *seen == 255 {
                        *seen = distance;
                        if !self.rules_for(atom(token)).is_empty() {
                            cone.heads.push(atom(token));
                        }
                    }
                }
            }
            next += 1;
        }
        cone
    }

    /// The program of the rules that bear on `roots`.
    pub fn program(&self, roots: impl IntoIterator<Item = u8>) -> Program {
        let Cone { mut heads, negation, .. } = self.cone(roots);
        heads.retain(|&head| !self.rules_for(head).is_empty());
        heads.reverse();
        if !negation {
            let strata = Some(vec![heads.len()]);
            return Program { heads, strata };
        }
        // Strata rise until they stand, or one stands higher than there are heads.
        let mut stratum = [0usize; ATOMS];
        let mut changed = true;
        while changed {
            changed = false;
            for &head in &heads {
                let literals = self.bodies_for(head).flatten().filter(|&&token| is_literal(token));
                let below =
                    |&token: &Token| stratum[atom(token) as usize] + usize::from(token >= NOT);
                let least = literals.map(below).max().unwrap_or(0);
                if least > heads.len() {
                    return Program { heads, strata: None };
                }
                changed |= least > stratum[head as usize];
                stratum[head as usize] = least;
            }
        }
        heads.sort_by_key(|&head| stratum[head as usize]);
        let strata = heads.chunk_by(|&a, &b| stratum[a as usize] == stratum[b as usize]);
        let ends = strata.scan(0, |end, heads| {
            *end += heads.len();
            Some(*end)
        });
        let strata = Some(ends.collect());
        Program { heads, strata }
    }

    /// The least fixed point of the rules of `heads` above what `model` holds, where `not` says
    /// which negated atoms count as false.
    fn least(&self, heads: &[u8], open: &Lanes, not: &Lanes, model: &mut Lanes) {
        let mut changed = 1;
        while changed != 0 {
            changed = 0;
            for &head in heads {
                let before = model[head as usize];
                let mut value = before;
                for body in self.bodies_for(head) {
                    value |= evaluate(body, model, not) & open[head as usize];
                }
                model[head as usize] = value;
                changed |= value ^ before;
            }
        }
    }

    /// The model of a program. `base` is true, the rules of an atom count where it is `open`, and
    /// where it is in `free` nothing is known of it.
    pub fn model(&self, program: &Program, base: &Lanes, open: &Lanes, free: &Lanes) -> Model {
        let mut granted = *base;
        for &a in &program.heads {
            granted[a as usize] |= free[a as usize];
        }
        let Model { mut certain, mut possible } = Model { certain: *base, possible: granted };
        if let Some(strata) = &program.strata {
            let mut start = 0;
            for &end in strata {
                let heads = &program.heads[start..end];
                // What one of them is told of by negation, the strata before, stands already.
                self.least(heads, open, &possible, &mut certain);
                self.least(heads, open, &certain, &mut possible);
                start = end;
            }
            return Model { certain, possible };
        }
        // An alternating fixed point: what is certain while every negated atom counts as true, what
        // is possible then, and so on. What was certain stays so.
        possible = [u64::MAX; ATOMS];
        loop {
            let before = certain;
            self.least(&program.heads, open, &possible, &mut certain);
            if certain == before && possible != [u64::MAX; ATOMS] {
                return Model { certain, possible };
            }
            possible = granted;
            self.least(&program.heads, open, &certain, &mut possible);
        }
    }

    /// The model where every rule counts and nothing is unknown.
    pub fn whole(&self, program: &Program, base: &Lanes) -> Model {
        let Some(strata) = &program.strata else {
            return self.model(program, base, &[u64::MAX; ATOMS], &[0; ATOMS]);
        };
        let mut model = *base;
        let mut start = 0;
        for &end in strata {
            let mut changed = 1;
            while changed != 0 {
                changed = 0;
                for &head in &program.heads[start..end] {
                    let before = model[head as usize];
                    let mut value = before;
                    for body in self.bodies_for(head) {
                        value |= evaluate(body, &model, &model);
                    }
                    model[head as usize] = value;
                    changed |= value ^ before;
                }
            }
            start = end;
        }
        Model { certain: model, possible: model }
    }

    /// Whether `body` holds in a model.
    pub fn holds(&self, body: Body, model: &Model) -> u64 {
        evaluate(self.tokens(body), &model.certain, &model.possible)
    }

    /// Premises that a solver reads who applies every rule in turn, round after round, until a
    /// round brings nothing new, in the last case. Which negated premises hold is given to it, by
    /// `model`: a bound from below.
    pub fn forward(&self, base: &Lanes, model: &Model) -> u64 {
        let mut known = *base;
        let mut rounds = 0;
        loop {
            rounds += 1;
            let mut changed = 0;
            for rule in &self.rules {
                let before = known[rule.head as usize];
                let value = before | evaluate(self.tokens(rule.body), &known, &model.possible);
                known[rule.head as usize] = value;
                changed |= (value ^ before) >> 63;
            }
            if changed == 0 {
                return rounds * self.size() as u64;
            }
        }
    }

    /// One round forward: the heads of all rules whose bodies hold in `before`, too.
    pub fn round(&self, before: &Lanes) -> Lanes {
        let mut after = *before;
        for rule in &self.rules {
            after[rule.head as usize] |= evaluate(self.tokens(rule.body), before, before);
        }
        after
    }

    /// Atoms of a cycle through a negated premise, each hanging on the next.
    pub fn negative_cycle(&self) -> Option<Vec<u8>> {
        if self.program((0..self.atoms).map(|a| a as u8)).strata.is_some() {
            return None;
        }
        self.rules.iter().find_map(|rule| {
            self.literals(rule.body)
                .filter(|&token| token >= NOT)
                .find_map(|token| self.path(atom(token), rule.head))
        })
    }

    /// The shortest way from `from` to `to`, from head to premise.
    fn path(&self, from: u8, to: u8) -> Option<Vec<u8>> {
        let cone = self.cone([from]);
        let mut path = vec![to];
        let mut distance = cone.distance[to as usize];
        if distance == 255 {
            return None;
        }
        while distance > 0 {
            let last = *path.last()?;
            let before = cone.heads.iter().copied().find(|&head| {
                cone.distance[head as usize] == distance - 1
                    && self.bodies_for(head).any(|body| {
                        body.iter().any(|&token| is_literal(token) && atom(token) == last)
                    })
            })?;
            path.push(before);
            distance -= 1;
        }
        path.reverse();
        // From the negated atom to the head; the head hangs on the negated atom.
        path.rotate_right(1);
        Some(path)
    }
}

/// The value of a body in each case: positive literals by `holds`, negated ones by `not`.
fn evaluate(tokens: &[Token], holds: &Lanes, not: &Lanes) -> u64 {
    let literal = |token: Token| {
        if token >= NOT { !not[atom(token) as usize] } else { holds[atom(token) as usize] }
    };
    match *tokens {
        [token] => return literal(token),
        [AND, a, b] => return literal(a) & literal(b),
        [OR, a, b] => return literal(a) | literal(b),
        _ => {}
    }
    // Read backward, a prefix form is a postfix form.
    let mut stack = [0u64; NESTING + 2];
    let mut top = 0;
    for &token in tokens.iter().rev() {
        if is_literal(token) {
            stack[top] = literal(token);
            top += 1;
        } else {
            let (a, b) = (stack[top - 1], stack[top - 2]);
            stack[top - 2] = if token == AND { a & b } else { a | b };
            top -= 1;
        }
    }
    stack[0]
}
