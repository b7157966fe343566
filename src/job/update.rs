//! `update`: the policy update of one RL iteration, from stored responses.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rl::{self, Rl};
use super::{Arity, Context, Job, Port, parse};
use crate::{Error, Result};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// From 1.
    pub iteration: usize,
    /// The parameters of the whole.
    pub rl: rl::Spec,
}

pub struct Update;

impl Job for Update {
    fn name(&self) -> &'static str {
        "update"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[
            // With the optimizer's state beside it, from the second iteration on.
            Port { name: "policy", accepts: &["checkpoint"], arity: Arity::One },
            // The weights below the adapters, if there are some.
            Port { name: "base", accepts: &["checkpoint"], arity: Arity::Optional },
            Port { name: "reference", accepts: &["checkpoint"], arity: Arity::Optional },
            Port { name: "tasks", accepts: &["tasks"], arity: Arity::One },
            Port { name: "rollouts", accepts: &["rollouts"], arity: Arity::Many },
            Port { name: "verdicts", accepts: &["verdicts"], arity: Arity::Many },
            Port { name: "selected", accepts: &["selected"], arity: Arity::One },
        ]
    }
    fn output(&self) -> &'static str {
        "checkpoint"
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        let Spec { iteration, .. } = parse(raw)?;
        if iteration == 0 {
            return Err(Error::usage("iteration 0: at least 1 is needed"));
        }
        let mut params = raw.clone();
        params["rl"] = Rl.resolve(&raw["rl"])?;
        Ok(params)
    }
    fn computes(&self, _params: &Value) -> bool {
        true
    }
    fn run(&self, context: &mut Context) -> Result<()> {
        super::engine::ENGINE.get()?.update(context)
    }
}
