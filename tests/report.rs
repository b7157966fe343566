//! `triad report`: the page in a browser, its tables in other formats, two runs side by side, and the
//! pipeline file that makes a run again.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::program::{failure, stdout};
use crate::scored::World;

/// The run and its page.
fn reported() -> (World, String) {
    let world = World::new();
    let said = world.triad(&["run", "scored.yaml"]);
    assert!(said.contains("Report: triad-report/scored.html"), "{said}");
    let page = std::fs::read_to_string(world.path().join("triad-report/scored.html")).unwrap();
    (world, page)
}

#[test]
fn the_same_numbers_come_in_every_format() {
    let (world, page) = reported();
    let markdown = world.triad(&["report", "scored", "--format", "markdown"]);
    let latex = world.triad(&["report", "scored", "--format", "latex"]);
    let row = markdown.lines().find(|line| line.starts_with("| good |")).unwrap();
    let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('*')).collect();
    let accuracy = cells[2].split(' ').next().unwrap();
    assert!(accuracy.parse::<f64>().is_ok_and(|share| share > 50.0), "{row}");
    assert!(latex.contains(accuracy) && page.contains(accuracy), "{accuracy}");
    assert!(row.contains('▲') && latex.contains("\\uparrow"), "{row}");
    for heading in ["Who solves what: easy, greedy", "Sampled responses", "Accuracy by level"] {
        assert!(markdown.contains(heading), "{heading} in {markdown}");
    }
    assert!(markdown.contains("maj@4") && markdown.contains("oracle ensemble"));
    // Sampled sets beside greedy ones, as in the paper's table.
    assert!(markdown.contains("pass@1, greedy; on easy avg@4 at temperature 1, top-p 0.95"));
}

#[test]
fn a_run_costs_what_its_devices_do() {
    let (world, _) = reported();
    let args = ["report", "scored", "--price", "3600", "--price", "server=7200", "--out", "a.html"];
    world.triad(&args);
    let page = std::fs::read_to_string(world.path().join("a.html")).unwrap();
    assert!(page.contains("which cost") && page.contains(">cost</th>"));
    let said = failure(world.path(), &["report", "scored", "--price", "cpu=much"]);
    assert!(said.starts_with("64: "), "{said}");
}

#[test]
fn two_runs_are_set_side_by_side() {
    let (world, _) = reported();
    let yaml = std::fs::read_to_string(world.path().join("scored.yaml")).unwrap();
    std::fs::write(
        world.path().join("other.yaml"),
        yaml.replace("pipeline: scored", "pipeline: other"),
    )
    .unwrap();
    world.triad(&["run", "other.yaml", "--set", "good.seed=5"]);
    let args = ["report", "other", "--compare", "scored", "--format", "markdown"];
    let said = world.triad(&args);
    assert!(said.contains("| good easy, sampled |"), "{said}");
    assert!(said.contains("| good | seed | 5 | 0 |"), "{said}");
    assert!(said.contains("the same artifact"), "`poor` is the same in both");
    world.triad(&["report", "other", "--compare", "scored"]);
    let page = std::fs::read_to_string(world.path().join("triad-report/other.html")).unwrap();
    assert!(page.contains("Beside the other run") && page.contains("also in scored"));
    let said = failure(world.path(), &["report", "other", "--compare", "nobody"]);
    assert!(said.contains("run `nobody` has no scores to report"), "{said}");
}

#[test]
fn the_page_holds_a_pipeline_file_with_the_same_ids() {
    let (world, page) = reported();
    let file = page.split("pipeline file</summary>").nth(1).unwrap();
    let file = file.split("<pre>").nth(1).unwrap().split("</pre>").next().unwrap();
    let unescaped = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&amp;", "&")];
    let file = unescaped.iter().fold(file.to_string(), |text, (a, b)| text.replace(a, b));
    std::fs::write(world.path().join("same.yaml"), &file).unwrap();
    let plan = stdout(world.path(), &["plan", "same.yaml", "--json"]);
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let states: Vec<_> = plan.as_array().unwrap().iter().map(|stage| &stage["state"]).collect();
    assert_eq!(states.len(), 7, "{file}");
    assert!(states.iter().all(|state| *state == "committed"), "{plan:#}\n{file}");
}

/// The browser; none is no failure where a person runs the tests without one.
fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let mut all = std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name)));
    let found = all.find(|program| program.is_file());
    assert!(found.is_some() || std::env::var_os("CI").is_none(), "no chromium");
    found
}

fn browse(browser: &Path, dir: &Path, args: &[&str]) -> (String, String) {
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
        .args(["--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND"])
        .arg(format!("--user-data-dir={}", dir.join("browser").display()))
        .args(args)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_browser_shows_the_page_on_a_phone_in_the_dark_and_on_paper() {
    let (world, page) = reported();
    let Some(browser) = browser() else {
        eprintln!("no chromium on this machine: the page is not looked at");
        return;
    };
    let script = "<script>addEventListener('load', () => {\
        const root = document.documentElement, wide = [...document.querySelectorAll('main *')].filter(e => \
          !e.closest('.scroll') && e.getBoundingClientRect().right > innerWidth + 1);\
        parent.postMessage(JSON.stringify({width: innerWidth, over: root.scrollWidth, wide: wide.length,\
          back: getComputedStyle(document.body).backgroundColor, tables: document.querySelectorAll('table').length,\
          drawn: [...document.querySelectorAll('svg')].filter(e => e.getBoundingClientRect().width > 20).length}), '*')\
        })</script></body>";
    let measured = world.path().join("measured.html");
    std::fs::write(&measured, page.replace("</body>", script)).unwrap();
    // A window is never as narrow as a phone, but a frame is. What is measured goes into the title of
    // the page around it, which comes back with the document.
    let measure = |width: u32, args: &[&str]| -> Value {
        let around = format!(
            "<!DOCTYPE html><title></title><script>addEventListener('message', e => document.title = e.data)\
             </script><iframe src=measured.html width={width} height=900 frameborder=0></iframe>"
        );
        let path = world.path().join("around.html");
        std::fs::write(&path, around).unwrap();
        let url = format!("file://{}", path.display());
        let args =
            [args, &["--window-size=1400,1000", "--virtual-time-budget=3000", "--dump-dom", &url]];
        let (document, log) = browse(&browser, world.path(), &args.concat());
        assert!(!log.contains("CONSOLE"), "{log}");
        let title = document.split("<title>").nth(1).unwrap().split("</title>").next().unwrap();
        serde_json::from_str(&title.replace("&quot;", "\""))
            .unwrap_or_else(|e| panic!("{e}: {title}"))
    };
    let desk = measure(1280, &[]);
    assert!(desk["tables"].as_u64().unwrap() > 8 && desk["drawn"].as_u64().unwrap() > 5, "{desk}");
    let phone = measure(390, &[]);
    assert_eq!(phone["width"], 390);
    for seen in [&desk, &phone] {
        assert_eq!((&seen["over"], seen["wide"].as_u64()), (&seen["width"], Some(0)), "{seen}");
    }
    let dark = measure(1280, &["--blink-settings=preferredColorScheme=0"]);
    assert_eq!(desk["back"], "rgb(251, 251, 250)");
    assert_eq!(dark["back"], "rgb(20, 23, 26)");
    let paper = world.path().join("page.pdf");
    let url = format!("file://{}", measured.display());
    let print = format!("--print-to-pdf={}", paper.display());
    browse(&browser, world.path(), &[&print, "--no-pdf-header-footer", &url]);
    let pdf = std::fs::read(paper).unwrap();
    assert!(pdf.starts_with(b"%PDF") && pdf.len() > 20_000, "{}", pdf.len());
}
