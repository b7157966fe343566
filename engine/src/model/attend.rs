//! Attention of one new token a row over the cache, on a CPU with AVX2.
//!
//! With a handful of queries per key-value head, libtorch's batched product spends most of its time
//! on overhead, and then sampling spends half of its time there. What remains is reading the cache:
//! this reads it once, in order, and a prompt that several rows share only once for all of them.

#[cfg(target_arch = "x86_64")]
mod avx2;

#[cfg(target_arch = "x86_64")]
use super::lanes::Lanes;
use super::product::Number;
use super::threads::{Parts, share};
use crate::{Error, Result};

/// R rows of KV independent problems, each of G queries over two stretches of slots: the prompt's,
/// which several rows may share, and the row's own.
pub(super) struct Attention<'a, T> {
    /// Scaled by 1/sqrt(D), (R * KV, G, D).
    pub queries: &'a [f32],
    /// Of each row.
    pub prompts: Vec<Slots<'a, T>>,
    /// Of each row.
    pub own: Vec<Slots<'a, T>>,
    /// KV
    pub kv_heads: usize,
    /// D
    pub width: usize,
}

/// A stretch of the cache: keys and values, (KV, capacity, D) each, the first `used` in use.
#[derive(Clone, Copy)]
pub(super) struct Slots<'a, T> {
    pub keys: &'a [T],
    pub values: &'a [T],
    pub capacity: usize,
    pub used: usize,
}

impl<T> Slots<'_, T> {
    fn fits(&self, kv_heads: usize, width: usize) -> bool {
        self.used > 0
            && self.used <= self.capacity
            && self.keys.len() == kv_heads * self.capacity * width
            && self.values.len() == self.keys.len()
    }
}

/// Whether [`attend`] knows heads of this width on this machine.
pub(super) fn supports(width: usize) -> bool {
    #[cfg(target_arch = "x86_64")]
    return matches!(width, 8 | 16 | 24 | 32 | 48 | 64 | 80 | 96 | 128)
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// softmax(queries * keys^T) * values -> `out` (R * KV, G, D). The result of one problem does not
/// depend on the others, nor on `threads`.
pub(super) fn attend<T: Stored>(
    problem: &Attention<T>,
    out: &mut [f32],
    threads: usize,
) -> Result<()> {
    let Attention { queries, prompts, own, kv_heads, width } = problem;
    let count = own.len() * kv_heads;
    if !supports(*width)
        || count == 0
        || prompts.len() != own.len()
        || !prompts.iter().chain(own).all(|slots| slots.fits(*kv_heads, *width))
        || queries.len() != out.len()
        || !out.len().is_multiple_of(count * width)
    {
        return Err(Error::defect(format!(
            "attention of {} numbers of {} rows does not fit the cache",
            queries.len(),
            own.len()
        )));
    }
    let size = out.len() / count; // G * D
    let tasks = if threads <= 1 { 1 } else { count.min(4 * threads) };
    let part = count.div_ceil(tasks);
    let out = Parts::new(out);
    share(count.div_ceil(part), threads, |task| {
        let first = task * part;
        let many = part.min(count - first);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: tasks do not overlap; `supports` found the machine's features; sizes fit.
        unsafe {
            avx2::attend_from(problem, first, size, out.part(first * size, many * size))
        };
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (many, &out);
    });
    Ok(())
}

/// What a cache holds.
#[cfg(target_arch = "x86_64")]
pub(super) trait Stored: Number + Lanes + Send + Sync {
    fn round(value: f32) -> Self;
}

/// What a cache holds.
#[cfg(not(target_arch = "x86_64"))]
pub(super) trait Stored: Number + Send + Sync {
    fn round(value: f32) -> Self;
}

impl Stored for f32 {
    fn round(value: f32) -> Self {
        value
    }
}

impl Stored for half::bf16 {
    fn round(value: f32) -> Self {
        half::bf16::from_f32(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use triad::entropy::Stream;

    fn check<T: Stored + Into<f64>>() {
        let mut stream = Stream::new(1, "attention", 0);
        for width in (1..200).filter(|&width| supports(width)) {
            let (kv_heads, group, capacity) = (2, 3, 21);
            let (owners, lengths, used) = ([0, 0, 1, 2, 2], [12, 9, 1], [17, 3, 1, 21, 8]);
            let mut draw =
                |n: usize| -> Vec<f32> { (0..n).map(|_| stream.normal() as f32).collect() };
            let queries = draw(owners.len() * kv_heads * group * width);
            let mut stored = |slots: usize| -> [Vec<T>; 2] {
                [(); 2].map(|()| draw(kv_heads * slots * width).into_iter().map(T::round).collect())
            };
            let prompts = lengths.map(&mut stored);
            let own = owners.map(|_| stored(capacity));
            fn slots<T>(kv: &[Vec<T>; 2], capacity: usize, used: usize) -> Slots<'_, T> {
                Slots { keys: &kv[0], values: &kv[1], capacity, used }
            }
            let problem = Attention {
                queries: &queries,
                prompts: owners
                    .iter()
                    .map(|&o| slots(&prompts[o], lengths[o], lengths[o]))
                    .collect(),
                own: own.iter().zip(used).map(|(kv, used)| slots(kv, capacity, used)).collect(),
                kv_heads,
                width,
            };
            let mut out = vec![0.0; queries.len()];
            attend(&problem, &mut out, 1).unwrap();
            let mut threaded = vec![0.0; queries.len()];
            attend(&problem, &mut threaded, 3).unwrap();
            assert_eq!(out, threaded);

            for (index, query) in queries.chunks(width).enumerate() {
                let n = index / group;
                let (row, head) = (n / kv_heads, n % kv_heads);
                let stretches = [problem.prompts[row], problem.own[row]];
                let rows = |values: bool| -> Vec<Vec<f64>> {
                    let of = |slots: &Slots<T>, t: usize| -> Vec<f64> {
                        let all = if values { slots.values } else { slots.keys };
                        all[(head * slots.capacity + t) * width..][..width]
                            .iter()
                            .map(|&v| v.into())
                            .collect()
                    };
                    stretches.iter().flat_map(|s| (0..s.used).map(move |t| of(s, t))).collect()
                };
                let weights: Vec<f64> = rows(false)
                    .iter()
                    .map(|key| {
                        key.iter().zip(query).map(|(k, &q)| k * f64::from(q)).sum::<f64>().exp()
                    })
                    .collect();
                let sum: f64 = weights.iter().sum();
                let values = rows(true);
                for d in 0..width {
                    let expected: f64 =
                        weights.iter().zip(&values).map(|(w, value)| w / sum * value[d]).sum();
                    let ours = f64::from(out[index * width + d]);
                    assert!((ours - expected).abs() < 1e-5, "{width} {ours} {expected}");
                }
            }
        }
    }

    #[test]
    fn it_is_softmax_attention_at_every_width() {
        check::<f32>();
        check::<half::bf16>();
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let slots = Slots { keys: &[0.0; 16], values: &[0.0; 16], capacity: 2, used: 2 };
        let ask = |prompt: Slots<f32>, rows: usize| {
            let problem = Attention {
                queries: &[0.0; 8],
                prompts: vec![prompt; rows],
                own: vec![slots],
                kv_heads: 1,
                width: 8,
            };
            attend(&problem, &mut [0.0; 8], 1)
        };
        assert!(ask(Slots { used: 3, ..slots }, 1).is_err());
        assert!(ask(slots, 2).is_err());
    }
}
