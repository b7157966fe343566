//! `triad query` as people meet it: a prompt on a terminal, scripts, files, signals.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::ptr::{null, null_mut};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use triad::store::Store;

use crate::program::{TASKS, command, failure, stdout};
use crate::s3_server::Server;

/// Rows without end, nearly.
const ENDLESS: &str = "SELECT * FROM generate_series(1, 1000000000000)";

fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("small.yaml"), TASKS).unwrap();
    stdout(dir.path(), &["run", "small.yaml"]);
    dir
}

/// `triad query` on a terminal of its own.
struct Terminal {
    child: Child,
    keys: File,
    screen: Arc<Mutex<String>>,
    /// What of the screen has been looked at.
    seen: usize,
}

impl Terminal {
    fn open(dir: &Path) -> Self {
        let (mut ours, mut theirs) = (0, 0);
        let size = libc::winsize { ws_row: 50, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: makes two open descriptors, which are owned from here on.
        let (keys, end) = unsafe {
            assert_eq!(libc::openpty(&mut ours, &mut theirs, null_mut(), null(), &size), 0);
            (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs))
        };
        let end = || Stdio::from(end.try_clone().unwrap());
        let mut command = command(dir, &["query"]);
        command.stdin(end()).stdout(end()).stderr(end());
        command.env("TERM", "xterm").env("XDG_STATE_HOME", dir.join("state"));
        // SAFETY: both calls are allowed between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut output, shown) = (keys.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The read fails once the other side is closed.
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        });
        Self { child, keys, screen, seen: 0 }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `text` appears after what was waited for last.
    fn wait(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let screen = self.screen.lock().unwrap();
            if let Some(at) = screen[self.seen..].find(text) {
                self.seen += at + text.len();
                return;
            }
            assert!(Instant::now() < deadline, "no {text:?} in {:?}", &screen[self.seen..]);
            drop(screen);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

#[test]
fn the_prompt_completes_remembers_and_stops() {
    let dir = folder();
    let mut terminal = Terminal::open(dir.path());
    terminal.wait("triad> ");
    // Completed by TAB, over two lines.
    terminal.press("SELECT count(*) + 60 AS n\rFROM tas\t;\r");
    terminal.wait("100 │");
    terminal.wait("triad> ");
    terminal.press("\\d tasks\r");
    terminal.wait("task_id");
    terminal.wait("triad> ");
    terminal.press("SELECT taskid FROM tasks;\r");
    terminal.wait("\n         ^^^^^^");
    terminal.wait("error: 1:8: no column `taskid`; did you mean `task_id`?");
    terminal.wait("triad> ");
    // Ctrl-C drops what is typed.
    terminal.press("SELECT nothing\u{3}");
    terminal.wait("triad> ");
    terminal.press("\\format ndjson\r");
    terminal.wait("triad> ");
    // And stops what runs, at once.
    terminal.press(&format!("{ENDLESS};\r"));
    terminal.wait("{\"value\":5}");
    terminal.press("\u{3}");
    terminal.wait("stopped");
    terminal.wait("triad> ");

    // A name that moves is followed.
    let store = dir.path().join("triad-store");
    let moved = async || {
        let store = Store::open(store.to_str().unwrap()).unwrap();
        let id = store.get_ref("small", "few").await.unwrap().unwrap();
        store.set_ref("small", "newer", &id).await.unwrap();
    };
    tokio::runtime::Runtime::new().unwrap().block_on(moved());
    terminal.press("SELECT count(*) AS rows_of_newer FROM newer;\r");
    terminal.wait("a name has moved");
    terminal.wait("{\"rows_of_newer\":5}");
    terminal.wait("triad> ");
    terminal.press("\u{4}");
    assert!(terminal.child.wait().unwrap().success());

    let history = std::fs::read_to_string(dir.path().join("state/triad/query_history")).unwrap();
    assert!(history.contains("rows_of_newer") && !history.contains("nothing"), "{history}");
    let mut terminal = Terminal::open(dir.path());
    terminal.wait("triad> ");
    // The last statement again.
    terminal.press("\u{1b}[A\r");
    terminal.wait("rows_of_newer ");
    terminal.wait("5 │");
    terminal.wait("triad> ");
    terminal.press("\\q\r");
    assert!(terminal.child.wait().unwrap().success());
}

fn query(dir: &Path, sql: &str, args: &[&str]) -> Output {
    let mut command = command(dir, &["query"]);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn statements_on_stdin_run_in_turn() {
    let dir = folder();
    let sql = "COPY (SELECT level, task_id FROM tasks) TO 'out' STORED AS PARQUET \
               PARTITIONED BY (level);\n\
               CREATE EXTERNAL TABLE copied STORED AS PARQUET PARTITIONED BY (level) \
               LOCATION 'out';\n\
               SELECT count(DISTINCT task_id) AS n FROM copied WHERE level = 1; SELECT ';' AS s;";
    let output = query(dir.path(), sql, &["--format", "csv"]);
    assert_eq!(text(output.stderr), "40 rows written\n");
    assert_eq!(text(output.stdout), "n\n40\ns\n;\n");
    assert!(dir.path().join("out/level=1").is_dir());

    // What comes before a mistake has run; its place is that in the whole text.
    let output = query(dir.path(), "SELECT 1 AS a;\nSELECT 2 FORM b", &["--format", "csv"]);
    assert_eq!(text(output.stdout), "a\n1\n");
    let said = text(output.stderr);
    assert!(said.starts_with("error: 2:15: Expected: end of statement, found: b"), "{said}");
    assert_eq!(output.status.code(), Some(64));

    let output = query(dir.path(), "SELECT 1; SELECT 2", &["--output", "one.csv"]);
    assert!(text(output.stderr).contains("two statements give rows"));
    assert!(!dir.path().join("one.csv").exists());
    let failed = failure(dir.path(), &["query"]);
    assert_eq!(failed, "64: error: no SQL: give it as an argument or on stdin");
}

#[test]
fn a_stopped_query_leaves_nothing_and_a_reader_that_leaves_ends_it() {
    let dir = folder();
    std::fs::write(dir.path().join("rows.csv"), "what was there").unwrap();
    let args = ["query", ENDLESS, "--output", "rows.csv"];
    let mut child = command(dir.path(), &args).stderr(Stdio::piped()).spawn().unwrap();
    let names = || {
        let entries = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    let is_part = |name: &String| name.ends_with(".part");
    let written = || {
        let part = names().into_iter().find(is_part);
        part.is_some_and(|part| std::fs::metadata(dir.path().join(part)).unwrap().len() > 0)
    };
    while !written() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    // SAFETY: a signal to a child of ours that has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(75));
    assert_eq!(text(output.stderr), "error: stopped by a signal\n");
    assert_eq!(std::fs::read_to_string(dir.path().join("rows.csv")).unwrap(), "what was there");
    assert!(!names().iter().any(is_part), "{:?}", names());

    let mut command = command(dir.path(), &["query", ENDLESS, "--format", "csv"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut start = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    assert_eq!(&start, b"value\n1\n2\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn files_in_a_bucket_are_tables_and_targets() {
    let server = Server::start();
    let dir = folder();
    let query = |sql: &str| {
        let mut command = command(dir.path(), &["query", sql, "--format", "csv", "--stats"]);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        command.env("AWS_ENDPOINT_URL", server.endpoint()).env("AWS_ALLOW_HTTP", "true");
        command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret");
        command.env("HOME", dir.path()).output().unwrap()
    };
    for (part, order) in [("a", "ASC"), ("b", "DESC")] {
        let output = query(&format!(
            "COPY (SELECT task_id FROM tasks ORDER BY task_id {order} LIMIT 5) \
             TO 's3://bucket/out/{part}.parquet'"
        ));
        assert!(text(output.stderr).starts_with("5 rows written\n"));
    }
    let output = query("SELECT count(DISTINCT task_id) AS n FROM 's3://bucket/out/*.parquet'");
    assert_eq!(text(output.stdout), "n\n10\n");
    let stats = text(output.stderr);
    let bytes = stats.split(", ").nth(2).unwrap().trim_end_matches(" bytes read");
    assert!(bytes.parse::<u64>().unwrap() > 500, "{stats}");
    let output = query(
        "CREATE EXTERNAL TABLE one STORED AS PARQUET LOCATION 's3://bucket/out/a.parquet'; \
         SELECT count(*) AS n FROM one",
    );
    assert_eq!(text(output.stdout), "n\n5\n");
    let said = text(query("SELECT * FROM 's3://bucket/gone/*.parquet'").stderr);
    assert!(said.contains("`s3://bucket/gone/*.parquet`: no such file"), "{said}");
    let said = text(query("SELECT * FROM 'gs://bucket/a.parquet'").stderr);
    assert!(said.contains("a file's URL begins with s3:// or file://"), "{said}");
}
