"""Which evaluations a folder of results has already: those of the same clips under the same config are not run again."""

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from typing import Any

from eval import tasks
from eval.results import store
from eval.tasks import Task
from pipeline import run_dir, storage
from pipeline.sources.clip import Clip

log = logging.getLogger(__name__)
FIRST_NAMES = {"recording_id": "origin"}


def source(
    task: Task, folder: str, clips: Sequence[Clip], classes: Sequence[str] | None = None, scorer: str = ""
) -> str:
    """Return a hash of what an evaluation reads: the listed clips with all that is listed of them, and their classes.

    Files on disk count with size and date. Files in an object store count by name: one request lists a folder.

    Args:
        task: the task.
        folder: of the dataset.
        clips: what is listed, whether it can be read or not.
        classes: that the evaluation chooses from; None takes those of the task, or of the clips.
        scorer: revision of a second checkpoint that scores, "" where there is none.
    """
    uris = sorted({clip.uri for clip in clips})
    local, remote = ([uri for uri in uris if ("://" in uri) == far] for far in (False, True))
    folders = {uri.rpartition("/")[0] for uri in remote}
    there = {storage.join(place, name) for place in folders for name in storage.names(place)}
    parts: list[object] = [
        storage.resolve(folder),
        *map(_as_listed, clips),
        *zip(local, storage.stamps(local), strict=True),
    ]
    parts += [uri for uri in remote if uri in there]
    parts += tasks.classes(task, folder, clips) if classes is None else classes
    parts += [*tasks.descriptions(task, folder).items(), *([scorer] if scorer else [])]
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def _as_listed(clip: Clip) -> str:
    """Return all fields of a clip as text, but for its events, which one stage reads.

    A field keeps the name that it had when hashes were first stored.
    """
    names = [field.name for field in dataclasses.fields(clip) if field.name != "events"]
    return f"Clip({', '.join(f'{FIRST_NAMES.get(name, name)}={getattr(clip, name)!r}' for name in names)})"


def done(out: str, name: str, config: Any, source: str) -> bool:
    """Return whether a folder has this evaluation of this source under the same config, wherever and however fast.

    Args:
        out: folder of the model's results; `store.check` found that they are of this model.
        name: stage and task.
        config: the stage's config.
        source: hash of what is evaluated, see `source`.
    """
    held = store.read(out)["results"].get(name, {}) if store.has(out) else {}
    wanted = storage.plain(dataclasses.asdict(config))
    held_config = run_dir.with_defaults(held.get("config", {}), config)
    same = held.get("source_sha256") == source and not store.differing(held_config, wanted)
    if same:
        log.info("%s: is complete already; to run it again, delete %s", name, store.results_uri(out, name))
    return same
