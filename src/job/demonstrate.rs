//! `demonstrate`: solver-written reasoning traces for tasks.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Arity, Context, Job, PART_ROWS, Port, resolve_as};
use crate::dataset::{Example, Task};
use crate::{Result, task};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {}

pub struct Demonstrate;

impl Job for Demonstrate {
    fn name(&self) -> &'static str {
        "demonstrate"
    }
    fn version(&self) -> u32 {
        1
    }
    fn ports(&self) -> &'static [Port] {
        &[Port { name: "tasks", accepts: &["tasks"], arity: Arity::Many }]
    }
    fn output(&self) -> &'static str {
        "examples"
    }
    fn resolve(&self, raw: &Value) -> Result<Value> {
        resolve_as::<Spec>(raw)
    }

    fn run(&self, context: &mut Context) -> Result<()> {
        let mut examples = Vec::new();
        for input in context.inputs("tasks") {
            for task in context.read::<Task>(&input.artifact)? {
                let trace = task::demonstrate(&task)?;
                examples.push(Example {
                    response: task::response(&trace, &task.answer),
                    task_id: task.task_id,
                    family: task.family,
                    level: task.level,
                    prompt: task.prompt,
                });
            }
        }
        for (part, rows) in examples.chunks(PART_ROWS).enumerate() {
            context.write(part, rows)?;
        }
        Ok(())
    }
}
