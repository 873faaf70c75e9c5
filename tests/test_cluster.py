"""cluster.yaml and kuberay.yaml through Ray's own launcher and autoscaler code, as far as that goes without a cloud."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.kuberay import autoscaling_config
from ray.autoscaler._private.util import hash_launch_conf, prepare_config, validate_config

from study.config import ResourceConfig, list_presets
from study.tune.resources import ON_DEMAND, Ask, Capacity, Nodes, ask_of
from tests.clusters import COMMANDS, HEAD, growing_cluster
from tests.commands import study_process, table

ROOT = Path(__file__).parent.parent


def read(name: str) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return tree


def pinned(package: str) -> str:
    return str(re.search(rf"^{package}==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)[1])  # type: ignore[index]


@pytest.fixture
def cluster() -> dict[str, Any]:
    return read("cluster.yaml")


@pytest.fixture(scope="module")
def launched() -> Iterator[dict[str, Any]]:
    """The cluster as `ray up` completes it, against a simulated AWS whose client checks each call's parameters."""
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        config = prepare_config(read("cluster.yaml"))
        region = config["provider"]["region"]
        image = boto3.client("ec2", region).describe_images()["Images"][0]["ImageId"]
        for name in ("study-head", "study-worker"):
            boto3.client("iam").create_instance_profile(InstanceProfileName=name)
        for kind in config["available_node_types"].values():
            kind["node_config"]["ImageId"] = image
            kind["node_config"]["KeyName"] = "test"
        config["auth"]["ssh_private_key"] = "test.pem"
        yield bootstrap_aws(AWSNodeProvider.fillout_available_node_types_resources(config))


def test_ray_accepts_the_cluster(cluster: dict[str, Any], launched: dict[str, Any]) -> None:
    validate_config(prepare_config(cluster))
    assert set(cluster) <= set(launched)
    for kind in launched["available_node_types"].values():
        assert hash_launch_conf(kind["node_config"], {"ssh_user": "ubuntu"})


def with_unknown_key(tree: dict[str, Any]) -> None:
    tree["idle_timeout_minute"] = 10


def with_unknown_key_of_a_node(tree: dict[str, Any]) -> None:
    tree["available_node_types"]["gpu"]["max_worker"] = 3


def with_wrong_type(tree: dict[str, Any]) -> None:
    tree["max_workers"] = "ten"


def without_head_type(tree: dict[str, Any]) -> None:
    del tree["available_node_types"]["head"]


@pytest.mark.parametrize(
    "broken",
    [with_unknown_key, with_unknown_key_of_a_node, with_wrong_type, without_head_type],
    ids=lambda f: f.__name__,
)
def test_ray_refuses_a_broken_cluster(cluster: dict[str, Any], broken: Any) -> None:
    broken(cluster)
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validate_config(prepare_config(cluster))


def test_every_node_gets_the_pinned_ray_and_no_default_installs_another(cluster: dict[str, Any]) -> None:
    ready = prepare_config(cluster)
    commands = [command for name in COMMANDS for command in ready[name]]
    installing = [command for command in commands if "pip install" in command]
    assert installing and all("constraints.txt" in command for command in installing)
    assert not any(word in command for command in commands for word in ("http", "nightly", "wheels", "latest"))
    # Both kinds of node run the common commands, and no others.
    assert ready["head_setup_commands"] == ready["worker_setup_commands"] == cluster["setup_commands"]


def test_a_node_knows_the_token_and_where_data_are(cluster: dict[str, Any]) -> None:
    setup = "\n".join(cluster["setup_commands"])
    assert "RAY_AUTH_MODE=token" in setup and "STUDY_DATA_ROOT=" in setup
    assert cluster["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("--dashboard-host=127.0.0.1" in command for command in cluster["head_start_ray_commands"])


def test_only_ssh_is_open_to_the_world(launched: dict[str, Any]) -> None:
    ec2 = boto3.client("ec2", launched["provider"]["region"])
    used = {
        group for kind in launched["available_node_types"].values() for group in kind["node_config"]["SecurityGroupIds"]
    }
    rules = [
        rule
        for group in ec2.describe_security_groups(GroupIds=sorted(used))["SecurityGroups"]
        for rule in group["IpPermissions"]
    ]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in rules if rule["IpRanges"] or rule["Ipv6Ranges"]] == [
        (22, 22)
    ]
    assert {pair["GroupId"] for rule in rules for pair in rule["UserIdGroupPairs"]} == used


def test_spot_takes_no_head_and_no_driver(launched: dict[str, Any]) -> None:
    ec2 = boto3.client("ec2", launched["provider"]["region"])
    provider = AWSNodeProvider(launched["provider"], launched["cluster_name"])
    on_spot = {}
    for name, kind in launched["available_node_types"].items():
        (node,) = provider.create_node(kind["node_config"], {"ray-node-name": name}, 1)
        instance = ec2.describe_instances(InstanceIds=[node])["Reservations"][0]["Instances"][0]
        on_spot[name] = instance.get("InstanceLifecycle") == "spot"
    assert on_spot == {"head": False, "gpu": True, "cpu": False}
    kinds = launched["available_node_types"]
    assert {name for name in kinds if ON_DEMAND in kinds[name]["resources"]} == {"head", "cpu"}


def test_aws_refuses_a_key_that_it_does_not_know(launched: dict[str, Any]) -> None:
    provider = AWSNodeProvider(launched["provider"], launched["cluster_name"])
    node = copy.deepcopy(launched["available_node_types"]["gpu"]["node_config"])
    node["InstanceMarketOption"] = node.pop("InstanceMarketOptions")
    with pytest.raises(Exception, match="Unknown parameter in input"):
        provider.create_node(node, {"ray-node-name": "gpu"}, 1)


def test_the_cluster_grows_from_nothing_to_all_gpus(launched: dict[str, Any]) -> None:
    kinds = launched["available_node_types"]
    assert kinds["gpu"]["min_workers"] == kinds["cpu"]["min_workers"] == 0
    head = Nodes({**kinds["head"]["resources"], "node:__internal_head__": 1})
    workers = tuple(Nodes(kinds[name]["resources"], kinds[name]["max_workers"]) for name in ("gpu", "cpu"))
    capacity = Capacity("the cluster", (head,), workers, launched["max_workers"])
    assert capacity.stages(ask_of(ResourceConfig(gpus=1))) == 8
    assert capacity.stages(ask_of(ResourceConfig(gpus=1, workers=2))) == 4
    assert capacity.stages(Ask(cpus=1, gpus=2)) == 0
    assert capacity.offers(ON_DEMAND)


@pytest.mark.slow
def test_the_documented_command_starts_the_nodes_that_it_needs(
    launched: dict[str, Any], preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With cluster.yaml's own kinds of nodes, as AWS describes them; only who starts them is another."""
    kinds = {
        # The simulated provider gives its head this name, and knows no memory.
        HEAD if name == launched["head_node_type"] else name: {
            **kind,
            "node_config": {},
            "resources": {what: amount for what, amount in kind["resources"].items() if what != "memory"},
        }
        for name, kind in launched["available_node_types"].items()
    }
    with growing_cluster(monkeypatch, kinds, launched["max_workers"]) as (address, folder):
        printed = study_process(preset, tmp_path / "cpu", "--address", address, "--slots", "2")
        assert (table(tmp_path / "cpu", "stages")["status"] == "done").all(), printed
        assert "Adding 1 node(s) of type cpu" in (asked := monitor(folder)) and "of type gpu" not in asked
        # These GPUs are Ray's alone: the study says so, and trains nothing.
        refused = study_process(preset, tmp_path / "gpu", "--address", address, "--set", "resources.gpus=1", status=1)
        assert "DeviceError: PyTorch" in refused and "can use no GPU" in refused
        assert not (tmp_path / "gpu" / "stages").exists()
        assert "Adding 1 node(s) of type gpu" in monitor(folder)


def monitor(folder: Path) -> str:
    """What the autoscaler of the cluster in the folder has written."""
    return "".join(path.read_text(errors="replace") for path in folder.glob("session_2*/logs/monitor.log"))


# KubeRay


FIELDS = {
    "RayJob": {"entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"},
    "RayCluster": {
        "rayVersion",
        "authOptions",
        "enableInTreeAutoscaling",
        "autoscalerOptions",
        "headGroupSpec",
        "workerGroupSpecs",
    },
    "head": {"rayStartParams", "template"},
    "worker": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}
"""Fields of KubeRay's API reference that the manifest uses: Ray's own code passes over fields that it does not know."""


def autoscaler_of(job: dict[str, Any]) -> dict[str, Any]:
    """What the autoscaler in the head pod makes of the cluster that the operator would create."""
    resource = {"metadata": {"name": "study", "namespace": "default"}, "spec": job["spec"]["rayClusterSpec"]}
    config: dict[str, Any] = autoscaling_config._derive_autoscaling_config_from_ray_cr(resource)
    return config


def assert_known(job: dict[str, Any]) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    assert set(job["spec"]) <= FIELDS["RayJob"] and set(cluster) <= FIELDS["RayCluster"]
    assert set(cluster["headGroupSpec"]) <= FIELDS["head"]
    assert all(set(group) <= FIELDS["worker"] for group in cluster["workerGroupSpecs"])


def test_the_autoscaler_reads_the_kuberay_job() -> None:
    job = read("kuberay.yaml")
    assert_known(job)
    config = autoscaler_of(job)
    kinds = config["available_node_types"]
    assert kinds["headgroup"]["resources"]["CPU"] == 0 and ON_DEMAND in kinds["headgroup"]["resources"]
    assert kinds["gpu"]["resources"]["GPU"] == 1
    assert (kinds["gpu"]["min_workers"], kinds["gpu"]["max_workers"]) == (0, 8)
    assert f"--slots {kinds['gpu']['max_workers']}" in job["spec"]["entrypoint"]


def test_the_kuberay_job_runs_the_study_with_the_pinned_ray_and_cleans_up() -> None:
    spec = read("kuberay.yaml")["spec"]
    words = spec["entrypoint"].split()
    assert words[:3] == ["python", "-m", "study.ablation"] and words[words.index("--preset") + 1] in list_presets()
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["rayClusterSpec"]["authOptions"]["mode"] == "token"
    assert spec["rayClusterSpec"]["rayVersion"] == pinned("ray")
    assert f"FROM rayproject/ray:{pinned('ray')}-" in (ROOT / "Dockerfile").read_text()


def without_replicas(cluster: dict[str, Any]) -> None:
    del cluster["workerGroupSpecs"][0]["maxReplicas"]


def with_wrong_replicas(cluster: dict[str, Any]) -> None:
    cluster["workerGroupSpecs"][0]["maxReplicas"] = "8"


def with_wrong_resources(cluster: dict[str, Any]) -> None:
    cluster["headGroupSpec"]["rayStartParams"]["resources"] = json.dumps("on_demand")


def with_misspelt_field(cluster: dict[str, Any]) -> None:
    cluster["enableInTreeAutoscaler"] = cluster.pop("enableInTreeAutoscaling")


@pytest.mark.parametrize(
    "broken",
    [without_replicas, with_wrong_replicas, with_wrong_resources, with_misspelt_field],
    ids=lambda f: f.__name__,
)
def test_a_broken_kuberay_job_is_refused(broken: Any) -> None:
    job = read("kuberay.yaml")
    broken(job["spec"]["rayClusterSpec"])
    with pytest.raises((KeyError, TypeError, ValueError, AssertionError, jsonschema.ValidationError)):
        assert_known(job)
        autoscaler_of(job)
