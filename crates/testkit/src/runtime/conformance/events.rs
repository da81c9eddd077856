//! What the runtime tells of its own accord.

use std::time::Duration;

use anyhow::{Context as _, Result};
use larder_runtime::{EventStream, Runtime, RuntimeEvent};
use tokio::time::{sleep, timeout};

use super::support::{SOON, normalized, pull};

/// Time for a subscription to be heard: nothing says that it was.
const HEARD: Duration = Duration::from_millis(300);

/// A pull and a removal are told by the image's name, the deletion of a blob as something.
pub(super) async fn events(runtime: &dyn Runtime, reference: &str) -> Result<()> {
    let name = normalized(reference)?;
    let mut events = runtime.events().context("no events are told")?.subscribe();
    let changed = RuntimeEvent::Image { name };
    let act = async {
        sleep(HEARD).await;
        pull(runtime, reference).await
    };
    let id = during(&mut events, &changed, act).await.context("a pull")?;
    let act = async {
        let content = runtime.content().context("no content")?;
        Ok(content.delete(&id).await?)
    };
    during(&mut events, &RuntimeEvent::Other, act)
        .await
        .context("the deletion of a blob")?;
    let act = async { Ok(runtime.remove(reference).await?) };
    during(&mut events, &changed, act).await.context("a removal")
}

/// Waits for the act's end and for the event, whichever comes first.
async fn during<T>(
    events: &mut EventStream,
    wanted: &RuntimeEvent,
    act: impl Future<Output = Result<T>>,
) -> Result<T> {
    let told = async {
        while events.next().await? != *wanted {}
        Ok(())
    };
    let both = async { tokio::try_join!(act, told) };
    let (done, ()) = timeout(SOON, both).await.context("not told")??;
    Ok(done)
}
