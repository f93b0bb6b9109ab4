"""Two answers, field by field."""

import json
from dataclasses import dataclass

ABSENT = "<absent>"
# What names an element of a list, most telling first.
KEYS = (
    "Name", "TopicName", "Topic", "TopicId", "GroupId", "PartitionIndex", "Partition", "Index", "ResourceName", "MemberId", "NodeId",
    "BrokerId", "ApiKey", "Offset", "BaseOffset", "BatchIndex",
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    field: str
    kafka: str
    weir: str


def show(value):
    return value if isinstance(value, str) and value.startswith("<") else json.dumps(value, ensure_ascii=False, default=str)


def compare(kafka, weir):
    found = []
    _compare(kafka, weir, "", found)
    return found


def _compare(kafka, weir, path, found):
    if isinstance(kafka, dict) and isinstance(weir, dict):
        for name in [*kafka, *(n for n in weir if n not in kafka)]:
            _compare(kafka.get(name, ABSENT), weir.get(name, ABSENT), f"{path}.{name}" if path else str(name), found)
    elif isinstance(kafka, list) and isinstance(weir, list) and bool(kafka) != bool(weir):
        found.append(Difference(path, f"<a list of {len(kafka)}>", f"<a list of {len(weir)}>"))
    elif isinstance(kafka, list) and isinstance(weir, list) and _structs(kafka) and _structs(weir):
        _compare_lists(kafka, weir, path, found)
    elif kafka != weir:
        found.append(Difference(path, show(kafka), show(weir)))


def _structs(values):
    return all(isinstance(v, dict) for v in values)


def _compare_lists(kafka, weir, path, found):
    key = next((k for k in KEYS if _names(kafka, k) and _names(weir, k)), None)
    if key is None:
        left, right = {str(i): v for i, v in enumerate(kafka)}, {str(i): v for i, v in enumerate(weir)}
    else:
        left, right = {str(v[key]): v for v in kafka}, {str(v[key]): v for v in weir}
    for name in [*left, *(n for n in right if n not in left)]:
        _compare(left.get(name, ABSENT), right.get(name, ABSENT), f"{path}[{name}]", found)
    if list(left) != list(right) and sorted(left) == sorted(right):
        found.append(Difference(f"{path} (order)", show(list(left)), show(list(right))))


def _names(values, key):
    names = [v.get(key) for v in values]
    return all(isinstance(n, (str, int)) for n in names) and len(set(names)) == len(names)
