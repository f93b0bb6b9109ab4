"""One client connection: frames out, frames in, no retries."""

import socket
import struct

from .schema import TRAILING, Malformed

ANSWER_SECONDS = 15


class Closed(Exception):
    """The broker closed the connection instead of answering."""


class NoAnswer(Exception):
    """Nothing came within the time allowed."""


class Connection:
    def __init__(self, address, schemas, client_id="parity"):
        self.schemas, self.client_id = schemas, client_id
        self.socket = socket.create_connection(address, timeout=ANSWER_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.correlation_id = 0

    def close(self):
        self.socket.close()

    def frame(self, api, version, fields, *, encode_as=None, client_id=..., header_version=None):
        """A whole request frame and its correlation id. `encode_as` gives the body's version where the one asked for does not exist."""
        known = version if encode_as is None else encode_as
        header_version = api.request_header_version(known) if header_version is None else header_version
        self.correlation_id += 1
        header = {
            "RequestApiKey": api.key,
            "RequestApiVersion": version,
            "CorrelationId": self.correlation_id,
            "ClientId": self.client_id if client_id is ... else client_id,
        }
        body = self.schemas.request_header.encode(header, header_version) + api.request.encode(fields, known)
        return struct.pack(">i", len(body)) + body, self.correlation_id

    def write(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as problem:
            raise Closed from problem

    def end_of_input(self):
        self.socket.shutdown(socket.SHUT_WR)

    def _exactly(self, count):
        data = bytearray()
        while len(data) < count:
            try:
                piece = self.socket.recv(count - len(data))
            except TimeoutError as problem:
                raise NoAnswer from problem
            except ConnectionResetError as problem:
                raise Closed from problem
            if not piece:
                raise Closed
            data += piece
        return bytes(data)

    def read_frame(self, seconds=ANSWER_SECONDS):
        self.socket.settimeout(seconds)
        return self._exactly(struct.unpack(">i", self._exactly(4))[0])

    def read(self, api, version, correlation_id, seconds=ANSWER_SECONDS):
        """The decoded answer to a request."""
        data = self.read_frame(seconds)
        if len(data) < 4:
            raise Malformed(f"a frame of {len(data)} bytes")
        got = struct.unpack(">i", data[:4])[0]
        if got != correlation_id:
            raise Malformed(f"correlation id {got} where {correlation_id} was asked")
        body = data[4:]
        if api.response_header_version(version) == 1:
            if body[:1] != b"\0":
                raise Malformed("tagged fields in the response header")
            body = body[1:]
        answer, rest = api.response.decode(body, version)
        if rest:
            answer[TRAILING] = rest
        return answer
