"""The files for Kubernetes and the image: by Kubernetes' schema, Ray's own autoscaler and command line, hadolint and uv."""

import importlib
import inspect
import itertools
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.kuberay import autoscaling_config
from ray.autoscaler.v2 import autoscaler as v2
from ray.autoscaler.v2.instance_manager import config as v2_config
from ray.serve.schema import ServeDeploySchema

from eval.serving import deployment, settings
from pipeline.errors import InputError
from pipeline.graph.engine import TASK_CPUS, TASK_MEMORY
from pipeline.planning.capacity import STAGES, CapacityConfig, estimate
from tests.support.autoscaling import MODEL, READING, asked, chosen
from train import configs

TEXTS = {name: Path(f"cluster/kuberay/{name}.yaml").read_text() for name in ("cluster", "job", "service")}
FILES = {name: list(yaml.safe_load_all(text)) for name, text in TEXTS.items()}
JOB = FILES["job"][-1]["spec"]
SERVICE = FILES["service"][-1]["spec"]
SPECS = {"cluster": FILES["cluster"][-1]["spec"], "job": JOB["rayClusterSpec"], "service": SERVICE["rayClusterConfig"]}
KINDS = {"cluster": "RayCluster", "job": "RayJob", "service": "RayService"}
WITH_GPUS = ("cluster", "job")
DOCKERFILE = Path("cluster/Dockerfile").read_text().replace("\\\n", "")
COPIED = [word for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()]
FIELDS = {  # of KubeRay 1.7's definitions, those in use: the API server refuses any that it does not know
    "cluster": "rayVersion authOptions enableInTreeAutoscaling autoscalerOptions headGroupSpec workerGroupSpecs",
    "autoscaler": "version idleTimeoutSeconds env resources securityContext",
    "group": "groupName priority replicas minReplicas maxReplicas serviceType rayStartParams template",
    "job": "entrypoint backoffLimit shutdownAfterJobFinishes ttlSecondsAfterFinished submitterPodTemplate rayClusterSpec",
    "service": "serveConfigV2 rayClusterConfig",
}


def groups(name: str) -> dict[str, dict[str, Any]]:
    workers = {group["groupName"]: group for group in SPECS[name]["workerGroupSpecs"]}
    return {"head": SPECS[name]["headGroupSpec"], **workers}


def templates(name: str) -> list[dict[str, Any]]:
    submitter = [JOB["submitterPodTemplate"]] if name == "job" else []
    return [group["template"] for group in groups(name).values()] + submitter


def quantity(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Ki|Mi|Gi|)", text).groups()  # type: ignore[union-attr]
    return int(number) * 1024 ** ("", "Ki", "Mi", "Gi").index(unit)


@pytest.mark.parametrize("name", SPECS)
def test_kubernetes_takes_the_pods_and_the_objects_beside_them(name: str) -> None:
    account, policy, _ = FILES[name]
    for template in templates(name):
        pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": template["metadata"] | {"name": "pod"}}
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
        selected = policy["spec"]["podSelector"]["matchLabels"]
        assert selected.items() <= template["metadata"]["labels"].items()
        for container in template["spec"]["containers"]:
            mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
            assert mounted == {volume["name"] for volume in template["spec"].get("volumes", ())}
        assert template["spec"].get("serviceAccountName", account["metadata"]["name"]) == account["metadata"]["name"]
    for each in (account, policy):
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("name", SPECS)
def test_kuberay_finds_what_it_asks_for(name: str) -> None:
    from ray.scripts import scripts  # here: its import takes long

    spec = SPECS[name]
    assert [each["apiVersion"] for each in FILES[name]] == ["v1", "networking.k8s.io/v1", "ray.io/v1"]
    assert [each["kind"] for each in FILES[name]][2] == KINDS[name]
    assert f"ray=={spec['rayVersion']}" in Path("constraints.txt").read_text().splitlines()
    assert spec["authOptions"] == {"mode": "token"} and spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert spec["enableInTreeAutoscaling"] is True and spec["autoscalerOptions"]["version"] == "v2"
    used = {
        "cluster": [spec],
        "autoscaler": [spec["autoscalerOptions"]],
        "group": [*groups(name).values()],
        "job": [JOB],
        "service": [SERVICE],
    }
    for kind, found in used.items():
        assert {key for each in found for key in each} <= set(FIELDS[kind].split())
    for group in spec["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in groups(name).values():
        words = [f"--{key}={value}" for key, value in group["rayStartParams"].items()]
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        params = scripts.start.make_context("ray start", words).params  # raises at what is no option, or no number
        assert params["num_cpus"] is not None and params["object_store_memory"] > 100e6
    (env,) = spec["autoscalerOptions"]["env"]
    assert f'"{env["name"]}"' in inspect.getsource(v2_config) and int(env["value"]) < 3600


@pytest.mark.parametrize("name", SPECS)
def test_pods_have_what_ray_is_told(name: str) -> None:
    """Memory of a pod is that of Ray's tasks, of the object store in /dev/shm, and some for everything else."""
    for kind, group in groups(name).items():
        started = {key: int(value) for key, value in group["rayStartParams"].items() if value.isdigit()}
        (container,) = group["template"]["spec"]["containers"]
        wanted, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert wanted["memory"] == limits["memory"] and "cpu" not in limits
        (shm,) = (volume["emptyDir"] for volume in group["template"]["spec"]["volumes"] if volume["name"] == "shm")
        assert shm["medium"] == "Memory" and started["object-store-memory"] <= quantity(shm["sizeLimit"])
        assert started["memory"] + quantity(shm["sizeLimit"]) + 2 * 2**30 <= quantity(limits["memory"])
        assert started["num-gpus"] == limits.get("nvidia.com/gpu", 0) == wanted.get("nvidia.com/gpu", 0)
        if kind == "head":
            assert started["num-cpus"] == 0
            continue
        assert int(wanted["cpu"]) <= started["num-cpus"] <= int(wanted["cpu"]) + 1
        if started["num-gpus"]:
            assert started["memory"] == 1 and started["num-cpus"] >= configs.ONE_GPU.cpus_per_worker
            assert "nvidia.com/gpu" in {each["key"] for each in group["template"]["spec"]["tolerations"]}
        else:
            assert started["memory"] >= max(1e9, TASK_MEMORY / TASK_CPUS) * started["num-cpus"]
            sized = CapacityConfig(cores_per_node=started["num-cpus"])
            wanted_gb = estimate(10**6, 512, dict.fromkeys(STAGES, 1.0), sized).cpu_object_store_gb
            assert name == "service" or started["object-store-memory"] >= wanted_gb * 1e9
    gpus = sum(group["maxReplicas"] for kind, group in groups(name).items() if kind.startswith("gpu"))
    assert name not in WITH_GPUS or gpus >= configs.EIGHT_GPUS.num_workers


@pytest.mark.parametrize("name", SPECS)
def test_pods_may_do_little(name: str) -> None:
    """What the restricted Pod Security Standard asks of all containers, KubeRay's autoscaler too. Keys come from outside."""
    user = int(re.findall(r"^USER (\d+):\d+$", DOCKERFILE, re.MULTILINE)[0])
    for template in templates(name):
        pod = template["spec"]["securityContext"]
        assert pod["runAsNonRoot"] is True and pod["runAsUser"] == user > 0
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        contexts = [container["securityContext"] for container in template["spec"]["containers"]]
        for security in (*contexts, SPECS[name]["autoscalerOptions"]["securityContext"]):
            assert security == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(template["spec"])
        head = template is SPECS[name]["headGroupSpec"]["template"]
        assert head or template["spec"]["automountServiceAccountToken"] is False
        assert not any("env" in container for container in template["spec"]["containers"])
    assert not re.search(r"AKIA|PRIVATE KEY|/wor[k]/|[0-9a-fA-F]{32}|\b\d{12}\b|NodePort|LoadBalancer", TEXTS[name])
    assert 1 <= TEXTS[name].count("# EDIT:") <= 6
    everyone = [rule for rule in FILES[name][1]["spec"]["ingress"] if "from" not in rule]
    page = [{"port": 8000}] if name == "service" else []
    assert everyone == [{"ports": [{"port": 8080}, *page]}]  # metrics


def test_the_job_has_the_same_cluster_and_runs_what_the_image_holds() -> None:
    assert FILES["job"][:2] == FILES["cluster"][:2]
    hosts = {name: spec["headGroupSpec"]["rayStartParams"]["dashboard-host"] for name, spec in SPECS.items()}
    # KubeRay asks the dashboard from outside its pod
    assert hosts == {"cluster": "127.0.0.1", "job": "0.0.0.0", "service": "0.0.0.0"}
    text = yaml.safe_dump(SPECS["job"]).replace(hosts["job"], hosts["cluster"])
    assert text == yaml.safe_dump(SPECS["cluster"])
    program, script, *rest = shlex.split(JOB["entrypoint"])
    assert program == "bash" and Path(script).exists() and Path(script).parts[0] in COPIED and len(rest) == 2
    assert JOB["shutdownAfterJobFinishes"] is True and JOB["backoffLimit"] >= 1
    version = tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"]
    images = {each["image"] for name in SPECS for pod in templates(name) for each in pod["spec"]["containers"]}
    assert images == {f"blat-ray:{version}"}
    assert set(re.findall(r"blat-ray:([\d.]+)", "".join(TEXTS.values()) + DOCKERFILE)) == {version}


def test_the_service_runs_what_the_image_holds() -> None:
    """Ray's own schema reads the applications; arguments and names are those of our code; a replica finds its pod."""
    text = SERVICE["serveConfigV2"]
    config = ServeDeploySchema.model_validate(yaml.safe_load(text))
    (application,) = config.applications
    module, name = application.import_path.split(":")
    assert getattr(importlib.import_module(module), name) is deployment.application
    assert deployment.Arguments(**application.args).index.startswith("s3://")
    (replicas,) = application.deployments
    assert replicas.name == deployment.NAME and application.route_prefix == "/"
    (cpu,) = SPECS["service"]["workerGroupSpecs"]
    cores = int(cpu["rayStartParams"]["num-cpus"]) * cpu["maxReplicas"]
    assert 1 <= replicas.autoscaling_config["max_replicas"] <= cores
    ports = {each["containerPort"] for pod in templates("service") for each in pod["spec"]["containers"][0]["ports"]}
    assert config.http_options.port in ports
    assert settings.TOKEN_VARIABLE in TEXTS["service"].split("apiVersion")[0], "the head of the file makes the token"
    for template in templates("service"):
        assert template["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "blat-search-env"}}]


def test_the_service_and_a_cluster_beside_it_share_nothing() -> None:
    """Applying one file must not change what the other made."""
    made = [
        {(each["kind"], each["metadata"]["name"]) for each in yaml.safe_load_all(TEXTS[name])}
        for name in ("cluster", "service")
    ]
    assert all(made) and not made[0] & made[1]
    labels = [{str(pod["metadata"]["labels"]) for pod in templates(name)} for name in ("cluster", "service")]
    assert not labels[0] & labels[1]


def test_replicas_without_a_token_do_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(settings.TOKEN_VARIABLE, raising=False)
    with pytest.raises(InputError, match=settings.TOKEN_VARIABLE):
        deployment.application(deployment.Arguments(index="s3://blat/search"))


@pytest.mark.parametrize("kind", ["gpu-on-demand", "gpu-spot"])
def test_a_gpu_pod_says_that_it_has_to_go(kind: str) -> None:
    from ray.scripts import scripts

    spec = groups("cluster")[kind]["template"]["spec"]
    shell, flag, line = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    drain, wait = (shlex.split(part) for part in line.split(";"))
    assert [shell, flag, *drain[:2], wait[0]] == ["bash", "-c", "ray", "drain-node", "sleep"]
    params = scripts.drain_node.make_context("ray drain-node", drain[2:]).params
    assert params["node_id"] is None and params["reason"] == "DRAIN_NODE_REASON_PREEMPTION"
    assert params["deadline_remaining_seconds"] <= int(wait[1]) < spec["terminationGracePeriodSeconds"]


def autoscaler(name: str) -> v2.AutoscalingConfig:
    """Return what Ray's autoscaler makes of a RayCluster."""
    cluster = {"metadata": {"name": "blat", "namespace": "default"}, "spec": SPECS[name]}
    return v2.AutoscalingConfig(
        autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster), skip_content_hash=True
    )


@pytest.mark.parametrize("name", WITH_GPUS)
@pytest.mark.parametrize(
    ("waiting", "refused", "taken"),
    [(MODEL, "", "gpu-spot"), (MODEL, "gpu-spot", "gpu-on-demand"), (READING, "", "cpu"), (READING, "cpu", "cpu")],
)
def test_the_autoscaler_chooses(name: str, waiting: list[Any], refused: str, taken: str) -> None:
    config = autoscaler(name)
    assert chosen(config, waiting, refused) == {taken}


def test_pods_that_find_no_spot_node_give_way_to_on_demand() -> None:
    """Pods that nothing schedules, and an autoscaler whose patience ended: what the variable above shortens."""
    config = autoscaler("cluster")
    reconciling = v2_config.InstanceReconcileConfig(allocate_status_timeout_s=0)
    config.get_instance_reconcile_config = lambda: reconciling
    found = asked(config, 6)
    assert found[:2] == ["gpu-spot"] * 2 and "gpu-on-demand" in found


def test_the_image_is_built_from_files_that_are_there() -> None:
    subprocess.run(["hadolint", "cluster/Dockerfile"], check=True)
    assert all(Path(source).exists() for source in COPIED)
    ignored, *patterns = [
        line for line in Path("cluster/Dockerfile.dockerignore").read_text().splitlines() if not line.startswith("#")
    ]
    assert ignored == "*" and {each[1:] for each in patterns if each.startswith("!")} == set(COPIED)
    assert not re.search(r"FROM \S*[/.]\S*/|:latest|index-url|/wor[k]/|TOKEN|SECRET|PASSWORD", DOCKERFILE)


def test_the_image_installs_the_pinned_packages() -> None:
    """uv reads the same words for the environment of these tests, which was made from the same pins: nothing is missing."""
    (line,) = re.findall(r"uv (pip install .*)$", DOCKERFILE, re.MULTILINE)
    words = [word for word in shlex.split(line) if word != "--system"]
    assert words[words.index("--constraint") + 1] == "constraints.txt" and "--system" in line
    uv = [shutil.which("uv") or "uv", *words, "--offline", "--dry-run", "--python", sys.executable]
    result = subprocess.run(uv, capture_output=True, text=True)
    assert result.returncode == 0 and "Would make no changes" in result.stderr, result.stderr
    extras = {word for before, word in itertools.pairwise(words) if before == "--extra"}
    assert extras == {"captioning", "ffmpeg", "search", "tracking"}


def test_the_image_finds_its_code(tmp_path: Path) -> None:
    """From any folder, by what is copied alone."""
    home = tmp_path / "home/ray/blat-ray"
    assert f"WORKDIR /{home.relative_to(tmp_path)}\n" in DOCKERFILE
    (path,) = re.findall(r"PYTHONPATH=/(\S+)", DOCKERFILE)
    for source in COPIED:
        if Path(source).is_dir():
            shutil.copytree(source, home / source, ignore=shutil.ignore_patterns("__pycache__"))
    look = "import pipeline.__main__, train.__main__, eval.__main__ as last; print(last.__file__)"
    python = [sys.executable, "-c", look]
    result = subprocess.run(python, cwd="/", env={"PYTHONPATH": str(tmp_path / path)}, capture_output=True, text=True)
    assert result.stdout.strip() == str(home / "eval/__main__.py"), result.stderr
