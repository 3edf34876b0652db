"""The two errors that end a command: wrong input, and a job that cannot publish a good result."""


class InputError(Exception):
    """Wrong or missing input: names the flag, its value and the remedy. Ends the command with exit code 2."""

    def __init__(self, flag: str, value: object, remedy: str) -> None:
        super().__init__(flag, value, remedy)  # all in args: an exception from a worker is rebuilt from them

    def __str__(self) -> str:
        flag, value, remedy = self.args
        return f"{flag} {value!r}: {remedy}" if value not in ("", (), None) else f"{flag} is missing: {remedy}"


class JobError(Exception):
    """The job ran and cannot publish a good result. Ends the command with exit code 1."""
