//! What an agent has to know of a cache, and what of it a claim carries.

use larder_api::ImageCacheSpec;
use larder_api::image_cache::{OnMissingPlatform, ProtectSpec, RetrySpec, TimeoutsSpec};
use larder_api::node_image_cache::ClaimOverrides;

/// What differs from the defaults; none if nothing does.
pub(super) fn overrides(spec: &ImageCacheSpec) -> Option<ClaimOverrides> {
    let default = ImageCacheSpec::default();
    let overrides = ClaimOverrides {
        suspend: spec.suspend,
        images_per_node: differs(&spec.rollout.images_per_node, &default.rollout.images_per_node),
        timeouts: differs(&spec.timeouts, &default.timeouts),
        retry: differs(&spec.retry, &default.retry),
        protect: differs(&spec.protect, &default.protect),
        on_missing_platform: differs(&spec.on_missing_platform, &default.on_missing_platform),
    };
    (overrides != ClaimOverrides::default()).then_some(overrides)
}

/// Whether pods of the cache run as an account that was chosen for it. What the `default` account of a namespace brings
/// along nobody chose for images of this cache.
pub(super) fn has_service_account(spec: &ImageCacheSpec) -> bool {
    let template = spec.pod_template.as_ref();
    let name = template.and_then(|t| t.service_account_name.as_deref());
    name.is_some_and(|name| !name.is_empty())
}

fn differs<T: Clone + PartialEq>(value: &T, default: &T) -> Option<T> {
    (value != default).then(|| value.clone())
}

/// A claim's settings, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimSettings {
    /// No new work.
    pub suspend: bool,
    /// Pulls of the cache at a time.
    pub images_per_node: usize,
    /// Time limits.
    pub timeouts: TimeoutsSpec,
    /// Repetition.
    pub retry: RetrySpec,
    /// Whether images are pinned.
    pub pin: bool,
    /// Percent of the image file system that stays free.
    pub min_free_percent: i32,
    /// What an image without a manifest for the node's platform means.
    pub on_missing_platform: OnMissingPlatform,
}

impl ClaimSettings {
    /// Fills in the defaults.
    pub fn of(overrides: Option<&ClaimOverrides>) -> Self {
        let overrides = overrides.cloned().unwrap_or_default();
        let default = ImageCacheSpec::default();
        let ProtectSpec { pin, min_free_disk } = overrides.protect.unwrap_or_default();
        let images_per_node = overrides
            .images_per_node
            .unwrap_or(default.rollout.images_per_node);
        Self {
            suspend: overrides.suspend,
            images_per_node: usize::try_from(images_per_node).unwrap_or(1).max(1),
            timeouts: overrides.timeouts.unwrap_or_default(),
            retry: overrides.retry.unwrap_or_default(),
            pin,
            // The schema admits nothing else than a percentage.
            min_free_percent: min_free_disk.trim_end_matches('%').parse().unwrap_or(20),
            on_missing_platform: overrides.on_missing_platform.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_carried_and_all_of_it_comes_back() {
        let mut spec = ImageCacheSpec::default();
        assert_eq!(overrides(&spec), None);
        let settings = ClaimSettings::of(None);
        assert_eq!(
            (settings.images_per_node, settings.min_free_percent, settings.pin),
            (3, 20, true)
        );
        spec.protect.min_free_disk = "5%".into();
        spec.protect.pin = false;
        spec.rollout.images_per_node = 7;
        spec.on_missing_platform = OnMissingPlatform::Fail;
        let carried = overrides(&spec);
        assert!(
            carried
                .as_ref()
                .is_some_and(|o| o.timeouts.is_none() && o.retry.is_none())
        );
        let settings = ClaimSettings::of(carried.as_ref());
        assert_eq!(
            (settings.images_per_node, settings.min_free_percent, settings.pin),
            (7, 5, false)
        );
        assert_eq!(settings.on_missing_platform, OnMissingPlatform::Fail);
    }
}
