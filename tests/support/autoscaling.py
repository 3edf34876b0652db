"""Ray's own autoscaler over the node types of a file, and a cloud that may refuse one of them."""

from typing import Any
from unittest.mock import Mock

from ray.autoscaler.v2 import autoscaler as v2
from ray.autoscaler.v2.scheduler import SchedulingRequest
from ray.core.generated import autoscaler_pb2 as pb

from pipeline.graph.engine import TASK_CPUS, TASK_MEMORY

MODEL, READING = (  # what two actors or two tasks wait for
    [pb.ResourceRequestByCount(request=pb.ResourceRequest(resources_bundle=shape), count=2)]
    for shape in ({"CPU": 0.5, "GPU": 1.0}, {"CPU": TASK_CPUS, "memory": TASK_MEMORY})
)


def chosen(config: v2.AutoscalingConfig, waiting: list[Any], refused: str) -> set[str]:
    """Return the node types that are launched for what waits, one of them known to be refused."""
    request = SchedulingRequest(True, config.get_node_type_configs(), config.get_max_num_nodes())
    request.resource_requests, request.recoverable_resource_availabilities = waiting, {refused: 0.0}
    return {each.instance_type for each in v2.ResourceDemandScheduler().schedule(request).to_launch}


def asked(
    config: v2.AutoscalingConfig,
    rounds: int,
    refused: str = "",
    reconciler: type = v2.Reconciler,
    watcher: type = v2.CloudResourceMonitor,
) -> list[str]:
    """Return the types of the nodes that are asked of a cloud when two actors wait, in so many rounds."""
    head_type = config.get_head_node_type()
    nodes = {"head-0": {"ray-node-type": "head", "ray-user-node-type": head_type}}
    types: list[str] = []

    def create(_: Any, tags: dict[str, str], count: int, *__: Any) -> None:
        types.extend([tags["ray-user-node-type"]] * count)
        if tags["ray-user-node-type"] == refused:
            raise RuntimeError("InsufficientInstanceCapacity")
        nodes.update({f"node-{len(types)}-{i}": tags for i in range(count)})

    cloud = Mock(non_terminated_nodes=lambda _: list(nodes), is_running="head-0".__eq__, node_tags=nodes.__getitem__)
    cloud.create_node_with_resources_and_labels = create
    cloud.terminate_nodes = lambda names: [nodes.pop(name) for name in names]
    provider = v2.NodeProviderAdapter(cloud, Mock(get_cached_autoscaling_config=lambda: config), 1, 1)
    monitor, storage = watcher(), v2.InstanceStorage(cluster_id="", storage=v2.InMemoryStorage())
    manager = v2.InstanceManager(storage, [v2.CloudInstanceUpdater(provider), monitor])
    scheduler = v2.ResourceDemandScheduler()
    for _ in range(rounds):
        head = pb.NodeState(node_id=b"h" * 28, instance_id="head-0", ray_node_type_name=head_type, status="RUNNING")
        head.total_resources["node:__internal_head__"] = 1.0
        state = pb.ClusterResourceState(node_states=[head], pending_resource_requests=MODEL)
        seen, errors = provider.get_non_terminated(), provider.poll_errors()
        reconciler.reconcile(manager, scheduler, provider, monitor, state, seen, config, errors, [], [])
        for work in (provider._main_executor, provider._node_launcher_executors):
            work.submit(int).result()  # each runs one after the other
    return types
