//! The golden vectors of the repository: what this crate reads and writes is what the page says.

use std::path::Path;

use cluster_layer_client::envelope::{Envelope, Kind, control};
use cluster_layer_client::topology::Topology;
use cluster_layer_client::{message, slots};
use serde_json::{Map, Value, json};

fn vectors(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(file);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn items<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    let found = value[key].as_array().unwrap();
    assert!(!found.is_empty(), "{key}");
    found
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `{"$hex": ...}` of the vectors as `{"$bytes": base64}`, which the crate reads.
fn with_bytes(value: &Value) -> Value {
    use base64::Engine;
    match value {
        Value::Object(fields) if fields.contains_key("$hex") => {
            let bytes = unhex(text(value, "$hex"));
            json!({"$bytes": base64::engine::general_purpose::STANDARD.encode(bytes)})
        }
        Value::Object(fields) => {
            let pairs = fields.iter().map(|(key, item)| (key.clone(), with_bytes(item)));
            Value::Object(Map::from_iter(pairs))
        }
        Value::Array(items) => Value::Array(items.iter().map(with_bytes).collect()),
        other => other.clone(),
    }
}

#[test]
fn names_have_the_slots_and_homes_of_the_vectors() {
    let vectors = vectors("slots.json");
    let topology = Topology::decode(vectors["topology"].to_string().as_bytes()).unwrap();
    for entry in items(&vectors, "names") {
        let name = text(entry, "name");
        assert_eq!(slots::hashed_part(name), text(entry, "hashed"));
        assert_eq!(u64::from(slots::hash(slots::hashed_part(name))), entry["hash"], "{name}");
        assert_eq!(slots::slot_of(name), entry["slot"].as_u64().unwrap() as usize, "{name}");
        assert_eq!(topology.home_of(name).id, text(entry, "shard"), "{name}");
    }
}

#[test]
fn moving_names_have_two_homes() {
    for case in items(&vectors("topologies.json"), "topologies") {
        let topology = Topology::decode(case["topology"].to_string().as_bytes()).unwrap();
        for place in items(case, "places") {
            let name = text(place, "name");
            let other = topology.other_home_of(name).map(|shard| shard.id.as_str());
            assert_eq!(topology.home_of(name).id, text(place, "shard"), "{name}");
            assert_eq!(other, place["other"].as_str(), "{name}");
        }
    }
}

#[test]
fn what_is_no_topology_is_refused() {
    let good = vectors("slots.json")["topology"].clone();
    let with = |key: &str, value: Value| {
        let mut changed = good.clone();
        changed[key] = value;
        Topology::decode(changed.to_string().as_bytes())
    };
    assert!(with("a field of a later writer", json!(1)).is_ok());
    let table = text(&good, "table");
    for (key, value) in [
        ("version", json!(2)),
        ("cluster", json!("90E2F3B4C5D6A718")),
        ("epoch", json!(0)),
        ("epoch", json!(1u64 << 53)),
        ("phase", json!("later")),
        ("phase", json!("prepared")), // without a table to come
        ("pending", json!(table)),    // while nothing is to come
        ("shards", json!([])),
        ("table", json!(table[2..])),
        ("table", json!(table.replacen("01", "ff", 1))), // no such shard
        ("table", json!(table.replacen("01", "0A", 1))),
        ("table", Value::Null),
    ] {
        assert!(with(key, value.clone()).is_err(), "{key}: {value:.40}");
    }
}

#[test]
fn envelopes_are_read_and_written_as_the_vectors_say() {
    for case in items(&vectors("envelope.json"), "envelopes") {
        let what = text(case, "what");
        let envelope = Envelope::decode(&unhex(text(case, "hex"))).expect(what);
        assert_eq!(envelope.kind == Kind::Control, case["kind"] == 1, "{what}");
        assert_eq!(envelope.ttl_ms, case["ttl_ms"], "{what}");
        assert_eq!(envelope.channel.as_deref(), case["channel"].as_str(), "{what}");
        assert_eq!(hex(&envelope.body), text(case, "body_hex"), "{what}");
        assert_eq!(envelope.epoch, case["epoch"], "{what}");
        assert_eq!(marks_of(&envelope), case["marks"], "{what}");
        if case["canonical"] == true {
            assert_eq!(hex(&envelope.encode()), text(case, "hex"), "{what}");
        }
    }
}

fn marks_of(envelope: &Envelope) -> Value {
    if envelope.marks.is_empty() {
        return Value::Null;
    }
    let marks = envelope.marks.iter().map(|mark| {
        let mut fields = vec![json!(mark.incarnation), json!(mark.inbox), json!(mark.group)];
        if !mark.doubts.is_empty() {
            fields.push(json!(mark.doubts));
        }
        (mark.shard.clone(), Value::Array(fields))
    });
    Value::Object(Map::from_iter(marks))
}

#[test]
fn malformed_envelopes_are_refused() {
    for case in items(&vectors("envelope.json"), "malformed") {
        assert_eq!(Envelope::decode(&unhex(text(case, "hex"))), None, "{}", text(case, "what"));
    }
}

#[test]
fn bodies_are_read_and_written_as_the_vectors_say() {
    for case in items(&vectors("envelope.json"), "bodies") {
        let message = with_bytes(&case["message"]);
        let body = message::encode(&message).unwrap();
        assert_eq!(hex(&body), text(case, "hex"), "{}", text(case, "what"));
        assert_eq!(message::decode(&body), Some(message), "{}", text(case, "what"));
    }
}

#[test]
fn what_may_not_be_sent_is_refused() {
    let nested =
        |levels: usize| format!("{{\"deep\": {}{}}}", "[".repeat(levels), "]".repeat(levels));
    let encode = |json: &str| message::encode(&serde_json::from_str(json).unwrap());
    assert!(encode(&nested(100)).is_ok());
    for json in [
        "[]",
        r#"{"n": 9223372036854775808}"#,
        r#"{"$bytes": "AA=="}"#,
        r#"{"b": {"$bytes": "%"}}"#,
        r#"{"f": {"$float": "1"}}"#,
    ] {
        assert!(encode(json).is_err(), "{json}");
    }
    let too_deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    assert!(message::encode(&json!({"deep": too_deep})).is_err());
    assert!(message::encode(&json!({"long": "x".repeat(3_000_000)})).is_err());
}

#[test]
fn bodies_of_other_types_are_refused() {
    // No map; a key that is a number; an extension type; an integer beyond 64 bits with sign; text
    // that is no UTF-8; bytes after the end.
    for digits in ["90", "810102", "81a161d40100", "81a161cfffffffffffffffff", "81a161a1ff", "8000"]
    {
        assert_eq!(message::decode(&unhex(digits)), None, "{digits}");
    }
}

#[test]
fn a_control_is_an_envelope_around_a_map_of_texts() {
    let envelope = Envelope::decode(&control("stored", "room", "jobs", 7)).unwrap();
    assert_eq!((envelope.kind, envelope.ttl_ms, envelope.channel), (Kind::Control, 0, None));
    let fields = json!({"op": "stored", "group": "room", "channel": "jobs", "epoch": "7"});
    assert_eq!(message::decode(&envelope.body), Some(fields));
}
