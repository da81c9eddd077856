//! One node with a simulated kubelet: it pulls the containers of pull pods one after another, fails some, hangs on some,
//! loses pods, and carries out purges. Whatever happens, what is decided for the node keeps its promises.

mod agent;
mod agents;
mod chaos;
mod pulls;
mod removals;
mod world;

fn images(host: &str, n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{host}/r{i}:1")).collect()
}
