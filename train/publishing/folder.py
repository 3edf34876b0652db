"""A folder that `AutoModel` and `AutoProcessor` of transformers load: weights, configs, tokenizer and code.

config.json, model.safetensors        as transformers writes them; `auto_map` names the classes in the files of code
processor_config.json                 rate of the audio, and the classes of the processor
tokenizer.json, tokenizer_config.json the texts' ids; they hold the length that texts are cut and padded to
*.py                                  the code: train/publishing/source.py
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from transformers.utils import logging

from pipeline import storage
from train.models.clap import Clap
from train.publishing import source
from train.publishing.remote.configuration_blat import BlatConfig
from train.publishing.remote.modeling_blat import BlatModel

CONFIG, MODEL = "configuration_blat.BlatConfig", "modeling_blat.BlatModel"
EXTRACTOR, PROCESSOR = "processing_blat.BlatFeatureExtractor", "processing_blat.BlatProcessor"


def write(folder: Path, network: Clap) -> None:
    """Write two towers of ours into an empty folder."""
    text = network.text_encoder
    config = BlatConfig(
        network=storage.plain(dataclasses.asdict(network.config)),
        text=json.loads(text.architecture.to_json_string()),
        auto_map={"AutoConfig": CONFIG, "AutoModel": MODEL},
    )
    model = BlatModel(config)
    buffers = {f"audio_encoder.{name}": tensor for name, tensor in network.audio_encoder.named_buffers()}
    model.network.load_state_dict(buffers | network.state_dict())
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    text.tokenizer.save(str(folder / "tokenizer.json"))
    files = {
        "processor_config.json": _processor(network.sample_rate_hz),
        "tokenizer_config.json": _tokenizer(network),
    }
    for name, content in files.items():
        (folder / name).write_bytes(storage.json_bytes(content))
    for name, code in source.files().items():
        (folder / name).write_text(code)


def _processor(sample_rate_hz: int) -> dict[str, Any]:
    extractor = {
        "feature_extractor_type": EXTRACTOR.partition(".")[2],
        "auto_map": {"AutoFeatureExtractor": EXTRACTOR},
        "sampling_rate": sample_rate_hz,
    }
    return {
        "processor_class": PROCESSOR.partition(".")[2],
        "auto_map": {"AutoProcessor": PROCESSOR},
        "feature_extractor": extractor,
    }


def _tokenizer(network: Clap) -> dict[str, Any]:
    padding = network.text_encoder.tokenizer.padding
    assert padding is not None, "the tokenizer of a text tower pads to one length"
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": padding["pad_token"],
        "model_max_length": network.text_encoder.config.max_tokens,
        "model_input_names": ["input_ids", "attention_mask"],
    }
