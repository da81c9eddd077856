//! The images of a compose file's services.

use super::template::{TemplateError, Templates, is_template};
use super::yaml::Yaml;
use super::{SourceError, SourceReason, shorten};

/// A service, and its image or why it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) image: Result<String, (SourceReason, String)>,
}

/// The services of a compose file, in its order.
///
/// Every text in it is rendered, because an app of which one cannot be rendered cannot be started: then it is broken
/// whole. What a template has that only Larder does not support matters in images alone.
pub(super) fn images(spec: &Yaml, templates: &Templates) -> Result<Vec<Service>, SourceError> {
    let malformed = |message: &str| Err(SourceError::new(SourceReason::Malformed, message));
    let Some(services) = spec.get("services") else {
        return malformed("its compose file has no services");
    };
    let Some(services) = services.as_map() else {
        return malformed("services of its compose file is not a map");
    };
    templates
        .allow(bytes_of_templates(spec))
        .map_err(|problem| SourceError::new(SourceReason::TooLarge, problem))?;
    check_templates(spec, templates, &mut String::new())?;
    let service = |(name, service): (&String, &Yaml)| Service {
        name: name.clone(),
        image: image(service, templates),
    };
    Ok(services.iter().map(service).collect())
}

fn image(service: &Yaml, templates: &Templates) -> Result<String, (SourceReason, String)> {
    match service.get("image") {
        Some(Yaml::Text(text)) => templates
            .render(text)
            .map(std::borrow::Cow::into_owned)
            .map_err(|error| (SourceReason::BrokenTemplate, format!("image: {error}"))),
        Some(_) => Err((SourceReason::Malformed, "its image is not a text".into())),
        None => Err((SourceReason::Malformed, "it has no image".into())),
    }
}

fn bytes_of_templates(value: &Yaml) -> usize {
    match value {
        Yaml::Text(text) if is_template(text) => text.len(),
        Yaml::List(items) => items.iter().map(bytes_of_templates).sum(),
        Yaml::Map(map) => map.values().map(bytes_of_templates).sum(),
        _ => 0,
    }
}

/// Renders every text; `path` says where a broken one is.
fn check_templates(value: &Yaml, templates: &Templates, path: &mut String) -> Result<(), SourceError> {
    let length = path.len();
    match value {
        Yaml::Text(text) => match templates.render(text) {
            Err(TemplateError::Broken(problem)) => {
                let message = format!("template at {}: {problem}", shorten(path));
                return Err(SourceError::new(SourceReason::BrokenTemplate, message));
            }
            Ok(_) | Err(TemplateError::Unsupported(_)) => {}
        },
        Yaml::List(items) => {
            for (at, item) in items.iter().enumerate() {
                path.push('[');
                path.push_str(&at.to_string());
                path.push(']');
                check_templates(item, templates, path)?;
                path.truncate(length);
            }
        }
        Yaml::Map(map) => {
            for (key, item) in map {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(shorten(key));
                check_templates(item, templates, path)?;
                path.truncate(length);
            }
        }
        Yaml::Null | Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) => {}
    }
    Ok(())
}
