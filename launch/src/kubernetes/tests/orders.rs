//! Orders and sites to test with: fixed ones, and any that a pipeline can come to.

use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use crate::kubernetes::{Images, Site, Toleration};
use crate::order::{Order, Resources, Task};

pub fn site() -> Site {
    Site {
        images: Images { cpu: "registry/triad:cpu".into(), torch: "registry/triad:torch".into() },
        ..Site::default()
    }
}

pub fn task(stage: &str, artifact: &str) -> Task {
    Task {
        stage: stage.into(),
        job: "filter".into(),
        artifact: artifact.into(),
        after: Vec::new(),
        shards: 1,
        computes: false,
        resources: Resources::default(),
    }
}

/// Tasks, a filter of each shard, after all: what a pipeline has.
pub fn order() -> Order {
    let id = |n: u32| format!("{n:08x}{:024x}", 7 * n);
    let gpu = Resources {
        gpus: 1,
        cpus: Some(8),
        memory: Some(64 << 30),
        time: Some(Duration::from_secs(7200)),
    };
    Order {
        pipeline: "quickstart".into(),
        source: "store:0123abcd".into(),
        store: "s3://bucket/prefix".into(),
        tasks: vec![
            Task { job: "generate".into(), ..task("deduction.1.tasks", &id(1)) },
            Task {
                job: "rollout".into(),
                after: vec![0],
                shards: 4,
                computes: true,
                resources: gpu,
                ..task("deduction.1.draw", &id(2))
            },
            Task { after: vec![1], ..task("examples", &id(3)) },
        ],
    }
}

prop_compose! {
    fn any_resources()(
        gpus in 0u32..9,
        cpus in option::of(1u32..257),
        memory in option::of(1u64..1 << 44),
        time in option::of((0u64..1 << 40).prop_map(Duration::from_millis)),
    ) -> Resources {
        Resources { gpus, cpus, memory, time }
    }
}

prop_compose! {
    fn any_task()(
        stage in ".{1,90}",
        job in "[a-z]{1,12}(-[a-z]{1,12})?",
        artifact in "[0-9a-f]{32}",
        shards in prop_oneof![Just(1u32), 2u32..40, Just(100_000)],
        computes: bool,
        resources in any_resources(),
    ) -> Task {
        Task { stage, job, artifact, after: Vec::new(), shards, computes, resources }
    }
}

prop_compose! {
    /// Names are whatever YAML has; each task may come after any before it.
    pub fn any_order()(
        pipeline in ".{0,200}",
        source in "store:[0-9a-f]{64}",
        store in "(s3|gs|file)://[a-z$(){}/.-]{1,80}",
        tasks in vec((any_task(), any::<u64>()), 1..6),
    ) -> Order {
        let tasks = tasks.into_iter().enumerate().map(|(at, (task, bits))| Task {
            after: (0..at).filter(|before| bits >> before & 1 == 1).collect(),
            ..task
        });
        Order { pipeline, source, store, tasks: tasks.collect() }
    }
}

prop_compose! {
    pub fn any_site()(
        namespace in option::of("[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?"),
        service_account in option::of("[a-z0-9]{1,10}(\\.[a-z0-9]{1,10})?"),
        queue in option::of("[a-z]{1,20}"),
        node_selector in btree_map("[a-z]{1,9}/[a-z]{1,9}", "[A-Za-z0-9]{0,12}", 0..3),
        environment in btree_map("[A-Z_]{1,9}", ".{0,40}", 0..3),
        secrets in vec("[a-z0-9]{1,12}", 0..3),
        retries in 0u32..20,
        seconds in (1u64..1 << 20, 0u64..1 << 20),
        scratch in option::of("[1-9][0-9]{0,3}(Gi|M|)"),
        tolerated: bool,
    ) -> Site {
        let toleration =
            Toleration { key: Some("spot".into()), operator: Some("Exists".into()), ..Toleration::default() };
        Site {
            namespace, service_account, queue, secrets, retries, scratch,
            gpu_node_selector: node_selector.clone(),
            node_selector,
            environment: environment.into_iter().filter(|(name, _)| plain(name)).collect(),
            tolerations: tolerated.then_some(toleration).into_iter().collect(),
            grace: Duration::from_secs(seconds.0),
            ttl: Duration::from_secs(seconds.1),
            ..site()
        }
    }
}

/// Not what a site refuses.
fn plain(name: &str) -> bool {
    !["SECRET", "TOKEN", "PASSWORD", "KEY"].iter().any(|word| name.contains(word))
}
