//! For tests: an object with each of its fields changed, one at a time.

use serde_json::Value;

/// Every variant of `value` that differs in one leaf, with the path of that leaf (`images.0.priority`).
pub(crate) fn mutations(value: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    walk(value, String::new(), &mut |path, _| found.push(path.to_owned()));
    found
        .into_iter()
        .map(|path| {
            let mut changed = value.clone();
            let pointer = format!("/{}", path.replace('.', "/"));
            let leaf = changed.pointer_mut(&pointer).unwrap();
            *leaf = other(leaf);
            (path, changed)
        })
        .collect()
}

fn walk(value: &Value, path: String, leaf: &mut dyn FnMut(&str, &Value)) {
    let child = |key: &str| {
        if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        }
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, v)| walk(v, child(key), leaf)),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .for_each(|(i, v)| walk(v, child(&i.to_string()), leaf)),
        _ => leaf(&path, value),
    }
}

/// Something else of the same kind: enums and formats by example, other text one letter longer.
fn other(leaf: &Value) -> Value {
    const PAIRS: [(&str, &str); 12] = [
        ("Json", "Lines"),
        ("Pod", "Deployment"),
        ("Job", "Auto"),
        ("Kubelet", "Agent"),
        ("Central", "OnNode"),
        ("Skip", "Fail"),
        ("Retain", "Purge"),
        ("Ready", "Failed"),
        ("NotFound", "Timeout"),
        ("Annotation", "Interval"),
        ("Succeeded", "Failed"),
        ("25%", "26%"),
    ];
    match leaf {
        Value::Bool(b) => Value::Bool(!b),
        Value::Number(n) => (n.as_i64().unwrap() + 1).into(),
        Value::String(s) => {
            if let Some((_, other)) = PAIRS.iter().find(|(text, _)| text == s) {
                (*other).into()
            } else if s.ends_with('Z') && s.contains('T') {
                s.replace("2026", "2027").into()
            } else if s.ends_with(['s', 'm', 'h']) && s.starts_with(|c: char| c.is_ascii_digit()) {
                format!("1{s}").into()
            } else {
                format!("{s}x").into()
            }
        }
        other => unreachable!("{other} is no leaf"),
    }
}
