//! Satisfiability beyond truth tables: clauses after Tseitin (1968), one variable for each operator,
//! and the solver batsat, a MiniSat in Rust.

use batsat::{Callbacks, Lit, Solver, SolverInterface, clause::Kind, lbool};

use super::formula::{Formula, Node, Operator};

/// Learnt clauses after which a search is given up: seconds at most.
const PATIENCE: u64 = 50_000;

/// Stops the solver when it has learnt enough.
#[derive(Default)]
struct Patience(u64);

impl Callbacks for Patience {
    fn on_new_clause(&mut self, _: &[Lit], kind: Kind) {
        if matches!(kind, Kind::Learnt) {
            self.0 += 1;
        }
    }

    fn stop(&self) -> bool {
        self.0 > PATIENCE
    }
}

/// What a search has found.
pub enum Found {
    /// The set of true variables.
    Model(u64),
    Nothing,
    GaveUp,
}

/// Formulas under search.
pub struct Search {
    solver: Solver<Patience>,
    variables: Vec<Lit>,
}

impl Search {
    pub fn new(variables: usize, formulas: &[Formula]) -> Self {
        let mut solver = Solver::new(Default::default(), Patience::default());
        let variables = (0..variables).map(|_| Lit::new(solver.new_var_default(), true)).collect();
        let mut search = Self { solver, variables };
        formulas.iter().for_each(|formula| search.require(formula));
        search
    }

    /// Adds a formula that must hold.
    pub fn require(&mut self, formula: &Formula) {
        let mut stack: Vec<Lit> = Vec::new();
        for node in formula.0.iter().rev() {
            match node {
                Node::Variable(v) => stack.push(self.variables[usize::from(*v)]),
                Node::Not => stack.iter_mut().last().into_iter().for_each(|lit| *lit = !*lit),
                Node::Binary(op) => {
                    let (Some(a), Some(b)) = (stack.pop(), stack.pop()) else { return };
                    let gate = Lit::new(self.solver.new_var_default(), true);
                    for clause in clauses(*op, gate, a, b) {
                        self.clause(&clause);
                    }
                    stack.push(gate);
                }
            }
        }
        self.clause(&stack);
    }

    /// Rules one assignment out.
    pub fn exclude(&mut self, assignment: u64) {
        let clause: Vec<Lit> = (0..)
            .zip(&self.variables)
            .map(|(v, lit)| lit.apply_sign(assignment >> v & 1 == 0))
            .collect();
        self.clause(&clause);
    }

    fn clause(&mut self, lits: &[Lit]) {
        self.solver.add_clause_reuse(&mut lits.to_vec());
    }

    pub fn next(&mut self) -> Found {
        if self.solver.cb().stop() {
            return Found::GaveUp;
        }
        let status = self.solver.solve_limited(&[]);
        if status == lbool::FALSE {
            return Found::Nothing;
        }
        if status != lbool::TRUE {
            return Found::GaveUp;
        }
        Found::Model((0..).zip(&self.variables).fold(0, |set, (v, lit)| {
            set | u64::from(self.solver.value_lit(*lit) == lbool::TRUE) << v
        }))
    }

    pub fn conflicts(&self) -> u64 {
        self.solver.num_conflicts()
    }
}

/// The clauses of gate <-> a op b.
fn clauses(op: Operator, gate: Lit, a: Lit, b: Lit) -> Vec<Vec<Lit>> {
    match op {
        Operator::And => vec![vec![!gate, a], vec![!gate, b], vec![gate, !a, !b]],
        Operator::Or => clauses(Operator::And, !gate, !a, !b),
        Operator::Implies => clauses(Operator::And, !gate, a, !b),
        Operator::Xor => {
            vec![vec![!gate, a, b], vec![!gate, !a, !b], vec![gate, !a, b], vec![gate, a, !b]]
        }
        Operator::Iff => clauses(Operator::Xor, !gate, a, b),
    }
}
