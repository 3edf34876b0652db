"""What `--captioner` names.

build/captioner, s3://...      a checkpoint of `train captioner`
hf:namespace/name, hf:folder   a model of transformers, from the hub or from disk; ...@commit fixes a commit
openai:model                   a model behind an endpoint that speaks OpenAI's protocol, at --captioner-url
"""

from typing import Literal, NamedTuple, Self

from pipeline import storage
from pipeline.storage import hf

Kind = Literal["blat", "hf", "openai"]
OPENAI = "openai:"


class CaptionerName(NamedTuple):
    """The parts of a captioner's name."""

    kind: Kind
    model: str  # the folder or URI, or the name at the hub or the endpoint

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the parts of what `--captioner` holds."""
        if text.startswith(OPENAI):
            return cls("openai", text.removeprefix(OPENAI))
        if hf.is_name(text):
            return cls("hf", text.removeprefix(hf.PREFIX))
        return cls("blat", text)

    @property
    def title(self) -> str:
        """Return the last part of the name, as the record of a caption holds it."""
        return hf.title(self.model) if self.kind == "hf" else self.model.rpartition("/")[2]


def resolve(text: str) -> str:
    """Return the name with the absolute folder of a checkpoint; other names stay as they are."""
    return storage.resolve(text) if CaptionerName.parse(text).kind == "blat" else text
