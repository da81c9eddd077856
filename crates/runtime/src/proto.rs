//! Generated from `proto/`: messages, clients and, with the feature `server`, servers.

#![allow(missing_docs, clippy::pedantic)]

use std::fmt;

/// The Container Runtime Interface, `runtime.v1`.
pub mod cri {
    tonic::include_proto!("runtime.v1");
}

/// containerd's own API.
pub mod containerd {
    pub mod types {
        tonic::include_proto!("containerd.types");
    }
    pub mod events {
        tonic::include_proto!("containerd.events");
    }
    pub mod services {
        pub mod images {
            pub mod v1 {
                tonic::include_proto!("containerd.services.images.v1");
            }
        }
        pub mod content {
            pub mod v1 {
                tonic::include_proto!("containerd.services.content.v1");
            }
        }
        pub mod snapshots {
            pub mod v1 {
                tonic::include_proto!("containerd.services.snapshots.v1");
            }
        }
        pub mod events {
            pub mod v1 {
                tonic::include_proto!("containerd.services.events.v1");
            }
        }
        pub mod version {
            pub mod v1 {
                tonic::include_proto!("containerd.services.version.v1");
            }
        }
    }
}

impl fmt::Debug for cri::AuthConfig {
    /// Shows for whom and where, never a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = |secret: &str| if secret.is_empty() { "" } else { "***" };
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("password", &given(&self.password))
            .field("auth", &given(&self.auth))
            .field("server_address", &self.server_address)
            .field("identity_token", &given(&self.identity_token))
            .field("registry_token", &given(&self.registry_token))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::cri::{AuthConfig, PullImageRequest};

    #[test]
    fn debug_text_shows_no_secret() {
        let auth = AuthConfig {
            username: "robot".into(),
            password: "s3cret-1".into(),
            auth: "s3cret-2".into(),
            server_address: "registry.example".into(),
            identity_token: "s3cret-3".into(),
            registry_token: "s3cret-4".into(),
        };
        let text = format!(
            "{:?}",
            PullImageRequest {
                image: None,
                auth: Some(auth)
            }
        );
        assert!(
            text.contains("robot") && text.contains("registry.example"),
            "{text}"
        );
        assert!(!text.contains("s3cret"), "{text}");
    }
}
