//! What the commands of LaTeX and the words of plain formulas stand for.

/// Commands and words that take arguments.
pub const COMMANDS: &[&str] = &[
    "frac", "sqrt", "binom", "choose", "sin", "cos", "tan", "cot", "sec", "csc", "arcsin",
    "arccos", "arctan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "log", "ln", "lg", "exp",
    "abs", "floor", "ceil", "min", "max", "gcd", "lcm", "sum", "prod", "int", "lim", "det", "Re",
    "Im", "overline", "cbrt", "pmod", "mod",
];

/// Words among letters without a backslash: those of [`COMMANDS`] that nobody multiplies.
pub const PLAIN: &[&str] = &[
    "sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh",
    "tanh", "log", "ln", "lg", "exp", "abs", "floor", "ceil", "min", "max", "gcd", "lcm", "cbrt",
    "binom",
];

pub fn symbol(command: &str) -> Option<char> {
    Some(match command {
        "cdot" | "times" | "ast" | "bullet" => '*',
        "div" => '/',
        "le" | "leq" | "leqslant" | "leqq" => '≤',
        "ge" | "geq" | "geqslant" | "geqq" => '≥',
        "lt" => '<',
        "gt" => '>',
        "ne" | "neq" => '≠',
        "approx" | "simeq" | "sim" | "doteq" => '≈',
        "equiv" => '≡',
        "pm" => '±',
        "mp" => '∓',
        "cup" | "bigcup" => '∪',
        "cap" | "bigcap" => '∩',
        "setminus" | "backslash" => '∖',
        "in" => '∈',
        "infty" | "infin" => '∞',
        "emptyset" | "varnothing" => '∅',
        "circ" | "degree" | "degrees" => '°',
        "pi" => 'π',
        "{" | "lbrace" => '⦃',
        "}" | "rbrace" => '⦄',
        "|" | "lVert" | "rVert" | "Vert" | "lvert" | "rvert" | "vert" => '|',
        "mid" => '∣',
        "lfloor" => '⌊',
        "rfloor" => '⌋',
        "lceil" => '⌈',
        "rceil" => '⌉',
        "langle" => '(',
        "rangle" => ')',
        "lbrack" => '[',
        "rbrack" => ']',
        "lparen" => '(',
        "rparen" => ')',
        "%" => '%',
        "prime" => '\'',
        "colon" => ':',
        "vee" | "lor" | "wedge" | "land" => ',',
        "ldots" | "dots" | "cdots" | "dotsc" | "dotsb" => '…',
        "imath" => 'ⅈ',
        "to" | "rightarrow" | "Rightarrow" | "implies" | "mapsto" | "iff" => '→',
        _ => return None,
    })
}

/// What only looks.
pub fn is_layout(command: &str) -> bool {
    matches!(
        command,
        "left"
            | "right"
            | "middle"
            | "big"
            | "Big"
            | "bigg"
            | "Bigg"
            | "bigl"
            | "bigr"
            | "Bigl"
            | "Bigr"
            | "biggl"
            | "biggr"
            | "Biggl"
            | "Biggr"
            | "displaystyle"
            | "textstyle"
            | "limits"
            | "nolimits"
            | "quad"
            | "qquad"
            | ","
            | ";"
            | ":"
            | "!"
            | " "
            | ">"
            | "$"
            | "#"
            | "&"
            | "boxed"
            | "fbox"
            | "mathbf"
            | "mathit"
            | "mathcal"
            | "mathsf"
            | "boldsymbol"
            | "bm"
            | "vec"
            | "hat"
            | "overrightarrow"
            | "thinspace"
            | "space"
            | "enspace"
            | "pounds"
            | "euro"
            | "angle"
            | "triangle"
            | "therefore"
            | "large"
            | "Large"
            | "small"
            | "normalsize"
            | "bf"
            | "it"
            | "underline"
            | "ensuremath"
            | "hline"
            | "textdollar"
            | "widehat"
            | "mathstrut"
            | "("
            | ")"
            | "["
            | "]"
    )
}

pub fn is_text(command: &str) -> bool {
    matches!(
        command,
        "text"
            | "textbf"
            | "textit"
            | "textrm"
            | "textnormal"
            | "mbox"
            | "hbox"
            | "mathrm"
            | "operatorname"
            | "textsf"
            | "texttt"
            | "textsc"
            | "rm"
    )
}

/// Short words that no product of variables looks like.
pub fn is_word(run: &str) -> bool {
    matches!(
        run.to_lowercase().as_str(),
        "no" | "yes" | "odd" | "even" | "none" | "true" | "dne" | "tie" | "all" | "both"
    )
}

pub fn starts_with_function(run: &str) -> bool {
    PLAIN
        .iter()
        .any(|known| known.len() > 1 && run.strip_prefix(*known).is_some_and(|rest| rest.len() < 3))
}
