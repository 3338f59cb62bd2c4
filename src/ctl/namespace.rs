//! The namespace that names without one are in, as kubectl has it.

use kube::config::Kubeconfig;

/// The namespace of the current context of the kubeconfig (`KUBECONFIG`, else `~/.kube/config`), else `default`. No server is asked.
pub fn default_namespace() -> String {
    of(Kubeconfig::read().ok()).unwrap_or_else(|| "default".into())
}

fn of(config: Option<Kubeconfig>) -> Option<String> {
    let Kubeconfig { current_context, contexts, .. } = config?;
    let current = current_context?;
    contexts.into_iter().find(|context| context.name == current)?.context?.namespace
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_is_that_of_the_current_context() {
        let config = |current: &str| {
            let text = format!(
                "current-context: {current}\ncontexts:\n- {{name: a, context: {{cluster: c, namespace: shop}}}}\n\
                 - {{name: b, context: {{cluster: c}}}}\n"
            );
            Kubeconfig::from_yaml(&text).ok()
        };
        assert_eq!(of(config("a")).as_deref(), Some("shop"));
        assert_eq!([of(config("b")), of(config("none")), of(None)], [None, None, None]);
    }
}
