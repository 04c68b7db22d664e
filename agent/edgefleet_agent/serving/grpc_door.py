"""gRPC of the Open Inference Protocol, in the front: the extra `edgefleet[grpc]`. [api-8]

An inference passes through unread, but for the name and the version of its model; everything else
is a page of the HTTP door, told as a message. Needs `grpcio` and `protobuf`, which only this file
and what it imports bring into the front.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import grpc
from google.protobuf import json_format
from grpc import aio

from edgefleet_agent.runtime.frames import Ask
from edgefleet_agent.serving import oip_v2
from edgefleet_agent.serving.answer import Answer
from edgefleet_agent.serving.app import App
from edgefleet_agent.serving.door import Inference, Places
from edgefleet_agent.serving.grpc_messages import MESSAGES, SERVICE

Context: TypeAlias = "aio.ServicerContext[Any, Any]"
Handler: TypeAlias = Callable[[Any, Context], Awaitable[Any]]

_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_INFER: Final = Inference(Ask.INFER_GRPC, oip_v2.find)
_NAME, _VERSION = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class BadMessage(Exception):
    """Bytes that are no protobuf message."""


async def serve(app: App, address: str, *, max_body_bytes: int) -> aio.Server:
    """A server that listens, and answers until it is stopped.

    Args:
        app: what answers.
        address: `host:port` or `unix:/path`.
        max_body_bytes: bounds a message.

    Raises:
        RuntimeError: the address cannot be bound.
    """
    server = aio.server(
        options=[
            ("grpc.max_receive_message_length", max_body_bytes),
            ("grpc.max_send_message_length", -1),
            # A front that replaces a dead one listens at once.
            ("grpc.so_reuseport", 1),
        ]
    )
    server.add_generic_rpc_handlers((_handlers(app),))
    before = os.umask(0o117)
    try:
        server.add_insecure_port(address)
        await server.start()
    finally:
        os.umask(before)
    return server


def model_of(body: bytes) -> Places:
    """The model and, where it is said, the version in a `ModelInferRequest`, nothing else read.

    Raises:
        BadMessage: the fields do not follow each other as they should.
    """
    found = {_NAME: b"", _VERSION: b""}
    at = 0
    try:
        while at < len(body):
            key, at = _varint(body, at)
            number, kind = key >> 3, key & 7
            if kind == _BYTES:
                size, at = _varint(body, at)
                if size > len(body) - at:
                    raise BadMessage
                if number in found:
                    found[number] = body[at : at + size]
                at += size
            elif kind == _VARINT:
                _, at = _varint(body, at)
            elif kind in (_FIXED64, _FIXED32):
                at += 8 if kind == _FIXED64 else 4
            else:
                raise BadMessage
        places = {"model": found[_NAME].decode(), "version": found[_VERSION].decode()}
    except (IndexError, UnicodeDecodeError):
        raise BadMessage from None
    return {name: text for name, text in places.items() if text or name == "model"}


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise BadMessage


def _handlers(app: App) -> grpc.GenericRpcHandler:
    async def infer(body: bytes, context: Context) -> bytes:
        try:
            places = model_of(body)
        except BadMessage:
            await context.abort(_CODES[400], "the body is no ModelInferRequest")
        answer = await app.infer(_INFER, places, body, time.perf_counter())
        if answer.status != 200:
            await _abort(answer, context)
        return bytes(answer.body)

    named = "/v2/models/{name}"
    methods = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(infer),
        "ServerLive": _page(app, "ServerLive", "GET", "/v2/health/live"),
        "ServerReady": _page(app, "ServerReady", "GET", "/v2/health/ready"),
        "ServerMetadata": _page(app, "ServerMetadata", "GET", "/v2"),
        "ModelReady": _page(app, "ModelReady", "GET", named + "{version}/ready"),
        "ModelMetadata": _page(app, "ModelMetadata", "GET", named + "{version}"),
        "RepositoryIndex": _page(app, "RepositoryIndex", "POST", "/v2/repository/index"),
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def _page(app: App, rpc: str, method: str, path: str) -> grpc.RpcMethodHandler:
    """An RPC that is answered by a page; the fields of the message are those of its JSON."""
    asks, tells = MESSAGES[f"{rpc}Request"], MESSAGES[f"{rpc}Response"]

    async def answer(request: Any, context: Context) -> Any:
        where, body = path, b""
        if "{name}" in path:
            version = f"/versions/{quote(request.version, '')}" if request.version else ""
            where = path.format(name=quote(request.name, "") or "-", version=version)
        if method == "POST":
            body = json.dumps({"ready": request.ready}).encode()
        page = app.page(method, where, body)
        value = json.loads(bytes(page.body))
        if "error" in value:
            await _abort(page, context)
        told = {"models": value} if isinstance(value, list) else value
        return json_format.ParseDict(told, tells(), ignore_unknown_fields=True)

    return grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=asks.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )


async def _abort(answer: Answer, context: Context) -> None:
    code = _CODES.get(answer.status, grpc.StatusCode.INTERNAL)
    await context.abort(code, json.loads(bytes(answer.body))["error"])
