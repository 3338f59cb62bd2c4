use hickory_proto::rr::RData;

use super::*;
use crate::{
    dns::{Transport, question::question_name},
    wire::Rtype,
};

fn asker(client: [u8; 4]) -> Asker {
    Asker {
        client: (client, 4_000).into(),
        server: ([127, 0, 0, 1], 5_391).into(),
        transport: Transport::Udp,
        id: 7,
        recursion_desired: true,
        bytes: 40,
        payload: Some(1_232),
    }
}

fn shown(templates: &[&str], name: &str, rtype: RecordType) -> String {
    let templates: Vec<Template> = templates.iter().map(|text| text.parse().unwrap()).collect();
    let name = Name::from_ascii(name).unwrap();
    let question = Question::new(question_name(&name), Rtype(rtype.into()));
    let asker = asker([192, 0, 2, 9]);
    let Some(filled) = answer(&templates, &Name::from_ascii("example.").unwrap(), &question, Some(&asker)) else {
        return "next".into();
    };
    let records =
        |records: &[Record]| records.iter().flat_map(|record| [" ".to_owned(), record.to_string()]).collect::<String>();
    let rcode = rcodes::shown(filled.rcode);
    let section = |mark: &str, set: &[Record]| {
        if set.is_empty() { String::new() } else { format!(" {mark}{}", records(set)) }
    };
    let [authorities, additionals] = [section("/", &filled.authorities), section("+", &filled.additionals)];
    format!("{rcode}{}{authorities}{additionals}", records(&filled.answers))
}

#[test]
fn a_type_may_be_answered_empty_and_a_pattern_denied() {
    let both = [
        "AAAA",
        r#"ANY zone internal.example match "^(?:[^.]+\.){4,}internal\.example\.$" rcode NXDOMAIN fallthrough"#,
    ];
    for (name, rtype, expect) in [
        ("www.example.", RecordType::AAAA, "NOERROR"),
        ("www.example.", RecordType::A, "next"),
        ("a.b.c.d.e.Internal.example.", RecordType::A, "NXDOMAIN"),
        ("a.internal.example.", RecordType::A, "next"),
    ] {
        assert_eq!(shown(&both, name, rtype), expect, "{name} {rtype}");
    }
}

#[test]
fn fields_are_filled_in() {
    for (template, name, expect) in [
        (
            r#"A match "^ip-(?P<a>[0-9]*)-(?P<b>[0-9]*)-(?P<c>[0-9]*)-(?P<d>[0-9]*)\.example\.$" answer "{{ .Name }} 60 IN A {{ .Group.a }}.{{ .Group.b }}.{{ .Group.c }}.{{ .Group.d }}" fallthrough"#,
            "IP-10-1-2-3.example.",
            "NOERROR ip-10-1-2-3.example. 60 IN A 10.1.2.3",
        ),
        (
            r#"A match ^ip0a(..)(..)(..)\. answer "{{.Name}} IN {{ .Type }} 10.{{ parseInt (index .Group `1`) 16 8 }}.{{ parseInt (index .Match 2) 16 8 }}.{{ parseInt (index .Group `3`) 16 8 }}""#,
            "ip0a5f6f0a.example.",
            "NOERROR ip0a5f6f0a.example. 3600 IN A 10.95.111.10",
        ),
        (
            r#"ANY match "^(.*)\.corp\.example\.$" answer "{{ .Name }} 5 {{ .Class }} CNAME {{ index .Match 1 }}.{{ .Zone }}""#,
            "a.corp.example.",
            "NOERROR a.corp.example. 5 IN CNAME a.example.",
        ),
        (
            r#"ANY rcode NXDOMAIN authority "{{ .Zone }} 60 IN SOA ns.{{ .Zone }} host.{{ .Zone }} 1 60 60 60 60""#,
            "x.example.",
            "NXDOMAIN / example. 60 IN SOA ns.example. host.example. 1 60 60 60 60",
        ),
        (
            r#"A answer "{{ .Name }} 5 IN A {{ .Remote }}" additional "x.example. 5 IN TXT {{ .Question.Qtype }}-{{ .Question.Qclass }}""#,
            "b.example.",
            "NOERROR b.example. 5 IN A 192.0.2.9 + x.example. 5 IN TXT 1-1",
        ),
        (r#"A match ^a$ answer "x 1 IN A 10.0.0.1""#, "b.example.", "SERVFAIL"),
        (r#"A answer "{{ .Name }} 60 IN A nonsense""#, "b.example.", "SERVFAIL"),
    ] {
        assert_eq!(shown(&[template], name, RecordType::A), expect, "{template}");
    }
}

#[test]
fn templates_are_shown_as_they_are_written() {
    for text in [
        "AAAA",
        r#"ANY rcode NXDOMAIN ederror 15 "no such thing" fallthrough"#,
        r#"ANY zone internal.example. match ^a\.b$ answer "{{ .Name }} 60 IN A 10.0.0.1" rcode NXDOMAIN fallthrough"#,
        r#"MX answer "{{ .Name }} MX 1 a.example." additional "a.example. A 10.0.0.1""#,
    ] {
        assert_eq!(text.parse::<Template>().unwrap().to_string(), text);
    }
    for text in
        ["", "NONSENSE-TYPE", "A match", "A match (", "A rcode WRONG", "A answer {{nonsense}}", "A answer {{", "A x y"]
    {
        assert!(text.parse::<Template>().is_err(), "{text:?}");
    }
}

/// The text of a TXT record whose template has these words in front and `text` in quotes, for `5-x.q.test.`; without an answer,
/// the reason.
fn filled(options: &[&str], text: &str) -> String {
    let record = format!("{{{{ .Name }}}} 60 IN TXT \"{text}\"");
    let pattern = "^(?P<n>[0-9]+)-x[.]q[.]test[.]$";
    let words = [&["TXT", "match", pattern], options, &["answer", record.as_str()]].concat();
    let template: Template = match words::join(words).parse() {
        Ok(template) => template,
        Err(error) => return format!("refused: {error}"),
    };
    let question = Question::new("5-x.q.test.".parse().unwrap(), Rtype::TXT);
    let zone = Name::from_ascii("q.test.").unwrap();
    let filled = answer(&[template], &zone, &question, Some(&asker([127, 0, 0, 1]))).unwrap();
    match (filled.answers.as_slice(), &filled.reason) {
        ([record], _) => match &record.data {
            RData::TXT(text) => String::from_utf8_lossy(&text.txt_data.concat()).into_owned(),
            other => other.to_string(),
        },
        (_, reason) => format!("SERVFAIL {}", reason.as_ref().map_or("", |reason| &reason.text)).trim_end().to_owned(),
    }
}

/// The texts are what CoreDNS 1.14.7 gave for the same templates.
#[test]
fn templates_come_to_what_coredns_makes_of_them() {
    for (text, expect) in [
        ("{{ range $i, $m := .Match }}{{ $i }}={{ $m }};{{ end }}", "0=5-x.q.test.;1=5;"),
        (
            "{{ 1e6 }} {{ 123456.0 }} {{ 1.5e-7 }} {{ 1.5 }} {{ 1e3 }} {{ 0x10 }} {{ 'a' }}",
            "1e+06 123456 1.5e-07 1.5 1000 16 97",
        ),
        ("{{ printf `%v %g %.3g` 1e20 1e21 1234.5 }}", "1e+20 1e+21 1.23e+03"),
        (
            "{{ eq .Type `A` `TXT` }} {{ ne 1 2 }} {{ le 1 1 }} {{ ge `b` `a` }} {{ not .Var }}",
            "true true true true true",
        ),
        ("{{ and .Name .Type }} {{ or `` .Type }} {{ and 1 0 }} {{ or 0 `x` }} {{ not 0 }}", "TXT TXT 0 x true"),
        (
            "{{ .Group.none }} {{ .Group.x.y }} {{ index .Group `zz` }}|{{ index .Group `n` }}",
            "<no value> <no value> |5",
        ),
        ("{{ with .Group.x }}w{{ else with .Name }}{{ . }}{{ end }}", "5-x.q.test."),
        ("a {{- ` b ` -}} c", "a b c"),
        ("{{ printf `%d` }} {{ printf `x` 1 }} {{ printf `%z` 1 }}", "%!d(MISSING) x%!(EXTRA int=1) %!z(int=1)"),
        ("{{ range 3 }}{{ if eq . 1 }}{{ continue }}{{ end }}{{ . }}{{ end }}", "02"),
        ("{{ range 3 }}{{ . }}-{{ end }}", "0-1-2-"),
        ("{{ $x := `` }}{{ range 3 }}{{ $x = print $x . }}{{ end }}{{ $x }}", "012"),
        (
            "{{ slice .Name 0 3 }} {{ slice .Match 0 1 }} {{ len (slice .Name 1) }} {{ index .Name 0 }}",
            "5-x [5-x.q.test.] 10 53",
        ),
        ("{{ printf `%x %X %8.3f|%-6d|%06d|%+d` `ab` 255 3.14159 42 42 42 }}", "6162 FF    3.142|42    |000042|+42"),
        ("{{ printf `%05d|%x|%-5s|%t|%v|%d` 42 255 `b` true nil `s` }}", "00042|ff|b    |true|<nil>|%!d(string=s)"),
        (
            "{{ printf `%v %s %d %c %o %b %U %e %g %6.2f|%+d|%T` .Match .Type .Match 97 8 5 97 1.5 1.5 3.14159 5 .Group }}",
            "[5-x.q.test. 5] TXT [%!d(string=5-x.q.test.) %!d(string=5)] a 10 101 U+0061 1.500000e+00 1.5   3.14|+5|map[string]string",
        ),
        (
            "{{ range $k, $v := .Group }}{{ $k }}={{ $v }} {{ end }}{{ range .Var }}x{{ else }}none{{ end }}",
            "0=5-x.q.test. 1=5 n=5 none",
        ),
        ("{{ parseInt `1f` 16 8 }} {{ parseInt `7` 10 0 }} {{ parseInt `0x1f` 0 64 }}", "31 7 31"),
        ("{{ with .Type }}{{ $.Name }} {{ . }}{{ end }}", "5-x.q.test. TXT"),
        (
            "{{ (index .Message.Question 0).Name }} {{ .Question.Qtype }} {{ .Message.RecursionDesired }}",
            "5-x.q.test. 16 true",
        ),
        ("{{/* c */}}a{{- /* d */ -}} b", "ab"),
        ("{{ .Name | len | printf `%d-%d` 1 }} {{ 1 | printf `%d %d` 2 }}", "1-11 2 1"),
        ("{{ .Zone }} {{ .Remote }} {{ .Regex }} {{ .Class }}", "q.test. 127.0.0.1 ^(?P<n>[0-9]+)-x[.]q[.]test[.]$ IN"),
        ("{{ print 1 2 `a` `b` 3 4 true }} {{ html `<a>` }} {{ urlquery `a b` }}", "1 2ab3 4 true &lt;a&gt; a+b"),
        ("{{ if eq .Type `A` }}yes{{ else if lt 1 2 }}mid{{ else }}no{{ end }}", "mid"),
        (
            "{{ define `q` }}[{{ . }}]{{ end }}{{ template `q` .Name }}{{ block `r` . }}({{ .Type }}){{ end }}",
            "[5-x.q.test.](TXT)",
        ),
        ("{{ .Meta `kubernetes/client-namespace` }}end", "end"),
        ("{{ .Match }} {{ .Group }} {{ .Var }}", "[5-x.q.test. 5] map[0:5-x.q.test. 1:5 n:5] map[]"),
    ] {
        assert_eq!(filled(&[], text), expect, "{text}");
    }
}

#[test]
fn expressions_come_to_what_coredns_makes_of_them() {
    for (options, text, expect) in [
        (&["var", "n", "int(group('n'))", "expr", "n > 1"][..], "{{ .Var.n }}", "5"),
        (&["var", "ip", "replace(group(0), '-', '.')"], "{{ .Var.ip }}", "5.x.q.test."),
        (&["var", "local", "incidr(client_ip(), '127.0.0.0/8')"], "{{ if .Var.local }}in{{ else }}out{{ end }}", "in"),
        (&["expr", "any(['10.0.0.0/8', '127.0.0.0/8'], incidr(client_ip(), #))"], "yes", "yes"),
        (
            &["var", "a", "name() + type() + class() + proto()", "var", "b", "server_ip() + ' ' + server_port()"],
            "{{ .Var.a }} {{ .Var.b }}",
            "5-x.q.test.TXTINudp 127.0.0.1 5391",
        ),
        (&["var", "c", "[opcode(), bufsize(), do()]"], "{{ .Var.c }}", "[0 1232 false]"),
        (&["var", "a", "[7 / 2, 7 % 4, 2 ** 3, -3 + 10 * 2, 1.5 + 1]"], "{{ .Var.a }}", "[3.5 3 8 17 2.5]"),
        (
            &[
                "var",
                "b",
                "split('a,b,c', ',')",
                "var",
                "a",
                "[upper('ab') + lower('CD') + trim('  x '), b, join(b, '+')]",
            ],
            "{{ .Var.a }}",
            "[ABcdx [a b c] a+b+c]",
        ),
        (&["var", "a", "[len('abc'), 'abc'[1:2], indexOf('abc','c'), [1,2,3][-1]]"], "{{ .Var.a }}", "[3 b 2 3]"),
        (
            &["var", "a", "[true and not false, 1 in [1,2], 'x' not in ['y'], 'abc' matches '^a.c$', nil ?? 'd']"],
            "{{ .Var.a }}",
            "[true true true true d]",
        ),
        (
            &[
                "var",
                "a",
                "[map(1..3, # * 2), filter([1,2,3], # > 1), sum([1,2,3]), count([1,2,3], # > 1), reduce([1,2,3], #acc + #)]",
            ],
            "{{ .Var.a }}",
            "[[2 4 6] [2 3] 6 2 6]",
        ),
        (
            &["var", "c", "{'k': 5}", "var", "a", "[1 > 2 ? 'y' : 'n', c.k, let q = 2; q * q]"],
            "{{ .Var.c }} {{ .Var.a }}",
            "map[k:5] [n 5 4]",
        ),
        (&["var", "e", "name() | upper()"], "{{ .Var.e }}", "5-X.Q.TEST."),
        (&["var", "a", "1 / 0"], "{{ .Var.a }}", "+Inf"),
        (&["expr", "metadata('a/b') == ''"], "empty", "empty"),
        (&["expr", "1"], "x", "SERVFAIL"),
        (&["expr", "name() == 'other.'"], "x", "SERVFAIL"),
        (&["var", "a", "1 % (int(group('n')) - 5)"], "x", "SERVFAIL template: integer divide by zero"),
        (&["var", "a", "int('zz')"], "x", "SERVFAIL template: invalid operation: int(zz)"),
        (&["expr", "incidr('notanip', '10.0.0.0/8')"], "x", "SERVFAIL template: first argument is not an IP address"),
    ] {
        assert_eq!(filled(options, text), expect, "{options:?}");
    }
}

#[test]
fn a_template_that_fails_or_does_not_end_is_servfail() {
    for (options, text, reason) in [
        (&[][..], "{{ eq 1 1.0 }}", "incompatible types for comparison"),
        (&[], "{{ lt true false }}", "incompatible types for comparison"),
        (&[], "{{ index .Match 5 }}", "index out of range: 5"),
        (&[], "{{ .Name.Foo }}", "can't evaluate field Foo in type string"),
        (&[], "{{ .Nope }}", "can't evaluate field Nope"),
        (&[], "{{ parseInt `300` 10 8 }}", "parseInt: \"300\""),
        (&[], "{{ parseInt `-1` 10 8 }}", "parseInt: \"-1\""),
        (&[], "{{ template `zz` }}", "template \"zz\" not defined"),
        (&[], "{{ call .Name }}", "wrong number or type of args for call"),
        (&[], "{{ range `ab` }}{{ . }}{{ end }}", "range can't iterate over ab"),
        (
            &[],
            "{{ define `a` }}{{ template `a` . }}{{ end }}{{ template `a` . }}",
            "templates use each other more than 30 deep",
        ),
        (&[], "{{ range 100000000 }}{{ end }}", "takes more than 20000 steps"),
        (&[], "{{ range 100000000 }}aaaaaaaaaa{{ end }}", "makes more than 16384 bytes"),
        (&[], "{{ $x := `ab` }}{{ range 100 }}{{ $x = print $x $x }}{{ end }}", "makes more than 16384 bytes"),
        (&[], "{{ printf `%100000000d` 1 }}", "printf: too wide"),
        (&["var", "a", "len(1..100000000)"], "x", "takes more than 20000 steps"),
        (&["var", "a", "repeat('ab', 100000000)"], "x", "repeat: too long"),
    ] {
        assert_eq!(filled(options, text), format!("SERVFAIL template: {reason}"), "{options:?} {text}");
    }
}

/// CoreDNS refuses the same.
#[test]
fn texts_that_are_no_templates_are_refused() {
    let deep = "{{ if 1 }}".repeat(60);
    let parens = format!("{{{{ {}1 }}}}", "(".repeat(60));
    for text in [
        "{{ end }}",
        "{{ if }}x{{ end }}",
        "{{ if 1 }}x",
        "{{ nonsense }}",
        "{{ $x }}",
        "{{ $x = 1 }}",
        "{{ 1 | 2 }}",
        "{{ nil }}",
        "{{ break }}",
        "{{ `a }}",
        "{{ (1 }}",
        "{{ 1) }}",
        "{{ else }}",
        "{{ range 2 }}{{ else }}{{ else }}{{ end }}",
        "{{ .a.",
        "{{ $a, $b := 1 2 }}",
        "{{ 'ab' }}",
        "{{ 1x }}",
        "{{ /* }}",
        "{{ with }}",
        "{{ template }}",
        "{{ define x }}{{ end }}",
        &deep,
        &parens,
    ] {
        assert!(filled(&[], text).starts_with("refused: "), "{text}: {}", filled(&[], text));
    }
    let nested = "(".repeat(100);
    for expression in [
        "",
        "1 +",
        "nonsense",
        "nonsense()",
        "(1",
        "[1",
        "{1",
        "1 % 0",
        "'a",
        "#",
        "name(1)",
        "a ? b",
        "let len = 1; 2",
        "now()",
        &nested,
    ] {
        assert!(filled(&["expr", expression], "x").starts_with("refused: "), "{expression}");
    }
    for name in ["len", "name", "true", "1a", "a-b", "", "matches"] {
        assert!(filled(&["var", name, "1"], "x").starts_with("refused: "), "{name}");
    }
}
