#!/usr/bin/env python3
"""Tries the examples of this directory: reads the golden vectors, runs subscribe.py against a daemon made of golden
bytes, and runs subscribe.py and publish.py against the real daemon, over TCP and over the unix socket.

Build the daemon first: cargo build -p nexusd. For Linux, like the daemon. Exit code 0 if all is well."""

import argparse
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import wire

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
GOLDEN = os.path.join(REPOSITORY, "tests", "golden")
STEP_SECONDS, ALL_SECONDS = 30, 300     # longest time of one step, and of everything
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("NEXUSD_")}
directory = None                        # for the output of the programs, and a socket
started = []                            # every Program


class Program:
    """A program that was started. Its output goes to files, so that it never waits for a reader."""

    def __init__(self, *command, stdin=b""):
        path = os.path.join(directory, str(len(started)))
        with open(path + ".in", "wb") as file:
            file.write(stdin)
        self.paths = {"out": path + ".out", "err": path + ".err"}
        with open(path + ".in", "rb") as i, open(path + ".out", "wb") as o, open(path + ".err", "wb") as e:
            self.process = subprocess.Popen(command, stdin=i, stdout=o, stderr=e, env=ENVIRONMENT)
        started.append(self)

    def read(self, which="out"):
        with open(self.paths[which], encoding="utf-8") as file:
            return file.read()

    def until(self, which, pattern):
        """Waits for output that matches."""
        deadline = time.monotonic() + STEP_SECONDS
        while True:
            ended = self.process.poll() is not None
            found = re.search(pattern, self.read(which))
            if found:
                return found
            assert not ended, f"ended before it printed {pattern!r}: {self.read('err')}"
            assert time.monotonic() < deadline, f"did not print {pattern!r} in time: {self.read(which)[-500:]!r}"
            time.sleep(0.02)

    def end(self, code, out=None, err=None):
        """Waits for the end, and compares exit code, stdout, and stderr (which a pattern must match wholly)."""
        try:
            self.process.wait(STEP_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end in time; it printed {self.read('out')[-500:]!r} {self.read('err')!r}")
        got = self.process.returncode
        assert got == code, f"exit code {got} instead of {code}: {self.read('err')}"
        assert out is None or self.read() == out, f"printed {self.read()!r} instead of {out!r}"
        assert err is None or re.fullmatch(err, self.read("err")), f"stderr is {self.read('err')!r}, not {err!r}"

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()     # ends it also while SIGSTOP holds it
            self.process.wait()


def example(name, *words, stdin=b""):
    return Program(sys.executable, os.path.join(HERE, name), *words, stdin=stdin)

def subscribe(where, topic_filter, *words):
    """A subscriber that is known to be subscribed."""
    program = example("subscribe.py", *where, topic_filter, *words)
    program.until("err", "subscribed to ")
    return program

def publish(where, topic, *payloads):
    return example("publish.py", *where, topic, "-", stdin=b"".join(p + b"\n" for p in payloads))


class Daemon(Program):
    def __init__(self, nexusd, unix_socket, *flags):
        alone = ("--discovery", "off", "--app-port", "0", "--bind", "127.0.0.1", "--health-port", "off",
                 "--metrics-port", "off")
        super().__init__(nexusd, *alone, "--unix-socket", unix_socket, *flags)
        self.tcp = [self.until("out", r"NexusD is ready tcp=(\S+) .*\n").group(1)]
        unix = re.search(r" unix=(\S+)", self.read())
        self.unix = ["--unix", unix.group(1)] if unix_socket != "none" else None


# ---- Golden vectors (tests/golden/README.md) ----

def golden(name):
    with open(os.path.join(GOLDEN, name + ".hex"), encoding="utf-8") as file:
        return bytes.fromhex("".join(line.split("#")[0] for line in file))

def hex_id(b, index):
    high, low = struct.unpack("<QQ", wire.id16(b, index))
    return f"{high:016x}{low:016x}"

def entries(layout, *names):
    return lambda b, index: [dict(zip(names, values)) for values in wire.structs(b, index, layout)]

def num(form):
    return lambda b, index: wire.number(b, index, form)

FIELDS = {      # of the bodies that the examples read, in the order of their index
    "Hello": dict(major=num("B"), minor=num("B"), role=num("B"), name=wire.text, software=wire.text),
    "Welcome": dict(major=num("B"), minor=num("B"), node=hex_id, software=wire.text, max_payload=num("I"),
                    max_metadata=num("I"), cluster=wire.text),
    "Goodbye": dict(reason=wire.text, last_accepted=num("Q")),
    "Error": dict(code=num("H"), message=wire.text, fatal=num("?"), request=num("Q"), offset=num("Q"),
                  kind=num("B")),
    "TopicBind": dict(name=wire.text),
    "PublishAck": dict(entries=entries("QQIIIB3x", "publisher_sequence", "sequence", "delivered", "dropped",
                                       "blocked", "status")),
    "SubscriptionInfo": dict(request=num("Q"), subscription=hex_id, gap_detected=num("?"), missed_count=num("q"),
                             replay_started=num("?")),
    "Deliver": dict(subscription=hex_id, mode=num("B"), delivery_count=num("I")),
    "Gap": dict(subscription=hex_id, reason=num("B"), missed=num("Q"), entries=entries("I4xQQ", "topic", "first",
                "last"), rest=num("Q")),
}

def check_reading():
    with open(os.path.join(GOLDEN, "index.json"), encoding="utf-8") as file:
        frames = json.load(file)["frames"]
    for entry in frames:
        data = golden(entry["file"][:-4])
        got = wire.Frame(data)
        header = {k: v for k, v in entry["header"].items() if k not in ("total", "metadata_len")}
        assert {k: getattr(got, k) for k in header} == header, entry["file"]
        assert len(got.metadata) == entry["header"]["metadata_len"], entry["file"]
        if entry["payload"] is not None:
            assert got.body.hex() == entry["payload"], entry["file"]
        for index, (name, read) in enumerate(FIELDS.get(entry["kind"], {}).items()):
            value, want = read(got.body, index), entry["body"][name]
            assert value == want or want is None and not value, f"{entry['file']}: {name} is {value!r}, not {want!r}"

    header = wire.HEADER.pack(48 + 8 + 3, wire.MESSAGE, 0, 5, 0, 0, 0, 0, 0, 0, 0)
    got = wire.Frame(header + b"12345\0\0\0abc")
    assert (got.metadata, got.body) == (b"12345", b"abc"), "padding behind metadata"


# ---- subscribe.py against a daemon made of golden bytes ----

def read_frame(sock):
    header = sock.recv(48, socket.MSG_WAITALL)
    return wire.Frame(header + sock.recv(wire.pad8(struct.unpack_from("<I", header)[0]) - 48, socket.MSG_WAITALL))

def served(serve):
    """Runs subscribe.py against the function, which gets the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(STEP_SECONDS)
        program = example("subscribe.py", "127.0.0.1:%d" % listener.getsockname()[1], "plant/+/temperature")
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(STEP_SECONDS)
            hello = read_frame(sock)
            assert (hello.kind, wire.number(hello.body, 0, "B"), wire.text(hello.body, 3)) == (1, 1, "subscribe.py")
            serve(sock)
    return program

def open_golden(sock):
    sock.sendall(golden("welcome"))
    got = read_frame(sock)
    assert got.kind == wire.SUBSCRIBE and wire.number(got.body, 0, "Q") == 1
    assert b"\x13\0\0\0plant/+/temperature\0" in got.body
    sock.sendall(golden("subscription_info"))

def check_golden_conversation():
    def serve(sock):
        open_golden(sock)
        for byte in golden("ping"):         # in the smallest pieces there are
            sock.sendall(bytes([byte]))
        pong = read_frame(sock)
        assert (pong.kind, pong.sequence) == (wire.PONG, 77), "the ping was not answered"
        sock.sendall(b"".join(golden(name) for name in (
            "topic_bind", "deliver", "message", "heartbeat", "message_metadata", "gap", "error_fatal")))
    topic = "plant/boiler/temperature"
    served(serve).end(1, f"{topic} 1 21.5\n{topic} 2 21.75\n",
                      "subscribed to .*\n"
                      f"gap: 17 messages lost, the daemon's memory limit was reached: {topic} 10 to 19, "
                      f"{topic} 30 to 30, topic id 8 3 to 3, 5 more\n"
                      "The daemon closed the connection: frame at byte 96: .*\n")

def check_golden_ends():
    def goodbye(sock):
        open_golden(sock)
        sock.sendall(golden("goodbye") + golden("topic_bind") + golden("deliver") + golden("message"))
    served(goodbye).end(1, "plant/boiler/temperature 1 21.5\n",
                        "subscribed .*\nThe daemon ended the connection: the daemon is stopping.\n")
    served(open_golden).end(1, "", "subscribed .*\nThe daemon ended the connection without a word.\n")
    served(lambda sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
           ).end(1, "", r".* does not speak the NexusD protocol\.\n")
    served(lambda sock: sock.sendall(golden("hello"))).end(1, "", r".* does not answer like a NexusD daemon\.\n")
    served(lambda sock: time.sleep(wire.CONNECT_SECONDS + 1)).end(1, "", r".* does not answer\.\n")


# ---- The real daemon ----

def check_conversation(where):
    """What is published arrives: all of it, in order, and nothing else."""
    every = subscribe(where, "check/#", "--count", "6")
    some = subscribe(where, "check/+/b", "--count", "4")
    publish(where, "check/a/b", b"21.5", b"", "grüße ☂".encode()).end(
        0, "".join(f"check/a/b {n} subscriptions=2\n" for n in (1, 2, 3)), "")
    publish(where, "check/a", b"two words").end(0, "check/a 1 subscriptions=1\n", "")
    publish(where, "other/a/b", b"not for them").end(0, "other/a/b 1 subscriptions=0\n", "")
    publish(where, "check/a/b", b"tab\tand \xff\x00").end(0, "check/a/b 4 subscriptions=2\n", "")
    of_b = ["check/a/b 1 21.5\n", "check/a/b 2 \n", "check/a/b 3 grüße ☂\n", "check/a/b 4 tab\\tand \\xff\\x00\n"]
    some.end(0, "".join(of_b), "subscribed .*\n")
    big = b"x" * (1 << 20)
    publish(where, "check/big", big).end(0)
    every.end(0, "".join(of_b[:3] + ["check/a 1 two words\n"] + of_b[3:] + [f"check/big 1 {big.decode()}\n"]),
              "subscribed .*\n")

def check_many(where):
    numbers = [b"%d" % n for n in range(1, 5001)]
    reader = subscribe(where, "many", "--count", "5000")
    publish(where, "many", *numbers).end(0)
    reader.end(0, "".join(f"many {n} {n}\n" for n in range(1, 5001)), "subscribed .*\n")

def check_errors(where):
    example("subscribe.py", *where, "a/#/b").end(1, "", r"The daemon refused: 'a/#/b'.*\.\n")
    example("publish.py", *where, "a/+", "x").end(1, "", r"The daemon refused: 'a/\+'.*\.\n")
    example("publish.py", *where, "$SYS/x", "x").end(1, "", r"The daemon refused: .*\$SYS/x.*\.\n")
    publish(where, "a", b"x" * (5 << 20)).end(1, "", r"A payload has 5242880 bytes; the daemon accepts 4194304\.\n")

def check_no_daemon():
    with socket.socket() as unused:     # bound and not listening: refuses, and nobody else takes the port
        unused.bind(("127.0.0.1", 0))
        example("subscribe.py", "127.0.0.1:%d" % unused.getsockname()[1], "a").end(
            1, "", r"Cannot connect to 127\.0\.0\.1:\d+: .*\n")
    example("subscribe.py", "--unix", os.path.join(directory, "none"), "a").end(1, "", "Cannot connect to .*\n")
    example("subscribe.py", "nowhere", "a").end(1, "", "'nowhere' is no address; .*\n")
    example("subscribe.py").end(2, "")
    example("subscribe.py", "--count", "0", "a").end(2, "")

def check_help():
    for name in ("subscribe.py", "publish.py"):
        program = example(name, "--help")
        program.end(0, None, "")
        assert program.read().startswith(f"usage: {name} [--unix NAME | HOST:PORT] "), program.read()

def slow_reader(where, meanwhile):
    """Stops a subscriber, publishes more than its queue of 10 messages and a unix socket hold, and lets it go on."""
    reader = subscribe(where, "slow")
    reader.process.send_signal(signal.SIGSTOP)
    writer = publish(where, "slow", *[b"x" * 16384] * 600, b"last")
    meanwhile(writer)
    reader.process.send_signal(signal.SIGCONT)
    writer.end(0)
    reader.until("out", r"slow 601 last\n")
    reader.stop()
    return [int(n) for n in re.findall(r"^slow (\d+) ", reader.read(), re.M)], reader.read("err")

def check_gap(where):
    """What a slow subscriber lost is told, exactly."""
    numbers, err = slow_reader(where, lambda writer: writer.end(0))
    gaps = re.findall(r"^gap: (\d+) messages lost, this client reads too slowly: slow (\d+) to (\d+)$", err, re.M)
    assert gaps, err
    for missed, first, last in gaps:
        assert int(missed) == int(last) - int(first) + 1, err
        numbers += range(int(first), int(last) + 1)
    assert sorted(numbers) == list(range(1, 602)), "received and lost messages are not all, or some are both"

def check_block(where):
    """A daemon that holds publishers back loses nothing."""
    def meanwhile(writer):
        time.sleep(1)
        assert writer.process.poll() is None, "publisher was not held back"
    numbers, err = slow_reader(where, meanwhile)
    assert numbers == list(range(1, 602)) and "gap" not in err, err

def check_stop(daemon):
    reader = subscribe(daemon.tcp, "stop")
    daemon.process.send_signal(signal.SIGTERM)
    reader.end(1, "", "subscribed .*\nThe daemon ended the connection: the daemon is stopping.\n")
    daemon.end(0)

def check_idle(daemon, quiet, since):
    """Subscribers that hear and say nothing for 45 seconds answer the daemon's pings, and stay."""
    time.sleep(max(0, since + 45 - time.monotonic()))
    for reader in quiet:
        reader.until("err", "subscribed")
    publish(daemon.tcp, "quiet", b"still there").end(0, "quiet 1 subscriptions=2\n", "")
    for reader in quiet:
        reader.end(0, "quiet 1 still there\n", "subscribed .*\n")


def main():
    global directory
    default = [os.path.join(REPOSITORY, "target", profile, "nexusd") for profile in ("debug", "release")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nexusd", metavar="PATH", default=next(filter(os.path.exists, default), default[0]),
                        help="the daemon (default: target/debug/nexusd, then target/release/nexusd)")
    parser.add_argument("--idle", action="store_true", help="also stay silent for 45 seconds, for the daemon's pings")
    args = parser.parse_args()
    if not os.access(args.nexusd, os.X_OK):
        sys.exit(f"There is no daemon at {args.nexusd}; build it with: cargo build -p nexusd")

    def give_up(number, _):
        raise SystemExit("took too long" if number == signal.SIGALRM else "was told to end")
    signal.signal(signal.SIGALRM, give_up)
    signal.signal(signal.SIGTERM, give_up)
    signal.alarm(ALL_SECONDS)
    results = []

    def check(name, function, *values):
        begin = time.monotonic()
        try:
            function(*values)
            results.append(True)
            print(f"ok      {name} ({time.monotonic() - begin:.1f} s)", flush=True)
        except (AssertionError, OSError, struct.error) as e:
            results.append(False)
            print(f"FAILED  {name}: {type(e).__name__} {e}", flush=True)

    with tempfile.TemporaryDirectory() as directory:
        try:
            plain = Daemon(args.nexusd, "none")
            auto = Daemon(args.nexusd, "auto")
            at_path = Daemon(args.nexusd, os.path.join(directory, "socket"))
            short = Daemon(args.nexusd, "auto", "--subscriber-queue-limit", "10")
            block = Daemon(args.nexusd, "auto", "--subscriber-queue-limit", "10", "--backpressure-policy", "block",
                           "--block-timeout-ms", "30s")
            since = time.monotonic()
            quiet = [subscribe(w, "quiet", "--count", "1") for w in (auto.tcp, auto.unix)] if args.idle else []
            check("help", check_help)
            check("golden vectors are read", check_reading)
            check("a conversation of golden vectors", check_golden_conversation)
            check("ends of conversations", check_golden_ends)
            check("no daemon there", check_no_daemon)
            check("conversation over TCP", check_conversation, plain.tcp)
            check("conversation over an abstract unix socket", check_conversation, auto.unix)
            check("conversation over a unix socket with a path", check_conversation, at_path.unix)
            check("many messages over TCP", check_many, plain.tcp)
            check("many messages over a unix socket", check_many, auto.unix)
            check("errors over TCP", check_errors, plain.tcp)
            check("errors over a unix socket", check_errors, auto.unix)
            check("a slow subscriber is told what it lost", check_gap, short.unix)
            check("publishers are held back", check_block, block.unix)
            if quiet:
                check("45 s of silence", check_idle, auto, quiet, since)
            check("the daemon stops", check_stop, plain)
        except (AssertionError, SystemExit) as e:
            results.append(False)
            print(f"FAILED  {e}")
        finally:
            for program in started:
                program.stop()
    print(f"{results.count(True)} passed, {results.count(False)} failed")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
