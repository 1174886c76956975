//! A message: JSON for people, msgpack on the way.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rmpv::Value as Packed;
use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};

pub const MAX_DEPTH: usize = 128;
/// As the default of CONFIG message_size_limit.
const MAX_BYTES: usize = 1_048_576 * 9 / 4;

/// The body of a message, from a JSON object. What JSON lacks is an object with one key, as for
/// `cluster-layer send`: `{"$bytes": base64}` and `{"$float": "nan"}` (`inf`, `-inf`).
pub fn encode(message: &Value) -> Result<Vec<u8>> {
    if !message.is_object() {
        return Err(Error::Usage("a message is a JSON object".into()));
    }
    let packed = packed(message, 0)?;
    if !packed.is_map() {
        return Err(Error::Usage("a message is a JSON object".into()));
    }
    let body = bytes_of(&packed);
    if body.len() > MAX_BYTES {
        return Err(Error::Usage(format!(
            "the message has {} bytes, {MAX_BYTES} are allowed",
            body.len()
        )));
    }
    Ok(body)
}

/// The JSON of a body; None: it is no message.
pub fn decode(body: &[u8]) -> Option<Value> {
    let packed = read(body)?;
    packed.is_map().then(|| unpacked(&packed, 0)).flatten()
}

/// The one msgpack value that these bytes are. It may be nested one level deeper than a body may:
/// an envelope's fields are not the body's levels.
pub fn read(bytes: &[u8]) -> Option<Packed> {
    let mut rest = bytes;
    let value = rmpv::decode::read_value_with_max_depth(&mut rest, 2 * MAX_DEPTH + 8).ok()?;
    rest.is_empty().then_some(value)
}

pub fn bytes_of(value: &Packed) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).expect("memory can be written to");
    bytes
}

fn packed(value: &Value, depth: usize) -> Result<Packed> {
    if depth > MAX_DEPTH && (value.is_array() || value.is_object()) {
        return Err(Error::Usage(format!("a message has at most {MAX_DEPTH} levels of nesting")));
    }
    Ok(match value {
        Value::Null => Packed::Nil,
        Value::Bool(flag) => Packed::from(*flag),
        Value::Number(number) => packed_number(number)?,
        Value::String(text) => Packed::from(text.as_str()),
        Value::Array(items) => {
            Packed::Array(items.iter().map(|item| packed(item, depth + 1)).collect::<Result<_>>()?)
        }
        Value::Object(fields) => match special(fields) {
            Some(found) => found?,
            None => packed_map(fields, depth)?,
        },
    })
}

fn packed_map(fields: &Map<String, Value>, depth: usize) -> Result<Packed> {
    let pairs =
        fields.iter().map(|(key, item)| Ok((Packed::from(key.as_str()), packed(item, depth + 1)?)));
    Ok(Packed::Map(pairs.collect::<Result<_>>()?))
}

fn packed_number(number: &Number) -> Result<Packed> {
    if let Some(whole) = number.as_i64() {
        return Ok(Packed::from(whole));
    }
    if number.is_u64() {
        return Err(Error::Usage(format!("{number}: an integer of 64 bits with sign is allowed")));
    }
    number
        .as_f64()
        .map(Packed::F64)
        .ok_or_else(|| Error::Usage(format!("{number} is no number that can be sent")))
}

fn special(fields: &Map<String, Value>) -> Option<Result<Packed>> {
    let (key, value) = fields.iter().next().filter(|_| fields.len() == 1)?;
    let text = value.as_str();
    match key.as_str() {
        "$bytes" => Some(
            text.and_then(|encoded| STANDARD.decode(encoded).ok())
                .map(Packed::Binary)
                .ok_or_else(|| Error::Usage("$bytes: its value is no base64".into())),
        ),
        "$float" => Some(match text {
            Some("nan") => Ok(Packed::F64(f64::NAN)),
            Some("inf") => Ok(Packed::F64(f64::INFINITY)),
            Some("-inf") => Ok(Packed::F64(f64::NEG_INFINITY)),
            _ => Err(Error::Usage("$float: its value is none of nan, inf, -inf".into())),
        }),
        _ => None,
    }
}

fn unpacked(value: &Packed, depth: usize) -> Option<Value> {
    if depth > MAX_DEPTH && (value.is_array() || value.is_map()) {
        return None;
    }
    Some(match value {
        Packed::Nil => Value::Null,
        Packed::Boolean(flag) => Value::from(*flag),
        Packed::Integer(number) => Value::from(number.as_i64()?),
        Packed::F32(number) => unpacked_float(f64::from(*number)),
        Packed::F64(number) => unpacked_float(*number),
        Packed::String(text) => Value::from(text.as_str()?),
        Packed::Binary(bytes) => one("$bytes", STANDARD.encode(bytes)),
        Packed::Array(items) => {
            Value::Array(items.iter().map(|item| unpacked(item, depth + 1)).collect::<Option<_>>()?)
        }
        Packed::Map(pairs) => {
            let fields = pairs
                .iter()
                .map(|(key, item)| Some((key.as_str()?.to_owned(), unpacked(item, depth + 1)?)));
            Value::Object(fields.collect::<Option<_>>()?)
        }
        Packed::Ext(..) => return None,
    })
}

fn unpacked_float(number: f64) -> Value {
    match Number::from_f64(number) {
        Some(finite) => Value::Number(finite),
        None if number.is_nan() => one("$float", "nan".into()),
        None => one("$float", if number > 0.0 { "inf" } else { "-inf" }.into()),
    }
}

fn one(key: &str, text: String) -> Value {
    Value::Object(Map::from_iter([(key.to_owned(), Value::from(text))]))
}
