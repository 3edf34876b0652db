"""The application as replicas of Ray Serve: on this machine, on a cluster as a job, or by a RayService of KubeRay."""

import dataclasses
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve import Application

from eval.serving import app
from eval.serving.settings import TOKEN_VARIABLE, Limits, Settings, check_limits, token_hash
from pipeline import ray_noise
from pipeline.errors import InputError

NAME = "search"
ANY_HOST = "0.0.0.0"  # noqa: S104  # where replicas of a cluster are reached, so that they need a token
SHUTDOWN_S = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replicas:
    """How many processes answer, and what each takes."""

    number: int = 1
    most: int = 0
    """More than `number` lets the number grow with the load."""
    gpus: float = 0.0
    """GPUs that Ray sets aside for each."""


class SearchReplica:
    """One process with the index and the model."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __serve_build_asgi_app__(self) -> Any:  # Ray Serve calls it in the replica
        return app.load(self.settings)


def deploy(settings: Settings, replicas: Replicas) -> Application:
    """Return what Ray Serve runs. A replica takes as many requests at a time as the application allows, and one more
    for the check of its health."""
    options: dict[str, Any] = {"num_replicas": replicas.number}
    if replicas.most > replicas.number:
        bounds = {"min_replicas": replicas.number, "max_replicas": replicas.most}
        options = {"autoscaling_config": {**bounds, "target_ongoing_requests": 4}}
    deployment: Any = serve.deployment(
        serve.ingress()(SearchReplica),
        name=NAME,
        max_ongoing_requests=settings.limits.concurrent + 8,
        ray_actor_options={"num_cpus": 1.0, "num_gpus": replicas.gpus},
        graceful_shutdown_timeout_s=SHUTDOWN_S,
        **options,
    )
    return deployment.bind(settings)


def run(settings: Settings, replicas: Replicas, host: str, port: int, started: Callable[[], None]) -> None:
    """Serve until this process is interrupted; then Serve is shut down, and a Ray that was started for it.

    Raises:
        InputError: when GPUs are asked for and there are none, and when the cluster serves other applications already.
        KeyboardInterrupt: when it was stopped.
    """
    ray_noise.hide()
    ray.init(ignore_reinit_error=True, logging_level=logging.ERROR, include_dashboard=False)
    if replicas.gpus > 0 and not ray.cluster_resources().get("GPU") and not os.environ.get("RAY_ADDRESS"):
        raise InputError("--gpus-per-replica", replicas.gpus, "there is no GPU here; use 0, or run it on a cluster")
    if running := serve.status().applications:
        remedy = "use another cluster, `serve deploy` or cluster/kuberay/service.yaml: Ctrl-C here would stop them all"
        raise InputError("--replicas", replicas.number, f"Ray Serve runs there with {', '.join(running)}; {remedy}")
    quiet = {"log_level": "WARNING", "enable_access_log": False}
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port}, logging_config=quiet)
        serve.run(deploy(settings, replicas), name=NAME, route_prefix="/", logging_config=quiet)
        started()
        threading.Event().wait()
    finally:
        serve.shutdown()
        ray.shutdown()


class Arguments(BaseModel):
    """Arguments of a RayService: `args` of its application in the file of KubeRay."""

    model_config = ConfigDict(extra="forbid")

    index: str
    model: str = ""
    device: str = "cpu"
    limits: Limits = Limits()


def application(arguments: Arguments) -> Application:
    """Build the application of a RayService, whose file says how many replicas there are.

    Raises:
        InputError: when the pods have no token in their environment, or a limit cannot be.
    """
    check_limits(arguments.limits)
    settings = Settings(
        index=arguments.index,
        model=arguments.model,
        device=arguments.device,
        limits=arguments.limits,
        token_sha256=token_hash(ANY_HOST, os.environ.get(TOKEN_VARIABLE, "")),
    )
    return deploy(settings, Replicas())
