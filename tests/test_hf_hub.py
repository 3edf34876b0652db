"""Two towers by a name on the Hugging Face hub: real requests of its client to a server here."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import hf_claps
from tests.support.hub import COMMIT, Hub
from train.pretrained import Embedder

NAME = "team/model"
DESCRIBE = """
import json, sys
from pipeline.errors import InputError
from train import checkpoint
from train.pretrained import Embedder
try:
    name = checkpoint.resolve(sys.argv[1])
    info = checkpoint.describe(name, "--model", "clap")
    embedder = Embedder.from_pretrained(name)
    if sys.argv[2:]:
        embedder.save_pretrained(sys.argv[2])
    print(json.dumps([name, info.lineage, info.revision, embedder.embed_text(["a dog barks"]).tolist()]))
except InputError as error:
    print(json.dumps(str(error)))
"""


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    """The hub with a tiny CLAP, and files that no model needs; it answers inside `with`."""
    made = Hub()
    made.files = {path.name: path.read_bytes() for path in hf_claps.save(tmp_path / "tiny").iterdir()}
    made.files |= {"README.md": b"# Tiny", "logo.png": bytes(2**16)}
    return made


def describe(hub: Hub, cache: Path, *words: str, **environment: str) -> Any:
    """Return what a process of its own prints."""
    environment = {"HF_ENDPOINT": hub.address, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0", **environment}
    done = subprocess.run(
        [sys.executable, "-c", DESCRIBE, *words],
        env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_model_is_fetched_pinned_and_loaded_again_without_the_hub(hub: Hub, tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "saved"
    with hub:
        name, lineage, revision, vectors = describe(hub, cache, f"hf:{NAME}", str(out))
    assert name == f"hf:{NAME}@{COMMIT}" and lineage == {"stage": "transformers", "model": name}
    fetched = {path.name for path in cache.rglob("snapshots/*/*")}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= fetched and not fetched & {"README.md", "logo.png"}
    for asked in (f"hf:{NAME}", name):  # the server is gone
        assert describe(hub, cache, asked) == [name, lineage, revision, vectors]
    assert describe(hub, cache, f"hf:{NAME}", HF_HUB_OFFLINE="1") == [name, lineage, revision, vectors]
    assert json.loads((out / "config.json").read_text())["lineage"] == lineage
    assert Embedder.from_pretrained(str(out)).embed_text(["a dog barks"]).tolist() == vectors


def test_what_is_not_there_is_named_with_what_to_do(hub: Hub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with hub:
        assert describe(hub, cache, "hf:team/absent") == (
            "--model 'hf:team/absent': no such folder, and the hub has no such model; write namespace/name as the hub has "
            "it; for a private one run `hf auth login`, or set HF_TOKEN"
        )
        del hub.files["tokenizer.json"]
        assert "cannot be loaded" in describe(hub, cache, f"hf:{NAME}")
    unreached = describe(hub, tmp_path / "empty", f"hf:{NAME}")
    assert "cannot be reached" in unreached and unreached.endswith(
        "fetch it where there is a network, or give a folder"
    )
