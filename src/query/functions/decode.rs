//! `decode(tokens, checkpoint)`: token ids as text, by the tokenizer of a committed checkpoint.

use std::collections::HashMap;
use std::fmt::{self, Debug, Formatter};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{Array, AsArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, UInt32Type};
use datafusion::common::not_impl_err;
use datafusion::error::Result;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use tokio::sync::Mutex;

use super::scalar::{arrays, failed};
use crate::Error;
use crate::checkpoint::{Checkpoint, Tokenizer};
use crate::store::Store;

/// Endings of what is read of a checkpoint.
const FILES: [&str; 4] = [".json", ".jinja", ".txt", ".model"];

/// The function, over the checkpoints of `store`.
pub fn decode(store: &Store) -> ScalarUDF {
    // An async function is not asked what its arguments are cast to.
    let signature = Signature::any(2, Volatility::Immutable);
    let decode = Decode { signature, store: store.clone(), known: Mutex::default() };
    AsyncScalarUDF::new(Arc::new(decode)).into_scalar_udf()
}

struct Decode {
    signature: Signature,
    store: Store,
    /// By what the query calls the checkpoint.
    known: Mutex<HashMap<String, Arc<Tokenizer>>>,
}

impl Decode {
    async fn tokenizer(&self, checkpoint: &str) -> crate::Result<Arc<Tokenizer>> {
        let mut known = self.known.lock().await;
        if let Some(tokenizer) = known.get(checkpoint) {
            return Ok(tokenizer.clone());
        }
        let artifact = self.store.find(checkpoint).await?;
        let mut files = HashMap::new();
        for object in &artifact.manifest.objects {
            if FILES.iter().any(|ending| object.path.ends_with(ending)) {
                files.insert(object.path.as_str(), artifact.read(&object.path).await?);
            }
        }
        let read = Checkpoint::without_weights(|path| Ok(files.get(path).cloned()))
            .map_err(|e| e.at(format!("checkpoint {}", artifact.manifest.id.short())))?;
        let tokenizer = Arc::new(read.tokenizer);
        known.insert(checkpoint.into(), tokenizer.clone());
        Ok(tokenizer)
    }

    async fn texts(&self, args: &ScalarFunctionArgs) -> Result<StringArray> {
        let columns = arrays(args)?;
        let tokens = DataType::new_list(DataType::UInt32, true);
        let as_type = |at: usize, to: &DataType, name: &str| {
            let unfit = |e| failed(Error::usage(format!("decode: {name}: {e}")));
            cast(&columns[at], to).map_err(unfit)
        };
        let lists = as_type(0, &tokens, "tokens")?;
        let names = as_type(1, &DataType::Utf8, "checkpoint")?;
        let (lists, names) = (lists.as_list::<i32>(), names.as_string::<i32>());
        let mut texts = Vec::with_capacity(lists.len());
        for row in 0..lists.len() {
            if lists.is_null(row) || names.is_null(row) {
                texts.push(None);
                continue;
            }
            let tokenizer = self.tokenizer(names.value(row)).await.map_err(failed)?;
            let ids = lists.value(row);
            let ids: Vec<u32> = ids.as_primitive::<UInt32Type>().iter().flatten().collect();
            texts.push(Some(tokenizer.decode(&ids).map_err(failed)?));
        }
        Ok(texts.into_iter().collect())
    }
}

impl Debug for Decode {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Decode({:?})", self.store)
    }
}

impl PartialEq for Decode {
    fn eq(&self, other: &Self) -> bool {
        self.store.url() == other.store.url()
    }
}

impl Eq for Decode {}

impl Hash for Decode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.store.url().hash(state);
    }
}

impl ScalarUDFImpl for Decode {
    fn name(&self) -> &str {
        "decode"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        not_impl_err!("decode reads the store and runs as an async function only")
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Decode {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Array(Arc::new(self.texts(&args).await?)))
    }
}
