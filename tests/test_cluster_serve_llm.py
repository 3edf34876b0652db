"""The file that serves an audio LLM: by the schemas of Ray Serve and of Ray Serve LLM, without a model and without vLLM."""

from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml
from ray.llm._internal.serve.core.configs.llm_config import LLMConfig
from ray.serve.schema import ServeDeploySchema

FILE = Path("cluster/serve_llm.yaml")


@pytest.fixture
def content() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())


def test_serve_takes_the_file_and_opens_no_port(content: dict[str, Any]) -> None:
    found = ServeDeploySchema.model_validate(content)
    assert set(content) <= set(ServeDeploySchema.model_fields)
    assert (found.http_options.host, found.proxy_location) == ("127.0.0.1", "EveryNode")
    (application,) = found.applications
    assert application.import_path == "ray.serve.llm:build_openai_app"


def test_serve_llm_takes_the_model(content: dict[str, Any]) -> None:
    (config,) = content["applications"][0]["args"]["llm_configs"]
    found = LLMConfig.model_validate(config)
    assert found.model_id == "qwen2-audio" and f"openai:{found.model_id}" in FILE.read_text()
    with pytest.raises(pydantic.ValidationError, match="engine"):
        LLMConfig.model_validate(config | {"engine_kwargs": 3})
