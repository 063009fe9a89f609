//! The Containerfile and the Kubernetes Job for shards of a soak: read, not run. What they name is there, and the Job's
//! arguments are a command line that is understood.

use std::path::PathBuf;

use clap::Parser as _;
use quintet_coordinator::cli::{Cli, Command};
use quintet_coordinator::soak::plan::Plan;
use quintet_protocol::handshake::Role;
use serde_json::Value;

fn read(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/soak")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The arguments of the Job's container for one shard.
fn arguments(job: &Value, shard: u32) -> Vec<String> {
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    let args = container["args"].as_array().expect("arguments");
    let variable = container["env"][0]["name"].as_str().expect("a variable");
    args.iter()
        .map(|a| {
            a.as_str()
                .expect("text")
                .replace(&format!("$({variable})"), &shard.to_string())
        })
        .collect()
}

#[test]
fn the_job_is_indexed_and_each_shard_has_a_seed_and_a_report_of_its_own() {
    let job: Value = serde_json::from_str(&read("job.json")).expect("JSON");
    assert_eq!(
        (&job["apiVersion"], &job["kind"]),
        (&"batch/v1".into(), &"Job".into())
    );
    let spec = &job["spec"];
    assert_eq!(spec["completionMode"], "Indexed");
    assert_eq!(spec["completions"], spec["parallelism"]);
    // A shard that found something is not to be tried again until it finds nothing.
    assert_eq!(
        (&spec["backoffLimit"], &spec["template"]["spec"]["restartPolicy"]),
        (&0.into(), &"Never".into())
    );
    let field = &spec["template"]["spec"]["containers"][0]["env"][0]["valueFrom"]["fieldRef"]["fieldPath"];
    assert_eq!(
        field,
        "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    );
    let mut reports = Vec::new();
    for shard in 0..spec["completions"].as_u64().expect("a number") as u32 {
        let words = arguments(&job, shard);
        assert!(words.iter().all(|w| !w.contains('$')), "{words:?}");
        let line = ["quintet", "soak"].map(String::from).into_iter().chain(words);
        let Some(Command::Soak(args)) = Cli::try_parse_from(line).expect("parses").command else {
            panic!("not a soak")
        };
        let plan = Plan::new(&args).expect("a plan");
        assert_eq!((plan.seed, plan.ours), (u64::from(shard), true));
        reports.push(plan.report);
    }
    reports.dedup();
    assert_eq!(reports.len(), 4);
    let mount = &spec["template"]["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["name"], spec["template"]["spec"]["volumes"][0]["name"]);
    assert!(reports[0].starts_with(mount["mountPath"].as_str().expect("a path")));
}

#[test]
fn the_container_has_the_five_programs_and_begins_with_soak() {
    let text = read("Containerfile");
    let lines: Vec<(&str, &str)> = text
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(|l| l.split_once(' ').expect("an instruction and its arguments"))
        .collect();
    for (instruction, _) in &lines {
        let known = ["FROM", "RUN", "WORKDIR", "COPY", "USER", "ENTRYPOINT"];
        assert!(known.contains(instruction), "{instruction}");
    }
    let copied = |program: &str| {
        let from = format!("--from=build /source/target/release/{program} /usr/local/bin/");
        lines.iter().any(|&(i, rest)| i == "COPY" && rest == from)
    };
    assert!(copied("quintet"));
    for role in Role::WORKERS {
        assert!(copied(role.binary()), "{role}");
    }
    let entry = lines
        .iter()
        .find(|(i, _)| *i == "ENTRYPOINT")
        .expect("an entry point")
        .1;
    let entry: Vec<String> = serde_json::from_str(entry).expect("a list");
    assert_eq!(entry, ["quintet", "soak"]);
    let user = lines.iter().find(|(i, _)| *i == "USER").expect("a user").1;
    let job: Value = serde_json::from_str(&read("job.json")).expect("JSON");
    assert_eq!(
        job["spec"]["template"]["spec"]["securityContext"]["runAsUser"].to_string(),
        user
    );
    // The manifest of the compiler is of the version that the workspace wants.
    let manifest = include_str!("../../Cargo.toml");
    let version = manifest
        .split("rust-version = \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("a version");
    assert!(lines[0].1.contains(&format!("rust:{version}-")), "{}", lines[0].1);
}
