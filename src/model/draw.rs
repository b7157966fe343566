//! Drawing a token from logits.
//!
//! The order of the cuts: temperature, then top-k, top-p, min-p. Top-p counts the probability of
//! what top-k left as 1; min-p compares with the likeliest token.

use tch::{Device, Kind, Tensor};

use super::product::slice;
use super::sampler::Sampling;
use super::threads::{self, Parts, share};
use crate::Result;

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Drawn {
    pub id: u32,
    /// Under the distribution that it was drawn from: softmax(logits / temperature) after the cuts,
    /// normalised.
    pub logprob: f32,
    /// Under softmax(logits).
    pub model_logprob: f32,
}

/// One token for each row of `logits` (R, V), at the numbers `uniforms` in [0, 1), (R).
pub(super) fn draw(logits: &Tensor, uniforms: &[f64], sampling: &Sampling) -> Result<Vec<Drawn>> {
    let model = logits.f_log_softmax(-1, None)?;
    if sampling.temperature == 0.0 {
        let (best, ids) = model.f_max_dim(-1, false)?;
        // Greedy is certain.
        return gather(&ids, &best.f_zeros_like()?, &best);
    }
    let logp = if sampling.temperature == 1.0 {
        model.shallow_clone()
    } else {
        logits.f_div_scalar(sampling.temperature)?.f_log_softmax(-1, None)?
    };
    if logits.device() == Device::Cpu {
        on_host(&model, &logp, uniforms, sampling)
    } else {
        on_device(&model, &logp, uniforms, sampling)
    }
}

/// The same by libtorch, without a copy of the distribution to the host. `model` and `logp` (R, V)
/// are log-softmax of the logits, without and with the temperature.
fn on_device(
    model: &Tensor,
    logp: &Tensor,
    uniforms: &[f64],
    sampling: &Sampling,
) -> Result<Vec<Drawn>> {
    let p = logp.f_exp()?;
    let (_, vocabulary) = p.size2()?;
    let uniforms = Tensor::f_from_slice(uniforms)?.f_to_device(logp.device())?.f_unsqueeze(1)?; // (R, 1)
    if !sampling.cuts() {
        let ids = invert(&p, &uniforms)?.0;
        let of = |logp: &Tensor| logp.f_gather(-1, &ids, false);
        return gather(&ids, &of(logp)?, &of(model)?);
    }
    let (mut sorted, order) = p.f_sort_stable(true, -1, true)?;
    let mut before = sorted.f_cumsum(-1, Kind::Double)?;
    let mass = match sampling.top_k as i64 {
        k if k > 0 && k < vocabulary => {
            let _ = sorted.f_narrow(-1, k, vocabulary - k)?.f_zero_()?;
            before.f_narrow(-1, k - 1, 1)?
        }
        _ => before.f_narrow(-1, 0, 1)?.f_ones_like()?,
    };
    before = before.f_sub(&sorted)?;
    let mut keep = before.f_lt_tensor(&mass.f_mul_scalar(sampling.top_p)?)?;
    if sampling.top_p == 1.0 {
        keep = keep.f_ones_like()?;
    }
    let least = sorted.f_narrow(-1, 0, 1)?.f_mul_scalar(sampling.min_p)?;
    keep = keep.f_logical_and(&sorted.f_ge_tensor(&least)?)?;
    sorted = sorted.f_mul(&keep.f_to_kind(Kind::Float)?)?;
    let (places, total) = invert(&sorted, &uniforms)?;
    let ids = order.f_gather(-1, &places, false)?;
    let of = |logp: &Tensor| logp.f_gather(-1, &ids, false)?.f_to_kind(Kind::Double);
    gather(&ids, &of(logp)?.f_sub(&total.f_log()?)?, &of(model)?)
}

/// The inverse of the cumulative distribution of `weights` (R, V), not normalised, at `uniforms`
/// (R, 1) -> (R, 1), and the sums (R, 1): the first index whose cumulative sum is above. Sums in
/// f64: with f32 the last of 150,000 entries would be rounded away.
fn invert(weights: &Tensor, uniforms: &Tensor) -> Result<(Tensor, Tensor)> {
    let last = weights.size2()?.1 - 1;
    let sums = weights.f_cumsum(-1, Kind::Double)?;
    let total = sums.f_narrow(-1, last, 1)?;
    let targets = uniforms.f_mul(&total)?;
    let found = targets.f_searchsorted(&sums, false, true, "right", None::<&Tensor>)?;
    Ok((found.f_clamp_max(last)?, total))
}

/// One copy to the host.
fn gather(ids: &Tensor, logprobs: &Tensor, model: &Tensor) -> Result<Vec<Drawn>> {
    let columns = [ids, logprobs, model]
        .map(|column| column.f_to_kind(Kind::Double)?.f_reshape(-1))
        .into_iter()
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let rows = Tensor::f_stack(&columns, 1)?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let mut numbers = vec![0f64; rows.numel()];
    rows.f_copy_data(&mut numbers, rows.numel())?;
    let rows = numbers.chunks_exact(3);
    Ok(rows
        .map(|row| Drawn {
            id: row[0] as u32,
            logprob: row[1] as f32,
            model_logprob: row[2] as f32,
        })
        .collect())
}

/// The same row by row: without the (R, V) sums in f64, and sorting only what a cut may leave.
fn on_host(
    model: &Tensor,
    logp: &Tensor,
    uniforms: &[f64],
    sampling: &Sampling,
) -> Result<Vec<Drawn>> {
    let p = logp.f_exp()?.f_contiguous()?;
    let (model, logp, vocabulary) =
        (model.f_contiguous()?, logp.f_contiguous()?, p.size2()?.1 as usize);
    let (model, logp, p) = (slice::<f32>(&model)?, slice::<f32>(&logp)?, slice::<f32>(&p)?);
    let mut drawn = vec![Drawn::default(); uniforms.len()];
    let places = Parts::new(&mut drawn);
    share(uniforms.len(), threads::available(), |row| {
        let of_row = row * vocabulary..(row + 1) * vocabulary;
        let p = &p[of_row.clone()];
        let (id, total) = if sampling.cuts() {
            let kept = kept(p, sampling);
            let (place, total) = inverse(kept.iter().map(|&(p, _)| p), uniforms[row]);
            (kept.get(place).map_or(0, |&(_, id)| id as usize), Some(total))
        } else {
            (inverse(p.iter().copied(), uniforms[row]).0, None)
        };
        let of = |logp: &[f32]| logp[of_row.clone()].get(id).copied().unwrap_or(f32::NAN);
        let logprob = match total {
            Some(total) => (f64::from(of(logp)) - total.ln()) as f32,
            None => of(logp),
        };
        // SAFETY: each row is drawn once.
        for place in unsafe { places.part(row, 1) } {
            *place = Drawn { id: id as u32, logprob, model_logprob: of(model) };
        }
    });
    Ok(drawn)
}

/// The first index whose cumulative sum is above `uniform` of the whole, and the whole.
fn inverse(weights: impl ExactSizeIterator<Item = f32> + Clone, uniform: f64) -> (usize, f64) {
    let total: f64 = weights.clone().map(f64::from).sum();
    let (target, last) = (uniform * total, weights.len().saturating_sub(1));
    let mut sum = 0.0;
    let found = weights.into_iter().position(|weight| {
        sum += f64::from(weight);
        sum > target
    });
    (found.unwrap_or(last), total)
}

/// What the cuts leave of `p` (V), with ids, likeliest first; equal ones by id.
fn kept(p: &[f32], sampling: &Sampling) -> Vec<(f32, u32)> {
    let highest = p.iter().copied().fold(0.0, f32::max);
    let least = highest * sampling.min_p as f32;
    let descending = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    let top_k = if sampling.top_k == 0 { p.len() } else { sampling.top_k.min(p.len()) };
    // Sorting 50,000 numbers takes longer than computing them. Below this bound a token belongs to
    // a tail of less than half of what top-p leaves out.
    let tail = 1.0 - sampling.top_p;
    let bound = if top_k < p.len() {
        0.0
    } else if tail > 1e-4 {
        least.max((tail / 2.0 / p.len() as f64) as f32)
    } else {
        least
    };
    let candidates = (0..).zip(p).filter(|&(_, &p)| p >= bound).map(|(id, &p)| (p, id));
    let mut candidates: Vec<(f32, u32)> = candidates.collect();
    if top_k < candidates.len() {
        candidates.select_nth_unstable_by(top_k, descending);
        candidates.truncate(top_k);
    }
    candidates.sort_unstable_by(descending);
    let mass: f64 = match top_k < p.len() {
        true => candidates.iter().map(|&(p, _)| f64::from(p)).sum(),
        false => 1.0,
    };
    let mut sum = 0.0;
    let kept = candidates.iter().take_while(|&&(p, _)| {
        sum += f64::from(p);
        (sampling.top_p == 1.0 || sum - f64::from(p) < sampling.top_p * mass) && p >= least
    });
    let kept = kept.count();
    candidates.truncate(kept);
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Stream;

    #[test]
    fn host_and_device_draw_the_same() {
        let mut stream = Stream::new(3, "draw", 0);
        let logits: Vec<f32> = (0..40 * 200).map(|_| 2.0 * stream.normal() as f32).collect();
        let logits = Tensor::from_slice(&logits).view([40, 200]);
        let (model, logp) = (logits.log_softmax(-1, None), (&logits / 0.7).log_softmax(-1, None));
        let uniforms: Vec<f64> = (0..40).map(|_| stream.uniform()).collect();
        for (top_k, top_p, min_p) in [
            (0, 1.0, 0.0),
            (0, 0.7, 0.0),
            (0, 0.95, 0.01),
            (0, 1.0, 0.1),
            (9, 1.0, 0.0),
            (40, 0.8, 0.0),
            (30, 0.9, 0.2),
            (1, 0.5, 0.5),
            (500, 0.5, 0.0),
        ] {
            let sampling = Sampling { top_k, top_p, min_p, ..Sampling::default() };
            let host = on_host(&model, &logp, &uniforms, &sampling).unwrap();
            let device = on_device(&model, &logp, &uniforms, &sampling).unwrap();
            for (host, device) in host.iter().zip(&device) {
                assert_eq!((host.id, host.model_logprob), (device.id, device.model_logprob));
                assert!((host.logprob - device.logprob).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn cuts_apply_in_order() {
        let p = [0.1, 0.4, 0.05, 0.2, 0.25];
        let ids = |top_k, top_p, min_p| -> Vec<u32> {
            let sampling = Sampling { top_k, top_p, min_p, ..Sampling::default() };
            kept(&p, &sampling).into_iter().map(|(_, id)| id).collect()
        };
        assert_eq!(ids(0, 1.0, 0.0), [1, 4, 3, 0, 2]);
        assert_eq!(ids(3, 1.0, 0.0), [1, 4, 3]);
        assert_eq!(ids(0, 0.66, 0.0), [1, 4, 3]);
        // 0.4 + 0.25 are 0.76 of the three that top-k leaves.
        assert_eq!(ids(3, 0.7, 0.0), [1, 4]);
        assert_eq!(ids(0, 1.0, 0.3), [1, 4, 3]);
        assert_eq!(ids(0, 0.5, 0.6), [1, 4]);
        assert_eq!(ids(0, 0.5, 0.7), [1]);
    }
}
