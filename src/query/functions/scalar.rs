//! A function of one row, from its name, its arguments and what it makes of their columns.

use std::fmt::{self, Debug, Formatter};
use std::hash::{Hash, Hasher};

use datafusion::arrow::array::{Array, ArrayRef, StringArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::plan_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::Error;

/// What an argument may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A whole number; it comes as `Int64`.
    Count,
    /// A text; it comes as `Utf8`.
    Text,
    /// A list of anything, as it is.
    List,
}

impl Kind {
    fn takes(self, given: &DataType) -> bool {
        let list = matches!(given, DataType::List(_) | DataType::LargeList(_));
        given.is_null()
            || match self {
                Self::Count => given.is_integer(),
                Self::Text => given.is_string(),
                Self::List => list,
            }
    }

    fn cast(self, given: &DataType) -> DataType {
        match self {
            Self::Count => DataType::Int64,
            Self::Text => DataType::Utf8,
            Self::List if given.is_null() => DataType::new_list(DataType::UInt32, true),
            Self::List => given.clone(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Count => "a whole number",
            Self::Text => "a text",
            Self::List => "a list",
        }
    }
}

/// What a function makes of its arguments' columns, which are of the same length.
pub(super) type Body = fn(&[ArrayRef]) -> crate::Result<ArrayRef>;

pub(super) struct Scalar {
    name: &'static str,
    arguments: &'static [(&'static str, Kind)],
    signature: Signature,
    returns: DataType,
    body: Body,
}

impl Scalar {
    pub fn new(
        name: &'static str,
        arguments: &'static [(&'static str, Kind)],
        returns: DataType,
        body: Body,
    ) -> Self {
        let signature = Signature::user_defined(Volatility::Immutable);
        Self { name, arguments, signature, returns, body }
    }
}

impl Debug for Scalar {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Scalar({})", self.name)
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Scalar {}

impl Hash for Scalar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Scalar {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let names: Vec<_> = self.arguments.iter().map(|(name, _)| *name).collect();
        if given.len() != names.len() {
            return plan_err!("it takes ({}); {} given", names.join(", "), given.len());
        }
        let cast = |((name, kind), given): (&(&str, Kind), &DataType)| {
            if !kind.takes(given) {
                return plan_err!("{name} must be {}, not {given}", kind.name());
            }
            Ok(kind.cast(given))
        };
        self.arguments.iter().zip(given).map(cast).collect()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = arrays(&args)?;
        let found = (self.body)(&columns).map_err(|e| failed(e.at(self.name)))?;
        Ok(ColumnarValue::Array(found))
    }
}

/// The arguments as columns of the same length.
pub(super) fn arrays(args: &ScalarFunctionArgs) -> Result<Vec<ArrayRef>> {
    args.args.iter().map(|value| value.to_array(args.number_rows)).collect()
}

pub(super) fn failed(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The arguments' columns, cast as [`Kind`] says.
pub(super) fn columns<T: Array + 'static, const N: usize>(
    arrays: &[ArrayRef],
) -> crate::Result<[&T; N]> {
    let found: Option<Vec<&T>> = arrays.iter().map(|array| array.as_any().downcast_ref()).collect();
    found
        .and_then(|found| found.try_into().ok())
        .ok_or_else(|| Error::defect("arguments are of other types than were asked for"))
}

/// The texts of one row; `None` where one is null.
pub(super) fn texts<const N: usize>(columns: [&StringArray; N], row: usize) -> Option<[&str; N]> {
    columns.iter().all(|column| column.is_valid(row)).then(|| columns.map(|c| c.value(row)))
}
