//! One requirement of a label selector or a node selector.

/// A requirement on a value that may be absent. Only what the API server would accept can be built.
#[derive(Debug, PartialEq)]
pub(super) enum Requirement<'a> {
    In(&'a [String]),
    NotIn(&'a [String]),
    Exists,
    DoesNotExist,
    Gt(i64),
    Lt(i64),
}

impl<'a> Requirement<'a> {
    /// Of a label selector: no Gt, no Lt.
    pub(super) fn of_labels(operator: &str, values: &'a [String]) -> Option<Self> {
        match operator {
            "In" if !values.is_empty() => Some(Self::In(values)),
            "NotIn" if !values.is_empty() => Some(Self::NotIn(values)),
            "Exists" if values.is_empty() => Some(Self::Exists),
            "DoesNotExist" if values.is_empty() => Some(Self::DoesNotExist),
            _ => None,
        }
    }

    /// Of a node selector's `matchExpressions`: Gt and Lt compare integers.
    pub(super) fn of_node(operator: &str, values: &'a [String]) -> Option<Self> {
        match (operator, values) {
            ("Gt", [value]) => value.parse().ok().map(Self::Gt),
            ("Lt", [value]) => value.parse().ok().map(Self::Lt),
            _ => Self::of_labels(operator, values),
        }
    }

    /// Of a node selector's `matchFields`: `In` and `NotIn` with exactly one value.
    pub(super) fn of_field(operator: &str, values: &'a [String]) -> Option<Self> {
        match (operator, values) {
            ("In" | "NotIn", [_]) => Self::of_labels(operator, values),
            _ => None,
        }
    }

    /// Whether the value fulfils it. Absence fulfils `NotIn`, as upstream; nothing that compares numbers.
    pub(super) fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match self {
            Self::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
            Self::NotIn(values) => value.is_none_or(|v| values.iter().all(|w| w != v)),
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
            Self::Gt(than) => number().is_some_and(|n| n > *than),
            Self::Lt(than) => number().is_some_and(|n| n < *than),
        }
    }
}
