//! How our tables and functions cross between processes. A dataset's table goes over whole, with
//! sizes, rows and schema, so that a scheduler plans without reading anything.

use std::io::Cursor;
use std::sync::Arc;

use ballista_core::serde::{BallistaLogicalExtensionCodec, BallistaPhysicalExtensionCodec};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::{TableReference, internal_err, not_impl_err};
use datafusion::datasource::file_format::FileFormatFactory;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Extension, LogicalPlan, ScalarUDF};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::logical_plan::LogicalExtensionCodec;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use datafusion_proto::protobuf;
use prost::Message;
use triad::Error;
use triad::query::{DatasetTable, decode};
use triad::store::Store;

use crate::failure::packed;

/// A table on its way.
#[derive(Clone, PartialEq, Message)]
struct Table {
    /// The URL of the store that it lies in.
    #[prost(string, tag = "1")]
    store: String,
    #[prost(message, repeated, tag = "2")]
    parts: Vec<protobuf::PartitionedFile>,
    /// An Arrow stream, for a table that lies in memory.
    #[prost(bytes = "vec", optional, tag = "3")]
    memory: Option<Vec<u8>>,
}

/// Logical plans: from a client to its scheduler.
#[derive(Debug)]
pub struct Logical {
    store: Store,
    ballista: BallistaLogicalExtensionCodec,
}

impl Logical {
    pub fn new(store: &Store) -> Self {
        Self { store: store.clone(), ballista: Default::default() }
    }

    fn table(&self, table: &Table, schema: SchemaRef) -> Result<Arc<dyn TableProvider>> {
        if let Some(stream) = &table.memory {
            let batches: Result<Vec<RecordBatch>, ArrowError> =
                StreamReader::try_new(Cursor::new(stream), None)?.collect();
            return Ok(Arc::new(MemTable::try_new(schema, vec![batches?])?));
        }
        let ours = self.store.url().as_str();
        if table.store.trim_end_matches('/') != ours.trim_end_matches('/') {
            return Err(refused(&Error::usage(format!(
                "the cluster reads the store {ours}, and not {}",
                table.store
            ))));
        }
        let parts: Result<Vec<_>> = table.parts.iter().map(PartitionedFile::try_from).collect();
        Ok(Arc::new(DatasetTable::of_parts(schema, parts?)?))
    }
}

fn refused(error: &Error) -> DataFusionError {
    DataFusionError::Execution(packed(error))
}

fn stream(table: &MemTable) -> Result<Vec<u8>> {
    let mut writer = StreamWriter::try_new(Vec::new(), &table.schema())?;
    for partition in &table.batches {
        let Ok(batches) = partition.try_read() else {
            return internal_err!("a table of the catalog is being written");
        };
        for batch in batches.iter() {
            writer.write(batch)?;
        }
    }
    Ok(writer.into_inner()?)
}

impl LogicalExtensionCodec for Logical {
    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[LogicalPlan],
        context: &TaskContext,
    ) -> Result<Extension> {
        self.ballista.try_decode(buf, inputs, context)
    }

    fn try_encode(&self, node: &Extension, buf: &mut Vec<u8>) -> Result<()> {
        self.ballista.try_encode(node, buf)
    }

    fn try_decode_table_provider(
        &self,
        buf: &[u8],
        _: &TableReference,
        schema: SchemaRef,
        _: &TaskContext,
    ) -> Result<Arc<dyn TableProvider>> {
        let table = Table::decode(buf).map_err(|e| DataFusionError::External(Box::new(e)))?;
        self.table(&table, schema)
    }

    fn try_encode_table_provider(
        &self,
        name: &TableReference,
        table: Arc<dyn TableProvider>,
        buf: &mut Vec<u8>,
    ) -> Result<()> {
        let mut message = Table { store: self.store.url().to_string(), ..Default::default() };
        if let Some(table) = table.downcast_ref::<DatasetTable>() {
            let parts = table.parts().iter().map(protobuf::PartitionedFile::try_from);
            message.parts = parts.collect::<Result<_>>()?;
        } else if let Some(table) = table.downcast_ref::<MemTable>() {
            message.memory = Some(stream(table)?);
        } else {
            return not_impl_err!("`{name}` on a cluster");
        }
        message.encode(buf).map_err(|e| DataFusionError::External(Box::new(e)))
    }

    fn try_decode_file_format(
        &self,
        buf: &[u8],
        context: &TaskContext,
    ) -> Result<Arc<dyn FileFormatFactory>> {
        self.ballista.try_decode_file_format(buf, context)
    }

    fn try_encode_file_format(
        &self,
        buf: &mut Vec<u8>,
        format: Arc<dyn FileFormatFactory>,
    ) -> Result<()> {
        self.ballista.try_encode_file_format(buf, format)
    }

    fn try_decode_udf(&self, name: &str, _: &[u8]) -> Result<Arc<ScalarUDF>> {
        function(&self.store, name)
    }

    fn try_encode_udf(&self, function: &ScalarUDF, buf: &mut Vec<u8>) -> Result<()> {
        mark(function, buf);
        Ok(())
    }
}

/// Physical plans: from a scheduler to its executors.
#[derive(Debug)]
pub struct Physical {
    store: Store,
    ballista: BallistaPhysicalExtensionCodec,
}

impl Physical {
    pub fn new(store: &Store) -> Self {
        Self { store: store.clone(), ballista: Default::default() }
    }
}

impl PhysicalExtensionCodec for Physical {
    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.ballista.try_decode(buf, inputs, context, converter)
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        self.ballista.try_encode(node, buf, converter)
    }

    fn try_decode_udf(&self, name: &str, _: &[u8]) -> Result<Arc<ScalarUDF>> {
        function(&self.store, name)
    }

    fn try_encode_udf(&self, function: &ScalarUDF, buf: &mut Vec<u8>) -> Result<()> {
        mark(function, buf);
        Ok(())
    }
}

/// The one function that is made anew for each task instead of found by its name: it keeps what it
/// has read, and a checkpoint's name may stand for another one tomorrow.
const DECODE: &str = "decode";

fn function(store: &Store, name: &str) -> Result<Arc<ScalarUDF>> {
    match name {
        DECODE => Ok(Arc::new(decode(store))),
        _ => not_impl_err!("the function {name} on a cluster"),
    }
}

/// What is not empty is given to [`function`].
fn mark(function: &ScalarUDF, buf: &mut Vec<u8>) {
    if function.name() == DECODE {
        buf.push(1);
    }
}
