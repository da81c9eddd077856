//! Types of plain scalars, by the resolver of `PyYAML` (YAML 1.1).

use super::Yaml;

/// What a plain scalar is. Dates are texts here: they print the same.
pub(super) fn resolve(text: &str) -> Yaml {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Yaml::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Yaml::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Yaml::Bool(false),
        _ => int(text)
            .map(Yaml::Int)
            .or_else(|| float(text).map(Yaml::Float))
            .unwrap_or_else(|| Yaml::Text(text.to_owned())),
    }
}

/// None also for a number beyond 64 bits, which then stays a text and prints the same.
fn int(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let of = |digits: &str, radix: u32| {
        let known = |c: char| c == '_' || c.is_digit(radix);
        (!digits.is_empty() && digits.chars().all(known))
            .then(|| i64::from_str_radix(&digits.replace('_', ""), radix).ok())
            .flatten()
    };
    let number = if let Some(binary) = digits.strip_prefix("0b") {
        of(binary, 2)?
    } else if let Some(hexadecimal) = digits.strip_prefix("0x") {
        of(hexadecimal, 16)?
    } else if digits == "0" {
        0
    } else if let Some(octal) = digits.strip_prefix('0') {
        of(octal, 8)?
    } else if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    } else {
        sexagesimal(digits, of)?
    };
    Some(sign * number)
}

/// A decimal number, or several by 60: `1:30` is 90.
fn sexagesimal(digits: &str, of: impl Fn(&str, u32) -> Option<i64>) -> Option<i64> {
    let mut parts = digits.split(':');
    let mut number = of(parts.next()?, 10)?;
    for part in parts {
        let value: i64 = of(part, 10).filter(|v| *v < 60 && part.len() <= 2 && !part.contains('_'))?;
        number = number.checked_mul(60)?.checked_add(value)?;
    }
    Some(number)
}

/// With a point; an exponent has its sign, so `7e10` is none.
fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    match unsigned {
        ".inf" | ".Inf" | ".INF" if text.starts_with('-') => return Some(f64::NEG_INFINITY),
        ".inf" | ".Inf" | ".INF" => return Some(f64::INFINITY),
        ".nan" | ".NaN" | ".NAN" if unsigned == text => return Some(f64::NAN),
        _ => {}
    }
    let (whole, rest) = unsigned.split_once('.')?;
    let (fraction, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b == b'_' || b.is_ascii_digit());
    let begins = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let signed = |exponent: &str| {
        exponent
            .strip_prefix(['-', '+'])
            .is_some_and(|e| !e.is_empty() && e.bytes().all(|b| b.is_ascii_digit()))
    };
    // Without digits before the point there is no sign either.
    let fits = digits(whole)
        && digits(fraction)
        && exponent.is_none_or(signed)
        && (begins(whole) || (whole.is_empty() && begins(fraction) && unsigned == text));
    fits.then(|| text.replace('_', "").parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_are_what_pyyaml_makes_of_them() {
        // Each line was held against yaml.safe_load of PyYAML 6.0.3.
        for (text, printed) in [
            ("1.10", "1.1"),
            ("2.0", "2.0"),
            ("1.", "1.0"),
            (".5", "0.5"),
            ("1_000.5", "1000.5"),
            ("1.5e+3", "1500.0"),
            ("-.inf", "-inf"),
            ("010", "8"),
            ("0", "0"),
            ("-12", "-12"),
            ("+12", "12"),
            ("1_000", "1000"),
            ("0x1F", "31"),
            ("0b101", "5"),
            ("1:30", "90"),
            ("yes", "True"),
            ("Off", "False"),
            ("~", "None"),
            ("", "None"),
        ] {
            let value = resolve(text);
            assert!(!matches!(value, Yaml::Text(_)), "{text}");
            assert_eq!(value.scalar_text().as_deref(), Some(printed), "{text}");
        }
        for text in [
            "7e10",
            "1e3",
            "1.5e3",
            "08",
            "1.2.3",
            "v1.2",
            "y",
            "n",
            "yES",
            "1-2",
            "0o17",
            ".",
            "-.5",
            "1:60",
            "_1",
            "nginx:1.27",
            "99999999999999999999",
            "\u{661}",
        ] {
            assert_eq!(resolve(text), Yaml::Text(text.into()), "{text}");
        }
    }
}
