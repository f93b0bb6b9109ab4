"""Record batches of magic 2, built with any field wrong on purpose, and read back with every field named.

Compression without dependencies: gzip is Python's own; snappy, lz4 and zstd are written as frames of stored (literal) blocks, which every
decoder must accept.
"""

import gzip
import struct

from .schema import Malformed, Reader

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
HEADER = struct.Struct(">qiibIhiqqqhii")
HEADER_BYTES = 61
TIMESTAMP_TYPE, TRANSACTIONAL, CONTROL, DELETE_HORIZON = 0x08, 0x10, 0x20, 0x40


def _crc_table(polynomial):
    table = []
    for index in range(256):
        crc = index
        for _ in range(8):
            crc = crc >> 1 ^ (polynomial if crc & 1 else 0)
        table.append(crc)
    return table


_CRC32C = _crc_table(0x82F63B78)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def zigzag(value):
    value = value << 1 ^ value >> 63
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _sized(data):
    return zigzag(-1) if data is None else zigzag(len(data)) + data


def record(offset_delta=0, timestamp_delta=0, key=None, value=b"v", headers=(), header_count=None, attributes=0, length=None):
    """One record's bytes; `header_count` and `length` may lie."""
    body = bytes([attributes]) + zigzag(timestamp_delta) + zigzag(offset_delta) + _sized(key) + _sized(value)
    body += zigzag(len(headers) if header_count is None else header_count)
    for name, content in headers:
        body += _sized(name if isinstance(name, bytes) or name is None else name.encode()) + _sized(content)
    return zigzag(len(body) if length is None else length) + body


def batch(
    values=(b"v",),
    *,
    records=None,
    count=None,
    base_offset=0,
    leader_epoch=-1,
    magic=2,
    crc=None,
    codec="none",
    attributes=0,
    last_offset_delta=None,
    timestamp=1_600_000_000_000,
    max_timestamp=None,
    producer_id=-1,
    producer_epoch=-1,
    base_sequence=-1,
    length=None,
    payload=None,
):
    """A batch of `values` (or of `records`, already encoded). Every header field follows from them unless it is given."""
    if records is None:
        records = [record(offset_delta=i, value=v) for i, v in enumerate(values)]
    if payload is None:
        payload = compress(codec, b"".join(records))
    count = len(records) if count is None else count
    last_offset_delta = len(records) - 1 if last_offset_delta is None else last_offset_delta
    max_timestamp = timestamp if max_timestamp is None else max_timestamp
    after_crc = struct.pack(
        ">hiqqqhii",
        attributes | CODECS[codec],
        last_offset_delta,
        timestamp,
        max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        count,
    )
    after_crc += payload
    crc = crc32c(after_crc) if crc is None else crc
    after_length = struct.pack(">ibI", leader_epoch, magic, crc) + after_crc
    return struct.pack(">qi", base_offset, len(after_length) if length is None else length) + after_length


def old_message(magic, value=b"v", key=None, timestamp=1_600_000_000_000):
    """A message of the formats before Kafka 0.11."""
    import zlib

    body = struct.pack(">bb", magic, 0) + (struct.pack(">q", timestamp) if magic else b"")
    for part in (key, value):
        body += struct.pack(">i", -1) if part is None else struct.pack(">i", len(part)) + part
    message = struct.pack(">I", zlib.crc32(body)) + body
    return struct.pack(">qi", 0, len(message)) + message


# --- compression -----------------------------------------------------------------------------------------------------------------------


def compress(codec, data, framing=None):
    if codec == "gzip":
        return gzip.compress(data, mtime=0)
    if codec == "snappy":
        return _snappy_xerial(data) if framing != "raw" else _snappy(data)
    if codec == "lz4":
        return _lz4_frame(data)
    if codec == "zstd":
        return _zstd_frame(data)
    return data


def _plain_varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _snappy(data):
    out = bytearray(_plain_varint(len(data)))
    for at in range(0, len(data), 60):
        piece = data[at : at + 60]
        out.append((len(piece) - 1) << 2)
        out += piece
    return bytes(out)


def _snappy_xerial(data):
    """The framing of Java's snappy: magic, versions, then sized blocks."""
    out = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
    for at in range(0, len(data), 32768):
        block = _snappy(data[at : at + 32768])
        out += struct.pack(">i", len(block)) + block
    return out


def _xxh32(data, seed=0):
    p1, p2, p3, p4, p5 = 2654435761, 2246822519, 3266489917, 668265263, 374761393
    mask = 0xFFFFFFFF

    def rotate(value, bits):
        return (value << bits | value >> 32 - bits) & mask

    at = 0
    if len(data) >= 16:
        lanes = [seed + p1 + p2 & mask, seed + p2 & mask, seed, seed - p1 & mask]
        while at + 16 <= len(data):
            for lane in range(4):
                word = struct.unpack_from("<I", data, at)[0]
                lanes[lane] = rotate(lanes[lane] + word * p2 & mask, 13) * p1 & mask
                at += 4
        digest = sum(rotate(v, b) for v, b in zip(lanes, (1, 7, 12, 18))) & mask
    else:
        digest = seed + p5 & mask
    digest = digest + len(data) & mask
    while at + 4 <= len(data):
        digest = rotate(digest + struct.unpack_from("<I", data, at)[0] * p3 & mask, 17) * p4 & mask
        at += 4
    for byte in data[at:]:
        digest = rotate(digest + byte * p5 & mask, 11) * p1 & mask
    digest = (digest ^ digest >> 15) * p2 & mask
    digest = (digest ^ digest >> 13) * p3 & mask
    return digest ^ digest >> 16


def _lz4_frame(data):
    # Version 1, independent blocks, no checksums; blocks of at most 64 KiB, all stored.
    descriptor = bytes([0x60, 0x40])
    out = b"\x04\x22\x4d\x18" + descriptor + bytes([_xxh32(descriptor) >> 8 & 0xFF])
    for at in range(0, len(data), 65536):
        block = data[at : at + 65536]
        out += struct.pack("<I", len(block) | 0x80000000) + block
    return out + b"\0\0\0\0"


def _zstd_frame(data):
    # Single segment with an 8-byte content size, raw blocks.
    out = b"\x28\xb5\x2f\xfd" + bytes([0xE0]) + struct.pack("<Q", len(data))
    pieces = [data[at : at + 65536] for at in range(0, len(data), 65536)] or [b""]
    for index, piece in enumerate(pieces):
        last = 1 if index == len(pieces) - 1 else 0
        out += (len(piece) << 3 | last).to_bytes(3, "little") + piece
    return out


def decompress(codec, data):
    """Only what a test needs to look inside: none and gzip; other codecs' bytes are compared as they are."""
    return gzip.decompress(data) if codec == 1 else data


# --- reading ---------------------------------------------------------------------------------------------------------------------------


def decode(data):
    """The batches in a fetch answer, each a dict; a cut-off last batch is reported as such."""
    batches = []
    at = 0
    while at < len(data):
        if len(data) - at < HEADER_BYTES or len(data) - at < 12 + struct.unpack_from(">i", data, at + 8)[0]:
            batches.append({"cut off": True})
            break
        size = 12 + struct.unpack_from(">i", data, at + 8)[0]
        batches.append(_decode_batch(data[at : at + size]))
        at += size
    return batches


def _decode_batch(data):
    (base_offset, _, leader_epoch, magic, crc, attributes, last_delta, base_time, max_time, pid, epoch, sequence, count) = HEADER.unpack(
        data[:HEADER_BYTES]
    )
    codec = attributes & 7
    out = {
        "BaseOffset": base_offset,
        "LastOffset": base_offset + last_delta,
        "PartitionLeaderEpoch": leader_epoch,
        "Magic": magic,
        "CrcMatches": crc == crc32c(data[21:]),
        "Codec": codec,
        "LogAppendTime": bool(attributes & TIMESTAMP_TYPE),
        "Transactional": bool(attributes & TRANSACTIONAL),
        "Control": bool(attributes & CONTROL),
        "MaxTimestamp": max_time,
        "ProducerId": pid,
        "ProducerEpoch": epoch,
        "BaseSequence": sequence,
        "Count": count,
        "Bytes": len(data),
    }
    if codec in (0, 1):
        try:
            out["Records"] = _decode_records(decompress(codec, data[HEADER_BYTES:]), base_offset, base_time)
        except Malformed as problem:
            out["Records"] = f"malformed: {problem}"
    else:
        out["Payload"] = data[HEADER_BYTES:]
    return out


def _decode_records(data, base_offset, base_time):
    reader, out = Reader(data), []

    def sized():
        length = reader.signed_varint()
        return None if length < 0 else reader.take(length)

    while reader.rest():
        reader.signed_varint()
        attributes = reader.take(1)[0]
        timestamp, offset = base_time + reader.signed_varint(), base_offset + reader.signed_varint()
        key, value = sized(), sized()
        headers = [[sized(), sized()] for _ in range(reader.signed_varint())]
        out.append({"Offset": offset, "Timestamp": timestamp, "Key": key, "Value": value, "Headers": headers, "Attributes": attributes})
    return out
