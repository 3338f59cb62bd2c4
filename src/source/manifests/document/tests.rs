//! The forms a manifest may have, as text.

use std::fmt::Write as _;

use super::*;

fn names(text: &str) -> Vec<String> {
    let read = parse(text);
    assert_eq!(read.unreadable, [], "{text}");
    read.objects.iter().map(|object| object.key().to_string()).collect()
}

#[test]
fn every_form_kubectl_and_people_write_is_read() {
    let yaml = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: prod}\nspec: {clusterIP: 10.0.0.1}\n";
    let json = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"web","namespace":"prod"},"spec":{"clusterIP":"10.0.0.1"}}"#;
    let items = "  metadata: {name: web, namespace: prod}\n  spec: {clusterIP: 10.0.0.1}\n";
    let cases = [
        ("one YAML document", yaml.to_owned(), 1),
        ("markers before and after", format!("---\n{yaml}---\n"), 1),
        ("a marker with a comment", format!("--- # first\n{yaml}--- # second\n{yaml}"), 2),
        ("an end marker", format!("{yaml}...\n"), 1),
        ("line ends of another system", yaml.replace('\n', "\r\n"), 1),
        ("a byte order mark", format!("\u{feff}{yaml}"), 1),
        ("one JSON document", json.to_owned(), 1),
        ("JSON documents one after the other", format!("{json}\n{json}{json}"), 3),
        ("YAML in flow style", json.replace('"', "").replace(':', ": "), 1),
        (
            "a List in YAML",
            format!("apiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Service\n{items}kind: List\n"),
            1,
        ),
        (
            "a ServiceList, whose items have no kind",
            format!("apiVersion: v1\nitems:\n-\n{items}kind: ServiceList\n"),
            1,
        ),
        ("a List in JSON", format!(r#"{{"apiVersion":"v1","items":[{json},{json}],"kind":"List"}}"#), 2),
        ("lists in lists", format!(r#"{{"kind":"List","items":[{{"kind":"List","items":[{json}]}},{json}]}}"#), 2),
        ("an empty list", r#"{"kind":"List","items":[]}"#.to_owned(), 0),
        ("a list of nothing", "kind: List\nitems:\n".to_owned(), 0),
        ("nothing", String::new(), 0),
        ("only a comment", "# nothing here\n".to_owned(), 0),
    ];
    for (name, text, count) in cases {
        assert_eq!(names(&text), vec!["prod/web"; count], "{name}");
    }
}

#[test]
fn a_text_without_a_single_object_is_something_else() {
    for text in [
        "root:x:0:0\n",
        "404 page not found",
        "17\n",
        "[1, 2]",
        "- kind: Service\n",
        "one\n---\ntwo\n",
        "\"a\"",
        "true",
    ] {
        assert!(parse(text).is_something_else(), "{text:?}");
    }
    for text in [
        "",
        "# nothing\n",
        "---\n",
        "null",
        "a: b\n",
        "kind: List\nitems: []\n",
        "just text\n---\nkind: ConfigMap\n",
        "{}",
    ] {
        assert!(!parse(text).is_something_else(), "{text:?}");
    }
}

#[test]
fn other_kinds_are_counted_and_lists_are_none() {
    let text = "{kind: List, items: [{kind: ConfigMap}, {kind: Servce}, {apiVersion: v2, kind: Service}]}\n---\na: b\n";
    assert_eq!(parse(text).others, 4);
    assert_eq!(parse("{apiVersion: v1, kind: ServiceList, items: []}").others, 0);
}

#[test]
fn other_kinds_are_skipped_silently() {
    let text = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: x}\n\
                ---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: |\n  text\n  }\n";
    let read = parse("kind: ConfigMap\napiVersion: v1\ndata:\n  a: |\n    text\n---\njust text\n---\n[1, 2]\n");
    assert!(read.objects.is_empty() && read.broken.is_empty() && read.unreadable.is_empty(), "{read:?}");
    let read = parse(text.split("---").next().unwrap());
    assert!(read.objects.is_empty() && read.broken.is_empty() && read.unreadable.is_empty(), "{read:?}");
}

#[test]
fn a_broken_object_rejects_itself_alone_and_is_named() {
    let text = r#"{"kind":"List","items":[
        {"apiVersion":"v1","kind":"Service","metadata":{"name":"bad","namespace":"prod"},"spec":{"clusterIP":7}},
        {"apiVersion":"v1","kind":"Service","metadata":"what","spec":{"clusterIP":"10.0.0.1"}},
        {"apiVersion":"v1","kind":"Service"},
        "text", 3, null,
        {"apiVersion":"v1","kind":"Service","metadata":{"name":"web"},"spec":{"clusterIP":"10.0.0.1"}}]}"#;
    let read = parse(text);
    assert_eq!(names(text), ["default/web"]);
    let broken: Vec<_> = read
        .broken
        .iter()
        .map(|(of, broken)| (of.kind(), broken.key.as_ref().map(ToString::to_string), broken.reason.as_str()))
        .collect();
    assert_eq!(
        broken,
        [
            ("Service", Some("prod/bad".to_owned()), "invalid type: integer `7`, expected a string"),
            ("Service", None, "invalid type: string \"what\", expected struct Metadata"),
            ("Service", None, "metadata.namespace \"\" is not a DNS label"),
        ]
    );
}

#[test]
fn a_broken_document_leaves_the_others_and_its_line_is_told() {
    let good = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.0.0.1}\n";
    let read = parse(&format!("{good}---\nkind: Service\n  metadata: [\n---\n{good}"));
    assert_eq!(read.objects.len(), 2);
    let lines: Vec<u64> = read.unreadable.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [7], "{:?}", read.unreadable);
    let read = parse("{\"kind\": \"List\",\n \"items\": [{\"kind\"");
    assert_eq!(read.unreadable.len(), 1);
    assert_eq!(read.unreadable[0].0, 2);
}

#[test]
fn hostile_yaml_is_refused_and_not_expanded() {
    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
    for (name, of) in ["b", "c", "d", "e", "f", "g", "h", "i"].iter().zip(["a", "b", "c", "d", "e", "f", "g", "h"]) {
        writeln!(bomb, "{name}: &{name} [{}]", vec![format!("*{of}"); 10].join(", ")).unwrap();
    }
    assert_eq!(parse(&bomb).unreadable.len(), 1);
    assert_eq!(parse(&"[".repeat(100_000)).unreadable.len(), 1);
    assert_eq!(parse(&format!("{}1", "a: {".repeat(100_000))).unreadable.len(), 1);
    assert_eq!(parse(&"{\"a\":".repeat(100_000)).unreadable.len(), 1);
}

#[test]
fn a_large_cluster_in_one_yaml_document_is_read() {
    let mut text = String::from("apiVersion: v1\nitems:\n");
    for index in 0..10_000 {
        let (high, low) = (index / 250, index % 250);
        write!(
            text,
            "- apiVersion: v1\n  kind: Service\n  metadata:\n    annotations: {{a: b}}\n    labels:\n      app: a\n    \
             name: s{index}\n    namespace: load\n    resourceVersion: \"12\"\n  spec:\n    clusterIP: 10.0.{high}.{low}\n    \
             clusterIPs:\n    - 10.0.{high}.{low}\n    ports:\n    - name: http\n      port: 80\n      targetPort: 8080\n    \
             selector:\n      app: a\n  status:\n    loadBalancer: {{}}\n"
        )
        .unwrap();
    }
    text.push_str("kind: List\n");
    let read = parse(&text);
    assert_eq!(read.unreadable, []);
    assert_eq!(read.objects.len(), 10_000);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_reading_panic(
        noise in "(?s).{0,60}|[-: \n\\[\\]{}&*!|>'\"%@`#?,a]{0,60}",
        at in 0..180_usize,
        cut in 0..60_usize,
    ) {
        let text = "---\napiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata:\n    name: web\n    namespace: prod\n  \
                    spec:\n    clusterIP: 10.0.0.1\n    ports:\n    - {name: a, port: 80}\nkind: List\nmetadata: {}\n---\nkind: List\n";
        let mut changed = text.to_owned();
        changed.replace_range(at..(at + cut).min(text.len()), &noise);
        let _ = parse(&changed);
        let _ = parse(&noise);
    }
}
