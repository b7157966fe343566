#!/usr/bin/env python3
"""images.py [FOLDER]: the images of infra/Dockerfile, built and run for real.

Starts a Docker daemon and an S3 server, builds both images on a Debian of debootstrap from the
programs in FOLDER (target/release), and asks of them what docs/images.md says: what they hold, and
that stages which are terminated, killed for memory, killed and restarted in containers end with the
bits of a run that nobody disturbed. Needs root, docker.io and debootstrap, reaches Debian's mirror
and nothing else; everything but .tools/ is gone afterwards.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "jobs/tiny.yaml"
# Long enough to be met in the middle.
STEPS = ["--set", "base.steps=2000"]
ACCESS, SECRET = "triad-dev", "triad-dev-secret"
# As a cluster with strict rules runs them.
HARDENED = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
COMMIT = "0123456789ab"
# Seconds until anything that is waited for counts as hanging.
PATIENCE = 300

GENERATE = """\
pipeline: many
stages:
  tasks:
    job: generate
    params:
      family: deduction
      split: train
      levels: [{level: 3, count: 3000}]
"""

CODE = """\
pipeline: code
stages:
  tasks: {job: import-tasks, params: {paths: [/jobs/own/problems.jsonl], layout: humaneval}}
  texts: {job: generate, params: {family: arithmetic, split: train, levels: [{level: 1, count: 40}]}}
  shown: {job: demonstrate, inputs: {tasks: [texts]}}
  init: {job: init, params: {vocab_size: 263, hidden_size: 16, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 32, context: 512}, inputs: {texts: shown}}
  rollouts: {job: rollout, params: {samples: 1, temperature: 1.0, max_new_tokens: 4}, inputs: {checkpoint: init, tasks: tasks}}
  verdicts: {job: verify, params: {reward: correct}, inputs: {tasks: tasks, rollouts: rollouts}}
"""
PROBLEM = {
    "task_id": "HumanEval/0", "entry_point": "twice", "canonical_solution": "    return 2 * n\n",
    "prompt": "def twice(n):\n    \"\"\"Twice n.\"\"\"\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
}

# Enters the control group whose processes the first argument lists, and takes all its memory.
HOG = """
import os, sys
open(sys.argv[1], "w").write(str(os.getpid()))
kept = []
while True:
    kept.append(b"x" * (8 << 20))
"""


def command(*words, check=True, **more):
    """Runs a program; its output, or an end of the test with what it said."""
    words = [str(word) for word in words]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, **more)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def until(what, ready):
    """Waits for `ready()` to be true, and gives that."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := ready():
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {PATIENCE} s for {what}")


def free_ports(count):
    """The first of that many ports in a row that nobody listens on."""
    for first in range(20000 + os.getpid() % 5000, 30000, count):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for offset, each in enumerate(sockets):
                each.bind(("127.0.0.1", first + offset))
            return first
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
    raise AssertionError("no free ports")


class Place:
    """The daemon, the server, and where the test's files lie."""

    def __init__(self, folder, programs):
        self.folder, self.programs = Path(folder), programs
        # Debian's, whose BuildKit needs no plugin, if there is one.
        self.docker_program = "/usr/bin/docker" if os.access("/usr/bin/docker", os.X_OK) else "docker"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "TRIAD_", "DOCKER_"))},
            "DOCKER": self.docker_program,
            "DOCKER_HOST": f"unix://{self.folder}/docker/docker.sock",
        }
        self.children = []
        self.port = free_ports(10)
        self.aws = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}", "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET,
        }
        self.secrets = self.folder / "aws.env"
        self.secrets.touch(0o600)
        self.secrets.write_text("".join(f"{k}={v}\n" for k, v in self.aws.items()))
        self.run_name = f"images-{time.time_ns():x}"
        (self.folder / "work").mkdir()

    def start(self, *words):
        child = subprocess.Popen([str(word) for word in words], cwd=ROOT, env=self.environment,
                                 stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        self.children.append(child)
        return child

    def stop(self):
        for child in reversed(self.children):
            child.terminate()
            child.wait(60)
        # A namespace for networks, which the daemon keeps.
        for line in Path("/proc/mounts").read_text().splitlines():
            if line.split()[1].startswith(f"{self.folder}/"):
                command("umount", line.split()[1])

    def docker(self, *words, **more):
        return command(self.docker_program, *words, env=self.environment, **more)

    def inspect(self, what, template):
        return self.docker("inspect", "--format", "{{json " + template + "}}", what).stdout.strip()

    def triad(self, store, *words):
        """stdout of triad outside of containers."""
        program = self.programs / "triad"
        environment = {**self.environment, **self.aws}
        return command(program, *words, "--store", store, env=environment, cwd=self.folder).stdout

    def store(self, name):
        return f"s3://triad/{self.run_name}/{name}"

    def container(self, image, store, *words, options=()):
        """Starts triad in a container, and gives the container's id."""
        return self.docker(
            "run", "--detach", *HARDENED, "--network", "host", "--env-file", self.secrets,
            "--volume", f"{TINY}:/jobs/tiny.yaml:ro", "--volume", f"{self.folder}/work:/jobs/own:ro",
            *options, image, *words, "--store", store,
        ).stdout.strip()

    def ended(self, container):
        """The exit code; the container is gone afterwards, and no log has shown the secret."""
        until("a container's end", lambda: self.inspect(container, ".State.Status") == '"exited"')
        code = int(self.inspect(container, ".State.ExitCode"))
        logs = self.docker("logs", container)
        assert SECRET not in logs.stdout + logs.stderr
        self.docker("rm", container)
        return code, logs.stdout + logs.stderr

    def finished(self, *arguments, **more):
        code, logs = self.ended(self.container(*arguments, **more))
        assert code == 0, f"{code}\n{logs}"
        return logs

    def steps(self, store, artifact):
        """How many steps are committed below an artifact that is not."""
        path = store.removeprefix("s3://")
        url = f"http://127.0.0.1:{self.port + 6}/buckets/{path}/artifacts/{artifact}/steps/?limit=9999"
        request = urllib.request.Request(url, headers={"Accept": "application/json"})
        try:
            with urllib.request.urlopen(request) as answer:
                entries = json.load(answer).get("Entries") or []
        except urllib.error.HTTPError:
            return 0
        return sum(entry["FullPath"].endswith(".json") for entry in entries)

    def midway(self, container, store, artifact):
        """Waits until a container has committed three steps more."""
        goal = self.steps(store, artifact) + 3
        def ready():
            running = self.inspect(container, ".State.Status") == '"running"'
            assert running, self.docker("logs", container).stderr
            return self.steps(store, artifact) >= goal
        until("three steps", ready)

    def manifests(self, store):
        """By id, without what differs from attempt to attempt."""
        found = {}
        for artifact in json.loads(self.triad(store, "ls", "--json")):
            manifest = json.loads(self.triad(store, "show", artifact["id"], "--json"))
            del manifest["producer"]
            for each in manifest["objects"]:
                del each["attempt"]
            found[artifact["id"]] = manifest
        return found


def what_they_hold(place):
    for target, size in [("cpu", 150e6), ("torch", 1.5e9)]:
        image = f"triad:{target}"
        found = json.loads(place.docker("image", "inspect", image).stdout)[0]
        assert found["Size"] < size, f"{image}: {found['Size']} bytes"
        config = found["Config"]
        assert config["User"] == "65532:65532", config["User"]
        assert config["Healthcheck"] == {"Test": ["NONE"]}, config["Healthcheck"]
        assert config["Entrypoint"] == ["/usr/bin/tini", "--", "/usr/bin/triad"], config["Entrypoint"]
        names = {entry.split("=")[0] for entry in config["Env"]}
        assert names <= {"PATH", "NVIDIA_DRIVER_CAPABILITIES"}, names
        labels = {name.rsplit(".", 1)[1]: value for name, value in config["Labels"].items()}
        version = place.docker("run", "--rm", "--network", "none", *HARDENED, image, "--version").stdout
        assert version == f"triad {labels['version']}\n", version
        assert labels["revision"] == COMMIT and labels["licenses"] == "Apache-2.0", labels
        print(f"     {image}: {found['Size'] / 1e6:.0f} MB", flush=True)
    container = place.docker("create", "--network", "none", "triad:cpu").stdout.strip()
    tar = f"{place.docker_program} export {container} | tar -tvf -"
    lines = command("sh", "-c", tar, env=place.environment).stdout.splitlines()
    place.docker("rm", container)
    programs = sorted(line.split()[5] for line in lines if "bin/" in line and line[0] != "d")
    assert programs == ["usr/bin/tini", "usr/bin/triad"], programs
    assert not [line for line in lines if "s" in line[:10]], "setuid"
    assert [line.split()[5] for line in lines if line[0] != "l" and line[8] == "w"] == ["tmp/"]


def a_command_that_does_not_listen_ends(place):
    """As the container's first process, triad would not get a signal that it has no handler for."""
    container = place.docker("run", "--detach", "--interactive", "--network", "none", *HARDENED,
                             "triad:cpu", "query", "--store", "/tmp/store").stdout.strip()
    time.sleep(1)
    began = time.monotonic()
    place.docker("stop", "--time", 30, container)
    code, logs = place.ended(container)
    assert code == 143 and time.monotonic() - began < 10, f"{code}\n{logs}"


def generation_is_terminated(place):
    """In `cpu`: 75, and the next container commits what a local run does."""
    (place.folder / "work/many.yaml").write_text(GENERATE)
    store, local = place.store("many"), place.folder / "many"
    place.triad(local, "run", place.folder / "work/many.yaml")
    words = ["job", "/jobs/own/many.yaml", "tasks"]
    container = place.container("triad:cpu", store, *words)
    until("its start", lambda: "started" in place.docker("logs", container).stderr)
    place.docker("stop", "--time", 60, container)
    code, logs = place.ended(container)
    assert code == 75, f"{code}\n{logs}"
    place.finished("triad:cpu", store, *words)
    assert place.manifests(store) == place.manifests(local)


def base(place, name):
    """A store with what `base` is made from, `base`'s id, and what runs it."""
    store = place.store(name)
    place.finished("triad:torch", store, "run", "/jobs/tiny.yaml", "--until", "init")
    return store, place.base, ["job", "/jobs/tiny.yaml", "base", *STEPS]


def same_base(place, store, logs):
    """What the last of several containers committed, which had not begun anew."""
    assert "continuing from a checkpoint" in logs, logs
    assert place.manifests(store)[place.base] == place.whole[place.base]


def training_is_terminated(place):
    """Twice; then the rest of the pipeline, against all of a local run."""
    store, artifact, words = base(place, "terminated")
    for _ in range(2):
        container = place.container("triad:torch", store, *words)
        place.midway(container, store, artifact)
        place.docker("stop", "--time", 60, container)
        code, logs = place.ended(container)
        assert code == 75, f"{code}\n{logs}"
    same_base(place, store, place.finished("triad:torch", store, *words))
    place.finished("triad:torch", store, "run", "/jobs/tiny.yaml", *STEPS)
    assert place.manifests(store) == place.whole


def training_is_killed_for_memory(place):
    """The kernel takes triad when the limit is met in the middle: 137, and then on."""
    store, artifact, words = base(place, "memory")
    limit = ["--memory", "640m", "--memory-swap", "640m"]
    # Of what is in the group, triad goes first.
    container = place.container("triad:torch", store, *words, options=[*limit, "--oom-score-adj", "1000"])
    place.midway(container, store, artifact)
    process = place.inspect(container, ".State.Pid")
    groups = [line.split(":") for line in Path(f"/proc/{process}/cgroup").read_text().split()]
    folder = next((f"memory{path}" for _, kind, path in groups if kind == "memory"), None)
    folder = folder or next(path.lstrip("/") for _, kind, path in groups if not kind)
    hog = place.start(sys.executable, "-c", HOG, f"/sys/fs/cgroup/{folder}/cgroup.procs")
    until("its end", lambda: place.inspect(container, ".State.Status") == '"exited"')
    hog.kill()
    assert place.inspect(container, ".State.OOMKilled") == "true"
    code, logs = place.ended(container)
    assert code == 137, f"{code}\n{logs}"
    logs = place.finished("triad:torch", store, *words, options=limit)
    same_base(place, store, logs)


def training_is_restarted(place):
    """By the daemon after a kill (`--restart`), and by hand."""
    store, artifact, words = base(place, "restarted")
    container = place.container("triad:torch", store, *words, options=["--restart", "on-failure:3"])
    place.midway(container, store, artifact)
    first = place.inspect(container, ".State.Pid")
    process = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    assert len(process) == 1, process
    before = place.steps(store, artifact)
    os.kill(int(process[0]), signal.SIGKILL)
    until("a new start", lambda: place.inspect(container, ".RestartCount") == "1")
    until("another step", lambda: place.steps(store, artifact) > before)
    place.docker("restart", "--time", 60, container)
    code, logs = place.ended(container)
    assert code == 0 and logs.count("INFO started") == 3, f"{code}\n{logs}"
    same_base(place, store, logs)


def programs_are_graded(place):
    """In `torch`, where the container may make namespaces; elsewhere a line says why not."""
    (place.folder / "work/code.yaml").write_text(CODE)
    (place.folder / "work/problems.jsonl").write_text(json.dumps(PROBLEM) + "\n")
    store = place.store("code")
    words = ["run", "/jobs/own/code.yaml"]
    code, logs = place.ended(place.container("triad:torch", store, *words))
    assert code == 64 and "user namespaces" in logs, f"{code}\n{logs}"
    place.finished("triad:torch", store, *words, options=["--security-opt", "seccomp=unconfined"])
    verdicts = json.loads(place.triad(store, "show", "code/verdicts", "--json"))
    assert verdicts["summary"]["python"].startswith("3."), verdicts["summary"]


TESTS = [
    what_they_hold, a_command_that_does_not_listen_ends, generation_is_terminated,
    training_is_terminated, training_is_killed_for_memory, training_is_restarted, programs_are_graded,
]


def main():
    programs = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/release").resolve()
    if os.geteuid() != 0:
        sys.exit("tests/images.py: a Docker daemon needs root")
    with tempfile.TemporaryDirectory(prefix="triad-images-") as folder:
        place = Place(folder, programs)
        try:
            began = time.monotonic()
            place.start("infra/dockerd.sh", place.folder / "docker")
            place.start("infra/s3-dev.sh", place.port)
            until("the Docker daemon", lambda: place.docker("version", check=False).returncode == 0)
            environment = {**place.environment, "TRIAD_COMMIT": COMMIT}
            command("infra/debian-base.sh", "debian-base", cwd=ROOT, env=environment)
            command("infra/images.sh", "--given", programs, "--network", "host",
                    "--build-arg", "BASE=debian-base", cwd=ROOT, env=environment)
            print(f"ok   built in {time.monotonic() - began:.0f} s", flush=True)
            began, local = time.monotonic(), place.folder / "whole"
            place.triad(local, "run", TINY, *STEPS)
            place.whole = place.manifests(local)
            place.base = json.loads(place.triad(local, "show", "tiny/base", "--json"))["id"]
            print(f"ok   run without containers in {time.monotonic() - began:.0f} s", flush=True)
            for test in TESTS:
                began = time.monotonic()
                test(place)
                print(f"ok   {test.__name__} in {time.monotonic() - began:.0f} s", flush=True)
        finally:
            for container in place.docker("ps", "--quiet", "--all", check=False).stdout.split():
                place.docker("rm", "--force", container, check=False)
            place.stop()
    print(f"{len(TESTS)} tests passed")


if __name__ == "__main__":
    main()
