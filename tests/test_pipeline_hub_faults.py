"""A hub that does not answer for a moment: hf:// is read again, and what stays is an error of one line."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.hub import Hub

PROGRAM = """
import sys
from pipeline import storage
from pipeline.storage.retrying import with_retries
port = int(sys.argv[1])

def start(seconds):
    from tests.support.hub import Hub
    hub = Hub(port)
    hub.files["a.txt"] = b"line"
    hub.__enter__()

with_retries.sleep = start if port else lambda seconds: None
try:
    with storage.open_text("hf://team/model/a.txt") as text:
        print(text.read())
except storage.StoreFault as fault:
    print("StoreFault", fault)
"""


def read(again: bool) -> str:
    with Hub() as hub:
        port = urlsplit(hub.address).port  # free from now on
    words = [sys.executable, "-c", PROGRAM, str(port if again else 0)]
    environment = os.environ | {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_hub_that_comes_back_is_asked_again() -> None:
    assert read(again=True) == "line"


def test_a_hub_that_stays_away_is_a_fault_of_the_store() -> None:
    assert read(again=False).startswith("StoreFault ConnectError")
