//! Flags and environment of what is contacted for tenants: registries and sources.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use larder_registry::address::{IpNet, Policy};
use larder_registry::{HttpOptions, Options, Proxies, RegistriesConfig, SharedPolicy};

/// How registries and sources are reached, and which are not.
#[derive(Args, Clone, Debug, Default)]
pub struct NetworkArgs {
    /// YAML file that names a mirror, plain HTTP, a CA file or a private address for registry hosts.
    #[arg(long)]
    pub registries_config: Option<PathBuf>,
    /// PEM file with authorities that are trusted beside the public ones, for all registries and sources.
    #[arg(long)]
    pub ca_file: Option<PathBuf>,
    /// Range of addresses that is never contacted for a registry or source. May be repeated.
    #[arg(long = "deny-cidr", value_name = "CIDR")]
    pub deny_cidrs: Vec<IpNet>,
    /// Contacts loopback, link-local and API server addresses too: a tenant's choice then reaches them.
    #[arg(long)]
    pub allow_private_addresses: bool,
}

impl NetworkArgs {
    /// The file of `--registries-config`; nothing without.
    pub fn registries(&self) -> anyhow::Result<RegistriesConfig> {
        match &self.registries_config {
            Some(path) => {
                RegistriesConfig::load(path).with_context(|| format!("cannot use {}", path.display()))
            }
            None => Ok(RegistriesConfig::default()),
        }
    }

    /// For registries, and for sources in its part `http`. Proxies are those of the environment. The policy can be told
    /// later where the API server is.
    pub fn options(&self) -> Options {
        let policy = Policy {
            allow_private: self.allow_private_addresses,
            deny: self.deny_cidrs.clone(),
            ..Policy::default()
        };
        Options {
            http: HttpOptions {
                ca_file: self.ca_file.clone(),
                proxies: Proxies::from_env(|name| std::env::var(name).ok()),
                policy: SharedPolicy::new(policy),
                ..HttpOptions::default()
            },
            ..Options::default()
        }
    }
}
