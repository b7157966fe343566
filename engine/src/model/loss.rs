//! Losses of policy optimisation: pure functions over flat tensors of response tokens.
//!
//! N tokens of all sequences one after the other, V vocabulary entries. There is no padding among
//! them, hence no masks.

use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

use crate::Result;

/// Log-probabilities of `targets` (N) under softmax(`logits` (N, V) / `temperature`) -> (N).
pub fn token_logprobs(logits: &Tensor, targets: &Tensor, temperature: f64) -> Result<Tensor> {
    let scaled;
    let logits = if temperature == 1.0 {
        logits
    } else {
        scaled = logits.f_div_scalar(temperature)?;
        &scaled
    };
    Ok(logits
        .f_cross_entropy_loss(targets, None::<&Tensor>, Reduction::None, -100, 0.0)?
        .f_neg()?)
}

/// Entropy of softmax(`logits` (N, V)), in nats -> (N): logsumexp(z) - sum(softmax(z) * z).
pub fn entropy(logits: &Tensor) -> Result<Tensor> {
    let logp = logits.f_log_softmax(-1, None)?;
    Ok(logp.f_exp()?.f_mul(&logp)?.f_sum_dim_intlist(-1, false, None)?.f_neg()?)
}

/// Estimators of KL(policy || reference) per token (<http://joschu.net/blog/kl-approx.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kl {
    /// log pi - log ref: unbiased, high variance.
    K1,
    /// (log pi - log ref)^2 / 2: biased, low variance.
    K2,
    /// exp(d) - d - 1 with d = log ref - log pi: unbiased, positive.
    K3,
}

/// The estimate from log-probabilities of the sampled tokens under policy and reference, (N) and
/// (N) -> (N). K3 is clamped as verl does it: d to +-20, the estimate to +-10.
pub fn kl(kind: Kl, logp: &Tensor, logp_ref: &Tensor) -> Result<Tensor> {
    Ok(match kind {
        Kl::K1 => logp.f_sub(logp_ref)?,
        Kl::K2 => logp.f_sub(logp_ref)?.f_square()?.f_mul_scalar(0.5)?,
        Kl::K3 => {
            let d = logp_ref.f_sub(logp)?.f_clamp(-20.0, 20.0)?;
            d.f_exp()?.f_sub(&d)?.f_sub_scalar(1.0)?.f_clamp(-10.0, 10.0)?
        }
    })
}

/// Bounds of the probability ratio in [`policy_loss`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clip {
    pub low: f64,
    /// DAPO's clip-higher: above `low`.
    pub high: f64,
    /// Dual clip (arXiv 1912.09729): bound c > 1 of the loss where the advantage is negative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dual: Option<f64>,
}

impl Default for Clip {
    fn default() -> Self {
        Self { low: 0.2, high: 0.2, dual: None }
    }
}

/// The clipped policy loss of PPO (arXiv 1707.06347) per token; all tensors (N) -> (N):
/// r = exp(clamp(logp - logp_old, +-20)), L = max(-A r, -A clip(r, 1 - low, 1 + high)); with dual
/// clip c, min(L, -c A) where A < 0. `weights`, if given, multiply L (truncated importance
/// sampling).
pub fn policy_loss(
    logp: &Tensor,
    logp_old: &Tensor,
    advantages: &Tensor,
    weights: Option<&Tensor>,
    clip: Clip,
) -> Result<Tensor> {
    let ratio = logp.f_sub(logp_old)?.f_clamp(-20.0, 20.0)?.f_exp()?;
    let gain = advantages.f_neg()?;
    let clipped = ratio.f_clamp(1.0 - clip.low, 1.0 + clip.high)?;
    let mut loss = gain.f_mul(&ratio)?.f_maximum(&gain.f_mul(&clipped)?)?;
    if let Some(bound) = clip.dual {
        let bounded = loss.f_minimum(&gain.f_mul_scalar(bound)?)?;
        loss = bounded.f_where_self(&advantages.f_lt(0.0)?, &loss)?;
    }
    match weights {
        Some(weights) => Ok(loss.f_mul(weights)?),
        None => Ok(loss),
    }
}

/// 1 where [`policy_loss`] has no gradient because the ratio has left the clip's range in the
/// direction that the advantage pushes it, else 0; all (N) -> (N), without a gradient.
pub fn clipped(
    logp: &Tensor,
    logp_old: &Tensor,
    advantages: &Tensor,
    clip: Clip,
) -> Result<Tensor> {
    tch::no_grad(|| {
        let ratio = logp.f_sub(logp_old)?.f_exp()?;
        let high = ratio.f_gt(1.0 + clip.high)?.f_logical_and(&advantages.f_gt(0.0)?)?;
        let low = ratio.f_lt(1.0 - clip.low)?.f_logical_and(&advantages.f_lt(0.0)?)?;
        Ok(high.f_logical_or(&low)?.f_to_kind(Kind::Float)?)
    })
}

/// How token losses become one number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// Sum over all tokens / their number (DAPO, arXiv 2503.14476).
    TokenMean,
    /// Mean over sequences of the mean over each one's tokens (GRPO, arXiv 2402.03300).
    SeqMeanTokenMean,
    /// Mean over sequences of the sum over each one's tokens / this constant (Dr. GRPO,
    /// arXiv 2503.20783).
    SeqMeanTokenSumNorm(f64),
}

impl Aggregation {
    /// The weight of each token of a sequence, by sequence, given the numbers of their tokens. The
    /// aggregate is the weighted sum, so a batch can be summed up in parts.
    pub fn weights(self, lengths: &[usize]) -> Vec<f64> {
        let tokens = lengths.iter().sum::<usize>().max(1) as f64;
        let sequences = lengths.len().max(1) as f64;
        let weight = |&length: &usize| match self {
            Self::TokenMean => 1.0 / tokens,
            Self::SeqMeanTokenMean => 1.0 / (sequences * length.max(1) as f64),
            Self::SeqMeanTokenSumNorm(constant) => 1.0 / (sequences * constant),
        };
        lengths.iter().map(weight).collect()
    }
}
