//! Carries out what is neither a pull nor a removal: names and pins.

use std::collections::BTreeMap;

use larder_api::names::{PIN_LABEL, PINNED_LABEL};
use larder_runtime::{Runtime, RuntimeError};

/// Value of [`PIN_LABEL`]; any other means nothing.
pub(super) const PIN_VALUE: &str = "pinned";

/// Points a name at an index or manifest that some record points at already. False if none does any more, or the runtime
/// knows no names one by one.
pub(super) async fn tag(runtime: &dyn Runtime, name: &str, target: &str) -> Result<bool, RuntimeError> {
    let Some(records) = runtime.records() else {
        return Ok(false);
    };
    let known = records.list().await?.into_iter().find(|r| r.target == target);
    let Some(known) = known else {
        return Ok(false);
    };
    records.tag(name, &known.to_target()).await?;
    Ok(true)
}

/// Pins an image for Larder, or takes Larder's pin away. False if the runtime knows no pins.
pub(super) async fn pin(runtime: &dyn Runtime, id: &str, pin: bool) -> Result<bool, RuntimeError> {
    let Some(records) = runtime.records() else {
        return Ok(false);
    };
    let (value, ours) = if pin { (PIN_VALUE, "true") } else { ("", "") };
    let labels = BTreeMap::from([
        (PIN_LABEL.to_owned(), value.to_owned()),
        (PINNED_LABEL.to_owned(), ours.to_owned()),
    ]);
    match records.set_labels(id, &labels).await {
        Ok(()) => Ok(true),
        // It went meanwhile: the next look shows that.
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}
