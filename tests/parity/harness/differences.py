"""The differences that are meant: one entry each, without wildcards, with a reason."""

import tomllib
from dataclasses import dataclass, field

from .schema import Versions

REQUIRED = ("api", "versions", "case", "step", "field", "kafka", "weir", "reason")


class Wrong(Exception):
    """The file itself is not in order."""


@dataclass
class Meant:
    api: str
    versions: str
    case: str
    step: str
    field: str
    kafka: str
    weir: str
    reason: str
    layout: str | None = None
    seen: set = field(default_factory=set)

    def covers(self, version, layout):
        return version in Versions(self.versions) and self.layout in (None, layout)


def load(path):
    with open(path, "rb") as file:
        entries = tomllib.load(file).get("difference", [])
    meant, known = [], set()
    for number, entry in enumerate(entries, 1):
        missing = [k for k in REQUIRED if not entry.get(k)]
        unknown = [k for k in entry if k not in (*REQUIRED, "layout")]
        if missing or unknown:
            raise Wrong(f"difference {number}: missing {missing}, unknown {unknown}")
        if "*" in entry["case"] + entry["step"] + entry["field"] + entry["api"]:
            raise Wrong(f"difference {number}: wildcards are not taken")
        identity = tuple(entry.get(k) for k in ("api", "versions", "case", "step", "field", "layout"))
        if identity in known:
            raise Wrong(f"difference {number} is there twice")
        known.add(identity)
        meant.append(Meant(**entry))
    return meant
