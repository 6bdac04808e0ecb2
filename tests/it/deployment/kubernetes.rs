//! The manifests for Kubernetes: they agree with each other and with the configuration that they
//! bring along and with the schemas of Kubernetes, and the gateway follows a ConfigMap. What
//! kubectl and helm make of them is `scripts/manifests`' matter.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::{at, from_root, list_at, output, read, text, text_at};
use crate::support::{Client, Folder, Gateway, Upstream, eventually, response, run};

const FOLDER: &str = "deploy/kubernetes";

/// Reads Kubernetes's definitions and files of resources, and says what is not as they want it: all
/// fields are known and of the right type. A kind without a definition ends it.
const VALIDATE: &str = r##"
import json, sys, jsonschema, yaml
definitions = json.load(open(sys.argv[1]))["$defs"]
kinds = {(kind["group"], kind["version"], kind["kind"]): name
         for name, schema in definitions.items()
         for kind in schema.get("x-kubernetes-group-version-kind", [])}
for path in sys.argv[2:]:
    for resource in yaml.safe_load_all(open(path)):
        group, _, version = resource["apiVersion"].rpartition("/")
        name = kinds[group, version, resource["kind"]]
        schema = {"$ref": "#/$defs/" + name, "$defs": definitions}
        for error in jsonschema.Draft202012Validator(schema).iter_errors(resource):
            print(name, list(error.path), error.message)
"##;

/// What a kustomization names, read.
fn resources(folder: &str) -> Vec<Value> {
    let kustomization = &read(&format!("{folder}/kustomization.yaml"))[0];
    let names = list_at(kustomization, "/resources").iter().map(|name| name.as_str().unwrap());
    let documents = names.flat_map(|name| match read(&format!("{folder}/{name}")) {
        Value::Array(documents) => documents,
        other => panic!("{name}: {other}"),
    });
    documents.collect()
}

/// All of them, those of the components too.
fn all() -> Vec<Value> {
    let folders =
        [FOLDER.to_owned(), format!("{FOLDER}/autoscaling"), format!("{FOLDER}/monitoring")];
    folders.iter().flat_map(|folder| resources(folder)).collect()
}

/// The one of this kind and name.
fn of<'a>(all: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found: Vec<&Value> =
        all.iter().filter(|it| it["kind"] == kind && it["metadata"]["name"] == name).collect();
    assert_eq!(found.len(), 1, "{kind} {name}");
    found[0]
}

/// Seconds of a duration such as `30s`.
fn seconds(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.strip_suffix('s')?.parse().ok()).expect("seconds")
}

#[test]
fn every_manifest_is_named_by_a_kustomization() {
    let mut named = BTreeSet::new();
    for folder in ["", "autoscaling/", "monitoring/"] {
        let kustomization = format!("{folder}kustomization.yaml");
        for name in list_at(&read(&format!("{FOLDER}/{kustomization}"))[0], "/resources") {
            named.insert(format!("{folder}{}", name.as_str().unwrap()));
        }
        named.insert(kustomization);
    }
    let mut there = BTreeSet::new();
    for folder in ["", "autoscaling/", "monitoring/"] {
        for entry in std::fs::read_dir(from_root(FOLDER).join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".yaml") {
                there.insert(format!("{folder}{name}"));
            }
        }
    }
    assert_eq!(named, there);
    assert_eq!(all().len(), 7);
}

#[test]
fn every_field_of_a_manifest_is_one_of_kubernetes() {
    let wrong = |files: &[PathBuf]| {
        let mut command = Command::new("python3");
        command.args(["-c", VALIDATE]).arg(from_root("target/kubernetes/definitions-1.32.json"));
        output(command.args(files))
    };
    // A ServiceMonitor is no kind of Kubernetes: the operator brings it along.
    let named = ["deployment", "service", "disruption", "network", "autoscaling/scaler"];
    let files = named.map(|name| from_root(&format!("{FOLDER}/{name}.yaml")));
    assert_eq!(wrong(&files), "");
    let folder = Folder::new();
    let deployment = text(&format!("{FOLDER}/deployment.yaml"));
    let misspelt = deployment.replace("readOnlyRootFilesystem", "readonlyRootFilesystem");
    let said = wrong(&[folder.write("deployment.yaml", misspelt)]);
    assert!(said.contains("'readonlyRootFilesystem' was unexpected"), "{said}");
}

#[test]
fn selectors_find_the_gateways_and_ports_have_their_names() {
    let all = all();
    let pod = at(of(&all, "Deployment", "portcullis"), "/spec/template");
    let labels = at(pod, "/metadata/labels");
    let is_found = |selector: &Value| {
        let wanted = selector.as_object().unwrap();
        !wanted.is_empty() && wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
    };
    for (kind, name, selector) in [
        ("Deployment", "portcullis", "/spec/selector/matchLabels"),
        ("Service", "portcullis", "/spec/selector"),
        ("Service", "portcullis-admin", "/spec/selector"),
        ("PodDisruptionBudget", "portcullis", "/spec/selector/matchLabels"),
        ("NetworkPolicy", "portcullis", "/spec/podSelector/matchLabels"),
    ] {
        assert!(is_found(at(of(&all, kind, name), selector)), "{kind} {name}");
    }
    for spread in list_at(pod, "/spec/topologySpreadConstraints") {
        assert!(is_found(at(spread, "/labelSelector/matchLabels")), "{spread}");
    }
    let scaled = at(of(&all, "HorizontalPodAutoscaler", "portcullis"), "/spec/scaleTargetRef");
    assert_eq!((&scaled["kind"], &scaled["name"]), (&"Deployment".into(), &"portcullis".into()));

    // Ports go by the names that the container gives them, and those are what is listened on.
    let config = read(&format!("{FOLDER}/gateway.toml"));
    let container = at(pod, "/spec/containers/0");
    let port = |name: &str| {
        let found = list_at(container, "/ports").iter().find(|port| port["name"] == name);
        found.unwrap_or_else(|| panic!("no port {name}"))["containerPort"].to_string()
    };
    for (name, listen) in [("http", "/server/listen/0"), ("admin", "/admin/listen")] {
        let listens = text_at(&config, listen).rsplit(':').next().unwrap();
        assert_eq!(port(name), listens, "{name}");
    }
    for (service, name) in [("portcullis", "http"), ("portcullis-admin", "admin")] {
        let target = text_at(of(&all, "Service", service), "/spec/ports/0/targetPort").to_owned();
        assert_eq!(target, name);
    }
    let policy = of(&all, "NetworkPolicy", "portcullis");
    assert_eq!(text_at(policy, "/spec/ingress/0/ports/0/port"), "http");
    assert_eq!(text_at(policy, "/spec/ingress/1/ports/0/port"), "admin");
    assert!(policy["spec"]["ingress"][1]["from"].is_array(), "everybody reaches the admin port");
    for (probe, path) in
        [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz"), ("startupProbe", "/healthz")]
    {
        let asked = at(container, &format!("/{probe}/httpGet"));
        assert_eq!((&asked["path"], &asked["port"]), (&path.into(), &"admin".into()), "{probe}");
    }
}

#[test]
fn prometheus_and_the_scaler_ask_for_what_there_is() {
    let all = all();
    let monitor = of(&all, "ServiceMonitor", "portcullis");
    let service = of(&all, "Service", "portcullis-admin");
    let labels = at(service, "/metadata/labels");
    for (name, value) in at(monitor, "/spec/selector/matchLabels").as_object().unwrap() {
        assert_eq!(labels.get(name), Some(value), "{name}");
    }
    assert_eq!(at(monitor, "/spec/endpoints/0/port"), at(service, "/spec/ports/0/name"));
    // The alerts know the gateways by this job.
    assert_eq!(labels[text_at(monitor, "/spec/jobLabel")], "portcullis");
    let scaler = of(&all, "HorizontalPodAutoscaler", "portcullis");
    let metric = text_at(scaler, "/spec/metrics/0/pods/metric/name");
    assert!(text("docs/reference.md").contains(&format!("| `{metric}` | gauge |")), "{metric}");
    let deployment = of(&all, "Deployment", "portcullis");
    assert_eq!(at(scaler, "/spec/minReplicas"), at(deployment, "/spec/replicas"));
}

#[test]
fn a_pod_has_the_time_to_drain_and_no_rights() {
    let all = all();
    let pod = at(of(&all, "Deployment", "portcullis"), "/spec/template/spec");
    let container = at(pod, "/containers/0");
    let config = read(&format!("{FOLDER}/gateway.toml"));
    let sleep = at(container, "/lifecycle/preStop/sleep/seconds").as_u64().unwrap();
    let needs = seconds(&config["server"]["drain_delay"]) + seconds(&config["server"]["drain"]);
    let has = at(pod, "/terminationGracePeriodSeconds").as_u64().unwrap();
    assert!(has > sleep + needs, "{has}s for {sleep}s + {needs}s");
    let security = at(pod, "/securityContext");
    assert_eq!((&security["runAsNonRoot"], &security["runAsUser"]), (&true.into(), &65532.into()));
    let security = at(container, "/securityContext");
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["capabilities"]["drop"][0], "ALL");
    assert_eq!(pod["automountServiceAccountToken"], false);
    // A file that is mounted by itself never changes.
    for mount in list_at(container, "/volumeMounts") {
        assert!(mount.get("subPath").is_none() && mount["readOnly"] == true, "{mount}");
    }
    let mounted = |name: &str| {
        let mounts = list_at(container, "/volumeMounts").iter();
        mounts.clone().find(|mount| mount["name"] == name).expect(name)["mountPath"].clone()
    };
    assert_eq!(mounted("config"), "/etc/portcullis");
    let secrets = mounted("secrets");
    for key in ["/admin/token", "/store/password"] {
        let secret = text_at(&config, key);
        assert!(secret.starts_with(&format!("file:{}/", secrets.as_str().unwrap())), "{secret}");
    }
}

#[test]
fn the_configuration_of_the_manifests_is_one() {
    let folder = Folder::new();
    let config = text(&format!("{FOLDER}/gateway.toml"));
    folder.write("gateway.toml", config.replace("file:/run/secrets/portcullis/", "file:"));
    folder.write("admin-token", "0123456789abcdef".repeat(4));
    folder.write("redis-password", "0123456789abcdef".repeat(4));
    let checked = run(&folder, &["check"]);
    assert_eq!((checked.stdout.as_str(), checked.stderr.as_str()), ("ok: 1 route\n", ""));
    // It is the one that becomes the ConfigMap which the pods mount.
    let kustomization = &read(&format!("{FOLDER}/kustomization.yaml"))[0];
    assert_eq!(text_at(kustomization, "/configMapGenerator/0/files/0"), "gateway.toml");
    assert_eq!(at(kustomization, "/generatorOptions/disableNameSuffixHash"), true);
    let all = all();
    let pod = at(of(&all, "Deployment", "portcullis"), "/spec/template/spec");
    let map = at(kustomization, "/configMapGenerator/0/name");
    assert_eq!(at(pod, "/volumes/0/configMap/name"), map);
    // The chart brings the same along.
    let values = &read("deploy/helm/portcullis/values.yaml")[0];
    folder.write("values.toml", text_at(values, "/config"));
    let of_chart = read(folder.path().join("values.toml").to_str().unwrap());
    assert_eq!(of_chart, read(&format!("{FOLDER}/gateway.toml")));
    let chart = &read("deploy/helm/portcullis/Chart.yaml")[0];
    assert_eq!(text_at(chart, "/appVersion"), text_at(kustomization, "/images/0/newTag"));
    assert_eq!(text_at(chart, "/appVersion"), env!("CARGO_PKG_VERSION"));
}

/// Puts files in place as the kubelet does: a new folder, and one link that is swapped.
fn project(folder: &Folder, version: &str, config: &str) {
    let path = folder.path();
    let before = std::fs::read_link(path.join("..data")).ok();
    std::fs::create_dir(path.join(version)).unwrap();
    std::fs::write(path.join(version).join("gateway.toml"), config).unwrap();
    symlink(version, path.join("..data_tmp")).unwrap();
    std::fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
    match before {
        Some(before) => std::fs::remove_dir_all(path.join(before)).unwrap(),
        None => symlink("..data/gateway.toml", path.join("gateway.toml")).unwrap(),
    }
}

#[test]
fn a_config_map_that_changes_takes_effect_by_itself() {
    let upstream = Upstream::replying(response("200 OK", "fine"));
    let config = |path: &str| {
        format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nwatch = \"100ms\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n{}\
             [routes.all]\npath = \"{path}\"\nupstream = \"shop\"\n",
            upstream.table("shop")
        )
    };
    let (mounted, started) = (Folder::new(), Folder::new());
    project(&mounted, "..2026_11_30_12_00_00.1", &config("/a"));
    // What the gateway is started with is the link, which stays the same.
    let link = mounted.path().join("gateway.toml");
    symlink(&link, started.path().join("gateway.toml")).unwrap();
    let gateway = Gateway::start_in(started, &config("/a"));
    let status = |path: &str| Client::get(gateway.public, path).send().status;
    assert_eq!((status("/a"), status("/b")), (200, 404));
    project(&mounted, "..2026_11_30_12_00_05.2", &config("/b"));
    eventually("the new ConfigMap is in force", || status("/b") == 200);
    assert_eq!(status("/a"), 404);
    project(&mounted, "..2026_11_30_12_00_10.3", &config("/c"));
    eventually("the next one is, too", || status("/c") == 200);
    assert!(!gateway.stderr().contains("not reloaded"), "{}", gateway.stderr());
}
