"""The JSON of the API. The text below a field is its description on the page of the API, too."""

from pydantic import BaseModel, ConfigDict

from eval.search import Hit, IndexInfo
from eval.serving.service import public_name


class Answer(BaseModel):
    """An answer of the API."""

    model_config = ConfigDict(use_attribute_docstrings=True, frozen=True)


class ClipAnswer(Answer):
    """One clip."""

    id: str
    """Name of the clip in this index; the same after the index was built again."""
    key: str
    """Name of the clip in its dataset."""
    score: float
    """How well it fits the query; scores of one mode can be compared."""
    captions: list[str]
    """Captions, the best first."""
    tags: list[str]
    """Labels of the clip."""
    duration_s: float
    """Length in seconds."""
    source_id: str
    """Name of the clip where it comes from."""
    dataset: str
    """Name of its dataset."""
    file: str
    """Name of the file of the dataset that holds its sound."""


class SearchAnswer(Answer):
    """Clips, the best first."""

    results: list[ClipAnswer]
    """The clips."""
    took_s: float
    """Seconds that the search took."""


class TagAnswer(Answer):
    """One tag."""

    name: str
    """The tag."""
    clips: int
    """How many clips have it."""


class DatasetAnswer(Answer):
    """A dataset of the index."""

    name: str
    """Name of its folder."""
    clips: int
    """How many of its clips are in the index."""
    hash: str
    """Hash of its content; another content gives another hash."""


class IndexAnswer(Answer):
    """The index."""

    name: str
    """Name of its folder."""
    model: str
    """Name of the checkpoint that made the embeddings."""
    revision: str
    """Hash of the checkpoint."""
    dim: int
    """Size of an embedding."""
    clips: int
    """How many clips it has."""
    datasets: list[DatasetAnswer]
    """Where they come from."""


class ErrorAnswer(Answer):
    """Why there is no other answer."""

    error: str
    """A sentence for people."""


def clip_answer(hit: Hit) -> ClipAnswer:
    """Return a clip without the place where it lies."""
    return ClipAnswer(
        id=hit.id,
        key=hit.key,
        score=hit.score,
        captions=list(hit.captions),
        tags=list(hit.tags),
        duration_s=hit.duration_s,
        source_id=public_name(hit.source_id),
        dataset=public_name(hit.data),
        file=public_name(hit.uri),
    )


def index_answer(info: IndexInfo) -> IndexAnswer:
    """Return what is in an index."""
    datasets = [DatasetAnswer(name=public_name(each.uri), clips=each.clips, hash=each.hash) for each in info.datasets]
    return IndexAnswer(
        name=public_name(info.uri),
        model=public_name(info.model),
        revision=info.revision,
        dim=info.dim,
        clips=info.clips,
        datasets=datasets,
    )
