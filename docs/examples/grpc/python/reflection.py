#!/usr/bin/env python3
"""Publishes and subscribes, knowing nothing but the daemon's address: it asks the daemon (by reflection) what can be
called and what the messages look like. No .proto file, no generated code.

    python reflection.py [HOST:PORT]

Prints what it sees. Exit code 1 and a sentence if something is not as it must be."""

import faulthandler
import sys
import time
import uuid

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SECONDS = 10        # longest wait for an answer
CONNECT_SECONDS = 3 # and for a connection
ALL_SECONDS = 60    # and of the whole program


class Service:
    """A service as the daemon describes it, with a method for each of its calls."""

    def __init__(self, channel, name):
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        self.methods = pool.FindServiceByName(name).methods
        for method in self.methods:
            setattr(self, method.name, self.call(channel, name, method))

    @staticmethod
    def call(channel, name, method):
        """A function that takes the fields of the request. Streams are not given up: they have no deadline."""
        Request, Response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        kind = {(False, False): channel.unary_unary, (False, True): channel.unary_stream,
                (True, True): channel.stream_stream}[method.client_streaming, method.server_streaming]
        call = kind(f"/{name}/{method.name}", Request.SerializeToString, Response.FromString)
        if method.client_streaming:
            return lambda requests: call(Request(**fields) for fields in requests)
        seconds = None if method.server_streaming else SECONDS
        return lambda **fields: call(Request(**fields), timeout=seconds)


def main(address):
    # What waits longer than anything may is ended, and says where it waited.
    faulthandler.dump_traceback_later(ALL_SECONDS, exit=True)
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=CONNECT_SECONDS)
        names = ProtoReflectionDescriptorDatabase(channel).get_services()
        print("services:", ", ".join(sorted(names)))
        sidecar = Service(channel, "nexusd.sidecar.SidecarService")
        print("calls:   ", ", ".join(method.name for method in sidecar.methods))
        topic = f"reflection/{uuid.uuid4().hex[:8]}"    # of its own for each run
        live(sidecar, f"{topic}/live")
        many(sidecar, f"{topic}/many")
        retained(sidecar, f"{topic}/retained")
    print("all is as it must be")


def live(sidecar, topic):
    """A message reaches who is subscribed, with everything that was said of it."""
    events = sidecar.Subscribe(topics=[f"{topic}/+"], client_id="reflection.py")
    info = next(events).subscription_info   # once this is here, nothing is missed
    print(f"\nsubscribed to {info.topics[0]} as {info.subscription_id}")
    headers = [{"key": "unit", "value": b"\xc2\xb0C"}, {"key": "raw", "value": b"\x00\xff"}]
    accepted = sidecar.Publish(topic=f"{topic}/boiler", payload=b"21.5", content_type="text/plain",
                               correlation_id="7", headers=headers)
    print(f"published {accepted.message_id}, subscriptions that get it: {accepted.subscriber_count}")
    message = next(events).message
    print(f"received  {message.topic}: {message.payload.decode()} {message.content_type}, "
          f"headers {', '.join(header.key for header in message.headers)}")
    must(accepted.success and accepted.subscriber_count == 1, f"one subscription is told, not {accepted}")
    must(message.message_id == accepted.message_id, f"the message is {accepted.message_id}, not {message}")
    must(message.payload == b"21.5" and message.content_type == "text/plain" and message.correlation_id == "7",
         f"the message says what was published, not {message}")
    must([(header.key, header.value) for header in message.headers] ==
         [(header["key"], header["value"]) for header in headers], f"the headers arrive in order, not {message}")
    sidecar.Unsubscribe(subscription_id=info.subscription_id)


def many(sidecar, topic):
    """A stream of messages arrives in order; each is answered."""
    events = sidecar.Subscribe(topics=[topic])
    info = next(events).subscription_info
    payloads = [b"%d" % number for number in range(500)]
    answers = list(sidecar.PublishStream({"topic": topic, "payload": payload} for payload in payloads))
    received = [next(events).message for _ in payloads]
    print(f"\npublished {len(answers)} in a stream, received {len(received)}")
    must(all(answer.success for answer in answers), "all messages of the stream are accepted")
    must([message.payload for message in received] == payloads, "the messages arrive in order, each once")
    must([message.message_id for message in received] == [answer.message_id for answer in answers],
         "the answers name the messages")
    sidecar.Unsubscribe(subscription_id=info.subscription_id)


def retained(sidecar, topic):
    """Who subscribes later gets a topic's retained value, until its time is over."""
    ttl_seconds = 1

    def first_event():
        """What a new subscription is told first: the retained value, or else a message that comes later."""
        events = sidecar.Subscribe(topics=[topic], receive_retained=True)
        info = next(events).subscription_info
        sidecar.Publish(topic=topic, payload=b"later")
        event = next(events)
        sidecar.Unsubscribe(subscription_id=info.subscription_id)
        return event

    sidecar.Publish(topic=topic, payload=b"on", retain=True)
    event = first_event()
    print(f"\nretained  {event.retained_message.topic}: {event.retained_message.payload.decode()}")
    must(event.retained_message.payload == b"on", f"the retained value comes first, not {event}")
    start = time.monotonic()
    sidecar.Publish(topic=topic, payload=b"soon over", retain=True, ttl_ms=1_000 * ttl_seconds)
    while (event := first_event()).HasField("retained_message"):
        must(event.retained_message.payload == b"soon over", f"the newest value is retained, not {event}")
        must(time.monotonic() - start < SECONDS, "a value goes when its ttl is over")
    seconds = time.monotonic() - start
    print(f"one with a ttl of {ttl_seconds} s was gone after {seconds:.2f} s")
    must(seconds > 0.9 * ttl_seconds, f"a value stays until its ttl is over, not {seconds} s")


def must(is_so, sentence):
    if not is_so:
        sys.exit(f"reflection.py: must be: {sentence}")


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:5672")
    except grpc.FutureTimeoutError:
        sys.exit(f"reflection.py: no daemon answers at {sys.argv[1:] or '127.0.0.1:5672'}; it listens for applications on port 5672 unless told otherwise")
    except grpc.RpcError as error:
        sys.exit(f"reflection.py: {error.code().name}: {error.details()}")
