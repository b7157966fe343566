//! What `sbatch` gets: options, and a script that passes signals on and puts the job back into the
//! queue where trying again may help.

use std::time::Duration;

use super::Site;
use crate::order::{Order, Task};
use crate::scheduler::Job;

/// How long a process looks for inputs that jobs before it committed: a shared folder may show them
/// late. Then it leaves with 75.
const WAIT: &str = "2m";

/// A job's name: which pipeline and stage for people, and what tells it from all others.
pub fn name(order: &Order, task: &Task) -> String {
    let plain = |text: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        text.chars().take(64).map(|c| if plain(c) { c } else { '-' }).collect::<String>()
    };
    format!("triad:{}:{}:{}", plain(&order.pipeline), plain(&task.stage), order.mark(task))
}

/// The name of a task's log.
pub fn log(job: &str, index: Option<u32>) -> String {
    match index {
        Some(index) => format!("{job}_{index}.log"),
        None => format!("{job}.log"),
    }
}

/// The arguments of `sbatch`, and the script.
pub fn submission(order: &Order, task: &Task, after: &[Job], site: &Site) -> (Vec<String>, String) {
    let array = task.shards > 1;
    // `%` begins a pattern there.
    let logs = site.logs.to_string_lossy().replace('%', "%%");
    // A second job for the same artifact waits until the first has ended, and finds it committed.
    let after: String = after.iter().map(|job| format!(":{}", job.name)).collect();
    let after = if after.is_empty() { after } else { format!("afterok{after},") };
    let mut arguments = vec![
        "--parsable".into(),
        format!("--job-name={}", name(order, task)),
        format!("--comment={}", task.artifact),
        format!("--output={logs}/{}", if array { "%A_%a.log" } else { "%j.log" }),
        "--open-mode=append".into(),
        "--requeue".into(),
        format!("--dependency={after}singleton"),
        "--kill-on-invalid-dep=yes".into(),
        "--nodes=1".into(),
        "--ntasks=1".into(),
    ];
    if array {
        arguments.push(format!("--array=0-{}", task.shards - 1));
    }
    let wants = task.resources;
    if wants.gpus > 0 {
        arguments.push(format!("--gres=gpu:{}", wants.gpus));
    }
    arguments.extend(wants.cpus.map(|cpus| format!("--cpus-per-task={cpus}")));
    arguments.extend(wants.memory.map(|bytes| format!("--mem={}M", bytes.div_ceil(1 << 20))));
    arguments.extend(wants.time.map(|time| format!("--time={}", minutes(time))));
    let grace = site.grace.min(wants.time.map_or(Duration::MAX, |time| time / 2)).as_secs();
    arguments.push(format!("--signal=B:TERM@{}", grace.clamp(1, 65535)));
    arguments.extend(site.partition.iter().map(|name| format!("--partition={name}")));
    arguments.extend(site.account.iter().map(|name| format!("--account={name}")));
    arguments.extend(site.options.iter().cloned());
    (arguments, script(order, task, site))
}

fn minutes(time: Duration) -> u64 {
    time.as_secs().div_ceil(60).max(1)
}

/// `SIGTERM` reaches the batch shell alone when Slurm warns of a time limit or a preemption, and the
/// shell and triad when it ends the job; triad takes a second one for the first. A job that is being
/// cancelled is not running any more, and must not come back.
fn script(order: &Order, task: &Task, site: &Site) -> String {
    let mut arguments = order.arguments(task);
    arguments.extend(["--wait".into(), WAIT.into()]);
    let arguments: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
    format!(
        r#"#!/bin/bash
child= stopped= code=0
stop() {{
    stopped=1
    [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || :
}}
trap stop TERM
echo {what} "on $(hostname), job $SLURM_JOB_ID, restart ${{SLURM_RESTART_COUNT:-0}}"
{setup}
{program} {arguments} &
child=$!
[ -z "$stopped" ] || stop
wait "$child" && code=0 || code=$?
while [ -n "$stopped" ]; do
    stopped=
    wait "$child" && again=0 || again=$?
    [ "$again" = 127 ] || code=$again
done
id=$SLURM_JOB_ID
[ -z "${{SLURM_ARRAY_JOB_ID:-}}" ] || id=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID
case $code in
75 | 143)
    if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {requeues} ] &&
        [ "$(squeue --noheader --jobs="$id" --format=%T)" = RUNNING ]; then
        echo "left with $code: back into the queue"
        scontrol requeue "$id" || :
    fi
    ;;
esac
exit "$code"
"#,
        what = quoted(&format!("{}/{}", order.pipeline, task.stage)),
        setup = site.setup.trim_end(),
        program = site.program.as_deref().unwrap_or("triad"),
        arguments = arguments.join(" "),
        requeues = site.requeues,
    )
}

/// One word of shell.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Resources;

    fn order() -> Order {
        let task = Task {
            stage: "deduction.1.draw".into(),
            job: "draw".into(),
            artifact: "0123456789abcdef0123456789abcdef".into(),
            after: Vec::new(),
            shards: 1,
            computes: true,
            resources: Resources::default(),
        };
        let (source, store) = ("store:abc".into(), "s3://bucket/it's here".into());
        Order { pipeline: "quick start".into(), source, store, tasks: vec![task] }
    }

    fn site() -> Site {
        Site { logs: "/shared/50%/logs".into(), ..Site::default() }
    }

    #[test]
    fn a_shell_reads_what_was_meant() {
        for text in ["", "a b", "it's", "$HOME `id` \"x\" \\ *", "line\nend", "größe", "-x", "~"]
        {
            let shell = format!("printf %s {}", quoted(text));
            let said = std::process::Command::new("sh").args(["-c", &shell]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&said.stdout), text, "{shell}");
        }
        assert_eq!(quoted("--store=s3://a/b"), "--store=s3://a/b");
    }

    #[test]
    fn resources_become_options() {
        let mut order = order();
        let (plain, _) = submission(&order, &order.tasks[0], &[], &site());
        assert_eq!(
            plain,
            [
                "--parsable",
                "--job-name=triad:quick-start:deduction.1.draw:0123456789ab-a9256b9f",
                "--comment=0123456789abcdef0123456789abcdef",
                "--output=/shared/50%%/logs/%j.log",
                "--open-mode=append",
                "--requeue",
                "--dependency=singleton",
                "--kill-on-invalid-dep=yes",
                "--nodes=1",
                "--ntasks=1",
                "--signal=B:TERM@300",
            ]
        );
        order.tasks[0].shards = 4;
        order.tasks[0].resources = Resources {
            gpus: 2,
            cpus: Some(8),
            memory: Some(16_000_000_000),
            time: Some(Duration::from_secs(90)),
        };
        let site = Site {
            partition: Some("gpu".into()),
            account: Some("us".into()),
            options: vec!["--qos=low".into()],
            ..site()
        };
        let after = ["7", "8"].map(|name| Job { name: name.into() });
        let (full, _) = submission(&order, &order.tasks[0], &after, &site);
        for option in [
            "--output=/shared/50%%/logs/%A_%a.log",
            "--dependency=afterok:7:8,singleton",
            "--array=0-3",
            "--gres=gpu:2",
            "--cpus-per-task=8",
            "--mem=15259M",
            "--time=2",
            "--signal=B:TERM@45",
            "--partition=gpu",
            "--account=us",
        ] {
            assert!(full.iter().any(|found| found == option), "{option} in {full:?}");
        }
        assert_eq!(full.last().unwrap(), "--qos=low");
    }

    #[test]
    fn the_script_is_shell_and_holds_every_argument() {
        let mut order = order();
        order.tasks[0].shards = 4;
        let (_, text) = submission(&order, &order.tasks[0], &[], &site());
        let program = "triad job store:abc deduction.1.draw --store 's3://bucket/it'\\''s here' \
                       --shards 4 --wait 2m &";
        assert!(text.contains(program), "{text}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &text).unwrap();
        let bash = std::process::Command::new("bash").arg("-n").arg(file.path()).output().unwrap();
        assert!(bash.status.success(), "{}", String::from_utf8_lossy(&bash.stderr));
    }
}
