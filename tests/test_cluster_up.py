"""The files for `ray up`: by Ray's own loader, autoscaler and node providers, EC2's service model, and a shell."""

import importlib.util
import json
import os
import re
import subprocess
import time
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ray._private.resource_and_label_spec import ResourceAndLabelSpec
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.command_runner import _with_environment_variables
from ray.autoscaler._private.util import prepare_config, validate_config, with_envs
from ray.autoscaler.v2.instance_manager import reconciler
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.instance_manager.instance_manager import InstanceManager
from ray.autoscaler.v2.instance_manager.instance_storage import InstanceStorage
from ray.autoscaler.v2.instance_manager.node_provider import NodeProviderAdapter
from ray.autoscaler.v2.instance_manager.storage import InMemoryStorage
from ray.autoscaler.v2.instance_manager.subscribers import cloud_resource_monitor
from ray.autoscaler.v2.instance_manager.subscribers.cloud_instance_updater import CloudInstanceUpdater
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.core.generated import autoscaler_pb2 as pb

from pipeline.engine import TASK_CPUS, TASK_MEMORY

CLOUDS = ("aws", "gcp")
FILES = (*CLOUDS, "on_prem")
GPU_TYPES = {"gpu_spot", "gpu_on_demand"}
READING = {"CPU": TASK_CPUS, "memory": float(TASK_MEMORY)}
MODEL = {"CPU": 0.5, "GPU": 1.0}
COMMANDS = ("setup", "head_setup", "head_start_ray", "worker_start_ray")


def told(name: str) -> dict[str, Any]:
    """Return a file as it is."""
    config: dict[str, Any] = yaml.safe_load(Path(f"cluster/{name}.yaml").read_text())
    return config


def asks(shape: dict[str, float], count: int) -> list[pb.ResourceRequestByCount]:
    return [pb.ResourceRequestByCount(request=pb.ResourceRequest(resources_bundle=shape), count=count)]


@pytest.mark.parametrize("name", FILES)
def test_ray_takes_the_file(name: str) -> None:
    config = prepare_config(told(name))
    validate_config(config)
    with pytest.raises(Exception, match="idle_timeout"):
        validate_config(config | {"idle_timeout": 1})


@pytest.mark.parametrize("name", CLOUDS)
def test_node_types_keep_the_rule_of_placement(name: str) -> None:
    config = told(name)
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["max_workers"] == head["resources"]["CPU"] == head["resources"]["GPU"] == 0
    assert set(types) == GPU_TYPES | {"cpu"}
    assert sum(each["max_workers"] for each in types.values()) == config["max_workers"]
    assert {each["min_workers"] for each in types.values()} == {0}
    cpu = types["cpu"]["resources"]
    assert cpu["GPU"] == 0 and cpu["memory"] >= max(1e9, TASK_MEMORY / TASK_CPUS) * cpu["CPU"]
    spot, on_demand = types["gpu_spot"], types["gpu_on_demand"]
    assert spot["resources"] == on_demand["resources"]
    assert spot["resources"]["memory"] == spot["resources"]["GPU"] == 1
    market = {"InstanceMarketOptions", "scheduling"}
    assert {k: v for k, v in spot["node_config"].items() if k not in market} == {
        k: v for k, v in on_demand["node_config"].items() if k not in market
    }
    assert "spot" in str(spot["node_config"]).lower() and "spot" not in str(on_demand["node_config"]).lower()


@pytest.mark.parametrize("kind", ["head", "cpu", "gpu_spot"])
def test_a_node_offers_what_its_type_says(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the variable in which the autoscaler hands it over; the object store is of the machine's size."""
    resources = told("aws")["available_node_types"][kind]["resources"]
    exported = _with_environment_variables("", {"RAY_OVERRIDE_RESOURCES": resources})
    heard = subprocess.run(["bash", "-c", f'{exported}printf %s "$RAY_OVERRIDE_RESOURCES"'], capture_output=True)
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", heard.stdout.decode())
    monkeypatch.setattr(ResourceAndLabelSpec, "_get_current_node_accelerator", lambda *_: (None, 0))
    offered = ResourceAndLabelSpec(num_gpus=0).resolve(is_head=kind == "head", node_ip_address="192.0.2.1")
    found = offered.to_resource_dict()
    assert {key: found.get(key, 0) for key in resources} == resources
    assert found["object_store_memory"] > 100e6


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize(
    ("shape", "refused", "taken"),
    [
        ({"GPU": 1.0}, (), "gpu_spot"),
        (MODEL, (), "gpu_spot"),
        (MODEL, ("gpu_spot",), "gpu_on_demand"),
        (READING, (), "cpu"),
        (READING, ("cpu",), "cpu"),
        ({"CPU": 0.5}, (), "cpu"),
    ],
)
def test_the_autoscaler_chooses(name: str, shape: dict[str, float], refused: tuple[str, ...], taken: str) -> None:
    config = AutoscalingConfig(told(name), skip_content_hash=True)
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_nodes(),
        resource_requests=asks(shape, 2),
        recoverable_resource_availabilities=dict.fromkeys(refused, 0.0),
    )
    launched = {each.instance_type for each in ResourceDemandScheduler().schedule(request).to_launch}
    assert launched - {"head"} == {taken}


class Cloud:
    """A node provider that has no spot machines."""

    def __init__(self) -> None:
        self.nodes = {"head-0": {"ray-node-type": "head", "ray-user-node-type": "head"}}
        self.asked: Counter[str] = Counter()
        self.is_running = {"head-0"}.__contains__

    def non_terminated_nodes(self, _: dict[str, str]) -> list[str]:
        return list(self.nodes)

    def node_tags(self, node: str) -> dict[str, str]:
        return self.nodes[node]

    def create_node_with_resources_and_labels(self, _: Any, tags: dict[str, str], count: int, *__: Any) -> None:
        self.asked[tags["ray-user-node-type"]] += count
        if tags["ray-user-node-type"] == "gpu_spot":
            raise RuntimeError("InsufficientInstanceCapacity")
        self.nodes |= {f"{len(self.nodes) + i}": tags for i in range(count)}


def autoscaled(config: AutoscalingConfig, reconciling: ModuleType, watching: ModuleType) -> Counter[str]:
    """Return the machines that Ray's autoscaler asks a cloud without spot for, when two actors wait for GPUs."""
    cloud, monitor = Cloud(), watching.CloudResourceMonitor()
    reader = type("Reader", (), {"get_cached_autoscaling_config": lambda _: config})()
    provider = NodeProviderAdapter(cloud, reader)
    storage = InstanceStorage(cluster_id="", storage=InMemoryStorage())
    manager, scheduler = InstanceManager(storage, [CloudInstanceUpdater(provider), monitor]), ResourceDemandScheduler()
    for step in range(4):
        head = pb.NodeState(node_id=b"h" * 28, instance_id="head-0", ray_node_type_name="head", status="RUNNING")
        head.total_resources["node:__internal_head__"] = 1.0
        state = pb.ClusterResourceState(
            node_states=[head], cluster_resource_state_version=step + 1, pending_resource_requests=asks(MODEL, 2)
        )
        seen, errors, before = provider.get_non_terminated(), provider.poll_errors(), cloud.asked.total()
        reconciling.Reconciler.reconcile(manager, scheduler, provider, monitor, state, seen, config, errors, [], [])
        deadline = time.monotonic() + 0.5  # launches run in threads
        while time.monotonic() < deadline and cloud.asked.total() == before:
            time.sleep(0.02)
        time.sleep(0.1)
    return cloud.asked


@pytest.mark.parametrize("name", CLOUDS)
def test_refused_spot_falls_back_to_on_demand(name: str, tmp_path: Path) -> None:
    """With the edits that the head makes to Ray. Where it fails for Ray as it is, Ray has learnt it: drop the edits."""
    config = AutoscalingConfig(told(name), skip_content_hash=True)
    assert set(autoscaled(config, reconciler, cloud_resource_monitor)) == {"gpu_spot"}

    edits = next(command for command in told(name)["head_setup_commands"] if "sed -i" in command)
    packages = tmp_path / "blat/venv/lib/python3.11/site-packages"
    edited = []
    for module in (reconciler, cloud_resource_monitor):
        edited.append(packages / (module.__name__.replace(".", "/") + ".py"))
        edited[-1].parent.mkdir(parents=True, exist_ok=True)
        edited[-1].write_text(Path(str(module.__file__)).read_text())
    for _ in range(2):  # setup commands run again
        subprocess.run(["bash", "-c", edits], env=os.environ | {"HOME": str(tmp_path)}, check=True)
    asked = autoscaled(config, *map(loaded, edited))
    assert set(asked) == GPU_TYPES and asked["gpu_on_demand"] == 2


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"edited_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ec2_takes_the_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.session
    from botocore.validate import ParamValidator

    shape = botocore.session.Session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for kind, each in told("aws")["available_node_types"].items():
        launch = {**each["node_config"], "MinCount": 1, "MaxCount": 1}
        assert not ParamValidator().validate(launch, shape).has_errors(), kind
        assert ParamValidator().validate(launch | {"MetadataOption": {}}, shape).has_errors()


def test_aws_launches_each_type_as_described(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own node provider on moto's EC2, with the profiles of cluster/iam/aws.sh."""
    import boto3

    monkeypatch.setenv("HOME", str(tmp_path))  # the key pair goes to ~/.ssh
    iam, ec2 = boto3.client("iam"), boto3.client("ec2")
    for words in recorded("aws", tmp_path, "corpus"):
        if words[0] == "iam" and words[1].split("-")[0] in ("create", "put", "add") and "linked" not in words[1]:
            flags = ["".join(map(str.capitalize, flag[2:].split("-"))) for flag in words[2::2]]
            getattr(iam, words[1].replace("-", "_"))(**dict(zip(flags, words[3::2], strict=True)))
    config = AWSNodeProvider.bootstrap_config(prepare_config(told("aws")))
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for kind, each in config["available_node_types"].items():
        made = provider.create_node(each["node_config"], {"ray-user-node-type": kind}, 1)
        [machine] = ec2.describe_instances(InstanceIds=list(made))["Reservations"][0]["Instances"]
        assert (machine.get("InstanceLifecycle") == "spot") == (kind in ("cpu", "gpu_spot"))
        assert machine["MetadataOptions"]["HttpTokens"] == "required"
        assert machine["IamInstanceProfile"]["Arn"].endswith("head" if kind == "head" else "worker")
        disks = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": list(made)}])["Volumes"]
        assert disks and all(disk["Encrypted"] for disk in disks)
    groups = ec2.describe_security_groups(GroupIds=[group["GroupId"] for group in machine["SecurityGroups"]])
    opened = [rule for rule in groups["SecurityGroups"][0]["IpPermissions"] if rule["IpRanges"]]
    assert [rule["FromPort"] for rule in opened] == [22]
    provider.terminate_nodes(provider.non_terminated_nodes({}))
    assert not provider.non_terminated_nodes({})


def test_compute_engine_takes_the_launches() -> None:
    """By hand, as far as these files go: fields and values of its API's `Instance`."""
    fields = {
        "": {"machineType", "guestAccelerators", "disks", "serviceAccounts", "scheduling"},
        "guestAccelerators": {"acceleratorType", "acceleratorCount"},
        "disks": {"boot", "autoDelete", "type", "initializeParams"},
        "initializeParams": {"diskSizeGb", "diskType", "sourceImage"},
        "serviceAccounts": {"email", "scopes"},
        "scheduling": {"provisioningModel", "instanceTerminationAction", "onHostMaintenance", "automaticRestart"},
    }
    config = told("gcp")
    for kind, each in config["available_node_types"].items():
        node = each["node_config"]
        levels = [("", node), ("scheduling", node.get("scheduling", {}))]
        levels += [
            (key, item) for key in ("guestAccelerators", "disks", "serviceAccounts") for item in node.get(key, [])
        ]
        levels += [("initializeParams", disk["initializeParams"]) for disk in node["disks"]]
        for level, found in levels:
            assert set(found) <= fields[level], (kind, level)
        zone, project = config["provider"]["availability_zone"], config["provider"]["project_id"]
        assert node["disks"][0]["initializeParams"]["diskType"].startswith(f"zones/{zone}/")
        assert node["serviceAccounts"][0]["email"].endswith(f"@{project}.iam.gserviceaccount.com")
        if kind in GPU_TYPES:  # machines with GPUs cannot move
            assert node["scheduling"]["onHostMaintenance"] == "TERMINATE"


def program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(0o755)


def shell(home: Path, command: str, tools: Path | None = None) -> None:
    """Run a command as Ray does on a node: in a login shell that reads ~/.bashrc."""
    path = f"{tools}:/usr/bin:/bin" if tools else "/usr/bin:/bin"
    script = f"export PATH={path}; source ~/.bashrc; export OMP_NUM_THREADS=1 && ({command})"
    subprocess.run(["bash", "--login", "-c", "-i", script], env={"HOME": str(home)}, check=True, timeout=60)


def test_setup_installs_what_is_pinned_and_can_run_again(tmp_path: Path) -> None:
    assert len({tuple(told(name)["setup_commands"]) for name in FILES}) == 1
    home, tools = tmp_path / "home", tmp_path / "tools"
    for target, source in told("aws")["file_mounts"].items():
        (home / target[2:]).parent.mkdir(parents=True, exist_ok=True)
        (home / target[2:]).write_text("secret" if "auth" in target else Path(source).read_text())
    (home / ".bashrc").touch()
    program(
        tmp_path / "uv",
        f'echo "$@" >> {home}/uv.log; case $1 in\n--version) echo "uv $(cat ~/uv.version)" ;;\n'
        "venv) mkdir -p ~/blat/venv/bin && touch ~/blat/venv/bin/python && chmod +x ~/blat/venv/bin/python ;;\nesac",
    )
    program(
        tools / "curl",
        f'echo "$@" >> {home}/curl.log; [[ $2 =~ uv/([0-9.]+)/ ]]; '
        f'echo "mkdir -p ~/.local/bin; cp {tmp_path}/uv ~/.local/bin/uv; echo ${{BASH_REMATCH[1]}} > ~/uv.version"',
    )
    for _ in range(2):
        for command in told("aws")["setup_commands"]:
            shell(home, command, tools)
    pin = re.search(r"^uv==(.+)$", Path("constraints.txt").read_text(), re.MULTILINE)
    assert pin and (home / "uv.version").read_text().strip() == pin[1]
    assert len((home / "curl.log").read_text().splitlines()) == 1
    calls = (home / "uv.log").read_text()
    assert calls.count("venv --python 3.11") == 1 and calls.count("--constraint") == 2
    assert (home / ".ray/auth_token").stat().st_mode & 0o777 == 0o600
    assert (home / ".bashrc").read_text() == f"export RAY_AUTH_MODE=token PATH={home}/blat/venv/bin:$PATH\n"
    subprocess.run(["uv", "pip", "install", "--help"], check=True, capture_output=True)


RECORDS = 'printf "%s|" "$RAY_AUTH_MODE" "$RAY_enable_autoscaler_v2" "$@" >> ~/ray.log; echo >> ~/ray.log'


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("gpu", [False, True])
def test_start_commands(name: str, gpu: bool, tmp_path: Path) -> None:
    (tmp_path / ".bashrc").touch()
    program(tmp_path / "tools/ray", "exit 1")  # not this one
    program(tmp_path / "blat/venv/bin/ray", RECORDS)
    lists = "echo 'GPU 0: NVIDIA L4 (UUID: GPU-0)'" if gpu else "echo 'No devices were found'; exit 6"
    program(tmp_path / "tools/nvidia-smi", lists)
    config = told(name)
    for kind in ("head", "worker"):
        told_node = {"RAY_HEAD_IP": "192.0.2.10", "RAY_enable_autoscaler_v2": "1"}
        shell(tmp_path, with_envs(config[f"{kind}_start_ray_commands"], told_node)[-1], tmp_path / "tools")
    head, worker = [line.split("|") for line in (tmp_path / "ray.log").read_text().splitlines()]
    assert head[:2] == ["token", "0" if name == "on_prem" else "1"] and worker[0] == "token"
    assert {"--head", "--dashboard-host=127.0.0.1", "--metrics-export-port=8080", "--port=6379"} <= set(head)
    assert f"--autoscaling-config={tmp_path}/ray_bootstrap_config.yaml" in head
    assert {"--address=192.0.2.10:6379", "--metrics-export-port=8080"} <= set(worker)
    assert ("--memory=1" in worker) == (name == "on_prem" and gpu)
    assert ("--num-cpus=0" in head) == (name == "on_prem")


def recorded(tool: str, folder: Path, *words: str) -> list[list[str]]:
    """Return the commands that cluster/iam/<tool>.sh gives to the cloud's command line, where nothing exists yet."""
    called = {"aws": "aws", "gcp": "gcloud"}[tool]
    program(
        folder / f"tools/{called}",
        f'printf "%s\\0" "$@" >> {folder}/{called}.log; printf "\\n\\0" >> {folder}/{called}.log\n'
        'case "$*" in *get-caller*) echo 123456789012 ;; *get-role* | *get-inst* | *describe*) exit 1 ;; esac',
    )
    environment = os.environ | {"PATH": f"{folder}/tools:{os.environ['PATH']}"}
    subprocess.run([f"cluster/iam/{tool}.sh", *words], env=environment, check=True, stdout=subprocess.DEVNULL)
    calls = (folder / f"{called}.log").read_text().split("\n\0")[:-1]
    return [call.split("\0")[:-1] for call in calls]


def test_aws_roles_allow_no_more_than_is_needed(tmp_path: Path) -> None:
    calls = recorded("aws", tmp_path, "my-bucket")
    roles = {call[3]: json.loads(call[7]) for call in calls if call[1] == "put-role-policy"}
    assert set(roles) == {"blat-ray-head", "blat-ray-worker"}
    for role, policy in roles.items():
        assert not re.search("BUCKET|REGION|ACCOUNT|CLUSTER", json.dumps(policy))
        for statement in policy["Statement"]:
            actions, resources = (
                [found] if isinstance(found := statement[key], str) else found for key in ("Action", "Resource")
            )
            assert not any("*" in action for action in actions)
            assert statement["Effect"] == "Allow" and ("*" not in resources or actions == ["ec2:DescribeInstances"])
            if {"ec2:TerminateInstances", "iam:PassRole"} & set(actions):
                assert statement["Condition"] and all("123456789012" in resource for resource in resources)
            if role == "blat-ray-worker":
                assert all(action.startswith("s3:") for action in actions)
                assert all(resource.startswith("arn:aws:s3:::my-bucket") for resource in resources)
    assert "s3:PutObject" in str(roles["blat-ray-head"])
