//! The planner in a simulated cluster: nodes carry out their claims, flap, fail and leave; caches change, are purged and
//! deleted. Whatever the order of events, the promises of the planner hold.

mod chaos;
mod claims;
mod removals;
mod slots;
mod world;
