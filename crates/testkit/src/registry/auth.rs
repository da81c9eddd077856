//! Who may ask the fake registry: everybody, users by password, or holders of its tokens.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};

/// Authentication of the fake registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// None.
    #[default]
    Open,
    /// User and password.
    Basic {
        /// User.
        user: String,
        /// Password.
        password: String,
    },
    /// Tokens of its own service at `/token`, which takes user and password, or `password` as a refresh token.
    Bearer {
        /// User.
        user: String,
        /// Password.
        password: String,
        /// Repositories for which everybody gets a token that is good for something.
        public: Vec<String>,
        /// How long a token is good.
        lifetime: Duration,
    },
}

impl Auth {
    pub(super) fn basic_value(user: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    }
}

/// Tokens given so far.
#[derive(Debug, Default)]
pub(super) struct Issued {
    /// Repository and end of each.
    tokens: BTreeMap<String, (String, Instant)>,
}

impl Issued {
    /// Gives a token for `repository:<name>:…`.
    pub(super) fn issue(&mut self, scope: &str, lifetime: Duration, good: bool) -> String {
        let token = format!("token-{}", self.tokens.len());
        let repository = scope.split(':').nth(1).filter(|_| good).unwrap_or_default();
        self.tokens
            .insert(token.clone(), (repository.to_owned(), Instant::now() + lifetime));
        token
    }

    /// All that were given are worth nothing any more, sooner than was said.
    pub(super) fn revoke(&mut self) {
        for (_, until) in self.tokens.values_mut() {
            *until = Instant::now();
        }
    }

    pub(super) fn allows(&self, authorization: Option<&str>, repository: &str) -> bool {
        let token = authorization.and_then(|a| a.strip_prefix("Bearer "));
        let found = token.and_then(|t| self.tokens.get(t));
        found.is_some_and(|(name, until)| name == repository && *until > Instant::now())
    }
}
