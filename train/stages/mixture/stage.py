"""The command of `train mixture`.

<out>/clusters.parquet         which clip is in which cluster (train/data/mixing.py)
<out>/proxy-000.json, ...      mixtures that were tried
<out>/proxies/000/ ...         the models that tried them
<out>/uniform.json             every cluster alike
<out>/searched.json            the mixture that the search ends with
<out>/search.json              clusters, tried mixtures and their scores; published last
"""

import dataclasses
import logging
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline import run_dir, storage
from pipeline.errors import InputError
from pipeline.run_dir import NOT_IDENTITY
from train import checkpoint
from train.data import clip_sets, mixing
from train.data.clip_sets import Mixture
from train.data.loader import Clips
from train.stages import pretrain, training
from train.stages.mixture import clusters, search
from train.stages.mixture.search import Array, Tried
from train.stages.pretrain import PretrainConfig
from train.stages.pretrain import clips as pretrain_clips

log = logging.getLogger(__name__)
SCORE = "recall_geometric_mean"  # of the validation clips, BLAT's rule
SEARCH_FILE = "search.json"
EXAMPLES = 5  # captions of each cluster that search.json shows


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """Search the shares of caption clusters that suit the validation clips best."""

    recipe: PretrainConfig = field(default_factory=PretrainConfig)
    """What to mix (--recipe.data), for which clips (--recipe.validation), and how a small model is trained on a mixture."""
    model: str = field(default="", metadata=NOT_IDENTITY)
    """Two-tower checkpoint whose text tower embeds the captions for clustering."""
    num_clusters: int = 8
    """Clusters."""
    proxies: tuple[int, ...] = (64, 32, 16)
    """Mixtures that each round tries, a small model each. The first two are proportional and uniform."""
    out: str = ""
    """Folder or URI to write to."""

    def check(self) -> None:
        """Raise InputError for flags that cannot be, before anything is read."""
        if self.num_clusters < 2:
            raise InputError("--num-clusters", self.num_clusters, "use 2 or more")
        if not self.proxies or min(self.proxies) < 1 or self.proxies[0] < 2:
            raise InputError("--proxies", self.proxies, "give a number above 0 for each round, 2 or more for the first")
        if not self.recipe.validation:
            raise InputError("--recipe.validation", "", "give captioned clips like those that the model is for")
        for name in ("mixture", "weights"):
            if value := getattr(self.recipe, name):
                raise InputError(f"--recipe.{name}", value, "leave it out: the search sets the shares")
        self.recipe.check()


def run(config: MixtureConfig) -> None:
    """Cluster, search and publish; a finished search is left alone, an interrupted one goes on."""
    config.check()
    recipe = training.with_absolute_paths(config.recipe, "data", "validation", "init", "init_audio")
    revision = checkpoint.describe(config.model, "--model", "clap").revision
    parts, validation, _ = pretrain_clips.read(recipe)
    whole = Mixture(parts)
    if validation is None or not any(validation.texts):
        raise InputError("--recipe.validation", recipe.validation, "its clips need captions: they rank the mixtures")
    identity = {
        "content": clip_sets.fingerprint(whole),
        "held_out": clip_sets.fingerprint(validation),
        "model_revision": revision,
    }
    out = run_dir.claim(config.out, dataclasses.replace(config, recipe=recipe), identity)
    if storage.exists(storage.join(out, SEARCH_FILE)):
        log.info("mixture: %s is complete already", out)
        return
    labels = clusters.assign(clusters.embed(whole.texts, config.model), config.num_clusters, recipe.optim.seed)
    mixing.publish_clusters(out, whole.keys, labels)
    sizes = np.bincount(labels)
    if len(sizes) < 2:
        raise InputError("--recipe.data", recipe.data, "all its clips have the same captions: there is nothing to mix")
    log.info("mixture: %d clips in clusters of %s", len(labels), ", ".join(map(str, sizes)))
    rng = np.random.default_rng(recipe.optim.seed)
    tried = _search(config, recipe, out, rng, sizes / sizes.sum())
    found = search.final(rng, tried)
    mixing.publish_shares(out, "uniform", np.full(len(sizes), 1 / len(sizes)))
    mixing.publish_shares(out, "searched", found)
    storage.publish_json(storage.join(out, SEARCH_FILE), _record(whole, labels, tried, found))
    log.info("mixture: proportional %s, searched %s, in %s", _shown(sizes / sizes.sum()), _shown(found), out)


def _search(config: MixtureConfig, recipe: PretrainConfig, out: str, rng: np.random.Generator, own: Array) -> Tried:
    """Try the mixtures of every round; `own` (K,) are the shares that the clusters have by themselves."""
    tried = Tried(np.zeros((0, len(own))), np.zeros(0))
    for number, count in enumerate(config.proxies):
        shares = search.following(rng, tried, count) if number else search.first(rng, own, count)
        start, total = len(tried.scores), sum(config.proxies)
        scores = [_try(recipe, out, start + index, each, total) for index, each in enumerate(shares)]
        tried = Tried(np.concatenate([tried.shares, shares]), np.concatenate([tried.scores, scores]))
    return tried


def _try(recipe: PretrainConfig, out: str, number: int, shares: Array, total: int) -> float:
    """Train a small model on a mixture, unless it is trained already, and return its score."""
    mixture = mixing.publish_shares(out, f"proxy-{number:03d}", shares)
    folder = storage.join(out, "proxies", f"{number:03d}")
    pretrain.run(dataclasses.replace(recipe, mixture=mixture, out=folder))
    score = float(checkpoint.describe(folder, "--out", "clap").lineage["last_epoch"][SCORE])
    log.info("mixture: proxy %d of %d: %s scores %.4f", number + 1, total, _shown(shares), score)
    return score


def _record(clips: Clips, labels: npt.NDArray[np.int32], tried: Tried, found: Array) -> dict[str, object]:
    """Return what search.json states."""
    rows = [np.flatnonzero(labels == cluster) for cluster in range(len(found))]
    return {
        "clusters": [
            {"clips": len(own), "captions": [clips.texts[int(row)][0] for row in own[:EXAMPLES]]} for own in rows
        ],
        "tried": [
            {"shares": shares.tolist(), SCORE: score}
            for shares, score in zip(tried.shares, tried.scores.tolist(), strict=True)
        ],
        "searched": {"shares": found.tolist(), "predicted": float(search.predict(tried, found[None])[0])},
    }


def _shown(shares: Array) -> str:
    return " ".join(f"{share:.2f}" for share in shares)
