"""The messages of the Open Inference Protocol's gRPC, as protobuf classes. [api-8]

Written down as the protocol has them, number by number, and made at import: nothing is generated.
The names of nested messages are flat here and maps are lists of entries, which on the wire is the
same. A pool of their own keeps them apart from a client's in the same process.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE: Final = "inference.GRPCInferenceService"
_PACKAGE: Final = "inference"

_MESSAGES: Final[dict[str, str]] = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready 1",
    "ModelReadyRequest": "string name 1, string version 2",
    "ModelReadyResponse": "bool ready 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name 1, string version 2, repeated string extensions 3",
    "ModelMetadataRequest": "string name 1, string version 2",
    "TensorMetadata": "string name 1, string datatype 2, repeated int64 shape 3",
    "ModelMetadataResponse": (
        "string name 1, repeated string versions 2, string platform 3,"
        " repeated TensorMetadata inputs 4, repeated TensorMetadata outputs 5"
    ),
    "RepositoryIndexRequest": "string repository_name 1, bool ready 2",
    "ModelIndex": "string name 1, string version 2, string state 3, string reason 4",
    "RepositoryIndexResponse": "repeated ModelIndex models 1",
    "InferParameter": (
        "bool bool_param 1, int64 int64_param 2, string string_param 3, double double_param 4,"
        " uint64 uint64_param 5"
    ),
    "Parameter": "string key 1, InferParameter value 2",
    "InferTensorContents": (
        "repeated bool bool_contents 1, repeated int32 int_contents 2,"
        " repeated int64 int64_contents 3, repeated uint32 uint_contents 4,"
        " repeated uint64 uint64_contents 5, repeated float fp32_contents 6,"
        " repeated double fp64_contents 7, repeated bytes bytes_contents 8"
    ),
    "InferInputTensor": (
        "string name 1, string datatype 2, repeated int64 shape 3, repeated Parameter parameters 4,"
        " InferTensorContents contents 5"
    ),
    "InferRequestedOutputTensor": "string name 1, repeated Parameter parameters 2",
    "ModelInferRequest": (
        "string model_name 1, string model_version 2, string id 3, repeated Parameter parameters 4,"
        " repeated InferInputTensor inputs 5, repeated InferRequestedOutputTensor outputs 6,"
        " repeated bytes raw_input_contents 7"
    ),
    "InferOutputTensor": "string name 1, string datatype 2, repeated int64 shape 3",
    "ModelInferResponse": (
        "string model_name 1, string model_version 2, string id 3,"
        " repeated InferOutputTensor outputs 5, repeated bytes raw_output_contents 6"
    ),
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="open_inference_grpc.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for words in filter(None, fields.split(",")):
            *repeated, kind, field, number = words.split()
            added = message.field.add(name=field, number=int(number))
            added.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind in _MESSAGES:
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                added.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    # Which of its fields a parameter holds, even where that is 0 or empty.
    (parameter,) = (one for one in file.message_type if one.name == "InferParameter")
    parameter.oneof_decl.add(name="parameter_choice")
    for choice in parameter.field:
        choice.oneof_index = 0
    return file


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    found = pool.AddSerializedFile(_file().SerializeToString())
    file = found or pool.FindFileByName("open_inference_grpc.proto")
    return {
        name: message_factory.GetMessageClass(file.message_types_by_name[name])
        for name in _MESSAGES
    }


MESSAGES: Final = _classes()
"""The classes by name."""
