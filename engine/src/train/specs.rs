//! What the parameters of jobs are to the model.

use triad::job::cuts::Cuts;
use triad::job::{rl, sft};

use super::learner::Setup;
use crate::model::{Precision, Sampling, loss};

impl From<rl::Precision> for Precision {
    fn from(precision: rl::Precision) -> Self {
        match precision {
            rl::Precision::F32 => Self::F32,
            rl::Precision::Bf16 => Self::Bf16,
        }
    }
}

impl From<Cuts> for Sampling {
    fn from(Cuts { temperature, top_k, top_p, min_p }: Cuts) -> Self {
        Self { temperature, top_k, top_p, min_p, ..Self::default() }
    }
}

impl From<&sft::Spec> for Setup {
    fn from(spec: &sft::Spec) -> Self {
        Self {
            seed: spec.seed,
            precision: spec.precision,
            lora: spec.lora.clone(),
            weight_decay: spec.weight_decay,
            learning_rate: spec.learning_rate,
            max_rejected: spec.max_rejected,
        }
    }
}

impl From<&rl::Spec> for Setup {
    fn from(spec: &rl::Spec) -> Self {
        Self {
            seed: spec.seed,
            precision: spec.precision,
            lora: spec.lora.clone(),
            weight_decay: spec.weight_decay,
            learning_rate: spec.learning_rate,
            max_rejected: spec.max_rejected,
        }
    }
}

pub fn kl(kind: rl::KlKind) -> loss::Kl {
    match kind {
        rl::KlKind::K1 => loss::Kl::K1,
        rl::KlKind::K2 => loss::Kl::K2,
        rl::KlKind::K3 => loss::Kl::K3,
    }
}

/// `constant` is what Dr. GRPO divides by, tokens.
pub fn aggregation(aggregation: rl::Aggregation, constant: usize) -> loss::Aggregation {
    match aggregation {
        rl::Aggregation::TokenMean => loss::Aggregation::TokenMean,
        rl::Aggregation::SeqMeanTokenMean => loss::Aggregation::SeqMeanTokenMean,
        rl::Aggregation::SeqMeanTokenSumNorm => {
            loss::Aggregation::SeqMeanTokenSumNorm(constant as f64)
        }
    }
}
