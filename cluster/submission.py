"""What `cluster/submit.sh` looks at first: whether a cluster answers, and what this folder would be shipped with.

    python cluster/submission.py <address> [NAME ...] > <file for ray job submit --runtime-env>

Prints cluster/runtime_env.yaml with the named variables of this shell.
"""

import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import yaml

MAX_MB = 20  # the code is two; Ray itself would take 512 and keep them in the memory of the head


def refuse(what: str) -> None:
    """End with one line."""
    sys.exit(f"cluster/submit.sh: {what}")


def check_server(address: str) -> None:
    """Stop where no job server answers, or wants another token."""
    kept = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    token = os.environ.get("RAY_AUTH_TOKEN") or (kept.read_text().strip() if kept.is_file() else "")
    sent = {"Authorization": f"Bearer {token}"} if token else {}
    asked = urllib.request.Request(f"{address}/api/jobs/", headers=sent)  # noqa: S310 - the user's own address
    try:
        urllib.request.urlopen(asked, timeout=30).close()  # noqa: S310 - as above
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            refuse(f"{address} wants another token: put the cluster's into RAY_AUTH_TOKEN, or into {kept}")
    except OSError as error:
        refuse(f"{address}: no job server answers ({error}): `ray start --head`, or set RAY_API_SERVER_ADDRESS")


def check_size() -> None:
    """Stop where this folder holds much besides code: Ray ships what git does not ignore, with every job."""
    if not shutil.which("git"):
        return
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ":!tests"]
    listed = subprocess.run(listing, capture_output=True, text=True, check=False).stdout.split("\0")
    sizes = {name: Path(name).stat().st_size for name in listed if name and Path(name).is_file()}
    if (total := sum(sizes.values())) > MAX_MB * 1e6:
        largest = max(sizes, key=lambda name: sizes[name])
        message = f"a job would be shipped with {total / 1e6:.0f} MB, more than {MAX_MB}; the largest file is {largest}"
        refuse(f"{message}: move it out of this folder, or name it in .gitignore")


def main() -> None:
    """Check, and print the environment."""
    address, *names = sys.argv[1:]
    for name in names:
        if name not in os.environ:
            refuse(f"PASS_ENV names {name}, which is not set: export it, or leave it out")
    check_size()
    if address.startswith("http"):
        check_server(address.rstrip("/"))
    runtime_env = yaml.safe_load(Path("cluster/runtime_env.yaml").read_text())
    runtime_env["env_vars"] |= {name: os.environ[name] for name in names}
    yaml.safe_dump(runtime_env, sys.stdout)


if __name__ == "__main__":
    main()
