//! Attention of one new token a row over the cache, on a CPU with AVX2.
//!
//! With a handful of queries per key-value head, libtorch's batched product spends most of its time
//! on overhead, and then sampling spends half of its time there. What remains is reading the cache:
//! this reads it once, in order, and a prompt that several rows share only once for all of them.

#[cfg(target_arch = "x86_64")]
mod avx2;

use crate::{Error, Result};

/// N = rows * KV independent problems of G queries each, over two stretches of slots: the prompt's,
/// shared by the rows of one owner, and the row's own.
#[derive(Clone, Copy)]
pub(super) struct Attention<'a> {
    /// Scaled by 1/sqrt(D), (N, G, D).
    pub queries: &'a [f32],
    /// Of U prompts, (U * KV, P, D).
    pub prompt: Slots<'a>,
    /// Of the rows, (N, capacity, D).
    pub own: Slots<'a>,
    /// The prompt of each row.
    pub owners: &'a [usize],
    /// First visible slot of each prompt, (U).
    pub starts: &'a [usize],
    /// KV
    pub kv_heads: usize,
    /// D
    pub width: usize,
}

/// A stretch of the cache.
#[derive(Clone, Copy)]
pub(super) struct Slots<'a> {
    pub keys: &'a [f32],
    pub values: &'a [f32],
    pub capacity: usize,
    pub used: usize,
}

impl Slots<'_> {
    fn fits(&self, count: usize, width: usize) -> bool {
        self.used > 0
            && self.used <= self.capacity
            && self.keys.len() == count * self.capacity * width
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

/// softmax(queries * keys^T) * values -> `out` (N, G, D). The result of one problem does not depend
/// on the others, nor on `threads`.
pub(super) fn attend(problem: &Attention, out: &mut [f32], threads: usize) -> Result<()> {
    let Attention { queries, prompt, own, owners, starts, kv_heads, width } = *problem;
    let count = owners.len() * kv_heads;
    if !supports(width)
        || count == 0
        || !prompt.fits(starts.len() * kv_heads, width)
        || !own.fits(count, width)
        || owners.iter().any(|&owner| owner >= starts.len())
        || starts.iter().any(|&start| start >= prompt.used)
        || queries.len() != out.len()
        || !out.len().is_multiple_of(count * width)
    {
        return Err(Error::defect(format!(
            "attention of {} numbers over a cache of {} and {} numbers does not fit",
            queries.len(),
            prompt.keys.len(),
            own.keys.len()
        )));
    }
    let size = out.len() / count; // G * D
    let share = count.div_ceil(threads.max(1));
    let run = |first: usize, out: &mut [f32]| {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `supports` found the machine's features; the sizes fit, see above.
        unsafe {
            avx2::attend_from(problem, first, size, out)
        };
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (first, out);
    };
    if share >= count {
        run(0, out);
        return Ok(());
    }
    std::thread::scope(|scope| {
        for (index, out) in out.chunks_mut(share * size).enumerate() {
            let run = &run;
            scope.spawn(move || run(index * share, out));
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Stream;

    #[test]
    fn it_is_softmax_attention_at_every_width() {
        let mut stream = Stream::new(1, "attention", 0);
        for width in (1..200).filter(|&width| supports(width)) {
            let (kv_heads, group, capacity) = (2, 3, 21);
            let (owners, starts) = ([0, 0, 1, 2, 2], [0, 3, 11]);
            let mut draw =
                |n: usize| -> Vec<f32> { (0..n).map(|_| stream.normal() as f32).collect() };
            let rows = owners.len() * kv_heads;
            let queries = draw(rows * group * width);
            let prompt = [(); 2].map(|()| draw(starts.len() * kv_heads * 12 * width));
            let own = [(); 2].map(|()| draw(rows * capacity * width));
            let problem = Attention {
                queries: &queries,
                prompt: Slots { keys: &prompt[0], values: &prompt[1], capacity: 12, used: 12 },
                own: Slots { keys: &own[0], values: &own[1], capacity, used: 17 },
                owners: &owners,
                starts: &starts,
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
                let owner = owners[n / kv_heads];
                let at = |i: usize| -> Vec<(usize, &[f32])> {
                    let slab = owner * kv_heads + n % kv_heads;
                    let shared = (starts[owner]..12).map(|t| (slab * 12 + t, &prompt[i][..]));
                    shared.chain((0..17).map(|t| (n * capacity + t, &own[i][..]))).collect()
                };
                let row = |(slot, numbers): (usize, &[f32])| -> Vec<f64> {
                    numbers[slot * width..][..width].iter().map(|&v| f64::from(v)).collect()
                };
                let score = |key: Vec<f64>| -> f64 {
                    key.iter().zip(query).map(|(k, &q)| k * f64::from(q)).sum::<f64>().exp()
                };
                let weights: Vec<f64> = at(0).into_iter().map(|slot| score(row(slot))).collect();
                let sum: f64 = weights.iter().sum();
                let values: Vec<Vec<f64>> = at(1).into_iter().map(row).collect();
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
    fn what_does_not_fit_is_refused() {
        let slots = Slots { keys: &[0.0; 16], values: &[0.0; 16], capacity: 2, used: 2 };
        let problem = Attention {
            queries: &[0.0; 8],
            prompt: slots,
            own: slots,
            owners: &[0],
            starts: &[2],
            kv_heads: 1,
            width: 8,
        };
        assert!(attend(&problem, &mut [0.0; 8], 1).is_err());
        assert!(
            attend(&Attention { starts: &[0], owners: &[1], ..problem }, &mut [0.0; 8], 1).is_err()
        );
    }
}
