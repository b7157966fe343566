//! Checkpoints as tables of their tensors.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{
    ArrayRef, Float64Array, ListBuilder, RecordBatch, RecordBatchOptions, StringArray, UInt64Array,
    UInt64Builder,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::StreamExt;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::Error;
use crate::checkpoint::{Dtype, Folder, LazyTensor, tensors_of};
use crate::store::{Artifact, Manifest, ObjectEntry};

/// The dataset's name, and the kind of artifact that has it.
pub(super) const DATASET: &str = "tensors";
const KIND: &str = "checkpoint";

/// The columns that need the numbers; the others stand in a file's header.
const MEASURED: [&str; 4] = ["norm", "mean", "max_abs", "sparsity"];

/// The weights of a checkpoint: the safetensors files of the folder itself, not the optimizer's.
pub(super) fn files(manifest: &Manifest) -> impl Iterator<Item = &ObjectEntry> {
    let here = |path: &str| path.ends_with(".safetensors") && !path.contains('/');
    manifest.objects.iter().filter(move |entry| manifest.kind == KIND && here(&entry.path))
}

/// Whether an artifact is a table of tensors.
pub(super) fn has(manifest: &Manifest) -> bool {
    files(manifest).next().is_some() && !manifest.datasets.contains_key(DATASET)
}

/// The table, for a checkpoint.
pub(super) fn table(artifact: &Artifact) -> Option<Arc<dyn TableProvider>> {
    let table = || Tensors { artifact: artifact.clone(), schema: schema() };
    has(&artifact.manifest).then(|| Arc::new(table()) as _)
}

fn schema() -> SchemaRef {
    let shape = DataType::new_list(DataType::UInt64, true);
    let known = [
        ("file", DataType::Utf8),
        ("name", DataType::Utf8),
        ("dtype", DataType::Utf8),
        ("shape", shape),
        ("elements", DataType::UInt64),
        ("bytes", DataType::UInt64),
    ];
    let known = known.map(|(name, of)| Field::new(name, of, false));
    // An empty tensor has no mean.
    let measured = MEASURED.map(|name| Field::new(name, DataType::Float64, true));
    Arc::new(Schema::new(known.into_iter().chain(measured).collect::<Vec<_>>()))
}

#[derive(Debug)]
struct Tensors {
    artifact: Artifact,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for Tensors {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = datafusion::physical_plan::project_schema(&self.schema, projection)?;
        let scan = Scan { artifact: self.artifact.clone(), schema: schema.clone() };
        let parts: Vec<Arc<dyn PartitionStream>> = vec![Arc::new(scan)];
        Ok(Arc::new(StreamingTableExec::try_new(schema, parts, None, [], false, limit)?))
    }
}

/// Reads one file after the other.
#[derive(Debug)]
struct Scan {
    artifact: Artifact,
    /// Of the columns asked for.
    schema: SchemaRef,
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let files: Vec<ObjectEntry> = files(&self.artifact.manifest).cloned().collect();
        let (artifact, schema) = (self.artifact.clone(), self.schema.clone());
        let batches = futures::stream::iter(files).then(move |entry| {
            let (artifact, schema) = (artifact.clone(), schema.clone());
            async move {
                let read = spawn_blocking(move || rows(artifact, &entry, schema)).await;
                let external = |e: Error| DataFusionError::External(Box::new(e));
                read.map_err(|e| external(Error::defect(e)))?.map_err(external)
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches))
    }
}

/// One file's tensors, in order of name. Blocks.
fn rows(artifact: Artifact, entry: &ObjectEntry, schema: SchemaRef) -> crate::Result<RecordBatch> {
    let runtime = Handle::current();
    let folder = Folder::Artifact(Box::new(artifact.clone()), runtime.clone());
    let tensors = tensors_of(&folder, &entry.path)?;
    let asked = |name: &str| schema.fields().iter().any(|field| field.name() == name);
    let mut measured = Measure::new(&tensors);
    if MEASURED.iter().any(|name| asked(name)) {
        let take = |at: u64, bytes: &[u8]| measured.take(at, bytes);
        runtime.block_on(artifact.store.scan_entry(&artifact.manifest.id, entry, take))?;
    }
    let sums = measured.by_name();
    let count = |of: fn(&LazyTensor) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(tensors.values().map(of)))
    };
    let number = |of: fn(&Sums) -> Option<f64>| -> ArrayRef {
        Arc::new(sums.iter().map(of).collect::<Float64Array>())
    };
    let text = |of: fn(Dtype) -> &'static str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(tensors.values().map(|tensor| of(tensor.dtype))))
    };
    let column = |name: &str| -> crate::Result<ArrayRef> {
        Ok(match name {
            "file" => Arc::new(StringArray::from(vec![entry.path.as_str(); tensors.len()])),
            "name" => Arc::new(StringArray::from_iter_values(tensors.keys())),
            "dtype" => text(Dtype::safetensors_name),
            "shape" => {
                let mut shapes = ListBuilder::new(UInt64Builder::new());
                for tensor in tensors.values() {
                    let shape = tensor.shape.iter().map(|length| Some(*length as u64));
                    shapes.append_value(shape);
                }
                Arc::new(shapes.finish())
            }
            "elements" => count(|tensor| tensor.len() as u64),
            "bytes" => count(LazyTensor::bytes),
            "norm" => number(|sums| Some(sums.squares.sqrt())),
            "mean" => number(|sums| sums.share(sums.sum)),
            "max_abs" => number(|sums| (sums.count > 0).then_some(sums.largest)),
            "sparsity" => number(|sums| sums.share(sums.zeros as f64)),
            other => return Err(Error::defect(format!("no column `{other}` of tensors"))),
        })
    };
    let columns = schema.fields().iter().map(|field| column(field.name()));
    let columns = columns.collect::<crate::Result<Vec<_>>>()?;
    // `count(*)` asks for no column.
    let rows = RecordBatchOptions::new().with_row_count(Some(tensors.len()));
    RecordBatch::try_new_with_options(schema, columns, &rows).map_err(Error::defect)
}

/// What is added up of a tensor's numbers.
#[derive(Debug, Clone, Default)]
struct Sums {
    count: u64,
    zeros: u64,
    sum: f64,
    squares: f64,
    largest: f64,
}

impl Sums {
    fn add(&mut self, numbers: &[f32]) {
        for &number in numbers {
            let number = f64::from(number);
            self.zeros += u64::from(number == 0.0);
            self.sum += number;
            self.squares += number * number;
            // What is no number stays.
            if number.abs() > self.largest || number.is_nan() {
                self.largest = number.abs();
            }
        }
        self.count += numbers.len() as u64;
    }

    fn share(&self, of: f64) -> Option<f64> {
        (self.count > 0).then(|| of / self.count as f64)
    }
}

/// Adds up the tensors of a file as its bytes come by, in order.
struct Measure {
    /// In order of place: where a tensor begins and ends, what it holds, its place by name.
    tensors: Vec<(u64, u64, Dtype, usize)>,
    sums: Vec<Sums>,
    /// The tensor that comes next.
    next: usize,
    /// Bytes of a number that is cut.
    cut: Vec<u8>,
}

impl Measure {
    fn new(tensors: &BTreeMap<String, LazyTensor>) -> Self {
        let place = |(index, tensor): (usize, &LazyTensor)| {
            (tensor.offset, tensor.offset + tensor.bytes(), tensor.dtype, index)
        };
        let mut places: Vec<_> = tensors.values().enumerate().map(place).collect();
        places.sort_by_key(|(from, to, ..)| (*from, *to));
        Self {
            tensors: places,
            sums: vec![Sums::default(); tensors.len()],
            next: 0,
            cut: Vec::new(),
        }
    }

    /// `bytes` of the file from `at` on. From 0, all begins anew.
    fn take(&mut self, at: u64, bytes: &[u8]) {
        if at == 0 {
            (self.next, self.cut) = (0, Vec::new());
            self.sums.fill(Sums::default());
        }
        let end = at + bytes.len() as u64;
        while let Some(&(from, to, dtype, index)) = self.tensors.get(self.next) {
            let (first, last) = (from.max(at), to.min(end));
            if first < last {
                let sums = &mut self.sums[index];
                let mut inside = &bytes[(first - at) as usize..(last - at) as usize];
                let size = dtype.size();
                if !self.cut.is_empty() {
                    let (rest, after) = inside.split_at(inside.len().min(size - self.cut.len()));
                    self.cut.extend_from_slice(rest);
                    inside = after;
                    if self.cut.len() == size {
                        sums.add(&dtype.to_f32(&self.cut));
                        self.cut.clear();
                    }
                }
                let (whole, rest) = inside.split_at(inside.len() / size * size);
                sums.add(&dtype.to_f32(whole));
                self.cut.extend_from_slice(rest);
            }
            if to > end {
                return;
            }
            self.next += 1;
        }
    }

    /// In order of name.
    fn by_name(self) -> Vec<Sums> {
        self.sums
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkpoint::{HostTensor, Weights, encode_safetensors};
    use crate::id::ArtifactId;
    use crate::query::{Outcome, Session};
    use crate::store::{Attempt, Producer, Store};

    /// A checkpoint of two files, the second larger than what is read whole.
    async fn checkpoint(store: &Store) -> ArtifactId {
        let identity = json!({"job": "toy", "version": 1, "params": {}, "inputs": {}});
        let id = ArtifactId::of(&identity);
        let mut attempt = Attempt::new(store, &id);
        let ramp: Vec<f32> = (0..3_000_000).map(|i| if i % 4 == 0 { 0.0 } else { -2.0 }).collect();
        let small = Weights::from([
            ("b".into(), HostTensor::from_f32([2, 2], &[3.0, 0.0, -4.0, 0.0], Dtype::Bf16)),
            ("a".into(), HostTensor::from_f32([0], &[], Dtype::F32)),
        ]);
        let large =
            Weights::from([("c".into(), HostTensor::from_f32([3, 1_000_000], &ramp, Dtype::F32))]);
        for (name, weights) in [("model-1.safetensors", small), ("model-2.safetensors", large)] {
            attempt.write(name, encode_safetensors(&weights).unwrap(), None).await.unwrap();
        }
        attempt
            .write("optimizer/x.safetensors", bytes::Bytes::from_static(b"1"), None)
            .await
            .unwrap();
        let manifest = Manifest {
            format: Manifest::FORMAT,
            id: id.clone(),
            identity,
            kind: KIND.into(),
            datasets: Default::default(),
            objects: Vec::new(),
            summary: Default::default(),
            producer: Producer::default(),
        };
        attempt.commit(manifest).await.unwrap();
        store.set_ref("p", "sft", &id).await.unwrap();
        id
    }

    async fn csv(session: &Session, sql: &str) -> crate::Result<String> {
        let Outcome::Rows(mut rows) = session.run(sql).await? else { panic!("{sql}") };
        let mut out = Vec::new();
        let mut writer =
            crate::query::ResultWriter::new(crate::query::Format::Csv, &rows.schema(), &mut out)?;
        while let Some(batch) = rows.next().await? {
            writer.write(&batch)?;
        }
        writer.finish()?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_checkpoint_is_a_table_of_its_tensors() {
        let store = Store::open("memory://").unwrap().metered();
        let id = checkpoint(&store).await;
        let session = Session::open(&store).await.unwrap();
        let before = store.traffic().bytes_read;
        let sql = "SELECT name, dtype, shape, elements, bytes FROM p.sft ORDER BY name";
        assert_eq!(
            csv(&session, sql).await.unwrap(),
            "name,dtype,shape,elements,bytes\n\
             a,F32,[0],0,0\nb,BF16,\"[2, 2]\",4,8\nc,F32,\"[3, 1000000]\",3000000,12000000\n"
        );
        let read = store.traffic().bytes_read - before;
        assert!(read < 10_000, "{read} bytes for headers");
        let sql = format!(
            "SELECT name, round(norm, 3) AS norm, mean, max_abs, sparsity \
             FROM artifact('{}') ORDER BY name",
            id.short()
        );
        assert_eq!(
            csv(&session, &sql).await.unwrap(),
            "name,norm,mean,max_abs,sparsity\n\
             a,0.0,,,\nb,5.0,-0.25,4.0,0.5\nc,3000.0,-1.5,2.0,0.25\n"
        );
        let count = csv(&session, "SELECT count(*) AS n FROM sft.tensors").await.unwrap();
        assert_eq!(count, "n\n3\n");
        let listed = "SELECT name, rows, bytes > 12000000 AS large FROM triad.tables";
        assert_eq!(csv(&session, listed).await.unwrap(), "name,rows,large\nsft,,true\n");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_changed_number_is_refused() {
        let store = Store::open("memory://").unwrap();
        let id = checkpoint(&store).await;
        let artifact = Artifact::open(&store, &id).await.unwrap().unwrap();
        let entry = artifact.manifest.object("model-2.safetensors").unwrap().clone();
        let mut bytes = artifact.read(&entry.path).await.unwrap().to_vec();
        bytes[6_000_000] ^= 1;
        store.put(&entry.key(&id), bytes.into()).await.unwrap();
        let session = Session::open(&store).await.unwrap();
        let error = csv(&session, "SELECT name, mean FROM sft").await.unwrap_err();
        assert_eq!(error.exit_code(), 65, "{error}");
        assert!(error.to_string().contains("where its commit record says"), "{error}");
    }

    #[test]
    fn numbers_are_added_up_wherever_the_pieces_are_cut() {
        let weights = Weights::from([
            ("x".into(), HostTensor::from_f32([3], &[1.0, -2.0, 0.5], Dtype::F32)),
            ("y".into(), HostTensor::from_f32([2], &[7.0, 0.0], Dtype::F16)),
        ]);
        let file = encode_safetensors(&weights).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("m.safetensors"), &file).unwrap();
        let tensors = tensors_of(&Folder::Local(folder.path().into()), "m.safetensors").unwrap();
        for length in [1, 2, 3, 5, 7, file.len()] {
            let mut measure = Measure::new(&tensors);
            // Begun twice: the first try broke off.
            measure.take(0, &file[..file.len() / 2]);
            for (index, piece) in file.chunks(length).enumerate() {
                measure.take((index * length) as u64, piece);
            }
            let sums = measure.by_name();
            let found: Vec<_> = sums.iter().map(|s| (s.count, s.sum, s.zeros, s.largest)).collect();
            assert_eq!(found, [(3, -0.5, 0, 2.0), (2, 7.0, 1, 7.0)], "{length}");
        }
    }
}
