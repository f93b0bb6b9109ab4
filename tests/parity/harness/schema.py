"""Kafka's wire codec, driven by the message schemas that ship inside kafka-clients (common/message/*.json).

A message is a dict whose keys are the schema's own field names. Encoding ignores fields that the version lacks (one case serves every
version), refuses names that no version knows, and fills in the schema's defaults. Decoding reports bytes that are left over and tagged
fields that the schema does not know, so that a malformed answer is a difference and not an accident.
"""

import json
import re
import struct
import zipfile
from functools import lru_cache

ZERO_UUID = "0" * 32
UNKNOWN_TAGS = "unknown tagged fields"
TRAILING = "trailing bytes"


class Malformed(Exception):
    """Bytes that are not what the schema says."""


class Versions:
    """`3`, `3+`, `0-12` or `none`, as the schemas write it."""

    def __init__(self, text):
        self.low, self.high = 0, -1
        if text and text != "none":
            low, _, high = text.rstrip("+").partition("-")
            self.low = int(low)
            self.high = 32767 if text.endswith("+") else int(high or low)

    def __contains__(self, version):
        return self.low <= version <= self.high


class Field:
    def __init__(self, spec, structs, flexible):
        self.name = spec["name"]
        self.type = spec["type"]
        self.versions = Versions(spec.get("versions", "0+"))
        self.nullable = Versions(spec.get("nullableVersions", "none"))
        self.tagged = Versions(spec.get("taggedVersions", "none"))
        self.tag = spec.get("tag")
        self.flexible = Versions(spec["flexibleVersions"]) if "flexibleVersions" in spec else flexible
        self.map_key = spec.get("mapKey", False)
        self.array = self.type.startswith("[]")
        self.element = self.type.removeprefix("[]")
        self._default = spec.get("default")
        self.children = None
        if self.element[0].isupper():
            children = spec["fields"] if "fields" in spec else structs[self.element]
            self.children = [Field(child, structs, flexible) for child in children]

    def default(self, version):
        text = self._default
        if text is None or text == "":
            if self.array:
                return []
            if self.children is not None:
                return {c.name: c.default(version) for c in self.children if version in c.versions}
            return {"string": "", "bool": False, "uuid": ZERO_UUID, "bytes": b"", "records": None, "float64": 0.0}.get(self.type, 0)
        if text == "null":
            return None
        if self.type == "bool":
            return str(text).lower() == "true"
        if self.type == "string":
            return text
        return float(text) if self.type == "float64" else int(str(text), 0)


class Message:
    def __init__(self, spec):
        self.name = spec["name"]
        self.flexible = Versions(spec.get("flexibleVersions", "none"))
        structs = {s["name"]: s["fields"] for s in spec.get("commonStructs", [])}
        self.fields = [Field(f, structs, self.flexible) for f in spec["fields"]]

    def encode(self, value, version):
        out = bytearray()
        _write_struct(out, self.fields, value, version, version in self.flexible, self.name)
        return bytes(out)

    def decode(self, data, version):
        """The message and the bytes after it."""
        reader = Reader(data)
        value = _read_struct(reader, self.fields, version, version in self.flexible)
        return value, reader.rest()


class Api:
    def __init__(self, key, request, response):
        self.key, self.request, self.response = key, request, response
        self.name = request.name.removesuffix("Request")

    def request_header_version(self, version):
        return 2 if version in self.request.flexible else 1

    def response_header_version(self, version):
        # KIP-511: ApiVersions answers with a version 0 header, whatever the client could read.
        return 1 if self.name != "ApiVersions" and version in self.response.flexible else 0


class Schemas:
    """Every API of one kafka-clients jar, by name."""

    def __init__(self, jar):
        requests, responses = {}, {}
        with zipfile.ZipFile(jar) as archive:
            for entry in archive.namelist():
                if not re.fullmatch(r"common/message/\w+\.json", entry):
                    continue
                text = archive.read(entry).decode()
                spec = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
                if spec.get("validVersions") == "none" or "fields" not in spec:
                    continue
                if spec["type"] == "request":
                    requests[spec["apiKey"]] = Message(spec)
                elif spec["type"] == "response":
                    responses[spec["apiKey"]] = Message(spec)
                elif spec["name"] == "RequestHeader":
                    self.request_header = Message(spec)
        self.by_name = {}
        for key, request in requests.items():
            api = Api(key, request, responses[key])
            self.by_name[api.name] = api
        self.by_key = {api.key: api for api in self.by_name.values()}

    def __getitem__(self, name):
        return self.by_name[name]


# --- writing ---------------------------------------------------------------------------------------------------------------------------

_FIXED = {"int8": ">b", "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "float64": ">d"}


def unsigned_varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _write_struct(out, fields, value, version, flexible, where):
    known = {f.name for f in fields}
    for name in value:
        if name not in known and name != UNKNOWN_TAGS:
            raise KeyError(f"{where} has no field {name}; it has {', '.join(sorted(known))}")
    tagged = dict(value.get(UNKNOWN_TAGS, {}))
    for field in fields:
        if version not in field.versions:
            continue
        present = field.name in value
        if flexible and version in field.tagged:
            if present and value[field.name] != field.default(version):
                body = bytearray()
                _write_value(body, field, value[field.name], version, True, where)
                tagged[field.tag] = bytes(body)
            continue
        _write_value(out, field, value[field.name] if present else field.default(version), version, flexible, where)
    if flexible:
        out += unsigned_varint(len(tagged))
        for tag in sorted(tagged):
            out += unsigned_varint(tag) + unsigned_varint(len(tagged[tag])) + tagged[tag]


def _write_length(out, length, flexible, width):
    if flexible:
        out += unsigned_varint(length + 1)
    else:
        out += struct.pack(width, length)


def _write_value(out, field, value, version, flexible, where):
    where = f"{where}.{field.name}"
    flexible = flexible and version in field.flexible
    if field.array:
        _write_length(out, -1 if value is None else len(value), flexible, ">i")
        for element in value or []:
            _write_element(out, field, element, version, flexible, where)
    elif field.children is not None and version in field.nullable:
        out += struct.pack(">b", -1 if value is None else 1)
        if value is not None:
            _write_element(out, field, value, version, flexible, where)
    else:
        _write_element(out, field, value, version, flexible, where)


def _write_element(out, field, value, version, flexible, where):
    kind = field.element
    if field.children is not None:
        _write_struct(out, field.children, value, version, flexible, where)
    elif kind == "bool":
        out.append(1 if value else 0)
    elif kind in _FIXED:
        out += struct.pack(_FIXED[kind], value)
    elif kind == "uuid":
        out += bytes.fromhex(value)
    elif kind == "string":
        # Bytes are accepted too: some cases send what is not UTF-8.
        data = value.encode(errors="surrogateescape") if isinstance(value, str) else value
        _write_length(out, -1 if data is None else len(data), flexible, ">h")
        out += data or b""
    else:
        _write_length(out, -1 if value is None else len(value), flexible, ">i")
        out += value or b""


# --- reading ---------------------------------------------------------------------------------------------------------------------------


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if count < 0 or self.at + count > len(self.data):
            raise Malformed(f"{count} bytes wanted at {self.at} of {len(self.data)}")
        self.at += count
        return self.data[self.at - count : self.at]

    def fixed(self, layout):
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def unsigned_varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 35:
                raise Malformed("a varint of more than five bytes")

    def signed_varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)
            shift += 7
            if shift > 70:
                raise Malformed("a varint of more than ten bytes")

    def rest(self):
        return self.data[self.at :]


def _read_struct(reader, fields, version, flexible):
    value = {}
    tagged = {}
    for field in fields:
        if version not in field.versions:
            continue
        if flexible and version in field.tagged:
            tagged[field.tag] = field
            value[field.name] = field.default(version)
        else:
            value[field.name] = _read_value(reader, field, version, flexible)
    if flexible:
        for _ in range(reader.unsigned_varint()):
            tag, size = reader.unsigned_varint(), reader.unsigned_varint()
            body = Reader(reader.take(size))
            if tag in tagged:
                value[tagged[tag].name] = _read_value(body, tagged[tag], version, True)
                if body.rest():
                    value.setdefault(TRAILING, {})[tagged[tag].name] = body.rest()
            else:
                value.setdefault(UNKNOWN_TAGS, {})[tag] = body.rest()
    return value


def _read_length(reader, flexible, width):
    return reader.unsigned_varint() - 1 if flexible else reader.fixed(width)


def _read_value(reader, field, version, flexible):
    flexible = flexible and version in field.flexible
    if field.array:
        count = _read_length(reader, flexible, ">i")
        if count > len(reader.data):
            raise Malformed(f"an array of {count} in {len(reader.data)} bytes")
        return None if count < 0 else [_read_element(reader, field, version, flexible) for _ in range(count)]
    if field.children is not None and version in field.nullable and reader.fixed(">b") < 0:
        return None
    return _read_element(reader, field, version, flexible)


def _read_element(reader, field, version, flexible):
    kind = field.element
    if field.children is not None:
        return _read_struct(reader, field.children, version, flexible)
    if kind == "bool":
        return reader.take(1) != b"\0"
    if kind in _FIXED:
        return reader.fixed(_FIXED[kind])
    if kind == "uuid":
        return reader.take(16).hex()
    length = _read_length(reader, flexible, ">h" if kind == "string" else ">i")
    if length < 0:
        return None
    data = reader.take(length)
    return data.decode(errors="surrogateescape") if kind == "string" else data


@lru_cache(maxsize=1)
def load(jar):
    return Schemas(jar)
