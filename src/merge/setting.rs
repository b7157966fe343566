//! The value of a parameter for one tensor, evaluated as mergekit does.

use serde_json::Value;

use super::method::Kind;

/// The number of a scalar; a flag is 0 or 1.
fn scalar(value: &Value, kind: Kind) -> Result<f64, String> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::Bool(flag) => Some(f64::from(*flag)),
        Value::String(text) if kind == Kind::Flag => match &text.to_ascii_lowercase()[..] {
            "true" | "yes" | "on" | "1" => Some(1.0),
            "false" | "no" | "off" | "0" => Some(0.0),
            _ => None,
        },
        // YAML 1.1 reads 1e-4 as a text.
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let fits = number.filter(|number| match kind {
        Kind::Float => number.is_finite(),
        Kind::Flag => *number == 0.0 || *number == 1.0,
        Kind::Count => number.fract() == 0.0 && (0.0..1e9).contains(number),
    });
    fits.ok_or_else(|| format!("{value} is no {}", kind.name()))
}

fn is_scalar(value: &Value) -> bool {
    matches!(value, Value::Number(_) | Value::Bool(_) | Value::String(_))
}

/// The value and filter of `{value: …, filter: …}`.
fn condition(value: &Value) -> Result<(&Value, Option<&str>), String> {
    let Some(map) = value.as_object() else {
        return Err(format!("{value} is neither a number nor {{value: …, filter: …}}"));
    };
    if let Some(key) = map.keys().find(|key| !["value", "filter"].contains(&key.as_str())) {
        return Err(format!("unknown key `{key}`; there are value, filter"));
    }
    let filter = match map.get("filter") {
        None | Some(Value::Null) => None,
        Some(Value::String(filter)) => Some(&filter[..]),
        Some(other) => return Err(format!("filter {other} is no part of a tensor's name")),
    };
    let value = map.get("value").ok_or("a value is missing beside `filter`")?;
    Ok((value, filter))
}

/// The setting's value for the tensor `name` at place `t` (0 to 1) of its slice. None if no filter
/// fits it.
///
/// A list stands for values along the layers, between which numbers are interpolated and flags are
/// not. Of conditions the first counts whose filter is part of the name, is `*` or is absent.
pub fn evaluate(setting: &Value, name: &str, t: f64, kind: Kind) -> Result<Option<f64>, String> {
    match setting {
        Value::Array(items) if items.iter().all(is_scalar) => {
            let values =
                items.iter().map(|item| scalar(item, kind)).collect::<Result<Vec<_>, _>>()?;
            let Some(last) = values.len().checked_sub(1) else { return Ok(None) };
            let place = t * last as f64;
            let low = (place as usize).min(last);
            if kind == Kind::Flag {
                return Ok(Some(values[low]));
            }
            let share = place - low as f64;
            let value = (1.0 - share) * values[low] + share * values[(low + 1).min(last)];
            scalar(&value.into(), kind).map(Some)
        }
        Value::Array(items) => {
            for item in items {
                let (value, filter) = condition(item)?;
                if filter.is_none_or(|filter| filter == "*" || name.contains(filter)) {
                    return evaluate(value, name, t, kind);
                }
            }
            Ok(None)
        }
        Value::Object(_) => {
            let (value, filter) = condition(setting)?;
            match filter.is_none_or(|filter| filter == "*" || name.contains(filter)) {
                true => evaluate(value, name, t, kind),
                false => Ok(None),
            }
        }
        value => scalar(value, kind).map(Some),
    }
}

/// Checks every value in a setting, whatever it is for.
pub fn check(setting: &Value, kind: Kind) -> Result<(), String> {
    match setting {
        Value::Array(items) if items.iter().all(is_scalar) => {
            items.iter().try_for_each(|item| scalar(item, kind).map(drop))
        }
        Value::Array(items) => items.iter().try_for_each(|item| check(condition(item)?.0, kind)),
        Value::Object(_) => check(condition(setting)?.0, kind),
        value => scalar(value, kind).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(setting: Value, name: &str, t: f64) -> Option<f64> {
        check(&setting, Kind::Float).unwrap();
        evaluate(&setting, name, t, Kind::Float).unwrap()
    }

    #[test]
    fn gradients_are_interpolated_over_the_layers() {
        for (t, value) in [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 0.5), (1.0, 0.0)] {
            assert_eq!(at(json!([0, 1, "0"]), "x", t), Some(value));
        }
        assert_eq!(at(json!([0.3]), "x", 0.7), Some(0.3));
        assert_eq!(at(json!([]), "x", 0.7), None);
        let flags = json!([true, false, true]);
        assert_eq!(evaluate(&flags, "x", 0.5, Kind::Flag), Ok(Some(0.0)));
        assert_eq!(evaluate(&flags, "x", 0.49, Kind::Flag), Ok(Some(1.0)));
    }

    #[test]
    fn the_first_filter_that_fits_counts() {
        let setting = json!([
            {"filter": "self_attn", "value": [0, 1]},
            {"filter": "mlp", "value": 0.25},
            {"value": "1e-1"}
        ]);
        assert_eq!(at(setting.clone(), "model.layers.3.self_attn.q_proj.weight", 0.5), Some(0.5));
        assert_eq!(at(setting.clone(), "model.layers.3.mlp.up_proj.weight", 0.5), Some(0.25));
        assert_eq!(at(setting, "model.norm.weight", 0.5), Some(0.1));
        assert_eq!(at(json!({"filter": "mlp", "value": 1}), "model.norm.weight", 0.0), None);
    }

    #[test]
    fn what_is_no_value_is_said() {
        let said = |setting: Value, kind| check(&setting, kind).unwrap_err();
        assert_eq!(said(json!("many"), Kind::Float), "\"many\" is no number");
        assert_eq!(said(json!([1, "x"]), Kind::Float), "\"x\" is no number");
        assert_eq!(
            said(json!({"value": 1, "filtre": "x"}), Kind::Float),
            "unknown key `filtre`; there are value, filter"
        );
        assert_eq!(said(json!(0.5), Kind::Flag), "0.5 is no true or false");
        assert_eq!(said(json!(2.5), Kind::Count), "2.5 is no count");
    }
}
