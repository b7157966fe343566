//! The methods by name, with their parameters.

use serde::{Deserialize, Serialize};

/// How tensors become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    Linear,
    Slerp,
    Nuslerp,
    Multislerp,
    TaskArithmetic,
    Ties,
    DareLinear,
    DareTies,
    Della,
    DellaLinear,
    Breadcrumbs,
    BreadcrumbsTies,
    ModelStock,
    Karcher,
    Passthrough,
}

/// What a parameter's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Float,
    Flag,
    Count,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Float => "number",
            Self::Flag => "true or false",
            Self::Count => "count",
        }
    }
}

/// Whom a parameter is given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The tensor.
    Tensor,
    /// Each model.
    Model,
    /// Each model but the base.
    Other,
}

#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    pub name: &'static str,
    pub kind: Kind,
    pub scope: Scope,
    pub default: Option<f64>,
    /// Whether there has to be a value: it has no default, or is not optional.
    pub required: bool,
}

const fn needed(name: &'static str, scope: Scope) -> Parameter {
    Parameter { name, kind: Kind::Float, scope, default: None, required: true }
}

const fn number(name: &'static str, scope: Scope, default: f64) -> Parameter {
    Parameter { name, kind: Kind::Float, scope, default: Some(default), required: false }
}

const fn flag(name: &'static str, default: bool) -> Parameter {
    let default = Some(if default { 1.0 } else { 0.0 });
    Parameter { name, kind: Kind::Flag, scope: Scope::Tensor, default, required: false }
}

const WEIGHT: Parameter = needed("weight", Scope::Other);
const DENSITY: Parameter = number("density", Scope::Other, 1.0);
const LAMBDA: Parameter = number("lambda", Scope::Tensor, 1.0);
const EPSILON: Parameter = number("epsilon", Scope::Other, 0.15);
const GAMMA: Parameter = number("gamma", Scope::Other, 0.01);
/// The type of mergekit's masks; ours take no memory.
const INT8: Parameter = flag("int8_mask", false);

macro_rules! arithmetic {
    ($normalize:literal, $rescale:literal $(, $more:ident)?) => {
        vec![WEIGHT, DENSITY, LAMBDA, flag("normalize", $normalize), flag("rescale", $rescale), INT8
          $(, $more)?]
    };
}

/// What thins out the differences from the base before they are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thinning {
    None,
    /// The largest stay.
    Magnitude,
    /// All but the smallest and a few of the largest stay.
    Outliers,
    /// Chance decides.
    Random,
    /// Chance decides, kinder to large ones.
    Della,
}

impl Method {
    pub fn name(self) -> String {
        let name = serde_json::to_value(self).unwrap_or_default();
        name.as_str().unwrap_or_default().into()
    }

    /// Names, kinds and defaults as in mergekit 0.1.5.
    pub fn parameters(self) -> Vec<Parameter> {
        match self {
            Self::Linear => vec![needed("weight", Scope::Model), flag("normalize", true)],
            Self::Slerp => vec![needed("t", Scope::Tensor)],
            Self::Nuslerp => {
                vec![WEIGHT, flag("nuslerp_row_wise", false), flag("nuslerp_flatten", true)]
            }
            Self::Multislerp => {
                vec![WEIGHT, flag("normalize_weights", true), number("eps", Scope::Tensor, 1e-8)]
            }
            Self::TaskArithmetic => arithmetic!(false, false),
            Self::Ties => arithmetic!(true, false),
            Self::DareLinear | Self::DareTies => arithmetic!(false, true),
            Self::Breadcrumbs | Self::BreadcrumbsTies => arithmetic!(false, false, GAMMA),
            Self::Della => arithmetic!(true, true, EPSILON),
            Self::DellaLinear => arithmetic!(false, true, EPSILON),
            Self::ModelStock => vec![flag("filter_wise", false)],
            Self::Karcher => vec![
                Parameter {
                    name: "max_iter",
                    kind: Kind::Count,
                    scope: Scope::Tensor,
                    default: Some(10.0),
                    required: false,
                },
                number("tol", Scope::Tensor, 1e-5),
            ],
            Self::Passthrough => {
                vec![Parameter { required: false, ..needed("scale", Scope::Model) }]
            }
        }
    }

    /// Whether signs are elected, as in TIES.
    pub fn elects(self) -> bool {
        matches!(self, Self::Ties | Self::DareTies | Self::Della | Self::BreadcrumbsTies)
    }

    /// What it does to each model's difference from the base; None for methods that are no
    /// arithmetic with these.
    pub fn thinning(self) -> Option<Thinning> {
        Some(match self {
            Self::TaskArithmetic => Thinning::None,
            Self::Ties => Thinning::Magnitude,
            Self::DareLinear | Self::DareTies => Thinning::Random,
            Self::Della | Self::DellaLinear => Thinning::Della,
            Self::Breadcrumbs | Self::BreadcrumbsTies => Thinning::Outliers,
            _ => return None,
        })
    }

    /// Whether it knows a base model, and whether it needs one.
    pub fn base(self) -> Base {
        match self {
            Self::Linear | Self::Karcher | Self::Passthrough => Base::Ignored,
            Self::Nuslerp | Self::Multislerp => Base::Optional,
            _ => Base::Required,
        }
    }

    /// Fewest and most models, the base included where it is needed and apart from it where it is
    /// optional.
    pub fn inputs(self) -> (usize, usize) {
        match self {
            Self::Slerp | Self::Nuslerp => (2, 2),
            Self::ModelStock => (3, usize::MAX),
            Self::Passthrough => (1, 1),
            _ => (1, usize::MAX),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// As one model among the others.
    Ignored,
    Optional,
    Required,
}
