//! Methods that blend vectors by their lengths and angles: whatever they do, the result is a sum of
//! the inputs, and its coefficients follow from the inputs' dot products. So a tensor is gone
//! through twice, once for the products and once for the sum, however many steps a method has.

use super::operation::Span;
use crate::{Error, Result};

#[derive(Debug, Clone)]
pub struct Blend {
    pub curve: Curve,
    pub span: Span,
}

#[derive(Debug, Clone)]
pub enum Curve {
    /// From the base to the other. Shoemake 1985.
    Slerp { t: f64 },
    /// Between two models, or their differences from a base.
    Nuslerp { t: f64 },
    /// Barycentric, around the weighted mean direction.
    Multislerp { weights: Vec<f64>, eps: f64 },
    /// arXiv 2403.19522
    ModelStock,
    /// The Karcher mean of the directions, with the mean length. arXiv 2603.04972
    Karcher { rounds: usize, tol: f64 },
}

/// Dot products of some vectors with each other: (i, j), row by row, of the upper triangle.
#[derive(Debug, Clone, Copy)]
pub struct Gram<'a> {
    pub count: usize,
    pub dots: &'a [f64],
}

/// How many products `count` vectors have.
pub fn pairs(count: usize) -> usize {
    count * (count + 1) / 2
}

impl Gram<'_> {
    fn dot(self, i: usize, j: usize) -> f64 {
        let (i, j) = (i.min(j), i.max(j));
        self.dots[i * self.count - i * i.saturating_sub(1) / 2 + j - i]
    }

    fn norm(self, i: usize) -> f64 {
        self.dot(i, i).max(0.0).sqrt()
    }

    /// The dot product of two sums of the vectors.
    fn product(self, a: &[f64], b: &[f64]) -> f64 {
        let each = (0..self.count)
            .map(|i| (0..self.count).map(|j| a[i] * b[j] * self.dot(i, j)).sum::<f64>());
        each.sum()
    }
}

impl Blend {
    /// Whether the vectors are the differences from the base, of all other inputs.
    pub fn is_relative(&self, base: Option<usize>) -> bool {
        base.is_some() && !matches!(self.curve, Curve::Slerp { .. } | Curve::Karcher { .. })
    }

    /// The vectors' coefficients. For [`Curve::Slerp`] the base is the first.
    pub fn coefficients(&self, gram: Gram) -> Result<Vec<f64>> {
        let unit = |number: usize| -> Vec<f64> {
            (0..gram.count).map(|i| f64::from(u8::from(i == number))).collect()
        };
        match &self.curve {
            Curve::Slerp { t } => Ok(slerp(gram, *t)),
            Curve::Nuslerp { t } => Ok(nuslerp(gram, *t)),
            Curve::ModelStock => Ok(model_stock(gram)),
            _ if gram.count == 1 => Ok(unit(0)),
            Curve::Multislerp { weights, eps } => multislerp(gram, weights, *eps),
            Curve::Karcher { rounds, tol } => Ok(karcher(gram, *rounds, *tol)),
        }
    }
}

/// [sin((1-t)θ) a + sin(tθ) b] / sin θ, or a line where the vectors are nearly parallel.
fn slerp(gram: Gram, t: f64) -> Vec<f64> {
    let length = |i| Some(gram.norm(i)).filter(|norm| *norm > 1e-8).unwrap_or(1.0);
    let cos = (gram.dot(0, 1) / (length(0) * length(1))).clamp(-1.0, 1.0);
    arc(cos, cos.abs() > 0.9995, t)
}

fn nuslerp(gram: Gram, t: f64) -> Vec<f64> {
    let length = |i| gram.norm(i).max(1e-7);
    // Parallel is what f32 calls so: beyond, the sine is noise.
    let cos = (gram.dot(0, 1) / (length(0) * length(1))).clamp(-1.0, 1.0) as f32;
    arc(f64::from(cos), 1.0 - cos * cos <= 1e-16, t)
}

fn arc(cos: f64, is_line: bool, t: f64) -> Vec<f64> {
    if is_line {
        return vec![1.0 - t, t];
    }
    let angle = cos.acos();
    vec![((1.0 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin()]
}

/// t/n for each of n differences, with t = n c / (1 + (n-1) c) of their mean cosine c.
fn model_stock(gram: Gram) -> Vec<f64> {
    let n = gram.count as f64;
    let cosines = (0..gram.count).flat_map(|i| (i + 1..gram.count).map(move |j| (i, j)));
    let cosines = cosines
        .map(|(i, j)| (gram.dot(i, j) / (gram.norm(i) * gram.norm(j)).max(1e-6)).clamp(-1.0, 1.0));
    let cosine = cosines.sum::<f64>() / (n * (n - 1.0) / 2.0);
    let divisor = 1.0 + (n - 1.0) * cosine;
    let t = if divisor.abs() < 1e-6 { 0.0 } else { n * cosine / divisor };
    vec![t / n; gram.count]
}

fn multislerp(gram: Gram, weights: &[f64], eps: f64) -> Result<Vec<f64>> {
    // Of the unit vectors.
    let units: Vec<f64> = (0..gram.count).map(|i| 1.0 / (gram.norm(i) + eps)).collect();
    let scaled = |of: &[f64]| -> Vec<f64> { of.iter().zip(&units).map(|(a, b)| a * b).collect() };
    let mean = scaled(weights);
    let length = gram.product(&mean, &mean).max(0.0).sqrt();
    if length < eps {
        return match gram.count {
            2 => Ok(weights.to_vec()),
            _ => Err(Error::data(
                "the models' weighted directions cancel out; multislerp needs other weights",
            )),
        };
    }
    let mean: Vec<f64> = mean.iter().map(|c| c / length).collect();
    // What is left of each unit vector across the mean, weighted: next to nothing.
    let along = |i: usize| {
        let one: Vec<f64> = (0..gram.count).map(|j| if i == j { units[i] } else { 0.0 }).collect();
        gram.product(&one, &mean)
    };
    let sum: f64 = weights.iter().enumerate().map(|(i, weight)| weight * along(i)).sum();
    let across: Vec<f64> =
        scaled(weights).iter().zip(&mean).map(|(weighted, mean)| weighted - sum * mean).collect();
    let angle = gram.product(&across, &across).max(0.0).sqrt() + eps;
    let size: f64 = weights.iter().enumerate().map(|(i, weight)| weight * gram.norm(i)).sum();
    let result = mean.iter().zip(&across);
    Ok(result.map(|(m, a)| size * (m * angle.cos() + a * angle.sin() / angle)).collect())
}

fn karcher(gram: Gram, rounds: usize, tol: f64) -> Vec<f64> {
    let count = gram.count;
    let norms: Vec<f64> = (0..count).map(|i| gram.norm(i)).collect();
    let valid: Vec<usize> = (0..count).filter(|&i| norms[i] > tol).collect();
    let Some(&first) = valid.first() else { return vec![0.0; count] };
    let share = 1.0 / valid.len() as f64;
    let length = |of: &[f64]| gram.product(of, of).max(0.0).sqrt();
    let unit = |i: usize| -> Vec<f64> {
        (0..count).map(|j| if i == j { 1.0 / norms[i] } else { 0.0 }).collect()
    };
    let mut mean = vec![0.0; count];
    valid.iter().for_each(|&i| mean[i] = share / norms[i]);
    let size = length(&mean);
    mean = if size < tol { unit(first) } else { mean.iter().map(|c| c / size).collect() };
    for _ in 0..rounds {
        let mut tangent = vec![0.0; count];
        for &i in &valid {
            let one = unit(i);
            let dot = gram.product(&mean, &one).clamp(-1.0, 1.0);
            let angle = dot.acos();
            if angle < tol {
                continue;
            }
            for j in 0..count {
                tangent[j] += share * angle / angle.sin() * (one[j] - dot * mean[j]);
            }
        }
        let size = length(&tangent);
        if size < tol {
            break;
        }
        for j in 0..count {
            mean[j] = size.cos() * mean[j] + size.sin() * tangent[j] / size;
        }
        let size = length(&mean);
        if size > tol {
            mean.iter_mut().for_each(|c| *c /= size);
        }
    }
    let scale = norms.iter().sum::<f64>() / count as f64;
    mean.iter().map(|c| scale * c).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gram(vectors: &[&[f64]]) -> Vec<f64> {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum();
        let count = vectors.len();
        let pairs = (0..count).flat_map(|i| (i..count).map(move |j| (i, j)));
        pairs.map(|(i, j)| dot(vectors[i], vectors[j])).collect()
    }

    fn blend(curve: Curve, vectors: &[&[f64]]) -> Vec<f64> {
        let dots = gram(vectors);
        assert_eq!(dots.len(), pairs(vectors.len()));
        let blend = Blend { curve, span: Span::Tensor };
        let of = blend.coefficients(Gram { count: vectors.len(), dots: &dots }).unwrap();
        (0..vectors[0].len())
            .map(|k| vectors.iter().zip(&of).map(|(v, c)| v[k] * c).sum())
            .collect()
    }

    fn near(a: &[f64], b: &[f64]) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-7), "{a:?} {b:?}");
    }

    #[test]
    fn right_angles() {
        let (x, y, z) = (&[2.0, 0.0, 0.0][..], &[0.0, 2.0, 0.0][..], &[0.0, 0.0, 2.0][..]);
        let half = 2.0 * 0.5f64.sqrt();
        near(&blend(Curve::Slerp { t: 0.5 }, &[x, y]), &[half, half, 0.0]);
        near(&blend(Curve::Nuslerp { t: 0.0 }, &[x, y]), x);
        near(&blend(Curve::Slerp { t: 0.25 }, &[x, x]), x);
        let third = 2.0 / 3f64.sqrt();
        let karcher = Curve::Karcher { rounds: 10, tol: 1e-5 };
        near(&blend(karcher, &[x, y, z]), &[third; 3]);
        let weights = vec![1.0 / 3.0; 3];
        near(&blend(Curve::Multislerp { weights, eps: 1e-12 }, &[x, y, z]), &[third; 3]);
        near(&blend(Curve::ModelStock, &[x, y, z]), &[0.0; 3]);
        near(&blend(Curve::ModelStock, &[x, x]), x);
    }
}
