//! Programs that try to get out, or to use more than they may.

use super::start::User;
use super::*;
use crate::Result;

/// What this machine has: for root also the way without user namespaces.
fn sandboxes() -> Vec<Sandbox> {
    let best = Sandbox::open().unwrap();
    // SAFETY: reads a number.
    if unsafe { libc::geteuid() } != 0 {
        return vec![best];
    }
    let path = std::env::var_os("PATH").unwrap();
    vec![best, Sandbox::find(&path, &[User::Root]).unwrap()]
}

fn limits() -> Limits {
    Limits { cpu_seconds: 1, wall_seconds: 30, memory_mib: 256, output_kib: 64, threads: 8 }
}

fn run(sandbox: &Sandbox, programs: &[&str]) -> Vec<Reply> {
    let crowd = Crowd::new(sandbox, None);
    let work = |worker: &mut Worker, program: &&str| {
        worker.run(&Request { program, library: false, test: Test::Stdin("in") }, &limits())
    };
    crowd.map(programs, work, |_| Ok(())).unwrap()
}

/// What a program prints, or why it failed.
fn says(sandbox: &Sandbox, program: &str) -> String {
    let reply = &run(sandbox, &[program])[0];
    match reply.failure(&limits()) {
        Some(failure) => failure.to_string(),
        None => String::from_utf8_lossy(&reply.output).trim().to_string(),
    }
}

#[test]
fn every_limit_is_a_verdict_of_its_own() {
    let cases = [
        ("while True: pass", "time limit"),
        (
            "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
            "time limit",
        ),
        ("x = bytearray(1 << 30)", "memory limit"),
        ("x = []\nwhile True: x.append(bytes(1 << 20))", "memory limit"),
        ("import mmap; mmap.mmap(-1, 1 << 30)", "memory limit"),
        ("while True: print('x' * 1000)", "output limit"),
        ("import os\nwhile True: os.write(1, b'x' * 1000)", "output limit"),
        ("import os\nos.ftruncate(1, 1 << 40)", "output limit"),
        ("import os\nwhile True: os.fork()", "process limit"),
        ("import subprocess; subprocess.run(['/bin/true'])", "process limit"),
        (
            "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(9,), \
          daemon=True).start()",
            "process limit",
        ),
        ("def f(x): return f(x) + 1\nf(1)", "exception RecursionError"),
        ("import ctypes; ctypes.string_at(1)", "killed by SIGSEGV"),
        ("import os; os.abort()", "killed by SIGABRT"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
        ("x = 'a' * 10**6\nfor _ in range(40): x += x", "memory limit"),
    ];
    let (programs, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    for sandbox in sandboxes() {
        let replies = run(&sandbox, &programs);
        for ((program, reply), expected) in programs.iter().zip(&replies).zip(&expected) {
            let failure = reply.failure(&limits()).map(|failure| failure.to_string());
            assert_eq!(failure.as_deref(), Some(*expected), "{program} {reply:?}");
        }
    }
}

#[test]
fn a_program_that_waits_meets_the_clock() {
    let limits = Limits { wall_seconds: 1, ..limits() };
    let sandbox = Sandbox::open().unwrap();
    let programs = [
        "import time; time.sleep(60)",
        "import threading; threading.Lock().acquire(); \
                    x = threading.Lock(); x.acquire(); x.acquire()",
    ];
    let work = |worker: &mut Worker, program: &&str| {
        worker.run(&Request { program, library: false, test: Test::Stdin("") }, &limits)
    };
    for reply in Crowd::new(&sandbox, None).map(&programs, work, |_| Ok(())).unwrap() {
        assert_eq!(reply.failure(&limits), Some(Failure::Wall));
    }
}

#[test]
fn nothing_leads_out() {
    let denied = [
        "import socket; socket.socket()",
        "import socket; socket.create_connection(('127.0.0.1', 80))",
        "import os; os.kill(os.getppid(), 9)",
        "import os; os.kill(1, 9)",
        "import os; os.kill(-1, 9)",
        "import os; os.killpg(0, 9)",
        "import os; os.execv('/usr/bin/python3', ['python3', '-c', 'print(1)'])",
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (9, 9))",
        "import resource, os; resource.prlimit(os.getppid(), resource.RLIMIT_AS, (1, 1))",
        "import os; os.mkdir('/tmp/x')",
        "import os; os.symlink('/etc', '/tmp/etc')",
        "import os; os.unlink('/dev/null')",
        "import os; os.chmod('/tmp', 0o777)",
        "import os; os.memfd_create('x')",
        "import os; os.sched_setaffinity(os.getppid(), {0})",
        "import os; os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
        "import os; os.pidfd_open(os.getppid())",
        "import os; os.setuid(0)",
        "import os; os.chroot('/usr')",
        // Async I/O that makes the kernel send a signal.
        "import os, fcntl\na, b = os.pipe()\nfcntl.fcntl(a, fcntl.F_SETOWN, os.getppid())",
    ];
    // ptrace, process_vm_writev, bpf, io_uring_setup, keyctl, userfaultfd, unshare, mount, a filter
    // of its own, to be looked into by others: by number, as a program would get past a library.
    let calls = "101 311 321 425 250 323 272 165 317 434";
    let raw = format!(
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n\
         for n in map(int, '{calls}'.split()):\n    \
         assert libc.syscall(n, 0, 0, 0, 0, 0, 0) == -1 and ctypes.get_errno() == 38, n\n\
         assert libc.prctl(4, 1, 0, 0, 0) == -1\nprint('held')"
    );
    for sandbox in sandboxes() {
        for (program, reply) in denied.iter().zip(run(&sandbox, &denied)) {
            assert_eq!(reply.failure(&limits()), Some(Failure::Denied), "{program} {reply:?}");
        }
        if cfg!(target_arch = "x86_64") {
            assert_eq!(says(&sandbox, &raw), "held");
        }
    }
}

#[test]
fn there_is_nothing_to_read_and_nowhere_to_write() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    let paths = format!(
        "import os\nprint([path for path in ['/etc/passwd', '/proc', '/root', '/home', '/sys', \
         '/var', '/run', '{}', '{}'] if os.path.lexists(path)], os.listdir('/tmp'))",
        secret.path().display(),
        env!("CARGO_MANIFEST_DIR"),
    );
    let writable = "import os\nfound = []\nfor top, folders, files in os.walk('/'):\n    \
                    if top == '/usr': folders.clear()\n    \
                    for name in ['.', *files]:\n        \
                    path = os.path.join(top, name)\n        \
                    if os.access(path, os.W_OK): found.append(path)\nprint(sorted(found))";
    // Input, output, errors, and the report of the harness.
    let descriptors = "import os\nfound = []\nfor fd in range(64):\n    try:\n        \
                       os.fstat(fd)\n        found.append(fd)\n    except OSError: pass\n\
                       print(found)";
    let cases = [
        (paths.as_str(), "[] []"),
        (
            "import os\nprint(sorted(os.environ))",
            "['HOME', 'LANG', 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'PATH', 'PWD', \
             'PYTHONHASHSEED']",
        ),
        (writable, "['/dev/null', '/dev/urandom']"),
        (descriptors, "[0, 1, 2, 3]"),
        ("import os\nprint(0 in os.getresuid() + os.getresgid())", "False"),
    ];
    for sandbox in sandboxes() {
        for (program, expected) in cases {
            assert_eq!(says(&sandbox, program), expected, "{program}");
        }
        for path in ["/x", "/tmp/x", "/dev/x", "/usr/x", "/dev/shm/x"] {
            let said = says(&sandbox, &format!("open('{path}', 'w')"));
            let kinds = ["OSError", "FileNotFoundError", "PermissionError"];
            assert!(kinds.iter().any(|kind| said == format!("exception {kind}")), "{path}: {said}");
        }
    }
}

#[test]
fn what_computes_is_not_in_the_way_of_the_filter() {
    let deep = "import resource, sys, threading\n\
                resource.setrlimit(resource.RLIMIT_STACK, (1 << 26, resource.RLIM_INFINITY))\n\
                threading.stack_size(1 << 26)\nsys.setrecursionlimit(10**6)\n\
                def deep(n): return 1 + deep(n - 1) if n else 0\n\
                t = threading.Thread(target=lambda: print(deep(50000)))\nt.start()";
    let cases = [
        (
            "import asyncio\nasync def f():\n    await asyncio.sleep(.01)\n    print(5)\nasyncio.run(f())",
            "5",
        ),
        (
            "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(4) as pool:\n    \
          print(sum(pool.map(abs, range(-5, 5))))",
            "25",
        ),
        ("import dataclasses\n@dataclasses.dataclass\nclass A: x: int\nprint(A(3))", "A(x=3)"),
        (
            "import signal\ndef f(*_): print('rang')\nsignal.signal(signal.SIGALRM, f)\n\
          signal.setitimer(signal.ITIMER_REAL, .01)\nsignal.pause()",
            "rang",
        ),
        ("import sys, os\nprint(open(0).read(), os.getcwd(), sys.argv)", "in / ['program.py']"),
        (deep, "50000"),
    ];
    for (program, expected) in cases {
        assert_eq!(says(&sandboxes()[0], program), expected, "{program}");
    }
}

#[test]
fn nothing_stays_behind() {
    let programs = [
        "import threading, time\nfor _ in range(3):\n    \
         threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nprint('left')",
        "import builtins, random, sys\nrandom.seed(5)\nbuiltins.print = None\nsys.path.clear()",
        "import random, os\nprint(random.random(), {'a', 'b', 'c'}, os.listdir('/'), id(os))",
        "import random, os\nprint(random.random(), {'a', 'b', 'c'}, os.listdir('/'), id(os))",
    ];
    for sandbox in sandboxes() {
        let crowd = Crowd::new(&sandbox, Some(1));
        let work = |worker: &mut Worker, program: &&str| {
            worker.run(&Request { program, library: false, test: Test::Stdin("") }, &limits())
        };
        let first = crowd.map(&programs, work, |_| Ok(())).unwrap();
        assert_eq!(first[0].output, b"left\n");
        assert_eq!(first[2].output, first[3].output);
        if sandbox.way.fixed {
            let again = crowd.map(&programs, work, |_| Ok(())).unwrap();
            assert_eq!(first[2].output, again[2].output, "another sandbox, the same addresses");
        }
        // Its processes end with it.
        let mut session = Session::start(&sandbox, 0).unwrap();
        let short = Limits { wall_seconds: 1, ..limits() };
        let program = "import time; time.sleep(60)";
        let request = Request { program, library: false, test: Test::Stdin("") };
        assert_eq!(session.run(&request, &short).unwrap().failure(&short), Some(Failure::Wall));
        let inside = below(session.child.id());
        assert!(inside.len() > 1, "{inside:?}");
        drop(session);
        for pid in inside {
            let folder = format!("/proc/{pid}");
            assert!(!std::path::Path::new(&folder).exists(), "{pid} is still there");
        }
    }
}

/// A process and those below it.
fn below(first: u32) -> Vec<u32> {
    let mut found = vec![first];
    let mut open = vec![first];
    while let Some(pid) = open.pop() {
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = task.path().join("children");
            let children = std::fs::read_to_string(children).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                open.push(child);
                found.push(child);
            }
        }
    }
    found
}

#[test]
fn results_keep_their_order_and_a_stop_is_heard() {
    let sandbox = Sandbox::open().unwrap();
    let crowd = Crowd::new(&sandbox, Some(3));
    let programs: Vec<String> = (0..40)
        .map(|n| format!("import time; time.sleep({} / 200); print({n})", (n * 7) % 5))
        .collect();
    let work = |worker: &mut Worker, program: &String| {
        worker.run(&Request { program, library: false, test: Test::Stdin("") }, &limits())
    };
    let mut most = 0;
    let replies = crowd
        .map(&programs, work, |done| {
            most = most.max(done);
            Ok(())
        })
        .unwrap();
    assert_eq!(most, 40);
    for (n, reply) in replies.iter().enumerate() {
        assert_eq!(reply.output, format!("{n}\n").as_bytes());
    }
    let stop = |done| match done {
        0..5 => Ok(()),
        _ => Err(crate::Error::try_again("asked to stop")),
    };
    let stopped: Result<Vec<Reply>> = crowd.map(&programs, work, stop);
    assert_eq!(stopped.unwrap_err().to_string(), "asked to stop");
}

#[test]
fn without_a_sandbox_nothing_runs() {
    let empty = tempfile::tempdir().unwrap();
    let missing = Sandbox::find(empty.path().as_ref(), &[User::Own]).unwrap_err();
    assert_eq!(missing, Unavailable::Bubblewrap);
    assert!(missing.to_string().ends_with("apt-get install bubblewrap"), "{missing}");
    // A bwrap that may not make namespaces.
    let fake = empty.path().join("bwrap");
    std::fs::write(
        &fake,
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n",
    )
    .unwrap();
    let mut mode = std::fs::metadata(&fake).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
    std::fs::set_permissions(&fake, mode).unwrap();
    let refused = Sandbox::find(empty.path().as_ref(), &[User::Own]).unwrap_err().to_string();
    assert!(refused.contains("(bwrap: No permissions to create new namespace)"), "{refused}");
    assert_eq!(crate::Error::from(Unavailable::Python).exit_code(), 64);
}
