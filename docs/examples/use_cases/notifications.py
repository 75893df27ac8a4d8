#!/usr/bin/env python3
"""Live updates for many sessions, over gRPC: to all of them or to one, a slow one among them, one that breaks off.

    notifications.py [NEXUSD]

Starts a daemon on a free port of this machine. Needs the packages of ../grpc/python/requirements.txt. Exit code 1 and a
sentence if something is not as it must be. Takes some seconds."""

import os
import signal
import subprocess
import sys
import threading
import time

import grpc

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
sys.path.append(os.path.join(ROOT, "grpc", "proto"))
pb, stubs = grpc.protos_and_services("sidecar.proto")   # stubs, made on the way

SECONDS, ALL_SECONDS = 20, 90   # longest wait for anything, and for everything
SESSIONS = 12                   # quick ones
UPDATES, BYTES = 1_500, 8_192   # of a busy minute, and the length of each
QUEUE = 100                     # updates that the daemon keeps for the slow one
# A connection for each session, as if each were a program of its own; and a slow one reads nothing ahead.
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]
NOTHING_AHEAD = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1_024)]


class Session:
    """What one user sees: what is for all, and what is for this user alone."""

    def __init__(self, address, user, options=(), **fields):
        self.user = user
        self.channel = grpc.insecure_channel(address, options=[*OPTIONS, *options])
        self.stub = stubs.SidecarServiceStub(self.channel)
        self.seen = []      # numbers of updates, in their order
        self.missed = 0
        self.had = {}       # the number of the last message of each topic
        self.go_on(self.stub.Subscribe(pb.SubscribeRequest(
            topics=["updates/all", f"updates/user/{user}"], client_id=user, **fields)))

    def go_on(self, events):
        self.events = events
        info = self.event()
        must(info.HasField("subscription_info"), f"a stream begins with what it is, not with {info}")
        self.info = info.subscription_info      # once it is here, nothing is missed

    def event(self):
        event = next(self.events)
        for message in (event.message, event.replay_message):
            if message.topic:
                self.had[message.topic] = message.sequence_number
        return event

    def text(self):
        """The next message, which is a short one."""
        while not (event := self.event()).HasField("message"):
            must(not event.HasField("gap"), f"nothing is missing here, not {event}")
        return event.message.payload.decode()

    def read_updates(self, until):
        """Reads numbered updates up to this one, and what is said of those that do not come."""
        while not self.seen or self.seen[-1] != until:
            event = self.event()
            if event.HasField("message"):
                self.seen.append(int(event.message.payload[:8]))
            elif event.HasField("gap"):
                must(event.gap.reason == "slow_consumer", f"its own slowness is the reason, not {event.gap}")
                must(event.gap.missed == sum(lost.last - lost.first + 1 for lost in event.gap.ranges),
                     f"the gap names what is missing: {event.gap}")
                self.missed += event.gap.missed

    def break_off(self):
        """As a laptop that is closed: the daemon goes on queueing for it."""
        self.events.cancel()

    def come_back(self):
        self.go_on(self.stub.ResumeSubscribe(pb.ResumeSubscribeRequest(
            subscription_id=self.info.subscription_id, last_sequence_per_topic=self.had,
            gap_recovery_mode=pb.GAP_RECOVERY_REPLAY_BUFFER)))


class Publisher:
    def __init__(self, address):
        self.stub = stubs.SidecarServiceStub(grpc.insecure_channel(address, options=OPTIONS))

    def tell(self, topic, text):
        """Says how many sessions it was handed to."""
        request = pb.PublishRequest(topic=topic, payload=text.encode())
        return self.stub.Publish(request, timeout=SECONDS).subscriber_count

    def update(self, numbers):
        requests = (pb.PublishRequest(topic="updates/all", payload=(b"%08d" % number).ljust(BYTES, b"."))
                    for number in numbers)
        answers = list(self.stub.PublishStream(requests, timeout=SECONDS))
        must(all(answer.success for answer in answers), "all updates are accepted")
        return answers


def run(address):
    publisher = Publisher(address)

    print("1. Everybody opens the page")
    sessions = [Session(address, f"user-{number}") for number in range(SESSIONS)]
    slow = Session(address, "slow", NOTHING_AHEAD, max_buffer_size=QUEUE)
    print(f"   {SESSIONS} sessions, and one whose network is bad: it will not read for a while")

    print("2. Something for all, something for one")
    count = publisher.tell("updates/all", "maintenance at noon")
    must(count == SESSIONS + 1, f"it is for all, not for {count}")
    must(all(session.text() == "maintenance at noon" for session in sessions), "each session gets it")
    count = publisher.tell("updates/user/user-3", "your parcel has arrived")
    must(count == 1 and sessions[3].text() == "your parcel has arrived", "one session gets what is for one")
    count = publisher.tell("updates/user/user-99", "are you there?")
    must(count == 0, f"nobody is told what is for somebody who is not there, not {count}")
    print(f"   handed to {SESSIONS + 1}, to 1, and to 0: user-99 is not there, and the publisher knows")

    print(f"3. {UPDATES} updates of {BYTES // 1024} KiB, as fast as they are taken; the slow one takes none")
    begin = time.monotonic()
    readers = [threading.Thread(target=session.read_updates, args=[UPDATES - 1], daemon=True) for session in sessions]
    for reader in readers:
        reader.start()
    publisher.update(range(UPDATES))
    for reader in readers:
        reader.join(SECONDS)
    must(all(session.seen == list(range(UPDATES)) and not session.missed for session in sessions),
         "each quick session has all updates, in order")
    print(f"   each of the {SESSIONS} others has had all of them, in order, after {time.monotonic() - begin:.1f} s")

    print("4. The slow one reads again")
    must(slow.text() == "maintenance at noon", "it begins where it was")
    slow.read_updates(UPDATES - 1)
    must(slow.missed > 0, "it was too slow for so many")
    must(slow.seen == sorted(set(slow.seen)) and len(slow.seen) + slow.missed == UPDATES,
         f"{len(slow.seen)} that came and {slow.missed} that were told as missed are all")
    print(f"   {len(slow.seen)} updates came, {slow.missed} were told as missed: together all {UPDATES}")
    publisher.tell("updates/user/slow", "welcome back")
    must(slow.text() == "welcome back", "it is up to date again")

    print("5. A laptop is closed and opened again")
    laptop = sessions[0]
    laptop.break_off()
    publisher.update(range(UPDATES, UPDATES + 50))
    publisher.tell("updates/user/user-0", "you have mail")
    laptop.come_back()
    must(not laptop.info.gap_detected, f"nothing is missing: {laptop.info}")
    replayed, mail = [], None
    while len(replayed) < 50 or not mail:
        event = laptop.event()
        must(not event.HasField("gap"), f"nothing is missing, not {event}")
        payload = event.replay_message.payload or event.message.payload
        if event.replay_message.topic == "updates/all":
            replayed.append(int(payload[:8]))
        elif payload:
            mail = payload.decode()
    must(replayed == list(range(UPDATES, UPDATES + 50)), f"all updates come, in order, not {replayed}")
    must(mail == "you have mail", f"and what was for it alone, not {mail}")
    print("   it has had the 50 updates that it slept through, and its mail")
    print("all is as it must be")


def must(is_so, sentence):
    if not is_so:
        raise AssertionError(sentence)


def main():
    def give_up(number, _):
        raise AssertionError("it is through in time" if number == signal.SIGALRM else "it may go on")
    signal.signal(signal.SIGALRM, give_up)
    signal.signal(signal.SIGTERM, give_up)
    signal.alarm(ALL_SECONDS)
    nexusd = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "target", "release", "nexusd")
    if not os.access(nexusd, os.X_OK):
        sys.exit(f"notifications.py: no program {nexusd}; `cargo xtask build`")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NEXUSD_")}
    daemon = subprocess.Popen(
        [nexusd, "--bind", "127.0.0.1", "--app-port", "0", "--unix-socket", "none", "--discovery", "off",
         "--health-port", "off", "--metrics-port", "off", "--log-level", "warn"],
        stdout=subprocess.PIPE, text=True, env=environment)
    try:
        ready = dict(word.split("=", 1) for word in daemon.stdout.readline().split() if "=" in word)
        must("tcp" in ready, f"{nexusd} says that it is ready")
        run(ready["tcp"])
    except AssertionError as error:
        sys.exit(f"notifications.py: must be: {error}")
    except grpc.RpcError as error:
        sys.exit(f"notifications.py: {error.code().name}: {error.details()}")
    finally:
        daemon.kill()
        daemon.wait()


if __name__ == "__main__":
    main()
