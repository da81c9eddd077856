//! Planner, pullers and agent of one node together, each with its real decisions.

mod called_off;
mod chaos;
mod turns;
mod world;
