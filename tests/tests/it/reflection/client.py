"""What feedctl does, by a client that knows nothing but the address: services, methods and messages are asked of the server.

    client.py ADDRESS services
    client.py ADDRESS METHOD [REQUEST as JSON] [--count N]

Prints one JSON object per answer. Exit status 1 and an object with code, message and violations if the server refuses.
"""

import argparse
import json
import sys

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from google.rpc import error_details_pb2

SERVICE = "feedhandler.control.v1.Control"


def violations(error):
    status = rpc_status.from_call(error)
    found = []
    for detail in status.details if status else []:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            found += [{"field": v.field, "description": v.description} for v in bad.field_violations]
    return found


def call(channel, pool, name, request, count, timeout):
    method = pool.FindServiceByName(SERVICE).methods_by_name[name]
    request_class = message_factory.GetMessageClass(method.input_type)
    answer_class = message_factory.GetMessageClass(method.output_type)
    kind = channel.unary_stream if method.server_streaming else channel.unary_unary
    stub = kind(
        f"/{SERVICE}/{name}",
        request_serializer=request_class.SerializeToString,
        response_deserializer=answer_class.FromString,
    )
    answer = stub(json_format.ParseDict(request, request_class()), timeout=timeout)
    if not method.server_streaming:
        return [answer]
    answers = []
    for one in answer:
        answers.append(one)
        if len(answers) == count:
            answer.cancel()
            break
    return answers


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("method")
    parser.add_argument("request", nargs="?", default="{}")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=10)
    arguments = parser.parse_args()
    # Over a Unix socket gRPC's own libraries send the socket's path as the authority, which HTTP/2 servers in Rust refuse.
    with grpc.insecure_channel(arguments.address, [("grpc.default_authority", "localhost")]) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        if arguments.method == "services":
            print(json.dumps(sorted(database.get_services())))
            return 0
        pool = descriptor_pool.DescriptorPool(database)
        try:
            request = json.loads(arguments.request)
            answers = call(channel, pool, arguments.method, request, arguments.count, arguments.timeout)
        except grpc.RpcError as error:
            refusal = {"code": error.code().name, "message": error.details(), "violations": violations(error)}
            print(json.dumps(refusal))
            return 1
        for answer in answers:
            print(json_format.MessageToJson(answer, preserving_proto_field_name=True, indent=None))
    return 0


if __name__ == "__main__":
    sys.exit(main())
