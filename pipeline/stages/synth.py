"""Write the procedural corpus: AudioSet-like files to run the whole loop on, anywhere, in seconds.

<out>/class_labels_indices.csv                                  AudioSet layout
<out>/captioned_segments.csv   + captioned_segments_captions.csv    the AudioCaps role: tags and one human-style caption
<out>/tagged_segments.csv                                           the AudioSet role: tags only
<out>/evaluation_segments.csv  + evaluation_segments_captions.csv   tags and five captions, never trained on
<out>/<split>_segments_strong.tsv                               when each event sounds, AudioSet's strong layout
<out>/class_texts.json                                              {class: texts}, the words that captions use for it
<out>/audio/Y<id>.flac                                              32 kHz mono FLAC
<out>/config.json                                                   written last: its presence means complete
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple, get_args

import numpy as np

from pipeline import audio, run_dir, storage
from pipeline.corpus import phrases, sounds
from pipeline.errors import InputError
from pipeline.sources import audioset, strong_labels
from pipeline.sources.strong_labels import StrongLabel

log = logging.getLogger(__name__)
SPLITS = ("captioned", "tagged", "evaluation")
CAPTIONS_PER_CLIP = {"captioned": 1, "tagged": 0, "evaluation": 5}  # as in AudioCaps train, AudioSet, AudioCaps test
LAYOUT_SHARES = {"single": 0.4, "sequence": 0.32, "overlap": 0.22, "overlap_then": 0.06}


@dataclass(frozen=True, kw_only=True)
class SynthConfig:
    """A procedural corpus in three disjoint splits."""

    out: str = ""
    """Folder or URI to write the corpus to."""
    num_captioned: int = 400
    """Clips with tags and one caption (the AudioCaps role)."""
    num_tagged: int = 640
    """Clips with tags only (the AudioSet role)."""
    num_evaluation: int = 320
    """Clips kept for evaluation, with five captions each."""
    clip_s: float = 5.0
    """Length of every clip, seconds; at least 2."""
    tag_noise: float = 0.0
    """Share of the tags of the tagged split that are replaced by a random class that is not in the clip, from 0 to 1. A
    smaller share replaces a part of the same tags. The audio and the other splits stay as they are."""
    seed: int = 0
    """The same seed gives the same files, byte for byte."""


class Scene(NamedTuple):
    """One clip before rendering."""

    ytid: str
    names: tuple[str, ...]  # by onset
    layout: phrases.Layout
    captions: tuple[str, ...]


def run(config: SynthConfig) -> None:
    """Write the corpus; a corpus of the same config that is already complete is left alone."""
    _check(config)
    out = run_dir.claim(config.out, config)
    texts = storage.join(out, "class_texts.json")
    if not storage.exists(texts):  # as in a corpus of an earlier version, which is complete otherwise
        storage.publish_json(texts, phrases.class_texts())
    marker = storage.join(out, "config.json")
    complete, lacking = (
        storage.exists(marker),
        [split for split in SPLITS if not storage.exists(_strong_uri(out, split))],
    )
    if complete and not lacking:
        log.info("synth: %s is complete already", out)
        return
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        if not complete:
            _write_corpus(pool, out, config)
        for split in lacking:
            _write_strong(pool, out, split, config)
    if not complete:
        storage.publish_json(marker, dataclasses.asdict(config))
    log.info("synth: wrote %s", out)


def _check(config: SynthConfig) -> None:
    for name in ("num_captioned", "num_tagged", "num_evaluation", "seed"):
        if (value := getattr(config, name)) < 0:
            raise InputError(f"--{name.replace('_', '-')}", value, "use 0 or more")
    if not 0 <= config.tag_noise <= 1:
        raise InputError("--tag-noise", config.tag_noise, "use a share from 0 to 1")
    if not 2 <= config.clip_s <= audio.MAX_DURATION_S:
        raise InputError("--clip-s", config.clip_s, f"events need room: use 2 to {audio.MAX_DURATION_S} seconds")


def _counts(config: SynthConfig) -> dict[str, int]:
    return {"captioned": config.num_captioned, "tagged": config.num_tagged, "evaluation": config.num_evaluation}


def _write_corpus(pool: Executor, out: str, config: SynthConfig) -> None:
    names, counts = {phrases.WORDINGS[name].mid: name for name in sounds.SOUNDS}, _counts(config)
    storage.publish(storage.join(out, audioset.LABELS_FILE), audioset.write_labels(names).encode())
    for split, count in counts.items():
        scenes = list(_write_clips(pool, out, split, count, config))
        _write_tables(out, split, scenes, _labels(split, scenes, config), config.clip_s)
    log.info("synth: %d clips of %g s, %d classes", sum(counts.values()), config.clip_s, len(names))


def _labels(split: str, scenes: Sequence[Scene], config: SynthConfig) -> list[tuple[str, ...]]:
    """Return the labels of clips by onset, some of them wrong where the config says so."""
    labels = [scene.names for scene in scenes]
    return with_noise(labels, config.tag_noise, config.seed) if split == "tagged" else labels


def _write_strong(pool: Executor, out: str, split: str, config: SynthConfig) -> None:
    """Publish when each event of a split sounds; nothing is rendered, so that a corpus of an earlier version gets it too."""
    timed = list(pool.map(partial(_draw_times, split, config), range(_counts(config)[split]), chunksize=16))
    labels = _labels(split, [scene for scene, _ in timed], config)
    rows = [
        StrongLabel(scene.ytid, 0, phrases.WORDINGS[name].mid, *time)
        for (scene, times), names in zip(timed, labels, strict=True)
        for name, time in zip(names, times, strict=True)
    ]
    storage.publish(_strong_uri(out, split), strong_labels.write(rows).encode())


def _strong_uri(out: str, split: str) -> str:
    return storage.join(out, f"{split}_segments{strong_labels.OF_SEGMENTS}")


def _draw_times(split: str, config: SynthConfig, index: int) -> tuple[Scene, list[tuple[float, float]]]:
    rng, scene = _draw(split, config, index)
    return scene, event_times(rng, scene, config.clip_s)


def _write_clips(pool: Executor, out: str, split: str, count: int, config: SynthConfig) -> Iterator[Scene]:
    log.info("synth: %d %s clips", count, split)
    return pool.map(partial(_write_clip, out, split, config), range(count), chunksize=16)


def with_noise(labels: Sequence[tuple[str, ...]], share: float, seed: int) -> list[tuple[str, ...]]:
    """Replace a share of the labels of all clips, drawn at random, each by a class that the clip does not have."""
    rng = np.random.default_rng([seed, len(SPLITS)])
    places = [(clip, place) for clip, names in enumerate(labels) for place in range(len(names))]
    noisy = [list(names) for names in labels]
    for index in rng.permutation(len(places))[: round(share * len(places))]:
        clip, place = places[index]
        taken = {*labels[clip], *noisy[clip]}
        noisy[clip][place] = str(rng.choice([name for name in sounds.SOUNDS if name not in taken]))
    return [tuple(names) for names in noisy]


def _write_tables(
    out: str, split: str, scenes: Sequence[Scene], labels: Sequence[tuple[str, ...]], clip_s: float
) -> None:
    segments = [
        audioset.Segment(scene.ytid, 0.0, clip_s, tuple(phrases.WORDINGS[name].mid for name in names))
        for scene, names in zip(scenes, labels, strict=True)
    ]
    storage.publish(storage.join(out, f"{split}_segments.csv"), audioset.write_segments(segments).encode())
    if CAPTIONS_PER_CLIP[split]:
        rows = [f'{s.ytid},0,"{text}"\n' for s in scenes for text in s.captions]
        text = "audiocap_id,youtube_id,start_time,caption\n" + "".join(f"{i},{row}" for i, row in enumerate(rows))
        storage.publish(storage.join(out, f"{split}_segments_captions.csv"), text.encode())


def _write_clip(out: str, split: str, config: SynthConfig, index: int) -> Scene:
    rng, scene = _draw(split, config, index)
    samples = audio.to_int16(mix(rng, scene, config.clip_s))
    storage.publish(storage.join(out, "audio", f"Y{scene.ytid}.flac"), audio.encode_flac(samples))
    return scene


def _draw(split: str, config: SynthConfig, index: int) -> tuple[np.random.Generator, Scene]:
    """Return the scene of a clip, and the generator that goes on to render it."""
    rng = np.random.default_rng([config.seed, SPLITS.index(split), index])
    first = list(sounds.SOUNDS)[index % len(sounds.SOUNDS)]  # in turn: all classes occur equally often
    return rng, draw_scene(rng, f"syn{split[:3]}{index:05d}", first, CAPTIONS_PER_CLIP[split])


def draw_scene(rng: np.random.Generator, ytid: str, first: str, num_captions: int) -> Scene:
    """Draw which events sound beside `first` and how they lie in time, and write captions for it."""
    layout = rng.choice(get_args(phrases.Layout), p=[LAYOUT_SHARES[name] for name in get_args(phrases.Layout)])
    count = {"single": 1, "sequence": int(rng.choice([2, 2, 2, 3])), "overlap": 2, "overlap_then": 3}[layout]
    others = rng.choice([name for name in sounds.SOUNDS if name != first], size=count - 1, replace=False)
    names = tuple(str(name) for name in rng.permutation([first, *others]))
    captions = tuple(phrases.caption(rng, names, layout) for _ in range(num_captions))
    return Scene(ytid, names, layout, captions)


def mix(rng: np.random.Generator, scene: Scene, clip_s: float) -> np.ndarray:
    """Render a scene; float64 (T,) with |peak| <= 0.9, over a faint noise floor."""
    wave = _noise_floor(rng, clip_s)
    for name, (onset_s, duration_s) in zip(scene.names, _spans(rng, scene, clip_s), strict=True):
        event = sounds.render(name, rng, duration_s) * 10 ** (rng.uniform(-4, 4) / 20)
        start = round(onset_s * audio.SAMPLE_RATE_HZ)
        wave[start : start + len(event)] += event[: len(wave) - start]
    return wave * min(1.0, 0.9 / float(np.abs(wave).max()))


def event_times(rng: np.random.Generator, scene: Scene, clip_s: float) -> list[tuple[float, float]]:
    """Return when each event begins and ends, seconds, as `mix` renders it with a generator in the same state."""
    _noise_floor(rng, clip_s)  # which `mix` draws first
    return [(onset_s, min(onset_s + duration_s, clip_s)) for onset_s, duration_s in _spans(rng, scene, clip_s)]


def _noise_floor(rng: np.random.Generator, clip_s: float) -> np.ndarray:
    return 1e-4 * rng.standard_normal(round(clip_s * audio.SAMPLE_RATE_HZ))


def _spans(rng: np.random.Generator, scene: Scene, clip_s: float) -> list[tuple[float, float]]:
    """Return (onset_s, duration_s) of each event; events in sequence do not overlap."""
    count = len(scene.names)
    if scene.layout == "single":
        duration_s = clip_s * rng.uniform(0.5, 0.95)
        return [(rng.uniform(0, clip_s - duration_s), duration_s)]
    if scene.layout == "overlap":
        return [(0.0, clip_s), (clip_s * rng.uniform(0.1, 0.3), clip_s * 0.6)]
    if scene.layout == "overlap_then":
        return [(0.0, clip_s * 0.6), (clip_s * 0.1, clip_s * 0.5), (clip_s * 0.65, clip_s * 0.33)]
    slot_s = clip_s / count
    return [(i * slot_s, slot_s * rng.uniform(0.8, 0.95)) for i in range(count)]
