//! What plugins are given, and the answers of CoreDNS to questions that come to them.

use std::fmt::Write as _;

use hickory_proto::op::Message;
use holdfast::dns::Transport;

use super::{
    reference::{read, short, upstream},
    served::serve,
};
use crate::forward::world::{at_once, query};

/// A block of `reference/plugins`.
#[derive(Debug, Default)]
struct Block {
    name: String,
    lines: String,
    /// Questions with their answers.
    asked: Vec<(String, String)>,
}

fn blocks() -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for line in read("reference/plugins").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            blocks.push(Block { name: name.trim_end_matches(']').to_owned(), ..Block::default() });
            continue;
        }
        let block = blocks.last_mut().expect("a block begins with its name");
        match line.split_at_checked(2).unwrap_or((line, "")) {
            ("? ", question) => block.asked.push((question.to_owned(), String::new())),
            ("= ", answer) => answer.clone_into(&mut block.asked.last_mut().expect("a question").1),
            _ => block.lines.extend([line, "\n"]),
        }
    }
    blocks
}

#[tokio::test(start_paused = true)]
async fn plugins_answer_as_coredns_does() {
    let outside = upstream("reference/outside.zone").await;
    let mut wrong = String::new();
    let blocks = blocks();
    assert!(blocks.len() >= 12);
    for block in &blocks {
        let world = serve(&format!(". {{\n{}forward . UP1\n}}\n", block.lines), &[&outside]);
        for (question, expect) in &block.asked {
            let words: Vec<&str> = question.split(' ').collect();
            let mut asked = query(words[0], words[1].parse().expect("a type"), None);
            if words.get(2) == Some(&"CH") {
                // Without EDNS the class is what comes last.
                *asked.last_mut().expect("a question") = 3;
            }
            let resolved = at_once(world.resolve(asked, Transport::Tcp)).await;
            let ours = short(&Message::from_vec(&resolved.message).expect("a message"));
            if ours != *expect {
                let _ = writeln!(wrong, "[{}] {question}: {ours}, not {expect}", block.name);
            }
        }
    }
    assert!(wrong.is_empty(), "answered otherwise:\n{wrong}");
}
