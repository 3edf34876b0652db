"""The two errors that end a command. All other exceptions are bugs, and end it with a traceback."""


class InputError(Exception):
    """The command has a wrong or a missing input. Ends the command with exit code 2.

    The message names the flag, its value and the remedy:

        >>> str(InputError("--batch-size", 0, "use 1 or more"))
        '--batch-size 0: use 1 or more'
        >>> str(InputError("--out", "", "give a folder"))
        '--out is missing: give a folder'
    """

    def __init__(self, flag: str, value: object, remedy: str) -> None:
        super().__init__(flag, value, remedy)  # all in args: pickle rebuilds an exception of a worker from its args

    def __str__(self) -> str:
        flag, value, remedy = self.args
        return f"{flag} {value!r}: {remedy}" if value not in ("", (), None) else f"{flag} is missing: {remedy}"


class JobError(Exception):
    """The job ran and has no good result to publish. Ends the command with exit code 1."""
