"""Audio LLMs of transformers as captioners: tiny models of real classes with their own processors, random weights."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import audio, storage
from pipeline.configs import CAPTION
from pipeline.dataset import overlays
from pipeline.dataset.clip_index import ClipIndex
from pipeline.errors import InputError
from pipeline.graph import captioners, prompts
from pipeline.graph.caption_config import CaptionActorConfig
from pipeline.graph.captioner import ClipBatch
from pipeline.graph.engine import ActorConfig
from pipeline.graph.hf_captioner import HfCaptioner
from pipeline.stages import caption, recaption
from pipeline.stages.recaption import RecaptionConfig
from tests.support import audio_llms
from train.models.captioner.decoding import Decoding

GREEDY = Decoding(method="greedy")


@pytest.fixture(scope="module", params=audio_llms.KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny model."""
    folder = tmp_path_factory.mktemp(request.param)
    audio_llms.save(request.param, folder)
    return str(folder)


def batch(lengths_s: tuple[float, ...], first: int = 0) -> ClipBatch:
    """Return clips of noise that depends on their number alone."""
    size = round(max(lengths_s) * audio.SAMPLE_RATE_HZ)
    waveform = np.zeros((len(lengths_s), size), np.int16)
    lengths = [round(seconds * audio.SAMPLE_RATE_HZ) for seconds in lengths_s]
    for number, (row, length) in enumerate(zip(waveform, lengths, strict=True), start=first):
        row[:length] = np.random.default_rng(number).normal(0, 3000, length)
    numbers = range(first, first + len(lengths))
    return ClipBatch(
        keys=[f"clip{n}" for n in numbers],
        tags=[["Rain", "Dog"][: n % 3] for n in numbers],
        other_tags=[["Bell"]] * len(lengths),
        waveform=waveform,
        num_samples=lengths,
        rate_hz=audio.SAMPLE_RATE_HZ,
        shard=0,
        texts=[[]] * len(lengths),
    )


def config(model: str, **fields: Any) -> CaptionActorConfig:
    return CaptionActorConfig(
        **{"captioner": f"hf:{model}", "guidance": ("none",), "decoding": GREEDY, "max_tokens": 8} | fields
    )


@pytest.mark.parametrize("decoding", [GREEDY, Decoding(method="nucleus", num_captions=2), Decoding(num_captions=2)])
def test_the_captions_of_a_clip_do_not_depend_on_its_batch(model: str, decoding: Decoding) -> None:
    """Clips of other lengths pad it, and samples are drawn by its key."""
    captioner = HfCaptioner(config(model, decoding=decoding))
    together = captioner.caption(batch((1.0, 0.5, 0.8))).captions
    alone = [captioner.caption(batch((seconds,), first)).captions[0] for first, seconds in enumerate((1.0, 0.5, 0.8))]
    assert [[row["text"] for row in rows] for rows in together] == [[row["text"] for row in rows] for rows in alone]
    for one, other in zip(together, alone, strict=True):
        assert [row["score"] for row in one] == pytest.approx([row["score"] for row in other], abs=1e-3)
        assert all(row["score"] < 0 and row["decoding"] == str(decoding) for row in one)
    assert len({round(row["score"], 4) for rows in together for row in rows}) >= 3, "sound changes nothing"


def test_greedy_captions_are_those_of_transformers(model: str) -> None:
    """The tokens that `generate` gives without our choice of words, and the log-probabilities of a second pass over them."""
    captioner = HfCaptioner(config(model))
    clips = batch((1.0,))
    (rows,) = captioner.caption(clips).captions
    wave = captioner._resampled(clips.waveform[0], audio.SAMPLE_RATE_HZ)
    text = captioner._text(prompts.TEMPLATES["unguided"])
    inputs = captioner.processor(text=[text], audio=[wave], sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        made = captioner.model.generate(
            **inputs, do_sample=False, max_new_tokens=8, return_dict_in_generate=True, output_logits=True
        )
    new = made.sequences[0, inputs["input_ids"].shape[1] :]
    assert rows[0]["text"] == " ".join(captioner.processor.tokenizer.decode(new, skip_special_tokens=True).split())
    log_probs = [step[0].log_softmax(-1)[token] for step, token in zip(made.logits, new, strict=True)]
    assert rows[0]["score"] == pytest.approx(float(torch.stack(log_probs).mean()), abs=1e-4)


def test_sound_and_tags_reach_the_model(model: str) -> None:
    """Each kind of guidance by itself: equal captions of one clip would be one."""
    captioner = HfCaptioner(config(model))
    loud, silent = batch((1.0,), first=2), batch((1.0,), first=2)
    silent.waveform[:] = 0
    scores = set()
    for guidance in ("tags", "shuffled", "none"):
        captioner.config = config(model, guidance=(guidance,))
        scores |= {round(captioner.caption(clips).captions[0][0]["score"], 5) for clips in (loud, silent)}
    assert len(scores) == 6


def test_a_short_memory_halves_the_batch(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's error, which no CPU raises, is raised for batches of more than two."""
    captioner = HfCaptioner(config(model, batch_size=4))
    wanted = captioner.caption(batch((0.5,) * 4)).captions
    generate, sizes = captioner._generate, []

    def short(asked: Any, *rest: Any) -> Any:
        sizes.append(len(asked))
        if len(asked) > 2:
            raise torch.OutOfMemoryError
        return generate(asked, *rest)

    monkeypatch.setattr(captioner, "_generate", short)
    found = captioner.caption(batch((0.5,) * 4)).captions
    assert sizes == [4, 2, 2] and [r[0]["text"] for r in found] == [r[0]["text"] for r in wanted]


def test_a_dataset_and_an_overlay_state_model_and_prompt(
    model: str, corpus: str, captioner: str, tmp_path: Path
) -> None:
    """The overlay's captions are guided by tags that a captioner of ours predicts."""
    job = dataclasses.replace(
        CAPTION["tiny"][1], source=storage.join(corpus, "tagged_segments.csv"), out=str(tmp_path / "out"),
        actors=ActorConfig(max=0), captioner=f"hf:{model}", decoding=GREEDY, max_tokens=4, guidance=("tags", "none"),
        prompt="{tags}: describe",
    )  # fmt: skip
    caption.run(job)
    index = ClipIndex(job.out)
    records = [record for row in range(len(index)) for record in index.meta(row)["captions"]]
    assert {record["model"] for record in records} == {Path(model).name}
    assert {record["revision"] for record in records} == {
        storage.read_json(f"{job.out}/run.json")["captioner_revision"]
    }
    assert {(record["tags_given"], record["prompt"]) for record in records} == {
        (True, prompts.template_hash("{tags}: describe")),
        (False, prompts.template_hash(prompts.TEMPLATES["unguided"])),
    }
    again = RecaptionConfig(
        captioner=f"hf:{model}", decoding=GREEDY, max_tokens=4, guidance=("predicted",), tagger=captioner,
        tag_threshold=0.0, data=job.out, name="predicted", actors=ActorConfig(max=0),
    )  # fmt: skip
    recaption.run(again)
    rows = overlays.read_captions(job.out, "predicted").values()
    tags = storage.read_json(storage.join(captioner, "tags.json"))
    made = [json.loads(row["captions"] or "") for row in rows]
    assert len(made) == len(index) and {one[0]["predicted_tags"] for one in made} == {"|".join(tags)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": "no slot", "guidance": ("tags",)}, r"--prompt 'no slot': write \{tags\}"),
        ({"prompt": "guided"}, r"--prompt 'guided': has \{tags\}"),
        ({"guidance": ("predicted",)}, "--tagger is missing: --guidance predicted"),
        ({"tagger": "x"}, "--tagger 'x': predicts tags for --guidance predicted"),
        ({"max_words": 0}, "--max-words 0"),
        ({"clip_s": 0.0}, r"--clip-s 0\.0"),
    ],
)
def test_fields_that_cannot_be_are_refused(model: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        captioners.describe(config(model, **fields))


def test_the_revision_follows_the_weights(model: str, tmp_path: Path) -> None:
    before = captioners.describe(config(model)).revision
    weights = Path(model, "model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert captioners.describe(config(model)).revision != before
    data[-1] ^= 1
    weights.write_bytes(data)
    assert captioners.describe(config(model)).revision == before


def test_what_is_no_audio_llm_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"has no config\.json"):
        captioners.describe(config(str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="is a bert: no audio LLM"):
        captioners.describe(config(str(tmp_path)))
    with pytest.raises(InputError, match="--captioner 'hf:nobody/nothing': no such folder"):
        captioners.describe(config("nobody/nothing"))
