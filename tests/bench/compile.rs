//! From files to a snapshot, stage by stage, for 10,000 hosts with 10 routes each: in one file, and in a
//! file for each hundred hosts. Figures are the least and the median of several runs, in milliseconds.

use std::{
    fmt::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use portolan::{
    compile::{self, Registries},
    config::{
        Document, Inputs, decode::decode, include::Reading, load, schema, shape::Shapes, substitute,
        unite::unite, validate::validate,
    },
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const HOSTS: usize = 10_000;
const HOSTS_PER_FILE: usize = 100;
const RUNS: usize = 7;
const ROOT: &str = "portolan.yaml";
const NO_VARIABLES: [(&str, &str); 0] = [];

type Files = Vec<(String, String)>;

/// How long each stage took, in the order in which they ran.
type Stages = Vec<(&'static str, Duration)>;

fn main() {
    measure("one file", &one_file());
    measure("many files", &many_files());
}

fn measure(title: &str, files: &Files) {
    let bytes: usize = files.iter().map(|(_, text)| text.len()).sum();
    println!(
        "{title}: {} hosts, {} routes, {} KiB in {}",
        HOSTS,
        HOSTS * ROUTES.len(),
        bytes >> 10,
        files.len()
    );
    // What is kept over reloads is kept here too: the first run is a start, the others are reloads.
    let registries = Registries::default();
    let runs: Vec<Stages> = (0..RUNS).map(|_| run(files, &registries)).collect();
    for stage in 0..runs[0].len() {
        let mut times: Vec<Duration> = runs.iter().map(|run| run[stage].1).collect();
        times.sort();
        println!("  {:<12}{:>9.1}{:>9.1}", runs[0][stage].0, millis(times[0]), millis(times[RUNS / 2]));
    }
}

fn run(files: &Files, registries: &Registries) -> Stages {
    let mut stages = by_stage(files, registries);
    let inputs = inputs(files);
    let start = Instant::now();
    let loaded = load(Path::new(ROOT), &inputs);
    let (snapshot, _) = compile::compile(
        loaded.document.as_ref().expect("it is sound"),
        &loaded.sources,
        &inputs,
        registries,
    );
    stages.push(("load+compile", start.elapsed()));
    let start = Instant::now();
    drop(loaded);
    stages.push(("drop document", start.elapsed()));
    let start = Instant::now();
    drop(snapshot);
    stages.push(("drop snapshot", start.elapsed()));
    stages
}

fn by_stage(files: &Files, registries: &Registries) -> Stages {
    let mut stages = Stages::new();
    let mut last = Instant::now();
    let mut done = |stage| {
        let now = Instant::now();
        stages.push((stage, now - last));
        last = now;
    };
    let inputs = inputs(files);
    done("(inputs)");
    let shapes = Shapes::of(&schema::strict());
    done("schema");
    let mut reading = Reading::new(&inputs);
    let parts = reading.files(Path::new(ROOT));
    done("parse");
    let mut tree = unite(parts, &shapes, &mut reading.diagnostics).expect("there is a file");
    done("unite");
    substitute::apply(&mut tree, &mut reading);
    done("substitute");
    validate(&tree, &shapes, &mut reading);
    done("validate");
    assert!(reading.diagnostics.is_empty(), "{:?}", reading.diagnostics);
    let document: Document = decode(&tree).expect("it was validated");
    done("decode");
    let (snapshot, diagnostics) = compile::compile(&document, &reading.sources, &inputs, registries);
    done("compile");
    assert!(snapshot.is_some() && diagnostics.is_empty(), "{diagnostics:?}");
    stages.remove(0);
    stages
}

fn inputs(files: &Files) -> Inputs {
    Inputs::memory(files.iter().map(|(path, text)| (path.as_str(), text.as_str())), NO_VARIABLES)
}

fn one_file() -> Files {
    vec![(ROOT.to_owned(), format!("{FIXED}hosts:\n{}", hosts(0..HOSTS)))]
}

fn many_files() -> Files {
    let root = (ROOT.to_owned(), format!("include: \"hosts/*.yaml\"\n{FIXED}"));
    let parts = (0..HOSTS).step_by(HOSTS_PER_FILE).map(|first| {
        let text = hosts(first..first + HOSTS_PER_FILE);
        (format!("hosts/{first:05}.yaml"), format!("hosts:\n{text}"))
    });
    std::iter::once(root).chain(parts).collect()
}

const FIXED: &str = r#"
listeners:
  web: { bind: ":80" }
  tls: { bind: ":8081" }
upstreams:
  api: { endpoints: ["127.0.0.1:9000", "127.0.0.1:9001"] }
  pages: { endpoints: ["127.0.0.1:9002"] }
middleware:
  site:
    - request_id: {}
    - response_headers: { set: { X-Site: portolan } }
"#;

fn hosts(range: std::ops::Range<usize>) -> String {
    let mut text = String::new();
    for n in range {
        let _ =
            writeln!(text, "  h{n}:\n    names: [host-{n}.example.com]\n    middleware: [site]\n    routes:");
        for (place, route) in ROUTES.iter().enumerate() {
            let _ = writeln!(text, "      r{place}:\n{route}");
        }
    }
    text
}

const ROUTES: [&str; 10] = [
    "        path: /\n        proxy: { upstream: pages }",
    "        path: /health\n        methods: [GET]\n        respond: { status: 200, body: fine }",
    "        path: /api/v1/orders\n        methods: [GET, POST]\n        proxy: { upstream: api }",
    "        path: \"/api/v1/orders/{id}\"\n        methods: [GET, DELETE]\n        proxy: { upstream: api, rewrite: \"/orders/{id}\" }",
    "        path: \"/api/v1/streams/{id}\"\n        methods: [GET]\n        proxy: { upstream: api }",
    "        path: \"/api/v1/streams/{id}\"\n        methods: [POST]\n        proxy: { upstream: api }\n        middleware:\n          - request_headers: { set: { X-Stream: \"{id}\" } }",
    "        path: \"/api/v1/streams/{id}/parts/{part}\"\n        proxy: { upstream: api }\n        timeouts: { total: 5s }",
    "        path: /api/v2/**\n        headers: { X-Beta: \"1\" }\n        proxy: { upstream: api, rewrite: { strip_prefix: /api } }",
    "        path: /static/**\n        methods: [GET]\n        proxy: { upstream: pages }",
    "        path: \"/old/{rest...}\"\n        redirect: { to: \"/new/{rest}\" }",
];

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
