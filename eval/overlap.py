"""Whether what is evaluated was trained on: by key, by YouTube recording, by how it sounds."""

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline import audio, fingerprint, fingerprints, sources
from pipeline.clip import Clip
from train import checkpoint

READERS = 4
AUDIOSET_KEY = re.compile(r"Y([\w-]{11})_\d+_\d+")


def count(clips: Sequence[Clip], model_uri: str, lineage: dict[str, Any], tables: Sequence[str]) -> dict[str, Any]:
    """Count evaluated clips among those that the model, and what it was made from, were trained or selected on.

    Args:
        clips: those evaluated.
        model_uri: the checkpoint; names of the clips it was trained on lie in it.
        lineage: of the model.
        tables: fingerprints of its training audio.

    Returns:
        A count by stage; None where a checkpoint is not to be reached from here, which is unknown and not 0.
    """
    captioner = lineage.get("generation", {}).get("captioner", "")
    starts = {"captioner": captioner, "init": lineage.get("init", ""), "init_audio": lineage.get("init_audio", "")}
    found: dict[str, Any] = {}
    for stage, uri in {"model": model_uri, **starts}.items():
        if not uri:
            continue
        try:
            found[stage] = len(_shared(clips, checkpoint.trained_on(uri)))
            if selected := len(_shared(clips, checkpoint.selected_on(uri))):
                found[f"{stage}_selected_on"] = selected
        except OSError:
            found[stage] = None
    if tables:
        found["model_sounds"] = len(_heard(clips, tables))
    return found


def _shared(clips: Sequence[Clip], trained: Iterable[str]) -> list[Clip]:
    """Return the clips whose key, or YouTube recording, is among those of the keys trained on."""
    keys = set(trained)
    videos = {f"youtube:{named[1]}" for key in keys if (named := AUDIOSET_KEY.fullmatch(key))}
    return [clip for clip in clips if clip.key in keys or clip.origin in videos]


def _heard(clips: Sequence[Clip], tables: Sequence[str]) -> list[Clip]:
    """Return the clips that share a stretch of sound with what the tables hold."""
    for table in tables:
        fingerprints.revision(table, "--fingerprints")
    index = fingerprint.Index(entry for table in tables for entry in fingerprints.read(table))

    def known(clip: Clip) -> bool:
        try:
            samples = sources.read_samples(clip)
        except audio.AudioError:
            return False
        return index.find(fingerprint.fingerprint(samples, audio.SAMPLE_RATE_HZ)) is not None

    with ThreadPoolExecutor(READERS) as pool:
        return [clip for clip, hit in zip(clips, pool.map(known, clips), strict=True) if hit]
