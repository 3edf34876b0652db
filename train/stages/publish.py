"""Two towers -> a folder that others load without this repository: `python -m train publish --model <checkpoint>`.

It is built beside the output first, and float ONNX files are compared with torch: a folder that appears is whole.
config.json is published last, as of a checkpoint. Files of 8 bits are not compared: tests/bench/onnx.py measures them.
"""

import logging
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipeline import run_dir, storage
from pipeline.errors import InputError, JobError
from train import checkpoint
from train.checkpoint import Checkpoint, CheckpointInfo
from train.models.clap import Clap
from train.models.configs import HfTowersConfig, TowersConfig
from train.models.hf_towers.towers import HfTowers
from train.publishing import card, onnx_files, quantized, results
from train.publishing.results import Results

log = logging.getLogger(__name__)
LINEAGE_FILE = "lineage.json"
LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True, kw_only=True)
class PublishConfig:
    """Publish two towers: for `AutoModel` and `AutoProcessor` of transformers, with a model card, and as ONNX files."""

    model: str = ""
    """Checkpoint of two towers: what `train pretrain` or `train convert blat` wrote, or `hf:` and a CLAP of transformers."""
    out: str = ""
    """Folder or URI to write to; its last part is the name of the model."""
    results: tuple[str, ...] = ()
    """Folders that evaluations of this model wrote to (their --out): their numbers go into the card."""
    license: str = card.UNKNOWN
    """Licence of the weights as the hub writes it, such as apache-2.0 or cc-by-4.0."""
    onnx: bool = False
    """Write audio.onnx and text.onnx, too. Needs blat-ray[onnx]."""
    int8: bool = False
    """With --onnx: write both with weights of 8 bits, too."""
    push: str = ""
    """Upload the folder to the Hugging Face hub as namespace/name, public where it is new, with the token of `hf auth
    login`."""


def run(config: PublishConfig) -> None:
    """Check the command, build the folder, publish it and perhaps upload it."""
    info, out = _check(config)
    numbers = results.read(config.results, info.revision)
    with tempfile.TemporaryDirectory() as made:
        _build(config, Path(made), info, numbers)
        _publish(Path(made), out)
        log.info("publish: wrote %s, revision %s", out, info.revision[:12])
        if config.push:
            log.info("publish: uploaded to %s", _upload(Path(made), config.push))


def _check(config: PublishConfig) -> tuple[CheckpointInfo[TowersConfig], str]:
    """Return what the checkpoint states, and the folder to write to. Raises InputError for what is wrong."""
    info = checkpoint.describe(config.model, "--model", "clap")
    if not LICENCE.fullmatch(config.license):
        raise InputError("--license", config.license, "write the hub's identifier, such as apache-2.0, or leave it out")
    if config.int8 and not config.onnx:
        raise InputError("--int8", True, "is of the ONNX files; add --onnx")
    if config.onnx:
        _check_onnx(config, info)
    if config.push:
        _check_push(config.push)
    out = run_dir.writable(config.out)
    _check_free(out, config.out, info.revision)
    return info, out


def _check_push(repo_id: str) -> None:
    """Raise InputError for what is no name on the hub, and where nobody is logged in."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # as its documentation has it

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError("--push", repo_id, f"write namespace/name: {error}") from None
    if "/" not in repo_id:
        raise InputError("--push", repo_id, "write namespace/name")
    if not get_token():
        raise InputError("--push", repo_id, "there is no token of the hub; run `hf auth login`, or set HF_TOKEN")


def _check_onnx(config: PublishConfig, info: CheckpointInfo[TowersConfig]) -> None:
    if isinstance(info.network, HfTowersConfig):
        raise InputError("--onnx", True, f"{config.model} is a model of transformers; export it with Optimum")
    onnx_files.require("--onnx")


def _check_free(out: str, given: str, revision: str) -> None:
    """Raise InputError when a folder holds anything but this very model, published before."""
    try:
        names = storage.list_names(out)
        held = storage.read_json(storage.join(out, LINEAGE_FILE)) if LINEAGE_FILE in names else {}
    except (OSError, ValueError) as error:
        raise InputError("--out", given, f"cannot be read: {error}") from None
    if names and held.get("revision") != revision:
        raise InputError("--out", given, "holds something else; choose another folder, or empty this one")


def _build(config: PublishConfig, made: Path, info: CheckpointInfo[TowersConfig], numbers: Results) -> None:
    """Write all files of the publication into an empty folder."""
    from train.publishing import folder  # here: it imports transformers, which takes seconds

    loaded: Checkpoint = checkpoint.load(config.model)
    model, described = loaded.model, None
    if isinstance(model, HfTowers):
        model.save(made)
    else:
        assert isinstance(model, Clap)
        folder.write(made, model)
        if config.onnx:
            log.info("publish: exporting to ONNX and comparing with torch")
            described = onnx_files.write(made, model)
        if config.int8:
            quantized.write(made)
    name = config.push or storage.resolve(config.out).rpartition("/")[2]
    page = card.render(
        card.Published(
            name=name,
            model=model,
            info=info,
            licence=config.license,
            results=numbers,
            onnx=described,
            int8=config.int8,
        )
    )
    (made / card.CARD_FILE).write_text(page)
    (made / LINEAGE_FILE).write_bytes(
        storage.json_bytes({"revision": info.revision, "lineage": info.lineage, "versions": dict(info.versions)})
    )


def _publish(made: Path, out: str) -> None:
    """Copy a folder: what marks it as this model's first, config.json last."""
    names = sorted(file.name for file in made.iterdir())
    order = {LINEAGE_FILE: 0, checkpoint.CONFIG_FILE: 2}
    for name in sorted(names, key=lambda name: order.get(name, 1)):
        storage.publish(storage.join(out, name), (made / name).read_bytes())
    for name in set(storage.list_names(out)) - set(names):  # of the same model, published with other flags
        if name == onnx_files.DESCRIBED or name.endswith(".onnx"):
            storage.remove(storage.join(out, name))


def _upload(made: Path, repo_id: str) -> str:
    """Upload a folder to the hub; return the address of the commit. Raises JobError when the hub refuses."""
    from huggingface_hub import HfApi  # only here: the rest works without network
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(repo_id, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=made).commit_url)
    except (HfHubHTTPError, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise JobError(f"the folder is written, but {repo_id} cannot be uploaded to: {first}") from None
