"""The records that every client produces and must get back byte for byte.

They are written to a file as JSON, with keys, values and header values in base64 (null stays null), so that each
client's program reads the same bytes in its own language.
"""

import base64
import json
import random
import time

PARTITIONS = 3
LARGE = 900_000


def records():
    """(key, value, headers) in the order in which they are produced."""
    rng = random.Random(20261123)
    every_byte = bytes(range(256))
    order = {"order_id": "cust-00123", "quantity": 3, "price": 19.5, "tags": ["a", "b"], "note": None}
    compact = json.dumps(order, separators=(",", ":")).encode()
    as_python = json.dumps(order).encode()
    return [
        (None, None, []),
        (None, b"", []),
        (b"", b"empty key", []),
        (b"tombstone", None, []),
        (b"key", b"value", []),
        (every_byte, every_byte, [("every-byte", every_byte)]),
        (b"headers", b"h", [("first", b"1"), ("second", b""), ("third", None), ("\u00fc\u4e16", "\u00fc\u4e16".encode())]),
        (b"duplicate headers", b"h", [("same", b"1"), ("same", b"2"), ("same", None), ("same", b"1")]),
        (b"interleaved headers", b"h", [("a", b"1"), ("b", b"2"), ("a", b"3")]),
        (b"empty header name", b"h", [("", b"nameless")]),
        (None, None, [("only", b"a header")]),
        (b"compact json", compact, []),
        (b"spaced json", as_python, [("content-type", b"application/json")]),
        (b"mixed json", b'{"a": 1,"b":2 , "c" :3}\n', []),
        (b"json with escapes", b'{"a\\u0062":"line\\nbreak","plain":"\xc3\xbc","quote":"\\""}', []),
        (b"json with repeated names", b'{"a":1,"a":2}', []),
        (b"json with reserved names", b'{"__key":"k","value":"v","__ts":7}', []),
        (b"json numbers", b'{"big":12345678901234567890123,"exp":1.50e+10,"neg":-0.0,"bool":true}', []),
        (b"empty object", b"{}", []),
        (b"array", b"[1,2,3]", []),
        (b"not utf-8", b'{"a":"\xff\xfe"}', []),
        (b"compressible", b"weir " * 20_000, []),
        (b"large", rng.randbytes(LARGE), []),
    ]


def write(path):
    def encode(data):
        return None if data is None else base64.b64encode(data).decode()

    # An hour ago on a whole second; the n-th record that a client produces is stamped `start + 1000 * n`.
    start = (int(time.time()) - 3600) * 1000
    listed = [
        {"key": encode(key), "value": encode(value), "headers": [[name, encode(data)] for name, data in headers]}
        for key, value, headers in records()
    ]
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"partitions": PARTITIONS, "start": start, "records": listed}, file)
