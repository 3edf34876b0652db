"""The files for `ray up`: by Ray's own loader, autoscaler and node providers, EC2's service model, and a shell."""

import json
import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import boto3
import pytest
import yaml
from botocore.validate import ParamValidator
from ray._private.resource_and_label_spec import ResourceAndLabelSpec
from ray.autoscaler._private.autoscaler import LoadMetrics, StandardAutoscaler
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config, with_envs
from ray.autoscaler.v2 import autoscaler as v2

from pipeline.graph.engine import TASK_CPUS, TASK_MEMORY
from tests.support.autoscaling import MODEL, READING, asked, chosen

TEXTS = {name: Path(f"cluster/{name}.yaml").read_text() for name in ("aws", "gcp", "on_prem")}
FIELDS_OF_GCE = """machineType guestAccelerators disks serviceAccounts scheduling acceleratorType acceleratorCount boot type
autoDelete initializeParams diskSizeGb diskType sourceImage email scopes provisioningModel instanceTerminationAction
onHostMaintenance automaticRestart"""


def config_of(name: str) -> dict[str, Any]:
    return yaml.safe_load(TEXTS[name])


@pytest.mark.parametrize("name", TEXTS)
def test_ray_takes_the_file_and_it_gives_nothing_away(name: str) -> None:
    validate_config(prepare_config(config_of(name)))
    head, rest = TEXTS[name].split("\ncluster_name")
    edits = re.findall(r"(\w+): .*# EDIT:", rest)
    assert 1 <= len(edits) == TEXTS[name].count("# EDIT:") <= 6 and all(key in head for key in edits)
    assert {"ray up", "ray dashboard", "cluster/submit.sh", "ray down"} <= set(re.findall(r"ray \w+|\S+\.sh", head))
    secrets = r"AKIA|PRIVATE KEY|/wor[k]/|[0-9a-fA-F]{32}|\b\d{12}\b|aws_credentials|gcp_credentials|index-url"
    for text in (TEXTS[name], *(path.read_text() for path in Path("cluster/iam").iterdir())):
        assert not re.search(secrets, text)
    for command in (each for key, found in config_of(name).items() if key.endswith("_commands") for each in found):
        subprocess.run(["shellcheck", "-s", "bash", "-"], input=command, text=True, check=True)


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_node_types_keep_the_rule_of_placement(name: str) -> None:
    config = config_of(name)
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["max_workers"] == head["resources"]["CPU"] == head["resources"]["GPU"] == 0
    assert sum(each["max_workers"] for each in types.values()) == config["max_workers"]
    assert not any(each["min_workers"] for each in types.values())
    cpu, gpu = (types[kind]["resources"] for kind in ("cpu_spot", "gpu_spot"))
    assert cpu["GPU"] == 0 and cpu["memory"] >= max(1e9, TASK_MEMORY / TASK_CPUS) * cpu["CPU"]
    assert gpu["memory"] == gpu["GPU"] == 1
    market = {"InstanceMarketOptions": None, "scheduling": None}
    for kind in ("cpu", "gpu"):
        assert types[f"{kind}_spot"]["resources"] == types[f"{kind}_on_demand"]["resources"]
        spot, on_demand = (types[f"{kind}_{way}"]["node_config"] for way in ("spot", "on_demand"))
        assert spot | market == on_demand | market
        assert "spot" in str(spot).lower() and "spot" not in str(on_demand).lower()


@pytest.mark.parametrize("kind", ["head", "cpu_spot", "gpu_spot"])
def test_a_node_offers_what_its_type_says(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resources = config_of("aws")["available_node_types"][kind]["resources"]
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", json.dumps(resources))
    monkeypatch.setattr(ResourceAndLabelSpec, "_get_current_node_accelerator", lambda *_: (None, 0))
    offered = ResourceAndLabelSpec().resolve(is_head=False, node_ip_address="192.0.2.1").to_resource_dict()
    assert {key: offered.get(key, 0) for key in resources} == resources
    assert offered["object_store_memory"] > 100e6


@pytest.mark.parametrize("name", ["aws", "gcp"])
@pytest.mark.parametrize(
    ("waiting", "refused", "taken"),
    [
        (MODEL, "", "gpu_spot"),
        (MODEL, "gpu_spot", "gpu_on_demand"),
        (READING, "", "cpu_spot"),
        (READING, "cpu_spot", "cpu_on_demand"),
    ],
)
def test_the_autoscaler_chooses(name: str, waiting: list[Any], refused: str, taken: str) -> None:
    config = v2.AutoscalingConfig(config_of(name), skip_content_hash=True)
    assert chosen(config, waiting, refused) == {taken}


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_refused_spot_falls_back_to_on_demand(name: str, tmp_path: Path) -> None:
    """With the edits that the head makes to Ray. Where Ray falls back as it is, it has learnt it: drop the edits."""
    config = v2.AutoscalingConfig(config_of(name), skip_content_hash=True)
    assert set(asked(config, 4, "gpu_spot")) == {"gpu_spot"}
    ours = tmp_path / "blat/venv/lib/python3.11/site-packages/ray/autoscaler/v2/instance_manager"
    shutil.copytree(Path(v2.__file__).parent / "instance_manager", ours)
    for _ in range(2):  # setup commands run again
        shell(tmp_path, next(command for command in config_of(name)["head_setup_commands"] if "sed -i" in command))
    reconciler = runpy.run_path(f"{ours}/reconciler.py")["Reconciler"]
    watcher = runpy.run_path(f"{ours}/subscribers/cloud_resource_monitor.py")["CloudResourceMonitor"]
    found = asked(config, 4, "gpu_spot", reconciler, watcher)
    assert found == ["gpu_spot", "gpu_spot", "gpu_on_demand", "gpu_on_demand"]


def test_every_machine_on_premises_is_brought_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # the provider's list of machines
    config = config_of("on_prem") | {"file_mounts": {}, "auth": {"ssh_user": "ubuntu"}}
    config["provider"] |= {"disable_node_updaters": True, "foreground_node_launch": True}
    scaler = StandardAutoscaler(lambda: prepare_config(config), LoadMetrics(), Mock(), update_interval_s=0)
    for _ in range(3):
        scaler.update()
    assert set(scaler.provider.non_terminated_nodes({})) == {"192.0.2.10", "192.0.2.11", "192.0.2.12"}


def test_launches_are_what_the_clouds_describe() -> None:
    shape = boto3.client("ec2", "us-east-1").meta.service_model.operation_model("RunInstances").input_shape
    for kind, each in config_of("aws")["available_node_types"].items():
        report = ParamValidator().validate({**each["node_config"], "MinCount": 1, "MaxCount": 1}, shape)
        assert not report.has_errors(), (kind, report.generate_report())
    for each in config_of("gcp")["available_node_types"].values():
        assert set(re.findall(r"(?m)^\W*(\w+):\s", yaml.safe_dump(each["node_config"]))) <= set(FIELDS_OF_GCE.split())
        assert "'zones/us-central1-a/diskTypes/" in str(each) and "@my-project.iam" in str(each)


@pytest.mark.cluster
def test_ray_launches_each_type_on_moto(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # the key pair goes to ~/.ssh
    iam, ec2 = boto3.client("iam"), boto3.client("ec2")
    for role in ("blat-ray-head", "blat-ray-worker"):
        iam.create_instance_profile(InstanceProfileName=role)
    config = AWSNodeProvider.bootstrap_config(prepare_config(config_of("aws")))
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for kind, each in config["available_node_types"].items():
        made = list(provider.create_node(each["node_config"], {"ray-user-node-type": kind}, 1))
        [machine] = ec2.describe_instances(InstanceIds=made)["Reservations"][0]["Instances"]
        assert (machine.get("InstanceLifecycle") == "spot") == (kind in ("cpu_spot", "gpu_spot"))
        assert machine["MetadataOptions"]["HttpTokens"] == "required"
        assert machine["IamInstanceProfile"]["Arn"].endswith("-head" if kind == "head" else "-worker")
        disks = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": made}])["Volumes"]
        assert [disk["Encrypted"] for disk in disks] == [True]
        [group] = ec2.describe_security_groups(GroupIds=[machine["SecurityGroups"][0]["GroupId"]])["SecurityGroups"]
        assert [rule["FromPort"] for rule in group["IpPermissions"] if rule["IpRanges"]] == [22]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def shell(home: Path, command: str) -> None:
    """Run a command as Ray does on a node: in a login shell that reads ~/.bashrc; programs in ~/tools come first."""
    script = f"export PATH=~/tools:/usr/bin:/bin; touch ~/.bashrc; source ~/.bashrc; ({command})"
    subprocess.run(["bash", "--login", "-c", "-i", script], env={"HOME": str(home)}, check=True, timeout=60)


def recorded(tool: str, script: str, folder: Path, *words: str) -> list[list[str]]:
    """Return the commands that a script gives to the cloud's command line, where nothing exists yet."""
    answers = "case $* in *get-caller*) echo 123456789012 ;; *get-role* | *get-inst* | *describe*) exit 1 ;; esac"
    write(folder / f"tools/{tool}", f'printf "%s\\0" "$@" $"\\n" >> {folder}/calls; {answers}')
    environment = os.environ | {"PATH": f"{folder}/tools:{os.environ['PATH']}"}
    subprocess.run([f"cluster/iam/{script}", *words], env=environment, check=True, stdout=subprocess.DEVNULL)
    return [call.split("\0")[:-1] for call in (folder / "calls").read_text().split("\\n\0")[:-1]]


def test_roles_allow_no_more_than_is_needed(tmp_path: Path) -> None:
    subprocess.run(["shellcheck", *map(str, Path("cluster/iam").glob("*.sh"))], check=True)
    calls = [call for call in recorded("aws", "aws.sh", tmp_path / "a", "my-bucket") if call[1] == "put-role-policy"]
    assert {f"{call[3][9:]}/{call[5]}" for call in calls} == {"head/storage", "head/machines", "worker/storage"}
    for *_, policy in calls:
        assert not re.search("BUCKET|REGION|ACCOUNT|CLUSTER", policy)
        for said in json.loads(policy)["Statement"]:
            assert "*" not in str(said["Action"]) and said["Effect"] == "Allow"
            assert said["Resource"] != "*" or said["Action"] == "ec2:DescribeInstances"
            assert said["Condition"] if re.search("Terminate|PassRole|:instance/", str(said)) else said["Resource"]
    calls = recorded("gcloud", "gcp.sh", tmp_path / "g", "my-project", "my-bucket")
    said = "".join(word for call in calls for word in call if re.match("--role|--permissions", word))
    roles = {"storage.objectViewer", "storage.objectUser", "iam.serviceAccountUser", "blatRayHead"}
    assert set(re.findall(r"roles/([\w.]+)", said)) == roles and "*" not in said and "instances.create" in said


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("aws.sh", ["s3://my-bucket"]),
        ("aws.sh", ["a/;e touch pwned"]),
        ("gcp.sh", ["my-project", "gs://b"]),
        ("gcp.sh", ["my-project", "b') || true"]),
    ],
)
def test_what_is_no_name_of_a_bucket_is_refused(script: str, words: list[str], tmp_path: Path) -> None:
    write(tmp_path / "aws", f"touch {tmp_path}/called")
    write(tmp_path / "gcloud", f"touch {tmp_path}/called")
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    refused = subprocess.run(
        [f"cluster/iam/{script}", *words], env=environment, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2 and words[-1] in refused.stderr and "alone" in refused.stderr
    assert not (tmp_path / "called").exists()


def test_setup_installs_what_is_pinned_and_can_run_again(tmp_path: Path) -> None:
    assert len({tuple(config_of(name)["setup_commands"]) for name in TEXTS}) == 1
    for target, source in config_of("aws")["file_mounts"].items():
        write(tmp_path / target[2:], "token" if "auth" in target else Path(source).read_text())
    uv = """echo "$@" >> ~/uv.log; case $1 in --version) cat ~/uv.version ;; venv)
        mkdir -p ~/blat/venv/bin; touch ~/blat/venv/bin/python; chmod +x ~/blat/venv/bin/python ;; esac"""
    write(tmp_path / "uv", uv)
    install = "mkdir -p ~/.local/bin; cp ~/uv ~/.local/bin; basename $(dirname $2) > ~/uv.version; echo >> ~/downloads"
    write(tmp_path / "tools/curl", install)
    for command in 2 * config_of("aws")["setup_commands"]:
        shell(tmp_path, command)
    assert f"\nuv=={(tmp_path / 'uv.version').read_text()}" in Path("constraints.txt").read_text()
    calls, downloads = (tmp_path / "uv.log").read_text(), (tmp_path / "downloads").read_text()
    assert (
        len(downloads) == calls.count("venv --python 3.11") == 1
        and calls.count(f"--constraint {tmp_path}/blat/constraints.txt") == 2
    )
    assert (tmp_path / ".ray/auth_token").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".bashrc").read_text() == f"export RAY_AUTH_MODE=token PATH={tmp_path}/blat/venv/bin:$PATH\n"


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("gpus", ["echo 'GPU 0: NVIDIA L4 (UUID: GPU-0)'", "echo 'No devices were found'; exit 6"])
def test_nodes_start_guarded_and_look_for_gpus_on_premises(name: str, gpus: str, tmp_path: Path) -> None:
    write(tmp_path / "tools/ray", "exit 1")  # not this one
    write(tmp_path / "blat/venv/bin/ray", 'echo "$RAY_AUTH_MODE v$RAY_enable_autoscaler_v2" "$@" >> ~/ray.log')
    write(tmp_path / "tools/nvidia-smi", gpus)
    for kind in ("head", "worker"):
        given = {"RAY_HEAD_IP": "192.0.2.10", "RAY_enable_autoscaler_v2": "1"}  # as `ray up` gives them
        shell(tmp_path, with_envs(config_of(name)[f"{kind}_start_ray_commands"], given)[-1])
    local, one_byte = (
        (" --num-cpus=0 --num-gpus=0", " --memory=1" * ("UUID" in gpus)) if name == "on_prem" else ("", "")
    )
    assert (tmp_path / "ray.log").read_text().splitlines() == [
        f"token v{0 if local else 1} start --head --port=6379{local} "
        f"--autoscaling-config={tmp_path}/ray_bootstrap_config.yaml --dashboard-host=127.0.0.1 --metrics-export-port=8080",
        f"token v1 start --address=192.0.2.10:6379 --metrics-export-port=8080{one_byte}",
    ]
