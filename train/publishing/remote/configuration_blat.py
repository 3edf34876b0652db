"""The config of published two towers."""

from typing import Any

from transformers import PreTrainedConfig


class BlatConfig(PreTrainedConfig):
    """What config.json of a published model states.

    Args:
        network: sizes of both towers and of the shared space, the fields of `ClapConfig`.
        text: architecture of the text encoder, as transformers describes it.
    """

    model_type = "blat"

    def __init__(
        self, network: dict[str, Any] | None = None, text: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        self.network, self.text = network or {}, text or {}
        super().__init__(**kwargs)
