"""What a case is: a function that scripts one conversation with a broker, run on every version of its API."""

import importlib
import pathlib
from dataclasses import dataclass
from typing import Callable

from .schema import Versions


@dataclass(frozen=True)
class Case:
    api: str
    name: str
    versions: Versions
    alone: bool
    script: Callable

    @property
    def about(self):
        return " ".join((self.script.__doc__ or "").split())


CASES = []


def case(api, versions="0+", alone=False):
    """Registers a script. It runs once for each version within `versions` that both brokers advertise; a range like `99` that nobody
    advertises is for ANY. `alone` is for what would disturb other cases: it runs when nothing else does."""

    def register(script):
        name = script.__name__.strip("_").replace("_", "-")
        found = Case(api, name, Versions(versions), alone, script)
        if any((c.api, c.name) == (api, name) for c in CASES):
            raise ValueError(f"two cases are called {api} {name}")
        CASES.append(found)
        return script

    return register


def load(folder):
    for path in sorted(pathlib.Path(folder).glob("*.py")):
        if path.stem != "__init__":
            importlib.import_module(f"cases.{path.stem}")
    return list(CASES)
