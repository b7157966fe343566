//! `demonstrate`: solver-written reasoning traces for tasks.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Arity, Context, Job, PART_ROWS, Port, parse};
use crate::dataset::{Example, Task};
use crate::entropy::Stream;
use crate::{Error, Result, task};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    #[serde(default)]
    seed: u64,
    /// Examples of a task: 1 shows it as it stands, more show it under as many random namings of
    /// its atoms or variables, in as many orders.
    #[serde(default = "one")]
    renamings: u64,
}

fn one() -> u64 {
    1
}

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
        let spec: Spec = parse(raw)?;
        if spec.renamings == 0 {
            return Err(Error::usage("`renamings` is 0; it must be at least 1"));
        }
        serde_json::to_value(spec).map_err(Error::defect)
    }

    fn run(&self, context: &mut Context) -> Result<()> {
        let spec: Spec = context.spec()?;
        let mut examples = Vec::new();
        let mut stream = Stream::new(spec.seed, "demonstrate", 0);
        for input in context.inputs("tasks") {
            for task in context.read::<Task>(&input.artifact)? {
                if spec.renamings == 1 {
                    examples.push(example(task)?);
                    continue;
                }
                for _ in 0..spec.renamings {
                    examples.push(example(task::renamed(&task, &mut stream)?)?);
                }
            }
        }
        for (part, rows) in examples.chunks(PART_ROWS).enumerate() {
            context.write(part, rows)?;
        }
        Ok(())
    }
}

fn example(task: Task) -> Result<Example> {
    let trace = task::demonstrate(&task)?;
    Ok(Example {
        response: task::response(&trace, &task.answer),
        task_id: task.task_id,
        family: task.family,
        level: task.level,
        prompt: task.prompt,
    })
}
