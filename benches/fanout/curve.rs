//! How the figures grow with the number of agents: one line for each.

use std::time::Duration;

use holdfast::simulate::Millis;

use super::table::{millis, seconds, to_kb};

/// What is shown of one number of agents.
#[derive(Clone, Copy, Default)]
pub struct Point {
    pub agents: usize,
    /// From the start until all were live; none if they were not in time.
    pub took: Option<Duration>,
    /// The hub's resident memory then, and its share for each connection.
    pub rss_bytes: u64,
    pub each_bytes: u64,
    /// What that start cost the hub.
    pub start_cpu: Duration,
    /// One change to all agents, the median of several.
    pub single: Millis,
    /// A thousand changes in a second.
    pub burst_cpu_s: f64,
    pub burst: Millis,
    /// From the restart of the hub until all were proven equal.
    pub restart: Option<Duration>,
}

/// Prints them as a table in Markdown.
pub fn print(points: &[Point]) {
    println!("\nload of the machine: {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    println!(
        "| agents | hub RSS | … a connection | all live after | hub CPU for that | one change, p50, p99, max \
         | 1,000 changes in a second, p99 | … hub CPU | hub restart, all proven equal after |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for point in points {
        let Point { agents, took, rss_bytes, each_bytes, start_cpu, single, burst_cpu_s, burst, restart } = *point;
        println!(
            "| {agents} | {} MB | {:.1} kB | {} | {:.1} s | {}, {}, {} ms | {} | {burst_cpu_s:.2} s | {} |",
            rss_bytes / 1_000_000,
            to_kb(each_bytes),
            seconds(took),
            start_cpu.as_secs_f64(),
            single.p50,
            single.p99,
            single.max,
            millis(Duration::from_millis(burst.p99)),
            seconds(restart),
        );
    }
}
