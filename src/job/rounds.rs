//! The rounds of `rl`: each iteration as draw -> verify -> select -> update, every step an artifact.

use serde_json::json;

use super::draw::{self, Draw};
use super::rl::Spec;
use super::select::Select;
use super::update::{self, Update};
use super::verify::Verify;
use super::{From, Part};
use crate::checkpoint::Dtype;
use crate::{Error, Result};

/// The parts of all iterations, in order. With refills an iteration draws and verifies once more for
/// each, as many prompts as are missing by then.
pub(super) fn parts(spec: &Spec, shards: u32, has_reference: bool) -> Result<Vec<Part>> {
    let blocks = spec.block.map_or(1, |block| spec.prompts.div_ceil(block));
    if shards as usize > blocks {
        return Err(Error::usage(format!(
            "{shards} shards: an iteration's {} prompts, drawn {} at a time, make {blocks}; lower \
             `block`",
            spec.prompts,
            spec.block.unwrap_or(spec.prompts)
        )));
    }
    let iterations = spec.curriculum.iter().map(|lesson| lesson.steps).sum();
    let verify = json!({"reward": spec.reward});
    let selection = serde_json::to_value(spec.selection()).map_err(Error::defect)?;
    let mut parts: Vec<Part> = Vec::new();
    let mut policy = From::Port("base");
    for iteration in 1..=iterations {
        let mut add = |part: Part| {
            parts.push(part);
            From::Part(parts.len() - 1)
        };
        let one = |port: &'static str, from| (port, port.to_string(), from);
        let tasks = one("tasks", From::Port("tasks"));
        let base = spec.lora.as_ref().map(|_| one("base", From::Port("base")));
        let (mut rollouts, mut verdicts) = (Vec::new(), Vec::new());
        for turn in 0..=spec.refills {
            let name = |job: &str| match turn {
                0 => format!("{iteration}.{job}"),
                _ => format!("{iteration}.{job}-{turn}"),
            };
            let drawing =
                draw::Spec { iteration, refill: turn.checked_sub(1), drawing: spec.drawing() };
            let drawn = add(Part {
                name: name("draw"),
                job: &Draw,
                params: serde_json::to_value(drawing).map_err(Error::defect)?,
                inputs: [one("policy", policy), tasks.clone()]
                    .into_iter()
                    .chain(base.clone())
                    .chain(verdicts.clone())
                    .collect(),
                shards,
                device: true,
            });
            let judged = add(Part {
                name: name("verify"),
                job: &Verify,
                params: verify.clone(),
                inputs: vec![tasks.clone(), one("rollouts", drawn)],
                shards: 1,
                device: false,
            });
            // Inputs come in the order of their names.
            rollouts.push(("rollouts", format!("{turn:03}"), drawn));
            verdicts.push(("verdicts", format!("{turn:03}"), judged));
        }
        let responses: Vec<_> = rollouts.into_iter().chain(verdicts).collect();
        let selected = add(Part {
            name: format!("{iteration}.select"),
            job: &Select,
            params: selection.clone(),
            inputs: responses.clone(),
            shards: 1,
            device: false,
        });
        let mut rl = spec.clone();
        if iteration < iterations {
            // What the next iteration continues from must be exact.
            rl.dtype = Dtype::F32;
            rl.optimizer_state = true;
        }
        let reference = if has_reference { "reference" } else { "base" };
        let reference =
            (spec.kl.coefficient != 0.0).then(|| one("reference", From::Port(reference)));
        let params = update::Spec { iteration, rl };
        policy = add(Part {
            name: format!("{iteration}.update"),
            job: &Update,
            params: serde_json::to_value(params).map_err(Error::defect)?,
            inputs: [one("policy", policy), tasks, one("selected", selected)]
                .into_iter()
                .chain(base)
                .chain(reference)
                .chain(responses)
                .collect(),
            shards: 1,
            device: true,
        });
    }
    match parts.is_empty() {
        true => Err(Error::usage("curriculum: no iterations, so no rounds")),
        false => Ok(parts),
    }
}
