//! Registries that want a user and a password.

use larder_core::image_ref::ImageRef;
use larder_runtime::AuthConfig;
use tonic::Status;

use super::model::Model;

impl Model {
    /// Refuses a pull as containerd does when the registry refuses it. A login for another server is not used.
    pub(super) fn check_login(&self, reference: &str, auth: Option<&AuthConfig>) -> Result<(), Status> {
        let Ok(image) = ImageRef::parse(reference) else {
            return Ok(());
        };
        let Some((user, password)) = self.logins.get(image.registry_host()) else {
            return Ok(());
        };
        let server = format!("https://{}", image.api_host());
        let auth = auth.filter(|a| a.server_address.is_empty() || a.server_address == server);
        let name = image.normalized();
        let words = match auth {
            Some(auth) if (&auth.username, &auth.password) == (user, password) => return Ok(()),
            Some(_) => "unexpected status from HEAD request: 401 Unauthorized",
            None => {
                "pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials"
            }
        };
        let words = format!("failed to pull and unpack image {name:?}: failed to resolve image: {words}");
        Err(Status::unknown(words))
    }
}
