//! The order of plugins: each pair of them in both orders of the file, with the answers of CoreDNS, whose order is its own.

use std::fmt::Write as _;

use super::{
    reference::{read, short, upstream},
    served::serve,
};
use crate::forward::world::at_once;

/// The plugins that change answers, in the order of CoreDNS's plugin.cfg.
const PLUGINS: [&str; 8] = ["dns64", "any", "rewrite", "acl", "cache", "template", "hosts", "forward"];

/// A block of `order/pairs`.
#[derive(Debug, Default)]
struct Pair {
    plugins: String,
    /// The lines of each.
    lines: [String; 2],
    /// Questions with their answers.
    asked: Vec<(String, String)>,
}

fn pairs() -> Vec<Pair> {
    let mut pairs: Vec<Pair> = Vec::new();
    let mut part = 0;
    for line in read("order/pairs").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(plugins) = line.strip_prefix('[') {
            pairs.push(Pair { plugins: plugins.trim_end_matches(']').to_owned(), ..Pair::default() });
            part = 0;
            continue;
        }
        let pair = pairs.last_mut().expect("a pair begins with its plugins");
        match line.split_at_checked(2).unwrap_or((line, "")) {
            ("? ", question) => pair.asked.push((question.to_owned(), String::new())),
            ("= ", answer) => answer.clone_into(&mut pair.asked.last_mut().expect("a question").1),
            _ if line == "--" => part = 1,
            _ => pair.lines[part].extend([line, "\n"]),
        }
    }
    pairs
}

#[tokio::test(start_paused = true)]
async fn plugins_act_in_the_order_of_coredns_whatever_their_order_in_the_file() {
    let outside = upstream("reference/outside.zone").await;
    let pairs = pairs();
    let named: Vec<&str> = pairs.iter().map(|pair| pair.plugins.as_str()).collect();
    let every: Vec<String> = (0..PLUGINS.len())
        .flat_map(|first| PLUGINS[first + 1..].iter().map(move |second| format!("{} {second}", PLUGINS[first])))
        .collect();
    assert_eq!(named, every, "each pair once");
    let mut wrong = String::new();
    for pair in pairs {
        let [first, second] = &pair.lines;
        let rest = if pair.plugins.ends_with("forward") { "" } else { "forward . UP1\n" };
        for lines in [[first, second], [second, first]] {
            let world = serve(&format!(". {{\n{}{}{rest}}}\n", lines[0], lines[1]), &[&outside]);
            for (question, expect) in &pair.asked {
                let (owner, rtype) = question.split_once(' ').expect("a name and a type");
                let ours = short(&at_once(world.ask(owner, rtype.parse().expect("a type"))).await);
                if ours != *expect {
                    let first = lines[0].split_whitespace().next().unwrap_or_default();
                    let _ = writeln!(wrong, "[{}] {question}, {first} first: {ours}, not {expect}", pair.plugins);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "answered otherwise:\n{wrong}");
}
