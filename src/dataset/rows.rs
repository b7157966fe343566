//! The published row types. A change of any column needs a new version and a new golden. A column
//! that is added is an `Option`: what older versions wrote reads as null.

use crate::dataset;

dataset! {
    /// One task: certified, or with a published answer.
    "tasks" v 2 struct Task {
        /// `<family>-<first 16 digits of canonical>`.
        task_id: String,
        /// `deduction`, `induction`, `abduction`, `arithmetic`; `math`, `choice`, `code`.
        family: String,
        level: u32,
        /// `train`, `validation` or `heldout`: a function of `canonical`.
        split: String,
        /// Which of the family's kinds: `unique`, `cycle`, `reachability`, …; `reference` where the
        /// answer is its publisher's.
        kind: String,
        /// How much there is to read: literals, visible terms, premises.
        size: u32,
        /// How deep the reasoning goes: nested operators, operations of the rule, rules in a row.
        depth: u32,
        /// Nodes that the reference solver visits.
        nodes: u64,
        /// `compact` or `paper`.
        style: String,
        /// The text given to the model, the opening `<think>` of certified families included.
        prompt: String,
        /// The messages of a prompt in chat form, as JSON; else empty.
        messages: String,
        /// One right answer, as a solver writes it.
        answer: String,
        /// The puzzle as JSON, for checkers.
        puzzle: String,
        /// What was proven, as JSON: method, counts, costs.
        certificate: String,
        /// Hash of the puzzle up to renaming and reordering.
        canonical: String,
    }
}

dataset! {
    /// One prompt and the response to learn from.
    "examples" v 1 struct Example {
        task_id: String,
        family: String,
        level: u32,
        prompt: String,
        response: String,
    }
}

dataset! {
    /// One sampled response.
    "rollouts" v 2 struct Rollout {
        task_id: String,
        family: String,
        level: u32,
        /// Sample number within the task's group.
        sample: u32,
        /// RL step that drew it; 0 outside RL.
        step: u32,
        /// Artifact id of the sampled checkpoint (in RL: of the run, at `step`).
        policy: String,
        prompt: String,
        response: String,
        /// Response token ids, the end token included when it was drawn.
        tokens: Vec<u32>,
        /// Log-probability of each token under the distribution it was drawn from: temperature and
        /// cuts applied. Empty where a server does not give it.
        logprobs: Vec<f32>,
        /// `end`, `text` (a stop text) or `length`.
        stop: String,
        temperature: f32,
        /// Log-probability of each token under the model: at temperature 1, without cuts. Null where
        /// a server does not give it, and in version 1.
        model_logprobs: Option<Vec<f32>>,
    }
}

dataset! {
    /// What the checker said of one rollout.
    "verdicts" v 2 struct Verdict {
        task_id: String,
        family: String,
        level: u32,
        sample: u32,
        step: u32,
        /// Exactly one think part, then exactly one answer part.
        format_ok: bool,
        /// `ok`, or what is wrong first: `missing </think>`, `repeated <answer>`, `disordered`,
        /// `outside`.
        format: String,
        /// `correct`, `wrong`, `unparsed` or `missing`.
        verdict: String,
        /// Where a wrong answer is wrong: `formula 3`, `goal C`; why one cannot be compared; else
        /// empty.
        place: String,
        correct: bool,
        reward: f32,
        /// The text in the answer part, or the answer found in the response; empty without one.
        extracted: String,
    }
}

dataset! {
    /// A response that an RL iteration learns from.
    "selected" v 1 struct Selected {
        task_id: String,
        sample: u32,
        step: u32,
        /// Its place among the iteration's responses, from 0.
        number: u32,
    }
}

dataset! {
    /// One sequence of a micro-batch whose update was rejected, and what the loss of its response
    /// is made of, token by token. Lists that the loss does not use are empty.
    "rejected" v 1 struct Rejected {
        /// Token ids.
        prompt: Vec<u32>,
        response: Vec<u32>,
        /// What the aggregation multiplies each token's loss with.
        weight: f64,
        advantages: Vec<f32>,
        /// Log-probabilities under the policy before the update, under the sampler and under the
        /// reference.
        old_logprobs: Vec<f32>,
        sampler_logprobs: Vec<f32>,
        reference_logprobs: Vec<f32>,
        /// Truncated ratios of trainer to sampler.
        ratios: Vec<f32>,
    }
}

dataset! {
    /// One number of a training run.
    "metrics" v 1 struct Metric {
        /// Optimizer step (sft) or RL iteration, from 1.
        step: u32,
        /// 0: of the whole step; else of what it drew at this level.
        level: u32,
        /// `reward`, `accuracy`, `kl`, `entropy`, `length`, `loss`, `grad_norm`, …
        name: String,
        value: f64,
    }
}

dataset! {
    /// One model's result on one task under one sampling mode.
    "scores" v 2 struct Score {
        /// Name of the task set in the pipeline.
        set: String,
        task_id: String,
        family: String,
        level: u32,
        /// Artifact id of the model.
        model: String,
        /// `greedy` (temperature 0) or `sampled`.
        mode: String,
        temperature: f32,
        /// Samples drawn and how many of them were correct.
        samples: u32,
        correct: u32,
        format_ok: u32,
        /// Mean response length in tokens.
        length: f32,
        /// Score of a majority vote among the samples' answers: 0, 1, or a share of equally frequent
        /// ones. This and what follows is null in version 1.
        majority: Option<f64>,
        /// How many of the samples reached the limit of new tokens.
        cut_off: Option<u32>,
        /// The sampler's other settings.
        top_k: Option<u64>,
        top_p: Option<f64>,
        min_p: Option<f64>,
        max_new_tokens: Option<u64>,
        seed: Option<u64>,
        /// The model's name on the server that sampled; null where none did.
        server: Option<String>,
    }
}

dataset! {
    /// One candidate of a merge search on one task set.
    "trials" v 1 struct Trial {
        /// In order of trying, from 1.
        trial: u32,
        /// Artifact id of the candidate.
        model: String,
        /// What was set: `MODEL.PARAMETER`, or `PARAMETER` of the whole.
        settings: Vec<String>,
        /// To what, in the order of `settings`.
        setting_values: Vec<f64>,
        set: String,
        /// Share of the responses to the set that are right.
        accuracy: f64,
        /// Mean accuracy over the sets: what candidates are compared by.
        score: f64,
        /// Whether it is the best so far: the first of those with the highest score.
        best: bool,
    }
}

dataset! {
    /// How far two models have gone from the same base, in one tensor, and how much they agree.
    "deltas" v 1 struct Delta {
        tensor: String,
        /// The number in the tensor's name; null outside the layers.
        layer: Option<u32>,
        /// Numbers in the tensor.
        numbers: u64,
        model: String,
        other: String,
        /// L2 norm of the base's tensor.
        base_norm: f64,
        /// L2 norm of what `model` is away from it.
        norm: f64,
        /// L2 norm of what `other` is.
        other_norm: f64,
        /// Cosine of the angle between the two; 0 where one has not moved.
        cosine: f64,
        /// Of the numbers that both have changed, the share that they changed in opposite directions.
        sign_conflict: f64,
    }
}
