#!/usr/bin/env python3
"""Publishes, subscribes, and comes back to subscriptions, with stubs that are generated from the .proto file:

    python -m grpc_tools.protoc -I ../../../../grpc/proto --python_out=. --grpc_python_out=. sidecar.proto
    python generated.py [HOST:PORT [HOST:PORT of another node of its mesh]]

Each function from `publish_one` on shows one thing by itself. Exit code 1 and a sentence if something is not as it must
be."""

import contextlib
import sys
import threading
import time
import uuid

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

import sidecar_pb2 as pb
import sidecar_pb2_grpc

SECONDS = 20        # longest wait for an answer
CONNECT_SECONDS = 3 # and for a connection


class Subscription:
    """The events of a subscription, one by one, and what is needed to come back to it."""

    def __init__(self, stub, call):
        self.stub = stub
        self.call = call
        self.had = {}           # the number of the last message of each topic
        self.last_id = ""       # the last message of all
        self.last_ids = {}      # the last one of each topic and node
        self.info = self.next("subscription_info")  # once it is here, nothing is missed
        self.id = self.info.subscription_id

    def next(self, *kinds):
        """The next event, which must be of one of these kinds."""
        event = next(self.call)
        kind = event.WhichOneof("event")
        must(kind in kinds, f"the next event is a {' or a '.join(kinds)}, not {event}")
        body = getattr(event, kind)
        if isinstance(body, pb.Message):
            self.had[body.topic] = body.sequence_number
            self.last_id = self.last_ids[body.topic, body.source_node_id] = body.message_id
        return body

    def payloads(self, count, kind="message"):
        return [self.next(kind).payload for _ in range(count)]

    def must_end(self):
        must(next(self.call, None) is None, "nothing follows")

    def break_off(self):
        """As if the connection broke: the daemon keeps the subscription for a while."""
        self.call.cancel()

    def end(self):
        """Says that nobody will come back."""
        ended = self.stub.Unsubscribe(pb.UnsubscribeRequest(subscription_id=self.id), timeout=SECONDS)
        must(ended.success, f"a subscription can be ended, not {ended}")


class Sidecar:
    """The calls of the daemon. A timeout is for the whole of a stream: applications give theirs none."""

    def __init__(self, channel, other=None):
        self.channel = channel
        self.other = other      # another node of the mesh
        self.stub = sidecar_pb2_grpc.SidecarServiceStub(channel)

    def publish(self, topic, payload, **fields):
        return self.stub.Publish(pb.PublishRequest(topic=topic, payload=payload, **fields), timeout=SECONDS)

    def publish_stream(self, messages):
        requests = (pb.PublishRequest(topic=topic, payload=payload) for topic, payload in messages)
        return self.stub.PublishStream(requests, timeout=SECONDS)

    def subscribe(self, *topics, seconds=SECONDS, **fields):
        request = pb.SubscribeRequest(topics=topics, **fields)
        return Subscription(self.stub, self.stub.Subscribe(request, timeout=seconds))

    def resume(self, subscription_id, **fields):
        request = pb.ResumeSubscribeRequest(subscription_id=subscription_id, **fields)
        return Subscription(self.stub, self.stub.ResumeSubscribe(request, timeout=SECONDS))

    def unsubscribe(self, subscription_id, pause=False):
        request = pb.UnsubscribeRequest(subscription_id=subscription_id, pause=pause)
        return self.stub.Unsubscribe(request, timeout=SECONDS)

    def publish_numbers(self, topic, numbers):
        answers = list(self.publish_stream((topic, b"%d" % number) for number in numbers))
        must(all(answer.success for answer in answers), f"all are accepted, not {answers}")
        return answers


def publish_one(sidecar, topic):
    """A message arrives with all that was said of it, and its publisher learns who got it."""
    subscription = sidecar.subscribe(f"{topic}/+/temperature", client_id="generated.py")
    other = sidecar.subscribe(f"{topic}/#")
    headers = [pb.Header(key="unit", value=b"C"), pb.Header(key="unit", value=b"\x00\xff")]
    accepted = sidecar.publish(f"{topic}/boiler/temperature", b"21.5", content_type="text/plain",
                               correlation_id="7", headers=headers)
    must(accepted.success and accepted.sequence_number > 0, f"it has a number, not {accepted}")
    must(accepted.subscriber_count == 2, f"two subscriptions are told, not {accepted.subscriber_count}")
    message = subscription.next("message")
    must(message == other.next("message"), "both get the same")
    must((message.topic, message.payload, message.content_type, message.correlation_id, list(message.headers)) ==
         (f"{topic}/boiler/temperature", b"21.5", "text/plain", "7", headers), f"it is what was published: {message}")
    must(message.message_id == accepted.message_id, f"it is named {accepted.message_id}, not {message.message_id}")
    must(message.message_id == f"{message.source_node_id}/{message.origin_sequence}/{message.topic}",
         f"its name is its origin, its number there and its topic, not {message.message_id}")
    must(abs(message.timestamp_ms / 1_000 - time.time()) < SECONDS, f"it was accepted now, not {message.timestamp_ms}")
    subscription.end()
    other.end()
    return f"{message.payload.decode()} went to {accepted.subscriber_count} subscriptions"


def publish_many(sidecar, topic):
    """Messages of a stream arrive in order, and each is answered; what is wrong with one ends nothing."""
    subscription = sidecar.subscribe(f"{topic}/#")
    messages = [(topic if number != 700 else f"{topic}/#", b"%d" % number) for number in range(2_000)]
    answers = list(sidecar.publish_stream(messages))
    must(len(answers) == len(messages), f"there are {len(messages)} answers, not {len(answers)}")
    bad = answers.pop(700)
    must(not bad.success and bad.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0] and bad.error_message,
         f"the bad one is told, not {bad}")
    must(all(answer.success for answer in answers), "all others are accepted")
    must_be_dense([answer.sequence_number for answer in answers])
    received = [subscription.next("message") for _ in answers]
    must([message.payload for message in received] == [payload for name, payload in messages if name == topic],
         "they arrive in order, each once")
    must([message.message_id for message in received] == [answer.message_id for answer in answers],
         "the answers name them")
    subscription.end()
    return f"{len(answers)} were accepted, 1 refused: {bad.error_message}"


def pause(sidecar, topic):
    """A subscription that is paused waits for its client, who goes on behind the last message it had."""
    subscription = sidecar.subscribe(topic)
    sidecar.publish_numbers(topic, range(10))
    subscription.payloads(7)
    last_id = subscription.last_id
    paused = sidecar.unsubscribe(subscription.id, pause=True)
    must(paused.success and paused.pause_ttl_ms > 0, f"it is paused for a while, not {paused}")
    for _ in subscription.call:
        pass    # what was under way; then the stream ends
    newest = sidecar.publish_numbers(topic, range(10, 20))[-1]
    resumed = sidecar.resume(subscription.id, last_message_id=last_id)
    info = resumed.info
    must(info.replay_started and not info.gap_detected and info.missed_message_count == 0, f"all comes again: {info}")
    must(resumed.id == subscription.id and list(info.topics) == [topic], f"it is the same subscription: {info}")
    must_be_numbers(resumed.payloads(13, "replay_message"), range(7, 20))
    complete = resumed.next("replay_complete")
    must((complete.topic, complete.replayed_count, complete.latest_sequence) ==
         (topic, 13, newest.sequence_number), f"13 were replayed, up to {newest}, not {complete}")
    sidecar.publish_numbers(topic, range(20, 22))
    must_be_numbers(resumed.payloads(2), range(20, 22))
    resumed.end()
    return f"13 came again; it would have waited {paused.pause_ttl_ms // 1_000} s"


def come_back(sidecar, topic, position):
    """A stream breaks five times while messages go on. Who tells what it had gets each message exactly once."""
    batch, breaks, topics = 200, 5, [f"{topic}/{name}" for name in "abc"]
    subscription = sidecar.subscribe(f"{topic}/+")
    had, received, replayed = {}, [], 0

    def messages(batch_number):
        numbers = range(batch_number * batch, (batch_number + 1) * batch)
        return [(topics[number % len(topics)], b"%d" % number) for number in numbers]

    def receive(count):
        """Of so many messages all but the last few, which are under way when the stream breaks."""
        nonlocal replayed
        while len(received) < count:
            event = subscription.next("message", "replay_message", "replay_complete")
            if isinstance(event, pb.Message):
                received.append(event)
                had[event.topic] = event.sequence_number
            else:
                replayed += event.replayed_count

    for number in range(breaks):
        while_here = list(sidecar.publish_stream(messages(3 * number)))
        receive((3 * number + 1) * batch - 30)
        # One batch is published while the stream breaks, one while there is none.
        publisher = threading.Thread(target=lambda: list(sidecar.publish_stream(messages(3 * number + 1))))
        publisher.start()
        subscription.break_off()
        publisher.join()
        while_away = list(sidecar.publish_stream(messages(3 * number + 2)))
        must(all(answer.success for answer in while_here + while_away), "all messages are accepted")
        subscription = sidecar.resume(subscription.id, **position(had, received[-1].message_id))
        must(not subscription.info.gap_detected, f"nothing is lost: {subscription.info}")
        receive((3 * number + 3) * batch)
    published = sorted(message for number in range(3 * breaks) for message in messages(number))
    must(sorted((message.topic, message.payload) for message in received) == published, "each arrives, once")
    for name in topics:
        must_be_dense([message.sequence_number for message in received if message.topic == name])
    subscription.end()
    return f"{len(received)} messages arrived once each, {replayed} of them by replay"


def come_back_with_positions(sidecar, topic):
    return come_back(sidecar, topic, lambda had, last_id: {"last_sequence_per_topic": had})


def come_back_with_last_message(sidecar, topic):
    return come_back(sidecar, topic, lambda had, last_id: {"last_message_id": last_id})


def come_back_with_much_under_way(sidecar, topic):
    """The same for a client that had read little of what was sent to it: what nobody holds any more is told."""
    count, topics = 5_000, [f"{topic}/{name}" for name in "ab"]
    subscription = sidecar.subscribe(f"{topic}/+")
    list(sidecar.publish_stream((topics[number % 2], b"%1000d" % number) for number in range(count)))
    numbers = [int(payload) for payload in subscription.payloads(100)]
    subscription.break_off()
    resumed = sidecar.resume(subscription.id, last_sequence_per_topic=subscription.had,
                             gap_recovery_mode=pb.GAP_RECOVERY_REPLAY_BUFFER)
    missed = resumed.info.missed_message_count
    must(resumed.info.gap_detected == (missed > 0) and missed >= 0, f"a gap has a size: {resumed.info}")
    if missed:
        gap = resumed.next("gap")
        must(gap.missed == missed == sum(lost.last - lost.first + 1 for lost in gap.ranges), f"the gap tells which: {gap}")
    numbers += [int(payload) for payload in resumed.payloads(count - 100 - missed, "replay_message")]
    must(len(set(numbers)) == len(numbers) == count - missed, "each arrives once, or is told")
    resumed.end()
    return f"{count - missed} messages arrived once each, {missed} were told as lost"


def take_over(sidecar, topic):
    """A client whose old stream seems alive still goes on with a new one; the old one is told."""
    old = sidecar.subscribe(topic)
    sidecar.publish_numbers(topic, range(3))
    must_be_numbers(old.payloads(3), range(3))
    new = sidecar.resume(old.id, last_message_id=old.last_id)
    must_fail(grpc.StatusCode.ABORTED, lambda: next(old.call))
    sidecar.publish_numbers(topic, range(3, 5))
    while not isinstance(event := new.next("message", "replay_complete"), pb.Message):
        must(event.replayed_count == 0, f"nothing was missed, not {event}")
    must_be_numbers([event.payload] + new.payloads(1), range(3, 5))
    new.end()
    return "the new stream goes on, the old one has ended"


def anew_from_positions(sidecar, topic):
    """Without an id it is another subscription, which begins with what is kept of the topics (here: all of them)."""
    accepted = sidecar.publish_numbers(topic, range(5))
    replay = {"topics": [topic], "gap_recovery_mode": pb.GAP_RECOVERY_REPLAY_BUFFER}
    first = sidecar.resume("", last_sequence_per_topic={topic: accepted[1].sequence_number}, **replay)
    must(first.info.replay_started and not first.info.gap_detected, f"there is something to replay: {first.info}")
    must_be_numbers(first.payloads(3, "replay_message"), range(2, 5))
    complete = first.next("replay_complete")
    must((complete.replayed_count, complete.latest_sequence) == (3, accepted[4].sequence_number),
         f"3 were replayed, up to {accepted[4]}, not {complete}")
    sidecar.publish(topic, b"5")
    must_be_numbers(first.payloads(1), [5])

    second = sidecar.resume("", last_message_id=accepted[3].message_id, **replay)
    must_be_numbers(second.payloads(2, "replay_message"), range(4, 6))
    must(second.next("replay_complete").replayed_count == 2, "2 were replayed")
    third = sidecar.resume("", topics=[topic], last_sequence_per_topic={topic: accepted[1].sequence_number})
    must(not third.info.replay_started, f"nothing is replayed to who does not ask for it: {third.info}")
    must(third.next("gap").missed == -1, "but told: nobody has looked how much it is")
    sidecar.publish(topic, b"6")
    for subscription in first, second, third:
        must_be_numbers(subscription.payloads(1), [6])
        subscription.end()
    return "3 messages were replayed by number, 2 by the last message's name"


def gap(sidecar, topic):
    """What a queue could not hold is told, at its place."""
    subscription = sidecar.subscribe(topic, max_buffer_size=10, overflow_policy=pb.OVERFLOW_DROP_OLDEST)
    sidecar.unsubscribe(subscription.id, pause=True)
    subscription.must_end()
    accepted = sidecar.publish_numbers(topic, range(100))
    resumed = sidecar.resume(subscription.id)
    missed = resumed.info.missed_message_count
    must(resumed.info.gap_detected and 90 <= missed < 100, f"10 are kept at most, and one at least: {resumed.info}")
    lost, replayed = [], []
    while len(replayed) < 100 - missed:
        event = resumed.next("gap", "replay_message", "backpressure_warning")
        if isinstance(event, pb.Gap):
            lost.append(event)
        elif isinstance(event, pb.Message):
            replayed.append(event.payload)
    must_be_numbers(replayed, range(missed, 100))
    ranges = [(entry.topic, entry.first, entry.last) for told in lost for entry in told.ranges]
    must(ranges == [(topic, accepted[0].sequence_number, accepted[missed - 1].sequence_number)],
         f"the first {missed} are lost, not {lost}")
    must(lost[0].missed == missed and lost[0].reason == "slow_consumer", f"{missed} are lost, not {lost}")
    resumed.end()
    return f"{missed} messages were lost: {lost[0].reason}"


def retained(sidecar, topic):
    """The retained values come to who asks for them, ahead of later messages, until they are cleared."""
    for name in "ab":
        sidecar.publish(f"{topic}/{name}", b"is %s" % name.encode(), retain=True, content_type="text/plain")
    subscription = sidecar.subscribe(f"{topic}/#", receive_retained=True)
    sidecar.publish(f"{topic}/a", b"later")
    values = {}
    while len(values) < 2 or not isinstance(event, pb.Message) or event.payload != b"later":
        event = subscription.next("retained_message", "message")
        if event.payload != b"later":
            must(event.content_type == "text/plain", f"a value is the whole message, not {event}")
            values[event.topic] = event.payload
        else:
            must(f"{topic}/a" in values, "the value comes ahead of what follows it")
    must(values == {f"{topic}/a": b"is a", f"{topic}/b": b"is b"}, f"both values come, not {values}")
    anew = sidecar.resume("", topics=[f"{topic}/b"], gap_recovery_mode=pb.GAP_RECOVERY_RETAINED_ONLY)
    must(anew.next("retained_message").payload == b"is b", "who comes back after long can ask for them as well")
    sidecar.publish(f"{topic}/a", b"", retain=True)
    after = sidecar.subscribe(f"{topic}/+", receive_retained=True)
    must(after.next("retained_message").payload == b"is b", "the other value stays")
    sidecar.publish(f"{topic}/a", b"later")
    must(after.next("message").payload == b"later", "a cleared value does not come")
    sidecar.publish(f"{topic}/b", b"", retain=True)
    for each in subscription, anew, after:
        each.end()
    return f"{len(values)} values"


def end(sidecar, topic):
    """A subscription that is ended is gone, and its stream ends well."""
    subscription = sidecar.subscribe(topic)
    ended = sidecar.unsubscribe(subscription.id)
    must(ended.success and ended.pause_ttl_ms == 0, f"it is ended, not {ended}")
    subscription.must_end()
    must(subscription.call.code() == grpc.StatusCode.OK, f"its stream ends well, not {subscription.call.code()}")
    must(sidecar.publish(topic, b"x").subscriber_count == 0, "nobody is told any more")
    must_fail(grpc.StatusCode.NOT_FOUND, lambda: sidecar.resume(subscription.id))
    return "nobody is subscribed"


def unknown(sidecar, topic):
    """A subscription that nobody knows (or any more) is told as such: subscribe anew, with positions."""
    for name in uuid.uuid4().hex, "no id at all":
        refused = must_fail(grpc.StatusCode.NOT_FOUND, lambda: sidecar.resume(name))
        answer = sidecar.unsubscribe(name)
        must(not answer.success and answer.error_message, f"it cannot be ended, not {answer}")
    return refused


def bad_requests(sidecar, topic):
    """What cannot be is refused with a sentence."""
    bad = grpc.StatusCode.INVALID_ARGUMENT
    for name in "", f"{topic}/+", f"{topic}/#", "a" * 256:
        must_fail(bad, lambda: sidecar.publish(name, b"x"))
    must_fail(grpc.StatusCode.PERMISSION_DENIED, lambda: sidecar.publish("$SYS/mine", b"x"))
    for names in [], [""], [f"{topic}/#/more"], [f"{topic}/a+"], ["a" * 256]:
        must_fail(bad, lambda: sidecar.subscribe(*names))
    must_fail(bad, lambda: sidecar.publish(topic, b"x", ttl_ms=-1))
    must_fail(bad, lambda: sidecar.subscribe(topic, max_buffer_size=-1))
    must_fail(bad, lambda: sidecar.resume("", topics=[topic], last_message_id="no name of a message"))
    must_fail(bad, lambda: sidecar.resume("", topics=[topic], last_message_ids=[f"{topic}/1"]))
    must_fail(bad, lambda: sidecar.resume("", topics=[topic], last_sequence_per_topic={topic: -1}))
    return must_fail(bad, lambda: sidecar.publish(topic, bytes((4 << 20) + 1)))


def deadline(sidecar, topic):
    """A deadline ends a stream as a broken connection does: the subscription waits."""
    subscription = sidecar.subscribe(topic, seconds=0.5)
    refused = must_fail(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: next(subscription.call))
    sidecar.publish_numbers(topic, range(2))
    resumed = sidecar.resume(subscription.id)
    must_be_numbers(resumed.payloads(2, "replay_message"), range(2))
    resumed.end()
    return refused


def health(sidecar, topic):
    """The health service of all gRPC servers."""
    stub = health_pb2_grpc.HealthStub(sidecar.channel)
    for service in "", "nexusd.sidecar.SidecarService":
        request = health_pb2.HealthCheckRequest(service=service)
        is_serving = health_pb2.HealthCheckResponse.SERVING
        must(stub.Check(request, timeout=SECONDS).status == is_serving, f"`{service}` is served")
        watch = stub.Watch(request, timeout=SECONDS)
        must(next(watch).status == is_serving, f"`{service}` is served, for those who watch as well")
        watch.cancel()
    request = health_pb2.HealthCheckRequest(service="no.such.Service")
    must_fail(grpc.StatusCode.NOT_FOUND, lambda: stub.Check(request, timeout=SECONDS))
    return "serving"


def another_node(sidecar, topic):
    """Messages reach the subscriptions of other nodes. A client that moves to another node, or finds its own restarted,
    names the last messages that it had: names are the same everywhere, numbers are a node's own until it ends."""
    if not sidecar.other:
        return "not shown, no other node was told"
    subscription = sidecar.subscribe(topic)
    # Nodes that have just started take a moment to find each other, and to learn what is wanted.
    start, early = time.monotonic(), b"is anybody there?"
    while sidecar.other.publish(topic, early).subscriber_count == 0:
        must(time.monotonic() - start < SECONDS, "the other node learns that somebody is subscribed here")
    accepted = sidecar.other.publish_numbers(topic, range(3))
    while (message := subscription.next("message")).payload == early:
        pass
    must(message.message_id == accepted[0].message_id, f"the message is {accepted[0].message_id}, not {message}")
    subscription.end()
    moved = sidecar.other.resume("", topics=[topic], last_message_ids=subscription.last_ids.values(),
                                 gap_recovery_mode=pb.GAP_RECOVERY_REPLAY_BUFFER)
    must(not moved.info.gap_detected, f"nothing is lost: {moved.info}")
    must_be_numbers(moved.payloads(2, "replay_message"), range(1, 3))
    moved.end()
    return f"what {message.source_node_id} accepted arrived here"


def topics_and_peers(sidecar, topic):
    """What is subscribed to here, and who else is in the mesh."""
    filters = [f"{topic}/a", f"{topic}/+", f"{topic}/+"]
    subscriptions = [sidecar.subscribe(name) for name in filters]
    for counts in True, False:
        answer = sidecar.stub.GetTopics(pb.GetTopicsRequest(include_counts=counts), timeout=SECONDS)
        mine = {name: number for name, number in answer.topics.items() if name.startswith(topic)}
        expected = {name: filters.count(name) if counts else 0 for name in filters}
        must(mine == expected, f"the filters are {expected}, not {mine}")
    for subscription in subscriptions:
        subscription.end()
    peers = sidecar.stub.GetPeers(pb.GetPeersRequest(include_state=True), timeout=SECONDS).peers
    for peer in peers:
        must(peer.endpoint and peer.status in ("alive", "suspected", "dead"), f"a peer is told, not {peer}")
    if sidecar.other:
        origin = sidecar.other.publish(topic, b"x").message_id.split("/")[0]
        peers = sidecar.stub.GetPeers(pb.GetPeersRequest(include_state=True), timeout=SECONDS).peers
        told = {peer.instance_uuid.replace("-", ""): peer for peer in peers}
        must(origin in told, f"the other node is {origin}, not one of {list(told)}")
        must(told[origin].status == "alive", f"it is well, not {told[origin]}")
    return f"{len(mine)} filters, {len(peers)} peers"


SHOWN = [publish_one, publish_many, pause, come_back_with_positions, come_back_with_last_message,
         come_back_with_much_under_way, take_over, anew_from_positions, gap, retained, end, unknown, bad_requests,
         deadline, health, another_node, topics_and_peers]



def must(is_so, sentence):
    if not is_so:
        raise AssertionError(sentence)


def must_be_numbers(payloads, numbers):
    received, expected = [int(payload) for payload in payloads], list(numbers)
    must(received == expected, f"{expected} arrive, in order, not {received}")


def must_be_dense(numbers):
    """The numbers of a topic follow each other. (The first need not be 1: the daemon forgets silent topics.)"""
    must(numbers == list(range(numbers[0], numbers[0] + len(numbers))), f"numbers follow each other, not {numbers}")


def must_fail(code, call):
    """Returns the sentence that the daemon gives as the reason."""
    try:
        answer = call()
    except grpc.RpcError as error:
        must(error.code() == code, f"that fails with {code.name}, not with {error.code().name}: {error.details()}")
        must(error.details(), "the reason is told")
        return error.details()
    must(False, f"that fails with {code.name}, not with an answer: {answer}")


def main(addresses):
    with contextlib.ExitStack() as channels:
        sidecar = None
        for address in reversed(addresses):
            channel = channels.enter_context(grpc.insecure_channel(address))
            grpc.channel_ready_future(channel).result(timeout=CONNECT_SECONDS)
            sidecar = Sidecar(channel, sidecar)
        run = uuid.uuid4().hex[:8]  # topics of its own for each run
        for show in SHOWN:
            try:
                print(f"{show.__name__.replace('_', ' ')}: ", end="", flush=True)
                print(show(sidecar, f"generated/{run}/{show.__name__}"))
            except AssertionError as error:
                sys.exit(f"\ngenerated.py, {show.__name__}: must be: {error}")
            except grpc.RpcError as error:
                sys.exit(f"\ngenerated.py, {show.__name__}: {error.code().name}: {error.details()}")
    print("all is as it must be")


if __name__ == "__main__":
    addresses = sys.argv[1:3] or ["127.0.0.1:5672"]
    try:
        main(addresses)
    except grpc.FutureTimeoutError:
        sys.exit(f"generated.py: no daemon answers at {' or '.join(addresses)}; it listens for applications on port 5672 unless told otherwise")
