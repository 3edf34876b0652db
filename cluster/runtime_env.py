"""What a job is shipped with: prints cluster/runtime_env.yaml with the variables named, after a look at the folder's size.

python cluster/runtime_env.py [NAME ...] > <file for ray job submit --runtime-env>
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

MOST_MB = 20  # the code is below one; Ray itself would take 512 and keep them in the memory of the head


def check_size() -> None:
    """Stop where this folder holds much besides code: Ray ships what git does not ignore, with every job."""
    if not shutil.which("git"):
        return
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ":!tests"]
    listed = subprocess.run(listing, capture_output=True, text=True, check=False).stdout.split("\0")
    sizes = {name: Path(name).stat().st_size for name in listed if name and Path(name).is_file()}
    if sum(sizes.values()) > MOST_MB * 1e6:
        largest = max(sizes, key=lambda name: sizes[name])
        sys.exit(
            f"cluster/submit.sh: a job would be shipped with {sum(sizes.values()) / 1e6:.0f} MB, more than {MOST_MB}; "
            f"the largest file is {largest}: move it out of this folder, or name it in .gitignore"
        )


def main() -> None:
    """Print the environment."""
    check_size()
    told = yaml.safe_load(Path("cluster/runtime_env.yaml").read_text())
    if unset := [name for name in sys.argv[1:] if name not in os.environ]:
        sys.exit(f"PASS_ENV: {unset[0]} is not set")
    told["env_vars"] |= {name: os.environ[name] for name in sys.argv[1:]}
    yaml.safe_dump(told, sys.stdout)


if __name__ == "__main__":
    main()
