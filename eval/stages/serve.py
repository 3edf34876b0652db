"""A page and a JSON API over an index: `python -m eval serve --index <index>`.

It serves in this process, or with `--replicas` by Ray Serve. Ctrl-C stops it.
"""

import logging
import os
from dataclasses import dataclass, field
from importlib.util import find_spec

from eval.search.config import IndexConfig
from eval.search.index import read_info
from eval.serving.settings import TOKEN_VARIABLE, Limits, Settings, check_limits, token_hash
from pipeline.errors import InputError

log = logging.getLogger(__name__)
PACKAGES = ("lancedb", "fastapi", "multipart", "uvicorn")  # of the extra `search`
MAX_PORT = 65_535


@dataclass(frozen=True, kw_only=True)
class ServeConfig(IndexConfig):
    """Serve the search page and its API."""

    host: str = "127.0.0.1"
    """Address to listen at. One that other machines reach needs a token in the variable BLAT_SEARCH_TOKEN."""
    port: int = 8000
    """Port to listen at; 0 takes a free one."""
    replicas: int = 0
    """Processes that answer, by Ray Serve: on this machine, or on the cluster that RAY_ADDRESS names; 0 serves in this
    process."""
    max_replicas: int = 0
    """Processes to grow to under load; 0 keeps the number."""
    gpus_per_replica: float = 0.0
    """GPUs for each process of Ray Serve."""
    limits: Limits = field(default_factory=Limits)
    """What one process takes on."""


def run(config: ServeConfig) -> None:
    """Serve until Ctrl-C."""
    _check(config)
    settings = Settings(
        index=config.index,
        model=config.model,
        device="cuda" if config.gpus_per_replica else config.device,
        limits=config.limits,
        token_sha256=token_hash(config.host, os.environ.get(TOKEN_VARIABLE, "")),
    )
    log.info("serve: opens %s and its model, which takes some seconds", config.index)
    try:
        if config.replicas:
            _run_on_ray(config, settings)
        else:
            _run_here(config, settings)
    except KeyboardInterrupt:
        log.info("serve: stopped")


def _check(config: ServeConfig) -> None:
    if not config.index:
        raise InputError("--index", config.index, "give the --out of `python -m eval index-search`")
    if not 0 <= config.port <= MAX_PORT:
        raise InputError("--port", config.port, f"use 1 to {MAX_PORT}, or 0 for a free one")
    if config.replicas < 0:
        raise InputError("--replicas", config.replicas, "use 0 for this process, or 1 and more")
    if config.max_replicas and config.max_replicas < max(1, config.replicas):
        raise InputError("--max-replicas", config.max_replicas, "use --replicas or more, with --replicas 1 or more")
    if (config.gpus_per_replica or config.max_replicas) and not config.replicas:
        raise InputError("--replicas", config.replicas, "use 1 or more with --max-replicas and --gpus-per-replica")
    check_limits(config.limits)
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise InputError("--index", config.index, f"{', '.join(missing)} is missing: pip install -e '.[search]'")


def _run_here(config: ServeConfig, settings: Settings) -> None:
    from eval.serving import app, in_process

    with in_process.bind(config.host, config.port) as bound:
        in_process.run(app.load(settings), bound, lambda: _announce(in_process.address(bound), settings))


def _run_on_ray(config: ServeConfig, settings: Settings) -> None:
    from eval.serving import deployment, in_process

    read_info(config.index)  # before Ray starts, whose errors are long
    with in_process.bind(config.host, config.port) as bound:  # whether the port is free, and which one 0 means
        host, port = bound.getsockname()[:2]
        address = in_process.address(bound)
    replicas = deployment.Replicas(number=config.replicas, most=config.max_replicas, gpus=config.gpus_per_replica)
    deployment.run(settings, replicas, host, port, lambda: _announce(address, settings))


def _announce(address: str, settings: Settings) -> None:
    token = "; its token is that of BLAT_SEARCH_TOKEN" if settings.token_sha256 else ""
    log.info("serve: %s answers%s; Ctrl-C stops it", address, token)
