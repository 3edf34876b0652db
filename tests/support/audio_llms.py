"""Tiny audio LLMs of transformers with random weights and their real processors, saved as on the hub."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

KINDS = ("qwen2_audio", "audioflamingo3")
SPECIAL = ("<pad>", "<end>", "<|im_start|>", "<|im_end|>", "<|audio_bos|>", "<|audio_eos|>", "<|AUDIO|>", "<sound>")
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} "
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'audio' %}<sound>{% else %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)
WHISPER = {
    "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "num_mel_bins": 16,
    "max_source_positions": 1500,
}  # fmt: skip
FLAMINGO = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "num_mel_bins": 16,
    "max_source_positions": 1500,
}  # fmt: skip
TEXT = {
    "model_type": "qwen2", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 2048, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip


def save(kind: str, folder: Path) -> None:
    """Save a model of a kind, with its processor."""
    words = tokenizer()
    extractor = transformers.WhisperFeatureExtractor(feature_size=16)
    torch.manual_seed(1)
    text = TEXT | {"vocab_size": len(words)}
    processor: Any
    model: Any
    if kind == "qwen2_audio":
        processor = transformers.Qwen2AudioProcessor(extractor, words)
        config: Any = transformers.Qwen2AudioConfig(
            audio_config=WHISPER, text_config=text,
            audio_token_index=words.convert_tokens_to_ids("<|AUDIO|>"),
        )  # fmt: skip
        model = transformers.Qwen2AudioForConditionalGeneration(config)
    else:
        processor = transformers.AudioFlamingo3Processor(extractor, words, chat_template=CHAT)
        config = transformers.AudioFlamingo3Config(
            audio_config=FLAMINGO, text_config=text,
            audio_token_id=words.convert_tokens_to_ids("<sound>"),
        )  # fmt: skip
        model = transformers.AudioFlamingo3ForConditionalGeneration(config)
    for parameter in model.parameters():  # larger weights than a start of training: audio and text change the answer
        torch.nn.init.normal_(parameter, std=0.3)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 1, 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Return a tokenizer of words."""
    words = [f"w{n}" for n in range(60)] + ["Describe", "the", "sounds", "Rain", "Dog", "Bell", ","]
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, "<unk>", *words])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<end>", unk_token="<unk>",
        additional_special_tokens=list(SPECIAL[2:]),
    )  # fmt: skip
