//! containerd's events, as far as they can change what an agent should do.

use std::pin::Pin;

use prost::Message;
use tonic::{Response, Status, Streaming};

use crate::containerd::{Containerd, NAMESPACE};
use crate::error::RuntimeError;
use crate::proto::containerd::events::{ImageChange, TaskExit};
use crate::proto::containerd::services::events::v1::SubscribeRequest;
use crate::proto::containerd::types::Envelope;
use crate::runtime::Events;
use crate::types::RuntimeEvent;

const SUBSCRIBE: &str = "containerd Subscribe";
const TASK_EXIT: &str = "/tasks/exit";
/// Regular expressions of topics. A garbage collection tells of no blobs, only a deletion does.
const TOPICS: [&str; 4] = [
    "^/images/",
    "^/tasks/exit$",
    "^/containers/delete$",
    "^/content/delete$",
];

/// Events as they come. They are told once, from the moment when the first is waited for: what a reader relies on it
/// also has to look up now and then.
pub struct EventStream(State);

type Opening = Pin<Box<dyn Future<Output = Result<Response<Streaming<Envelope>>, Status>> + Send>>;

enum State {
    /// containerd's answer begins with the first event, not before.
    Opening(Opening),
    Open(Box<Streaming<Envelope>>),
    Ended,
}

impl EventStream {
    /// Waits for the next event, for ever if need be. After an error there are no more: subscribe again. Dropping the
    /// future loses nothing.
    pub async fn next(&mut self) -> Result<RuntimeEvent, RuntimeError> {
        loop {
            let answer = match &mut self.0 {
                State::Opening(answer) => answer
                    .await
                    .map(|answer| Some(State::Open(Box::new(answer.into_inner())))),
                State::Open(events) => match events.message().await {
                    Ok(Some(envelope)) => match event(&envelope) {
                        Some(event) => return Ok(event),
                        None => Ok(None),
                    },
                    Ok(None) => Err(Status::unavailable("the events ended")),
                    Err(status) => Err(status),
                },
                State::Ended => Err(Status::failed_precondition("the events ended before")),
            };
            match answer {
                Ok(Some(open)) => self.0 = open,
                Ok(None) => {}
                Err(status) => {
                    self.0 = State::Ended;
                    return Err(RuntimeError::Refused {
                        call: SUBSCRIBE,
                        status: Box::new(status),
                    });
                }
            }
        }
    }
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            State::Opening(_) => "EventStream(opening)",
            State::Open(_) => "EventStream(open)",
            State::Ended => "EventStream(ended)",
        })
    }
}

impl Events for Containerd {
    fn subscribe(&self) -> EventStream {
        let mut client = self.events.clone();
        let filters = TOPICS
            .iter()
            .map(|topic| format!("namespace=={NAMESPACE:?},topic~={topic:?}"))
            .collect();
        EventStream(State::Opening(Box::pin(async move {
            client.subscribe(SubscribeRequest { filters }).await
        })))
    }
}

/// None for what changes nothing: a process that ended in a container that goes on, as probes are.
fn event(envelope: &Envelope) -> Option<RuntimeEvent> {
    let value = envelope.event.as_ref().map(|event| event.value.as_slice());
    let value = value.unwrap_or_default();
    if envelope.topic.starts_with("/images/") {
        // One that cannot be read is still a change.
        return Some(match ImageChange::decode(value) {
            Ok(change) => RuntimeEvent::Image { name: change.name },
            Err(_) => RuntimeEvent::Other,
        });
    }
    if envelope.topic == TASK_EXIT
        && let Ok(exit) = TaskExit::decode(value)
        && exit.id != exit.container_id
    {
        return None;
    }
    Some(RuntimeEvent::Other)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::Any;

    use super::{Envelope, ImageChange, RuntimeEvent, TaskExit, event};

    fn told(topic: &str, message: &impl Message) -> Option<RuntimeEvent> {
        event(&Envelope {
            topic: topic.to_owned(),
            event: Some(Any {
                value: message.encode_to_vec(),
                ..Any::default()
            }),
            ..Envelope::default()
        })
    }

    #[test]
    fn a_probe_that_ends_is_no_news_and_its_container_is() {
        let exit = |id: &str| TaskExit {
            container_id: "web".into(),
            id: id.into(),
        };
        assert_eq!(told("/tasks/exit", &exit("probe-1")), None);
        assert_eq!(told("/tasks/exit", &exit("web")), Some(RuntimeEvent::Other));
    }

    #[test]
    fn what_cannot_be_read_is_still_a_change() {
        let no_text = TaskExit {
            container_id: "web".into(),
            id: "web".into(),
        };
        let envelope = Envelope {
            topic: "/images/update".into(),
            event: Some(Any {
                value: vec![0xff],
                ..Any::default()
            }),
            ..Envelope::default()
        };
        assert_eq!(event(&envelope), Some(RuntimeEvent::Other));
        assert_eq!(told("/containers/delete", &no_text), Some(RuntimeEvent::Other));
        let change = ImageChange { name: "web".into() };
        assert_eq!(
            told("/images/delete", &change),
            Some(RuntimeEvent::Image { name: "web".into() })
        );
    }
}
