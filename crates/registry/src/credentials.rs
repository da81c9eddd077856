//! Pull secrets: what they hold and which of it fits an image.

mod docker_config;
mod keyring;

use std::fmt;

use sha2::{Digest, Sha256};

pub use docker_config::DockerConfigError;
pub use keyring::{Keyring, location_fits};

/// One way to prove who asks. Debug shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// User and password.
    Basic {
        /// User.
        username: String,
        /// Password.
        password: String,
    },
    /// A refresh token, exchanged at the registry's token service (`identitytoken`).
    IdentityToken {
        /// The token.
        token: String,
    },
}

impl Credential {
    /// The texts that must never be shown.
    pub(crate) fn secrets(&self) -> Vec<&str> {
        match self {
            Self::Basic { password, .. } => vec![password],
            Self::IdentityToken { token } => vec![token],
        }
    }

    /// Stands for the credential where it must not be shown: `sha256` of it, in hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let parts: [&str; 3] = match self {
            Self::Basic { username, password } => ["basic", username, password],
            Self::IdentityToken { token } => ["identitytoken", token, ""],
        };
        for part in parts {
            // With lengths, so that no two credentials run together into one text.
            hash.update(part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
        format!("{:x}", hash.finalize())
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { .. } => f.write_str("Basic(***)"),
            Self::IdentityToken { .. } => f.write_str("IdentityToken(***)"),
        }
    }
}

/// What may be used for one image: nothing first, then each credential in turn where it is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    fitting: Vec<Credential>,
    known_private: bool,
}

impl Credentials {
    /// No credentials.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// These, in this order.
    pub fn new(fitting: Vec<Credential>) -> Self {
        Self {
            fitting,
            known_private: false,
        }
    }

    /// Where the image was private when last asked, the request without credentials comes last instead of first.
    #[must_use]
    pub fn known_private(mut self, known_private: bool) -> Self {
        self.known_private = known_private;
        self
    }

    /// Whether a request without credentials comes first: then the answer to it is one that anybody gets.
    pub fn anonymous_first(&self) -> bool {
        !self.known_private || self.fitting.is_empty()
    }

    /// The credentials, in the order in which they are to be tried.
    pub fn fitting(&self) -> &[Credential] {
        &self.fitting
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.fitting.is_empty()
    }

    /// Changes exactly when the credentials or their order change; empty where there are none.
    pub fn fingerprint(&self) -> String {
        if self.fitting.is_empty() {
            return String::new();
        }
        let mut hash = Sha256::new();
        for credential in &self.fitting {
            hash.update(credential.fingerprint());
        }
        format!("{:x}", hash.finalize())
    }

    /// In the order in which they are tried; None is a request without credentials.
    pub(crate) fn in_order(&self) -> Vec<Option<&Credential>> {
        let fitting = self.fitting.iter().map(Some);
        if self.known_private {
            fitting.chain([None]).collect()
        } else {
            [None].into_iter().chain(fitting).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(username: &str, password: &str) -> Credential {
        Credential::Basic {
            username: username.into(),
            password: password.into(),
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let all = Credentials::new(vec![
            basic("user", "hunter2"),
            Credential::IdentityToken {
                token: "tok3n".into(),
            },
        ]);
        let shown = format!("{all:?}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("tok3n") && !shown.contains("user"),
            "{shown}"
        );
    }

    #[test]
    fn fingerprints_tell_credentials_apart() {
        let of = |list: &[Credential]| Credentials::new(list.to_vec()).fingerprint();
        assert_eq!(of(&[]), "");
        assert_eq!(of(&[basic("a", "b")]), of(&[basic("a", "b")]));
        assert_ne!(of(&[basic("a", "b")]), of(&[basic("ab", "")]));
        assert_ne!(
            of(&[basic("a", "b"), basic("c", "d")]),
            of(&[basic("c", "d"), basic("a", "b")])
        );
        assert_ne!(
            basic("t", "").fingerprint(),
            Credential::IdentityToken { token: "t".into() }.fingerprint()
        );
    }

    #[test]
    fn known_private_asks_without_credentials_last() {
        let (one, two) = (basic("a", "1"), basic("b", "2"));
        let all = Credentials::new(vec![one.clone(), two.clone()]);
        assert_eq!(all.in_order(), [None, Some(&one), Some(&two)]);
        assert_eq!(
            all.clone().known_private(true).in_order(),
            [Some(&one), Some(&two), None]
        );
        assert_eq!(Credentials::anonymous().known_private(true).in_order(), [None]);
    }
}
