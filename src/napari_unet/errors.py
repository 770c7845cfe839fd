"""The ways a run can end that are the user's business, each told in one sentence.

A message has three parts: what we got, what was expected, what to do. The dock shows it as a
notification and the command line prints it, both without a traceback; any other exception is a
defect of ours and keeps its traceback.
"""


class UnetError(Exception):
    """Base of every error that is explained to the user in a sentence."""


class ImageError(UnetError):
    """The image, its axes or its channels do not fit what was asked."""


class LabelsError(UnetError):
    """The labels do not say enough, or say something contradictory."""


class ModelError(UnetError):
    """The weights cannot be used: unknown, damaged, unsafe, or made for something else."""


class SettingError(UnetError):
    """A setting is out of its range or contradicts another one."""


class UsageError(UnetError):
    """The command line asks for what makes no sense, whatever is in the files it names."""


class TileSizeError(SettingError):
    """A tile cannot be laid on the network's grid."""


class FileError(UnetError):
    """A file cannot be read or written."""


class DeviceError(UnetError):
    """The chosen processor is not there or has no memory left."""


class WorkerError(UnetError):
    """The process that computes has ended or sent something we do not understand."""


class Cancelled(UnetError):  # no "Error" in the name: it is an outcome
    """The person stopped the run; nothing was written."""


_LONGEST_TEXT = 60


def described(value: object) -> str:
    """Say what was given instead of what was expected, short enough for a sentence.

    Parameters
    ----------
    value : object
        Anything.

    Returns
    -------
    str
        E.g. ``None``, ``the text 'nuclei'``, ``the number 5``, ``a dict``.
    """
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float):
        return f"the number {shortened(repr(value))}"
    if isinstance(value, str):
        return f"the text {shortened(repr(value))}"
    name = type(value).__name__
    return f"{'an' if name.lower().startswith(('a', 'e', 'i', 'o', 'nd')) else 'a'} {name}"


def shortened(text: str) -> str:
    """Cut a text that is too long for a sentence."""
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 3] + "..."
