//! How many connections a node has.

use std::{collections::HashMap, sync::Arc};

use crate::sys::Lock;

/// Connections with certificates of one node: its agent, the one that takes over at an upgrade, and those of either that the hub does not know
/// to be dead yet.
const CONNECTIONS_OF_NODE_MAX: usize = 8;

/// Connections by the node that their certificates name.
#[derive(Debug, Default)]
pub(super) struct OfNodes(Lock<HashMap<Arc<str>, usize>>);

/// A connection of a node, until dropped.
pub(super) struct OfNode {
    all: Arc<OfNodes>,
    node: Arc<str>,
}

impl OfNodes {
    /// `None` if the node has as many as it may.
    pub(super) fn take(self: &Arc<Self>, node: Arc<str>) -> Option<OfNode> {
        let mut counts = self.0.lock();
        let count = counts.entry(Arc::clone(&node)).or_default();
        if *count >= CONNECTIONS_OF_NODE_MAX {
            return None;
        }
        *count += 1;
        Some(OfNode { all: Arc::clone(self), node })
    }
}

impl Drop for OfNode {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock();
        if let Some(count) = counts.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_so_many_connections_and_others_have_theirs() {
        let all = Arc::new(OfNodes::default());
        let take = |node: &str| all.take(node.into());
        let first: Vec<OfNode> = std::iter::from_fn(|| take("node-1")).collect();
        assert_eq!(first.len(), CONNECTIONS_OF_NODE_MAX);
        let other = take("node-2");
        assert!(other.is_some());
        drop((first, other));
        assert!(all.0.lock().is_empty());
    }
}
