"""PE-Audio of transformers behind the interface of ours: its own logits and order, whatever the batch."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.nn import functional as nnf

import eval.__main__ as eval_room
from pipeline import cli
from pipeline.errors import InputError
from tests.support import hf_claps, hf_pe_audios, sounds50
from train import checkpoint
from train.configs import PRETRAIN
from train.launch import ScaleConfig
from train.models.configs import HfTowersConfig
from train.pretrained import Embedder
from train.stages import finetune, pretrain
from train.stages.finetune import FinetuneConfig
from train.trainer.optim import OptimConfig

RATE_HZ, FRAME = 48_000, 1_920
TEXTS = ["a dog barks", "rain", "the low hum of a middle tone", "the unheard sound"]
LENGTHS = (RATE_HZ, 30_001, 5 * FRAME, FRAME + 1, 700, 1, 2 * RATE_HZ)
CLOSE = {"atol": 1e-6, "rtol": 1e-6}


@pytest.fixture(scope="module", params=hf_pe_audios.KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hf_pe_audios.save(tmp_path_factory.mktemp(request.param), request.param)


def sound(length: int, seed: int = 0) -> np.ndarray:
    """Noise under a slow wave: loud and quiet frames."""
    noise = np.random.default_rng(seed).standard_normal(length)
    return (0.2 * noise * np.sin(np.arange(length) * 2e-4 * (seed + 1))).astype(np.float32)


CLIPS = [sound(length, seed) for seed, length in enumerate(LENGTHS)]


def theirs(folder: Path) -> Any:
    """Return the model of transformers; the video tower of a PeAudioVideoModel would need timm."""
    config = transformers.AutoConfig.from_pretrained(folder)
    config = config.audio_config if config.model_type == "pe_audio_video" else config
    return transformers.PeAudioModel.from_pretrained(folder, config=config).eval()


@torch.no_grad()
def their_outputs(folder: Path, *clips: np.ndarray, texts: list[str] = TEXTS) -> Any:
    """Return transformers' outputs of clips, one batch of its processor, and of texts."""
    processor = transformers.PeAudioProcessor.from_pretrained(folder)
    audio = processor.feature_extractor(list(clips), sampling_rate=RATE_HZ, return_tensors="pt")
    words = processor.tokenizer(texts, padding=True, return_tensors="pt")
    return theirs(folder)(input_ids=words["input_ids"], attention_mask=words["attention_mask"], **audio)


@torch.no_grad()
def test_clips_and_texts_have_the_logits_of_transformers_and_their_order(folder: Path) -> None:
    """Also one sample, and less than a frame; plain cosines would order the clips otherwise."""
    model = checkpoint.load(f"hf:{folder}").model
    alone = [their_outputs(folder, clip) for clip in CLIPS]
    expected = torch.cat([each.logits_audio_text for each in alone])
    audio, text = model.embed_clips(CLIPS), model.embed_texts(TEXTS)
    cosines = model.similarity(audio, text)
    torch.testing.assert_close(model.logit_scale.exp() * cosines + model.logit_bias, expected, **CLOSE)
    for vectors in (audio, text):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)), **CLOSE)
    assert torch.equal(cosines.argsort(dim=0), expected.argsort(dim=0))
    assert torch.equal(cosines.argsort(dim=1), expected.argsort(dim=1))
    units = (nnf.normalize(each) for each in (torch.cat([o.audio_embeds for o in alone]), alone[0].text_audio_embeds))
    plain = torch.matmul(next(units), next(units).T)
    assert not torch.equal(plain.argsort(dim=0), expected.argsort(dim=0))


@torch.no_grad()
def test_pairs_in_training_have_the_logits_of_the_processor_s_batch(folder: Path) -> None:
    clips, texts = CLIPS[:3], TEXTS[:3]
    expected = their_outputs(folder, *clips, texts=texts).logits_audio_text
    ours = checkpoint.load(f"hf:{folder}").model
    waveform = torch.stack([torch.from_numpy(np.pad(clip, (0, RATE_HZ - len(clip)))) for clip in clips])
    found = ours(waveform, torch.tensor([len(clip) for clip in clips]), *ours.text_encoder.tokenize(texts))
    torch.testing.assert_close(found.scale * found.audio @ found.text.T + found.bias, expected, **CLOSE)


def test_a_clip_has_one_embedding_in_every_batch_and_a_long_one_is_the_mean_of_windows(folder: Path) -> None:
    model = checkpoint.load(f"hf:{folder}").model
    together = model.encode_clips(CLIPS)
    for row, clip in enumerate(CLIPS):
        alone = model.encode_clips([clip])
        torch.testing.assert_close(together.outputs[row : row + 1], alone.outputs, **CLOSE)
        torch.testing.assert_close(together.features[row : row + 1], alone.features, atol=1e-5, rtol=1e-5)
    assert model.embed_clips([]).shape == (0, 18)
    parts = [CLIPS[1][:20_000], CLIPS[1][20_000:]]
    mean = sum(len(part) * model.embed_clips([part]) for part in parts)
    model.config = dataclasses.replace(model.config, clip_s=20_000 / RATE_HZ)
    torch.testing.assert_close(model.embed_clips(CLIPS[1:2]), nnf.normalize(mean, dim=1), **CLOSE)


def test_the_processor_is_stated(folder: Path) -> None:
    info = checkpoint.describe(f"hf:{folder}", "--model", "clap")
    network = info.network
    assert isinstance(network, HfTowersConfig)
    assert (network.transformers, network.sample_rate_hz, network.clip_s) == ("pe_audio", RATE_HZ, 30.0)
    assert (network.joint_dim, network.max_tokens, network.processor["hop_length"]) == (18, 12, FRAME)
    assert info.lineage == {"stage": "transformers", "model": f"hf:{folder}"}


@torch.no_grad()
def test_frames_last_40_ms(folder: Path) -> None:
    (frames,) = checkpoint.load(f"hf:{folder}").model.encode_frames([CLIPS[1]])
    assert frames.vectors.shape == (16, 18) and frames.edges_s[-1].item() == pytest.approx(0.64)


@torch.no_grad()
def test_saved_is_loaded_equal_by_us_and_by_transformers(folder: Path, tmp_path: Path) -> None:
    first = Embedder.from_pretrained(f"hf:{folder}")
    first.save_pretrained(str(tmp_path))
    again, whole = Embedder.from_pretrained(str(tmp_path)), Embedder.from_pretrained(f"hf:{tmp_path}/transformers")
    for model in (again, whole):
        assert torch.equal(model.model.embed_clips(CLIPS[:2]), first.model.embed_clips(CLIPS[:2]))
        assert torch.equal(model.embed_text(TEXTS), first.embed_text(TEXTS))
    expected = their_outputs(folder, CLIPS[1]).logits_audio_text
    assert transformers.AutoConfig.from_pretrained(tmp_path / "transformers").architectures == ["PeAudioModel"]
    torch.testing.assert_close(their_outputs(tmp_path / "transformers", CLIPS[1]).logits_audio_text, expected, **CLOSE)


def test_it_is_fine_tuned_with_its_scale_and_bias_and_searched(dataset: str, tmp_path: Path) -> None:
    """Four steps of the sigmoid loss, whose logits are the model's."""
    folder, out = hf_pe_audios.save(tmp_path / "pe"), tmp_path / "model"
    start = checkpoint.load(f"hf:{folder}").model
    optim = OptimConfig(epochs=1, batch_size=12, lr=1e-3)
    config = dataclasses.replace(
        PRETRAIN["tiny"][1], data=(dataset,), init=f"hf:{folder}", loss="sigmoid", optim=optim, out=str(out)
    )
    pretrain.run(config)
    tuned = checkpoint.load(str(out))
    before, after = start.state_dict(), tuned.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"logit_bias", "audio_proj.head.proj.weight", "text_encoder.model.final_norm.weight"} <= moved
    assert not any(".dac_encoder." in name or ".bottleneck." in name for name in moved)
    assert tuned.info.lineage["init"] == f"hf:{folder}" and tuned.info.network == start.config
    logits = theirs(out / "transformers").text_audio_logit_scale.item()
    assert 0 < logits != hf_pe_audios.SCALE
    index = tmp_path / "index"
    words = f"index-search laptop --data {dataset} --model {out} --out {index}".split()
    assert cli.main("eval", "", eval_room.STAGES, words) == 0
    augment = dataclasses.replace(config.augment, spec_augment=True)
    with pytest.raises(InputError, match=r"--augment\.spec-augment.*has no mel"):
        pretrain.run(dataclasses.replace(config, augment=augment, out=str(tmp_path / "other")))


def test_its_audio_tower_learns_labels(tmp_path: Path) -> None:
    folder, data = hf_pe_audios.save(tmp_path / "pe"), sounds50.write(tmp_path / "esc50", per_fold=1)
    optim = OptimConfig(epochs=1, batch_size=5, lr=1e-3)
    config = FinetuneConfig(
        data=f"{data}/meta/esc50.csv", init_audio=f"hf:{folder}", clip_s=0.5, optim=optim, scale=ScaleConfig(num_workers=0),
        out=str(tmp_path / "out"),
    )  # fmt: skip
    finetune.run(config)
    learned = checkpoint.load(config.out).model
    together = learned.encode_clips(CLIPS[:3], RATE_HZ)
    alone = learned.encode_clips(CLIPS[1:2], RATE_HZ)
    torch.testing.assert_close(together.outputs[1:2], alone.outputs, **CLOSE)
    assert learned.encoder.config == checkpoint.load(f"hf:{folder}").model.audio_encoder.config


def test_one_of_frames_or_without_training_is_refused(tmp_path: Path) -> None:
    for number, (change, message) in enumerate(
        (
            ({"architectures": ["PeAudioFrameLevelModel"]}, r"is a PeAudioFrameLevelModel.*such as hf:facebook/pe-av-"),
            (
                {"text_config": hf_pe_audios.TEXT | {"vocab_size": 99}},
                "1 of its weights are missing or differ in shape",
            ),
        )
    ):
        folder = hf_pe_audios.save(tmp_path / str(number))
        hf_pe_audios.rewrite(folder, **change)
        with pytest.raises(InputError, match=message):
            checkpoint.describe(f"hf:{folder}", "--model", "clap")
    model = theirs(folder := hf_pe_audios.save(tmp_path / "start"))
    torch.nn.init.zeros_(model.text_audio_logit_scale)
    model.save_pretrained(folder)
    with pytest.raises(InputError, match=r"text_audio_logit_scale is 0\.0"):
        checkpoint.describe(f"hf:{folder}", "--model", "clap")
    processor = transformers.PeAudioProcessor(
        transformers.PeAudioFeatureExtractor(hop_length=480), hf_claps.tokenizer()
    )
    processor.save_pretrained(folder := hf_pe_audios.save(tmp_path / "hop"))
    with pytest.raises(InputError, match="its network has hop_length 1920, its processor 480"):
        checkpoint.describe(f"hf:{folder}", "--model", "clap")
