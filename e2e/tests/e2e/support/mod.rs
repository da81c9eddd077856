//! What the tests share: the cluster, a namespace of their own, images, and patient looks at objects.

mod env;
mod guest;
mod identity;
mod images;
mod listen;
mod namespace;
mod operator;
mod pages;
mod secrecy;
mod status;
mod truth;

pub use env::{Env, writes_of_larder};
pub use guest::Guest;
pub use namespace::{Namespace, who_pulls};
pub use pages::Pages;
pub use secrecy::{nothing_tells, told};
pub use status::{Cache, condition, eventually, failure, node, reason};
