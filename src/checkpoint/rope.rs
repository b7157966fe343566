//! Rotary positions: the frequencies of each published scaling.
//!
//! The formulas are those of transformers 5 (`modeling_rope_utils.py`), in f32 where it computes in
//! f32: the rounding of the frequencies is part of a model.

use std::f64::consts::PI;

use serde_json::{Map, Value};

use crate::{Error, Result};

/// The rotary embedding of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    pub theta: f64,
    pub scaling: RopeScaling,
}

/// How the frequencies of a model trained on short sequences are stretched for long ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    Default,
    /// Positions divided by `factor` (arXiv 2306.15595).
    Linear {
        factor: f64,
    },
    /// Llama 3.1: long wavelengths divided by `factor`, short ones kept, a ramp between.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    /// arXiv 2309.00071: the same by the number of turns in the original context, `fast` and `slow`;
    /// `attention` multiplies the cosines and sines.
    Yarn {
        factor: f64,
        fast: f64,
        slow: f64,
        original: f64,
        truncate: bool,
        attention: f64,
    },
}

/// The keys of a rotary section that triad understands.
const KEYS: [&str; 15] = [
    "rope_type",
    "type",
    "rope_theta",
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "partial_rotary_factor",
    "finetuned",
];

impl Rope {
    /// Reads the rotary keys of a `config.json`: `rope_parameters` (transformers 5) or
    /// `rope_scaling`, with `rope_type` or `type`; `rope_theta` in there or beside it.
    pub fn from_config(config: &Map<String, Value>, positions: usize) -> Result<Self> {
        let section = ["rope_scaling", "rope_parameters"]
            .into_iter()
            .find_map(|key| Some((key, config.get(key).filter(|value| !value.is_null())?)));
        let none = Map::new();
        let (place, section) = match section {
            None => ("rope_parameters", &none),
            Some((place, Value::Object(section))) => (place, section),
            Some((place, other)) => {
                return Err(Error::data(format!("config.json: {place} is {other}, no object")));
            }
        };
        if let Some((key, value)) = section.iter().find(|(key, _)| !KEYS.contains(&key.as_str())) {
            return Err(Error::data(format!(
                "config.json: {place}: key `{key}` ({value}) is not supported"
            )));
        }
        let get = |key: &str| section.get(key).filter(|value| !value.is_null());
        let number = |key: &str| -> Result<Option<f64>> {
            let Some(value) = get(key) else { return Ok(None) };
            match value.as_f64().filter(|x| *x > 0.0) {
                Some(x) => Ok(Some(x)),
                None => Err(Error::data(format!(
                    "config.json: {place}: {key} is {value}; it must be a number above 0"
                ))),
            }
        };
        let needed = |key: &str| {
            number(key)?.ok_or_else(|| Error::data(format!("config.json: {place} lacks `{key}`")))
        };
        let part = get("partial_rotary_factor").or_else(|| config.get("partial_rotary_factor"));
        if let Some(part) = part.filter(|part| !part.is_null() && part.as_f64() != Some(1.0)) {
            return Err(Error::data(format!(
                "config.json: partial_rotary_factor {part} is not supported"
            )));
        }
        let theta = match (number("rope_theta")?, config.get("rope_theta")) {
            (Some(theta), _) => theta,
            (None, None | Some(Value::Null)) => 10_000.0,
            (None, Some(value)) => {
                value.as_f64().filter(|theta| *theta > 0.0).ok_or_else(|| {
                    Error::data(format!("config.json: rope_theta is {value}; it must be above 0"))
                })?
            }
        };
        let kind = get("rope_type").or_else(|| get("type"));
        let original = || -> Result<f64> {
            let outside = config.get("original_max_position_embeddings").and_then(Value::as_f64);
            let inside = number("original_max_position_embeddings")?;
            Ok(outside.or(inside).unwrap_or(positions as f64))
        };
        let scaling = match kind.map_or(Some("default"), Value::as_str) {
            Some("default") => RopeScaling::Default,
            Some("linear") => RopeScaling::Linear { factor: needed("factor")? },
            Some("llama3") => RopeScaling::Llama3 {
                factor: needed("factor")?,
                low: needed("low_freq_factor")?,
                high: needed("high_freq_factor")?,
                original: original()?,
            },
            Some("yarn") => {
                let original = original()?;
                let factor = number("factor")?.unwrap_or(positions as f64 / original);
                let scale =
                    |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
                let attention = match (number("mscale")?, number("mscale_all_dim")?) {
                    (Some(one), Some(all)) => scale(one) / scale(all),
                    _ => scale(1.0),
                };
                RopeScaling::Yarn {
                    factor,
                    fast: number("beta_fast")?.unwrap_or(32.0),
                    slow: number("beta_slow")?.unwrap_or(1.0),
                    original,
                    truncate: get("truncate").and_then(Value::as_bool).unwrap_or(true),
                    attention: number("attention_factor")?.unwrap_or(attention),
                }
            }
            _ => {
                return Err(Error::data(format!(
                    "config.json: {place}: rope_type {} is not supported; triad knows default, \
                     linear, llama3 and yarn",
                    kind.unwrap_or(&Value::Null)
                )));
            }
        };
        Ok(Self { theta, scaling })
    }

    /// How many positions the scaling reaches, of a config that says `positions`. With linear and
    /// yarn the config usually names the original length; vLLM reckons the same.
    pub fn reach(&self, positions: usize) -> usize {
        match self.scaling {
            RopeScaling::Default | RopeScaling::Llama3 { .. } => positions,
            RopeScaling::Linear { factor } => positions.max((positions as f64 * factor) as usize),
            RopeScaling::Yarn { factor, original, .. } => {
                positions.max((original * factor) as usize)
            }
        }
    }

    /// What the cosines and sines are multiplied by.
    pub fn amplitude(&self) -> f32 {
        match self.scaling {
            RopeScaling::Yarn { attention, .. } => attention as f32,
            _ => 1.0,
        }
    }

    /// Angle per position of each pair of a head `width` wide: `width / 2` numbers.
    pub fn frequencies(&self, width: usize) -> Vec<f32> {
        let half = width / 2;
        let plain = |i: usize| 1.0 / (self.theta as f32).powf((2 * i) as f32 / width as f32);
        match self.scaling {
            RopeScaling::Default => (0..half).map(plain).collect(),
            RopeScaling::Linear { factor } => (0..half).map(|i| plain(i) / factor as f32).collect(),
            RopeScaling::Llama3 { factor, low, high, original } => {
                let stretch = |frequency: f32| {
                    let wavelength = 2.0 * PI as f32 / frequency;
                    if wavelength < (original / high) as f32 {
                        frequency
                    } else if wavelength > (original / low) as f32 {
                        frequency / factor as f32
                    } else {
                        let smooth =
                            (original as f32 / wavelength - low as f32) / (high - low) as f32;
                        (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
                    }
                };
                (0..half).map(|i| stretch(plain(i))).collect()
            }
            RopeScaling::Yarn { factor, fast, slow, original, truncate, .. } => {
                // The pair that turns `turns` times within the original context.
                let pair = |turns: f64| {
                    width as f64 * (original / (turns * 2.0 * PI)).ln() / (2.0 * self.theta.ln())
                };
                let (first, last) = (pair(fast), pair(slow));
                let (first, last) =
                    if truncate { (first.floor(), last.ceil()) } else { (first, last) };
                let (first, mut last) = (first.max(0.0), last.min(width as f64 - 1.0));
                if first == last {
                    last += 0.001;
                }
                let mix = |i: usize| {
                    let ramp = ((i as f32 - first as f32) / (last - first) as f32).clamp(0.0, 1.0);
                    let kept = 1.0 - ramp;
                    let power = (self.theta as f32).powf((2 * i) as f32 / width as f32);
                    1.0 / (factor as f32 * power) * (1.0 - kept) + 1.0 / power * kept
                };
                (0..half).map(mix).collect()
            }
        }
    }
}
