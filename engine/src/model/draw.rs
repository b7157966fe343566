//! Drawing a token from logits.
//!
//! The order of the cuts: temperature, then top-k, top-p, min-p. Top-p counts the probability of
//! what top-k left as 1; min-p compares with the likeliest token.

use tch::{Kind, Tensor};

use super::gpu;
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

/// One token for each row of `logits` (R, V), at the numbers `uniforms` in [0, 1), (R), which is here.
pub(super) fn draw(logits: &Tensor, uniforms: &[f64], sampling: &Sampling) -> Result<Vec<Drawn>> {
    let logp = logprobs(logits, sampling)?;
    match sampling.temperature == 0.0 {
        true => read(&on_device(&logp, &Tensor::f_from_slice(uniforms)?, sampling)?),
        false => on_host(&logp, uniforms, sampling),
    }
}

/// The same without waiting for the logits' device: id, logprob and model_logprob of each row (R,
/// 3), f64, see [`read`].
pub(super) fn draw_there(logits: &Tensor, uniforms: &[f64], sampling: &Sampling) -> Result<Tensor> {
    let uniforms = gpu::upload(Tensor::f_from_slice(uniforms)?, logits.device())?;
    on_device(&logprobs(logits, sampling)?, &uniforms, sampling)
}

/// Log-softmax of the logits, (R, V) each.
struct LogProbs {
    model: Tensor,
    /// Divided by the temperature; greedy: as the model's.
    tempered: Tensor,
}

fn logprobs(logits: &Tensor, sampling: &Sampling) -> Result<LogProbs> {
    let temperature = sampling.temperature;
    let logits = logits.f_to_kind(Kind::Float)?;
    let model = logits.f_log_softmax(-1, None)?;
    let tempered = match temperature == 0.0 || temperature == 1.0 {
        true => model.shallow_clone(),
        false => logits.f_div_scalar(temperature)?.f_log_softmax(-1, None)?,
    };
    Ok(LogProbs { model, tempered })
}

/// What [`draw_there`] gave, on the host by now.
pub(super) fn read(drawn: &Tensor) -> Result<Vec<Drawn>> {
    let mut numbers = vec![0f64; drawn.numel()];
    drawn.f_contiguous()?.f_copy_data(&mut numbers, drawn.numel())?;
    let rows = numbers.chunks_exact(3);
    Ok(rows
        .map(|row| Drawn {
            id: row[0] as u32,
            logprob: row[1] as f32,
            model_logprob: row[2] as f32,
        })
        .collect())
}

/// By libtorch, with `uniforms` (R): nothing is copied to the host or waited for -> (R, 3).
fn on_device(logp: &LogProbs, uniforms: &Tensor, sampling: &Sampling) -> Result<Tensor> {
    let LogProbs { model, tempered: logp } = logp;
    if sampling.temperature == 0.0 {
        let (best, ids) = model.f_max_dim(-1, true)?;
        // Greedy is certain.
        return columns([&ids, &best.f_zeros_like()?, &best]);
    }
    let of = |logp: &Tensor, ids: &Tensor| logp.f_gather(-1, ids, false);
    let p = logp.f_exp()?;
    let vocabulary = p.size2()?.1;
    if !sampling.cuts() {
        let ids = invert(&p, uniforms)?.0;
        return columns([&ids, &of(logp, &ids)?, &of(model, &ids)?]);
    }
    let top_k = Some(sampling.top_k as i64).filter(|k| (1..vocabulary).contains(k));
    let (sorted, order) = match top_k {
        Some(k) => p.f_topk(k, -1, true, true)?,
        None => p.f_sort_stable(true, -1, true)?,
    };
    let least = sorted.f_narrow(-1, 0, 1)?.f_mul_scalar(sampling.min_p)?;
    let mut keep = sorted.f_ge_tensor(&least)?;
    if sampling.top_p < 1.0 {
        let sums = sorted.f_cumsum(-1, Kind::Double)?;
        let before = sums.f_sub(&sorted)?;
        let within = match top_k {
            Some(k) => {
                let mass = sums.f_narrow(-1, k - 1, 1)?;
                before.f_lt_tensor(&mass.f_mul_scalar(sampling.top_p)?)?
            }
            None => before.f_lt(sampling.top_p)?,
        };
        keep = keep.f_logical_and(&within)?;
    }
    let (places, total) = invert(&sorted.f_mul(&keep.f_to_kind(Kind::Float)?)?, uniforms)?;
    let ids = order.f_gather(-1, &places, false)?;
    let drawn = of(logp, &ids)?.f_to_kind(Kind::Double)?.f_sub(&total.f_log()?)?;
    columns([&ids, &drawn, &of(model, &ids)?])
}

/// The inverse of the cumulative distribution of `weights` (R, V), not normalised, at `uniforms`
/// (R) -> (R, 1), and the sums (R, 1): the first index whose cumulative sum is above. Sums in f64:
/// with f32 the last of 150,000 entries would be rounded away. First among sums of [`WIDTH`] entries,
/// then within one of them: a GPU sums up a row's entries one after the other.
fn invert(weights: &Tensor, uniforms: &Tensor) -> Result<(Tensor, Tensor)> {
    /// Divides most vocabularies.
    const WIDTH: i64 = 128;
    let (rows, columns) = weights.size2()?;
    let parts = (columns + WIDTH - 1) / WIDTH;
    let weights = match parts * WIDTH - columns {
        0 => weights.f_contiguous()?,
        padding => weights.f_constant_pad_nd([0, padding])?,
    };
    let weights = weights.f_view([rows, parts, WIDTH])?;
    let sums = weights.f_sum_dim_intlist(-1, false, Kind::Double)?.f_cumsum(-1, Kind::Double)?;
    let total = sums.f_narrow(-1, parts - 1, 1)?;
    let targets = uniforms.f_unsqueeze(1)?.f_mul(&total)?;
    let find = |sums: &Tensor, last: i64| {
        let found = targets.f_searchsorted(sums, false, true, "right", None::<&Tensor>)?;
        found.f_clamp_max(last)
    };
    let part = find(&sums, parts - 1)?; // (R, 1)
    let before = sums.f_constant_pad_nd([1, 0])?.f_gather(-1, &part, false)?;
    let at = part.f_unsqueeze(2)?.f_expand([rows, 1, WIDTH], false)?;
    let own = weights.f_gather(1, &at, false)?.f_squeeze_dim(1)?; // (R, WIDTH)
    let within = find(&own.f_cumsum(-1, Kind::Double)?.f_add(&before)?, WIDTH - 1)?;
    let place = part.f_mul_scalar(WIDTH)?.f_add(&within)?;
    Ok((place.f_clamp_max(columns - 1)?, total))
}

/// (R, 1) each -> (R, 3), f64.
fn columns(columns: [&Tensor; 3]) -> Result<Tensor> {
    let wide = columns.map(|column| column.f_to_kind(Kind::Double));
    let wide = wide.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(Tensor::f_cat(&wide, 1)?)
}

/// The same row by row: without the (R, V) sums in f64, and sorting only what a cut may leave.
fn on_host(logp: &LogProbs, uniforms: &[f64], sampling: &Sampling) -> Result<Vec<Drawn>> {
    let p = logp.tempered.f_exp()?.f_contiguous()?;
    let (model, logp, vocabulary) =
        (logp.model.f_contiguous()?, logp.tempered.f_contiguous()?, p.size2()?.1 as usize);
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
    use triad::entropy::Stream;

    #[test]
    fn host_and_device_draw_the_same() {
        let mut stream = Stream::new(3, "draw", 0);
        let logits: Vec<f32> = (0..40 * 500).map(|_| 2.0 * stream.normal() as f32).collect();
        let logits = Tensor::from_slice(&logits).view([40, 500]);
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
            (700, 0.5, 0.0),
        ] {
            let sampling =
                Sampling { temperature: 0.7, top_k, top_p, min_p, ..Sampling::default() };
            let logp = logprobs(&logits, &sampling).unwrap();
            let host = on_host(&logp, &uniforms, &sampling).unwrap();
            let on_device = on_device(&logp, &Tensor::from_slice(&uniforms), &sampling).unwrap();
            let device = read(&on_device).unwrap();
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
