//! What is computed for one tensor: a method with the values of all its parameters.

use std::collections::BTreeMap;

use super::arithmetic::{Arithmetic, Share};
use super::blend::{Blend, Curve};
use super::method::{Method, Thinning};
use super::plan::Input;
use crate::{Error, Result};

/// Values of parameters, those of models by the input's position.
#[derive(Debug, Default)]
pub struct Numbers {
    pub shared: BTreeMap<&'static str, Option<f64>>,
    pub each: BTreeMap<(&'static str, usize), Option<f64>>,
}

impl Numbers {
    fn get(&self, name: &str) -> f64 {
        self.shared.get(name).copied().flatten().unwrap_or_default()
    }

    fn flag(&self, name: &str) -> bool {
        self.get(name) != 0.0
    }

    fn of(&self, name: &'static str, input: usize) -> f64 {
        self.each.get(&(name, input)).copied().flatten().unwrap_or_default()
    }
}

/// Over what norms and angles are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    Tensor,
    /// Each row: all numbers with the same index but the last.
    Row,
    /// Each column: all numbers with the same index but the first.
    Column,
}

#[derive(Debug, Clone)]
pub enum Operation {
    /// sum of weight * input, / divisor
    Linear {
        weights: Vec<f32>,
        divisor: Option<f32>,
    },
    /// input * scale, or the input as it is
    Pass {
        scale: Option<f32>,
    },
    Blend(Blend),
    Arithmetic(Arithmetic),
}

impl Operation {
    pub fn new(
        method: Method,
        numbers: &Numbers,
        inputs: &[Input],
        base: Option<usize>,
        shape: &[usize],
    ) -> Result<Self> {
        let others: Vec<usize> = (0..inputs.len()).filter(|input| Some(*input) != base).collect();
        let weights = |of: &[usize]| of.iter().map(|&i| numbers.of("weight", i)).collect();
        if let Some(thinning) = method.thinning() {
            return Self::arithmetic(method, thinning, numbers, &others, shape);
        }
        let blend = |curve: Curve, span: Span| {
            let span = if shape.len() < 2 { Span::Tensor } else { span };
            Self::Blend(Blend { curve, span })
        };
        Ok(match method {
            Method::Linear => {
                let weights: Vec<f32> =
                    (0..inputs.len()).map(|i| numbers.of("weight", i) as f32).collect();
                let sum: f32 = weights.iter().sum();
                let divisor = numbers.flag("normalize").then_some(sum);
                if divisor == Some(0.0) {
                    return Err(Error::usage("the weights sum to 0, nothing to divide by"));
                }
                Self::Linear { weights, divisor }
            }
            Method::Passthrough => {
                let scale = numbers.each.get(&("scale", 0)).copied().flatten();
                Self::Pass { scale: scale.map(|scale| scale as f32) }
            }
            Method::Slerp => blend(Curve::Slerp { t: numbers.get("t") }, Span::Tensor),
            Method::Nuslerp => {
                let span = match (numbers.flag("nuslerp_flatten"), numbers.flag("nuslerp_row_wise"))
                {
                    (true, _) => Span::Tensor,
                    (false, true) => Span::Column,
                    (false, false) => Span::Row,
                };
                let weights: Vec<f64> = weights(&others);
                let total: f64 = weights.iter().sum();
                let t = if total.abs() < 1e-6 { 0.5 } else { weights[1] / total };
                blend(Curve::Nuslerp { t }, span)
            }
            Method::Multislerp => {
                let mut weights: Vec<f64> = weights(&others);
                if numbers.flag("normalize_weights") {
                    let sum: f64 = weights.iter().sum();
                    weights.iter_mut().for_each(|weight| *weight /= sum);
                }
                blend(Curve::Multislerp { weights, eps: numbers.get("eps") }, Span::Tensor)
            }
            Method::ModelStock => {
                let span = if numbers.flag("filter_wise") { Span::Row } else { Span::Tensor };
                blend(Curve::ModelStock, span)
            }
            _ => {
                let (rounds, tol) = (numbers.get("max_iter") as usize, numbers.get("tol"));
                blend(Curve::Karcher { rounds, tol }, Span::Tensor)
            }
        })
    }

    fn arithmetic(
        method: Method,
        thinning: Thinning,
        numbers: &Numbers,
        others: &[usize],
        shape: &[usize],
    ) -> Result<Self> {
        let mut shares = Vec::new();
        for &input in others {
            let density = numbers.of("density", input);
            let epsilon = numbers.of("epsilon", input);
            if thinning == Thinning::Della {
                if shape.len() > 2 {
                    return Err(Error::usage(format!(
                        "{shape:?}: DELLA takes matrices and vectors"
                    )));
                }
                let (low, high) = (density - epsilon, density + epsilon);
                if density > 0.0 && density < 1.0 && (low <= 0.0 || high >= 1.0) {
                    return Err(Error::usage(format!(
                        "density {density} +- epsilon {epsilon} must lie between 0 and 1"
                    )));
                }
            }
            let gamma = numbers.of("gamma", input);
            let weight = numbers.of("weight", input) as f32;
            shares.push(Share { input, weight, density, gamma, epsilon });
        }
        Ok(Self::Arithmetic(Arithmetic {
            thinning,
            elects: method.elects(),
            normalize: numbers.flag("normalize"),
            rescale: numbers.flag("rescale"),
            lambda: numbers.get("lambda") as f32,
            shares,
        }))
    }

    /// How often the inputs are gone through.
    pub fn passes(&self) -> usize {
        match self {
            Self::Linear { .. } | Self::Pass { .. } => 1,
            Self::Blend(_) => 2,
            Self::Arithmetic(arithmetic) => arithmetic.passes(),
        }
    }
}
