"""Contrastive pre-training on captioned clips: `python -m train pretrain <config>`."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline import audio, cli, errors, run_dir, sources, storage
from pipeline.dataset import overlays, shards
from pipeline.errors import InputError
from train import checkpoint
from train.data import clip_sets as data
from train.data import datasets
from train.data.clip_sets import ClipSubset, ListedClips, Mixture
from train.data.loader import Clips, Loader
from train.data.order import Order
from train.launch import check, launch
from train.models import text
from train.models.clap import Clap
from train.models.text import TextConfig
from train.stages import towers
from train.stages.pretrain_config import PretrainConfig
from train.trainer import performance as speed
from train.trainer import run_page, state
from train.trainer.loop import Context, Hooks, fit
from train.trainer.monitor import ScalarWriters
from train.validation import pairs

log = logging.getLogger(__name__)
BEST = "best"


def run(config: PretrainConfig) -> None:
    """Train and publish a two-tower model; a finished one is left alone, an interrupted one goes on."""
    _check(config)
    config = dataclasses.replace(config, data=tuple(map(storage.resolve, config.data)))
    parts, held_out = _clips(config)
    _check_clips(config, parts, held_out)
    absent = dict.fromkeys(("held_out", "init_audio_revision", "init_revision"))
    identity: dict[str, object] = {"content": data.fingerprint(Mixture(parts)), **absent}
    if held_out is not None:
        identity["held_out"] = data.fingerprint(held_out)
    if config.init_audio:
        config = dataclasses.replace(config, init_audio=storage.resolve(config.init_audio))
        identity["init_audio_revision"] = checkpoint.describe_audio(
            config.init_audio, "--init-audio", config.network.audio
        )
    if config.init:
        config = dataclasses.replace(config, init=storage.resolve(config.init))
        identity["init_revision"] = _describe_init(config)
    else:
        _check_text(config.network.text)
    free = ("scale", "data", "init", "init_audio", "loader", "watch", "speed", "validation", "columns")
    out = run_dir.claim(config.out, config, identity, ignore=free)
    if checkpoint.exists(out):
        state.clear(out)
        log.info("pretrain: %s is complete already", out)
        return
    datasets.check_present(parts)
    counts = ", ".join(f"{len(part.keys)} of {uri}" for part, uri in zip(parts, config.data, strict=True))
    log.info("pretrain: clips: %s; held out: %d", counts, len(held_out.keys) if held_out is not None else 0)
    job = {"config": config, "out": out, "clip_files": datasets.names(parts)}
    launch(train, job, config.scale, out, config.loader.ingest)
    if not checkpoint.exists(out):
        raise errors.JobError(f"training ended without a checkpoint in {out}")
    state.clear(out)
    run_page.write(out)
    log.info("pretrain: wrote %s; its curves are in %s", out, storage.join(out, run_page.PAGE_FILE))


def train(job: dict[str, Any], context: Context) -> None:
    """Train on one worker; rank 0 publishes the checkpoint."""
    config: PretrainConfig = job["config"]
    parts, held_out = _clips(config, job["clip_files"])
    clips = Mixture(parts)
    network = towers.build(config, clips)
    pair = towers.flops_per_pair(network, config)
    ready = speed.prepare(
        network, context.device, context.world_size, config.optim.precision, config.speed, bool(config.optim.ema_decay)
    )
    loader = Loader(
        clips,
        _order(config, parts),
        round(config.network.clip_s * audio.SAMPLE_RATE_HZ),
        context.rank,
        context.world_size,
        config.loader,
        context.load,
        pin=context.device.type == "cuda",
    )
    lineage = _lineage(config, len(clips.keys))
    sinks = (
        ScalarWriters(config.watch, job["out"], storage.plain(dataclasses.asdict(config))) if context.leads else None
    )

    validated = held_out.keys if held_out is not None else []

    def keep(record: dict[str, Any]) -> None:
        assert isinstance(ready.evaluated, Clap)
        checkpoint.save(
            storage.join(job["out"], BEST), ready.evaluated, {**lineage, "epoch": record}, clips.keys, validated
        )

    hooks = Hooks(
        groups=towers.groups(network, config),
        validate=pairs.measure(held_out, context) if held_out is not None else None,
        validate_every_steps=config.validate_every_steps,
        keep=keep,
        extras=lambda: {"logit_scale": float(state.whole(network.logit_scale.detach()).exp())},
        sinks=tuple(sinks.all) if sinks else (),
        flops_per_pair=pair,
        peak_flops=speed.peak_flops(context.device),
    )
    try:
        history = fit(
            ready, towers.objective(config, network, context), loader, config.optim, context, job["out"], hooks
        )
    finally:
        if sinks:
            sinks.close()
    if context.leads:
        assert isinstance(ready.evaluated, Clap)
        lineage |= {"last_epoch": history["epochs"][-1], "skipped": history["skipped"]}
        state.record(job["out"], history)
        checkpoint.save(job["out"], ready.evaluated, lineage, clips.keys, validated)


def _order(config: PretrainConfig, parts: Sequence[Clips]) -> Order:
    sizes = tuple(len(part.keys) for part in parts)
    return Order(sizes=sizes, batch_size=config.optim.batch_size, seed=config.optim.seed, weights=tuple(config.weights))


def _clips(config: PretrainConfig, clip_files: Sequence[str] = ()) -> tuple[list[Clips], Clips | None]:
    """Return what is trained on, and what is held out of it or given to validate on."""
    parts: list[Clips] = [*datasets.open_data(config.data, config, config.label_phrases, clip_files, config.columns)]
    if config.hold_out:
        whole = Mixture(parts)
        held = data.hold_out(whole, config.hold_out, config.optim.seed)
        chosen = {key: row for row, key in enumerate(whole.keys) if key in held}
        kept = [ClipSubset(part, np.flatnonzero([key not in held for key in part.keys])) for part in parts]
        if not all(len(part.keys) for part in kept):
            raise InputError("--hold-out", config.hold_out, "leaves nothing of one of --data to train on; use fewer")
        return list(kept), ClipSubset(whole, sorted(chosen.values()))
    if not config.validation:
        return parts, None
    listed = sources.read_clips(config.validation, flag="--validation", column_names=config.columns)
    pairs.refuse_test_split(storage.resolve(config.validation), [clip.fold for clip in listed])
    held_out = ListedClips(listed, (), keep_all=True)
    validated = set(held_out.keys)
    if shared := sorted({key for part in parts for key in part.keys if key in validated}):
        told = f"{len(shared)} of its clips are trained on, such as {shared[:3]}; give others"
        raise InputError("--validation", config.validation, told)
    if not any(held_out.texts) and not any(held_out.tags):
        raise InputError("--validation", config.validation, "none of its clips has a caption or a tag")
    return parts, held_out


def _check_clips(config: PretrainConfig, parts: Sequence[Clips], held_out: Clips | None) -> None:
    """Find out whether there are enough clips to contrast, and to validate on."""
    data.check_several((key for part in parts for key in part.keys), "--data", config.data)
    data.warn_alike((own for part in parts for own in part.texts), "--data", config.data)
    if config.optim.batch_size == 1:
        raise InputError("--optim.batch-size", 1, "a clip is compared with the others of its batch; use 2 or more")
    check(config.scale, config.optim, sum(_order(config, parts).draws))
    if held_out is not None and any(held_out.texts) and len(held_out.keys) < 2:
        flag, value = ("--hold-out", config.hold_out) if config.hold_out else ("--validation", config.validation)
        raise InputError(flag, value, "every caption finds the only clip; validate on 2 or more")


def _check(config: PretrainConfig) -> None:
    """Find out what is wrong with the command before anything is read."""
    if config.weights and (len(config.weights) != len(config.data) or min(config.weights) <= 0):
        raise InputError(
            "--weights", config.weights, f"give a number above 0 for each of the {len(config.data)} --data"
        )
    if config.validation and config.hold_out:
        raise InputError("--hold-out", config.hold_out, "give this or --validation, not both")
    if config.hold_out < 0 or config.validate_every_steps < 0:
        raise InputError("--hold-out", config.hold_out, "use 0 or more, here and in --validate-every-steps")
    if config.parts < 1:
        raise InputError("--parts", config.parts, "use 1 or more")
    if config.init and config.init_audio:
        raise InputError("--init-audio", config.init_audio, "--init brings both towers; leave out one of the two")
    if config.freeze_audio and not (config.init or config.init_audio):
        raise InputError("--init-audio", "", "a frozen audio encoder needs weights to start from")
    if config.loss == "sigmoid" and not config.network.sigmoid and not config.init:
        raise InputError("--network.sigmoid", False, "the sigmoid loss learns a bias: set it to True")
    if min(config.audio_lr_scale, config.text_lr_scale) <= 0:
        raise InputError(
            "--audio-lr-scale", config.audio_lr_scale, "use numbers above 0; --freeze-audio stops learning"
        )
    for phrase in config.label_phrases:
        cli.check_template("--label-phrases", phrase)
    for part in (config.augment, config.loader, config.watch):
        part.check()
    config.speed.check(config.scale.num_workers)


def _describe_init(config: PretrainConfig) -> str:
    checkpoint_info = checkpoint.describe(config.init, "--init", Clap)
    held, needed = (storage.plain(dataclasses.asdict(each)) for each in (checkpoint_info.network, config.network))
    del needed["padding"]  # no weight depends on it: the run's own holds
    if differing := [f"{name} is {held[name]!r}" for name in needed if held[name] != needed[name]]:
        raise InputError(
            "--init", config.init, f"is another network ({'; '.join(differing)}); use the config that matches"
        )
    return checkpoint_info.revision


def _check_text(config: TextConfig) -> None:
    """Find out before any engine starts that the named text encoder is there, weights included."""
    if config.name:
        try:
            text.build(config, ())
        except ValueError as error:
            remedy = "give a name on the Hugging Face hub, a local folder, or '' to build a small one from the captions"
            raise InputError("--network.text.name", config.name, f"{error}; {remedy}") from None


def _lineage(config: PretrainConfig, num_clips: int) -> dict[str, Any]:
    """Name the captions, captioner and filter this model comes from."""
    origins = [shards.provenance(uri) if shards.finished(uri) else {} for uri in config.data]
    lineage = {
        "stage": "train pretrain",
        "data": list(config.data),
        "num_clips": num_clips,
        "init": config.init,
        "init_audio": config.init_audio,
        **(origins[0] if len(origins) == 1 else {"origins": origins}),
        "keep_fraction": config.keep_fraction,
        "best_only": config.best_only,
        "filter": storage.plain(dataclasses.asdict(config.filter)),
        "overlay": None,
        "audit": None,
    }
    for field_name, overlay in (("overlay", config.captions), ("audit", config.filter.audit)):
        if overlay:
            told = [overlays.read_info(uri, overlay) for uri in config.data]
            lineage[field_name] = told[0] if len(told) == 1 else told
    return lineage
