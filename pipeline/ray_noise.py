"""Lines that Ray writes on healthy runs although they look like errors. They are kept off the terminal; all others pass.

"... has constructor arguments in the object store and max_restarts > 0 ..." (ray-project/ray issue 57733): Ray Data and Ray
Train give references to their actors, and hold these for as long as the actors live, so that a restarted actor finds them.

"Failed to query Ray Train Controller actor state ...": Ray Train queries the dashboard every second, to clean up after runs
that ended abruptly. A cluster without a dashboard does not answer, which does no harm to a run.

Ray's own log files keep both.
"""

import logging
import os
import subprocess
import sys

RESTARTS = (
    r"Actor with class name: '(MapWorker\(|PreemptionWatcher)[^']*' .* has constructor arguments in the object store"
)
CLEANER = r"Failed to query Ray Train Controller actor state\. State API may be temporarily unavailable"
SKIP_VARIABLE = "RAY_DEDUP_LOGS_SKIP_REGEX"  # read by `import ray`; for lines of workers
FILTER = r"""
import os, re, sys
harmless, rest = re.compile(sys.argv[1].encode()), b""
def put(data):
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()
while data := os.read(0, 65536):
    *lines, rest = (rest + data).split(b"\n")
    put(b"".join(line + b"\n" for line in lines if not harmless.search(line)))
    if not rest.startswith(b"["):  # a line of Ray starts with [ and is completed first; all else is passed on at once
        put(rest)
        rest = b""
put(rest)
"""

_filter: "subprocess.Popen[bytes] | None" = None


def hide() -> None:
    """Drop such lines of C++ code in this process: file descriptor 2 goes through a process that filters it.

    A thread would not do: the last lines before a crash would be lost. What Python writes to `sys.stderr` bypasses the
    filter. Does nothing where `sys.stderr` is not the standard error, as in a notebook.
    """
    global _filter
    python = sys.__stderr__
    if _filter is not None or python is None or sys.stderr is not python:
        return
    python.flush()
    terminal = os.dup(2)
    command = [sys.executable, "-S", "-E", "-c", FILTER, RESTARTS]
    _filter = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    assert _filter.stdin is not None
    os.dup2(_filter.stdin.fileno(), 2)
    _filter.stdin.close()
    sys.stderr = open(terminal, "w", buffering=1, encoding=python.encoding, errors="backslashreplace")  # noqa: SIM115
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is python:
            handler.setStream(sys.stderr)
