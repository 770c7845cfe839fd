"""Check that every public name documents all it takes and gives, numpydoc style.

``numpydoc lint`` (see ``[tool.numpydoc_validation]``) reads every docstring; a helper may say
what it does in one line. The names that ``import napari_unet`` offers must say more: every
parameter, what is returned, what is raised.
"""

import dataclasses
import inspect
import sys

from numpydoc.validate import validate

import napari_unet
from napari_unet.settings import Settings

ALLOWED = {
    "ES01",  # no extended summary: one sentence is often enough
    "EX01",  # no example in every docstring
    "GL01",  # the summary stands on the line of the quotes
    "PR08",  # a description may start with a name that is written small: numpy
    "SA01",  # no "See Also" in every docstring
}
# What settings and samples take is documented beside each field, in the one place it is written.
DOCUMENTED_BY_FIELD = "PR01"


def complaints(name: str) -> list[str]:
    """List what is wrong with the docstring of one public name."""
    target = getattr(napari_unet, name)
    if not (inspect.isfunction(target) or inspect.isclass(target)):
        return []
    found = validate(f"{target.__module__}.{target.__qualname__}")
    allowed = ALLOWED | ({DOCUMENTED_BY_FIELD} if has_documented_fields(target) else set())
    return [
        f"{found['file']}:{found['file_line']}: {name}: {code} {text}"
        for code, text in found["errors"]
        if code not in allowed
    ]


def has_documented_fields(target: object) -> bool:
    """Tell whether a class says at each field what it is."""
    if inspect.isclass(target) and issubclass(target, Settings):
        return all(field.description for field in target.model_fields.values())
    if dataclasses.is_dataclass(target):
        lines = inspect.getsource(target).splitlines()
        fields = [f"    {field.name}:" for field in dataclasses.fields(target)]
        starts = [n for n, line in enumerate(lines) if line.startswith(tuple(fields))]
        return all(lines[n + 1].lstrip().startswith('"""') for n in starts)
    return False


def main() -> int:
    """Print all complaints; the exit status says whether there are any."""
    found = [line for name in napari_unet.__all__ for line in complaints(name)]
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
