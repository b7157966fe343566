//! From Rust structs to Arrow and back.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, ListArray, RecordBatch,
    StringArray, UInt32Array, UInt64Array,
};
use datafusion::arrow::buffer::{OffsetBuffer, ScalarBuffer};
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::{
    DataType, Field, Float32Type, Float64Type, SchemaRef, UInt32Type, UInt64Type,
};

use crate::{Error, Result};

/// A dataset's row: a struct declared by [`dataset!`](macro@crate::dataset) with a named, versioned
/// schema. Only columns of an `Option` are nullable; they may also be missing, as those are that a
/// later version of the schema added.
pub trait Row: Sized + Clone + Send + Sync + 'static {
    const NAME: &'static str;
    const VERSION: u32;

    fn schema() -> SchemaRef;
    fn encode(rows: &[Self]) -> Result<RecordBatch>;
    /// Reads the columns by name. Further columns are ignored.
    fn decode(batch: &RecordBatch) -> Result<Vec<Self>>;
}

/// A Rust type that a column can hold.
pub trait Column: Sized {
    fn data_type() -> DataType;
    fn array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef
    where
        Self: 'a;
    /// The values, `None` when the array has another type.
    fn values(array: &dyn Array) -> Option<Vec<Self>>;
    /// The null of a nullable column; without one it takes no nulls.
    fn null() -> Option<Self> {
        None
    }
}

impl<T: Column> Column for Option<T> {
    fn data_type() -> DataType {
        T::data_type()
    }
    fn array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef
    where
        Self: 'a,
    {
        let (mut present, mut places) = (Vec::new(), Vec::new());
        for value in values {
            places.push(value.as_ref().map(|_| present.len() as u32));
            present.extend(value);
        }
        let present = T::array(present.into_iter());
        // Only places that are out of range could fail.
        take(&present, &UInt32Array::from(places), None).unwrap_or(present)
    }
    fn values(array: &dyn Array) -> Option<Vec<Self>> {
        let values = T::values(array)?.into_iter().enumerate();
        Some(values.map(|(i, value)| array.is_valid(i).then_some(value)).collect())
    }
    fn null() -> Option<Self> {
        Some(None)
    }
}

macro_rules! primitive {
    ($rust:ty, $array:ty, $arrow:ty, $data:expr) => {
        impl Column for $rust {
            fn data_type() -> DataType {
                $data
            }
            fn array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
                Arc::new(<$array>::from_iter_values(values.copied()))
            }
            fn values(array: &dyn Array) -> Option<Vec<Self>> {
                Some(array.as_primitive_opt::<$arrow>()?.values().to_vec())
            }
        }

        impl Column for Vec<$rust> {
            fn data_type() -> DataType {
                DataType::List(Arc::new(Field::new("item", $data, false)))
            }
            fn array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
                let mut flat = Vec::new();
                let mut offsets = vec![0i32];
                for list in values {
                    flat.extend_from_slice(list);
                    offsets.push(flat.len() as i32);
                }
                Arc::new(ListArray::new(
                    Arc::new(Field::new("item", $data, false)),
                    OffsetBuffer::new(ScalarBuffer::from(offsets)),
                    Arc::new(<$array>::from_iter_values(flat)),
                    None,
                ))
            }
            fn values(array: &dyn Array) -> Option<Vec<Self>> {
                let lists = array.as_list_opt::<i32>().filter(|l| l.values().null_count() == 0)?;
                (0..lists.len()).map(|i| <$rust>::values(lists.value(i).as_ref())).collect()
            }
        }
    };
}

primitive!(u32, UInt32Array, UInt32Type, DataType::UInt32);
primitive!(u64, UInt64Array, UInt64Type, DataType::UInt64);
primitive!(f32, Float32Array, Float32Type, DataType::Float32);
primitive!(f64, Float64Array, Float64Type, DataType::Float64);

impl Column for bool {
    fn data_type() -> DataType {
        DataType::Boolean
    }
    fn array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
        Arc::new(values.map(|&v| Some(v)).collect::<BooleanArray>())
    }
    fn values(array: &dyn Array) -> Option<Vec<Self>> {
        Some(array.as_boolean_opt()?.values().iter().collect())
    }
}

impl Column for String {
    fn data_type() -> DataType {
        DataType::Utf8
    }
    fn array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(values))
    }
    fn values(array: &dyn Array) -> Option<Vec<Self>> {
        if let Some(text) = array.as_string_opt::<i32>() {
            return Some((0..text.len()).map(|i| text.value(i).to_string()).collect());
        }
        let text = array.as_string_view_opt()?;
        Some((0..text.len()).map(|i| text.value(i).to_string()).collect())
    }
}

impl Column for Vec<String> {
    fn data_type() -> DataType {
        DataType::List(Arc::new(Field::new("item", DataType::Utf8, false)))
    }
    fn array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
        let values: Vec<&Self> = values.collect();
        let flat: Vec<&String> = values.iter().copied().flatten().collect();
        Arc::new(ListArray::new(
            Arc::new(Field::new("item", DataType::Utf8, false)),
            OffsetBuffer::from_lengths(values.iter().map(|list| list.len())),
            Arc::new(StringArray::from_iter_values(flat)),
            None,
        ))
    }
    fn values(array: &dyn Array) -> Option<Vec<Self>> {
        let lists = array.as_list_opt::<i32>().filter(|l| l.values().null_count() == 0)?;
        (0..lists.len()).map(|i| String::values(lists.value(i).as_ref())).collect()
    }
}

/// The values of column `name`, which must have type `T`; without nulls, and there, unless `T` is
/// nullable.
#[doc(hidden)]
pub fn read_column<T: Column>(batch: &RecordBatch, dataset: &str, name: &str) -> Result<Vec<T>> {
    let Some(array) = batch.column_by_name(name) else {
        let nulls: Option<Vec<T>> = (0..batch.num_rows()).map(|_| T::null()).collect();
        return nulls.filter(|_| T::null().is_some()).ok_or_else(|| {
            let has: Vec<_> = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
            Error::data(format!("`{dataset}` needs a column `{name}`; found {}", has.join(", ")))
        });
    };
    if T::null().is_none() && array.null_count() > 0 {
        return Err(Error::data(format!("`{dataset}`: column `{name}` has null values")));
    }
    T::values(array.as_ref()).ok_or_else(|| {
        Error::data(format!(
            "`{dataset}`: column `{name}` is {}, not {}",
            array.data_type(),
            T::data_type()
        ))
    })
}

/// Declares a row type: `dataset! { /// doc "name" v1 struct Name { field: Type, … } }`.
#[macro_export]
macro_rules! dataset {
    ($(#[$meta:meta])* $name:literal v $version:literal struct $row:ident {
        $($(#[$field_meta:meta])* $field:ident : $type:ty),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $row {
            $($(#[$field_meta])* pub $field: $type),*
        }

        impl $crate::dataset::Row for $row {
            const NAME: &'static str = $name;
            const VERSION: u32 = $version;

            fn schema() -> datafusion::arrow::datatypes::SchemaRef {
                use datafusion::arrow::datatypes::{Field, Schema};
                std::sync::Arc::new(Schema::new(vec![
                    $(Field::new(
                        stringify!($field),
                        <$type as $crate::dataset::Column>::data_type(),
                        <$type as $crate::dataset::Column>::null().is_some(),
                    )),*
                ]))
            }

            fn encode(
                rows: &[Self],
            ) -> $crate::Result<datafusion::arrow::array::RecordBatch> {
                datafusion::arrow::array::RecordBatch::try_new(
                    <Self as $crate::dataset::Row>::schema(),
                    vec![$(<$type as $crate::dataset::Column>::array(
                        rows.iter().map(|row| &row.$field),
                    )),*],
                )
                .map_err($crate::Error::defect)
            }

            fn decode(
                batch: &datafusion::arrow::array::RecordBatch,
            ) -> $crate::Result<Vec<Self>> {
                $(let mut $field = $crate::dataset::row::read_column::<$type>(
                    batch,
                    $name,
                    stringify!($field),
                )?
                .into_iter();)*
                Ok((0..batch.num_rows())
                    .map_while(|_| Some(Self { $($field: $field.next()?),* }))
                    .collect())
            }
        }
    };
}
