//! What strangers may hand in: refused with a clear word, nothing read outside, no memory beyond
//! 256 MB.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use triad::checkpoint::{Checkpoint, decode_safetensors};
use triad::dataset::{Metric, encode_parquet, read_batches};
use triad::entropy::Stream;
use triad::job;
use triad::pipeline::Pipeline;
use triad::{Error, Result};

use crate::program::{failure, stdout};

/// The system's allocator, with each thread's bytes counted.
pub struct Counting;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(more: isize) {
    NOW.with(|now| {
        now.set(now.get() + more);
        PEAK.with(|peak| peak.set(peak.get().max(now.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

const MOST: isize = 256 << 20;

/// What `work` gives, and that this thread never held 256 MB more for it.
fn bounded<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let before = NOW.get();
    PEAK.set(before);
    let done = work();
    let taken = PEAK.get() - before;
    assert!(taken < MOST, "{what}: {taken} bytes");
    done
}

fn refused<T>(what: &str, said: &str, work: impl FnOnce() -> Result<T>) {
    let error = bounded(what, work).map(drop).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Data(_) | Error::Usage(_)), "{what}: {text}");
    assert!(text.contains(said) && !text.contains('\n'), "{what}: {text}");
}

/// A safetensors file of this header and some bytes.
fn safetensors(header: &str, data: usize) -> Bytes {
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &vec![0; data]].concat().into()
}

#[test]
fn safetensors_headers() {
    let tensor = |shape: &str, from: &str, to: &str| {
        format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let one = |shape: &str, from: &str, to: &str| format!(r#"{{"a":{}}}"#, tensor(shape, from, to));
    let two = |from: &str| {
        format!(r#"{{"a":{},"b":{}}}"#, tensor("[2]", "0", "8"), tensor("[2]", from, "12"))
    };
    let good = decode_safetensors(safetensors(&one("[2]", "0", "8"), 8)).unwrap();
    assert_eq!(good["a"].len(), 2);
    for (what, header, data) in [
        ("overlapping", two("4"), 12),
        ("with a gap", two("9"), 17),
        ("negative", one("[2]", "-8", "8"), 8),
        ("backwards", one("[2]", "8", "0"), 8),
        ("beyond the end", one("[2]", "0", "800"), 8),
        ("huge offsets", one("[2]", "0", "18446744073709551615"), 8),
        ("a shape that overflows", one("[4294967296,4294967296,2]", "0", "8"), 8),
        ("a negative shape", one("[-2]", "0", "8"), 8),
        ("too short for its shape", one("[3]", "0", "8"), 8),
        ("no JSON", "{".repeat(10_000), 8),
        ("nested", format!("{{\"a\":{}", "[".repeat(100_000)), 8),
        ("no object", "[]".into(), 8),
    ] {
        refused(what, "is broken", || decode_safetensors(safetensors(&header, data)));
    }
    for length in [u64::MAX, 1 << 62, 100_000_000, 9 << 20, 9] {
        let file = [&length.to_le_bytes()[..], b"{}"].concat();
        refused("a header's length", "is broken", || decode_safetensors(file.into()));
    }
    let many: Vec<_> =
        (0..200_000).map(|i| format!("\"{i}\":{}", tensor("[0]", "0", "0"))).collect();
    refused("many tensors", "is broken", || {
        decode_safetensors(safetensors(&format!("{{{}}}", many.join(",")), 0))
    });
}

#[test]
fn indexes_lead_nowhere() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/seedling");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret.safetensors"), b"secret").unwrap();
    let folder = dir.path().join("model");
    std::fs::create_dir(&folder).unwrap();
    for entry in std::fs::read_dir(model).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
    }
    let secret = dir.path().join("secret.safetensors").display().to_string();
    for name in ["../secret.safetensors", &secret, "a/../../secret.safetensors", "..", "", "a\0b"] {
        let index = serde_json::json!({"weight_map": {"model.norm.weight": name}});
        std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
        refused(name, "is no name of a file beside it", || Checkpoint::from_folder(&folder));
    }
    let file = std::fs::File::create(folder.join("tokenizer.json")).unwrap();
    file.set_len(1 << 40).unwrap();
    refused("a giant file", "1099511627776 bytes, more than", || Checkpoint::from_folder(&folder));
}

fn strings(times: usize, rows: usize, length: usize, dictionary: bool) -> Bytes {
    let value = "x".repeat(length);
    let column: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|_| &value)));
    let batch = RecordBatch::try_from_iter([("text", column)]).unwrap();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(dictionary)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    for _ in 0..times {
        writer.write(&batch).unwrap();
    }
    writer.close().unwrap();
    bytes.into()
}

#[test]
fn parquet_bombs() {
    let read = |bytes: Bytes| read_batches(bytes, "file", None);
    // Files of kilobytes: 70 MB in one page, and a word repeated to 400 MB.
    let page = strings(1, 1, 70 << 20, false);
    refused("a giant page", "a page of", || read(page));
    let word = strings(40, 10_000, 1000, true);
    assert!(word.len() < 1 << 20);
    refused("a word repeated", "its rows take more than", || read(word));
}

#[test]
fn parquet_footers() {
    let rows: Vec<_> = (0..100)
        .map(|step| Metric { step, level: 1, name: format!("m{}", step % 3), value: 0.5 })
        .collect();
    let good = encode_parquet(&rows).unwrap();
    assert_eq!(read_batches(good.clone(), "file", None).unwrap()[0].num_rows(), 100);
    let tail = |length: u32| {
        let mut bytes = good.to_vec();
        let at = bytes.len() - 8;
        bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        Bytes::from(bytes)
    };
    for length in [0, 1, 1 << 20, u32::MAX] {
        refused("a footer's length", "no readable Parquet", || {
            read_batches(tail(length), "file", None)
        });
    }
    // A list of 2^31 elements where the schema should be.
    let footer = [0x15, 0x02, 0x19, 0xfc, 0x80, 0x80, 0x80, 0x80, 0x08, 0x00];
    let file = [b"PAR1", &footer[..], &(footer.len() as u32).to_le_bytes(), b"PAR1"].concat();
    refused("a giant list", "too many elements", || read_batches(file.into(), "file", None));
    // Whatever changes: an answer in bounded memory, wrong or refused.
    let mut stream = Stream::new(7, "parquet", 0);
    for turn in 0..3000 {
        let mut bytes = good.to_vec();
        for _ in 0..=stream.below(3) {
            let at = match stream.chance(0.7) {
                true => bytes.len() - 1 - stream.below(bytes.len() / 2),
                false => stream.below(bytes.len()),
            };
            bytes[at] = stream.next_u64() as u8;
        }
        let read = bounded(&format!("turn {turn}"), || read_batches(bytes.into(), "file", None));
        if let Err(error) = read {
            assert_eq!(error.exit_code(), 65, "turn {turn}: {error}");
        }
    }
}

#[test]
fn pipelines_of_yaml_bombs() {
    let parse = |text: &str| Pipeline::parse("bomb", text, &[], job::kinds());
    let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_string();
    for i in 1..12 {
        let ten = vec![format!("*a{}", i - 1); 10].join(", ");
        laughs += &format!("a{i}: &a{i} [{ten}]\n");
    }
    refused("laughs", "bomb", || parse(&laughs));
    refused("depth", "bomb", || parse(&format!("stages: {}", "[".repeat(100_000))));
    refused("a list in a list", "bomb", || parse(&format!("stages:{}", "\n- ".repeat(50_000))));
    refused("keys", "bomb", || {
        let keys: String = (0..400_000).map(|i| format!("k{i}: 0\n")).collect();
        parse(&keys)
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("large.yaml"), "#".repeat(2 << 20)).unwrap();
    let said = failure(dir.path(), &["plan", "large.yaml"]);
    assert!(said.starts_with("64: ") && said.contains("more than 1048576 bytes"), "{said}");
    let endless =
        "pipeline: x\nstages:\n  a:\n    job: filter\n    params: {sql: !file /dev/zero}\n";
    std::fs::write(dir.path().join("endless.yaml"), endless).unwrap();
    let said = failure(dir.path(), &["plan", "endless.yaml"]);
    assert!(said.starts_with("64: ") && said.contains("more than 1048576 bytes"), "{said}");
}

/// A manifest may say anything of where its objects lie.
#[test]
fn manifests_that_lead_out_of_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = "pipeline: small\nstages:\n  tasks:\n    job: generate\n    params: {family: \
                arithmetic, split: train, levels: [{level: 1, count: 5}]}\n";
    std::fs::write(dir.path().join("small.yaml"), yaml).unwrap();
    std::fs::write(dir.path().join("secret"), b"secret").unwrap();
    stdout(dir.path(), &["run", "small.yaml"]);
    let list = stdout(dir.path(), &["ls", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let id = list[0]["id"].as_str().unwrap();
    let path = dir.path().join("triad-store/artifacts").join(id).join("manifest.json");
    let good = std::fs::read_to_string(&path).unwrap();
    for (field, value) in [
        ("path", "../../../../../secret"),
        ("path", "/etc/passwd"),
        ("path", ""),
        ("attempt", "../../../.."),
    ] {
        let mut manifest: serde_json::Value = serde_json::from_str(&good).unwrap();
        manifest.as_object_mut().unwrap().remove("digest");
        manifest["objects"][0][field] = value.into();
        std::fs::write(&path, manifest.to_string()).unwrap();
        let said = failure(dir.path(), &["get", "tasks", "out"]);
        assert!(said.starts_with("65: "), "{field} {value}: {said}");
        assert!(!dir.path().join("out/secret").exists());
    }
    for text in ["[".repeat(1 << 20), "0".repeat(9 << 20), "null".into(), String::new()] {
        std::fs::write(&path, text).unwrap();
        let said = failure(dir.path(), &["show", "tasks"]);
        assert!(said.starts_with("65: ") && said.contains("manifest.json"), "{said}");
    }
}
