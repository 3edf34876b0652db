"""Mixtures of clusters: which share of the training clips comes from which cluster of a dataset.

<folder>/clusters.parquet   key and cluster of each clip; `train mixture` writes it
<folder>/<name>.json        {"shares": [...]}: of each cluster, its share of the clips that an epoch takes

Shapes: K = clusters.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import storage
from pipeline.errors import InputError
from train.data.clip_sets import ClipSubset
from train.data.loader import Clips

CLUSTERS_FILE = "clusters.parquet"
CLUSTERS = pa.schema([("key", pa.string()), ("cluster", pa.int32())])
Array = npt.NDArray[np.float64]


def publish_clusters(folder: str, keys: Sequence[str], labels: npt.NDArray[np.int32]) -> None:
    """Publish the cluster of each clip; `labels` is (clips,)."""
    table = pa.table({"key": list(keys), "cluster": labels}, schema=CLUSTERS)
    storage.publish_table(storage.join(folder, CLUSTERS_FILE), table)


def publish_shares(folder: str, name: str, shares: Array) -> str:
    """Publish the shares (K,) of a mixture, which add up to 1, and return its file for `--mixture`."""
    uri = storage.join(folder, f"{name}.json")
    storage.publish_json(uri, {"shares": shares.tolist()})
    return uri


def split(datasets: Sequence[Clips], mixture: str) -> tuple[list[Clips], tuple[float, ...]]:
    """Split datasets by cluster, and return the passes over each part that give every cluster its share.

    An epoch stays as long as without a mixture, but for rounding. A cluster without a clip in the datasets is left out,
    and the other shares grow.

    Args:
        datasets: the clips to train on.
        mixture: file of the shares, with the clusters beside it.

    Raises:
        InputError: when the file is no mixture, or was made of other clips.
    """
    shares, cluster_of = _read(mixture)
    try:
        labels = [np.array([cluster_of[key] for key in clips.keys], np.int32) for clips in datasets]
    except KeyError as error:
        remedy = f"has no cluster for the clip {error}: run `python -m train mixture` on the same --data"
        raise InputError("--mixture", mixture, remedy) from None
    counts = np.bincount(np.concatenate(labels), minlength=len(shares))
    passes = _passes(shares, counts)
    found = [
        (ClipSubset(clips, np.flatnonzero(own == cluster)), float(passes[cluster]))
        for clips, own in zip(datasets, labels, strict=True)
        for cluster in np.unique(own)
    ]
    return [clips for clips, _ in found], tuple(weight for _, weight in found)


def _passes(shares: Array, counts: npt.NDArray[np.int64]) -> Array:
    """Return the passes (K,) over the clips of each cluster that give it its share of an epoch; 0 without clips."""
    present = np.where(counts > 0, shares, 0.0)
    passes: Array = present / present.sum() * counts.sum() / np.maximum(counts, 1)
    return passes


def _read(mixture: str) -> tuple[Array, Mapping[str, int]]:
    """Return the shares (K,) and the cluster of each key."""
    clusters = storage.join(mixture.rpartition("/")[0], CLUSTERS_FILE)
    try:
        shares = np.array(storage.read_json(mixture)["shares"], np.float64)
        table = storage.read_table(clusters)
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = f"is no mixture that `python -m train mixture` wrote: {error}"
        raise InputError("--mixture", mixture, remedy) from None
    cluster_of = dict(zip(table["key"].to_pylist(), table["cluster"].to_pylist(), strict=True))
    if shares.ndim != 1 or len(shares) <= max(cluster_of.values()) or not (shares > 0).all():
        raise InputError("--mixture", mixture, "give a share above 0 for each cluster")
    return shares, cluster_of
