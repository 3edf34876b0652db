"""The search index of datasets: `python -m eval index-search <config> --data DATASET... --model CKPT --out INDEX`.

Below --vector-index-from clips every search compares all vectors. The same command brings an index up to its datasets.
"""

import functools
import logging
from dataclasses import dataclass, field

from eval.embedding import evaluation
from eval.embedding.evaluation import ComputeConfig
from eval.embedding.stream import stream
from eval.search import filling, index, units
from eval.search.index import IndexInfo
from eval.search.units import Dataset
from pipeline import run_dir
from pipeline.errors import InputError, JobError
from train import checkpoint

log = logging.getLogger(__name__)
GROUP_CLIPS = 100_000  # that actors embed in one pass; in this process a pass is a unit of the dataset


@dataclass(frozen=True, kw_only=True)
class IndexSearchConfig(ComputeConfig):
    """Index clips for search by text and by sound."""

    data: tuple[str, ...] = ()
    """Datasets of shards that `pipeline caption` wrote, or other sources of clips: all that the index is to hold."""
    captions: str = ""
    """Overlay whose captions to index, such as one that `pipeline recaption` wrote; empty takes the shards' own."""
    out: str = ""
    """Folder or URI of the index."""
    drop: bool = False
    """Remove the datasets from the index that --data does not name; without it such a command is refused."""
    vector_index_from: int = 100_000
    """Clips from which an approximate vector index is built. Below, search is exact."""


@dataclass(frozen=True, kw_only=True)
class _Identity:
    """What one index is bound to, beside the revision of its model."""

    out: str = field(default="", metadata=run_dir.NOT_IDENTITY)


def run(config: IndexSearchConfig) -> None:
    """Bring the index up to its datasets."""
    checkpoint_info = checkpoint.describe(config.model, "--model", "clap")
    evaluation.check_compute(config)
    if config.vector_index_from < 1:
        raise InputError("--vector-index-from", config.vector_index_from, "use 1 or more")
    out = run_dir.writable(config.out)
    index.connect(out, "--out")
    datasets = _open(config)
    run_dir.claim(out, _Identity(out=out), identity={"revision": checkpoint_info.revision})
    dim = checkpoint_info.network.joint_dim
    table = index.open_table(out, "--out", dim)
    listed = filling.compare(table, datasets)
    _check_gone(config, {dataset.uri for dataset in datasets}, {data for data, _ in listed.gone})
    log.info("index-search: %d parts of the datasets to write, %d to remove", len(listed.todo), len(listed.gone))
    filling.fill(table, listed, _embedder(config), GROUP_CLIPS if config.workers else 1)
    index.optimize(table, config.vector_index_from)
    entries = filling.describe(table, datasets, listed)
    clips, missing = sum(entry.clips for entry in entries), sum(entry.missing for entry in entries)
    if not clips:
        raise JobError(f"none of {sum(listed.clips)} clips could be read")
    index.publish_info(
        IndexInfo(
            uri=out,
            model=checkpoint.resolve(config.model),
            revision=checkpoint_info.revision,
            dim=dim,
            clips=clips,
            datasets=entries,
        )
    )
    log.info("index-search: %d clips in %s; %d could not be read", clips, out, missing)


def _open(config: IndexSearchConfig) -> list[Dataset]:
    if not config.data:
        raise InputError("--data", "", "give one or more datasets that `python -m pipeline caption` wrote")
    datasets = [units.open_dataset(uri, config.captions) for uri in config.data]
    uris = [dataset.uri for dataset in datasets]
    if doubled := [uri for uri in uris if uris.count(uri) > 1]:
        raise InputError("--data", doubled[0], "is given twice")
    return datasets


def _check_gone(config: IndexSearchConfig, named: set[str], losing: set[str]) -> None:
    """Raise InputError when a dataset would leave the index and nobody asked for that."""
    if not config.drop and (others := sorted(losing - named)):
        remedy = f"the index also holds {', '.join(others)}; name it in --data, or add --drop to remove it"
        raise InputError("--data", " ".join(config.data), remedy)


def _embedder(config: IndexSearchConfig) -> filling.Embed:
    """Return what embeds clips. The model is loaded when the first clip needs it."""
    load = functools.cache(lambda: evaluation.load(config.model, "--model", config.device))
    return lambda places: stream(config, load(), places)
