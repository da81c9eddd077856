//! An agent on one node with a simulated runtime and registry: pulls that fail, images that vanish, restarts, moved tags,
//! removals called off, caches that share. Whatever happens, what is decided keeps its promises (see `World::check`).

mod chaos;
mod check;
mod pulls;
mod removals;
mod status;
mod turns;
mod world;

use larder_api::node_image_cache::NodeState;
use larder_core::agent::{Action, Decision, PullOrder};

use crate::parts::objects::MIB;
use world::{World, image};

fn pulls(decision: &Decision) -> Vec<&PullOrder> {
    let orders = decision.actions.iter().filter_map(|a| match a {
        Action::Pull(order) => Some(order),
        _ => None,
    });
    orders.collect()
}

fn names(decision: &Decision) -> Vec<&str> {
    let orders = pulls(decision).into_iter();
    orders.map(|o| o.image.trim_start_matches("r.example/")).collect()
}

fn filled(images: &[&str]) -> World {
    let mut world = World::new();
    let all = images.iter().map(|name| image(name, name, MIB)).collect();
    world.revision("r1", all);
    world.claim("web", "r1");
    world.settle();
    assert_eq!(world.state("web"), NodeState::Ready);
    world
}
