"""Lines that Ray writes on healthy runs although they look like errors: they are kept off the terminal, all others pass.

"... has constructor arguments in the object store and max_restarts > 0 ..." (ray-project/ray issue 57733): Ray Data and Ray
Train give references to actors of their own, and hold them for as long as the actors live, so that a restart finds them.

"Failed to query Ray Train Controller actor state ...": Ray Train asks the dashboard, every second, whether a run that ended
abruptly left something to tidy up; a cluster without a dashboard does not answer, which does no harm to a run.

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
SKIP_VARIABLE = "RAY_DEDUP_LOGS_SKIP_REGEX"  # Ray reads it when it is imported; for lines that come from workers
FILTER = r"""
import os, re, sys
harmless, held = re.compile(sys.argv[1].encode()), b""
def put(data):
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()
while data := os.read(0, 65536):
    *lines, held = (held + data).split(b"\n")
    put(b"".join(line + b"\n" for line in lines if not harmless.search(line)))
    if not held.startswith(b"["):  # as Ray's own lines do: the rest of one is waited for, nothing else is
        put(held)
        held = b""
put(held)
"""

_filter: "subprocess.Popen[bytes] | None" = None


def hide() -> None:
    """Drop the lines that C++ code in this process writes, by a process that all else of file descriptor 2 goes through.

    It is a process, and not a thread, so that the last words of one that crashes are shown too. What Python writes to
    `sys.stderr` does not go through it. Does nothing where `sys.stderr` is not the standard error, as in a notebook.
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
