"""An audio LLM of transformers as a captioner: one code path for all that have a processor and `generate`.

Shapes: B = instructions of a batch, V = tokens of the vocabulary, M = tokens of an answer.
"""

import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import soxr

from pipeline import audio
from pipeline.graph import hf_model, llm, prompts
from pipeline.graph.caption_config import CaptionActorConfig
from pipeline.graph.captioner import CaptionedBatch, CaptionerInfo, ClipBatch
from pipeline.graph.llm import Answer
from pipeline.graph.prompts import Instruction
from pipeline.graph.short_memory import BatchSize
from pipeline.graph.tag_predictor import TagPredictor
from train.models.captioner.decoding import Decoding

if TYPE_CHECKING:
    import torch

Waveform = npt.NDArray[np.float32]
DEFAULT_RATE_HZ = 16_000  # of feature extractors that do not state theirs


def describe(config: CaptionActorConfig) -> CaptionerInfo:
    """Find the model and check the fields that concern it. Raises InputError for what cannot be."""
    found, identity = hf_model.find(config.captioner), llm.check(config)
    return CaptionerInfo(
        captioner=found.captioner, revision=found.revision, clip_s=config.clip_s, has_score=True, identity=identity
    )


class HfCaptioner:
    """A `Captioner` from a model of transformers."""

    def __init__(self, config: CaptionActorConfig) -> None:
        import torch

        self.config, self.device = config, config.actors.torch_device()
        dtype = torch.bfloat16 if config.arithmetic == "bfloat16" else torch.float32
        self.processor, model = hf_model.load(config.captioner, dtype)
        self.processor.tokenizer.padding_side = "left"
        self.model = model.to(self.device)
        self.rate_hz = getattr(_extractor(self.processor), "sampling_rate", None) or DEFAULT_RATE_HZ
        self.clip_samples = round(config.clip_s * audio.SAMPLE_RATE_HZ)
        self.tagger = TagPredictor(config) if config.tagger else None
        self.batch_size = BatchSize(config.batch_size)
        self.model_lock = threading.Lock()  # one batch at a time on the model

    def reject(self, tags: Sequence[str], texts: Sequence[str]) -> tuple[str, str] | None:
        """See `Captioner.reject`."""
        return prompts.reject(self.config, tags, texts)

    def caption(self, clips: ClipBatch) -> CaptionedBatch:
        """See `Captioner.caption`."""
        cut = [row[:length] for row, length in zip(clips.waveform, clips.num_samples, strict=True)]
        waveforms = [self._resampled(clip, clips.rate_hz) for clip in cut]
        with self.model_lock:
            started = time.monotonic()
            predicted = self.tagger.predict(cut, clips.rate_hz) if self.tagger else None
            asked = prompts.instructions(self.config, clips, predicted)
            answers: list[Answer] = []
            for guidance in self.config.guidance:
                of_kind = [one for one in asked if one.guidance == guidance]
                for decoding in self.config.decodings:
                    answers += self._answers(of_kind, [waveforms[one.clip] for one in of_kind], clips.keys, decoding)
            busy_s = time.monotonic() - started
        found = llm.captions(answers, len(clips.keys), self.config.max_words)
        return CaptionedBatch(found.rows, busy_s, counts=found.counts)

    def _resampled(self, clip: npt.NDArray[np.int16], rate_hz: int) -> Waveform:
        samples: Waveform = clip.astype(np.float32) / audio.INT16_FULL_SCALE
        return soxr.resample(samples, rate_hz, self.rate_hz) if rate_hz != self.rate_hz else samples

    def _answers(
        self, asked: Sequence[Instruction], waveforms: Sequence[Waveform], keys: Sequence[str], decoding: Decoding
    ) -> list[Answer]:
        """Return the answers to instructions, by batches that the device's memory allows."""
        return self.batch_size.run(
            len(asked), lambda chosen: self._generate(asked[chosen], waveforms[chosen], keys, decoding)
        )

    def _generate(
        self, asked: Sequence[Instruction], waveforms: Sequence[Waveform], keys: Sequence[str], decoding: Decoding
    ) -> list[Answer]:
        """Return `num_captions` answers to each instruction of one batch, in the order of the instructions."""
        import torch

        inputs = self.processor(
            text=[self._text(one.text) for one in asked], audio=list(waveforms), sampling_rate=self.rate_hz,
            return_tensors="pt", text_kwargs={"padding": True, "padding_side": "left"},
        ).to(self.device, dtype=self.model.dtype)  # fmt: skip
        with torch.inference_mode():
            if decoding.method == "beam" and decoding.beams > 1:
                found = self._search(inputs, decoding)
            else:
                samples = [self._choose(inputs, asked, keys, decoding, n) for n in range(decoding.num_captions)]
                found = [one for of_clip in zip(*samples, strict=True) for one in of_clip]
        repeated = [one for one in asked for _ in range(decoding.num_captions)]
        return [Answer(one, text, score, str(decoding)) for one, (text, score) in zip(repeated, found, strict=True)]

    def _search(self, inputs: Any, decoding: Decoding) -> list[tuple[str, float]]:
        made = self.model.generate(
            **inputs, do_sample=False, num_beams=decoding.beams, num_return_sequences=decoding.num_captions,
            length_penalty=1.0, max_new_tokens=self.config.max_tokens, return_dict_in_generate=True,
            output_scores=True,
        )  # fmt: skip
        texts = self._decoded(made.sequences[:, inputs["input_ids"].shape[1] :])
        return list(zip(texts, made.sequences_scores.tolist(), strict=True))

    def _choose(
        self, inputs: Any, asked: Sequence[Instruction], keys: Sequence[str], decoding: Decoding, sample: int
    ) -> list[tuple[str, float]]:
        """Return an answer to each instruction with its mean log-probability, chosen token by token."""
        from pipeline.graph.word_choice import WordChoice
        from train.models.captioner.search import uniform

        draws: torch.Tensor | None = None
        if decoding.method == "nucleus":
            names = [keys[one.clip] for one in asked]
            draws = uniform(names, sample + 1, self.config.max_tokens, decoding.seed)[:, sample].to(self.device)
        choice = WordChoice(draws, decoding.top_p, decoding.temperature)
        made = self.model.generate(
            **inputs, do_sample=False, num_beams=1, max_new_tokens=self.config.max_tokens, logits_processor=[choice]
        )
        tokens = made[:, inputs["input_ids"].shape[1] :]
        return list(zip(self._decoded(tokens), choice.scores(self._lengths(tokens)), strict=True))

    def _decoded(self, tokens: "torch.Tensor") -> list[str]:
        texts: list[str] = self.processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return texts

    def _lengths(self, tokens: "torch.Tensor") -> list[int]:
        """Count the tokens of each row up to the one that ends the answer, with it."""
        import torch

        ends = self.model.generation_config.eos_token_id
        ended = torch.isin(tokens, torch.tensor([] if ends is None else ends, dtype=tokens.dtype, device=tokens.device))
        return [int(row.int().argmax()) + 1 if bool(row.any()) else len(row) for row in ended]

    def _text(self, instruction: str) -> str:
        """Return the text of a chat with one clip and an instruction, up to where the answer begins."""
        token = self.processor.audio_token
        if not (template := getattr(self.processor, "chat_template", None) or self.processor.tokenizer.chat_template):
            return f"{token}{instruction}"
        parts = [{"type": "audio"}, {"type": "text", "text": instruction}]
        apply = partial(self.processor.apply_chat_template, chat_template=template, add_generation_prompt=True)
        text: str = apply([{"role": "user", "content": parts}])
        if token in text:
            return text
        text = apply([{"role": "user", "content": f"{token}{instruction}"}])  # a template that knows only text
        return text


def _extractor(processor: Any) -> Any:
    """Return the part of a processor that takes audio."""
    return getattr(processor, "feature_extractor", None) or getattr(processor, "audio_processor", None)
