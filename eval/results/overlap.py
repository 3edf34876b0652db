"""Whether what is evaluated was trained on: by key, by YouTube recording, by how it sounds."""

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from eval.results.records import Overlap
from pipeline import audio, sources, storage
from pipeline.audio import fingerprint, fingerprint_table
from pipeline.dataset.authorship import SCORES
from pipeline.sources.clip import Clip
from train import checkpoint
from train.checkpoint import Lineage
from train.checkpoint.ancestry import makers

READERS = 4
AUDIOSET_KEY = re.compile(r"Y([\w-]{11})_\d+_\d+")


def count(clips: Sequence[Clip], model_uri: str, lineage: Lineage, tables: Sequence[str]) -> Overlap:
    """Count evaluated clips among those that the model, and what it was made from, were trained or selected on.

    Args:
        clips: those evaluated.
        model_uri: the checkpoint; names of the clips it was trained on lie in it. '' of what is no checkpoint, such as
            captions: what they were made by counts.
        lineage: of the model.
        tables: fingerprints of its training audio.

    Returns:
        A count by stage: `model`, what it was made from, such as `captioner` or `init`, and so on back: `init/init_audio`
        is the encoder that `init` began with. None, which is unknown and not 0, where a checkpoint cannot be read
        from here, or holds released weights.
    """
    found: Overlap = {}
    for stage, uri, lineage_of in _family(model_uri, lineage):
        found |= _counted(clips, stage, uri, lineage_of)
    if tables:
        found["model_sounds"] = len(_by_fingerprint(clips, tables))
    return found


def _family(model_uri: str, lineage: Lineage) -> Iterator[tuple[str, str, Lineage | None]]:
    """Yield a model and, each once, all it was made from: stage, URI, lineage or None where it is not to be reached."""
    waiting: deque[tuple[str, str, Lineage | None]] = deque([("model", model_uri, lineage)])
    seen, named = {storage.resolve(model_uri)}, Counter[str]()
    while waiting:
        stage, uri, lineage_of = waiting.popleft()
        yield stage, uri, lineage_of
        for role, start in _starts(lineage_of or {}):
            if not start or storage.resolve(start) in seen:
                continue
            seen.add(storage.resolve(start))
            name = role if stage == "model" else f"{stage}/{role}"
            named[name] += 1
            waiting.append((name if named[name] == 1 else f"{name} {named[name]}", start, _lineage(start)))


def _starts(lineage: Lineage) -> Iterator[tuple[str, str]]:
    """Yield what a checkpoint was made from by its own lineage: what that was to it, and where it lies, or ''."""
    for made in lineage.get("origins") or [lineage]:  # of several datasets
        yield "captioner", (made.get("generation") or {}).get("captioner", "")
        yield "assigner", (made.get("assigned") or {}).get("model", "")
    overlays = lineage.get("overlay") or []
    for overlay in overlays if isinstance(overlays, list) else [overlays]:
        for each in makers(overlay):
            yield "scorer" if each.get("stage") == SCORES else "captioner", each.get("model", "")
    yield "init", lineage.get("init", "")
    yield "init_audio", lineage.get("init_audio", "")


def _lineage(uri: str) -> Lineage | None:
    try:
        return checkpoint.lineage(uri)
    except (OSError, ValueError):
        return None


def _counted(clips: Sequence[Clip], stage: str, uri: str, lineage: Lineage | None) -> Overlap:
    """Count the clips that one checkpoint was trained on, and those it was selected on where there are some."""
    if lineage is None or lineage.get("stage") in checkpoint.UNKNOWN_CLIPS:
        return {stage: None}
    if not uri:
        return {}
    try:
        trained, selected = (len(_shared(clips, held(uri))) for held in (checkpoint.trained_on, checkpoint.selected_on))
    except (OSError, ValueError, TypeError):
        return {stage: None}
    return {stage: trained, **({f"{stage}_selected_on": selected} if selected else {})}


def _shared(clips: Sequence[Clip], trained: Iterable[str]) -> list[Clip]:
    """Return the clips whose key, or YouTube recording, is among those of the keys trained on."""
    keys = set(trained)
    videos = {f"youtube:{named[1]}" for key in keys if (named := AUDIOSET_KEY.fullmatch(key))}
    return [clip for clip in clips if clip.key in keys or clip.recording_id in videos]


def _by_fingerprint(clips: Sequence[Clip], tables: Sequence[str]) -> list[Clip]:
    """Return the clips that share a stretch of sound with what the tables hold."""
    for table in tables:
        fingerprint_table.revision(table, "--fingerprints")
    index = fingerprint.FingerprintIndex(entry for table in tables for entry in fingerprint_table.read(table))

    def known(clip: Clip) -> bool:
        try:
            samples = sources.read_samples(clip)
        except audio.AudioError:
            return False
        return index.find(fingerprint.compute(samples, audio.SAMPLE_RATE_HZ)) is not None

    with ThreadPoolExecutor(READERS) as pool:
        return [clip for clip, hit in zip(clips, pool.map(known, clips), strict=True) if hit]
