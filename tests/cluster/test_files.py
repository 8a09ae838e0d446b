"""Every file that describes machines is valid for what reads it, and they agree where they speak of one thing."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from tests.cluster import manifests, prometheus_rule
from tests.cluster.manifests import CLUSTER, COMPOSE, HEALTH, KUBERAY, RAY_UP, ROOT

SET = {"TRANSFERLIB_DATA": "/photos", "TRANSFERLIB_TOKEN_FILE": "/token"}
PROMETHEUS_DIR = "/etc/prometheus"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    text = manifests.interpolated((CLUSTER / "compose.yaml").read_text(), SET)
    loaded: dict[str, Any] = yaml.load(text, Loader=manifests.UniqueKeyLoader)
    return loaded


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Return what a compose service mounts, by the place where."""
    found = {}
    for volume in service.get("volumes", []):
        source, target = volume.split(":")[:2] if isinstance(volume, str) else (volume["source"], volume["target"])
        found[target] = source
    return found


# Compose


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_files_fit_the_specification(path: Path) -> None:
    loaded = yaml.safe_load(manifests.interpolated(path.read_text(), SET))
    assert manifests.mistakes(loaded, "compose-spec.json") == []


def test_a_mistake_in_a_compose_file_is_seen(compose: dict[str, Any]) -> None:
    head = {**compose["services"]["head"], "shm": "2gb"}
    assert manifests.mistakes({**compose, "services": {"head": head}}, "compose-spec.json") != []


@pytest.mark.parametrize("name", SET)
def test_compose_says_which_variable_is_missing(name: str) -> None:
    others = {key: value for key, value in SET.items() if key != name}
    with pytest.raises(ValueError, match=name):
        manifests.interpolated((CLUSTER / "compose.yaml").read_text(), others)


def test_compose_publishes_on_loopback_only(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert sorted(port.split(":")[-1] for port in published) == ["3000", "8265", "9090"]
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert all("network_mode" not in service for service in compose["services"].values())


def test_compose_gives_every_ray_container_the_token_as_a_file(compose: dict[str, Any]) -> None:
    for name in ("head", "worker", "client"):
        service = compose["services"][name]
        assert service["secrets"] == ["ray_token"]
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
        assert "RAY_AUTH_TOKEN" not in service["environment"]
        assert service["shm_size"]
    assert compose["secrets"] == {"ray_token": {"file": "/token"}}


def test_compose_nodes_share_runs_data_and_cache(compose: dict[str, Any]) -> None:
    shared = {"/data": "/photos", "/runs": "runs", "/cache": "cache", "/metrics": "metrics"}
    for name in ("head", "worker", "client"):
        assert shared.items() <= mounts(compose["services"][name]).items()


def test_compose_prometheus_reads_the_folders_that_the_head_writes(compose: dict[str, Any]) -> None:
    head, prometheus = (mounts(compose["services"][name]) for name in ("head", "prometheus"))
    environment = compose["services"]["head"]["environment"]
    writes = {"transferlib": head[environment["TRANSFERLIB_METRICS_DIR"]], "ray": head["/tmp/ray"]}
    config = manifests.document(CLUSTER / "prometheus.yml")
    for scrape in config["scrape_configs"]:
        listed = [files for found in scrape.get("file_sd_configs", []) for files in found["files"]]
        reads = {prometheus.get(str(PurePosixPath(PROMETHEUS_DIR, files).parent)) for files in listed}
        if scrape["job_name"] in writes:
            assert writes.pop(scrape["job_name"]) in reads
    assert writes == {}
    assert prometheus[f"{PROMETHEUS_DIR}/rules"] == "./rules"
    assert environment["TRANSFERLIB_METRICS_TARGET"] == "head"
    assert environment["TRANSFERLIB_METRICS_HOST"] == "0.0.0.0"


def test_compose_head_owns_its_discovery_files_when_it_was_made_anew_and_short_jobs_are_scraped(
    compose: dict[str, Any],
) -> None:
    from transferlib.telemetry.exporter import Settings

    head = compose["services"]["head"]
    assert head["hostname"] == head["environment"]["TRANSFERLIB_METRICS_TARGET"]
    [scraped_every_s] = {
        int(scrape["scrape_interval"].removesuffix("s"))
        for scrape in manifests.document(CLUSTER / "prometheus.yml")["scrape_configs"]
        if scrape["job_name"] == "transferlib"
    }
    assert Settings.from_environ(head["environment"]).linger_s > scraped_every_s


def test_a_client_that_is_told_to_end_has_longer_than_the_job_that_it_stops(compose: dict[str, Any]) -> None:
    from transferlib.cli.cluster_target import STOP_GRACE_S

    client = compose["services"]["client"]
    assert int(client["stop_grace_period"].removesuffix("s")) > STOP_GRACE_S
    job = manifests.kuberay("RayJob")["spec"]
    driver = yaml.safe_load(job["runtimeEnvYAML"])["env_vars"]
    assert int(driver["RAY_JOB_STOP_WAIT_TIME_S"]) > STOP_GRACE_S
    assert job["entrypoint"].startswith("exec "), "SIGTERM is for `submit`, not for a shell before it"


def test_nodes_have_the_time_that_ray_takes_to_end(compose: dict[str, Any]) -> None:
    from ray._private.ray_constants import RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S as DRAIN_S

    nodes = [compose["services"][name]["stop_grace_period"] for name in ("head", "worker")]
    assert all(int(grace.removesuffix("s")) > DRAIN_S for grace in nodes)
    assert all(pod["terminationGracePeriodSeconds"] > DRAIN_S for pod in manifests.pods().values())


def test_compose_mounts_files_that_are_there(compose: dict[str, Any]) -> None:
    sources = {source for service in compose["services"].values() for source in mounts(service).values()}
    here = {source for source in sources if source.startswith("./")}
    assert here == {"./prometheus.yml", "./rules", "./grafana"}
    assert all((CLUSTER / source).exists() for source in here)
    assert sources - here - {"/photos"} == set(compose["volumes"])


def test_compose_grafana_finds_its_dashboards_and_prometheus(compose: dict[str, Any]) -> None:
    grafana = compose["services"]["grafana"]
    inside = {target: source for target, source in mounts(grafana).items() if source == "./grafana"}
    [(base, _)] = inside.items()
    assert grafana["environment"]["GF_PATHS_PROVISIONING"] == f"{base}/provisioning"
    providers = manifests.document(CLUSTER / "grafana/provisioning/dashboards/transferlib.yaml")["providers"]
    paths = [provider["options"]["path"] for provider in providers]
    assert f"{base}/dashboards" in paths
    assert all(any(path.startswith(f"{target}/") for target in mounts(grafana)) for path in paths)
    assert grafana["environment"]["PROMETHEUS_URL"] == "http://prometheus:9090"


def test_compose_environment_variables_are_known_to_the_exporter(compose: dict[str, Any]) -> None:
    pod = manifests.pods()["head"]["containers"][0]["env"]
    names = {*compose["services"]["head"]["environment"], *(entry["name"] for entry in pod)}
    source = "".join(path.read_text() for path in (ROOT / "transferlib/telemetry").glob("*.py"))
    ours = {name for name in names if name.startswith("TRANSFERLIB_")}
    assert ours
    assert {name for name in ours if f'"{name}"' not in source} == set()


# Kubernetes


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.name)
def test_kubernetes_manifests_fit_their_schemas(path: Path) -> None:
    for manifest in manifests.documents(path):
        assert manifests.mistakes(manifest, manifests.SCHEMA_OF_KIND[manifest["kind"]]) == []


def test_a_mistake_in_a_pod_is_seen() -> None:
    cluster = manifests.kuberay("RayCluster")
    cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Always"
    [mistake] = manifests.mistakes(cluster, manifests.SCHEMA_OF_KIND["RayCluster"])
    assert "imagePolicy" in mistake


def test_rules_for_the_operator_are_those_of_prometheus() -> None:
    assert prometheus_rule.MANIFEST.read_text() == prometheus_rule.manifest(), (
        "Run python tests/cluster/prometheus_rule.py"
    )


@pytest.mark.parametrize("name", ["head", "cpu", "gpu"])
def test_pods_run_as_nobody_special(name: str) -> None:
    pod = manifests.pods()[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 1000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"] == container["resources"]["limits"]


@pytest.mark.parametrize("name", ["head", "cpu", "gpu"])
def test_pods_mount_what_they_declare_and_share_runs(name: str) -> None:
    pod = manifests.pods()[name]
    claims = {claim["metadata"]["name"] for claim in manifests.documents(CLUSTER / "kuberay/storage.yaml")}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounted = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert set(mounted) == {"/runs", "/data", "/cache", "/dev/shm"}
    assert set(mounted.values()) == set(volumes)
    claimed = {
        entry["persistentVolumeClaim"]["claimName"]
        for entry in volumes.values()
        if len(entry) == 2 and "persistentVolumeClaim" in entry
    }
    assert claimed == claims
    assert volumes["shm"]["emptyDir"]["medium"] == "Memory"


def test_kubernetes_has_the_token_from_the_secret_that_the_readme_makes() -> None:
    spec = manifests.kuberay("RayCluster")["spec"]
    assert spec["authOptions"] == {"mode": "token", "secretName": "transferlib-token"}
    command = "kubectl create secret generic transferlib-token --from-literal=auth_token="
    assert command in (CLUSTER / "README.md").read_text()
    assert "kind: Secret" not in "".join(path.read_text() for path in KUBERAY)


def test_the_ray_job_selects_the_cluster_and_is_the_command_line() -> None:
    job, cluster = manifests.kuberay("RayJob")["spec"], manifests.kuberay("RayCluster")
    assert job["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    assert job["entrypoint"].startswith("exec submit compare --address http://127.0.0.1:8265 ")
    assert job["backoffLimit"] == 0


def test_the_pod_monitor_names_ports_that_pods_have() -> None:
    monitor = manifests.kuberay("PodMonitor")["spec"]
    assert monitor["selector"]["matchLabels"] == {"ray.io/cluster": manifests.kuberay("RayCluster")["metadata"]["name"]}
    ports = {port["name"]: port["containerPort"] for port in manifests.pods()["head"]["containers"][0]["ports"]}
    assert {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]} == {"transferlib", "metrics"} <= set(ports)
    env = {entry["name"]: entry["value"] for entry in manifests.pods()["head"]["containers"][0]["env"]}
    assert env["TRANSFERLIB_METRICS_PORT"] == str(ports["transferlib"])
    assert env["TRANSFERLIB_METRICS_HOST"] == "0.0.0.0"


def test_image_and_pods_are_asked_for_their_health_in_one_way() -> None:
    from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS

    dockerfile = (ROOT / "Dockerfile").read_text()
    assert HEALTH in dockerfile
    head = manifests.pods()["head"]["containers"][0]
    for probe in (head["readinessProbe"], head["livenessProbe"]):
        assert probe["exec"]["command"] == ["python", "-c", HEALTH]
    [path] = re.findall(r"52365(/[\w/]+)", HEALTH)
    assert path in PUBLIC_EXACT_PATHS, "the check has no token"


# ray up


@pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.name)
def test_ray_up_files_fit_rays_schema(path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = manifests.document(path)
    # As `ray up` does: what is not said comes from Ray's defaults for that cloud.
    validate_config(prepare_config(config))
    types = config["available_node_types"]
    assert config["head_node_type"] in types
    workers = sum(kind.get("max_workers", 0) for name, kind in types.items() if name != config["head_node_type"])
    assert 0 < config["max_workers"] <= workers


@pytest.mark.parametrize("path", [*RAY_UP, CLUSTER / "README.md"], ids=lambda path: path.name)
def test_ray_up_examples_ask_for_gpus_which_is_what_makes_workers_come(path: Path) -> None:
    text = path.read_text()
    example = text[text.index("ray up cluster/") : text.index("ray down cluster/")]
    [num_gpus] = re.findall(r"submit compare --address http://127\.0\.0\.1:8265 .* --gpus (\d+)\n", example)
    for config in map(manifests.document, RAY_UP):
        assert 0 < int(num_gpus) <= config["max_workers"], "a worker has one GPU"


@pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.name)
def test_ray_up_turns_the_token_on_and_keeps_the_dashboard_on_loopback(path: Path) -> None:
    config = manifests.document(path)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token ray start" in commands[-1]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


@pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.name)
def test_ray_start_in_ray_up_files_has_options_that_ray_knows(path: Path) -> None:
    config = manifests.document(path)
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        [line] = re.findall(r"ray start (.*)", commands[-1])
        assert ray_start_options(line.split())


def test_ray_start_in_compose_has_options_that_ray_knows(compose: dict[str, Any]) -> None:
    for name in ("head", "worker"):
        command = compose["services"][name]["command"]
        assert command[:2] == ["ray", "start"]
        assert ray_start_options(command[2:])["block"]


def test_ray_start_on_kubernetes_has_options_that_ray_knows() -> None:
    spec = manifests.kuberay("RayCluster")["spec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert ray_start_options([f"--{name}={value}" for name, value in group["rayStartParams"].items()])


def ray_start_options(arguments: list[str]) -> dict[str, Any]:
    """Return what `ray start` understands by arguments; an unknown one raises. Starts nothing."""
    from ray.scripts.scripts import start

    return start.make_context("start", list(arguments)).params


# The README beside them


def test_the_readme_speaks_of_every_file() -> None:
    readme = (CLUSTER / "README.md").read_text()
    names = [
        *(path.name for path in CLUSTER.iterdir() if not path.name.startswith(".") and path.name != "README.md"),
        *(path.name for path in KUBERAY),
    ]
    assert [name for name in names if name not in readme] == []


def test_the_readme_says_what_has_not_been_run() -> None:
    readme = (CLUSTER / "README.md").read_text()
    assert "## What has not been run" in readme
